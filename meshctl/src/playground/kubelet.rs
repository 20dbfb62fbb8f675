//! The life of one pod on a virtual node: sandbox, CNI ADD, processes with restarts, readiness, end, CNI DEL. It tells every change; it must not decide which pods there are.

use super::{
    Options,
    cni::{self, Runtime, Sandbox},
    containers,
    dns::{self, DOMAIN},
    enter::{Enter, PodView},
    folder::{Key, Object},
    netns::Netns,
    probe::{self, Ask, Readiness},
};
use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Container, Pod};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    net::IpAddr,
    path::PathBuf,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// Clients keep sending until they have heard that the pod ends; so long it goes on as before. A cluster has a preStop hook for this.
const DRAIN: Duration = Duration::from_millis(500);

/// A container that ends is started again after this, doubled each time, up to the limit; one that ran longer than `STEADY` starts anew.
const RESTART: Duration = Duration::from_millis(500);
const RESTART_LIMIT: Duration = Duration::from_secs(30);
const STEADY: Duration = Duration::from_secs(10);

/// Between two attempts to set a sandbox up, doubled up to the limit.
const SANDBOX_RETRY: Duration = Duration::from_millis(50);
const SANDBOX_RETRY_LIMIT: Duration = Duration::from_secs(2);

/// Until a container is ready it is asked this often.
const STARTUP_PERIOD: Duration = Duration::from_millis(20);

/// What a pod is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodState {
    /// Its addresses, primary first; empty before its sandbox stands.
    pub addresses: Vec<IpAddr>,
    /// Whether all its containers are ready.
    pub ready: bool,
    /// Whether it is ending.
    pub terminating: bool,
    /// `Pending`, `Running`, `Succeeded`, `Failed`.
    pub phase: String,
    /// Restarts of its containers.
    pub restarts: u32,
    /// What went wrong last.
    pub message: String,
}

/// What a pod's life tells.
#[derive(Debug)]
pub struct Event {
    /// `metadata.uid`.
    pub uid: String,
    /// Its state, or none: it is gone.
    pub state: Option<PodState>,
}

/// What all pods of a node share.
#[derive(Debug)]
pub struct Machine {
    /// Options of the playground.
    pub options: Options,
    /// Name of the node.
    pub node: String,
    /// How its runtime calls CNI plugins.
    pub runtime: Runtime,
    /// Directory of pinned namespaces.
    pub netns_dir: PathBuf,
    /// Directory for the files of pods.
    pub pods_dir: PathBuf,
    /// Directory of logs.
    pub logs: PathBuf,
    /// Address of the DNS server.
    pub dns: IpAddr,
}

impl Machine {
    /// How to enter the namespaces of a pod.
    pub fn enter(&self, pod: &Pod, workdir: Option<PathBuf>) -> Enter {
        let id = container_id(pod);
        let name = pod.metadata.name.clone().unwrap_or_default();
        Enter {
            netns: self.netns_dir.join(&id),
            pod: Some(PodView {
                hostname: pod.spec.as_ref().and_then(|s| s.hostname.clone()).unwrap_or(name),
                etc: self.pods_dir.join(&id),
                hide: self.netns_dir.clone(),
            }),
            workdir,
        }
    }
}

/// The sandbox of a pod is named by its uid.
pub fn container_id(pod: &Pod) -> String {
    format!("pod-{}", pod.metadata.uid.as_deref().unwrap_or_default())
}

