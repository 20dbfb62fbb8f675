//! Any resource that the planner may make. It must not make what a proxy refuses; `broken` does.

use http::{HeaderName, HeaderValue, Method, StatusCode};
use mesh_core::{
    identity::{Identity, TrustDomain},
    mesh::*,
    name::{NsName, Text},
    node::Resource,
};
use proptest::{collection::vec, option, prelude::*, sample::select};
use std::{net::IpAddr, sync::Arc, time::Duration};

pub(super) fn resource() -> impl Strategy<Value = Resource> {
    prop_oneof![
        settings().prop_map(|r| Resource::Settings(Arc::new(r))),
        roots().prop_map(|r| Resource::Roots(Arc::new(r))),
        workload().prop_map(|r| Resource::Workload(Arc::new(r))),
        service().prop_map(|r| Resource::Service(Arc::new(r))),
        endpoint_slice().prop_map(|r| Resource::EndpointSlice(Arc::new(r))),
        certificate().prop_map(|r| Resource::Certificate(Arc::new(r))),
        gateway().prop_map(|r| Resource::Gateway(Arc::new(r))),
        http_route().prop_map(|r| Resource::HttpRoute(Arc::new(r))),
        stream_route().prop_map(|r| Resource::StreamRoute(Arc::new(r))),
        policy().prop_map(|r| Resource::TrafficPolicy(Arc::new(r))),
    ]
}

fn word() -> impl Strategy<Value = Text> {
    "[a-z][a-z0-9-]{0,7}".prop_map(Text::from)
}

fn text() -> impl Strategy<Value = Text> {
    "\\PC{0,12}".prop_map(Text::from)
}

fn full_text() -> impl Strategy<Value = Text> {
    "\\PC{1,12}".prop_map(Text::from)
}

fn name() -> impl Strategy<Value = NsName> {
    (word(), word()).prop_map(|(namespace, name)| NsName::new(namespace, name))
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
}

fn port() -> impl Strategy<Value = u16> {
    1..=u16::MAX
}

fn time() -> impl Strategy<Value = Duration> {
    (1_000_000u64..100_000_000_000_000).prop_map(Duration::from_nanos)
}

fn mode() -> impl Strategy<Value = Mode> {
    select(vec![Mode::Strict, Mode::Permissive])
}

fn settings() -> impl Strategy<Value = MeshSettings> {
    let tracing = ("[a-z]{1,8}", port(), 0u32..=1_000_000).prop_map(|(host, port, sampling_ppm)| Tracing {
        endpoint: format!("http://{host}:{port}").into(),
        sampling_ppm,
    });
    let limits =
        (1u32.., 1u32.., 1u32.., any::<u32>(), time(), time(), time()).prop_map(|(a, b, c, d, e, f, g)| Limits {
            header_bytes: a,
            streams_per_connection: b,
            connections_per_pod: c,
            replay_bytes: d,
            handshake: e,
            idle: f,
            drain: g,
        });
    let log = select(vec![AccessLog::Off, AccessLog::Errors, AccessLog::All]);
    let lifetime = (1u64..100_000).prop_map(Duration::from_secs);
    (word(), "[a-z0-9._-]{1,20}", option::of(mode()), lifetime, option::of(tracing), log, limits).prop_map(
        |(name, domain, mode, svid_lifetime, tracing, access_log, limits)| MeshSettings {
            name,
            trust_domain: TrustDomain::new(&domain).unwrap(),
            mode,
            svid_lifetime,
            tracing,
            access_log,
            limits,
        },
    )
}

fn workload() -> impl Strategy<Value = Workload> {
    let enrolment = prop_oneof![
        Just(Enrolment::None),
        Just(Enrolment::Joining),
        mode().prop_map(Enrolment::Meshed),
        Just(Enrolment::Leaving)
    ];
    let whose = (word(), word(), text());
    (name(), text(), text(), vec(address(), 0..3), whose, enrolment, vec(probe(), 0..4)).prop_map(
        |(id, uid, node, addresses, (namespace, account, owner), enrolment, probes)| Workload {
            identity: Identity::new(TrustDomain::new("td").unwrap(), &namespace, &account).unwrap(),
            id,
            uid: Uid::from(&*uid),
            node,
            addresses,
            enrolment,
            owner,
            probes: probes.into(),
        },
    )
}

fn probe() -> impl Strategy<Value = Probe> {
    let header = (header_name(), "[ -~]{0,9}").prop_map(|(name, value)| (name, value.trim().parse().unwrap()));
    let http = (any::<bool>(), "/[a-z/%]{0,9}([?][a-z=&]{0,9})?", vec(header, 0..3))
        .prop_map(|(tls, target, headers)| Ask::Http(HttpProbe { tls, target: target.parse().unwrap(), headers }));
    let ask = prop_oneof![http, Just(Ask::Tcp), text().prop_map(|service| Ask::Grpc { service })];
    (port(), ask).prop_map(|(port, ask)| Probe { port, ask })
}

