//! Carries the config stream: says what is held, takes deltas, answers each, keeps the cache. It must not decide what a delta does; `held` does.

use super::{
    Cache, Held, Link,
    link::{LinkFault, causes},
};
use arc_swap::ArcSwap;
use mesh_core::{mesh::Roots, name::ProxyName, retry::backoff, snapshot::Snapshot};
use mesh_run::Condition;
use mesh_wire::{
    MESSAGE_MAX, PROTOCOL,
    proto::{
        Ack, Delta, Hello, Rejection, ToController, ToProxy, config_client::ConfigClient as Grpc,
        to_controller::Message as Say, to_proxy::Message as Heard,
    },
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// First pause after a lost controller; doubled up to the bound of [`backoff`], so that one that is back is noticed within seconds.
const RECONNECT: Duration = Duration::from_millis(100);
/// A session that lasted so long was a good one: the next loss starts with the first pause again.
const GOOD_SESSION: Duration = Duration::from_secs(5);
/// The controller takes the call within this time, or counts as gone.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Changes come in bursts; the file is written once after each, at most so long after the first of them.
const CACHE_DELAY: Duration = Duration::from_millis(500);
/// How long a proxy that starts with a stored config waits for the controller's word before it serves from what it has: the file may be half a
/// second and a whole downtime old, and a running controller answers within a tenth of this.
const CACHE_PATIENCE: Duration = Duration::from_secs(1);
/// Hello and one answer: the controller sends the next delta only after the answer to the last.
const SAYINGS: usize = 2;

/// Hears of the roots that the controller names, before anything that relies on them is acknowledged.
type Trusts = Box<dyn Fn(&Arc<Roots>) + Send + Sync>;

/// The client of the config stream.
pub struct ConfigClient {
    link: Link,
    proxy: ProxyName,
    cache: Cache,
    ready: Arc<Condition>,
    held: Held,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    stored: watch::Sender<Held>,
    view: ConfigView,
    trusts: Trusts,
}

/// What the client holds and how it fares, for `/debug/config`. Cheap to clone and to read.
#[derive(Clone)]
pub struct ConfigView {
    proxy: ProxyName,
    state: Arc<ArcSwap<ViewState>>,
}

#[derive(Clone, Default)]
struct ViewState {
    held: Held,
    connected: bool,
    fault: Option<String>,
}

/// Why a session ended. Nothing that is held changes by it.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("{0}")]
    Link(#[from] LinkFault),
    #[error("the controller ended the session: {}", said(.0))]
    Status(Status),
    #[error("the controller did not take the call within {} s", CALL_TIMEOUT.as_secs())]
    Slow,
    #[error("the controller closed the stream")]
    Closed,
}

fn said(status: &Status) -> String {
    match status.message() {
        "" => causes(status),
        message => format!("{message} ({:?})", status.code()),
    }
}

impl ConfigClient {
    /// Starts from the cache, if there is a good one: then there is a snapshot even if the controller does not answer within `CACHE_PATIENCE`.
    /// `ready` is met by the first snapshot.
    pub fn new(
        link: Link,
        proxy: ProxyName,
        cache: Cache,
        ready: Condition,
    ) -> (Self, watch::Receiver<Option<Arc<Snapshot>>>) {
        let held = match cache.load() {
            Ok(Some(held)) => {
                tracing::info!(resources = held.known().len(), "starting from the config of the last run");
                held
            }
            Ok(None) => Held::default(),
            Err(fault) => {
                tracing::warn!(error = %fault, "the config of the last run is ignored; waiting for the controller");
                Held::default()
            }
        };
        let (snapshots, receiver) = watch::channel(None);
        let view = ConfigView { proxy: proxy.clone(), state: Arc::default() };
        view.show(&held, false, None);
        let stored = watch::Sender::new(held.clone());
        let client = Self {
            link,
            proxy,
            cache,
            ready: Arc::new(ready),
            held,
            snapshots,
            stored,
            view,
            trusts: Box::new(|_| {}),
        };
        (client, receiver)
    }

    /// Tells `trusts` of the roots of the mesh, those of the last run at once, and new ones before the controller hears that they are taken.
    pub fn telling(mut self, trusts: impl Fn(&Arc<Roots>) + Send + Sync + 'static) -> Self {
        self.trusts = Box::new(trusts);
        self.trust();
        self
    }

    fn trust(&self) {
        if let Some(roots) = self.held.roots() {
            self.link.trust(roots);
            (self.trusts)(roots);
        }
    }

    /// A view of it that outlives it.
    pub fn view(&self) -> ConfigView {
        self.view.clone()
    }

    /// Runs until dropped: connects, follows, connects again. `connected` is called whenever the controller answers, so that others who wait for it
    /// (renewals) try again too. Dropping it loses nothing but the last `CACHE_DELAY` of the cache.
    pub async fn run(mut self, connected: impl Fn() + Send) {
        let stored = self.stored.subscribe();
        let cache = self.cache.clone();
        let cached = serve_cached(self.held.snapshot().cloned(), self.snapshots.clone(), self.ready.clone());
        tokio::select! {
            () = keep_cache(cache, stored) => {}
            () = cached => {}
            () = self.follow(&connected) => {}
        }
    }

    async fn follow(&mut self, connected: &(impl Fn() + Send)) {
        let mut losses = 0u32;
        let mut last = String::new();
        loop {
            let start = Instant::now();
            let Err(lost) = self.session(connected).await;
            let reason = lost.to_string();
            losses = if start.elapsed() >= GOOD_SESSION { 1 } else { losses.saturating_add(1) };
            let pause = backoff(Some(RECONNECT), losses, rand::random());
            // Each new reason once; the same one again and again would only hide it.
            if losses == 1 && matches!(lost, Lost::Closed) {
                // The controller wants to know anew who we are.
                tracing::info!(?pause, "the session with the controller has ended in good order; opening another");
            } else if reason == last && losses > 1 {
                tracing::debug!(error = %reason, ?pause, "still without the controller");
            } else {
                tracing::warn!(error = %reason, ?pause, "without the controller; the last good config serves on");
            }
            self.view.show(&self.held, false, Some(&reason));
            last = reason;
            sleep(pause).await;
        }
    }

    async fn session(&mut self, connected: &(impl Fn() + Send)) -> Result<std::convert::Infallible, Lost> {
        let channel = self.link.connect().await?;
        let (say, sayings) = mpsc::channel(SAYINGS);
        let hello = Hello { protocol: PROTOCOL, proxy: self.proxy.to_string(), known: self.held.hello() };
        let resumed = hello.known.len();
        say.send(ToController { message: Some(Say::Hello(hello)) }).await.map_err(|_| Lost::Closed)?;
        let request = self.link.request(ReceiverStream::new(sayings)).await?;
        let mut client = Grpc::new(channel).max_decoding_message_size(MESSAGE_MAX);
        let stream = timeout(CALL_TIMEOUT, client.stream(request)).await.map_err(|_| Lost::Slow)?;
        let mut stream: Streaming<ToProxy> = stream.map_err(Lost::Status)?.into_inner();
        tracing::info!(resumed, "connected to the controller");
        self.view.show(&self.held, true, None);
        connected();
        while let Some(message) = stream.message().await.map_err(Lost::Status)? {
            // Later versions may say more; what we do not know we need not answer.
            let Some(Heard::Delta(delta)) = message.message else { continue };
            let ack = self.take(delta);
            say.send(ToController { message: Some(Say::Ack(ack)) }).await.map_err(|_| Lost::Closed)?;
        }
        Err(Lost::Closed)
    }

    fn take(&mut self, delta: Delta) -> Ack {
        let (nonce, upserts, removes, synced) = (delta.nonce, delta.upserts.len(), delta.removes.len(), delta.synced);
        match self.held.take(delta) {
            Ok(()) => {
                tracing::debug!(nonce, upserts, removes, "config applied");
                self.trust();
                // After a restart: not half of what changed meanwhile.
                let resuming = !synced && self.snapshots.borrow().is_none();
                if let Some(snapshot) = self.held.snapshot().filter(|_| !resuming) {
                    let snapshot = snapshot.clone();
                    let changed = self.snapshots.send_if_modified(|old| {
                        let changed = !old.as_ref().is_some_and(|old| Arc::ptr_eq(old, &snapshot));
                        *old = Some(snapshot);
                        changed
                    });
                    if changed {
                        self.stored.send_replace(self.held.clone());
                    }
                    self.ready.met();
                }
                self.view.show(&self.held, true, None);
                Ack { nonce, errors: vec![] }
            }
            Err(rejected) => {
                for r in &rejected {
                    tracing::warn!(
                        nonce,
                        resource = r.resource,
                        field = r.field,
                        reason = r.reason,
                        "config refused; nothing of this update is applied"
                    );
                }
                let errors =
                    rejected.into_iter().map(|r| Rejection { resource: r.resource, field: r.field, reason: r.reason });
                Ack { nonce, errors: errors.collect() }
            }
        }
    }
}

/// Shows the stored config once the controller has had its time. Never ends before the client does.
async fn serve_cached(
    stored: Option<Arc<Snapshot>>,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    ready: Arc<Condition>,
) {
    if let Some(stored) = stored {
        sleep(CACHE_PATIENCE).await;
        let needed = snapshots.send_if_modified(|now| {
            let needed = now.is_none();
            *now = now.take().or(Some(stored));
            needed
        });
        if needed {
            tracing::warn!("no word from the controller; serving the config of the last run");
            ready.met();
        }
    }
    std::future::pending().await
}

/// Writes the newest config a moment after it came. Never ends before the client does.
async fn keep_cache(cache: Cache, mut stored: watch::Receiver<Held>) {
    while stored.changed().await.is_ok() {
        sleep(CACHE_DELAY).await;
        let (held, cache) = (stored.borrow_and_update().clone(), cache.clone());
        let save = move || {
            let saved = cache.save(&held);
            drop(held);
            mesh_sys::memory::give_back();
            saved
        };
        let saved = tokio::task::spawn_blocking(save).await;
        // What the change took on this thread.
        mesh_sys::memory::give_back();
        match saved {
            Ok(Err(fault)) => {
                tracing::warn!(error = %fault, "the config is not stored; a restart without controller would have none")
            }
            Ok(Ok(())) => {}
            Err(stopped) => tracing::debug!(error = %stopped, "storing was interrupted"),
        }
    }
    std::future::pending().await
}

impl ConfigView {
    fn show(&self, held: &Held, connected: bool, fault: Option<&str>) {
        self.state.store(Arc::new(ViewState { held: held.clone(), connected, fault: fault.map(str::to_owned) }));
    }

    /// Whether there is a session with the controller now.
    pub fn is_connected(&self) -> bool {
        self.state.load().connected
    }

    /// The JSON of `/debug/config`: every resource with version and content. What holds a key does not show it.
    pub fn to_json(&self) -> serde_json::Value {
        let state = self.state.load();
        let resources = state.held.resources().map(|(id, version, resource)| {
            serde_json::json!({
                "id": id.to_string(),
                "version": format!("{version:016x}"),
                "content": format!("{resource:?}"),
            })
        });
        serde_json::json!({
            "proxy": self.proxy.to_string(),
            "controller": { "connected": state.connected, "fault": state.fault },
            "synced": state.held.snapshot().is_some(),
            "resources": resources.collect::<Vec<_>>(),
        })
    }
}
