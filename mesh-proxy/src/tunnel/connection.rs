//! One connection to a peer: dialled within a bound, driven until it is idle, dead or no longer trusted. It must not choose peers.

use super::{
    DialFault, Lease, Open, Slot,
    limits::{
        FRAME, IDLE, READ_AHEAD, RECORDS, RESETS_MADE, RESETS_REMEMBERED, SEND_BUFFER, STREAMS, connection_window,
    },
    ping, window,
};
use crate::{batch::Batch, local::Local, turn::Turn};
use bytes::Bytes;
use futures_util::FutureExt;
use h2::client::SendRequest;
use mesh_core::{decide::HBONE_PORT, fault::Fault, identity::Identity};
use mesh_tls::{Trust, refusal_of};
use std::{
    error::Error,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};
use tokio::{
    io::BufReader,
    net::TcpStream,
    sync::Notify,
    time::{Instant, sleep, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;

/// A connection whose peer is proven and answers. Dropping the last handle closes it once its streams have ended.
pub(super) struct Connection {
    send: SendRequest<Bytes>,
    streams: Arc<AtomicUsize>,
    window: Arc<Window>,
    /// Cuts it with all its streams.
    cut: CancellationToken,
}

/// The window of a connection's streams, and who it goes by.
struct Window {
    open: Arc<Open>,
    now: AtomicU32,
    /// It is to be another.
    other: Notify,
}

/// What must be driven for a [`Connection`] to live.
pub(super) struct Driver {
    connection: h2::client::Connection<Batch<TlsStream<BufReader<TcpStream>>>, Bytes>,
    pings: h2::PingPong,
    streams: Arc<AtomicUsize>,
    window: Arc<Window>,
    cut: CancellationToken,
    /// Our own certificate, whose end the connection must not outlive unless there is a newer one.
    not_after: SystemTime,
}

/// Dials, shakes hands, and hears the peer speak HTTP/2; all before `deadline`.
pub(super) async fn dial(
    local: &Local,
    address: IpAddr,
    peer: &Identity,
    trust: &Trust,
    deadline: Instant,
) -> Result<(Connection, Driver), DialFault> {
    let identity = local.identity();
    let none = |e| DialFault::new(Fault::NoIdentity, e);
    let config = trust.client_config(&identity, peer).map_err(none)?;
    let not_after = trust.svids().current(&identity).ok_or(Fault::NoIdentity)?.not_after();
    let to = SocketAddr::new(address, HBONE_PORT);
    let tcp = local.connect(to, deadline).await?;
    let late = |what: &str| DialFault::new(Fault::ConnectTimeout, format!("{to}: {what} took too long"));
    let mut tls = timeout_at(
        deadline,
        TlsConnector::from(config).connect(address.into(), BufReader::with_capacity(READ_AHEAD, tcp)),
    )
    .await
    .map_err(|_| late("TLS"))?
    .map_err(|e| tls_fault(to, e))?;
    tls.get_mut().1.set_buffer_limit(Some(RECORDS));
    let open = local.opened().clone();
    let now = open.window();
    let (send, mut connection) = timeout_at(
        deadline,
        h2::client::Builder::new()
            .initial_window_size(now)
            .initial_connection_window_size(connection_window(STREAMS as u32))
            .max_frame_size(FRAME)
            .max_send_buffer_size(SEND_BUFFER)
            .enable_push(false)
            .max_concurrent_reset_streams(RESETS_REMEMBERED)
            .max_local_error_reset_streams(RESETS_MADE)
            .handshake(Batch::new(tls)),
    )
    .await
    .map_err(|_| late("the HTTP/2 preface"))?
    .map_err(|e| h2_fault(to, e))?;
    let mut pings = connection.ping_pong().ok_or(Fault::Internal)?;
    // TLS 1.3 lets a client finish before the server has looked at its certificate, and HTTP/2 lets it send before the server has said a
    // word. The answer to a PING proves both, so that a refusing or stalled peer costs no stream.
    let heard = async {
        tokio::select! {
            ended = &mut connection => Err(ended.err()),
            heard = ping::once(&mut pings) => heard.map_err(Some),
        }
    };
    match timeout_at(deadline, heard).await {
        Err(_) => return Err(late("the first HTTP/2 answer")),
        Ok(Err(Some(e))) => return Err(h2_fault(to, e)),
        Ok(Err(None)) => return Err(DialFault::new(Fault::ConnectFailed, format!("{to} closed the connection"))),
        Ok(Ok(())) => {}
    }
    let streams = Arc::new(AtomicUsize::new(0));
    let cut = CancellationToken::new();
    let window = Arc::new(Window { open, now: now.into(), other: Notify::new() });
    let driver =
        Driver { connection, pings, streams: streams.clone(), window: window.clone(), cut: cut.clone(), not_after };
    Ok((Connection { send, streams, window, cut }, driver))
}

impl Connection {
    /// A stream slot, if one is free and the peer still takes streams. Never waits.
    pub(super) fn slot(&self) -> Option<Slot> {
        let most = STREAMS.min(self.send.current_max_send_streams());
        let lease = Lease::take(&self.streams, most, &self.window.open)?;
        self.window.look();
        let mut send = self.send.clone();
        // Ready at once for a fresh handle; an error is a peer that said GOAWAY or is dead.
        match send.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => Some(Slot::new(send, lease)),
            _ => None,
        }
    }

    /// Whether it takes no more streams, ever.
    pub(super) fn is_leaving(&self) -> bool {
        self.cut.is_cancelled()
            || matches!(self.send.clone().poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Err(_)))
    }

    /// Cuts it with all its streams.
    pub(super) fn cut(&self) {
        self.cut.cancel();
    }
}

