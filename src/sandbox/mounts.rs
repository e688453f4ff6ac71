//! The file system of the sandbox: what it sees of the host, and what it writes to instead.
//!
//! The host's file systems appear under an overlay whose upper layer is a tmpfs that is mounted in this mount namespace
//! alone and vanishes with it. Everything absolute is done after the change of root, so that a symbolic link of the host
//! can never lead a write back to the host.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{chdir, fchdir, pivot_root};

use super::cgroup::{self, Layout};
use super::error::{Error, Step};
use super::mountinfo::{self, Mount};

/// Exists everywhere, and the sandbox has its own anyway.
const STAGING: &str = "/tmp";
/// Trees that the sandbox gets afresh: the host's mounts below them do not show.
const OWN_TREES: [&str; 5] = ["/proc", "/sys", "/dev", "/run", "/tmp"];
/// File systems of the host's kernel rather than of its files.
const KERNEL_KINDS: [&str; 8] =
    ["autofs", "binfmt_misc", "cgroup", "cgroup2", "devpts", "proc", "rpc_pipefs", "sysfs"];
const DEVICES: [&str; 7] = ["null", "zero", "full", "random", "urandom", "tty", "kmsg"];

/// What of the host is let through.
#[derive(Debug, Clone)]
pub(super) struct Windows {
    /// Visible in every case; written to only where a bind says so.
    pub cwd: PathBuf,
    /// Written through to the host, parents before children.
    pub binds: Vec<PathBuf>,
}

/// A place of the host, held open across the change of root.
struct Held {
    path: PathBuf,
    place: OwnedFd,
    directory: bool,
}

impl Held {
    fn open(path: &Path) -> Result<Self, Error> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH)
            .open(path)
            .step(|| format!("open {}", path.display()))?;
        let directory = file.metadata().step(|| format!("look at {}", path.display()))?.is_dir();
        Ok(Self { path: path.into(), place: file.into(), directory })
    }

    /// A name for it that works after the change of root too.
    fn name(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.place.as_raw_fd()))
    }
}

