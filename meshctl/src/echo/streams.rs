//! The echo server's bytes and datagrams. A line `report` is answered with a report; everything else comes back as it is.

use super::Server;
use serde_json::json;
use std::sync::Arc;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
};

/// What asks for a report instead of an echo.
const ASK: &[u8] = b"report\n";

/// Echoes connections; with `greets` it speaks first.
pub async fn echo(server: Arc<Server>, listener: TcpListener, greets: bool) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = server.ending.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else { continue };
        // These live as long as their client likes; they do not hold up the end.
        tokio::spawn(one(Arc::clone(&server), stream, greets));
    }
}

async fn one(server: Arc<Server>, mut stream: TcpStream, greets: bool) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut report = server.report();
    report.insert("protocol".into(), json!(if greets { "tcp-greet" } else { "tcp" }));
    report.insert("remote".into(), json!(stream.peer_addr()?));
    let report = format!("{}\n", serde_json::Value::Object(report));
    if greets {
        stream.write_all(report.as_bytes()).await?;
    }
    let mut buffer = vec![0; 64 * 1024];
    let first = stream.read(&mut buffer).await?;
    if buffer[..first].starts_with(ASK) {
        stream.write_all(report.as_bytes()).await?;
    } else {
        stream.write_all(&buffer[..first]).await?;
    }
    if first > 0 {
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await?;
    }
    // The other side has ended its half; now we end ours.
    stream.shutdown().await
}

/// Echoes datagrams.
pub async fn datagrams(server: Arc<Server>, socket: UdpSocket) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        // A lost answer is UDP's business.
        let _ = if buffer[..length].starts_with(b"report") {
            let mut report = server.report();
            report.insert("protocol".into(), json!("udp"));
            report.insert("remote".into(), json!(from));
            socket.send_to(serde_json::Value::Object(report).to_string().as_bytes(), from).await
        } else {
            socket.send_to(&buffer[..length], from).await
        };
    }
}
