//! The publisher: one mesh, the slices of the proxies, and a mailbox for each connected one. It must not do I/O; `config` does. Its locks are held for computing only.

use super::{
    mesh::Mesh,
    metrics::Metrics,
    session::{Answered, Refusal, Session, UnknownNonce},
    slice::Slice,
    stage::Stages,
};
use mesh_core::{
    mesh::Roots,
    name::ProxyName,
    node::{NodeDelta, Resource, ResourceId},
};
use mesh_wire::{proto, sender::OutgoingDelta};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{Notify, watch};

/// Connected sessions of one proxy name: the replicas of a Gateway, and an old connection that nobody has missed yet.
const SESSIONS_PER_PROXY: usize = 64;

/// How often a step that waits for proxies is looked at.
const PACE: Duration = Duration::from_millis(100);

/// What every proxy is told, and how far each is.
#[derive(Debug)]
pub struct Publisher {
    state: Mutex<State>,
    stages: Mutex<Stages>,
    paced: Notify,
    /// Whether the first plan is here. Before it nobody is told anything: an empty mesh would make proxies drop all they know.
    ready: watch::Sender<bool>,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct State {
    mesh: Mesh,
    proxies: BTreeMap<ProxyName, Proxy>,
}

#[derive(Debug)]
struct Proxy {
    slice: Slice,
    mailboxes: Vec<Arc<Mailbox>>,
}

#[derive(Debug)]
struct Mailbox {
    session: Mutex<Session>,
    wake: Notify,
}

/// How far a proxy is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProxyState {
    /// Connected sessions.
    pub sessions: usize,
    /// Whether all of them hold all that is published, but for refusals.
    pub current: bool,
    /// What it refused and still is the newest.
    pub refused: BTreeMap<ResourceId, Refusal>,
}

/// Who has taken the newest version of a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// The version; the same for the same content in every process.
    pub version: u64,
    /// Sessions of proxies that need it.
    pub connected: usize,
    /// Those that have acknowledged it.
    pub by: usize,
}

impl Publisher {
    /// A publisher with nothing to say yet.
    pub fn new(metrics: Metrics) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            stages: Mutex::default(),
            paced: Notify::new(),
            ready: watch::Sender::new(false),
            metrics,
        })
    }

    /// Brings every connected proxy towards the mesh after `delta`; pods that run come and go in stages. Never waits: each gets it in its
    /// own time.
    pub fn publish(&self, delta: &NodeDelta) {
        self.publish_granted(delta, |_| ());
    }

    /// As [`Self::publish`]; `granted` gets what is published, before anybody else hears of it.
    pub fn publish_granted(&self, delta: &NodeDelta, granted: impl FnOnce(&NodeDelta)) {
        // Held until it is published, so that an older stage never comes after a newer one.
        let mut stages = self.stages.lock();
        let shown = stages.take(delta, Instant::now());
        granted(&shown);
        self.apply(&shown);
        drop(stages);
        self.paced.notify_one();
        self.ready.send_replace(true);
    }

    /// Makes the steps of pods that come and go, for ever. Cancelling it leaves them where they are.
    pub async fn pace(self: Arc<Self>, granted: impl Fn(&NodeDelta)) {
        loop {
            let next = self.stages.lock().next();
            match next {
                None => self.paced.notified().await,
                Some(until) => {
                    // What is due but waits for a proxy is looked at again a little later.
                    let until = tokio::time::Instant::from_std(until.max(Instant::now() + PACE));
                    tokio::select! {
                        () = tokio::time::sleep_until(until) => {}
                        // There may be an earlier step now.
                        () = self.paced.notified() => continue,
                    }
                    let current = self.proxies().values().all(|p| p.current);
                    let mut stages = self.stages.lock();
                    let shown = stages.step(Instant::now(), current);
                    if !shown.is_empty() {
                        granted(&shown);
                        self.apply(&shown);
                    }
                }
            }
        }
    }

    /// Tells every proxy of new roots. They are no part of the plan, so before the first plan they wait with everything else.
    pub fn trust(&self, roots: &Arc<Roots>) {
        self.apply(&NodeDelta { upserts: vec![Resource::Roots(roots.clone())], removes: vec![] });
    }

    /// Of the connected proxies: which hold the published roots, if those are of this revision, and which do not.
    pub fn trusting(&self, revision: u64) -> (BTreeSet<ProxyName>, BTreeSet<ProxyName>) {
        let state = self.state.lock();
        let published = state
            .mesh
            .entry(&ResourceId::Roots)
            .is_some_and(|entry| matches!(&entry.resource, Resource::Roots(roots) if roots.revision == revision));
        let holds = |p: &Proxy| published && p.mailboxes.iter().all(|m| m.session.lock().holds(&ResourceId::Roots));
        let (mut held, mut behind) = (BTreeSet::new(), BTreeSet::new());
        for (name, proxy) in &state.proxies {
            if holds(proxy) { &mut held } else { &mut behind }.insert(name.clone());
        }
        (held, behind)
    }

    fn apply(&self, delta: &NodeDelta) {
        let State { mesh, proxies } = &mut *self.state.lock();
        let changes = mesh.apply(delta);
        if !changes.is_empty() {
            for proxy in proxies.values_mut() {
                let touched = proxy.slice.change(mesh, &changes);
                if touched.is_empty() {
                    continue;
                }
                for mailbox in &proxy.mailboxes {
                    self.with(mailbox, |session| session.change(&touched));
                    mailbox.wake.notify_one();
                }
            }
        }
        self.metrics.resources.set(mesh.len() as i64);
    }

    /// Waits for the first plan.
    pub(super) async fn ready(&self) {
        // The sender lives in self, so the channel cannot be closed.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// A session for a proxy that just connected and holds `known`; it ends when the result is dropped.
    pub(super) fn join(
        self: &Arc<Self>,
        name: &ProxyName,
        known: &BTreeMap<String, u64>,
    ) -> Result<Membership, TooManySessions> {
        let State { mesh, proxies } = &mut *self.state.lock();
        if proxies.get(name).is_some_and(|p| p.mailboxes.len() >= SESSIONS_PER_PROXY) {
            return Err(TooManySessions);
        }
        let slice = Slice::new(name, mesh);
        let session = match known.is_empty() {
            true => Session::fresh(),
            false => Session::resume(slice.after(mesh, None), known),
        };
        self.metrics.waiting.inc_by(session.waiting() as i64);
        self.metrics.sessions.inc();
        let mailbox = Arc::new(Mailbox { session: Mutex::new(session), wake: Notify::new() });
        let proxy = proxies.entry(name.clone()).or_insert(Proxy { slice, mailboxes: Vec::new() });
        proxy.mailboxes.push(mailbox.clone());
        Ok(Membership { publisher: self.clone(), name: name.clone(), mailbox })
    }

    /// How far each connected proxy is.
    pub fn proxies(&self) -> BTreeMap<ProxyName, ProxyState> {
        let state = self.state.lock();
        let of = |proxy: &Proxy| {
            let mut found = ProxyState { sessions: proxy.mailboxes.len(), current: true, ..ProxyState::default() };
            for mailbox in &proxy.mailboxes {
                let session = mailbox.session.lock();
                found.current &= session.is_current();
                found.refused.extend(session.refusals().iter().map(|(id, r)| (id.clone(), r.clone())));
            }
            found
        };
        state.proxies.iter().map(|(name, proxy)| (name.clone(), of(proxy))).collect()
    }

    /// How far the connected node proxies are with the settings of the mesh.
    pub fn settings_taken(&self) -> Taken {
        let state = self.state.lock();
        let version = state.mesh.entry(&ResourceId::Settings).map_or(0, |entry| entry.encoded.version);
        let nodes = state.proxies.iter().filter(|(name, _)| matches!(name, ProxyName::Node(_)));
        let mailboxes = nodes.flat_map(|(_, proxy)| &proxy.mailboxes);
        let mut taken = Taken { version, ..Taken::default() };
        for mailbox in mailboxes {
            taken.connected += 1;
            taken.by += usize::from(mailbox.session.lock().holds(&ResourceId::Settings));
        }
        taken
    }

    /// All that is published, for `/debug/config`: version and resource; what holds a key is the noun's own business not to show.
    pub fn resources(&self) -> Vec<(ResourceId, u64, Resource)> {
        let state = self.state.lock();
        state.mesh.entries().map(|e| (e.id(), e.encoded.version, e.resource.clone())).collect()
    }

    /// What it counts.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn with<R>(&self, mailbox: &Mailbox, f: impl FnOnce(&mut Session) -> R) -> R {
        let mut session = mailbox.session.lock();
        let before = session.waiting();
        let result = f(&mut session);
        self.metrics.waiting.inc_by(session.waiting() as i64 - before as i64);
        result
    }
}