impl Driver {
    /// Drives the connection until it ends; says why, if the end was not a peaceful one. `trusted` is asked when our certificate has
    /// ended: whether there is a valid newer one. Cancelling it cuts the connection.
    /// `leave`: called once when there was no stream for a while; must drop the connection's handles, then it ends by itself.
    pub(super) async fn drive(
        self,
        trusted: impl Fn() -> Option<SystemTime>,
        leave: impl Fn(),
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let Self { mut connection, mut pings, streams, window, cut, not_after } = self;
        let driven = async {
            let mut turn = Turn::default();
            loop {
                tokio::select! {
                    ended = turn.take(|cx| connection.poll_unpin(cx)) => return ended,
                    () = window.other.notified() => window.apply(|size| connection.set_initial_window_size(size)),
                }
            }
        };
        let unused = async {
            idle(&streams).await;
            leave();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = driven => ended.map_err(Into::into),
            silent = ping::watch(&mut pings) => Err(silent.into()),
            () = cut.cancelled() => Err("cut: one of its workloads is gone".into()),
            () = unused => Ok(()),
            () = lapse(not_after, trusted) => Err("cut: our certificate has ended and there is no new one".into()),
        }
    }
}

impl Window {
    /// Called for each new stream.
    fn look(&self) {
        if window::change(self.now.load(Ordering::Relaxed), self.open.window()).is_some() {
            self.other.notify_one();
        }
    }

    /// Refused while the peer has not confirmed the last change; the next stream tries again.
    fn apply<E>(&self, set: impl FnOnce(u32) -> Result<(), E>) {
        if let Some(size) = window::change(self.now.load(Ordering::Relaxed), self.open.window())
            && set(size).is_ok()
        {
            self.now.store(size, Ordering::Relaxed);
        }
    }
}

/// Ends when there was no stream at [`LOOKS`] looks in a row, [`IDLE`] in all.
async fn idle(streams: &AtomicUsize) {
    const LOOKS: u32 = 3;
    let mut unused = 0;
    while unused < LOOKS {
        sleep(IDLE / LOOKS).await;
        unused = if streams.load(Ordering::Acquire) == 0 { unused + 1 } else { 0 };
    }
}

/// Ends when `not_after` is past and `trusted` knows no later end.
pub(crate) async fn lapse(mut not_after: SystemTime, trusted: impl Fn() -> Option<SystemTime>) {
    /// The wall clock that certificates live by may jump.
    const NAP: Duration = Duration::from_secs(20);
    loop {
        match not_after.duration_since(SystemTime::now()) {
            Ok(left) => sleep(left.min(NAP)).await,
            Err(_) => match trusted() {
                Some(later) if later > not_after => not_after = later,
                _ => return,
            },
        }
    }
}

fn tls_fault(to: SocketAddr, error: io::Error) -> DialFault {
    let fault = match refusal_of(&error) {
        Some(_) => Fault::PeerIdentity,
        None if error.kind() == io::ErrorKind::InvalidData => Fault::UpstreamProtocol,
        None => Fault::ConnectFailed,
    };
    DialFault::new(fault, Named { to, error: error.into() })
}

fn h2_fault(to: SocketAddr, error: h2::Error) -> DialFault {
    // A server that refuses our certificate says so by an alert, which arrives after our side of the handshake.
    let fault = match error.get_io() {
        Some(io) if refusal_of(io).is_some() => Fault::PeerIdentity,
        Some(_) => Fault::ConnectFailed,
        None => Fault::UpstreamProtocol,
    };
    DialFault::new(fault, Named { to, error: error.into() })
}

/// Which peer an error is about.
#[derive(Debug, thiserror::Error)]
#[error("peer {to}")]
struct Named {
    to: SocketAddr,
    #[source]
    error: Box<dyn Error + Send + Sync>,
}
