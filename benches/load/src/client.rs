//! A client of the bench's own, for what the load generators cannot say: one kept HTTP/1.1 connection that shows each answer. It must not measure.

use anyhow::{Context, Result, bail};
use nix::sys::socket::{setsockopt, sockopt};
use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::{Arc, LazyLock},
    time::Duration,
};

/// Nobody here takes longer to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// No head here is longer.
const HEAD_MAX: usize = 16 * 1024;

/// A connection; what carries it may be TLS.
pub struct Connection<S> {
    stream: S,
    buffer: Vec<u8>,
}

/// An answer, without its body.
#[derive(Debug, PartialEq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    head: String,
}

impl Answer {
    /// A header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }
}

/// A TCP connection, from this address if one is given.
pub fn connect(from: Option<Ipv4Addr>, to: SocketAddr) -> Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None)?;
    if let Some(from) = from {
        // The port is chosen by the connect, so that each address has all ports towards each destination.
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
        socket.bind(&SocketAddr::from((from, 0)).into())?;
    }
    socket.connect_timeout(&to.into(), PATIENCE).with_context(|| format!("connecting to {to}"))?;
    socket.set_tcp_nodelay(true)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// TLS with whoever is there: the bench asks what a proxy costs, not who it is.
pub fn tls(stream: TcpStream) -> Result<StreamOwned<ClientConnection, TcpStream>> {
    static CONFIG: LazyLock<Arc<ClientConfig>> =
        LazyLock::new(|| Arc::new(mesh_tls::unverified::client().with_no_client_auth()));
    let name = ServerName::try_from("bench")?;
    Ok(StreamOwned::new(ClientConnection::new(CONFIG.clone(), name)?, stream))
}

impl<S: Read + Write> Connection<S> {
    /// Over this.
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// One request, answered.
    pub fn get(&mut self, host: &str, path: &str) -> Result<Answer> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nx-a: 1\r\n\r\n");
        self.stream.write_all(request.as_bytes())?;
        self.buffer.clear();
        let (answer, whole) = loop {
            if let Some(end) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).context("no status")?;
                let answer = Answer { status, head };
                let body: usize = answer.header("content-length").unwrap_or("0").parse()?;
                break (answer, end + 4 + body);
            }
            self.more()?;
        };
        while self.buffer.len() < whole {
            self.more()?;
        }
        Ok(answer)
    }

    fn more(&mut self) -> Result<()> {
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk)? {
            0 => bail!("the connection was closed"),
            _ if self.buffer.len() > HEAD_MAX => bail!("an answer without end"),
            n => self.buffer.extend_from_slice(&chunk[..n]),
        }
        Ok(())
    }

    /// What carries it.
    pub fn into_inner(self) -> S {
        self.stream
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::TcpListener, thread};

    #[test]
    fn answers_in_pieces_are_read_whole_and_one_after_another() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for answer in [
                ["HTTP/1.1 200 OK\r\nX-Version: 7\r\nContent-Le", "ngth: 3\r\n\r\na", "bc"],
                ["HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n", "\r", "\n"],
            ] {
                let _ = stream.read(&mut [0; 1024]).unwrap();
                for piece in answer {
                    stream.write_all(piece.as_bytes()).unwrap();
                    thread::sleep(Duration::from_millis(5));
                }
            }
        });
        let mut connection = Connection::new(connect(Some(Ipv4Addr::LOCALHOST), address).unwrap());
        let answer = connection.get("h", "/").unwrap();
        assert_eq!((answer.status, answer.header("x-version")), (200, Some("7")));
        assert_eq!(connection.get("h", "/").unwrap().status, 404);
        server.join().unwrap();
    }
}