/// Lives a pod until `stop`, then ends it; the last event is that it is gone.
pub async fn live(
    machine: Arc<Machine>,
    pod: Arc<Pod>,
    objects: Arc<BTreeMap<Key, Object>>,
    stop: CancellationToken,
    events: mpsc::UnboundedSender<Event>,
) {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let mut life = Life {
        machine,
        pod,
        state: PodState { phase: "Pending".into(), ..Default::default() },
        events,
        uid: uid.clone(),
    };
    if let Some((sandbox, result)) = life.sandbox(&stop).await {
        life.run(objects, &stop).await;
        let machine = Arc::clone(&life.machine);
        let ended = tokio::task::spawn_blocking(move || {
            let deleted = machine.runtime.chain().and_then(|chain| chain.del(&sandbox, &result));
            let removed = Netns::at(&sandbox.netns).remove();
            let _ = fs::remove_dir_all(machine.pods_dir.join(&sandbox.container));
            deleted.and(removed)
        });
        if let Ok(Err(error)) = ended.await {
            tracing::warn!(pod = %life.name(), "cannot remove the sandbox: {error:#}");
        }
    }
    let _ = life.events.send(Event { uid, state: None });
}

struct Life {
    machine: Arc<Machine>,
    pod: Arc<Pod>,
    state: PodState,
    events: mpsc::UnboundedSender<Event>,
    uid: String,
}

/// What a container's task tells the pod.
enum Change {
    Running,
    Ended { success: bool, message: String },
    Ready(bool),
    Message(String),
}

impl Life {
    fn name(&self) -> String {
        let m = &self.pod.metadata;
        format!("{}/{}", m.namespace.as_deref().unwrap_or_default(), m.name.as_deref().unwrap_or_default())
    }

    fn tell(&self) {
        // Nobody listens only when the playground ends.
        let _ = self.events.send(Event { uid: self.uid.clone(), state: Some(self.state.clone()) });
    }

    /// Sets the sandbox up, again and again until it stands or the pod is to end.
    async fn sandbox(&mut self, stop: &CancellationToken) -> Option<(Sandbox, serde_json::Value)> {
        let mut wait = SANDBOX_RETRY;
        loop {
            let (machine, pod) = (Arc::clone(&self.machine), Arc::clone(&self.pod));
            let made = tokio::task::spawn_blocking(move || set_up(&machine, &pod)).await;
            match made.map_err(anyhow::Error::from).and_then(|m| m) {
                Ok((sandbox, result)) => {
                    self.state.addresses = cni::addresses(&result);
                    self.state.message.clear();
                    self.tell();
                    return Some((sandbox, result));
                }
                Err(error) => {
                    tracing::debug!(pod = %self.name(), "sandbox: {error:#}");
                    self.state.message = format!("{error:#}");
                    self.tell();
                }
            }
            tokio::select! {
                () = stop.cancelled() => return None,
                () = tokio::time::sleep(wait) => wait = (wait * 2).min(SANDBOX_RETRY_LIMIT),
            }
        }
    }

    async fn run(&mut self, objects: Arc<BTreeMap<Key, Object>>, stop: &CancellationToken) {
        let (tell, mut changes) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        let end = CancellationToken::new();
        let spec = self.pod.spec.clone().unwrap_or_default();
        for (index, container) in spec.containers.iter().enumerate() {
            let job = Job {
                machine: Arc::clone(&self.machine),
                pod: Arc::clone(&self.pod),
                address: self.state.addresses.first().map(ToString::to_string).unwrap_or_default(),
                container: container.clone(),
                policy: spec.restart_policy.clone().unwrap_or_else(|| "Always".into()),
                grace: Duration::from_secs(
                    spec.termination_grace_period_seconds.and_then(|s| s.try_into().ok()).unwrap_or(30),
                ),
                index,
                tell: tell.clone(),
            };
            tasks.spawn(job.run(Arc::clone(&objects), end.clone()));
        }
        drop(tell);
        let mut ready = vec![false; spec.containers.len()];
        let mut draining = None;
        loop {
            let drained = async {
                match draining {
                    None => stop.cancelled().await,
                    Some(at) => tokio::time::sleep_until(at).await,
                }
            };
            tokio::select! {
                change = changes.recv() => match change {
                    None => break,
                    Some((index, change)) => self.note(index, change, &mut ready),
                },
                () = drained, if !end.is_cancelled() => {
                    if draining.is_some() {
                        end.cancel();
                    } else {
                        draining = Some(tokio::time::Instant::now() + DRAIN);
                        self.state.terminating = true;
                        self.tell();
                    }
                }
            }
        }
        while tasks.join_next().await.is_some() {}
        if !stop.is_cancelled() {
            // All containers have ended for good; the sandbox stands until the pod is deleted.
            stop.cancelled().await;
        }
    }

