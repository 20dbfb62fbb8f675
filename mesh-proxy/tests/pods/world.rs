//! World: a node's roster with a test authority, and pods that are network namespaces. It must not hide what a test is about.

use mesh_core::{
    identity::{Identity, TrustDomain},
    mesh::*,
    name::NsName,
    node::{NodeDelta, Resource},
    snapshot::Snapshot,
};
use mesh_proxy::{
    pods::{Answer, Ask, Listeners, Phases, Registry, Roster, Sandbox, Shown},
    shared::Shared,
    telemetry::Telemetry,
    tunnel::Pool,
};
use mesh_run::Readiness;
use mesh_sys::Netns;
use mesh_tls::{Authority, FetchFault, Fetching, KeyRequest, Svid, SvidSource, Svids, Trust};
use std::{
    io::{self, BufRead, BufReader, ErrorKind, Read},
    net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
};
use tokio_util::sync::{CancellationToken, DropGuard};

struct Issuer(Authority);

impl SvidSource for Issuer {
    fn fetch<'a>(&'a self, identity: &'a Identity) -> Fetching<'a> {
        Box::pin(async move {
            let bad = |e: &dyn std::fmt::Display| FetchFault::Refused(e.to_string());
            let request = KeyRequest::new(identity).map_err(|e| bad(&e))?;
            let signed = self.0.sign(request.csr(), identity, Duration::from_secs(3600)).map_err(|e| bad(&e))?;
            Svid::new(identity.clone(), signed.chain, request.into_key(), self.0.roots()).map_err(|e| bad(&e))
        })
    }
}

/// A node whose roster serves.
pub struct Node {
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    asks: mpsc::Sender<Ask>,
    registry: Registry,
    shown: watch::Receiver<Phases>,
    _stop: DropGuard,
    _state: tempfile::TempDir,
}

pub fn done(meshed: bool) -> Answer {
    Answer::Done { meshed }
}

pub fn failed(message: &str, retry: bool) -> Answer {
    Answer::Failed { message: message.into(), retry }
}

fn trust_domain() -> TrustDomain {
    TrustDomain::new("cluster.local").unwrap()
}

impl Node {
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// A node whose last proxy wrote down these sandboxes.
    pub fn with(remembered: &[Sandbox]) -> Self {
        let settings = MeshSettings {
            name: "heddle".into(),
            trust_domain: trust_domain(),
            mode: Some(Mode::Strict),
            svid_lifetime: Duration::from_secs(3600),
            tracing: None,
            access_log: AccessLog::Off,
            // So that a connection on which nothing is said lives as long as a test.
            limits: Limits { handshake: Duration::from_secs(60), ..Limits::default() },
        };
        let (snapshots, snapshot) = watch::channel(Some(Arc::new(Snapshot::empty(Arc::new(settings)))));
        let state = tempfile::tempdir().unwrap();
        let issuer = Issuer(Authority::load_or_create(&state.path().join("ca")).unwrap());
        let trust = Arc::new(Trust::new(Arc::new(Svids::new(Arc::new(issuer), None, Handle::current()))));
        let shared = Arc::new(Shared {
            pool: Pool::new(trust.clone(), snapshot.clone()),
            snapshot,
            trust,
            telemetry: Telemetry::discard(),
            host_addresses: watch::channel(Arc::default()).1,
            drain: CancellationToken::new(),
        });
        let registry = Registry::open(state.path().join("pods")).unwrap();
        remembered.iter().for_each(|sandbox| registry.save(sandbox).unwrap());
        let roster = Roster::restore(registry.clone(), shared, Listeners::alone(), None, Handle::current()).unwrap();
        let (asks, asked) = mpsc::channel(16);
        let stop = CancellationToken::new();
        let (phases, shown) = watch::channel(Phases::default());
        let roster = roster.shown_in(phases);
        let settled = Readiness::default().condition("pods", "not settled");
        tokio::spawn(roster.serve(asked, settled, stop.clone()));
        Self { snapshots, asks, registry, shown, _stop: stop.drop_guard(), _state: state }
    }

