//! What the processes of one sandbox tell its front: one datagram each, over a socket pair.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};
use nix::unistd::Pid;

use super::error::Error;

/// Longest text that is sent; a longer one is cut.
const TEXT_BYTES: usize = 4096;

/// One message to the front.
#[derive(Debug)]
pub(super) enum Message {
    /// The namespace's first process exists: its number and its pidfd.
    Started(Pid, OwnedFd),
    /// Its console, to be read for as long as it lives.
    Console(OwnedFd),
    /// The sandbox cannot be built.
    Failed(Error),
    /// Something could not be had or taken down; the person should know.
    Warning(String),
}

/// Both ends, close-on-exec.
pub(super) fn pair() -> nix::Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
}

/// Sends one message. Where the front is gone there is nobody to tell, so failures are dropped.
pub(super) fn send(socket: &impl AsFd, message: &Message) {
    let (tag, text, fd) = match message {
        Message::Started(pid, fd) => (b'S', pid.as_raw().to_string(), Some(fd)),
        Message::Console(fd) => (b'C', String::new(), Some(fd)),
        Message::Failed(error @ Error::Requirement(_)) => (b'R', error.to_string(), None),
        Message::Failed(error) => (b'F', error.to_string(), None),
        Message::Warning(text) => (b'W', text.clone(), None),
    };
    let fds: Vec<_> = fd.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let text = text.as_bytes();
    let text = text.get(..TEXT_BYTES).unwrap_or(text);
    let _ = sendmsg::<()>(
        socket.as_fd().as_raw_fd(),
        &[IoSlice::new(&[tag]), IoSlice::new(text)],
        if fds.is_empty() { &[] } else { &rights },
        MsgFlags::MSG_NOSIGNAL,
        None,
    );
}

/// Receives one message; `None` when the other side is gone or says something unknown.
pub(super) fn receive(socket: &impl AsFd) -> Option<Message> {
    let mut buffer = vec![0; TEXT_BYTES + 1];
    let mut control = nix::cmsg_space!([std::os::fd::RawFd; 1]);
    let mut fd = None;
    let length = {
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let received = recvmsg::<()>(
            socket.as_fd().as_raw_fd(),
            &mut slices,
            Some(&mut control),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )
        .ok()?;
        for message in received.cmsgs().ok()? {
            if let ControlMessageOwned::ScmRights(fds) = message {
                // SAFETY: the kernel has just installed these for us, and nobody else owns them.
                fd = fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).next();
            }
        }
        received.bytes
    };
    let (tag, text) = buffer.get(..length)?.split_first()?;
    let text = String::from_utf8_lossy(text).into_owned();
    match tag {
        b'S' => Some(Message::Started(Pid::from_raw(text.parse().ok()?), fd?)),
        b'C' => Some(Message::Console(fd?)),
        b'R' => Some(Message::Failed(Error::Requirement(text))),
        b'F' => Some(Message::Failed(Error::Machine(text))),
        b'W' => Some(Message::Warning(text)),
        _ => None,
    }
}
