//! What is decided of connections, in sentences.

use super::*;
use crate::{mesh::EndpointHealth::Ready, mesh::RouteKind, node::Resource, tests::fixture::*};

const PLAIN: &str = "203.0.113.9";

/// A client in namespace `x`, a pod `x/a` behind Service `x/s` with an unspecified port 80, HTTP 81 and TLS 82, and an unmeshed pod.
fn mesh(more: impl IntoIterator<Item = Resource>) -> Snapshot {
    let ports = [port(80, AppProtocol::Unspecified), port(81, AppProtocol::Http), port(82, AppProtocol::Tls)];
    let mut outside = pod("x/plain", &["10.0.0.9"]);
    outside.enrolment = Enrolment::None;
    let base: [Resource; 5] = [
        pod("x/client", &["10.0.0.1"]).into(),
        pod("x/a", &["10.0.0.2", "fd00::2"]).into(),
        outside.into(),
        service("x/s", &["10.96.0.1", "fd00:96::1"], &ports).into(),
        slice("x/s-1", "x/s", &[80, 81, 82], &[("10.0.0.2", "x/a", Ready)]).into(),
    ];
    snapshot(base.into_iter().chain(more))
}

fn to(snapshot: &Snapshot, client: &str, destination: &str) -> Outbound {
    let client = pod(client, &["10.0.0.1"]);
    outbound(snapshot, &client, destination.parse().unwrap())
}

fn refused(decision: Outbound) -> Fault {
    let Outbound::Refuse(fault) = decision else { panic!("{decision:?}") };
    fault
}

#[test]
fn a_service_port_without_routes_is_bytes_to_its_endpoints() {
    for destination in ["10.96.0.1:80", "10.96.0.1:82", "[fd00:96::1]:80", "[::ffff:10.96.0.1]:80"] {
        let decision = to(&mesh([]), "x/client", destination);
        let Outbound::Service { endpoints, .. } = decision else { panic!("{decision:?}") };
        assert_eq!(endpoints.endpoints.len(), 1, "{destination}");
        assert_eq!(transport(endpoints.endpoints[0].workload.as_deref()), Transport::Mesh { peer: identity("x/a") });
    }
}

#[test]
fn a_port_that_says_http_is_http_even_without_routes() {
    let decision = to(&mesh([]), "x/client", "10.96.0.1:81");
    assert!(matches!(&decision, Outbound::Http(f) if f.routes.is_none() && f.port == 81), "{decision:?}");
}

#[test]
fn http_routes_make_a_port_http() {
    let r = route("x/r", 0, vec![to_service("x/s", &[80], "")], vec![rule(vec![prefix("/")], vec![])]);
    let decision = to(&mesh([r.into()]), "x/client", "10.96.0.1:80");
    assert!(matches!(&decision, Outbound::Http(f) if f.routes.is_some()), "{decision:?}");
}

#[test]
fn stream_routes_make_a_port_bytes_even_if_it_says_http() {
    let r = stream(RouteKind::Tcp, "x/r", 0, vec![to_service("x/s", &[81], "")]);
    let decision = to(&mesh([r.into()]), "x/client", "10.96.0.1:81");
    assert!(matches!(&decision, Outbound::Streams { port: 81, .. }), "{decision:?}");
}

#[test]
fn a_consumer_route_of_any_kind_hides_producer_routes_from_its_namespace_only() {
    let producer = route("x/r", 0, vec![to_service("x/s", &[80], "")], vec![rule(vec![prefix("/")], vec![])]);
    let consumer = stream(RouteKind::Tcp, "y/r", 0, vec![to_service("x/s", &[80], "y")]);
    let snapshot = mesh([producer.into(), consumer.into()]);
    assert!(matches!(to(&snapshot, "x/client", "10.96.0.1:80"), Outbound::Http(_)));
    assert!(matches!(to(&snapshot, "y/client", "10.96.0.1:80"), Outbound::Streams { .. }));
}

#[test]
fn a_pod_address_is_untouched_by_routes_and_reached_as_the_pod_wants() {
    let r = route("x/r", 0, vec![to_service("x/s", &[80], "")], vec![rule(vec![prefix("/")], vec![])]);
    let snapshot = mesh([r.into()]);
    for (destination, want) in [
        ("10.0.0.2:8080", Transport::Mesh { peer: identity("x/a") }),
        ("[fd00::2]:8080", Transport::Mesh { peer: identity("x/a") }),
        ("10.0.0.9:8080", Transport::Plaintext),
        ("203.0.113.9:443", Transport::Plaintext),
    ] {
        let decision = to(&snapshot, "x/client", destination);
        let Outbound::Address { address, transport, workload } = decision else { panic!("{decision:?}") };
        assert_eq!((address, transport), (destination.parse().unwrap(), want), "{destination}");
        assert_eq!(workload.is_none(), destination.starts_with(PLAIN));
    }
}

#[test]
fn a_service_port_that_does_not_exist_is_refused() {
    assert_eq!(refused(to(&mesh([]), "x/client", "10.96.0.1:9999")), Fault::NoEndpoint);
}

#[test]
fn the_meshs_own_ports_are_refused_where_they_would_loop() {
    let snapshot = mesh([]);
    for port in [OUTBOUND_PORT, INBOUND_PORT, HBONE_PORT] {
        for address in ["10.0.0.1", "10.0.0.2", "127.0.0.1"] {
            assert_eq!(refused(to(&snapshot, "x/client", &format!("{address}:{port}"))), Fault::SelfCall, "{address}");
        }
        // Outside the mesh the numbers mean nothing.
        for address in [PLAIN, "10.0.0.9"] {
            let decision = to(&snapshot, "x/client", &format!("{address}:{port}"));
            assert!(matches!(&decision, Outbound::Address { transport: Transport::Plaintext, .. }), "{decision:?}");
        }
    }
}

