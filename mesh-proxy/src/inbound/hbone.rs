//! The workload's :15008: mTLS, HTTP/2, and for each stream a tunnel (CONNECT) or a native request. It must not know HTTP semantics.

use super::Arrival;
use crate::{
    fault,
    local::Local,
    shared::Shared,
    tcp,
    telemetry::{Connection, Direction, HandshakeResult, HandshakeSide},
    tunnel::{
        self, DialFault, TunnelStream,
        limits::{READ_AHEAD, RECORDS},
        server,
    },
};
use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{Method, Request, Response, StatusCode};
use mesh_core::{
    decide::{self, HBONE_PORT, Permit},
    fault::Fault,
    mesh::{Limits, MeshSettings},
};
use mesh_tls::{VerifiedPeer, verified_peer};
use std::{net::SocketAddr, sync::Arc};
use tokio::{
    io::BufReader,
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

/// Serves one connection of a peer. `stop`: the workload leaves; living streams go on until the proxy drains.
pub async fn mesh(
    stream: TcpStream,
    peer_address: SocketAddr,
    local: Arc<Local>,
    shared: Arc<Shared>,
    stop: CancellationToken,
    permit: OwnedSemaphorePermit,
) {
    let Some(settings) = shared.settings() else { return };
    let limits = &settings.limits;
    let arrival = Arrival { peer: peer_address, local: fault::local_address(&stream, HBONE_PORT) };
    let (tls, peer) = match terminate(stream, &local, &shared, limits).await {
        Ok(done) => done,
        Err(fault) => {
            // The connection's own line: peers that are refused never get a stream that could have one.
            let mut record = shared.telemetry.connection(Direction::Inbound, &settings);
            ends(&mut record, &arrival, &local, None);
            record.record.fail(fault.fault, fault.detail());
            return fault::log(&record.record, &fault);
        }
    };
    let identity = local.identity();
    let not_after = shared.trust.svids().current(&identity).map(|s| s.not_after());
    let lapsed = async {
        // None: the certificate has ended since the handshake; so has what this connection trusts.
        if let Some(end) = not_after {
            tunnel::lapse(end, || shared.trust.svids().current(&identity).map(|s| s.not_after())).await;
        }
    };
    let served = server::serve(tls, limits, (&stop, &shared.drain), lapsed, local.opened(), |request, respond| {
        let (local, shared, peer) = (local.clone(), shared.clone(), peer.clone());
        if request.method() == Method::CONNECT {
            tokio::spawn(stream_of(request, respond, peer, arrival, local, shared));
        } else {
            // Boxed: a spawned future is moved twice, and this one is large.
            tokio::spawn(Box::pin(crate::http::deliver(request, respond, peer, arrival, local, shared)));
        }
    });
    if let Err(ended) = served.await {
        let detail = DialFault::new(Fault::UpstreamProtocol, ended).detail();
        tracing::debug!(peer = %peer.identity(), address = %peer_address, detail, "connection from peer ended");
    }
    drop(permit);
}

/// TLS, bounded, and the proof of who the peer is.
async fn terminate(
    stream: TcpStream,
    local: &Local,
    shared: &Shared,
    limits: &Limits,
) -> Result<(TlsStream<BufReader<TcpStream>>, VerifiedPeer), DialFault> {
    let config = shared.trust.server_config(&local.identity()).map_err(|e| DialFault::new(Fault::NoIdentity, e))?;
    let accepted =
        timeout(limits.handshake, TlsAcceptor::from(config).accept(BufReader::with_capacity(READ_AHEAD, stream))).await;
    let outcome = match accepted {
        Err(_) => {
            let what = format!("the peer did not finish TLS within {} ms", limits.handshake.as_millis());
            Err(DialFault::new(Fault::ConnectTimeout, what))
        }
        Ok(Err(error)) => Err(fault::of_tls(error)),
        Ok(Ok(mut tls)) => match verified_peer(tls.get_ref().1) {
            Ok(peer) => {
                tls.get_mut().1.set_buffer_limit(Some(RECORDS));
                Ok((tls, peer))
            }
            Err(refusal) => Err(DialFault::new(Fault::PeerIdentity, refusal)),
        },
    };
    shared.telemetry.handshake(
        HandshakeSide::Server,
        match &outcome {
            Ok(_) => HandshakeResult::Ok,
            Err(fault) => HandshakeResult::Failed(fault.rule()),
        },
    );
    outcome
}

/// One HBONE tunnel: admit, connect, 200, carry.
async fn stream_of(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    peer: VerifiedPeer,
    arrival: Arrival,
    local: Arc<Local>,
    shared: Arc<Shared>,
) {
    let Some(settings) = shared.settings() else { return };
    let mut record = shared.telemetry.connection(Direction::Inbound, &settings);
    ends(&mut record, &arrival, &local, Some(&peer));
    let opened = open(&request, &peer, &arrival, &local, &settings, &mut record).await;
    let (mut application, _permit) = match opened {
        Ok(opened) => opened,
        Err(fault) => {
            let status = match fault.fault {
                // HBONE: 503 when the application cannot be reached.
                Fault::ConnectFailed | Fault::ConnectTimeout => StatusCode::SERVICE_UNAVAILABLE,
                other => other.status(),
            };
            refuse(&mut respond, status);
            record.record.fail(fault.fault, fault.detail());
            return fault::log(&record.record, &fault);
        }
    };
    // A peer that went away meanwhile is told nothing; dropping the application's connection is all there is to do.
    let Ok(send) = respond.send_response(Response::new(()), false) else {
        return record.record.fail(Fault::ClientGone, "the peer reset the tunnel before it was open");
    };
    let mut tunnel = TunnelStream::new(send, request.into_body(), None);
    let carried = tcp::carry(&mut tunnel, &mut application, settings.limits.idle).await;
    fault::finish(&mut record.record, carried);
}

/// The application's connection, for a peer that may have it.
async fn open(
    request: &Request<RecvStream>,
    peer: &VerifiedPeer,
    arrival: &Arrival,
    local: &Local,
    settings: &MeshSettings,
    record: &mut Connection,
) -> Result<(TcpStream, OwnedSemaphorePermit), DialFault> {
    let wanted: SocketAddr = request
        .uri()
        .authority()
        .and_then(|a| a.as_str().parse().ok())
        .ok_or_else(|| DialFault::new(Fault::BadRequest, format!("CONNECT {} is not IP:PORT", request.uri())))?;
    record.record.destination.address = Some(wanted);
    let allowed: Permit = decide::admit(&local.workload(), arrival.local, peer.identity(), wanted)?;
    let permit = local.connection()?;
    record.record.attempts = 1;
    let deadline = Instant::now() + settings.limits.handshake;
    let application = local.connect_as(arrival.peer.ip(), allowed.destination(), deadline).await?;
    Ok((application, permit))
}

fn refuse(respond: &mut SendResponse<Bytes>, status: StatusCode) {
    let mut response = Response::new(());
    *response.status_mut() = status;
    // Fails only when the peer has reset the stream.
    let _ = respond.send_response(response, true);
}

/// Both ends of an inbound connection.
fn ends(record: &mut Connection, arrival: &Arrival, local: &Local, peer: Option<&VerifiedPeer>) {
    let workload = local.workload();
    let record = &mut record.record;
    record.source.address = Some(arrival.peer);
    record.source.identity = peer.map(|p| p.identity().clone());
    record.destination.address = Some(arrival.local);
    record.destination.identity = Some(workload.identity.clone());
    record.destination.workload = Some(workload);
    record.tls = peer.map(|_| "TLSv1.3");
}
