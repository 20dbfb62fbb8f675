//! World: a proxy in this process with a config made of nouns. It must not hide what a test is about.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_core::{
    decide::HttpFrontend,
    identity::{Identity, TrustDomain},
    mesh::*,
    name::NsName,
    node::{NodeDelta, Resource, ResourceId},
    snapshot::Snapshot,
};
use mesh_proxy::{
    http::serve_frontend,
    local::Local,
    shared::Shared,
    telemetry::{AccessLogSink, Telemetry},
    tunnel::Pool,
};
use mesh_tls::{Authority, FetchFault, Fetching, KeyRequest, Svid, SvidSource, Svids, Trust};
use prometheus_client::registry::Registry;
use std::{
    io::Write,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{io::DuplexStream, sync::watch};
use tokio_util::sync::CancellationToken;

/// A proxy and what it writes.
pub struct World {
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    pub shared: Arc<Shared>,
    /// The client pod `shop/client`.
    pub local: Arc<Local>,
    log: Log,
    registry: Registry,
    /// What the slices of `shop/*` are numbered by.
    slices: std::cell::Cell<u32>,
    _authority: tempfile::TempDir,
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(data);
        Ok(data.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Issues what is asked, at once.
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

pub fn settings() -> MeshSettings {
    MeshSettings {
        name: "heddle".into(),
        trust_domain: TrustDomain::new("cluster.local").unwrap(),
        mode: Some(Mode::Strict),
        svid_lifetime: Duration::from_secs(3600),
        tracing: None,
        access_log: AccessLog::All,
        limits: Limits { header_bytes: 16 * 1024, ..Limits::default() },
    }
}

pub fn identity(account: &str) -> Identity {
    Identity::new(TrustDomain::new("cluster.local").unwrap(), "shop", account).unwrap()
}

/// A meshed pod of `shop` at an address.
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
    pub fn new() -> Self {
        Self::with(settings())
    }

    pub fn with(settings: MeshSettings) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (snapshots, receiver) = watch::channel(Some(Arc::new(Snapshot::empty(Arc::new(settings)))));
        let dir = tempfile::tempdir().unwrap();
        let issuer = Issuer(Authority::load_or_create(dir.path()).unwrap());
        let svids = Arc::new(Svids::new(Arc::new(issuer), None, tokio::runtime::Handle::current()));
        let trust = Arc::new(Trust::new(svids));
        let log = Log::default();
        let mut registry = Registry::default();
        let sink = AccessLogSink::start(Box::new(log.clone())).unwrap();
        let shared = Arc::new(Shared {
            pool: Pool::new(trust.clone(), receiver.clone()),
            snapshot: receiver,
            trust,
            telemetry: Telemetry::new(sink, &mut registry),
            host_addresses: watch::channel(Arc::default()).1,
            drain: CancellationToken::new(),
        });
        let client = pod("client", "127.0.0.1".parse().unwrap());
        let local = Local::new(client, None, 1000);
        Self { snapshots, shared, local, log, registry, slices: std::cell::Cell::new(0), _authority: dir }
    }

    /// Applies resources.
    pub fn apply(&self, resources: impl IntoIterator<Item = Resource>) {
        self.change(NodeDelta { upserts: resources.into_iter().collect(), removes: vec![] });
    }

    pub fn remove(&self, id: ResourceId) {
        self.change(NodeDelta { upserts: vec![], removes: vec![id] });
    }

    fn change(&self, delta: NodeDelta) {
        self.snapshots.send_modify(|s| *s = s.as_ref().map(|s| Arc::new(s.with(&delta))));
    }

    /// Changes the config, and waits until nobody holds the one before: who did as long as a connection lives would hold all that has changed since.
    pub async fn config_before_is_let_go(&self) {
        let before = Arc::downgrade(self.snapshots.borrow().as_ref().unwrap());
        self.change(NodeDelta::default());
        for _ in 0..500 {
            if before.upgrade().is_none() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} still hold the config before", before.strong_count());
    }

    /// A Service of `shop` with port 80 and endpoints.
    pub fn service(&self, name: &str, protocol: AppProtocol, endpoints: &[SocketAddr]) {
        let service = Service {
            id: NsName::new("shop", name),
            addresses: vec![],
            ports: vec![ServicePort { number: 80, name: "".into(), protocol }],
        };
        self.apply([Resource::Service(Arc::new(service))]);
        for address in endpoints {
            self.endpoint(name, *address, None);
        }
    }

    /// One more endpoint.
    pub fn endpoint(&self, service: &str, address: SocketAddr, workload: Option<NsName>) {
        let number = self.slices.get();
        self.slices.set(number + 1);
        self.apply([Resource::EndpointSlice(Arc::new(EndpointSlice {
            id: NsName::new("shop", format!("{service}-{number}")),
            service: NsName::new("shop", service),
            ports: vec![PortMapping { service_port: 80, target_port: address.port() }],
            endpoints: vec![Endpoint {
                address: address.ip(),
                workload,
                health: EndpointHealth::Ready,
                zone: "".into(),
                node: "".into(),
            }],
        }))]);
    }

    /// A producer HTTPRoute on port 80 of a Service of `shop`.
    pub fn route(&self, service: &str, rules: impl IntoIterator<Item = HttpRule>) {
        self.route_of(RouteKind::Http, service, rules);
    }

    pub fn route_of(&self, kind: RouteKind, service: &str, rules: impl IntoIterator<Item = HttpRule>) {
        self.apply([Resource::HttpRoute(Arc::new(HttpRoute {
            id: RouteId { kind, name: NsName::new("shop", "route") },
            created: 0,
            attachments: vec![Attachment::Service {
                service: NsName::new("shop", service),
                ports: vec![80],
                scope: Scope::Producer,
                hostnames: vec![],
            }],
            rules: rules.into_iter().map(Arc::new).collect(),
        }))]);
    }

    /// A connection of the client pod to port 80 of a Service, served by the proxy.
    pub fn connect(&self, service: &str) -> DuplexStream {
        let (client, server) = tokio::io::duplex(64 * 1024);
        let snapshot = self.shared.snapshot().unwrap();
        let service = snapshot.service(&NsName::new("shop", service)).unwrap().clone();
        let frontend = HttpFrontend { protocol: service.ports[0].protocol, service, port: 80, routes: None };
        let (local, shared) = (self.local.clone(), self.shared.clone());
        let (peer, original) = ("10.0.0.1:40000".parse().unwrap(), "10.96.0.1:80".parse().unwrap());
        tokio::spawn(serve_frontend(server, frontend, local, shared, (peer, original), CancellationToken::new()));
        client
    }

    /// One HTTP/1.1 request on a connection of its own.
    pub async fn send(&self, service: &str, request: Request<Bytes>) -> Response<Incoming> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(self.connect(service))).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        let (mut parts, body) = request.into_parts();
        parts.headers.entry("host").or_insert_with(|| "client.example".parse().unwrap());
        sender.send_request(Request::from_parts(parts, Full::new(body))).await.unwrap()
    }

    /// One GET, its status and body.
    pub async fn get(&self, service: &str, path: &str) -> (u16, String) {
        read(self.send(service, Request::get(path).body(Bytes::new()).unwrap()).await).await
    }

    /// A client of HTTP/2 with prior knowledge.
    pub async fn http2<B>(&self, service: &str) -> http2::SendRequest<B>
    where
        B: http_body::Body + Send + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let io = TokioIo::new(self.connect(service));
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    /// The access log so far.
    pub fn lines(&self) -> Vec<serde_json::Value> {
        self.shared.telemetry.flush(Duration::from_secs(10));
        let log = self.log.0.lock().unwrap();
        std::str::from_utf8(&log).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    /// Waits until the log has a line of which this holds.
    pub async fn line(&self, holds: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        for _ in 0..500 {
            if let Some(line) = self.lines().into_iter().find(&holds) {
                return line;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no such line in {:#?}", self.lines());
    }

    /// The metrics as text.
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }
}

/// Status and body of a response.
pub async fn read(response: Response<Incoming>) -> (u16, String) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// A rule that matches everything and sends to Services of `shop`, port 80, by weight.
pub fn rule(backends: &[(&str, u32)]) -> HttpRule {
    HttpRule {
        name: None,
        matches: vec![HttpMatch { path: PathMatch::Prefix("/".into()), method: None, headers: vec![], query: vec![] }],
        filters: vec![],
        backends: backends.iter().map(|(name, weight)| backend(name, *weight)).collect(),
        request_timeout: None,
        backend_timeout: None,
        retry: None,
    }
}

pub fn backend(name: &str, weight: u32) -> HttpBackend {
    HttpBackend { weight, target: target(name), filters: vec![] }
}

pub fn target(name: &str) -> BackendTarget {
    BackendTarget::Service { service: NsName::new("shop", name), port: 80 }
}

pub fn on_prefix(prefix: &str, mut rule: HttpRule) -> HttpRule {
    rule.matches[0].path = PathMatch::Prefix(prefix.into());
    rule
}
