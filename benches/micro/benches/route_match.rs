//! Route match: one request among 10 to 10,000 rules over 1 to 1,000 hosts of one listener. It must not measure anything but the match.
//!
//! Promise: under 1 µs among 10,000 rules over 1,000 hosts.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use mesh_core::{
    identity::TrustDomain,
    mesh::{
        AccessLog, Attachment, Gateway, HeaderMatch, HostPattern, HttpMatch, HttpRoute, HttpRule, Limits, Listener,
        ListenerProtocol, MeshSettings, Mode, PathMatch, Pattern, RouteId, RouteKind, TextMatch,
    },
    name::NsName,
    node::{NodeDelta, Resource},
    route::{RequestHead, RouteTable},
    snapshot::Snapshot,
};
use std::{hint::black_box, sync::Arc, time::Duration};

/// Rules of one route: the most that the API allows.
const RULES_OF_A_ROUTE: usize = 16;

/// Requests that are asked in turn, so that none has the processor's caches to itself.
const REQUESTS: usize = 4096;

/// What a table is made of.
#[derive(Clone, Copy)]
enum Shape {
    /// As real tables are: of 16 rules 10 are prefixes, 4 exact paths, and 2 ask for a header on top of one of the prefixes.
    Mixed,
    /// All rules share the path `/` and differ in the value of one header.
    OneHeader,
    /// Every rule is a regular expression over the path.
    Regex,
}

struct Request {
    host: String,
    path: String,
    headers: HeaderMap,
}

impl Request {
    fn head<'a>(&'a self, method: &'a Method) -> RequestHead<'a> {
        RequestHead { host: &self.host, method, path: &self.path, query: Some("page=2"), headers: &self.headers }
    }
}

fn header(name: &'static str, value: &str) -> HeaderMatch {
    HeaderMatch { name: HeaderName::from_static(name), value: TextMatch::Exact(value.into()) }
}

fn condition(shape: Shape, rule: usize) -> HttpMatch {
    let service = |rule: usize| format!("/team-{}/service-{rule}", rule % 7);
    let (path, headers) = match (shape, rule % 16) {
        (Shape::Mixed, 0..=9) => (PathMatch::Prefix(service(rule).into()), vec![]),
        (Shape::Mixed, 10..=13) => (PathMatch::Exact(format!("{}/health", service(rule)).into()), vec![]),
        (Shape::Mixed, _) => (PathMatch::Prefix(service(rule - 14).into()), vec![header("x-version", "canary")]),
        (Shape::OneHeader, _) => (PathMatch::Prefix("/".into()), vec![header("x-tenant", &rule.to_string())]),
        (Shape::Regex, _) => {
            let pattern = Pattern::new(&format!("{}/[0-9]+", service(rule))).expect("a pattern of letters and digits");
            (PathMatch::Regex(pattern), vec![])
        }
    };
    HttpMatch { path, method: None, headers, query: vec![] }
}

/// A request that the rule matches, with headers as a browser or client sends them.
fn request(shape: Shape, rule: usize, host: usize) -> Request {
    let service = format!("/team-{}/service-{rule}", rule % 7);
    let path = match (shape, rule % 16) {
        (Shape::Mixed, 10..=13) => format!("{service}/health"),
        (Shape::Mixed, 14..) => format!("/team-{}/service-{}/items/42", (rule - 14) % 7, rule - 14),
        _ => format!("{service}/42"),
    };
    let mut headers = HeaderMap::new();
    for name in ["accept", "accept-encoding", "user-agent", "x-request-id", "traceparent", "content-type"] {
        headers.insert(name, HeaderValue::from_static("value of a usual length"));
    }
    match shape {
        Shape::Mixed if rule % 16 > 13 => headers.insert("x-version", HeaderValue::from_static("canary")),
        Shape::OneHeader => headers.insert("x-tenant", HeaderValue::from(rule)),
        _ => None,
    };
    Request { host: format!("host-{host}.example.com"), path, headers }
}

fn rule(condition: HttpMatch) -> Arc<HttpRule> {
    Arc::new(HttpRule {
        name: None,
        matches: vec![condition],
        filters: vec![],
        backends: vec![],
        request_timeout: None,
        backend_timeout: None,
        retry: None,
    })
}

fn table(shape: Shape, rules: usize, hosts: usize) -> (Arc<RouteTable>, Vec<Request>) {
    let gateway = NsName::new("bench", "gateway");
    let listener = Listener { name: "http".into(), port: 80, hostname: None, protocol: ListenerProtocol::Http };
    let mut upserts = vec![Resource::Gateway(Arc::new(Gateway {
        id: gateway.clone(),
        addresses: vec![],
        listeners: vec![listener],
    }))];
    let of_host = rules / hosts;
    for host in 0..hosts {
        for first in (0..of_host).step_by(RULES_OF_A_ROUTE) {
            let numbers = first..of_host.min(first + RULES_OF_A_ROUTE);
            upserts.push(Resource::HttpRoute(Arc::new(HttpRoute {
                id: RouteId { kind: RouteKind::Http, name: NsName::new("bench", format!("route-{host}-{first}")) },
                created: 0,
                attachments: vec![Attachment::Listener {
                    gateway: gateway.clone(),
                    listener: "http".into(),
                    hostnames: vec![HostPattern::Exact(format!("host-{host}.example.com").into())],
                }],
                rules: numbers.map(|n| rule(condition(shape, n))).collect(),
            })));
        }
    }
    let settings = MeshSettings {
        name: "heddle".into(),
        trust_domain: TrustDomain::new("cluster.local").expect("a valid trust domain"),
        mode: Some(Mode::Strict),
        svid_lifetime: Duration::from_secs(3600),
        tracing: None,
        access_log: AccessLog::All,
        limits: Limits::default(),
    };
    let snapshot = Snapshot::empty(Arc::new(settings)).with(&NodeDelta { upserts, removes: vec![] });
    let table = snapshot.listener_routes(&gateway, 80).expect("the listener was just made").clone();
    // Steps that are coprime to the counts visit rules and hosts evenly and out of order.
    let requests = (0..REQUESTS).map(|i| request(shape, i * 7919 % of_host, i * 104_729 % hosts)).collect();
    (table, requests)
}

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("route_match");
    group.throughput(Throughput::Elements(1));
    for (label, shape, rules, hosts) in [
        ("mixed", Shape::Mixed, 10, 1),
        ("mixed", Shape::Mixed, 1_000, 1),
        ("mixed", Shape::Mixed, 1_000, 100),
        ("mixed", Shape::Mixed, 10_000, 1),
        ("mixed", Shape::Mixed, 10_000, 1_000),
        ("one_header", Shape::OneHeader, 10_000, 1),
        ("regex", Shape::Regex, 10, 1),
        ("regex", Shape::Regex, 1_000, 1),
    ] {
        let (table, requests) = table(shape, rules, hosts);
        let method = Method::GET;
        for r in &requests {
            assert!(table.find(r.head(&method)).is_some(), "{} {} matches nothing", r.host, r.path);
        }
        let mut next = requests.iter().cycle();
        group.bench_function(BenchmarkId::new(label, format!("{rules} rules, {hosts} hosts")), |b| {
            b.iter(|| {
                let request = next.next().expect("a cycle does not end");
                black_box(table.find(black_box(request.head(&method)))).is_some()
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(50).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    targets = bench
}
criterion_main!(benches);
