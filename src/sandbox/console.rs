//! What the private systemd prints on its console, and where it reports that it is up.

use std::collections::VecDeque;
use std::io::{IoSliceMut, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, UnixCredentials, bind,
    getsockname, recvmsg, setsockopt, socket, sockopt,
};
use nix::unistd::Pid;

use super::error::{Error, Step};
use super::sys;

/// How much of the console is kept for a failure report.
const KEPT_BYTES: usize = 8 * 1024;

/// The reading side of the console.
#[derive(Debug)]
pub(super) struct Console {
    terminal: std::fs::File,
    /// systemd opens its console for a moment at a time. While we have it open too, there is no end of it between two
    /// such moments, after which nobody would read, and systemd would wait for ever to write.
    _other_side: Option<OwnedFd>,
    open: bool,
    tail: VecDeque<u8>,
}

impl Console {
    pub(super) fn new(terminal: OwnedFd) -> Self {
        let other_side = sys::slave(terminal.as_fd()).ok();
        Self { terminal: terminal.into(), _other_side: other_side, open: true, tail: VecDeque::new() }
    }

    /// What to wait for, as long as there is something to come.
    pub(super) fn readable(&self) -> Option<BorrowedFd<'_>> {
        self.open.then(|| self.terminal.as_fd())
    }

    /// Takes what is there. Call it when the descriptor is readable, or it waits.
    pub(super) fn read(&mut self) {
        let mut buffer = [0; 4096];
        match self.terminal.read(&mut buffer) {
            Ok(length @ 1..) => self.tail.extend(buffer.iter().take(length)),
            Ok(0) | Err(_) => self.open = false,
        }
        let excess = self.tail.len().saturating_sub(KEPT_BYTES);
        self.tail.drain(..excess);
    }

    /// The last lines, without control characters, as far as they say anything.
    pub(super) fn tail(&self) -> String {
        let bytes: Vec<u8> = self.tail.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let mut lines: Vec<String> = text
            .lines()
            .map(|line| line.chars().filter(|c| !c.is_control()).collect::<String>())
            .filter(|line| !line.trim().is_empty())
            .collect();
        lines.drain(..lines.len().saturating_sub(30));
        lines.join("\n")
    }
}

/// Receives systemd's start-up notification. Its name is in the abstract namespace, so no file is needed.
#[derive(Debug)]
pub(super) struct Notify {
    socket: OwnedFd,
    /// The value for `NOTIFY_SOCKET`.
    pub address: String,
}

impl Notify {
    pub(super) fn bind() -> Result<Self, Error> {
        let make = || {
            let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
            setsockopt(&socket, sockopt::PassCred, &true)?;
            // The kernel chooses a name.
            bind(socket.as_raw_fd(), &UnixAddr::new_unnamed())?;
            let name: UnixAddr = getsockname(socket.as_raw_fd())?;
            Ok::<_, nix::Error>((socket, name))
        };
        let (socket, name) = make().step(|| "make a notification socket".into())?;
        let name = name.as_abstract().and_then(|name| std::str::from_utf8(name).ok());
        let address = name.map(|name| format!("@{name}"));
        let address = address.ok_or_else(|| Error::Machine("the notification socket has no name".into()))?;
        Ok(Self { socket, address })
    }

    pub(super) fn readable(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether the datagram that has arrived is `first`'s word that it has booted. Anyone on the host may write here.
    pub(super) fn says_ready(&self, first: Option<Pid>) -> bool {
        let mut buffer = [0; 4096];
        let mut control = nix::cmsg_space!(UnixCredentials);
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let Ok(message) = recvmsg::<()>(self.socket.as_raw_fd(), &mut slices, Some(&mut control), flags)
        else {
            return false;
        };
        let sender = message.cmsgs().ok().and_then(|mut messages| {
            messages.find_map(|message| match message {
                ControlMessageOwned::ScmCredentials(credentials) => Some(Pid::from_raw(credentials.pid())),
                _ => None,
            })
        });
        let length = message.bytes;
        let genuine = sender.is_some() && sender == first;
        let text = buffer.get(..length).unwrap_or_default();
        genuine && text.split(|&byte| byte == b'\n').any(|line| line == b"READY=1")
    }
}
