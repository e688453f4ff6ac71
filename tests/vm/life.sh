#!/bin/bash
# What happens on the machine. Runs after each boot, and goes on where the last boot ended.
set -euo pipefail
exec 2>&1
export DEBIAN_FRONTEND=noninteractive PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
say() { printf 'vm: %s\n' "$*"; }
fail() {
    say "FAILED: $*"
    supervisorctl status || true
    supervisorctl events -n 40 || true
    journalctl --no-pager -b -n 60 -u process-supervisor || true
    systemctl poweroff
    exit 1
}
trap 'fail "line $LINENO"' ERR
. /vm/ask.sh
pids() { for id in db app web manual; do systemctl show -P MainPID "supervisor-$id.service"; done; }
all_healthy() { for id in db app web manual busy; do is "$id" "s['health']" healthy || return 1; done; }

boot_1() {
    say "$(. /etc/os-release && echo "$PRETTY_NAME"), systemd $(systemctl --version | sed -n '1s/systemd \([0-9]*\).*/\1/p'), $(stat -fc %T /sys/fs/cgroup)"
    mount -o remount,hidepid=2 /proc # as hardened hosts have it
    dpkg -i /vm/old.deb >/dev/null
    until_true 30 "the supervisor" systemctl is-active -q process-supervisor
    score=$(systemd-analyze security --threshold=20 process-supervisor.service | tail -1)
    say "$score"
    cat >/vm/service <<'S'
#!/bin/bash
# Takes a moment to get ready, and says when it ends.
trap 'sleep 0.3; echo "$1" >>/vm/stops; exit 0' TERM
sleep 0.5; touch "/run/vm-$1-ready"
while :; do sleep 0.5; done
S
    chmod 755 /vm/service
    python3 - <<'P'
import json
def chained(name, *needs):
    return {"command": "/vm/service", "args": [name], "dependencies": list(needs),
            "health_check": {"type": "exec", "command": "/usr/bin/test", "args": ["-e", f"/run/vm-{name}-ready"], "interval": 5, "timeout": 5, "start_period": 60}}
services = {
    "db": chained("db"), "app": chained("app", "db"), "web": chained("web", "app"),
    "manual": {"command": "sleep", "args": ["100000"], "health_check": {"type": "process", "interval": 1, "timeout": 1}},
    "counted": {"command": "sh", "args": ["-c", "sleep 2; exit 3"], "restart_policy": {"retry_delay": 1, "backoff_multiplier": 1, "max_retries": -1}},
    "hog": {"command": "python3", "args": ["-c", "import time\nkept = []\nwhile True:\n    kept.append(b'x' * (1 << 20))\n    time.sleep(0.01)"],
            "resource_limits": {"max_memory_mb": 32}, "restart_policy": {"retry_delay": 600}},
    "busy": {"command": "sh", "args": ["-c", "while :; do :; done"], "resource_limits": {"max_cpu_percent": 20}},
}
json.dump({"supervisor": {"metrics_interval": 1}, "services": services}, open("/etc/process-supervisor/supervisor_config.json", "w"))
P
    supervisorctl reload >/dev/null
    until_true 120 "health" all_healthy

    order=$(supervisorctl --json events -n 1000 | python3 -c "
import json,sys
told = [e['message'] for e in reversed(json.load(sys.stdin)['events'])]
at = lambda text: next(n for n, m in enumerate(told) if text in m)
print(at('db: starting -> running') < at('app: stopped -> starting') < at('app: starting -> running') < at('web: stopped -> starting'))")
    [ "$order" = True ] || fail "a start did not wait for its dependency"

    until_true 60 "the end of the hog" is hog "s['last_exit'] is not None and s['last_exit']['result']" oom-kill
    of hog "s['reason']" | grep -q "out of memory, limit 32 MiB" || fail "the cause is not named: $(of hog "s['reason']")"
    [ "$(cat /sys/fs/cgroup/supervisor.slice/supervisor-busy.service/cpu.max)" = "20000 100000" ] || fail "the limit is not in the kernel"
    until_true 60 "the figures" is busy "5 < (s['cpu_percent'] or 0) < 30 and s['usage']['throttled'] > 0.5" True
    is busy "all(s['usage'][key] is not None for key in ('pressure_cpu', 'pressure_memory', 'pressure_io', 'memory_peak_mb', 'io_read'))" True ||
        fail "figures are missing: $(of busy "s['usage']")"
    say "limits hold: $(of hog "s['reason']"); busy uses $(of busy "s['cpu_percent']") %, throttled $(of busy "s['usage']['throttled']"), pressure $(of busy "s['usage']['pressure_cpu']")"

    is manual "s['restart_count']" 0 || fail "a hidden process counts as gone"
    until_true 60 "restarts" is counted "s['restart_count'] >= 2" True
    supervisorctl stop manual counted >/dev/null
    of counted "s['restart_count']" >/vm/count
    systemctl reboot
}

boot_2() {
    until_true 300 "health after the boot" all_healthy
    say "all healthy $(cut -d' ' -f1 /proc/uptime) s after the kernel started"
    [ "$(tr '\n' ' ' </vm/stops)" = "web app db " ] || fail "the host stopped them in this order: $(tr '\n' ' ' </vm/stops)"
    is manual "s['state']" running || fail "a stop by hand outlived the boot"
    is counted "s['restart_count'] >= $(cat /vm/count)" True || fail "counts were forgotten: $(of counted "s['restart_count']"), not $(cat /vm/count)"
    supervisorctl stop manual >/dev/null
    before=$(pids)
    systemctl daemon-reexec
    systemctl restart process-supervisor
    until_true 30 "the supervisor" is manual "s['state']" stopped
    sleep 2
    [ "$(pids)" = "$before" ] || fail "processes changed when systemd executed itself anew"
    is manual "s['state']" stopped || fail "a stop by hand was forgotten when systemd executed itself anew"
    # All but the kernel begins anew; 254 can do it.
    systemctl soft-reboot 2>/dev/null || { supervisorctl start manual >/dev/null && boot_3; }
}

boot_3() {
    until_true 300 "health after the boot of all but the kernel" all_healthy
    say "all healthy, $(cut -d' ' -f1 /proc/uptime) s after the kernel started"
    before=$(pids)
    dpkg -i /vm/new.deb >/dev/null
    until_true 30 "the new version" supervisorctl status manual
    [ "$(pids)" = "$before" ] || fail "processes changed in the upgrade"
    said=$(dpkg -r process-supervisor)
    [[ $said == *"The services go on without supervision"* ]] || fail "nobody said what becomes of the services"
    [ "$(pids)" = "$before" ] || fail "processes changed in the removal"
    say "upgraded and removed without touching a process"
    systemctl stop supervisor.slice
    say "all well"
    systemctl poweroff
}

boot=$(($(cat /vm/boot 2>/dev/null || echo 0) + 1))
echo $boot >/vm/boot
"boot_$boot"
