//! Broken resources and the exact words of their refusal: who, which field, why.

use crate::{LIST_MAX, TEXT_MAX, decode, decode_delta, proto, proto::resource::Body};

fn said(id: &str, body: Option<Body>) -> String {
    match decode(proto::Resource { id: id.into(), version: 1, body }) {
        Err(rejected) => rejected.to_string(),
        Ok(taken) => panic!("{taken:?} was taken"),
    }
}

fn service(edit: impl FnOnce(&mut proto::Service)) -> Option<Body> {
    let port = proto::ServicePort { number: 80, name: "http".into(), protocol: proto::AppProtocol::Http.into() };
    let mut service = proto::Service { id: "shop/cart".into(), addresses: vec![vec![10, 0, 0, 1]], ports: vec![port] };
    edit(&mut service);
    Some(Body::Service(service))
}

fn rule(edit: impl FnOnce(&mut proto::HttpRule)) -> Option<Body> {
    let path = proto::PathMatch { path: Some(proto::path_match::Path::Prefix("/".into())) };
    let condition = proto::HttpMatch { path: Some(path), ..Default::default() };
    let mut rule = proto::HttpRule { matches: vec![condition], ..Default::default() };
    edit(&mut rule);
    Some(Body::HttpRoute(proto::HttpRoute {
        kind: proto::RouteKind::Http.into(),
        id: "shop/cart".into(),
        rules: vec![rule],
        ..Default::default()
    }))
}

fn path(path: proto::path_match::Path) -> Option<Body> {
    rule(|r| r.matches[0].path = Some(proto::PathMatch { path: Some(path) }))
}

fn filter(filter: proto::filter::Filter) -> Option<Body> {
    rule(|r| r.filters.push(proto::Filter { filter: Some(filter) }))
}

fn listener(edit: impl FnOnce(&mut proto::Listener)) -> Option<Body> {
    let mut listener = proto::Listener {
        name: "a".into(),
        port: 80,
        protocol: proto::ListenerProtocol::Http.into(),
        ..Default::default()
    };
    edit(&mut listener);
    Some(Body::Gateway(proto::Gateway { id: "shop/front".into(), listeners: vec![listener], ..Default::default() }))
}

/// A pod with one probe, broken.
fn probed(edit: impl FnOnce(&mut proto::Probe)) -> Option<Body> {
    let mut probe = proto::Probe { port: 80, ask: http_probe("/") };
    edit(&mut probe);
    Some(Body::Workload(proto::Workload {
        id: "shop/a".into(),
        identity: "spiffe://td/ns/shop/sa/a".into(),
        enrolment: proto::Enrolment::Strict.into(),
        probes: vec![probe],
        ..Default::default()
    }))
}

fn http_probe(target: &str) -> Option<proto::probe::Ask> {
    Some(proto::probe::Ask::Http(proto::HttpProbe { target: target.into(), ..Default::default() }))
}

