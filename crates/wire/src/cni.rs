//! Hand-over between the CNI plugin and the node proxy: messages of `proto/heddle/cni.proto` and their framing. It must not know what the proxy does with them.

use prost::Message;
use std::io::{self, Read, Write};

pub use generated::*;

mod generated {
    #![expect(missing_docs, reason = "generated; the proto file is the documentation")]
    include!(concat!(env!("OUT_DIR"), "/heddle.cni.v1.rs"));
}

/// Version of this protocol (`Request.protocol`).
pub const PROTOCOL: u32 = 1;

/// Bytes of the length that goes before a message.
pub const HEADER: usize = 4;

/// Largest message: a GC that names a thousand sandboxes by 256-byte ids stays below it, and nobody makes the other side hold more.
pub const MESSAGE_MAX: usize = 512 * 1024;

/// Why a message was not exchanged.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The stream failed, ended early or timed out.
    #[error("cni hand-over: stream broke")]
    Stream(#[from] io::Error),
    /// The peer announced, or we would send, more than [`MESSAGE_MAX`].
    #[error("cni hand-over: message of {0} bytes is over the limit of {MESSAGE_MAX}")]
    TooLong(usize),
    /// Not a message of ours.
    #[error("cni hand-over: not a message of this protocol")]
    Form(#[source] prost::DecodeError),
}

/// A message with its length before it, ready to be written.
pub fn frame(message: &impl Message) -> Result<Vec<u8>, Broken> {
    let length = message.encoded_len();
    if length > MESSAGE_MAX {
        return Err(Broken::TooLong(length));
    }
    let mut out = Vec::with_capacity(HEADER + length);
    out.extend_from_slice(&(length as u32).to_be_bytes());
    out.extend_from_slice(&message.encode_to_vec());
    Ok(out)
}

/// How many bytes follow a header.
pub fn length(header: [u8; HEADER]) -> Result<usize, Broken> {
    let length = u32::from_be_bytes(header) as usize;
    if length > MESSAGE_MAX { Err(Broken::TooLong(length)) } else { Ok(length) }
}

/// The message in the bytes that followed a header.
pub fn parse<M: Message + Default>(body: &[u8]) -> Result<M, Broken> {
    M::decode(body).map_err(Broken::Form)
}

/// Writes one message. The stream's own write timeout bounds it.
pub fn write(stream: &mut impl Write, message: &impl Message) -> Result<(), Broken> {
    stream.write_all(&frame(message)?).map_err(Broken::Stream)
}

/// Reads one message. The stream's own read timeout bounds each wait.
pub fn read<M: Message + Default>(stream: &mut impl Read) -> Result<M, Broken> {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header).map_err(Broken::Stream)?;
    let mut body = vec![0; length(header)?];
    stream.read_exact(&mut body).map_err(Broken::Stream)?;
    parse(&body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn add() -> Request {
        Request {
            protocol: PROTOCOL,
            command: Some(request::Command::Add(Add {
                container_id: "c1".into(),
                pod_namespace: "shop".into(),
                pod_name: "cart-0".into(),
                pod_uid: "u".into(),
                netns: "/run/netns/x".into(),
                addresses: vec!["10.0.0.1".into()],
            })),
        }
    }

    #[test]
    fn a_message_survives_a_unix_stream() {
        let (mut a, mut b) = UnixStream::pair().unwrap();
        write(&mut a, &add()).unwrap();
        assert_eq!(read::<Request>(&mut b).unwrap(), add());
    }

    #[test]
    fn each_broken_frame_says_what_is_wrong() {
        let mut huge = &[0xff; 8][..];
        assert_eq!(
            read::<Request>(&mut huge).unwrap_err().to_string(),
            "cni hand-over: message of 4294967295 bytes is over the limit of 524288"
        );
        let mut short = &[0, 0, 0, 9, 1][..];
        assert_eq!(read::<Request>(&mut short).unwrap_err().to_string(), "cni hand-over: stream broke");
        let mut garbage = &[0, 0, 0, 2, 0x0a, 0x50][..];
        assert_eq!(
            read::<Request>(&mut garbage).unwrap_err().to_string(),
            "cni hand-over: not a message of this protocol"
        );
        let gc = Request {
            protocol: PROTOCOL,
            command: Some(request::Command::Gc(Gc { container_ids: vec!["x".repeat(MESSAGE_MAX)] })),
        };
        assert!(matches!(frame(&gc), Err(Broken::TooLong(_))));
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        bolero::check!().for_each(|mut bytes: &[u8]| {
            let _ = read::<Request>(&mut bytes);
            let _ = read::<Response>(&mut bytes);
        });
    }
}