#[test]
fn a_verified_peer_is_admitted_to_the_pods_own_addresses_only() {
    let w = pod("x/a", &["10.0.0.2", "fd00::2"]);
    let ask = |local: &str, wanted: &str| {
        let permit = admit(&w, local.parse().unwrap(), &identity("x/client"), wanted.parse().unwrap());
        permit.map(|p| (p.destination().to_string(), p.peer().cloned()))
    };
    assert_eq!(ask("10.0.0.2:15008", "10.0.0.2:80"), Ok(("10.0.0.2:80".into(), Some(identity("x/client")))));
    assert!(ask("[fd00::2]:15008", "[fd00::2]:80").is_ok());
    assert!(ask("[::ffff:10.0.0.2]:15008", "10.0.0.2:80").is_ok());
    for (local, wanted, fault) in [
        ("10.0.0.2:15008", "10.0.0.3:80", Fault::WrongDestination),
        ("10.0.0.2:15008", "127.0.0.1:80", Fault::WrongDestination),
        ("10.0.0.2:15008", "[fd00::2]:80", Fault::WrongDestination),
        ("10.0.0.2:15008", "10.0.0.2:0", Fault::WrongDestination),
        ("10.0.0.2:15008", "10.0.0.2:15008", Fault::SelfCall),
        ("10.0.0.2:15008", "10.0.0.2:15001", Fault::SelfCall),
        ("10.0.0.2:15008", "10.0.0.2:15006", Fault::SelfCall),
    ] {
        assert_eq!(ask(local, wanted), Err(fault), "{wanted} on {local}");
    }
}

#[test]
fn a_peer_of_another_trust_domain_is_not_admitted() {
    let peer = "spiffe://elsewhere/ns/x/sa/client".parse().unwrap();
    let local = "10.0.0.2:15008".parse().unwrap();
    let permit = admit(&pod("x/a", &["10.0.0.2"]), local, &peer, "10.0.0.2:80".parse().unwrap());
    assert_eq!(permit.map(|_| ()), Err(Fault::PeerIdentity));
}

#[test]
fn plaintext_is_admitted_by_mode() {
    let ask = |enrolment, wanted: &str| {
        let w = Workload { enrolment, ..pod("x/a", &["10.0.0.2"]) };
        match admit_plaintext(&w, ip("10.0.0.7"), &Default::default(), wanted.parse().unwrap()) {
            Ok(Plaintext::Carry(permit)) => Ok(permit.peer().is_none()),
            Ok(Plaintext::Probe(permit)) => panic!("{permit:?}"),
            Err(fault) => Err(fault),
        }
    };
    assert_eq!(ask(Enrolment::Meshed(Mode::Strict), "10.0.0.2:80"), Err(Fault::PlaintextRefused));
    assert_eq!(ask(Enrolment::Meshed(Mode::Permissive), "10.0.0.2:80"), Ok(true));
    assert_eq!(ask(Enrolment::None, "10.0.0.2:80"), Ok(true));
    assert_eq!(ask(Enrolment::Meshed(Mode::Permissive), "10.0.0.3:80"), Err(Fault::WrongDestination));
    assert_eq!(ask(Enrolment::Meshed(Mode::Permissive), "10.0.0.2:15001"), Err(Fault::SelfCall));
}

#[test]
fn whatever_neighbouring_states_two_proxies_believe_in_they_speak_with_each_other() {
    use Enrolment::*;
    let steps = [
        [None, Joining],
        [Joining, Meshed(Mode::Strict)],
        [Joining, Meshed(Mode::Permissive)],
        [Meshed(Mode::Strict), Meshed(Mode::Permissive)],
        [Meshed(Mode::Permissive), Leaving],
        [Leaving, Joining],
        [Leaving, None],
    ];
    for [one, other] in steps {
        for (client_says, server_says) in [(one, other), (other, one), (one, one), (other, other)] {
            let believed = Workload { enrolment: client_says, ..pod("x/a", &["10.0.0.2"]) };
            let real = Workload { enrolment: server_says, ..believed.clone() };
            // A proxy has captured what it is told is meshed for longer than a step, and is slow to capture what has just begun to join.
            let captured = !matches!(server_says, None | Joining) || client_says.is_meshed() && client_says != Joining;
            let plaintext = admit_plaintext(&real, ip("10.0.0.7"), &Default::default(), "10.0.0.2:80".parse().unwrap());
            let works = match transport(Some(&believed)) {
                Transport::Mesh { .. } => captured,
                Transport::Joining { .. } => captured || plaintext.is_ok(),
                Transport::Plaintext => plaintext.is_ok(),
            };
            assert!(works, "client {client_says:?}, server {server_says:?}");
        }
    }
}

#[test]
fn a_joining_workload_is_spoken_to_by_mtls_unless_nobody_is_there_yet() {
    let joining = Workload { enrolment: Enrolment::Joining, ..pod("x/a", &["10.0.0.2"]) };
    assert_eq!(transport(Some(&joining)), Transport::Joining { peer: identity("x/a") });
    assert!(is_not_there_yet(Fault::ConnectFailed) && is_not_there_yet(Fault::ConnectTimeout));
    for fault in [Fault::PeerIdentity, Fault::Limit, Fault::Draining, Fault::Internal] {
        assert!(!is_not_there_yet(fault), "{fault:?}");
    }
}
