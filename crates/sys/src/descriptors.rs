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
    fs,
    io::{self, IoSlice, IoSliceMut, Write},
    mem::MaybeUninit,
    net::Shutdown,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
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

/// Fills `bytes`, and gives the descriptor that was attached to any of them. Zero bytes before the first are an end of file.
fn receive_exact(socket: &UnixStream, bytes: &mut [u8]) -> io::Result<Option<OwnedFd>> {
    let (mut got, mut descriptor) = (0, None);
    while got < bytes.len() {
        let (n, fd) = receive(socket, &mut bytes[got..])?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        got += n;
        descriptor = descriptor.or(fd);
    }
    Ok(descriptor)
}

/// Sends all of `bytes`, the descriptor, if any, with the first of them.
fn send_all(mut socket: &UnixStream, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let sent = match descriptor {
        Some(descriptor) => send(socket, bytes, descriptor)?,
        None => 0,
    };
    socket.write_all(&bytes[sent..])
}

/// Sends a frame. A stream that failed in the middle of one is of no more use: both its directions end, and with them its reader.
pub fn send_frame(socket: &UnixStream, frame: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    send_all(socket, frame, descriptor).inspect_err(|_| {
        let _ = socket.shutdown(Shutdown::Both);
    })
}

/// Receives a frame's body, with the descriptor that came with its header. `length`: how many bytes follow a header of `H` bytes.
pub fn receive_frame<const H: usize, E: From<io::Error>>(
    socket: &UnixStream,
    length: impl FnOnce([u8; H]) -> Result<usize, E>,
) -> Result<(Vec<u8>, Option<OwnedFd>), E> {
    let mut header = [0; H];
    let descriptor = receive_exact(socket, &mut header)?;
    let mut body = vec![0; length(header)?];
    receive_exact(socket, &mut body)?;
    Ok((body, descriptor))
}

/// Whether the process at the other end is root's (of this user namespace), as the kernel wrote down when it connected or listened.
pub fn peer_is_root(socket: &UnixStream) -> io::Result<bool> {
    // A peer in a PID namespace that is not ours to see has process id 0, which rustix takes for an error.
    let peer = nix::sys::socket::getsockopt(socket, nix::sys::socket::sockopt::PeerCredentials)?;
    Ok(peer.uid() == nix::unistd::ROOT.as_raw())
}

/// Opens a listening Unix socket for root alone at a path, replacing what is there in one step: whoever connects finds the old one or the new.
pub fn serve_at(path: &Path) -> io::Result<UnixListener> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut hidden = std::ffi::OsString::from(format!(".{}-", std::process::id()));
    hidden.push(name);
    let half = path.with_file_name(hidden);
    match fs::remove_file(&half) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&half)?;
    fs::set_permissions(&half, fs::Permissions::from_mode(0o600))?;
    fs::rename(&half, path)?;
    Ok(listener)
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
        io::{Read, Seek},
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
    fn a_stream_of_frames_keeps_each_descriptor_with_its_frame() {
        let (a, b) = UnixStream::pair().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        for n in 0..6u8 {
            send_all(&a, &[n; 8], (n % 2 == 1).then_some(null.as_fd())).unwrap();
        }
        for n in 0..6u8 {
            let (mut head, mut body) = ([0; 4], [0; 4]);
            let descriptor = receive_exact(&b, &mut head).unwrap();
            assert!(receive_exact(&b, &mut body).unwrap().is_none());
            assert_eq!((head, body, descriptor.is_some()), ([n; 4], [n; 4], n % 2 == 1));
        }
        drop(a);
        assert_eq!(receive_exact(&b, &mut [0; 4]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(peer_is_root(&b).unwrap() == rustix::process::getuid().is_root());
    }

    #[test]
    fn a_socket_file_is_replaced_while_another_serves_it() {
        let path = std::env::temp_dir().join(format!("heddle-serve-{}", std::process::id()));
        let first = serve_at(&path).unwrap();
        let second = serve_at(&path).unwrap();
        let _client = dial(&path, Duration::from_secs(1)).unwrap();
        first.set_nonblocking(true).unwrap();
        second.set_nonblocking(true).unwrap();
        assert!(first.accept().is_err() && second.accept().is_ok());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
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
