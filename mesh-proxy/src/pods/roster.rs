//! The roster: every pod of the node with its state; obeys `mesh_core::enroll` and answers the CNI. It must not decide, and never waits itself.

mod adopt;
mod ask;
mod restart;

pub use ask::{Answer, Ask};

use super::{
    capture::{self, CaptureFault, Living, Serving},
    listeners::Listeners,
    registry::{Registry, RegistryFault, Sandbox},
};
use crate::{fault::chain, local::Local, shared::Shared};
use mesh_core::{
    enroll::{Action, Event, Phase, Pod, Says},
    identity::Identity,
    mesh::{Enrolment, Workload},
    name::NsName,
};
use mesh_run::Condition;
use mesh_sys::{Netns, tool};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

/// How long the CNI is kept waiting for the config to name a pod; a little less than the plugin waits, so that it hears the reason.
const PATIENCE: Duration = Duration::from_secs(9);

/// Pause before something that failed is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// How often the node itself is looked at: what the proxy beside this one wrote down, namespaces that nobody announced or that are gone.
const LOOK: Duration = Duration::from_secs(1);

/// Pods whose rules are set at once: each starts processes, and a burst must not starve the data path of its processors.
const AT_ONCE: usize = 8;

pub use adopt::Adopt;

/// All pods of this node. Runs on the control runtime; the pods' listeners run on the data runtime.
pub struct Roster {
    registry: Registry,
    listeners: Arc<Listeners>,
    adopt: Option<Adopt>,
    shared: Arc<Shared>,
    data: Handle,
    pods: HashMap<NsName, Entry>,
    tell: mpsc::UnboundedSender<Told>,
    told: mpsc::UnboundedReceiver<Told>,
    room: Arc<Semaphore>,
    shown: Option<watch::Sender<Phases>>,
}

/// How far each pod of the node is, by its name; for who looks at the proxy.
pub type Phases = BTreeMap<String, Shown>;

/// What a look at the proxy shows of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// How far it is.
    pub phase: Phase,
    /// Connections that are carried for it, also those that outlive its release; at most `LOOK` old.
    pub connections: usize,
}

/// A pod.
#[derive(Default)]
struct Entry {
    state: Pod,
    sandboxes: HashMap<String, Held>,
    reply: Option<oneshot::Sender<Answer>>,
    /// Counts the CNI's questions, so that the end of one wait does not end the next.
    asked: u64,
    /// What failed last, for the answer.
    reason: Option<String>,
    /// Taken up from the registry and not settled since.
    restored: bool,
}

/// A sandbox.
struct Held {
    sandbox: Sandbox,
    netns: Arc<Netns>,
    serving: Option<Serving>,
    release: Option<Release>,
    living: Living,
}

/// A release under way.
struct Release {
    /// Whom it serves until the last connection has ended.
    local: Option<Arc<Local>>,
    /// The pod is captured again.
    again: CancellationToken,
    /// The pod is gone.
    gone: CancellationToken,
    task: JoinHandle<()>,
}

/// What the roster's own tasks tell it. Bounded by the number of pods: each has at most one task of a kind.
enum Told {
    Captured { pod: NsName, container: String, serving: Option<Serving>, result: Result<(), CaptureFault> },
    Released { pod: NsName, container: String, serving: Option<Serving>, result: Result<(), CaptureFault> },
    Expired { pod: NsName, asked: u64 },
    Again { pod: NsName },
    Found { found: Vec<(Sandbox, Arc<Netns>)> },
}

impl Roster {
    /// Takes up what the registry knows. Must be called within the control runtime; `data` is the other one. With `adopt`, pods that
    /// nobody announced are looked for.
    pub fn restore(
        registry: Registry,
        shared: Arc<Shared>,
        listeners: Arc<Listeners>,
        adopt: Option<Adopt>,
        data: Handle,
    ) -> Result<Self, RegistryFault> {
        let (tell, told) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let mut roster =
            Self { registry, listeners, adopt, shared, data, pods: HashMap::new(), tell, told, room, shown: None };
        roster.registry.load()?.into_iter().try_for_each(|sandbox| roster.take_up(sandbox))?;
        Ok(roster)
    }

    /// Shows from now on how far each pod is.
    pub fn shown_in(self, shown: watch::Sender<Phases>) -> Self {
        Self { shown: Some(shown), ..self }
    }

