//! Messages with file descriptors over a Unix stream socket: one JSON value each, its length before it. Between the outer process and the supervisor, and between
//! `exec`, `status`, `down` and the supervisor. It must not know what the messages mean.

use anyhow::{Context, Result, bail};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    io::{IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

/// A longer message is a mistake of the other side.
const LIMIT: usize = 16 * 1024 * 1024;

/// stdin, stdout and stderr are the most that is handed over.
const MAX_FDS: usize = 3;

/// Sends a message; the descriptors travel with its first bytes.
pub fn send(stream: &UnixStream, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> Result<()> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len()).context("the message is too long")?.to_be_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        bail!("more than {MAX_FDS} descriptors");
    }
    let sent = sendmsg(stream, &[IoSlice::new(&length)], &mut ancillary, SendFlags::NOSIGNAL)?;
    let mut stream = stream;
    stream.write_all(&length[sent..])?;
    Ok(stream.write_all(&body)?)
}

/// Receives a message, or none at the end of the stream.
pub fn receive<T: DeserializeOwned>(stream: &UnixStream) -> Result<Option<(T, Vec<OwnedFd>)>> {
    let mut length = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(stream, &mut [IoSliceMut::new(&mut length)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?.bytes;
    if got == 0 {
        return Ok(None);
    }
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    let mut stream = stream;
    stream.read_exact(&mut length[got..])?;
    let length = usize::try_from(u32::from_be_bytes(length))?;
    if length > LIMIT {
        bail!("a message of {length} bytes is longer than {LIMIT}");
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Some((serde_json::from_slice(&body).context("unreadable message")?, fds)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_descriptor_travels_with_its_message() {
        let (a, b) = UnixStream::pair().unwrap();
        let (far, near) = UnixStream::pair().unwrap();
        send(&a, &"take this", &[far.as_fd()]).unwrap();
        drop(far);
        let (text, mut fds): (String, _) = receive(&b).unwrap().unwrap();
        assert_eq!((text.as_str(), fds.len()), ("take this", 1));
        UnixStream::from(fds.remove(0)).write_all(b"x").unwrap();
        let mut got = [0];
        (&near).read_exact(&mut got).unwrap();
        assert_eq!(&got, b"x");
        drop(a);
        assert!(receive::<String>(&b).unwrap().is_none());
    }
}
