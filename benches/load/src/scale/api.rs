//! An API server of the simulated cluster: lists in pages, watches that say what the bench changes. It must not know what the controller makes of it.

use super::world::World;
use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{Request, Response, body::Frame, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::UnboundedReceiverStream;

/// A watch without a limit of its own ends after this.
const WATCH_MAX: u64 = 300;

/// The running server; it ends with the value.
pub struct Api {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    world: World,
    log: Mutex<Log>,
}

/// What changed since the list, and who watches EndpointSlices.
#[derive(Default)]
struct Log {
    events: Vec<Bytes>,
    watchers: Vec<mpsc::UnboundedSender<Bytes>>,
}

type Body = BoxBody<Bytes, Infallible>;

impl Api {
    /// Begins to serve this cluster.
    pub async fn start(world: World) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { world, log: Mutex::default() });
        let mut tasks = JoinSet::new();
        let serving = shared.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let shared = serving.clone();
                let service = service_fn(move |request| {
                    let answer = answer(&shared, &request);
                    async move { answer }
                });
                connections.spawn(async move {
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Ok(Self { address, shared, _tasks: tasks })
    }

    /// An EndpointSlice is now this.
    pub fn change_slice(&self, n: u32, ready: bool) {
        let mut log = self.shared.log.lock().unwrap_or_else(PoisonError::into_inner);
        let mut object = self.shared.world.slice(n, ready);
        // Version 1 is the list's.
        object["metadata"]["resourceVersion"] = Value::String((log.events.len() + 2).to_string());
        let line = Bytes::from(json!({"type": "MODIFIED", "object": object}).to_string() + "\n");
        log.events.push(line.clone());
        log.watchers.retain(|watcher| watcher.send(line.clone()).is_ok());
    }
}

fn answer(shared: &Arc<Shared>, request: &Request<Incoming>) -> Result<Response<Body>> {
    let plural = request.uri().path().rsplit('/').next().unwrap_or_default();
    let query: Vec<(&str, &str)> =
        request.uri().query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')).collect();
    let asked = |name: &str| query.iter().find(|(n, _)| *n == name).map(|(_, value)| *value);
    let body = match asked("watch") {
        Some(_) => {
            let from: usize = asked("resourceVersion").and_then(|v| v.parse().ok()).context("no resourceVersion")?;
            let seconds = asked("timeoutSeconds").and_then(|s| s.parse().ok()).unwrap_or(WATCH_MAX);
            watch(shared, plural == "endpointslices", from, Duration::from_secs(seconds))
        }
        None => {
            let limit: u32 = asked("limit").and_then(|l| l.parse().ok()).unwrap_or(u32::MAX);
            let from: u32 = asked("continue").and_then(|c| c.parse().ok()).unwrap_or(0);
            Full::new(page(shared.world, plural, from, limit)).boxed()
        }
    };
    Ok(Response::builder().header("content-type", "application/json").body(body)?)
}

fn page(world: World, plural: &str, from: u32, limit: u32) -> Bytes {
    let (count, object) = world.objects(plural);
    let to = from.saturating_add(limit).min(count);
    let next = if to < count { to.to_string() } else { String::new() };
    let items: Vec<Value> = (from..to).map(|n| object(&world, n)).collect();
    json!({"metadata": {"resourceVersion": "1", "continue": next}, "items": items}).to_string().into()
}

fn watch(shared: &Arc<Shared>, sees: bool, from: usize, longest: Duration) -> Body {
    let (sender, lines) = mpsc::unbounded_channel();
    let mut log = shared.log.lock().unwrap_or_else(PoisonError::into_inner);
    if sees {
        for line in log.events.iter().skip(from.saturating_sub(1)) {
            let _ = sender.send(line.clone());
        }
        log.watchers.push(sender.clone());
    }
    let over = async move {
        // Nothing more is said, and the watch stays open until its time is over.
        tokio::time::sleep(longest).await;
        drop(sender);
    };
    let frames = UnboundedReceiverStream::new(lines).map(|line| Ok(Frame::data(line)));
    BodyExt::boxed(StreamBody::new(frames.take_until(Box::pin(over))))
}
