//! Slicing: who gets what, and that change by change ends where from-scratch does.

use super::*;
use mesh_core::{
    identity::{Identity, TrustDomain},
    mesh::*,
    name::NsName,
    node::{NodeDelta, Resource},
};
use mesh_wire::{proto, sender::OutgoingDelta};
use proptest::prelude::*;

fn n(namespace: &str, name: &str) -> NsName {
    NsName::new(namespace, name)
}

pub(in crate::publish) fn pod(namespace: &str, name: &str, node: &str, meshed: bool) -> Resource {
    Resource::Workload(Arc::new(Workload {
        id: n(namespace, name),
        uid: "u".into(),
        node: node.into(),
        addresses: vec![],
        identity: Identity::new(TrustDomain::new("td").unwrap(), namespace, "default").unwrap(),
        enrolment: if meshed { Enrolment::Meshed(Mode::Strict) } else { Enrolment::None },
        owner: name.into(),
        probes: if meshed { [Probe { port: 80, ask: Ask::Tcp }].into() } else { [].into() },
    }))
}

pub(in crate::publish) fn service(namespace: &str, name: &str, address: u8) -> Resource {
    Resource::Service(Arc::new(Service {
        id: n(namespace, name),
        addresses: vec![[10, 0, 0, address].into()],
        ports: vec![ServicePort { number: 80, name: "http".into(), protocol: AppProtocol::Http }],
    }))
}

fn endpoints(name: &str, service: &str, pods: &[&str]) -> Resource {
    let endpoint = |pod: &&str| Endpoint {
        address: [10, 1, 0, 1].into(),
        workload: Some(n("shop", pod)),
        health: EndpointHealth::Ready,
        zone: "".into(),
        node: "n1".into(),
    };
    Resource::EndpointSlice(Arc::new(EndpointSlice {
        id: n("shop", name),
        service: n("shop", service),
        ports: vec![PortMapping { service_port: 80, target_port: 8080 }],
        endpoints: pods.iter().map(endpoint).collect(),
    }))
}

fn route(name: &str, attachments: Vec<Attachment>, to: &[&str]) -> Resource {
    Resource::StreamRoute(Arc::new(StreamRoute {
        id: RouteId { kind: RouteKind::Tcp, name: n("shop", name) },
        created: 0,
        attachments,
        backends: to.iter().map(|s| (1, BackendTarget::Service { service: n("shop", s), port: 80 })).collect(),
    }))
}

fn to_service(scope: Scope) -> Attachment {
    Attachment::Service { service: n("shop", "cart"), ports: vec![80], scope, hostnames: vec![] }
}

fn to_gateway(name: &str) -> Attachment {
    Attachment::Listener { gateway: n("shop", name), listener: "http".into(), hostnames: vec![] }
}

fn gateway(name: &str, certificates: &[&str]) -> Resource {
    Resource::Gateway(Arc::new(Gateway {
        id: n("shop", name),
        addresses: vec![],
        listeners: vec![Listener {
            name: "https".into(),
            port: 443,
            hostname: None,
            protocol: ListenerProtocol::Https(certificates.iter().map(|c| n("shop", c)).collect()),
        }],
    }))
}

fn certificate(name: &str) -> Resource {
    Resource::Certificate(Arc::new(Certificate {
        id: n("shop", name),
        chain: vec![Arc::from([1u8])],
        key: PrivateKey::new([2u8]),
    }))
}

fn policy(name: &str, targets: &[&str]) -> Resource {
    Resource::TrafficPolicy(Arc::new(TrafficPolicy {
        id: n("shop", name),
        targets: targets.iter().map(|t| n("shop", t)).collect(),
        retry_budget: None,
    }))
}

fn mesh(resources: Vec<Resource>) -> Mesh {
    let mut mesh = Mesh::default();
    mesh.apply(&NodeDelta { upserts: resources, removes: vec![] });
    mesh
}

fn check(mesh: &Mesh, proxy: &str, expected: &[&str]) {
    let ids: Vec<String> = slice(mesh, &proxy.parse().unwrap()).iter().map(|e| e.id().to_string()).collect();
    assert_eq!(ids, expected, "{proxy}");
}

fn shop() -> Mesh {
    mesh(vec![
        pod("shop", "cart-0", "n1", true),
        pod("web", "front-0", "n2", true),
        pod("web", "bare-0", "n1", false),
        service("shop", "cart", 1),
        service("shop", "other", 2),
        endpoints("cart-1", "cart", &["cart-0"]),
        endpoints("other-1", "other", &["other-0"]),
        route("producer", vec![to_service(Scope::Producer)], &["cart"]),
        route("consumer", vec![to_service(Scope::Consumer("web".into()))], &["cart"]),
        route("ingress", vec![to_gateway("front")], &["cart"]),
        gateway("front", &["tls"]),
        gateway("back", &["other-tls"]),
        certificate("tls"),
        certificate("other-tls"),
        policy("budget", &["cart"]),
        policy("other", &["other"]),
    ])
}