/// More sessions of one proxy than a healthy one has.
#[derive(Debug, thiserror::Error)]
#[error("this proxy has {SESSIONS_PER_PROXY} sessions already")]
pub(super) struct TooManySessions;

/// A connected session.
#[derive(Debug)]
pub(super) struct Membership {
    publisher: Arc<Publisher>,
    name: ProxyName,
    mailbox: Arc<Mailbox>,
}

impl Membership {
    /// The next delta to send, if it is time for one.
    pub(super) fn next(&self, now: Instant) -> Option<OutgoingDelta> {
        let publisher = &self.publisher;
        if self.mailbox.session.lock().reads_after().is_none() {
            return publisher.with(&self.mailbox, |session| session.next(now, &mut std::iter::empty()));
        }
        // Nobody else asks it for deltas, so it still reads. The mesh is locked first, as by who changes it.
        let State { mesh, proxies } = &*publisher.state.lock();
        publisher.with(&self.mailbox, |session| {
            let last = session.reads_after().flatten().cloned();
            match proxies.get(&self.name) {
                Some(proxy) => session.next(now, &mut proxy.slice.after(mesh, last.as_ref())),
                // A member's proxy is there.
                None => None,
            }
        })
    }

    /// Takes an answer.
    pub(super) fn answer(&self, ack: &proto::Ack, now: Instant) -> Result<Answered, UnknownNonce> {
        self.publisher.with(&self.mailbox, |session| session.answer(ack, now))
    }

    /// Waits until something changed. Cancelling loses nothing: a wake-up that nobody awaited is kept.
    pub(super) async fn changed(&self) {
        self.mailbox.wake.notified().await;
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut state = self.publisher.state.lock();
        if let Some(proxy) = state.proxies.get_mut(&self.name) {
            proxy.mailboxes.retain(|m| !Arc::ptr_eq(m, &self.mailbox));
            if proxy.mailboxes.is_empty() {
                state.proxies.remove(&self.name);
            }
        }
        self.publisher.metrics.sessions.dec();
        self.publisher.metrics.waiting.dec_by(self.mailbox.session.lock().waiting() as i64);
    }
}
