#!/bin/bash
# The life of a package on a host: installed, used, upgraded, removed, purged. Run in the private systemd, whose files are
# its own, for the deb and for the rpm: `make test-packages`.
set -euo pipefail
old=$1 new=$2 kind=${1##*.}
export DEBIAN_FRONTEND=noninteractive
put() { # package, options of a downgrade...
    case $kind in
    deb) dpkg -i ${2:+--force-downgrade} "$1" ;;
    rpm) rpm --upgrade --nodeps ${2:+--oldpackage} "$1" ;; # the database of this host knows nothing of what debs brought
    esac
}
fail() {
    echo "FAILED: $*" >&2
    systemctl status --no-pager process-supervisor >&2 || true
    journalctl --no-pager -n 40 -u process-supervisor >&2 || true
    exit 1
}
. "$(dirname "$0")/ask.sh"

echo "== install"
rm -f /usr/sbin/policy-rc.d # which images of containers have, so that nothing starts
put "$old" >/dev/null
[ "$kind" = deb ] || systemctl start process-supervisor # as the README says
systemctl is-enabled -q process-supervisor || fail "it is not enabled"
until_true 20 "the daemon" systemctl is-active -q process-supervisor
supervisorctl validate >/dev/null || fail "the configuration of the package is not valid"
[ "$(stat -c %a /etc/process-supervisor/supervisor_config.json)" = 600 ] || fail "others may read the configuration"
[ "$(stat -c '%a %G' /run/process-supervisor/supervisor.sock)" = "660 process-supervisor" ] || fail "the socket is not the group's"
systemd-analyze security --threshold=20 process-supervisor.service | tail -1 || fail "the daemon may do more than it needs"
! systemctl is-active -q process-supervisor-checks.service || fail "exec checks are served before there is one"
ls /usr/share/man/man8/process-supervisor.8* /usr/share/man/man1/supervisorctl-start.1* >/dev/null || fail "no manual"

echo "== services, with what the hardening might be in the way of"
useradd --system --create-home --home-dir /home/app app
mkdir -p /home/app/bin && chmod 700 /home/app
printf '#!/bin/sh\n[ "$(id -un)" = app ] && [ "$SECRET" = s3cret ] && grep -q supervisor-checked /proc/self/cgroup && echo "as $(id -un)"\n' >/home/app/bin/check
chmod 755 /home/app/bin/check && chown -R app: /home/app
python3 - <<'P'
import json
services = {f"many-{n}": {"command": "sleep", "args": ["100000"]} for n in range(50)}
services["checked"] = {"command": "sleep", "args": ["100000"], "user": "app", "working_directory": "/home/app", "environment": {"SECRET": "s3cret"},
    "health_check": {"type": "exec", "command": "/home/app/bin/check", "interval": 1, "timeout": 1},
    "resource_limits": {"max_memory_mb": 64, "max_tasks": 32}}
services["hidden"] = {"command": "sleep", "args": ["100000"], "user": "app", "health_check": {"type": "process", "interval": 0.5, "timeout": 0.5}}
services["ill"] = {"command": "false", "restart_policy": {"retry_delay": 600, "max_retries": 5}}
json.dump({"supervisor": {"database": "/var/lib/others/shared.db", "metrics_interval": 1}, "services": services}, open("/etc/process-supervisor/supervisor_config.json", "w"))
P
mkdir -p /var/lib/others
mount -o remount,hidepid=2 /proc # as hardened hosts have it: processes of others are not seen
systemctl reload process-supervisor || fail "the reload"
until_true 60 "the service with an exec check" is checked "s['health']" healthy
sleep 2 # a few checks
is hidden "s['health'], s['restart_count']" "healthy 0" || fail "a hidden process counts as gone: $(of hidden "s['reason']")"
until_true 60 "all of them" is many-49 "s['state']" running
until_true 20 "backoff" is ill "s['state']" backoff
supervisorctl health checked | grep -q "as app" || fail "the check does not run as the user"
until_true 20 "measurements" is checked "s['memory_mb'] is not None" True
supervisorctl logs checked >/dev/null || fail "the journal cannot be read"
systemctl restart process-supervisor # another database counts from the next start
until_true 20 "its database" test -s /var/lib/others/shared.db
curl -sSf -H "Authorization: Bearer $(cat /var/lib/process-supervisor/token)" http://127.0.0.1:9001/api/supervisor/status >/dev/null || fail "TCP"
systemctl reload process-supervisor 2>/dev/null
echo '{' >/tmp/kept && cp /etc/process-supervisor/supervisor_config.json /tmp/good
cp /tmp/kept /etc/process-supervisor/supervisor_config.json
! systemctl reload process-supervisor 2>/dev/null || fail "a reload of a bad file is a success"
cp /tmp/good /etc/process-supervisor/supervisor_config.json

