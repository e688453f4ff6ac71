//! The host does not notice.

use std::process::Stdio;

use crate::harness::{assert_host_is, look_at_host, printed_inside, sandbox};

#[test]
fn what_is_done_inside_stays_inside() {
    let before = look_at_host();
    let marker = tempfile::NamedTempFile::new_in("/tmp").unwrap();
    let script = "
        hostname elsewhere
        for place in /etc /var/lib /var/log /run /tmp /dev /dev/shm /usr /root /home; do
            echo written > $place/sandbox-marker || exit 1
        done
        rm -rf /tmp/* /etc/passwd /dev/null
        mknod /dev/null c 1 3
        chmod 600 /dev/zero /dev/kmsg
        swapoff -a
        umount -a 2>/dev/null
        true";
    printed_inside(script);
    assert_host_is(&before);
    assert!(marker.path().exists());
    for place in
        ["/etc", "/var/lib", "/var/log", "/run", "/tmp", "/dev", "/dev/shm", "/usr", "/root", "/home"]
    {
        assert!(!std::path::Path::new(place).join("sandbox-marker").exists(), "{place}");
    }
}

#[test]
fn the_kernels_settings_cannot_be_reached() {
    let attempts = [
        "echo 1 > /proc/sys/vm/overcommit_memory",
        "echo x > /proc/sys/kernel/core_pattern",
        "date -s 2020-01-01",
        "echo 0 > /sys/kernel/mm/transparent_hugepage/enabled",
        "mount -o remount,bind,rw /sys && mount -t sysfs sysfs /mnt && false",
        "python3 -c 'import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9)'",
    ];
    let before = look_at_host();
    for attempt in attempts {
        let output = sandbox().args(["--", "sh", "-c", attempt]).output().unwrap();
        assert_ne!(output.status.code(), Some(0), "{attempt}: {output:?}");
    }
    assert_host_is(&before);
}

#[test]
fn the_kernels_log_does_not_hear_of_it() {
    let journald = printed_inside(
        "pid=$(systemctl show -P MainPID systemd-journald)
        systemctl restart systemd-journald
        journalctl --sync
        echo \"systemd-journald[$pid]:\"
        echo \"systemd-journald[$(systemctl show -P MainPID systemd-journald)]:\"",
    );
    let log = std::process::Command::new("dmesg").output().unwrap().stdout;
    let log = String::from_utf8_lossy(&log).into_owned();
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let now: f64 = uptime.split_whitespace().next().unwrap().parse().unwrap();
    for line in log.lines() {
        let time = line.trim_start_matches('[').split(']').next().unwrap().trim().parse().unwrap_or(0.0);
        let recent = now - time < 5.0;
        assert!(!(recent && journald.lines().any(|sender| line.contains(sender))), "{line}");
    }
}

#[test]
fn the_hosts_units_do_not_run() {
    // What the host enables for its own boot, and the units it would mount and generate, are not there.
    let units =
        printed_inside("systemctl list-units --plain --no-legend --type=service,mount,swap,timer,socket");
    let known = [
        "dbus", "systemd-", "user", "-.mount", "dev-", "proc-", "sys-", "run-", "tmp", "var-", "etc-", "init",
    ];
    for line in units.lines() {
        let unit = line.split_whitespace().next().unwrap();
        let own = known.iter().any(|name| unit.starts_with(name)) || unit.ends_with(".mount");
        assert!(own, "{unit} runs in the sandbox");
    }
}

#[test]
fn several_run_side_by_side() {
    let before = look_at_host();
    let children: Vec<_> = (0..4)
        .map(|number| {
            let script = format!("cat /etc/machine-id /proc/sys/kernel/random/boot_id; systemctl is-system-running; exit {number}");
            sandbox().args(["--", "sh", "-c", &script]).stdout(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let mut identities = std::collections::BTreeSet::new();
    for (number, child) in (0..).zip(children) {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(number));
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let [machine, boot, state] = lines.as_slice() else { panic!("{text}") };
        assert_eq!((machine.len(), boot.len(), *state), (32, 36, "running"));
        identities.extend([(*machine).to_owned(), (*boot).to_owned()]);
    }
    assert_eq!(identities.len(), 8, "each is a machine and a boot of its own");
    assert_host_is(&before);
}
