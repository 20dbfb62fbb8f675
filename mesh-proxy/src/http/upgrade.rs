//! Upgrade: HTTP/1.1 requests for another protocol (WebSocket): one plain HTTP/1.1 connection to the application, through a tunnel where it is in the mesh, then bytes. It must not retry what was sent.

use super::{
    body::Body,
    direct::{Directed, Direction, direct},
    forward::{Tried, anew_at, pick},
    frontend::Frontend,
    outgoing::Outgoing,
    plain::{H1_BUFFER_MIN, fault_of},
    response::ResponseBody,
};
use crate::{
    tcp::{self, Stream},
    telemetry::RequestGuard,
    tunnel::{DialFault, Reached},
};
use http::{Response, StatusCode};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use mesh_core::{
    balance::Target,
    decide::transport,
    fault::Fault,
    mesh::Limits,
    retry::{Outcome, REACHES},
    snapshot::Snapshot,
};
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
    time::{Instant, timeout},
};

/// A client's connection that speaks another protocol now.
type Upgraded = Box<dyn Io>;

/// Any stream of bytes.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// How a connection of a client goes from who serves its requests to who carries its bytes.
#[derive(Default)]
pub struct Upgrades(Mutex<Option<oneshot::Sender<Upgraded>>>);

impl Upgrades {
    /// The answer will be 101: the connection comes when it has been written.
    fn switch(&self) -> oneshot::Receiver<Upgraded> {
        let (give, take) = oneshot::channel();
        *self.0.lock() = Some(give);
        take
    }

    /// Whether the last answer was 101.
    pub fn is_switched(&self) -> bool {
        self.0.lock().is_some()
    }

    /// Hands the connection over.
    pub fn give(&self, io: impl Io + 'static) {
        if let Some(give) = self.0.lock().take() {
            // Whoever does not take it any more has closed the application's side.
            let _ = give.send(Box::new(io));
        }
    }
}

/// A failed upgrade with the record of its request.
type Failed = (DialFault, Box<RequestGuard>);

/// Serves a request for an upgrade. After a 101 the bytes are carried by a task of their own, which keeps the record; any other
/// response goes back as it is.
pub async fn upgrade(
    front: &Arc<Frontend>,
    snapshot: Arc<Snapshot>,
    mut outgoing: Box<Outgoing>,
    upgrades: &Upgrades,
    mut guard: Box<RequestGuard>,
) -> Result<Response<ResponseBody>, Failed> {
    let directed = match direct(front, &snapshot, &mut outgoing, &mut guard.record) {
        Direction::Forward(directed) => directed,
        Direction::Answer(response) => return Ok(ResponseBody::wrap(response, guard, None, None, false)),
        Direction::Refuse(fault) => return Err((fault.into(), guard)),
    };
    guard.record.service = Some((directed.service.clone(), directed.port));
    let settings = snapshot.settings().clone();
    let limits = &settings.limits;
    let first = pick(&snapshot, &directed, &[], Instant::now());
    drop(snapshot);
    let exchanged = async {
        let patience = directed.rule().and_then(|r| r.request_timeout);
        let exchanging = reach_one(front, limits, first?, &directed, &outgoing, &mut guard);
        match patience {
            Some(patience) => timeout(patience, exchanging).await.unwrap_or(Err(Fault::RequestTimeout.into())),
            None => exchanging.await,
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
    let client = upgrades.switch();
    let application = hyper::upgrade::on(&mut response);
    let (handshake, idle) = (limits.handshake, limits.idle);
    tokio::spawn(async move {
        // Both are ready as soon as the 101 has been read here and written to the client.
        let both = async { (client.await.ok(), application.await) };
        let (client, application) = match timeout(handshake, both).await {
            Ok((Some(client), Ok(application))) => (client, application),
            Ok((None, _)) => return guard.record.fail(Fault::ClientGone, "its connection ended with the upgrade"),
            Ok((_, Err(error))) => return guard.record.fail(Fault::UpstreamReset, error),
            Err(_) => return guard.record.fail(Fault::ClientGone, "no bytes after the upgrade"),
        };
        let mut client = Stream(client);
        let mut application = Stream(TokioIo::new(application));
        let carried = tcp::carry(&mut client, &mut application, idle).await;
        crate::fault::finish(&mut guard.record, carried);
    });
    let (mut head, _) = response.into_parts();
    directed.edit_response(&mut head.headers);
    Ok(ResponseBody::bare(Response::from_parts(head, Body::Empty)))
}

/// Exchanges heads with an endpoint; with another one if the first cannot be reached.
async fn reach_one(
    front: &Frontend,
    limits: &Limits,
    mut target: Arc<Target>,
    directed: &Directed,
    outgoing: &Outgoing,
    guard: &mut RequestGuard,
) -> Result<Response<hyper::body::Incoming>, DialFault> {
    let mut tried = Tried::new();
    loop {
        tried.push(target.address);
        guard.record.attempts += 1;
        guard.record.destination.address = Some(target.address);
        guard.record.destination.workload = target.workload.clone();
        let exchanged = exchange(front, limits, &target, Outgoing::clone(outgoing), guard).await;
        let Err(fault) = exchanged else { return exchanged };
        let more = guard.record.attempts < REACHES;
        let next = more.then(|| anew_at(front, directed, Outcome::Failed(fault.fault), &target, &mut tried));
        match next.flatten() {
            Some(next) => target = next,
            None => return Err(fault),
        }
    }
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
    sender.send_request(outgoing.http1(Body::Empty)).await.map_err(fault_of)
}
