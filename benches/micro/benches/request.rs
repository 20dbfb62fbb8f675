//! Request: one L7 request through the proxy in this process: to a plaintext application, and across the mesh through both sides' proxies, and what it asks
//! of the allocator. It must not measure dials: all connections are warm.

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use mesh_core::{
    decide::{HBONE_PORT, HttpFrontend},
    identity::{Identity, TrustDomain},
    mesh::*,
    name::NsName,
    node::{NodeDelta, Resource},
    snapshot::Snapshot,
};
use mesh_proxy::{http::serve_frontend, inbound, local::Local, shared::Shared, telemetry::Telemetry, tunnel::Pool};
use mesh_tls::{Authority, FetchFault, Fetching, KeyRequest, Svid, SvidSource, Svids, Trust};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::{alloc::System, convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

const APPLICATION: &str = "127.0.9.1:8080";
const PLAIN: &str = "127.0.9.2:8080";

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Requests of which the allocations are counted.
const COUNTED: u32 = 1_000;

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

fn trust_domain() -> TrustDomain {
    TrustDomain::new("cluster.local").expect("a valid trust domain")
}

fn pod(name: &str, address: SocketAddr) -> Arc<Workload> {
    Arc::new(Workload {
        id: NsName::new("bench", name),
        uid: name.into(),
        node: "node".into(),
        addresses: vec![address.ip()],
        identity: Identity::new(trust_domain(), "bench", name).expect("valid names"),
        enrolment: Enrolment::Meshed(Mode::Strict),
        owner: name.into(),
        probes: [].into(),
    })
}

/// A Service `bench/NAME` with one endpoint and a route with one rule and one filter.
fn service(name: &str, endpoint: SocketAddr, workload: Option<NsName>) -> [Resource; 3] {
    let id = NsName::new("bench", name);
    let service = Service {
        id: id.clone(),
        addresses: vec![],
        ports: vec![ServicePort { number: 80, name: "".into(), protocol: AppProtocol::Http }],
    };
    let slice = EndpointSlice {
        id: id.clone(),
        service: id.clone(),
        ports: vec![PortMapping { service_port: 80, target_port: endpoint.port() }],
        endpoints: vec![Endpoint {
            address: endpoint.ip(),
            workload,
            health: EndpointHealth::Ready,
            zone: "".into(),
            node: "".into(),
        }],
    };
    let target = BackendTarget::Service { service: id.clone(), port: 80 };
    let rule = HttpRule {
        name: None,
        matches: vec![HttpMatch { path: PathMatch::Prefix("/".into()), method: None, headers: vec![], query: vec![] }],
        filters: vec![Filter::RequestHeaders(HeaderEdit {
            set: vec![(http::HeaderName::from_static("x-bench"), http::HeaderValue::from_static("1"))],
            ..HeaderEdit::default()
        })],
        backends: vec![HttpBackend { weight: 1, target, filters: vec![] }],
        request_timeout: Some(Duration::from_secs(10)),
        backend_timeout: None,
        retry: None,
    };
    let route = HttpRoute {
        id: RouteId { kind: RouteKind::Http, name: id.clone() },
        created: 0,
        attachments: vec![Attachment::Service {
            service: id,
            ports: vec![80],
            scope: Scope::Producer,
            hostnames: vec![],
        }],
        rules: vec![Arc::new(rule)],
    };
    [
        Resource::Service(Arc::new(service)),
        Resource::EndpointSlice(Arc::new(slice)),
        Resource::HttpRoute(Arc::new(route)),
    ]
}

async fn application(address: SocketAddr) {
    let listener = TcpListener::bind(address).await.expect("a free loopback address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let service = service_fn(|_: Request<Incoming>| async {
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"hello"))))
                });
                let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
}

