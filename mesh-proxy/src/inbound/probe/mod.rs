//! A kubelet's probe of a pod that takes no plaintext: one question, asked anew of the application, and its answer. It must not decide what a probe is; `mesh_core::decide` does.

mod grpc;
mod http;
mod tls;

use crate::{fault, local::Local, tunnel::DialFault};
use mesh_core::{decide::ProbePermit, fault::Fault, mesh::Limits};
use std::{io, net::SocketAddr, time::Duration};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};

/// Longest wait for an application's answer. The kubelet gives up by its own time (`timeoutSeconds`, for a preStop hook the pod's grace
/// period) and then this ends with it; the bound is for a kubelet that is no more.
const ANSWER: Duration = Duration::from_secs(600);

/// First byte of a TLS handshake record (RFC 8446 §5.1: handshake(22)).
const HANDSHAKE: u8 = 22;

/// How a connection begins.
enum Opening {
    /// It ended without a byte.
    Silence,
    Tls,
    Http1,
    Http2,
}

/// A probe under way.
struct Door<'a> {
    permit: ProbePermit,
    peer: SocketAddr,
    local: &'a Local,
    limits: &'a Limits,
}

/// Answers one connection as its permit allows, and closes it. Whatever else comes is refused, and nothing of it reaches the application.
/// Cancelling it resets both sides.
pub async fn probe(
    stream: TcpStream,
    peer: SocketAddr,
    permit: ProbePermit,
    local: &Local,
    limits: &Limits,
) -> Result<(), DialFault> {
    let door = Door { permit, peer, local, limits };
    match door.opening(&stream).await {
        // tcpSocket asks whether the application takes a connection. The pod's rules have told the kubelet already if nobody listens.
        Ok(Opening::Silence) => door.application().await.map(drop),
        Ok(Opening::Http1) => http::serve(stream, false, &door).await,
        Ok(Opening::Http2) => grpc::serve(stream, &door).await,
        Ok(Opening::Tls) => {
            let tls = tls::accept(stream, limits.handshake).await?;
            http::serve(tls, true, &door).await
        }
        Err(refused) => {
            fault::reset(&stream);
            Err(refused)
        }
    }
}

impl Door<'_> {
    async fn opening(&self, stream: &TcpStream) -> Result<Opening, DialFault> {
        let mut first = [0];
        let opening = match timeout(self.limits.handshake, stream.peek(&mut first)).await {
            Err(_) => return Err(DialFault::new(Fault::Limit, "it neither asked anything nor closed")),
            Ok(Ok(0)) => Opening::Silence,
            // A kubelet closes the connection of a tcpSocket probe by a reset, to leave no port waiting.
            Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionReset => Opening::Silence,
            Ok(Err(e)) => return Err(DialFault::new(Fault::ClientGone, e)),
            Ok(Ok(_)) => match first[0] {
                HANDSHAKE => Opening::Tls,
                // No probe is a POST, PUT or PATCH.
                b'P' => Opening::Http2,
                _ => Opening::Http1,
            },
        };
        let taken = match opening {
            Opening::Silence => self.permit.takes_silence(),
            Opening::Tls => self.permit.takes_http(true),
            Opening::Http1 => self.permit.takes_http(false),
            Opening::Http2 => self.permit.takes_grpc(),
        };
        if taken { Ok(opening) } else { Err(refused("no probe of this port is of this kind")) }
    }

    /// A connection to the application, from inside the pod.
    async fn application(&self) -> Result<TcpStream, DialFault> {
        let deadline = Instant::now() + self.limits.handshake;
        self.local.connect_as(self.peer.ip(), self.permit.destination(), deadline).await
    }
}

fn refused(why: &'static str) -> DialFault {
    DialFault::new(Fault::PlaintextRefused, why)
}

fn late(what: &'static str) -> DialFault {
    DialFault::new(Fault::ConnectTimeout, what)
}