fn service() -> impl Strategy<Value = Service> {
    use AppProtocol::*;
    let protocol = select(vec![Unspecified, Tcp, Http, H2c, Grpc, WebSocket, Tls]);
    let port = (port(), text(), protocol).prop_map(|(number, name, protocol)| ServicePort { number, name, protocol });
    (name(), vec(address(), 0..3), vec(port, 0..4)).prop_map(|(id, addresses, ports)| Service { id, addresses, ports })
}

fn endpoint_slice() -> impl Strategy<Value = EndpointSlice> {
    let mapping = (port(), port()).prop_map(|(service_port, target_port)| PortMapping { service_port, target_port });
    let health = select(vec![EndpointHealth::Ready, EndpointHealth::Fallback, EndpointHealth::NotReady]);
    let endpoint = (address(), option::of(name()), health, text(), text())
        .prop_map(|(address, workload, health, zone, node)| Endpoint { address, workload, health, zone, node });
    (name(), name(), vec(mapping, 0..3), vec(endpoint, 0..5))
        .prop_map(|(id, service, ports, endpoints)| EndpointSlice { id, service, ports, endpoints })
}

fn roots() -> impl Strategy<Value = Roots> {
    (any::<u64>(), vec(vec(any::<u8>(), 1..40).prop_map(Arc::from), 1..4))
        .prop_map(|(revision, certificates)| Roots { revision, certificates })
}

fn certificate() -> impl Strategy<Value = Certificate> {
    let der = || vec(any::<u8>(), 1..40);
    (name(), vec(der().prop_map(Arc::from), 1..3), der()).prop_map(|(id, chain, key)| Certificate {
        id,
        chain,
        key: PrivateKey::new(key),
    })
}

fn host() -> impl Strategy<Value = HostPattern> {
    let host = || "[a-z0-9]{1,5}(\\.[a-z0-9-]{1,5}){0,2}".prop_map(Text::from);
    prop_oneof![host().prop_map(HostPattern::Exact), host().prop_map(HostPattern::Wildcard)]
}

fn gateway() -> impl Strategy<Value = Gateway> {
    let protocol = prop_oneof![
        Just(ListenerProtocol::Http),
        vec(name(), 1..3).prop_map(ListenerProtocol::Https),
        Just(ListenerProtocol::TlsPassthrough),
        vec(name(), 1..3).prop_map(ListenerProtocol::TlsTerminate),
        Just(ListenerProtocol::Tcp),
    ];
    let listener = (port(), option::of(host()), protocol);
    (name(), vec(address(), 0..3), vec(listener, 0..4)).prop_map(|(id, addresses, listeners)| Gateway {
        id,
        addresses,
        // Names are unique in a Gateway.
        listeners: (0..)
            .zip(listeners)
            .map(|(i, (port, hostname, protocol))| Listener { name: format!("l{i}").into(), port, hostname, protocol })
            .collect(),
    })
}

fn attachment() -> impl Strategy<Value = Attachment> {
    let scope = prop_oneof![Just(Scope::Producer), word().prop_map(Scope::Consumer)];
    prop_oneof![
        (name(), vec(port(), 1..3), scope, vec(host(), 0..3)).prop_map(|(service, ports, scope, hostnames)| {
            Attachment::Service { service, ports, scope, hostnames }
        }),
        (name(), word(), vec(host(), 0..3)).prop_map(|(gateway, listener, hostnames)| Attachment::Listener {
            gateway,
            listener,
            hostnames
        }),
    ]
}

fn target() -> impl Strategy<Value = BackendTarget> {
    prop_oneof![
        (name(), port()).prop_map(|(service, port)| BackendTarget::Service { service, port }),
        Just(BackendTarget::Broken)
    ]
}

fn stream_route() -> impl Strategy<Value = StreamRoute> {
    let kind = select(vec![RouteKind::Tcp, RouteKind::Tls]);
    let backends = vec((0u32..=1_000_000, target()), 0..3);
    (kind, name(), any::<i64>(), vec(attachment(), 0..3), backends).prop_map(
        |(kind, name, created, attachments, backends)| StreamRoute {
            id: RouteId { kind, name },
            created,
            attachments,
            backends,
        },
    )
}

fn http_route() -> impl Strategy<Value = HttpRoute> {
    let kind = select(vec![RouteKind::Http, RouteKind::Grpc]);
    (kind, name(), any::<i64>(), vec(attachment(), 0..3), vec(rule().prop_map(Arc::new), 0..3)).prop_map(
        |(kind, name, created, attachments, rules)| HttpRoute {
            id: RouteId { kind, name },
            created,
            attachments,
            rules,
        },
    )
}

