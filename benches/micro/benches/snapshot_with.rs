//! Snapshot with: one changed endpoint, one changed route, among many. It must not measure planning or the wire.

use criterion::{Criterion, criterion_group, criterion_main};
use mesh_core::{
    identity::{Identity, TrustDomain},
    mesh::*,
    name::NsName,
    node::{NodeDelta, Resource},
    snapshot::Snapshot,
};
use std::{hint::black_box, net::IpAddr, sync::Arc, time::Duration};

const SERVICES: u32 = 1_000;
const ENDPOINTS_OF_A_SERVICE: u32 = 10;
const ROUTES: u32 = 5_000;

fn trust_domain() -> TrustDomain {
    TrustDomain::new("cluster.local").expect("a valid trust domain")
}

fn service_id(service: u32) -> NsName {
    NsName::new("bench", format!("service-{service}"))
}

fn address(service: u32, endpoint: u32) -> IpAddr {
    IpAddr::from((0x0a00_0000 + service * ENDPOINTS_OF_A_SERVICE + endpoint).to_be_bytes())
}

fn service(n: u32) -> Resource {
    Resource::Service(Arc::new(Service {
        id: service_id(n),
        addresses: vec![IpAddr::from((0x0a60_0000 + n).to_be_bytes())],
        ports: vec![ServicePort { number: 80, name: "".into(), protocol: AppProtocol::Http }],
    }))
}

fn slice(n: u32, last: EndpointHealth) -> Resource {
    let endpoint = |i| Endpoint {
        address: address(n, i),
        workload: Some(NsName::new("bench", format!("pod-{n}-{i}"))),
        health: if i + 1 == ENDPOINTS_OF_A_SERVICE { last } else { EndpointHealth::Ready },
        zone: "".into(),
        node: "".into(),
    };
    Resource::EndpointSlice(Arc::new(EndpointSlice {
        id: NsName::new("bench", format!("slice-{n}")),
        service: service_id(n),
        ports: vec![PortMapping { service_port: 80, target_port: 8080 }],
        endpoints: (0..ENDPOINTS_OF_A_SERVICE).map(endpoint).collect(),
    }))
}

fn workload(n: u32, i: u32) -> Resource {
    let name = format!("pod-{n}-{i}");
    Resource::Workload(Arc::new(Workload {
        id: NsName::new("bench", &*name),
        uid: name.into(),
        node: "node".into(),
        addresses: vec![address(n, i)],
        identity: Identity::new(trust_domain(), "bench", "pod").expect("valid names"),
        enrolment: Enrolment::Meshed(Mode::Strict),
        owner: "bench".into(),
        probes: [].into(),
    }))
}

/// A route for its Service and, with two hosts of its own, for the one Gateway.
fn route(n: u32, path: &str) -> Resource {
    let host = |i| HostPattern::Exact(format!("host-{n}-{i}.example.com").into());
    let matches =
        vec![HttpMatch { path: PathMatch::Prefix(path.into()), method: None, headers: vec![], query: vec![] }];
    let target = BackendTarget::Service { service: service_id(n % SERVICES), port: 80 };
    let rule = HttpRule {
        name: None,
        matches,
        filters: vec![],
        backends: vec![HttpBackend { weight: 1, target, filters: vec![] }],
        request_timeout: None,
        backend_timeout: None,
        retry: None,
    };
    Resource::HttpRoute(Arc::new(HttpRoute {
        id: RouteId { kind: RouteKind::Http, name: NsName::new("bench", format!("route-{n}")) },
        created: 0,
        attachments: vec![
            Attachment::Service {
                service: service_id(n % SERVICES),
                ports: vec![80],
                scope: Scope::Producer,
                hostnames: vec![],
            },
            Attachment::Listener {
                gateway: NsName::new("bench", "gateway"),
                listener: "http".into(),
                hostnames: vec![host(0), host(1)],
            },
        ],
        rules: vec![Arc::new(rule)],
    }))
}

fn everything() -> Vec<Resource> {
    let listener = Listener { name: "http".into(), port: 80, hostname: None, protocol: ListenerProtocol::Http };
    let gateway = Gateway { id: NsName::new("bench", "gateway"), addresses: vec![], listeners: vec![listener] };
    let mut all = vec![Resource::Gateway(Arc::new(gateway))];
    all.extend((0..SERVICES).flat_map(|n| (0..ENDPOINTS_OF_A_SERVICE).map(move |i| workload(n, i))));
    all.extend((0..SERVICES).flat_map(|n| [service(n), slice(n, EndpointHealth::Ready)]));
    all.extend((0..ROUTES).map(|n| route(n, "/")));
    all
}

fn delta(resource: Resource) -> NodeDelta {
    NodeDelta { upserts: vec![resource], removes: vec![] }
}

fn bench(c: &mut Criterion) {
    let settings = Arc::new(MeshSettings {
        name: "heddle".into(),
        trust_domain: trust_domain(),
        mode: Some(Mode::Strict),
        svid_lifetime: Duration::from_secs(3600),
        tracing: None,
        access_log: AccessLog::All,
        limits: Limits::default(),
    });
    let all = NodeDelta { upserts: everything(), removes: vec![] };
    let snapshot = Snapshot::empty(settings.clone()).with(&all);
    let mut group = c.benchmark_group("snapshot_with");
    for (name, change) in [
        ("one endpoint of 10,000", delta(slice(500, EndpointHealth::NotReady))),
        ("one route of 5,000", delta(route(2_500, "/changed"))),
        ("one pod of 10,000, unchanged", delta(workload(500, 5))),
    ] {
        group.bench_function(name, |b| b.iter(|| black_box(snapshot.with(black_box(&change)))));
    }
    group.sample_size(10);
    group.bench_function("everything at once", |b| {
        b.iter(|| black_box(Snapshot::empty(settings.clone()).with(black_box(&all))));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(50).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    targets = bench
}
criterion_main!(benches);
