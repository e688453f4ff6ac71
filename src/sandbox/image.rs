//! What differs in the sandbox's files from the host's: no identity, no units of the administrator, one small target.

use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use nix::mount::{MsFlags, mount};

use super::error::{Error, Step};

/// The unit that the private systemd boots to.
pub(super) const TARGET: &str = "sandbox.target";

const TARGET_UNIT: &str = "[Unit]
Description=Private systemd for runs and tests
Wants=systemd-journald.service dbus.service systemd-logind.service systemd-user-sessions.service
After=systemd-journald.service dbus.service systemd-logind.service systemd-user-sessions.service
AllowIsolate=yes
";

/// The kernel's log and the audit trail are the host's: neither read nor switched.
const JOURNALD: &str = "[Journal]
Storage=persistent
ReadKMsg=no
Audit=
ForwardToSyslog=no
ForwardToKMsg=no
ForwardToConsole=no
ForwardToWall=no
";

const UNIT_TREES: [&str; 3] =
    ["/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
const ADMIN_UNITS: &str = "/etc/systemd/system";

/// Targets that every boot, or a service's start, may pull in, and through them whatever the host has installed.
const HOOKED: [&str; 10] = [
    "sysinit",
    "local-fs",
    "local-fs-pre",
    "remote-fs",
    "swap",
    "basic",
    "sockets",
    "timers",
    "paths",
    "network-online",
];
/// What of it the sandbox wants.
const KEPT: [&str; 5] = [
    "dbus.socket",
    "systemd-journald.service",
    "systemd-journald.socket",
    "systemd-journald-dev-log.socket",
    "systemd-tmpfiles-setup.service",
];
/// Units that reach for hardware or the host's kernel and may be asked for by name.
const MASKED: [&str; 24] = [
    "console-getty.service",
    "container-getty@.service",
    "getty@.service",
    "modprobe@.service",
    "NetworkManager.service",
    "proc-sys-fs-binfmt_misc.automount",
    "proc-sys-fs-binfmt_misc.mount",
    "serial-getty@.service",
    "systemd-binfmt.service",
    "systemd-hwdb-update.service",
    "systemd-journald-audit.socket",
    "systemd-modules-load.service",
    "systemd-networkd.service",
    "systemd-oomd.service",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-resolved.service",
    "systemd-rfkill.service",
    "systemd-sysctl.service",
    "systemd-timesyncd.service",
    "systemd-udev-trigger.service",
    "systemd-udevd.service",
    "systemd-update-utmp.service",
    "systemd-vconsole-setup.service",
];

/// Journald's own messages would go to the kernel's log.
const JOURNALD_UNIT: &str = "[Service]
Environment=SYSTEMD_LOG_TARGET=null
";

/// Writes all of it. The caller's root is the sandbox's already.
pub(super) fn write() -> Result<(), Error> {
    // Not left to systemd, which in a virtual machine derives it from the machine's.
    write_file("/etc/machine-id", &random_id()?.replace('-', ""), 0o444)?;
    replace_boot_id()?;
    // The host's disks are there already.
    write_file("/etc/fstab", "", 0o644)?;
    empty("/var/lib/systemd/linger")?;
    // The distribution's file of this name empties /tmp, in which directories of the host may be mounted.
    write_file("/etc/tmpfiles.d/tmp.conf", "q /tmp 1777 root root\nq /var/tmp 1777 root root\n", 0o644)?;
    replace_admin_units()?;
    write_file(&format!("{ADMIN_UNITS}/{TARGET}"), TARGET_UNIT, 0o644)?;
    write_file(&format!("{ADMIN_UNITS}/systemd-journald.service.d/sandbox.conf"), JOURNALD_UNIT, 0o644)?;
    mask_hooks()?;
    for unit in MASKED {
        mask(unit)?;
    }
    mask_generators()?;
    make_journal()
}

/// A fresh UUID with a final newline.
fn random_id() -> Result<String, Error> {
    fs::read_to_string("/proc/sys/kernel/random/uuid").step(|| "get a random identity".into())
}

/// Each sandbox is a boot of its own, so that what is kept per boot is not carried over.
fn replace_boot_id() -> Result<(), Error> {
    let (file, target) = ("/run/sandbox-boot-id", "/proc/sys/kernel/random/boot_id");
    write_file(file, &random_id()?, 0o444)?;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(Some(file), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .and_then(|()| mount(None::<&str>, target, None::<&str>, flags, None::<&str>))
        .step(|| format!("mount {target}"))
}

fn write_file(path: &str, text: &str, mode: u32) -> Result<(), Error> {
    let path = Path::new(path);
    // Replaced, not truncated: the host may have a link there that leads elsewhere.
    let write = || {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        ignore_missing(fs::remove_file(path))?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        io::Write::write_all(&mut file, text.as_bytes())?;
        file.set_permissions(Permissions::from_mode(mode))
    };
    write().step(|| format!("write {}", path.display()))
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn empty(directory: &str) -> Result<(), Error> {
    ignore_missing(fs::remove_dir_all(directory))
        .and_then(|()| fs::create_dir_all(directory))
        .step(|| format!("empty {directory}"))
}

/// Takes away what the administrator enabled or changed; only which message bus is in use stays.
fn replace_admin_units() -> Result<(), Error> {
    let bus = fs::read_link(format!("{ADMIN_UNITS}/dbus.service")).ok();
    empty(ADMIN_UNITS)?;
    let Some(bus) = bus else { return Ok(()) };
    symlink(bus, format!("{ADMIN_UNITS}/dbus.service")).step(|| "keep the choice of message bus".into())
}

fn mask(unit: &str) -> Result<(), Error> {
    let path = format!("{ADMIN_UNITS}/{unit}");
    match symlink("/dev/null", &path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.step(|| format!("mask {unit}")),
    }
}

fn mask_hooks() -> Result<(), Error> {
    for tree in UNIT_TREES {
        for target in HOOKED {
            for kind in ["wants", "requires"] {
                for unit in names(&format!("{tree}/{target}.target.{kind}")) {
                    if !KEPT.contains(&unit.as_str()) {
                        mask(&unit)?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Generators turn the host's configuration (fstab, cryptsetup, init scripts) into units.
fn mask_generators() -> Result<(), Error> {
    let masks = Path::new("/run/systemd/system-generators");
    fs::create_dir_all(masks).step(|| format!("create {}", masks.display()))?;
    for tree in ["/etc/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd", "/lib/systemd"] {
        for name in names(&format!("{tree}/system-generators")) {
            match symlink("/dev/null", masks.join(&name)) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other.step(|| format!("mask the generator {name}"))?,
            }
        }
    }
    Ok(())
}

/// An empty journal on disk (of the sandbox), so that users can read their own.
fn make_journal() -> Result<(), Error> {
    write_file("/run/systemd/journald.conf.d/zz-supervisor-sandbox.conf", JOURNALD, 0o644)?;
    // Tells journald that /var is there, as systemd-journal-flush.service would.
    write_file("/run/systemd/journal/flushed", "", 0o644)?;
    empty("/var/log/journal")
}

fn names(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
