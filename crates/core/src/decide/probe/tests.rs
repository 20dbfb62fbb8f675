//! What passes as a probe and what the application gets for it; everything else is refused.

use super::*;
use crate::{
    decide::{Plaintext, admit_plaintext},
    mesh::{Enrolment, Mode, Probe},
    tests::fixture::{ip, pod},
};

const HOST: &str = "10.0.0.254";

fn http(port: u16, target: &str) -> Probe {
    let probe = HttpProbe { tls: false, target: target.parse().unwrap(), headers: vec![] };
    Probe { port, ask: Ask::Http(probe) }
}

fn probed() -> Workload {
    let mut headed = HttpProbe { tls: false, target: "/head".parse().unwrap(), headers: vec![] };
    headed.headers.push((header::HOST, HeaderValue::from_static("shop.example")));
    headed.headers.push(("x-probe".parse().unwrap(), HeaderValue::from_static("1")));
    let secret = HttpProbe { tls: true, target: "/tls".parse().unwrap(), headers: vec![] };
    Workload {
        probes: [
            http(8080, "/healthz?deep=1"),
            http(8080, "/ready"),
            Probe { port: 8080, ask: Ask::Http(headed) },
            Probe { port: 9000, ask: Ask::Tcp },
            Probe { port: 50051, ask: Ask::Grpc { service: "shop.Cart".into() } },
            Probe { port: 8443, ask: Ask::Http(secret) },
        ]
        .into(),
        ..pod("x/a", &["10.0.0.2", "fd00::2"])
    }
}

fn ask(workload: &Workload, peer: &str, wanted: &str) -> Result<Plaintext, Fault> {
    let hosts = [ip(HOST), ip("fd00::fe")].into();
    admit_plaintext(workload, ip(peer), &hosts, wanted.parse().unwrap())
}

fn permit(wanted: &str) -> ProbePermit {
    match ask(&probed(), HOST, wanted) {
        Ok(Plaintext::Probe(permit)) => permit,
        other => panic!("{wanted}: {other:?}"),
    }
}