/// The proxy with both Services; the mesh one is served by its own side too.
async fn proxy(state: &std::path::Path) -> (Arc<Shared>, Arc<Local>) {
    let settings = MeshSettings {
        name: "heddle".into(),
        trust_domain: trust_domain(),
        mode: Some(Mode::Strict),
        svid_lifetime: Duration::from_secs(3600),
        tracing: None,
        access_log: AccessLog::All,
        limits: Limits::default(),
    };
    let (meshed, plain): (SocketAddr, SocketAddr) =
        (APPLICATION.parse().expect("an address"), PLAIN.parse().expect("an address"));
    application(meshed).await;
    application(plain).await;
    let server = pod("server", meshed);
    let mut upserts = vec![Resource::Workload(server.clone())];
    upserts.extend(service("mesh", meshed, Some(server.id.clone())));
    upserts.extend(service("plain", plain, None));
    let snapshot = Snapshot::empty(Arc::new(settings)).with(&NodeDelta { upserts, removes: vec![] });
    let (_, snapshot) = watch::channel(Some(Arc::new(snapshot)));
    let authority = Authority::load_or_create(state).expect("a writable directory");
    let svids = Arc::new(Svids::new(Arc::new(Issuer(authority)), None, tokio::runtime::Handle::current()));
    let client = pod("client", "127.0.0.1:0".parse().expect("an address"));
    for workload in [&client, &server] {
        svids.ensure(&workload.identity);
        svids.obtained(&workload.identity).await;
    }
    let trust = Arc::new(Trust::new(svids));
    let shared = Arc::new(Shared {
        pool: Pool::new(trust.clone(), snapshot.clone()),
        snapshot,
        trust,
        telemetry: Telemetry::discard(),
        host_addresses: watch::channel(Arc::default()).1,
        drain: CancellationToken::new(),
    });
    let (serving, local) = (shared.clone(), Local::new(server, None, 1000));
    let listener = TcpListener::bind((meshed.ip(), HBONE_PORT)).await.expect("a free loopback address");
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            let permit = local.connection().expect("fewer than 1000 connections");
            let stop = CancellationToken::new();
            // As the proxy's own accept loop does.
            stream.set_nodelay(true).expect("a living socket");
            tokio::spawn(inbound::mesh(stream, peer, local.clone(), serving.clone(), stop, permit));
        }
    });
    (shared, Local::new(client, None, 1000))
}

type Client = http1::SendRequest<Full<Bytes>>;

async fn client(shared: &Arc<Shared>, local: &Arc<Local>, service: &str) -> Client {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let snapshot = shared.snapshot().expect("a snapshot");
    let service = snapshot.service(&NsName::new("bench", service)).expect("the service").clone();
    let frontend = HttpFrontend { service, port: 80, protocol: AppProtocol::Http, routes: None };
    let (peer, original) = ("10.0.0.1:1".parse().expect("an address"), "10.96.0.1:80".parse().expect("an address"));
    tokio::spawn(serve_frontend(
        far,
        frontend,
        local.clone(),
        shared.clone(),
        (peer, original),
        CancellationToken::new(),
    ));
    over(near).await
}

async fn over(io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static) -> Client {
    let (sender, connection) = http1::handshake(TokioIo::new(io)).await.expect("a handshake of nothing");
    tokio::spawn(connection);
    sender
}

async fn get(client: &mut Client) {
    client.ready().await.expect("a living connection");
    let request = Request::get("/").header("host", "bench").body(Full::default()).expect("a valid request");
    let response = client.send_request(request).await.expect("a response");
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.expect("a whole body").to_bytes();
    assert_eq!(body, "hello");
}

fn request(c: &mut Criterion) {
    // One thread: what is measured is work, not the scheduler of a shared machine.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let state = tempfile::tempdir().expect("a directory");
    let (shared, local) = runtime.block_on(proxy(state.path()));
    let mut group = c.benchmark_group("request");
    let direct = async { over(tokio::net::TcpStream::connect(PLAIN).await.expect("the application")).await };
    let mut clients = [
        ("direct", runtime.block_on(direct)),
        ("plain", runtime.block_on(client(&shared, &local, "plain"))),
        ("mesh", runtime.block_on(client(&shared, &local, "mesh"))),
    ];
    for (name, client) in &mut clients {
        // The client's and the application's are among them; "direct" says how many.
        runtime.block_on(async {
            for _ in 0..COUNTED {
                get(client).await;
            }
            let region = Region::new(ALLOCATOR);
            for _ in 0..COUNTED {
                get(client).await;
            }
            let (made, count) = (region.change(), f64::from(COUNTED));
            let (times, bytes) = ((made.allocations + made.reallocations) as f64, made.bytes_allocated as f64);
            println!("request/{name}: {:.1} allocations, {:.0} bytes", times / count, bytes / count);
        });
        group.bench_function(*name, |b| {
            b.iter_custom(|n| {
                runtime.block_on(async {
                    let begun = std::time::Instant::now();
                    for _ in 0..n {
                        get(client).await;
                    }
                    begun.elapsed()
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, request);
criterion_main!(benches);
