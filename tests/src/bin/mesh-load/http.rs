//! Requests at a steady rate, over kept connections or a new one for each; every failure is kept with its time and reason.

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::net::TcpStream;

#[derive(clap::Args, Clone)]
pub struct Flags {
    /// `http://HOST[:PORT]/PATH`
    url: hyper::Uri,
    /// Requests a second, all connections together.
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// Connections.
    #[arg(long, default_value_t = 4)]
    connections: u32,
    /// HTTP/2 with prior knowledge.
    #[arg(long)]
    h2: bool,
    /// A new connection for each request.
    #[arg(long)]
    fresh: bool,
    /// Ends after so many requests; 0: when stdin ends.
    #[arg(long, default_value_t = 0)]
    count: u64,
    /// Milliseconds that a request may take.
    #[arg(long, default_value_t = 10_000)]
    timeout: u64,
}

/// Failures beyond this many are counted, not described.
const FAILURES_KEPT: usize = 200;

#[derive(Default)]
struct Seen {
    sent: u64,
    ok: u64,
    failed: u64,
    failures: Vec<Value>,
    statuses: BTreeMap<u16, u64>,
    /// Header that the echo server answers with, else empty.
    pods: BTreeMap<String, u64>,
    slowest_ms: u128,
}

enum Connection {
    One(hyper::client::conn::http1::SendRequest<Full<Bytes>>),
    Two(hyper::client::conn::http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    async fn open(flags: &Flags) -> Result<Self> {
        let authority = flags.url.authority().context("the URL names no host")?;
        let host = match authority.port_u16() {
            Some(_) => authority.to_string(),
            None => format!("{authority}:80"),
        };
        let io = TokioIo::new(
            TcpStream::connect(crate::resolve(&host).await?).await.with_context(|| format!("connect {host}"))?,
        );
        Ok(if flags.h2 {
            let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            Self::Two(sender)
        } else {
            let (sender, connection) = hyper::client::conn::http1::handshake(io).await?;
            tokio::spawn(connection);
            Self::One(sender)
        })
    }

    async fn send(&mut self, request: hyper::Request<Full<Bytes>>) -> Result<(u16, String)> {
        let response = match self {
            Self::One(c) => {
                c.ready().await?;
                c.send_request(request).await?
            }
            Self::Two(c) => {
                c.ready().await?;
                c.send_request(request).await?
            }
        };
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.context("body")?.to_bytes();
        let pod = serde_json::from_slice::<Value>(&body).ok().and_then(|v| v["pod"].as_str().map(str::to_owned));
        Ok((status, pod.unwrap_or_default()))
    }
}

/// Sends until the count is reached or stdin ends.
pub async fn run(flags: Flags) -> Result<String> {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let stop = Arc::new(AtomicBool::new(false));
    if flags.count == 0 {
        let stop = stop.clone();
        tokio::spawn(async move {
            crate::stdin_ends().await;
            stop.store(true, Ordering::Relaxed);
        });
    }
    let started = Instant::now();
    let pause = Duration::from_secs_f64(f64::from(flags.connections) / f64::from(flags.rate));
    let workers: Vec<_> = (0..flags.connections)
        .map(|_| tokio::spawn(worker(flags.clone(), seen.clone(), stop.clone(), started, pause)))
        .collect();
    for worker in workers {
        worker.await?;
    }
    let seen = seen.lock().expect("no worker panics while it holds the lock");
    Ok(json!({"sent": seen.sent, "ok": seen.ok, "failed": seen.failed, "failures": seen.failures, "statuses": seen.statuses,
        "pods": seen.pods, "slowest_ms": seen.slowest_ms, "seconds": started.elapsed().as_secs_f64()})
    .to_string())
}

async fn worker(flags: Flags, seen: Arc<Mutex<Seen>>, stop: Arc<AtomicBool>, started: Instant, pause: Duration) {
    let mut ticks = tokio::time::interval(pause);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut connection = None;
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        {
            let mut seen = seen.lock().expect("no worker panics while it holds the lock");
            if flags.count > 0 && seen.sent >= flags.count {
                return;
            }
            seen.sent += 1;
        }
        let begun = Instant::now();
        let outcome = tokio::time::timeout(Duration::from_millis(flags.timeout), once(&flags, &mut connection)).await;
        let outcome = outcome.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer in {} ms", flags.timeout)));
        if flags.fresh || outcome.is_err() {
            connection = None;
        }
        let mut seen = seen.lock().expect("no worker panics while it holds the lock");
        seen.slowest_ms = seen.slowest_ms.max(begun.elapsed().as_millis());
        let why = match outcome {
            Ok((status, pod)) => {
                *seen.statuses.entry(status).or_default() += 1;
                *seen.pods.entry(pod).or_default() += 1;
                if status < 400 {
                    seen.ok += 1;
                    continue;
                }
                format!("status {status}")
            }
            Err(error) => format!("{error:#}"),
        };
        seen.failed += 1;
        if seen.failures.len() < FAILURES_KEPT {
            seen.failures
                .push(json!({"at_ms": u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX), "why": why}));
        }
    }
}

async fn once(flags: &Flags, connection: &mut Option<Connection>) -> Result<(u16, String)> {
    if connection.is_none() {
        *connection = Some(Connection::open(flags).await?);
    }
    let request = match connection {
        Some(Connection::Two(_)) => hyper::Request::get(flags.url.clone()),
        _ => hyper::Request::get(flags.url.path_and_query().map_or("/", |p| p.as_str()))
            .header("host", flags.url.authority().map_or("", |a| a.as_str())),
    };
    let request = request.body(Full::new(Bytes::new()))?;
    let closed = match connection {
        Some(Connection::One(c)) => c.is_closed(),
        Some(Connection::Two(c)) => c.is_closed(),
        None => true,
    };
    // A server may close a kept connection between requests (GOAWAY, keep-alive end); a client that knows so dials again.
    if closed {
        *connection = Some(Connection::open(flags).await?);
    }
    let sent = match connection {
        Some(c) => c.send(request.clone()).await,
        None => anyhow::bail!("no connection"),
    };
    // The server had closed the connection before a byte of the request was written; every client dials again then.
    let unsent = |e: &anyhow::Error| e.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled);
    match sent {
        Err(error) if unsent(&error) => connection.insert(Connection::open(flags).await?).send(request).await,
        sent => sent,
    }
}