    /// The config names a pod.
    pub fn names(&self, pod: &str, enrolment: Enrolment) {
        let workload = Workload {
            id: NsName::new("shop", pod),
            uid: format!("uid-{pod}").into(),
            node: "n1".into(),
            addresses: vec![],
            identity: Identity::new(trust_domain(), "shop", pod).unwrap(),
            enrolment,
            owner: pod.into(),
            probes: [].into(),
        };
        let delta = NodeDelta { upserts: vec![Resource::Workload(Arc::new(workload))], removes: vec![] };
        self.snapshots.send_modify(|s| *s = s.as_ref().map(|s| Arc::new(s.with(&delta))));
    }

    async fn ask(&self, ask: impl FnOnce(oneshot::Sender<Answer>) -> Ask) -> Answer {
        let (reply, answered) = oneshot::channel();
        self.asks.send(ask(reply)).await.unwrap();
        tokio::time::timeout(Duration::from_secs(20), answered).await.expect("an answer in time").unwrap()
    }

    pub async fn add(&self, pod: &Pod) -> Answer {
        let sandbox = pod.sandbox();
        self.ask(|reply| Ask::Add { sandbox, netns: pod.netns.clone(), reply }).await
    }

    pub async fn del(&self, container: &str) -> Answer {
        self.ask(|reply| Ask::Del { container: container.into(), netns: PathBuf::new(), reply }).await
    }

    pub async fn check(&self, pod: &Pod) -> Answer {
        self.ask(|reply| Ask::Check { container: pod.container.clone(), reply }).await
    }

    /// What a look at the proxy shows of a pod.
    pub fn shown(&self, pod: &str) -> Option<Shown> {
        self.shown.borrow().get(&format!("shop/{pod}")).copied()
    }

    /// Container ids that the registry would take up after a restart.
    pub fn remembered(&self) -> Vec<String> {
        self.registry.load().unwrap().into_iter().map(|s| s.container).collect()
    }
}

/// A network namespace with its loopback up.
pub struct Pod {
    pub name: &'static str,
    pub container: String,
    pub netns: Arc<Netns>,
    path: PathBuf,
    holder: Child,
}

impl Pod {
    pub fn new(name: &'static str) -> Self {
        let mut holder = Command::new("unshare")
            .args(["-n", "sh", "-c", "ip link set lo up && echo up && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("package util-linux");
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "up\n", "CAP_SYS_ADMIN or package iproute2 is missing: run as root or under `unshare -Urn`");
        let path = PathBuf::from(format!("/proc/{}/ns/net", holder.id()));
        let netns = Arc::new(Netns::open(&path).unwrap());
        Self { name, container: format!("container-{name}"), netns, path, holder }
    }

    /// What the CNI says of it.
    pub fn sandbox(&self) -> Sandbox {
        Sandbox {
            container: self.container.clone(),
            pod: NsName::new("shop", self.name),
            uid: format!("uid-{}", self.name),
            netns: self.path.clone(),
            netns_id: self.netns.id(),
            addresses: vec![[10, 1, 0, 2].into()],
            captured: false,
        }
    }

    /// Connects from inside. Loopback is not captured, so this shows who listens.
    pub fn connect(&self, port: u16) -> io::Result<TcpStream> {
        self.netns.run(|| TcpStream::connect((Ipv4Addr::LOCALHOST, port))).unwrap()
    }

    pub fn listen(&self, port: u16) -> io::Result<TcpListener> {
        self.netns.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))).unwrap()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // It waits for the end of its input.
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

/// Whether the other side still holds a connection on which it says nothing.
pub fn is_open(mut stream: &TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    matches!(stream.read(&mut [0]), Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

/// Looks again and again, for as long as a busy machine may need.
pub async fn eventually(is: impl Fn() -> bool) {
    for _ in 0..1000 {
        if is() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 10 s");
}