    fn show(&self) {
        let Some(shown) = &self.shown else { return };
        let look = |entry: &Entry| {
            let connections = entry.sandboxes.values().map(|held| held.living.count()).sum();
            Some(Shown { phase: entry.state.phase()?, connections })
        };
        let phases: Phases =
            self.pods.iter().filter_map(|(pod, entry)| Some((pod.to_string(), look(entry)?))).collect();
        shown.send_if_modified(|now| {
            let news = *now != phases;
            *now = phases;
            news
        });
    }

    /// Serves the CNI and follows the config until `stop`, then lets every pod's connections drain. `settled` is met once the config
    /// is there and the pods of the registry are served again.
    pub async fn serve(mut self, mut asks: mpsc::Receiver<Ask>, settled: Condition, stop: CancellationToken) {
        let mut changes = self.shared.snapshot.clone();
        changes.mark_changed();
        let mut ready = false;
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick() => self.look(ready),
                Some(ask) = asks.recv() => self.ask(ask),
                Some(told) = self.told.recv() => self.told(told),
                Ok(()) = changes.changed() => self.config(),
                () = stop.cancelled() => break,
            }
            self.show();
            if !ready && self.is_settled() {
                ready = true;
                self.listeners.serving(true);
                settled.met();
            }
        }
        self.leave().await;
    }

    fn is_settled(&self) -> bool {
        self.shared.snapshot.borrow().is_some()
            && self.pods.values().all(|entry| {
                !entry.restored
                    || matches!(entry.state.phase(), None | Some(Phase::Captured | Phase::Plain))
                    || self.says(entry) == Says::Unknown
            })
    }

    fn ask(&mut self, ask: Ask) {
        match ask {
            Ask::Add { sandbox, netns, reply } => self.add(sandbox, netns, reply),
            Ask::Del { container, netns, reply } => {
                let mut ends = self.gone(&container);
                ends.extend(self.adopted_at(&netns).iter().flat_map(|adopted| self.gone(adopted)));
                tokio::spawn(async move {
                    futures_util::future::join_all(ends).await;
                    // A caller that has left does not need to hear it.
                    let _ = reply.send(Answer::Done { meshed: false });
                });
            }
            Ask::Check { container, reply } => self.check(&container, reply),
            Ask::Status { reply } => {
                let _ = reply.send(match self.shared.snapshot.borrow().is_some() {
                    true => Answer::Done { meshed: false },
                    false => Answer::Failed { message: "the node proxy has no config yet".into(), retry: true },
                });
            }
            Ask::Gc { valid, reply } => {
                let known: Vec<String> = self.pods.values().flat_map(|e| e.sandboxes.keys().cloned()).collect();
                for container in known.iter().filter(|c| !valid.contains(c)) {
                    self.gone(container);
                }
                let _ = reply.send(Answer::Done { meshed: false });
            }
        }
    }

    fn add(&mut self, sandbox: Sandbox, netns: Arc<Netns>, reply: oneshot::Sender<Answer>) {
        let pod = sandbox.pod.clone();
        let container = sandbox.container.clone();
        if let Err(fault) = self.registry.save(&sandbox) {
            // Not remembered is not captured after a restart; better no pod than an open one.
            let message = format!("pod {pod}: {}", chain(&fault));
            tracing::error!(fault = message, "a sandbox cannot be remembered");
            let _ = reply.send(Answer::Failed { message, retry: true });
            return;
        }
        let says = {
            let entry = self.hold(sandbox, netns);
            if let Some(earlier) = entry.reply.replace(reply) {
                let _ =
                    earlier.send(Answer::Failed { message: format!("pod {pod}: asked again meanwhile"), retry: true });
            }
            entry.asked += 1;
            entry.reason = None;
            self.says(&self.pods[&pod])
        };
        if let Some(entry) = self.pods.get_mut(&pod) {
            // The state must know the newest word before it decides; what it wants for an earlier sandbox comes with the event.
            let superseded = entry.state.sandbox().is_some_and(|s| **s != *container);
            let mut actions = if superseded { Default::default() } else { entry.state.handle(Event::Config(says)) };
            let mut more = entry.state.handle(Event::Announced(container.as_str().into()));
            if superseded {
                // That answer is for the earlier question, which was answered above.
                if let Some(at) = more.iter().position(|a| matches!(a, Action::AnswerRetry)) {
                    more.remove(at);
                }
                more.extend(entry.state.handle(Event::Config(says)));
            }
            actions.extend(more);
            actions.into_iter().for_each(|action| drop(self.act(&pod, action)));
        }
    }

    fn check(&self, container: &str, reply: oneshot::Sender<Answer>) {
        let found = self.pods.values().find_map(|e| e.sandboxes.get(container).map(|h| (e, h)));
        let failed = |message: String| Answer::Failed { message, retry: false };
        let answer = match found.map(|(e, h)| (e.state.phase(), h)) {
            Some((Some(Phase::Plain), _)) => Answer::Done { meshed: false },
            Some((Some(Phase::Captured), held)) if held.serving.is_some() => {
                let (netns, pod) = (held.netns.clone(), held.sandbox.pod.clone());
                tokio::task::spawn_blocking(move || {
                    let _ = reply.send(match tool::nft_has_table(&netns, mesh_core::capture::TABLE) {
                        Ok(()) => Answer::Done { meshed: true },
                        Err(fault) => failed(format!("pod {pod}: the capture rules are gone: {}", chain(&fault))),
                    });
                });
                return;
            }
            Some((phase, held)) => failed(format!("pod {} is not captured but {phase:?}", held.sandbox.pod)),
            None => failed(format!("sandbox {container} is not known")),
        };
        let _ = reply.send(answer);
    }

    fn gone(&mut self, container: &str) -> Vec<JoinHandle<()>> {
        let Some(pod) = self.pods.iter().find(|(_, e)| e.sandboxes.contains_key(container)).map(|(pod, _)| pod.clone())
        else {
            return Vec::new();
        };
        let mut ends = self.run(&pod, Event::Gone(container.into()));
        // A sandbox that its successor replaced is forgotten by the state already, but may still be held.
        ends.extend(self.forget(&pod, container));
        if self.pods.get(&pod).is_some_and(|e| e.sandboxes.is_empty()) {
            self.pods.remove(&pod);
        }
        ends
    }

    fn told(&mut self, told: Told) {
        match told {
            Told::Captured { pod, container, serving, result } => {
                let event = match &result {
                    Ok(()) => Event::Captured,
                    Err(_) => Event::CaptureFailed,
                };
                self.returned(&pod, &container, serving, result.err(), event);
            }
            Told::Released { pod, container, serving, result } => {
                let event = match &result {
                    Ok(()) => Event::Released,
                    Err(_) => Event::ReleaseFailed,
                };
                if result.is_ok() {
                    self.remember(&pod, &container, false);
                }
                self.returned(&pod, &container, serving, result.err(), event);
            }
            Told::Expired { pod, asked } => {
                if self.pods.get(&pod).is_some_and(|e| e.asked == asked) {
                    self.run(&pod, Event::Expired);
                }
            }
            Told::Found { found } => self.adopt(found),
            Told::Again { pod } => {
                if let Some(entry) = self.pods.get(&pod) {
                    let says = self.says(entry);
                    self.run(&pod, Event::Config(says));
                }
            }
        }
    }

    /// A task brings back what it was given or made.
    fn returned(
        &mut self,
        pod: &NsName,
        container: &str,
        serving: Option<Serving>,
        fault: Option<CaptureFault>,
        event: Event,
    ) {
        let Some(entry) = self.pods.get_mut(pod) else {
            return drop(serving.map(cut_later));
        };
        if let Some(fault) = &fault {
            let reason = chain(fault);
            tracing::warn!(%pod, container, fault = reason, "a pod was not captured or not released; trying again");
            entry.reason = Some(reason);
        }
        match entry.sandboxes.get_mut(container) {
            Some(held) => {
                if let Some(serving) = serving {
                    held.serving = Some(serving);
                }
            }
            None => return drop(serving.map(cut_later)),
        }
        if entry.state.sandbox().is_some_and(|s| **s == *container) {
            self.run(pod, event);
        }
    }

    /// The config changed: every pod may be another thing now.
    fn config(&mut self) {
        let Some(snapshot) = self.shared.snapshot() else { return };
        let pods: Vec<NsName> = self.pods.keys().cloned().collect();
        for pod in pods {
            let Some(entry) = self.pods.get(&pod) else { continue };
            if let Some(workload) = snapshot.workload(&pod) {
                for held in entry.sandboxes.values() {
                    if let Some(serving) = &held.serving
                        && serving.local().workload().uid == workload.uid
                    {
                        serving.local().update(with_addresses(workload, &held.sandbox));
                    }
                }
            }
            let says = self.says(entry);
            self.run(&pod, Event::Config(says));
        }
    }

    fn says(&self, entry: &Entry) -> Says {
        let Some(held) =
            entry.state.sandbox().and_then(|c| entry.sandboxes.get(&**c)).or(entry.sandboxes.values().next())
        else {
            return Says::Unknown;
        };
        let snapshot = self.shared.snapshot.borrow();
        Says::of(snapshot.as_ref().and_then(|s| s.workload(&held.sandbox.pod)).map(|w| &**w), &held.sandbox.uid)
    }

    fn hold(&mut self, sandbox: Sandbox, netns: Arc<Netns>) -> &mut Entry {
        let entry = self.pods.entry(sandbox.pod.clone()).or_default();
        match entry.sandboxes.get_mut(&sandbox.container) {
            // Announced again: what serves it goes on serving it.
            Some(held) if held.netns.id() == netns.id() => held.sandbox.addresses = sandbox.addresses,
            _ => {
                let held = Held { netns, serving: None, release: None, living: Living::default(), sandbox };
                let earlier = entry.sandboxes.insert(held.sandbox.container.clone(), held);
                drop(earlier.and_then(|h| h.serving).map(cut_later));
            }
        }
        entry
    }

    /// Tells the state what happened and does what it wants. Gives the ends of what was cut.
    fn run(&mut self, pod: &NsName, event: Event) -> Vec<JoinHandle<()>> {
        let Some(entry) = self.pods.get_mut(pod) else { return Vec::new() };
        let actions = entry.state.handle(event);
        actions.into_iter().filter_map(|action| self.act(pod, action)).collect()
    }

    fn act(&mut self, pod: &NsName, action: Action) -> Option<JoinHandle<()>> {
        tracing::debug!(%pod, ?action, "enrol");
        match action {
            Action::Capture(container) => self.capture(pod, &container),
            Action::Release(container) => self.release(pod, &container),
            Action::Forget(container) => return self.forget(pod, &container),
            Action::Answer => {
                let entry = self.pods.get_mut(pod)?;
                entry.restored = false;
                let meshed = entry.state.phase() == Some(Phase::Captured);
                let _ = entry.reply.take()?.send(Answer::Done { meshed });
            }
            Action::AnswerRetry => {
                let entry = self.pods.get_mut(pod)?;
                let reason = entry.reason.clone().unwrap_or_else(|| "the config does not name the pod yet".into());
                let message = format!("pod {pod}: {reason}");
                let _ = entry.reply.take()?.send(Answer::Failed { message, retry: true });
            }
            Action::Wait => {
                let (tell, pod, asked) = (self.tell.clone(), pod.clone(), self.pods.get(pod)?.asked);
                tokio::spawn(async move {
                    sleep(PATIENCE).await;
                    let _ = tell.send(Told::Expired { pod, asked });
                });
            }
            Action::TryAgain => {
                let (tell, pod) = (self.tell.clone(), pod.clone());
                tokio::spawn(async move {
                    sleep(PAUSE).await;
                    let _ = tell.send(Told::Again { pod });
                });
            }
        }
        None
    }

    fn capture(&mut self, pod: &NsName, container: &str) {
        self.remember(pod, container, true);
        let workload = self.shared.snapshot().and_then(|s| s.workload(pod).cloned());
        let Some(held) = self.pods.get_mut(pod).and_then(|e| e.sandboxes.get_mut(container)) else { return };
        let workload = workload.map(|w| with_addresses(&w, &held.sandbox));
        let has_listeners = held.serving.is_some();
        let (netns, release, living) = (held.netns.clone(), held.release.take(), held.living.clone());
        let listeners = self.listeners.clone();
        let (shared, data, room, tell) = (self.shared.clone(), self.data.clone(), self.room.clone(), self.tell.clone());
        let (pod, container) = (pod.clone(), container.to_owned());
        tokio::spawn(async move {
            if let Some(release) = release {
                release.again.cancel();
                let _ = release.task.await;
            }
            let (mut serving, started) = (None, Instant::now());
            let micros = |since: Instant| u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
            let joining = workload.as_ref().is_some_and(|w| w.enrolment == Enrolment::Joining);
            let result = async {
                if let Some(workload) = &workload {
                    capture::want_certificate(workload, &shared);
                }
                // A pod that runs goes on in plaintext until everything that takes its place is there; any other is closed first.
                if let (true, Some(workload)) = (joining, &workload) {
                    capture::certify(workload, &shared).await?;
                    if !has_listeners {
                        serving =
                            Some(capture::serve(workload.clone(), netns.clone(), &shared, &listeners, &data, living)?);
                    }
                    let _permit = room.acquire().await;
                    capture::close(netns).await?;
                    tracing::info!(%pod, container, took_us = micros(started), "running pod captured");
                    return Ok(());
                }
                let permit = room.acquire().await;
                let waited_us = micros(started);
                capture::close(netns.clone()).await?;
                drop(permit);
                let rules_us = micros(started);
                let workload = workload.ok_or(CaptureFault::Unknown)?;
                if !has_listeners {
                    serving = Some(capture::serve(workload.clone(), netns, &shared, &listeners, &data, living)?);
                }
                let listeners_us = micros(started);
                capture::certify(&workload, &shared).await?;
                let certificate_us = micros(started);
                tracing::info!(%pod, container, waited_us, rules_us, listeners_us, certificate_us, "pod captured");
                Ok(())
            };
            let result = result.await;
            let _ = tell.send(Told::Captured { pod, container, serving, result });
        });
    }

    fn release(&mut self, pod: &NsName, container: &str) {
        let Some(held) = self.pods.get_mut(pod).and_then(|e| e.sandboxes.get_mut(container)) else { return };
        let (again, gone) = (CancellationToken::new(), CancellationToken::new());
        let (netns, mut serving, tell) = (held.netns.clone(), held.serving.take(), self.tell.clone());
        if serving.is_none() {
            // Kept from before a restart: nobody would accept there.
            self.listeners.close(netns.id(), &capture::PORTS);
        }
        let local = serving.as_ref().map(|s| s.local().clone());
        let (pod, container, stops) = (pod.clone(), container.to_owned(), (again.clone(), gone.clone()));
        let task = tokio::spawn(async move {
            let result = match serving {
                Some(_) => capture::drain(netns.clone()).await,
                // After a restart nothing lives that could drain.
                None => capture::open(netns.clone()).await,
            };
            let living = if result.is_ok() { serving.take() } else { None };
            if result.is_ok() {
                tracing::info!(%pod, container, "pod released");
            }
            let _ = tell.send(Told::Released { pod, container, serving, result });
            if let Some(living) = living {
                living.release(netns, stops.0, stops.1).await;
            }
        });
        held.release = Some(Release { local, again, gone, task });
    }

    /// Ends everything of a sandbox, and its SVID unless another pod has the same identity.
    fn forget(&mut self, pod: &NsName, container: &str) -> Option<JoinHandle<()>> {
        if let Err(fault) = self.registry.remove(container) {
            tracing::warn!(fault = chain(&fault), "a sandbox that is gone stays in the registry");
        }
        let held = self.pods.get_mut(pod)?.sandboxes.remove(container)?;
        tracing::info!(%pod, container, "sandbox gone");
        self.listeners.close(held.netns.id(), &capture::PORTS);
        let released = held.release.inspect(|r| r.gone.cancel());
        let served = held.serving.as_ref().map(|s| s.local().clone());
        if let Some(local) = served.or_else(|| released.as_ref()?.local.clone()) {
            let workload = local.workload();
            self.shared.pool.forget(&workload.uid);
            if !self.is_needed(&workload.identity) {
                self.shared.trust.svids().forget(&workload.identity);
            }
        }
        held.serving.map(cut_later).or(released.map(|r| r.task))
    }

    fn is_needed(&self, identity: &Identity) -> bool {
        let snapshot = self.shared.snapshot();
        self.pods
            .iter()
            .filter(|(_, entry)| !entry.sandboxes.is_empty())
            .any(|(pod, _)| snapshot.as_ref().and_then(|s| s.workload(pod)).is_some_and(|w| w.identity == *identity))
    }

    /// Remembers whether a sandbox is captured, before it is and after it was.
    fn remember(&mut self, pod: &NsName, container: &str, captured: bool) {
        let Some(held) = self.pods.get_mut(pod).and_then(|e| e.sandboxes.get_mut(container)) else { return };
        held.sandbox.captured = captured;
        if let Err(fault) = self.registry.save(&held.sandbox) {
            tracing::error!(%pod, fault = chain(&fault), "a sandbox cannot be remembered");
        }
    }
}

/// The config learns a pod's addresses from its status, a moment after the CNI knows them.
fn with_addresses(workload: &Arc<Workload>, sandbox: &Sandbox) -> Arc<Workload> {
    if !workload.addresses.is_empty() {
        return workload.clone();
    }
    Arc::new(Workload { addresses: sandbox.addresses.clone(), ..Workload::clone(workload) })
}

fn cut_later(serving: Serving) -> JoinHandle<()> {
    tokio::spawn(async move { serving.cut().await })
}
