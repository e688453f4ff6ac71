# What the lives of a package ask, in the private systemd and on a machine. Sourced; `fail` is theirs.
until_true() { # seconds, what, command...
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || fail "$what did not come"
        sleep 0.2
    done
}
# The value of an expression over a service `s`.
of() { { supervisorctl --json status "$1" || true; } | python3 -c "import json,sys; s=json.load(sys.stdin)['services']['$1']; print($2)"; }
is() { [ "$(of "$1" "$2" || true)" = "$3" ]; }
