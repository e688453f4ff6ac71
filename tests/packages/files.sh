#!/bin/bash
# Both packages bring the same files, but for what each distribution has its own place or custom for.
set -euo pipefail
deb=$1 rpm=$2
own='usr/share/(lintian|licenses)/|/(copyright|changelog.Debian)$'
of_deb=$(dpkg-deb --fsys-tarfile "$deb" | tar -t | grep -v '/$' | sed -e 's|^\./||' -e 's|\.gz$||' -e 's|vendor-completions|site-functions|' | grep -Ev "$own" | sort)
of_rpm=$(rpm -qlp "$rpm" 2>/dev/null | sed -e 's|^/||' -e 's|\.gz$||' | grep -Ev "$own" | sort)
diff <(echo "$of_deb") <(echo "$of_rpm")
grep -qx usr/bin/process-supervisor <<<"$of_deb"
# The paths in the programs say nothing of the machine that built them.
for program in process-supervisor supervisorctl; do
    if dpkg-deb --fsys-tarfile "$deb" | tar -xO "./usr/bin/$program" | grep -aqF "$PWD"; then
        echo "$program names $PWD" >&2
        exit 1
    fi
done