#[test]
fn a_node_gets_the_consumer_routes_of_namespaces_with_meshed_pods_of_its_own() {
    let all = ["Pod/shop/cart-0", "Pod/web/bare-0", "Pod/web/front-0", "Service/shop/cart", "Service/shop/other"];
    let slices = ["EndpointSlice/shop/cart-1", "EndpointSlice/shop/other-1"];
    let policies = ["XBackendTrafficPolicy/shop/budget", "XBackendTrafficPolicy/shop/other"];
    let with = |routes: &[&'static str]| [&all[..], &slices, routes, &policies].concat();
    check(&shop(), "node/n1", &with(&["TCPRoute/shop/producer"]));
    check(&shop(), "node/n2", &with(&["TCPRoute/shop/consumer", "TCPRoute/shop/producer"]));
}

#[test]
fn a_gateway_gets_itself_its_certificates_and_what_its_routes_reach() {
    check(
        &shop(),
        "gateway/shop/front",
        &[
            "Pod/shop/cart-0",
            "Service/shop/cart",
            "EndpointSlice/shop/cart-1",
            "Secret/shop/tls",
            "Gateway/shop/front",
            "TCPRoute/shop/ingress",
            "XBackendTrafficPolicy/shop/budget",
        ],
    );
    check(&shop(), "gateway/shop/back", &["Secret/shop/other-tls", "Gateway/shop/back"]);
    check(&shop(), "gateway/shop/nobody", &[]);
}

#[test]
fn what_a_kubelet_asks_of_a_pod_is_told_to_the_pods_own_node_only() {
    for (proxy, told) in [("node/n1", true), ("node/n2", false), ("gateway/shop/front", false)] {
        let all = slice(&shop(), &proxy.parse().unwrap());
        let entry = all.iter().find(|e| e.id().to_string() == "Pod/shop/cart-0").unwrap();
        let sent = OutgoingDelta { upserts: vec![entry.encoded.bytes.clone()], ..OutgoingDelta::default() };
        let sent = proto::Delta::try_from(&sent).unwrap().upserts.remove(0).body;
        let Some(proto::resource::Body::Workload(w)) = sent else { panic!("{sent:?}") };
        assert_eq!(!w.probes.is_empty(), told, "{proxy}");
    }
}

#[test]
fn the_first_pod_of_a_namespace_brings_its_consumer_routes_and_the_last_takes_them() {
    let mut mesh = shop();
    let mut slice = Slice::new(&"node/n1".parse().unwrap(), &mesh);
    let ids = |touched: Touched| {
        touched.into_iter().map(|(id, e)| format!("{}{id}", if e.is_some() { '+' } else { '-' })).collect::<Vec<_>>()
    };
    let mut step = |delta: NodeDelta| {
        let changes = mesh.apply(&delta);
        ids(slice.change(&mesh, &changes))
    };
    let came = NodeDelta { upserts: vec![pod("web", "front-1", "n1", true)], removes: vec![] };
    assert_eq!(step(came.clone()), ["+Pod/web/front-1", "+TCPRoute/shop/consumer"]);
    assert_eq!(step(came), [""; 0], "the same content is no change");
    let moved = NodeDelta { upserts: vec![pod("web", "front-1", "n3", true)], removes: vec![] };
    assert_eq!(step(moved), ["+Pod/web/front-1", "-TCPRoute/shop/consumer"]);
}

fn any_resource() -> impl Strategy<Value = Resource> {
    let name = || prop::sample::select(vec!["a", "b", "c"]);
    let names = || prop::collection::vec(name(), 0..3);
    let attachment = prop_oneof![
        Just(to_service(Scope::Producer)),
        name().prop_map(|ns| to_service(Scope::Consumer(ns.into()))),
        name().prop_map(to_gateway),
    ];
    prop_oneof![
        (name(), name(), name(), any::<bool>()).prop_map(|(ns, p, node, meshed)| pod(ns, p, node, meshed)),
        (name(), name(), any::<bool>()).prop_map(|(p, node, meshed)| pod("shop", p, node, meshed)),
        (name(), any::<u8>()).prop_map(|(s, a)| service("shop", s, a)),
        (name(), name(), names()).prop_map(|(e, s, p)| endpoints(e, s, &p)),
        (name(), prop::collection::vec(attachment, 0..3), names()).prop_map(|(r, a, to)| route(r, a, &to)),
        (name(), names()).prop_map(|(g, c)| gateway(g, &c)),
        name().prop_map(certificate),
        (name(), names()).prop_map(|(p, t)| policy(p, &t)),
    ]
}

fn any_delta() -> impl Strategy<Value = NodeDelta> {
    let upserts = prop::collection::vec(any_resource(), 0..6);
    let removes = prop::collection::vec(any_resource(), 0..4);
    (upserts, removes).prop_map(|(upserts, removes)| {
        let mut seen = std::collections::BTreeSet::new();
        let upserts = upserts.into_iter().filter(|r| seen.insert(r.id())).collect();
        let removes = removes.into_iter().map(|r| r.id()).filter(|id| seen.insert(id.clone())).collect();
        NodeDelta { upserts, removes }
    })
}

proptest! {
    #[test]
    fn change_by_change_ends_where_from_scratch_does(deltas in prop::collection::vec(any_delta(), 1..12)) {
        for proxy in ["node/a", "node/b", "gateway/shop/a", "gateway/shop/b"] {
            let proxy = proxy.parse().unwrap();
            let mut mesh = Mesh::default();
            let mut kept = Slice::new(&proxy, &mesh);
            let mut held: BTreeMap<ResourceId, u64> = BTreeMap::new();
            for delta in &deltas {
                let changes = mesh.apply(delta);
                for (id, entry) in kept.change(&mesh, &changes) {
                    match entry {
                        Some(entry) => { held.insert(id, entry.encoded.version); }
                        None => { prop_assert!(held.remove(&id).is_some(), "{proxy}: removes {id}, which it never got"); }
                    }
                }
                let scratch: BTreeMap<_, _> =
                    slice(&mesh, &proxy).iter().map(|e| (e.id(), e.encoded.version)).collect();
                prop_assert_eq!(&held, &scratch, "{}", proxy);
                let kept: BTreeMap<_, _> = kept.after(&mesh, None).map(|(id, e)| (id, e.encoded.version)).collect();
                prop_assert_eq!(&held, &kept, "{}", proxy);
            }
        }
    }
}