/// Gives the calling process, alone in new mount, PID and cgroup namespaces, the sandbox's file system as its root.
pub(super) fn enter(windows: &Windows, layout: &Layout) -> Result<(), Error> {
    attach(None::<&Path>, Path::new("/"), None, MsFlags::MS_PRIVATE | MsFlags::MS_REC, None)?;
    let table = fs::read("/proc/self/mountinfo").step(|| "read /proc/self/mountinfo".into())?;
    let below: Vec<Held> =
        shown(&mountinfo::parse(&table)).iter().filter_map(|point| Held::open(point).ok()).collect();
    let cwd = Held::open(&windows.cwd)?;
    let binds = windows.binds.iter().map(|path| Held::open(path)).collect::<Result<Vec<_>, _>>()?;
    let devices = Held::open(Path::new("/dev"))?;
    let resolver = Resolver::read();

    let mut layers = Layers::stage()?;
    let root = Path::new(STAGING).join("root");
    layers.cover(&Held::open(Path::new("/"))?, &root)?;
    change_root(&root)?;

    for held in &below {
        layers.show(held)?;
    }
    for (path, options) in [("/tmp", "mode=1777"), ("/run", "mode=0755")] {
        attach(
            Some("tmpfs"),
            Path::new(path),
            Some("tmpfs"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            Some(options),
        )?;
    }
    make_dev(&devices)?;
    make_sys(layout)?;
    if hidden(&windows.cwd) {
        layers.show(&cwd)?;
    }
    for held in &binds {
        make_point(held)?;
        attach(Some(&held.name()), &held.path, None, MsFlags::MS_BIND | MsFlags::MS_REC, None)?;
    }
    resolver.write()?;
    // Last, since the steps above go through its files.
    protect_proc()?;
    layers.leave_host()
}

/// Whether a working directory is covered by the sandbox's own trees and has to be shown again.
fn hidden(cwd: &Path) -> bool {
    cwd.starts_with("/tmp") || (cwd.starts_with("/run") && cwd != Path::new("/run"))
}

/// The mount points of the host's own files below `/`.
fn shown(mounts: &[Mount]) -> Vec<PathBuf> {
    let mut points: Vec<PathBuf> = mounts
        .iter()
        .filter(|mount| !KERNEL_KINDS.contains(&mount.kind.as_str()))
        .map(|mount| mount.point.clone())
        .filter(|point| point.parent().is_some() && !OWN_TREES.iter().any(|tree| point.starts_with(tree)))
        .collect();
    points.sort();
    points.dedup();
    points
}

/// `mount(2)` with the failure put into words.
fn attach(
    source: Option<impl AsRef<Path>>,
    target: &Path,
    kind: Option<&str>,
    flags: MsFlags,
    options: Option<&str>,
) -> Result<(), Error> {
    let source = source.as_ref().map(AsRef::as_ref);
    mount(source, target, kind, flags, options).step(|| format!("mount {}", target.display()))
}

/// The tmpfs that takes the writes, and the way back to the host's root until that is left.
struct Layers {
    tmpfs: Held,
    host: OwnedFd,
    count: usize,
}

impl Layers {
    fn stage() -> Result<Self, Error> {
        let staging = Path::new(STAGING);
        let host = Held::open(Path::new("/"))?.place;
        attach(Some("tmpfs"), staging, Some("tmpfs"), MsFlags::MS_NODEV, Some("mode=0700"))?;
        let root = staging.join("root");
        fs::create_dir(&root).step(|| format!("create {}", root.display()))?;
        Ok(Self { tmpfs: Held::open(staging)?, host, count: 0 })
    }

    /// Mounts an overlay over a directory of the host at `target`: readable as it is, writes stay in the sandbox.
    fn cover(&mut self, lower: &Held, target: &Path) -> Result<(), Error> {
        self.count += 1;
        let [upper, work] =
            ["upper", "work"].map(|name| self.tmpfs.name().join(format!("{name}{}", self.count)));
        for directory in [&upper, &work] {
            fs::create_dir(directory).step(|| format!("create {}", directory.display()))?;
        }
        // The upper directory gives the overlay's root its owner and mode.
        let origin = fs::metadata(lower.name()).step(|| format!("look at {}", lower.path.display()))?;
        let copied = chown(&upper, Some(origin.uid()), Some(origin.gid()))
            .and_then(|()| fs::set_permissions(&upper, Permissions::from_mode(origin.mode() & 0o7777)));
        copied.step(|| format!("set up a layer over {}", lower.path.display()))?;

        let mut options = OsString::from("lowerdir=");
        let parts = [(lower.name(), ",upperdir="), (upper, ",workdir="), (work, "")];
        for (path, then) in parts {
            options.push(mountinfo::escape_option(&path));
            options.push(then);
        }
        mount(Some("overlay"), target, Some("overlay"), MsFlags::empty(), Some(options.as_os_str())).map_err(
            |error| match error {
                Errno::ENODEV => Error::Requirement(
                    "the kernel has no overlay file system: load it with modprobe overlay".into(),
                ),
                error => Error::Setup {
                    what: format!("mount an overlay over {}", lower.path.display()),
                    source: error.into(),
                },
            },
        )
    }

    /// Shows a directory or file of the host at its own path: under an overlay, or read-only where none is possible.
    fn show(&mut self, held: &Held) -> Result<(), Error> {
        make_point(held)?;
        if held.directory && self.cover(held, &held.path).is_ok() {
            return Ok(());
        }
        let bound = attach(Some(&held.name()), &held.path, None, MsFlags::MS_BIND, None);
        bound.and_then(|()| make_read_only(&held.path))
    }

    /// Lets go of the host's root. Only descriptors lead there from now on.
    fn leave_host(self) -> Result<(), Error> {
        fchdir(&self.host)
            .and_then(|()| umount2(".", MntFlags::MNT_DETACH))
            .and_then(|()| chdir("/"))
            .step(|| "leave the host's root".into())
    }
}

/// The host's root stays mounted on top of the new one, reachable through descriptors alone.
fn change_root(root: &Path) -> Result<(), Error> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    chdir(root).and_then(|()| pivot_root(".", ".")).step(|| format!("make {} the root", root.display()))?;
    attach(Some("proc"), Path::new("/proc"), Some("proc"), flags, None)
}

fn make_read_only(target: &Path) -> Result<(), Error> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    attach(None::<&Path>, target, None, flags, None)
}

/// Makes something to mount on.
fn make_point(held: &Held) -> Result<(), Error> {
    let path = &held.path;
    let made = if held.directory {
        fs::create_dir_all(path)
    } else {
        path.parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| OpenOptions::new().write(true).create(true).truncate(false).open(path).map(drop))
    };
    made.step(|| format!("create {}", path.display()))
}

