//! Passing file descriptors over Unix stream sockets (SCM_RIGHTS). It must not know what is passed.

use rustix::{
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, recvmsg, sendmsg,
    },
};
use socket2::{Domain, SockAddr, Socket, Type};
use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::Duration,
};

/// Descriptors that one message may carry: a hand-over carries one; more is a caller that does not speak our protocol.
pub const DESCRIPTORS_MAX: usize = 1;

/// Connects to a Unix socket, and bounds this and every later read and write by `patience`.
pub fn dial(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.cloexec(), None)?;
    // A full backlog would otherwise block without end.
    socket.connect_timeout(&SockAddr::unix(path)?, patience)?;
    socket.set_read_timeout(Some(patience))?;
    socket.set_write_timeout(Some(patience))?;
    Ok(OwnedFd::from(socket).into())
}

/// Sends `bytes` (at least one) with a descriptor attached to the first of them. Returns how many bytes went.
pub fn send(socket: &UnixStream, bytes: &[u8], descriptor: BorrowedFd<'_>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let attached = [descriptor];
    if !control.push(SendAncillaryMessage::ScmRights(&attached)) {
        return Err(io::Error::other("no space for the descriptor"));
    }
    retry(|| sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL))
}

/// Receives up to `bytes.len()` bytes and the descriptor attached to them, if any. Descriptors that were cut off are an error, not a loss.
pub fn receive(socket: &UnixStream, bytes: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = retry(|| recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, RecvFlags::CMSG_CLOEXEC))?;
    let mut descriptor = None;
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = part {
            for fd in fds {
                descriptor.get_or_insert(fd);
            }
        }
    }
    if message.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "more descriptors than one were attached"));
    }
    Ok((message.bytes, descriptor))
}

/// Repeats a call that a signal interrupted.
fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other.map_err(Into::into),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Seek, Write},
        os::fd::AsFd,
    };

    #[test]
    fn a_descriptor_arrives_with_its_bytes_and_is_the_same_file() {
        let (a, b) = UnixStream::pair().unwrap();
        let path = std::env::temp_dir().join(format!("heddle-descriptor-{}", std::process::id()));
        let mut file = std::fs::File::options().create(true).truncate(true).write(true).read(true).open(&path).unwrap();
        file.write_all(b"same").unwrap();
        assert_eq!(send(&a, b"x", file.as_fd()).unwrap(), 1);
        let mut byte = [0u8; 8];
        let (n, fd) = receive(&b, &mut byte).unwrap();
        assert_eq!((n, byte[0]), (1, b'x'));
        let mut got = std::fs::File::from(fd.expect("a descriptor was attached"));
        got.rewind().unwrap();
        let mut text = String::new();
        got.read_to_string(&mut text).unwrap();
        assert_eq!(text, "same");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn bytes_without_a_descriptor_are_just_bytes() {
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(b"hello").unwrap();
        let mut bytes = [0u8; 8];
        let (n, fd) = receive(&b, &mut bytes).unwrap();
        assert_eq!(&bytes[..n], b"hello");
        assert!(fd.is_none());
    }
}
