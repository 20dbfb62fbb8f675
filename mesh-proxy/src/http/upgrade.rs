//! Upgrade: HTTP/1.1 requests for another protocol (WebSocket): one plain HTTP/1.1 connection to the application, through a tunnel where it is in the mesh, then bytes. It must not retry.

use super::{
    body::Body,
    direct::{Direction, direct},
    frontend::Frontend,
    outgoing::{Outgoing, Protocol},
    plain::{H1_BUFFER_MIN, fault_of},
    response::ResponseBody,
};
use crate::{
    tcp::{self, Stream},
    telemetry::RequestGuard,
    tunnel::{DialFault, Reached},
};
use http::{Response, StatusCode};
use hyper::{client::conn::http1, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use mesh_core::{balance::Target, decide::transport, fault::Fault, mesh::Limits, snapshot::Snapshot};
use std::sync::Arc;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout},
};

/// A failed upgrade with the record of its request.
type Failed = (DialFault, Box<RequestGuard>);

/// Serves a request for an upgrade. After a 101 the bytes are carried by a task of their own, which keeps the record; any other
/// response goes back as it is.
pub async fn upgrade(
    front: &Arc<Frontend>,
    snapshot: &Snapshot,
    mut outgoing: Outgoing,
    client: OnUpgrade,
    mut guard: Box<RequestGuard>,
) -> Result<Response<ResponseBody>, Failed> {
    let directed = match direct(front, snapshot, &mut outgoing, &mut guard.record) {
        Direction::Forward(directed) => directed,
        Direction::Answer(response) => return Ok(ResponseBody::wrap(response, guard, None, None, false)),
        Direction::Refuse(fault) => return Err((fault.into(), guard)),
    };
    guard.record.service = Some((directed.service.clone(), directed.port));
    let target = match snapshot.endpoints(&directed.service, directed.port) {
        None => return Err((Fault::BrokenBackend.into(), guard)),
        Some(endpoints) => match endpoints.pick(rand::random(), std::time::Instant::now(), &[]) {
            None => return Err((Fault::NoEndpoint.into(), guard)),
            Some(target) => target.clone(),
        },
    };
    guard.record.attempts = 1;
    guard.record.destination.address = Some(target.address);
    guard.record.destination.workload = target.workload.clone();
    let limits = &snapshot.settings().limits;
    let exchanged = async {
        let patience = directed.rule().and_then(|r| r.request_timeout);
        let exchange = exchange(front, limits, &target, outgoing, &mut guard);
        match patience {
            Some(patience) => timeout(patience, exchange).await.unwrap_or(Err(Fault::RequestTimeout.into())),
            None => exchange.await,
        }
    };
    let mut response = match exchanged.await {
        Ok(response) => response,
        Err(fault) => return Err((fault, guard)),
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        super::head::strip_hop_by_hop(response.headers_mut());
        directed.edit_response(response.headers_mut());
        let response = response.map(|body| Body::Incoming(body, None));
        return Ok(ResponseBody::wrap(response, guard, None, None, false));
    }
    guard.record.status = Some(StatusCode::SWITCHING_PROTOCOLS);
    let application = hyper::upgrade::on(&mut response);
    let (handshake, idle) = (limits.handshake, limits.idle);
    tokio::spawn(async move {
        // Both are ready as soon as the 101 has been read here and written to the client.
        let both = async { tokio::try_join!(client, application) };
        let (client, application) = match timeout(handshake, both).await {
            Ok(Ok(both)) => both,
            Ok(Err(error)) => return guard.record.fail(Fault::ClientGone, error),
            Err(_) => return guard.record.fail(Fault::ClientGone, "no bytes after the upgrade"),
        };
        let mut client = Stream(TokioIo::new(client));
        let mut application = Stream(TokioIo::new(application));
        let carried = tcp::carry(&mut client, &mut application, idle).await;
        crate::fault::finish(&mut guard.record, carried);
    });
    let (mut head, _) = response.into_parts();
    directed.edit_response(&mut head.headers);
    Ok(ResponseBody::bare(Response::from_parts(head, Body::Empty)))
}

async fn exchange(
    front: &Frontend,
    limits: &Limits,
    target: &Arc<Target>,
    outgoing: Outgoing,
    guard: &mut RequestGuard,
) -> Result<Response<hyper::body::Incoming>, DialFault> {
    match front.shared.pool.tunnel(&front.local, target, transport(target.workload.as_deref())).await? {
        Reached::Tunnel(stream, peer) => {
            guard.record.destination.identity = Some(peer);
            guard.record.tls = Some("TLSv1.3");
            over(stream, limits, outgoing).await
        }
        Reached::Plain => {
            let deadline = Instant::now() + limits.handshake;
            over(front.local.connect(target.address, deadline).await?, limits, outgoing).await
        }
    }
}

async fn over<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    io: T,
    limits: &Limits,
    outgoing: Outgoing,
) -> Result<Response<hyper::body::Incoming>, DialFault> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size((limits.header_bytes as usize).max(H1_BUFFER_MIN))
        .handshake::<_, Body>(TokioIo::new(io))
        .await
        .map_err(fault_of)?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection of an upgrade ended");
        }
    });
    sender.send_request(outgoing.plain(Protocol::Http1, Body::Empty)).await.map_err(fault_of)
}