fn rule() -> impl Strategy<Value = HttpRule> {
    let backend = (0u32..=1_000_000, target(), vec(filter(), 0..2)).prop_map(|(weight, target, filters)| HttpBackend {
        weight,
        target,
        filters,
    });
    let retry = (0u32..100, vec(400u16..600, 0..4), option::of(time())).prop_map(|(attempts, codes, backoff)| Retry {
        attempts,
        codes,
        backoff,
    });
    let rule = (option::of(full_text()), vec(http_match(), 1..3), vec(filter(), 0..3), vec(backend, 0..3));
    (rule, option::of(time()), option::of(time()), option::of(retry)).prop_map(
        |((name, matches, filters, backends), request_timeout, backend_timeout, retry)| HttpRule {
            name,
            matches,
            filters,
            backends,
            request_timeout,
            backend_timeout,
            retry,
        },
    )
}

fn pattern() -> impl Strategy<Value = Pattern> {
    "[a-z]{1,4}[.][*+]|\\([a-z]\\|[0-9]\\)".prop_map(|source| Pattern::new(&source).unwrap())
}

fn text_match() -> impl Strategy<Value = TextMatch> {
    prop_oneof![text().prop_map(TextMatch::Exact), pattern().prop_map(TextMatch::Regex)]
}

fn header_name() -> impl Strategy<Value = HeaderName> {
    "[a-z][a-z0-9-]{0,9}".prop_map(|name| name.parse().unwrap())
}

fn http_match() -> impl Strategy<Value = HttpMatch> {
    let grpc = (option::of(text_match()), option::of(text_match()));
    let path = prop_oneof![
        "/[a-z/%]{0,9}".prop_map(|p| PathMatch::Exact(p.into())),
        "/([a-z]{1,3}(/[a-z]{1,3}){0,2})?".prop_map(|p| PathMatch::Prefix(p.into())),
        pattern().prop_map(PathMatch::Regex),
        grpc.prop_map(|(service, method)| PathMatch::Grpc { service, method }),
    ];
    let method = option::of(select(vec![Method::GET, Method::POST, Method::from_bytes(b"PURGE").unwrap()]));
    let header = (header_name(), text_match()).prop_map(|(name, value)| HeaderMatch { name, value });
    let query = (full_text(), text_match()).prop_map(|(name, value)| QueryMatch { name, value });
    (path, method, vec(header, 0..3), vec(query, 0..3)).prop_map(|(path, method, headers, query)| HttpMatch {
        path,
        method,
        headers,
        query,
    })
}

fn path_edit() -> impl Strategy<Value = PathEdit> {
    prop_oneof![text().prop_map(PathEdit::Full), text().prop_map(PathEdit::Prefix)]
}

fn filter() -> impl Strategy<Value = Filter> {
    let value = || "[ -~]{0,9}".prop_map(|v| HeaderValue::from_str(&v).unwrap());
    let headers = move || vec((header_name(), value()), 0..3);
    let edit = move || {
        (headers(), headers(), vec(header_name(), 0..3)).prop_map(|(set, add, remove)| HeaderEdit { set, add, remove })
    };
    let scheme = option::of(select(vec![Scheme::Http, Scheme::Https]));
    let status = select(vec![301u16, 302, 303, 307, 308]).prop_map(|s| StatusCode::from_u16(s).unwrap());
    let redirect = (scheme, option::of(word()), option::of(path_edit()), option::of(port()), status)
        .prop_map(|(scheme, hostname, path, port, status)| Redirect { scheme, hostname, path, port, status });
    let rewrite = (option::of(word()), option::of(path_edit())).prop_map(|(hostname, path)| Rewrite { hostname, path });
    let mirror = (target(), 0u32..100, 100u32..).prop_map(|(target, numerator, denominator)| Mirror {
        target,
        numerator,
        denominator,
    });
    let words = || vec(full_text(), 0..3);
    let cors = (words(), any::<bool>(), words(), words(), words(), time()).prop_map(
        |(allow_origins, allow_credentials, allow_methods, allow_headers, expose_headers, max_age)| Cors {
            allow_origins,
            allow_credentials,
            allow_methods,
            allow_headers,
            expose_headers,
            max_age,
        },
    );
    prop_oneof![
        edit().prop_map(Filter::RequestHeaders),
        edit().prop_map(Filter::ResponseHeaders),
        redirect.prop_map(Filter::Redirect),
        rewrite.prop_map(Filter::Rewrite),
        mirror.prop_map(Filter::Mirror),
        cors.prop_map(Filter::Cors),
    ]
}

fn policy() -> impl Strategy<Value = TrafficPolicy> {
    let budget =
        (0u8..=100, time(), any::<u32>(), time()).prop_map(|(percent, interval, min_retries, min_interval)| {
            RetryBudget { percent, interval, min_retries, min_interval }
        });
    (name(), vec(name(), 0..3), option::of(budget)).prop_map(|(id, targets, retry_budget)| TrafficPolicy {
        id,
        targets,
        retry_budget,
    })
}
