//! World: a client pod and peers at loopback addresses, with a test authority. It must not hide what a test is about.

use mesh_core::{
    balance::Target,
    identity::{Identity, TrustDomain},
    mesh::*,
    name::NsName,
    node::{NodeDelta, Resource},
    snapshot::Snapshot,
};
use mesh_proxy::{
    inbound,
    local::Local,
    shared::Shared,
    telemetry::Telemetry,
    tunnel::{self, DialFault, Pool, TunnelStream},
};
use mesh_tls::{Authority, FetchFault, Fetching, KeyRequest, Svid, SvidSource, Svids, Trust};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// Short, so that tests of stalled peers are.
pub const HANDSHAKE: Duration = Duration::from_secs(2);

pub struct World {
    pub snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    pub shared: Arc<Shared>,
    pub local: Arc<Local>,
    _authority: Option<tempfile::TempDir>,
}

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

pub fn identity(account: &str) -> Identity {
    Identity::new(TrustDomain::new("cluster.local").unwrap(), "shop", account).unwrap()
}

pub fn pod(name: &str, address: IpAddr) -> Arc<Workload> {
    Arc::new(Workload {
        id: NsName::new("shop", name),
        uid: format!("uid-{name}").into(),
        node: "n1".into(),
        addresses: vec![address],
        identity: identity(name),
        enrolment: Enrolment::Meshed(Mode::Strict),
        owner: name.into(),
        probes: [].into(),
    })
}

impl World {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let issuer = Issuer(Authority::load_or_create(dir.path()).unwrap());
        let world = Self::of(Arc::new(issuer)).await;
        Self { _authority: Some(dir), ..world }
    }

    /// A proxy of its own whose certificates come from this source.
    pub async fn of(source: Arc<dyn SvidSource>) -> Self {
        let settings = MeshSettings {
            name: "heddle".into(),
            trust_domain: TrustDomain::new("cluster.local").unwrap(),
            mode: Some(Mode::Strict),
            svid_lifetime: Duration::from_secs(3600),
            tracing: None,
            access_log: AccessLog::Off,
            limits: Limits { handshake: HANDSHAKE, ..Limits::default() },
        };
        let (snapshots, snapshot) = watch::channel(Some(Arc::new(Snapshot::empty(Arc::new(settings)))));
        let svids = Arc::new(Svids::new(source, None, tokio::runtime::Handle::current()));
        let trust = Arc::new(Trust::new(svids));
        let shared = Arc::new(Shared {
            pool: Pool::new(trust.clone(), snapshot.clone()),
            snapshot,
            trust,
            telemetry: Telemetry::discard(),
            host_addresses: watch::channel(Arc::default()).1,
            drain: CancellationToken::new(),
        });
        let local = Local::new(pod("client", "127.0.0.1".parse().unwrap()), None, 1000);
        let world = Self { snapshots, shared, local, _authority: None };
        world.certify("client").await;
        world
    }

    pub async fn certify(&self, name: &str) {
        self.shared.trust.svids().ensure(&identity(name));
        self.shared.trust.svids().obtained(&identity(name)).await;
    }

    pub fn apply(&self, resource: Resource) {
        let delta = NodeDelta { upserts: vec![resource], removes: vec![] };
        self.snapshots.send_modify(|s| *s = s.as_ref().map(|s| Arc::new(s.with(&delta))));
    }

    /// A meshed pod with an application on port 8080 that does `serve` with each connection.
    pub async fn peer<F: Future<Output = ()> + Send + 'static>(
        &self,
        name: &str,
        address: &str,
        serve: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> Target {
        let address: IpAddr = address.parse().unwrap();
        let application = TcpListener::bind(SocketAddr::new(address, 8080)).await.unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = application.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        self.certify(name).await;
        let local = Local::new(pod(name, address), None, 1000);
        let listener = TcpListener::bind(SocketAddr::new(address, 15008)).await.unwrap();
        let shared = self.shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, from)) = listener.accept().await {
                let permit = local.connection().unwrap();
                let served =
                    inbound::mesh(stream, from, local.clone(), shared.clone(), CancellationToken::new(), permit);
                tokio::spawn(served);
            }
        });
        self.target(name, address)
    }

    pub fn target(&self, name: &str, address: IpAddr) -> Target {
        let workload = pod(name, address);
        self.apply(Resource::Workload(workload.clone()));
        Target {
            address: SocketAddr::new(address, 8080),
            workload: Some(workload),
            zone: "".into(),
            load: Arc::default(),
        }
    }

    /// A tunnel from the client pod to the target's application.
    pub async fn open(&self, target: &Target) -> Result<TunnelStream, DialFault> {
        let peer = target.workload.as_ref().unwrap().identity.clone();
        let slot = self.shared.pool.open(&self.local, target, &peer).await?;
        tunnel::connect(slot, target.address, Instant::now() + HANDSHAKE).await
    }
}