/// A `/dev` of its own: what programs expect, and nothing of the hardware.
fn make_dev(host: &Held) -> Result<(), Error> {
    let dev = Path::new("/dev");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    attach(Some("tmpfs"), dev, Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=0755,size=4m"))?;
    for name in DEVICES {
        make_device(&host.name().join(name), &dev.join(name))?;
    }
    for name in ["pts", "shm", "mqueue"] {
        let path = dev.join(name);
        fs::create_dir(&path).step(|| format!("create {}", path.display()))?;
    }
    let terminals = "newinstance,mode=0620,gid=5,ptmxmode=0666";
    attach(Some("devpts"), &dev.join("pts"), Some("devpts"), flags, Some(terminals))?;
    attach(Some("tmpfs"), &dev.join("shm"), Some("tmpfs"), flags | MsFlags::MS_NODEV, Some("mode=1777"))?;
    // Not every kernel has message queues, and nothing here needs them.
    let _ = attach(Some("mqueue"), &dev.join("mqueue"), Some("mqueue"), flags | MsFlags::MS_NODEV, None);
    let links = [
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
        ("/proc/kcore", "core"),
        ("pts/ptmx", "ptmx"),
    ];
    for (target, name) in links {
        symlink(target, dev.join(name)).step(|| format!("create /dev/{name}"))?;
    }
    Ok(())
}

/// A node of its own, so that a change of mode or owner stays inside; where none may be made, the host's.
fn make_device(host: &Path, target: &Path) -> Result<(), Error> {
    let Ok(origin) = fs::metadata(host) else { return Ok(()) };
    let (major, minor) = (nix::sys::stat::major(origin.rdev()), nix::sys::stat::minor(origin.rdev()));
    let mode = Mode::from_bits_truncate(origin.mode() & 0o777);
    let made = mknod(target, SFlag::S_IFCHR, mode, makedev(major, minor)).map_err(std::io::Error::from);
    // Outside the first user namespace a node can be made but not opened.
    let usable = made.and_then(|()| fs::set_permissions(target, Permissions::from_mode(mode.bits())));
    if usable.is_ok() && File::open(target).is_ok_or_busy() {
        return Ok(());
    }
    let _ = fs::remove_file(target);
    File::create(target).step(|| format!("create {}", target.display()))?;
    attach(Some(host), target, None, MsFlags::MS_BIND, None)
}

/// Whether an attempt to open shows that opening is allowed.
trait Allowed {
    fn is_ok_or_busy(&self) -> bool;
}

impl Allowed for std::io::Result<File> {
    /// `/dev/tty` without a terminal, and the like, are allowed although there is nothing to open.
    fn is_ok_or_busy(&self) -> bool {
        match self {
            Ok(_) => true,
            Err(error) => error.raw_os_error() == Some(Errno::ENXIO as i32),
        }
    }
}

/// `/sys` of the shared network namespace, read-only but for the sandbox's own groups.
fn make_sys(layout: &Layout) -> Result<(), Error> {
    let sys = Path::new("/sys");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    attach(Some("sysfs"), sys, Some("sysfs"), flags, None)?;
    attach(
        None::<&Path>,
        sys,
        None,
        flags | MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY,
        None,
    )?;
    cgroup::mount_inside(layout)
}

/// Kernel settings reach beyond the sandbox.
fn protect_proc() -> Result<(), Error> {
    for path in ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus"] {
        let path = Path::new(path);
        if path.exists() {
            attach(Some(path), path, None, MsFlags::MS_BIND, None)?;
            make_read_only(path)?;
        }
    }
    Ok(())
}

/// Name resolution that the host keeps below `/run`, as systemd-resolved does.
struct Resolver(Option<(PathBuf, Vec<u8>)>);

impl Resolver {
    fn read() -> Self {
        let path = fs::canonicalize("/etc/resolv.conf").ok().filter(|path| path.starts_with("/run"));
        Self(path.and_then(|path| fs::read(&path).ok().map(|text| (path, text))))
    }

    fn write(self) -> Result<(), Error> {
        let Some((path, text)) = self.0 else { return Ok(()) };
        path.parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&path, text))
            .step(|| format!("write {}", path.display()))
    }
}
