//! Closes the ways to the host's kernel that no namespace closes. Applies to the first process and to the command, and to
//! all their descendants.

use std::io;

use nix::errno::Errno;
use nix::libc;

use super::error::{Error, Step};

/// Kernel modules, raw input and output, the clock, waking the machine up.
const HOST_CAPABILITIES: [libc::c_ulong; 4] = [16, 17, 25, 35];

/// Gives up the capabilities whose effect reaches the host, and the kernel's audit trail.
pub(super) fn contain() -> Result<(), Error> {
    for capability in HOST_CAPABILITIES {
        // SAFETY: takes integers and touches no memory.
        let dropped = Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) });
        dropped.step(|| "drop capabilities".into())?;
    }
    refuse_audit().step(|| "keep the sandbox out of the audit trail".into())
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: Option<u32> = Some(0xC000_003E);
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: Option<u32> = Some(0xC000_00B7);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCHITECTURE: Option<u32> = None;

/// Makes audit sockets fail as on a kernel without auditing, which every program can deal with. The trail belongs to the
/// network namespace, and that is the host's.
fn refuse_audit() -> io::Result<()> {
    let Some(architecture) = ARCHITECTURE else { return Ok(()) };
    // Offsets in `struct seccomp_data`; arguments are 64 bits wide, of which the lower half counts.
    const NUMBER: u32 = 0;
    const ARCH: u32 = 4;
    const FAMILY: u32 = 16;
    const PROTOCOL: u32 = 32;
    let load = |offset: u32| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, offset);
    // Goes on where equal, else skips to the last instruction.
    let expect = |value: u32, skip: u8| instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, skip, value);
    let answer = |value: u32| instruction(libc::BPF_RET | libc::BPF_K, 0, value);
    let number = u32::try_from(libc::SYS_socket).map_err(io::Error::other)?;
    let mut filter = [
        load(ARCH),
        expect(architecture, 7),
        load(NUMBER),
        expect(number, 5),
        load(FAMILY),
        expect(libc::AF_NETLINK as u32, 3),
        load(PROTOCOL),
        expect(libc::NETLINK_AUDIT as u32, 1),
        answer(libc::SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT as u32),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program points to `filter`, which lives until the call returns; the kernel copies it.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) })
        .map(drop)
        .map_err(io::Error::from)
}

fn instruction(code: u32, otherwise: u8, value: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: otherwise, k: value }
}
