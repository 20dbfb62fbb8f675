//! gRPC messages of the echo server. Any method is answered, so that any service can be played; the messages are those of `echo.proto`.

use bytes::{BufMut, Bytes, BytesMut};

/// The method that repeats messages while they come.
pub const REPEAT: &str = "/heddle.echo.v1.Echo/Repeat";

/// `heddle.echo.v1.EchoRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EchoRequest {
    /// Comes back in the report.
    #[prost(string, tag = "1")]
    pub message: String,
}

/// `heddle.echo.v1.EchoReply`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EchoReply {
    /// What the server saw, as JSON.
    #[prost(string, tag = "1")]
    pub report: String,
}

/// A message as it is on the wire: not compressed, length, bytes.
pub fn frame(message: &impl prost::Message) -> Bytes {
    let encoded = message.encode_to_vec();
    let mut framed = BytesMut::with_capacity(encoded.len() + 5);
    framed.put_u8(0);
    // A report is some hundred bytes.
    framed.put_u32(u32::try_from(encoded.len()).unwrap_or(u32::MAX));
    framed.put_slice(&encoded);
    framed.freeze()
}
