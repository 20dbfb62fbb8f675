//! The server name in a ClientHello, read ahead of the bytes that are carried. It must not terminate TLS.

use bytes::{Bytes, BytesMut};
use mesh_core::name::Text;
use std::time::Duration;
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    time::{Instant, timeout_at},
};

/// Wait for the first byte of a client that may not speak TLS at all: a local client that does sends it at once.
pub(super) const GREETING: Duration = Duration::from_millis(200);

/// Bytes of a ClientHello that are held: post-quantum key shares make 2 KiB, long ALPN and ticket lists a few more.
const HELLO_MAX: usize = 16 * 1024;

/// First byte of a TLS handshake record (RFC 8446 §5.1: handshake(22)).
const HANDSHAKE: u8 = 22;

/// Reads until the server name is known or there is none. Returns the bytes read, and the name in lower case.
pub(crate) async fn server_name(stream: &mut TcpStream, wait: Duration) -> (Bytes, Option<Text>) {
    let deadline = Instant::now() + wait;
    let mut read = BytesMut::with_capacity(4096);
    let mut acceptor = rustls::server::Acceptor::default();
    while read.len() < HELLO_MAX {
        let before = read.len();
        match timeout_at(deadline, stream.read_buf(&mut read)).await {
            Ok(Ok(n)) if n > 0 => {}
            // Late, ended or broken: what was read is carried all the same, and the copy loop meets the end again.
            _ => break,
        }
        if read[0] != HANDSHAKE {
            break;
        }
        let mut new = &read[before..];
        while !new.is_empty() {
            match acceptor.read_tls(&mut new) {
                Ok(n) if n > 0 => {}
                _ => return (read.freeze(), None),
            }
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let name = accepted.client_hello().server_name().map(|n| n.to_ascii_lowercase().into());
                return (read.freeze(), name);
            }
            Ok(None) => {}
            Err(_) => break,
        }
    }
    (read.freeze(), None)
}