#[test]
fn each_broken_resource_is_refused_with_its_field_and_reason() {
    use proto::{filter::Filter as F, path_match::Path as P};
    let (cart, route, front) = ("Service/shop/cart", "HTTPRoute/shop/cart", "Gateway/shop/front");
    let cases: Vec<(&str, Option<Body>, &str)> = vec![
        (
            "nonsense",
            service(|_| {}),
            "nonsense: id: \"nonsense\" is not a resource id (`settings`, `roots` or KIND/NAMESPACE/NAME)",
        ),
        (cart, None, "Service/shop/cart: body: is missing or of a kind that this proxy does not know"),
        (
            "Service/shop/other",
            service(|_| {}),
            "Service/shop/other: id: does not name its body, which is Service/shop/cart",
        ),
        ("Pod/shop/cart", service(|_| {}), "Pod/shop/cart: id: does not name its body, which is Service/shop/cart"),
        (cart, service(|s| s.id = "cart".into()), "Service/shop/cart: id: \"cart\" is not of the form namespace/name"),
        (
            cart,
            service(|s| s.addresses.push(vec![1, 2, 3])),
            "Service/shop/cart: addresses[1]: an address has 4 or 16 bytes, not 3",
        ),
        (
            cart,
            service(|s| s.addresses = vec![vec![0; 4]; LIST_MAX + 1]),
            "Service/shop/cart: addresses: has 16385 items, more than 16384",
        ),
        (cart, service(|s| s.ports[0].number = 0), "Service/shop/cart: ports[0].number: 0 is not a port (1 to 65535)"),
        (
            cart,
            service(|s| s.ports[0].number = 65536),
            "Service/shop/cart: ports[0].number: 65536 is not a port (1 to 65535)",
        ),
        (
            cart,
            service(|s| s.ports[0].protocol = 0),
            "Service/shop/cart: ports[0].protocol: 0 is not a value of this enum",
        ),
        (
            cart,
            service(|s| s.ports[0].protocol = 99),
            "Service/shop/cart: ports[0].protocol: 99 is not a value of this enum",
        ),
        (
            cart,
            service(|s| s.ports[0].name = "x".repeat(TEXT_MAX + 1)),
            "Service/shop/cart: ports[0].name: is 8193 bytes long, more than 8192",
        ),
        (
            "Pod/shop/a",
            Some(Body::Workload(proto::Workload {
                id: "shop/a".into(),
                identity: "spiffe://td/x".into(),
                ..Default::default()
            })),
            "Pod/shop/a: identity: \"spiffe://td/x\" is not of the form spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT",
        ),
        ("Pod/shop/a", probed(|p| p.port = 0), "Pod/shop/a: probes[0].port: 0 is not a port (1 to 65535)"),
        ("Pod/shop/a", probed(|p| p.ask = None), "Pod/shop/a: probes[0].ask: is missing"),
        (
            "Pod/shop/a",
            probed(|p| p.ask = http_probe("ready")),
            "Pod/shop/a: probes[0].http.target: \"ready\" is not a path of a request",
        ),
        (
            "Pod/shop/a",
            probed(|p| p.ask = http_probe("/ready#x")),
            "Pod/shop/a: probes[0].http.target: \"/ready#x\" is not a path of a request",
        ),
        (
            "Pod/shop/a",
            probed(|p| p.ask = http_probe("/ready HTTP/1.1\r\n")),
            "Pod/shop/a: probes[0].http.target: \"/ready HTTP/1.1\\r\\n\" is not a path of a request",
        ),
        (
            "settings",
            Some(Body::Settings(proto::MeshSettings {
                name: "m".into(),
                trust_domain: "TD".into(),
                ..Default::default()
            })),
            "settings: trust_domain: trust domain \"TD\" must be 1 to 255 lower case letters, digits, '.', '-' or '_'",
        ),
        (
            "settings",
            Some(Body::Settings(proto::MeshSettings {
                name: "m".into(),
                trust_domain: "td".into(),
                mode: 1,
                svid_lifetime_ns: 5,
                ..Default::default()
            })),
            "settings: svid_lifetime_ns: 5ns is not between 1s and 315360000s",
        ),
        ("roots", Some(Body::Roots(proto::Roots::default())), "roots: certificates: is empty"),
        (
            "roots",
            Some(Body::Roots(proto::Roots { revision: 1, certificates: vec![vec![1], vec![]] })),
            "roots: certificates[1]: is empty",
        ),
        (
            "Secret/shop/tls",
            Some(Body::Certificate(proto::Certificate { id: "shop/tls".into(), ..Default::default() })),
            "Secret/shop/tls: chain: is empty",
        ),
        (
            "Secret/shop/tls",
            Some(Body::Certificate(proto::Certificate { id: "shop/tls".into(), chain: vec![vec![1]], key: vec![] })),
            "Secret/shop/tls: key: is empty",
        ),
        (
            front,
            listener(|l| l.protocol = proto::ListenerProtocol::Https.into()),
            "Gateway/shop/front: listeners[0].certificates: is empty",
        ),
        (
            front,
            listener(|l| l.certificates.push("shop/tls".into())),
            "Gateway/shop/front: listeners[0].certificates: a listener that does not terminate TLS has none",
        ),
        (
            front,
            listener(|l| l.hostname = "*.*.x".into()),
            "Gateway/shop/front: listeners[0].hostname: \"*.*.x\" is not a lower case host name or *.HOST",
        ),
        (route, rule(|r| r.matches.clear()), "HTTPRoute/shop/cart: rules[0].matches: is empty"),
        (route, rule(|r| r.matches[0].path = None), "HTTPRoute/shop/cart: rules[0].matches[0].path: is missing"),
        (
            route,
            path(P::Exact("cart".into())),
            "HTTPRoute/shop/cart: rules[0].matches[0].path.exact: \"cart\" does not begin with /",
        ),
        (
            route,
            path(P::Prefix("/a/".into())),
            "HTTPRoute/shop/cart: rules[0].matches[0].path.prefix: \"/a/\" ends with /",
        ),
        (
            route,
            path(P::Regex("(".into())),
            "HTTPRoute/shop/cart: rules[0].matches[0].path.regex: error: unclosed group",
        ),
        (
            route,
            path(P::Regex("(a{1000}){1000}".into())),
            "HTTPRoute/shop/cart: rules[0].matches[0].path.regex: Compiled regex exceeds size limit of 65536 bytes.",
        ),
        (
            route,
            rule(|r| r.matches[0].method = "G T".into()),
            "HTTPRoute/shop/cart: rules[0].matches[0].method: \"G T\" is not a method",
        ),
        (
            route,
            rule(|r| r.matches[0].headers.push(proto::HeaderMatch { name: "a b".into(), value: None })),
            "HTTPRoute/shop/cart: rules[0].matches[0].headers[0].name: \"a b\" is not a header name",
        ),
        (
            route,
            rule(|r| r.backends.push(proto::HttpBackend { weight: 2_000_000, ..Default::default() })),
            "HTTPRoute/shop/cart: rules[0].backends[0].weight: 2000000 is not between 0 and 1000000",
        ),
        (
            route,
            rule(|r| r.retry = Some(proto::Retry { codes: vec![500, 200], ..Default::default() })),
            "HTTPRoute/shop/cart: rules[0].retry.codes[1]: 200 is not between 400 and 599",
        ),
        (
            route,
            rule(|r| r.request_timeout_ns = Some(u64::MAX)),
            "HTTPRoute/shop/cart: rules[0].request_timeout_ns: 18446744073.709551615s is not between 0ns and 315360000s",
        ),
        (
            route,
            rule(|r| r.filters.push(proto::Filter { filter: None })),
            "HTTPRoute/shop/cart: rules[0].filters[0].filter: is missing",
        ),
        (
            route,
            filter(F::Redirect(proto::Redirect { status: 200, ..Default::default() })),
            "HTTPRoute/shop/cart: rules[0].filters[0].redirect.status: 200 is not one of 301, 302, 303, 307, 308",
        ),
        (
            route,
            filter(F::Redirect(proto::Redirect { status: 301, scheme: 9, ..Default::default() })),
            "HTTPRoute/shop/cart: rules[0].filters[0].redirect.scheme: 9 is not a value of this enum",
        ),
        (
            route,
            filter(F::Mirror(proto::Mirror { denominator: 0, ..Default::default() })),
            "HTTPRoute/shop/cart: rules[0].filters[0].mirror.denominator: 0 is not between 1 and 4294967295",
        ),
        (
            route,
            filter(F::RequestHeaders(proto::HeaderEdit {
                set: vec![proto::Header { name: "a".into(), value: b"x\n".to_vec() }],
                ..Default::default()
            })),
            "HTTPRoute/shop/cart: rules[0].filters[0].request_headers.set[0].value: is not a header value",
        ),
        (
            "TCPRoute/shop/db",
            Some(Body::StreamRoute(proto::StreamRoute {
                kind: proto::RouteKind::Http.into(),
                id: "shop/db".into(),
                ..Default::default()
            })),
            "TCPRoute/shop/db: kind: HTTPRoute does not belong into this message",
        ),
        (
            "XBackendTrafficPolicy/shop/b",
            Some(Body::TrafficPolicy(proto::TrafficPolicy {
                id: "shop/b".into(),
                retry_budget: Some(proto::RetryBudget { percent: 101, ..Default::default() }),
                ..Default::default()
            })),
            "XBackendTrafficPolicy/shop/b: retry_budget.percent: 101 is not between 0 and 100",
        ),
        (
            route,
            rule(|_| {}).map(|b| match b {
                Body::HttpRoute(mut r) => {
                    r.attachments.push(proto::Attachment {
                        to: Some(proto::attachment::To::Service(proto::ServiceAttachment {
                            service: "shop/cart".into(),
                            ports: vec![],
                            ..Default::default()
                        })),
                    });
                    Body::HttpRoute(r)
                }
                other => other,
            }),
            "HTTPRoute/shop/cart: attachments[0].service.ports: is empty",
        ),
    ];
    let mut failures = Vec::new();
    for (id, body, expected) in cases {
        let found = said(id, body);
        if found != expected {
            failures.push(format!("expected {expected}\n   found {found}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_delta_is_refused_whole_and_says_all_that_is_wrong() {
    let resource = |id: &str, body| proto::Resource { id: id.into(), version: 1, body };
    let delta = proto::Delta {
        nonce: 1,
        upserts: vec![
            resource("Service/shop/cart", service(|_| {})),
            resource("Service/shop/cart", service(|_| {})),
            resource("Service/shop/cart", service(|s| s.ports[0].number = 0)),
        ],
        removes: vec!["what".into(), "Service/shop/cart".into(), "Pod/shop/x".into()],
        synced: false,
    };
    let rejected: Vec<String> = decode_delta(delta).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(
        rejected,
        [
            "Service/shop/cart: id: occurs twice in one delta",
            "Service/shop/cart: ports[0].number: 0 is not a port (1 to 65535)",
            "what: removes: \"what\" is not a resource id (`settings`, `roots` or KIND/NAMESPACE/NAME)",
            "Service/shop/cart: id: occurs twice in one delta",
        ]
    );
}