    fn note(&mut self, index: usize, change: Change, ready: &mut [bool]) {
        let before = self.state.clone();
        match change {
            Change::Running => self.state.phase = "Running".into(),
            Change::Ready(now) => ready[index] = now,
            Change::Message(text) => self.state.message = text,
            Change::Ended { success, message } => {
                ready[index] = false;
                self.state.restarts += 1;
                self.state.message = message;
                self.state.phase = if success { "Succeeded" } else { "Failed" }.into();
            }
        }
        self.state.ready = ready.iter().all(|r| *r) && self.state.phase == "Running";
        if before.phase != "Running" && self.state.phase == "Running" {
            self.state.message.clear();
        }
        if self.state != before {
            self.tell();
        }
    }
}

fn set_up(machine: &Machine, pod: &Pod) -> Result<(Sandbox, serde_json::Value)> {
    let id = container_id(pod);
    let m = &pod.metadata;
    let (name, namespace) = (m.name.clone().unwrap_or_default(), m.namespace.clone().unwrap_or_default());
    let path = machine.netns_dir.join(&id);
    let netns = Netns::create(&path)?;
    let undo = |error| {
        if let Err(e) = netns.remove() {
            tracing::warn!("{e:#}");
        }
        error
    };
    netns.sysctl("net/ipv6/conf/default/accept_dad", "0").map_err(undo)?;
    let wanted = m.annotations.as_ref().and_then(|a| a.get("heddle.dev/playground-ip")).cloned();
    let mut args = vec![
        ("IgnoreUnknown".into(), "1".into()),
        ("K8S_POD_NAMESPACE".into(), namespace.clone()),
        ("K8S_POD_NAME".into(), name.clone()),
        ("K8S_POD_UID".into(), m.uid.clone().unwrap_or_default()),
        ("K8S_POD_INFRA_CONTAINER_ID".into(), id.clone()),
    ];
    args.extend(wanted.map(|ip| ("IP".to_owned(), ip)));
    let sandbox = Sandbox { container: id.clone(), netns: path, args };
    let result = machine.runtime.chain().and_then(|chain| chain.add(&sandbox)).map_err(undo)?;
    let etc = machine.pods_dir.join(&id);
    let addresses = cni::addresses(&result);
    let hosts: String = addresses.iter().map(|a| format!("{a}\t{name}\n")).collect();
    let search = dns::search(&namespace).join(" ");
    fs::create_dir_all(&etc)
        .and_then(|()| {
            fs::write(
                etc.join("resolv.conf"),
                format!("nameserver {}\nsearch {search}\noptions ndots:5\n", machine.dns),
            )
        })
        .and_then(|()| {
            fs::write(etc.join("hosts"), format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n{hosts}"))
        })
        .with_context(|| format!("cannot write the pod's files ({DOMAIN})"))?;
    Ok((sandbox, result))
}

/// One container and its task.
struct Job {
    machine: Arc<Machine>,
    pod: Arc<Pod>,
    address: String,
    container: Container,
    policy: String,
    grace: Duration,
    index: usize,
    tell: mpsc::UnboundedSender<(usize, Change)>,
}

impl Job {
    fn say(&self, change: Change) {
        let _ = self.tell.send((self.index, change));
    }

    async fn run(self, objects: Arc<BTreeMap<Key, Object>>, end: CancellationToken) {
        let is_echo = containers::is_echo(&self.container);
        let process = containers::process(
            &self.pod,
            &self.container,
            &self.machine.node,
            &self.address,
            &objects,
            &self.machine.options.meshctl,
        );
        let both = process.and_then(|p| Ok((p, Readiness::of(&self.container, is_echo)?)));
        let (process, readiness) = match both {
            Ok(both) => both,
            Err(reason) => {
                self.say(Change::Message(reason));
                return end.cancelled().await;
            }
        };
        let mut wait = RESTART;
        loop {
            let started = Instant::now();
            let (success, message) = match self.start(&process) {
                Err(error) => (false, format!("{error:#}")),
                Ok(child) => {
                    self.say(Change::Running);
                    match self.attend(child, &readiness, &end).await {
                        Some(status) => {
                            (status.success(), format!("container {} ended: {status}", self.container.name))
                        }
                        None => return,
                    }
                }
            };
            self.say(Change::Ended { success, message });
            if self.policy == "Never" || (self.policy == "OnFailure" && success) {
                return;
            }
            if started.elapsed() > STEADY {
                wait = RESTART;
            }
            tokio::select! {
                () = end.cancelled() => return,
                () = tokio::time::sleep(wait) => wait = (wait * 2).min(RESTART_LIMIT),
            }
        }
    }

    fn start(&self, process: &containers::Process) -> Result<tokio::process::Child> {
        let enter = self.machine.enter(&self.pod, process.workdir.clone());
        let mut command = enter.command(&self.machine.options.meshctl, &process.argv)?;
        let log = self.log()?;
        command.envs(&process.env).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        tokio::process::Command::from(command).spawn().context("cannot start the container")
    }

    fn log(&self) -> Result<File> {
        let m = &self.pod.metadata;
        let name = format!(
            "{}_{}_{}.log",
            m.namespace.as_deref().unwrap_or_default(),
            m.name.as_deref().unwrap_or_default(),
            self.container.name
        );
        let path = self.machine.logs.join(name);
        OpenOptions::new().append(true).create(true).open(&path).with_context(|| format!("{}", path.display()))
    }

    /// Probes until the process ends by itself (its status) or has to (none).
    async fn attend(
        &self,
        mut child: tokio::process::Child,
        readiness: &Readiness,
        end: &CancellationToken,
    ) -> Option<std::process::ExitStatus> {
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let signal = |signal: Signal| {
            // It may have ended a moment ago.
            let _ = group.map(|g| killpg(g, signal));
        };
        tokio::select! {
            status = child.wait() => {
                signal(Signal::SIGKILL);
                status.ok()
            }
            () = self.probe(readiness) => None,
            () = end.cancelled() => {
                signal(Signal::SIGTERM);
                let gone = tokio::time::timeout(self.grace, child.wait()).await;
                signal(Signal::SIGKILL);
                if gone.is_err() {
                    let _ = child.wait().await;
                }
                None
            }
        }
    }

    /// Never ends.
    async fn probe(&self, readiness: &Readiness) {
        tokio::time::sleep(readiness.initial_delay).await;
        let (mut ready, mut failures) = (false, 0);
        loop {
            let (ask, timeout) = (readiness.ask.clone(), readiness.timeout);
            let (enter, meshctl) = (self.machine.enter(&self.pod, None), self.machine.options.meshctl.clone());
            let (machine, address) = (Arc::clone(&self.machine), self.address.parse());
            let asked = tokio::task::spawn_blocking(move || {
                let address = address.context("the pod has no address")?;
                probe::ask(&ask, timeout, (&machine.runtime.host, address), &enter, &meshctl)
            })
            .await;
            let good = matches!(asked, Ok(Ok(())));
            failures = if good { 0 } else { failures + 1 };
            let now = good || (ready && failures < readiness.failures);
            if now != ready {
                ready = now;
                self.say(Change::Ready(ready));
            }
            if readiness.ask == Ask::Nothing {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(if ready { readiness.period } else { STARTUP_PERIOD }).await;
        }
    }
}