echo "== shutdown"
supervisorctl shutdown >/dev/null
# Between an end and a restart it is "activating".
until_true 20 "the end of the daemon" sh -c '[ "$(systemctl show -P ActiveState process-supervisor)" = inactive ]'
[ -z "$(systemctl list-units -q --state=running 'supervisor-*.service')" ] || fail "services run after a shutdown"
systemctl start process-supervisor
until_true 60 "all of them again" is many-49 "s['state']" running
until_true 20 "backoff" is ill "s['state']" backoff

echo "== upgrade"
pids() { for n in $(seq 0 49); do systemctl show -P MainPID "supervisor-many-$n.service"; done; }
before=$(pids)
attempt=$(of ill "s['attempt']")
( # When the API answers, every 10 ms.
    while [ ! -e /tmp/upgraded ]; do
        curl -s -o /dev/null --max-time 1 --unix-socket /run/process-supervisor/supervisor.sock http://localhost/api/supervisor/session && date +%s%3N
        sleep 0.01
    done >/tmp/answers
) &
sleep 1
put "$new" >/dev/null
until_true 20 "the new version" sh -c "supervisorctl version | grep -q ."
sleep 1
touch /tmp/upgraded
wait
[ "$(pids)" = "$before" ] || fail "processes changed in the upgrade"
[ "$(of ill "s['attempt']")" = "$attempt" ] || fail "attempts were forgotten"
gap=$(awk 'NR > 1 && $1 - last > most { most = $1 - last } { last = $1 } END { print most }' /tmp/answers)
echo "   the API was away for $gap ms"
[ "$gap" -lt 3000 ] || fail "the API was away for $gap ms"

echo "== downgrade"
put "$old" downgrade >/dev/null 2>&1
until_true 20 "the old version" supervisorctl status many-0
[ "$(pids)" = "$before" ] || fail "processes changed in the downgrade"

echo "== remove, purge"
case $kind in
deb) said=$(dpkg -r process-supervisor) ;;
rpm) said=$(rpm --erase process-supervisor 2>&1) ;;
esac
[[ $said == *"The services go on without supervision"* ]] || fail "nobody said what becomes of the services"
for unit in process-supervisor.service process-supervisor-checks.socket process-supervisor-checks.service; do
    ! systemctl is-active -q $unit || fail "$unit goes on"
done
[ "$(pids)" = "$before" ] || fail "processes changed in the removal"
systemctl stop supervisor.slice
until_true 30 "the end of the services" sh -c '[ -z "$(systemctl list-units -q --state=running "supervisor-*.service")" ]'
case $kind in
deb)
    dpkg -P process-supervisor >/dev/null
    [ ! -e /var/lib/process-supervisor ] && [ ! -e /etc/process-supervisor/supervisor_config.json ] || fail "the purge left something"
    ;;
rpm) # It has no purge: what somebody wrote is kept under another name.
    [ -s /etc/process-supervisor/supervisor_config.json.rpmsave ] || fail "the configuration is lost"
    [ ! -e /usr/bin/supervisorctl ] || fail "programs were left"
    ;;
esac
echo "all well"