fn request(method: &str, target: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

#[test]
fn only_the_host_and_only_probed_ports_get_a_permit() {
    let w = probed();
    for (peer, wanted, good) in [
        (HOST, "10.0.0.2:8080", true),
        ("::ffff:10.0.0.254", "10.0.0.2:9000", true),
        ("fd00::fe", "[fd00::2]:50051", true),
        (HOST, "10.0.0.2:8081", false),
        (HOST, "10.0.0.3:8080", false),
        (HOST, "10.0.0.2:15008", false),
        ("10.0.0.7", "10.0.0.2:8080", false),
        ("10.0.0.2", "10.0.0.2:8080", false),
        ("127.0.0.1", "10.0.0.2:8080", false),
    ] {
        let got = ask(&w, peer, wanted);
        assert_eq!(matches!(got, Ok(Plaintext::Probe(_))), good, "{peer} to {wanted}: {got:?}");
        assert!(good || got.is_err(), "{peer} to {wanted}: {got:?}");
    }
    // Nothing of this weakens or changes what a permissive pod takes.
    let lenient = Workload { enrolment: Enrolment::Meshed(Mode::Permissive), ..w };
    assert!(matches!(ask(&lenient, "10.0.0.7", "10.0.0.2:8080"), Ok(Plaintext::Carry(_))));
    assert!(matches!(ask(&lenient, HOST, "10.0.0.2:8080"), Ok(Plaintext::Carry(_))));
}

#[test]
fn a_get_of_exactly_a_probes_path_is_made_anew_from_the_spec() {
    let permit = permit("10.0.0.2:8080");
    let asked = request(
        "GET",
        "/healthz?deep=1",
        &[
            ("host", "evil.example"),
            ("cookie", "admin=1"),
            ("user-agent", "kube-probe/1.34"),
            ("x-original-url", "/admin"),
        ],
    );
    let made = permit.http(&asked, false).unwrap();
    let headers: Vec<_> = made.headers().iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
    assert_eq!(made.uri(), "/healthz?deep=1");
    assert_eq!(
        headers,
        [("host", "10.0.0.2:8080"), ("accept", "*/*"), ("user-agent", "kube-probe/1.34"), ("connection", "close")]
    );
}

#[test]
fn configured_headers_must_be_said_and_are_what_is_delivered() {
    let permit = permit("10.0.0.2:8080");
    let both = [("host", "shop.example"), ("x-probe", "1"), ("x-other", "2")];
    let made = permit.http(&request("GET", "/head", &both), false).unwrap();
    assert_eq!(made.headers()["host"], "shop.example");
    assert_eq!(made.headers()["x-probe"], "1");
    assert!(!made.headers().contains_key("x-other"));
    for headers in [&both[..1], &both[1..], &[("host", "shop.example"), ("x-probe", "2")]] {
        assert_eq!(permit.http(&request("GET", "/head", headers), false).map(drop), Err(Fault::PlaintextRefused));
    }
}

#[test]
fn nothing_but_the_probe_passes_as_http() {
    let permit = permit("10.0.0.2:8080");
    assert!(permit.http(&request("GET", "/ready", &[]), false).is_ok());
    assert!(permit.http(&request("GET", "/ready", &[("content-length", "0")]), false).is_ok());
    for (method, target, headers) in [
        ("POST", "/ready", &[][..]),
        ("HEAD", "/ready", &[]),
        ("DELETE", "/ready", &[]),
        ("get", "/ready", &[]),
        ("OPTIONS", "*", &[]),
        ("CONNECT", "10.0.0.2:8080", &[]),
        ("GET", "/", &[]),
        ("GET", "/ready/", &[]),
        ("GET", "/ready/../admin", &[]),
        ("GET", "//ready", &[]),
        ("GET", "/Ready", &[]),
        ("GET", "/read%79", &[]),
        ("GET", "/ready?x", &[]),
        ("GET", "/ready?", &[]),
        ("GET", "/healthz", &[]),
        ("GET", "/healthz?deep=1&more", &[]),
        ("GET", "http://10.0.0.2:8080/ready", &[]),
        ("GET", "http://elsewhere/ready", &[]),
        ("GET", "/ready", &[("content-length", "5")]),
        ("GET", "/ready", &[("content-length", "0"), ("content-length", "5")]),
        ("GET", "/ready", &[("transfer-encoding", "chunked")]),
        ("GET", "/ready", &[("upgrade", "websocket"), ("connection", "upgrade")]),
        ("GET", "/ready", &[("upgrade", "h2c")]),
        ("GET", "/ready", &[("expect", "100-continue")]),
        ("GET", "/tls", &[]),
    ] {
        let got = permit.http(&request(method, target, headers), false);
        assert_eq!(got.map(drop), Err(Fault::PlaintextRefused), "{method} {target} {headers:?}");
    }
    let mut two = request("GET", "/ready", &[]);
    two.version = Version::HTTP_2;
    assert!(permit.http(&two, false).is_err());
    assert!(permit.http(&request("GET", "/ready", &[]), true).is_err(), "TLS where the spec says none");
}

#[test]
fn what_a_port_takes_is_what_its_probes_ask() {
    let takes = |wanted: &str| {
        let p = permit(wanted);
        (p.takes_silence(), p.takes_http(false), p.takes_http(true), p.takes_grpc())
    };
    assert_eq!(takes("10.0.0.2:8080"), (false, true, false, false));
    assert_eq!(takes("10.0.0.2:9000"), (true, false, false, false));
    assert_eq!(takes("10.0.0.2:50051"), (false, false, false, true));
    assert_eq!(takes("10.0.0.2:8443"), (false, false, true, false));
}

#[test]
fn a_health_check_of_exactly_that_service_passes_and_nothing_else() {
    let permit = permit("10.0.0.2:50051");
    let grpc = [("content-type", "application/grpc"), ("user-agent", "grpc-go/1.70.0 made-up"), ("authorization", "x")];
    let good = request("POST", "http://10.0.0.2:50051/grpc.health.v1.Health/Check", &grpc);
    let body = b"\0\0\0\0\x0b\x0a\x09shop.Cart";
    let (made, sent) = permit.grpc(&good, body).unwrap();
    assert_eq!((made.uri().path(), &sent[..]), (HEALTH_CHECK, &body[..]));
    assert!(!made.headers().contains_key("authorization"));
    assert_eq!(made.headers()["user-agent"], "kube-probe/heddle");
    assert_eq!(health_check_max(&permit), body.len());
    for bad in [
        &b""[..],
        b"\0\0\0\0\0",
        b"\x01\0\0\0\x0b\x0a\x09shop.Cart",
        b"\0\0\0\0\x0b\x0a\x09shop.Pays",
        b"\0\0\0\0\x0b\x0a\x09shop.Cart\0",
        b"\0\0\0\0\x0b\x0a\x09shop.Cart\0\0\0\0\x0b\x0a\x09shop.Cart",
    ] {
        assert!(permit.grpc(&good, bad).is_err(), "{bad:?}");
    }
    for (method, target, headers) in [
        ("GET", "http://a/grpc.health.v1.Health/Check", &grpc[..]),
        ("POST", "http://a/grpc.health.v1.Health/Watch", &grpc),
        ("POST", "http://a/grpc.health.v1.Health/Check?x", &grpc),
        ("POST", "http://a/shop.Cart/Empty", &grpc),
        ("POST", "http://a/grpc.health.v1.Health/Check", &[("content-type", "text/plain")]),
        (
            "POST",
            "http://a/grpc.health.v1.Health/Check",
            &[("content-type", "application/grpc"), ("grpc-encoding", "gzip")],
        ),
    ] {
        assert!(permit.grpc(&request(method, target, headers), body).is_err(), "{method} {target} {headers:?}");
    }
}

#[test]
fn the_empty_service_is_an_empty_message_and_long_names_have_long_lengths() {
    assert_eq!(health_check(&"".into()), [0; 5]);
    let long = health_check(&"s".repeat(300).into());
    assert_eq!(&long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
}
