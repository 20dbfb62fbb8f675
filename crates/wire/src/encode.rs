//! Core nouns to protobuf. Total: every resource has a message. It must not check anything; the receiver does.

use crate::{
    proto::{self, resource::Body},
    version,
};
use mesh_core::{
    mesh::*,
    name::{NsName, Text},
    node::Resource,
};
use std::{net::IpAddr, time::Duration};

/// The message of a resource, with its id and version.
pub fn encode(resource: &Resource) -> proto::Resource {
    let body = match resource {
        Resource::Settings(r) => Body::Settings(settings(r)),
        Resource::Roots(r) => Body::Roots(roots(r)),
        Resource::Workload(r) => Body::Workload(workload(r)),
        Resource::Service(r) => Body::Service(service(r)),
        Resource::EndpointSlice(r) => Body::EndpointSlice(endpoint_slice(r)),
        Resource::Certificate(r) => Body::Certificate(certificate(r)),
        Resource::Gateway(r) => Body::Gateway(gateway(r)),
        Resource::HttpRoute(r) => Body::HttpRoute(http_route(r)),
        Resource::StreamRoute(r) => Body::StreamRoute(stream_route(r)),
        Resource::TrafficPolicy(r) => Body::TrafficPolicy(traffic_policy(r)),
    };
    proto::Resource { id: resource.id().to_string(), version: version::of(&body), body: Some(body) }
}

fn settings(s: &MeshSettings) -> proto::MeshSettings {
    proto::MeshSettings {
        name: text(&s.name),
        trust_domain: s.trust_domain.as_str().into(),
        mode: match s.mode {
            Some(Mode::Strict) => proto::Mode::Strict,
            Some(Mode::Permissive) => proto::Mode::Permissive,
            None => proto::Mode::Off,
        }
        .into(),
        svid_lifetime_ns: nanos(s.svid_lifetime),
        tracing: s
            .tracing
            .as_ref()
            .map(|t| proto::Tracing { endpoint: text(&t.endpoint), sampling_ppm: t.sampling_ppm }),
        access_log: match s.access_log {
            AccessLog::Off => proto::AccessLog::Off,
            AccessLog::Errors => proto::AccessLog::Errors,
            AccessLog::All => proto::AccessLog::All,
        }
        .into(),
        limits: Some(proto::Limits {
            header_bytes: s.limits.header_bytes,
            streams_per_connection: s.limits.streams_per_connection,
            connections_per_pod: s.limits.connections_per_pod,
            replay_bytes: s.limits.replay_bytes,
            handshake_ns: nanos(s.limits.handshake),
            idle_ns: nanos(s.limits.idle),
            drain_ns: nanos(s.limits.drain),
        }),
    }
}

fn workload(w: &Workload) -> proto::Workload {
    proto::Workload {
        id: w.id.to_string(),
        uid: w.uid.to_string(),
        node: text(&w.node),
        addresses: w.addresses.iter().map(address).collect(),
        identity: w.identity.to_string(),
        enrolment: match w.enrolment {
            Enrolment::None => proto::Enrolment::None,
            Enrolment::Joining => proto::Enrolment::Joining,
            Enrolment::Leaving => proto::Enrolment::Leaving,
            Enrolment::Meshed(Mode::Strict) => proto::Enrolment::Strict,
            Enrolment::Meshed(Mode::Permissive) => proto::Enrolment::Permissive,
        }
        .into(),
        owner: text(&w.owner),
        probes: w.probes.iter().map(probe).collect(),
    }
}

fn probe(p: &Probe) -> proto::Probe {
    use proto::probe::Ask as Out;
    let ask = match &p.ask {
        Ask::Http(h) => Out::Http(proto::HttpProbe {
            tls: h.tls,
            target: h.target.as_str().into(),
            headers: h.headers.iter().map(header).collect(),
        }),
        Ask::Tcp => Out::Tcp(proto::TcpProbe {}),
        Ask::Grpc { service } => Out::Grpc(proto::GrpcProbe { service: text(service) }),
    };
    proto::Probe { port: p.port.into(), ask: Some(ask) }
}

fn service(s: &Service) -> proto::Service {
    proto::Service {
        id: s.id.to_string(),
        addresses: s.addresses.iter().map(address).collect(),
        ports: s
            .ports
            .iter()
            .map(|p| proto::ServicePort {
                number: p.number.into(),
                name: text(&p.name),
                protocol: match p.protocol {
                    AppProtocol::Unspecified => proto::AppProtocol::None,
                    AppProtocol::Tcp => proto::AppProtocol::Tcp,
                    AppProtocol::Http => proto::AppProtocol::Http,
                    AppProtocol::H2c => proto::AppProtocol::H2c,
                    AppProtocol::Grpc => proto::AppProtocol::Grpc,
                    AppProtocol::WebSocket => proto::AppProtocol::WebSocket,
                    AppProtocol::Tls => proto::AppProtocol::Tls,
                }
                .into(),
            })
            .collect(),
    }
}

fn endpoint_slice(s: &EndpointSlice) -> proto::EndpointSlice {
    proto::EndpointSlice {
        id: s.id.to_string(),
        service: s.service.to_string(),
        ports: s
            .ports
            .iter()
            .map(|p| proto::PortMapping { service_port: p.service_port.into(), target_port: p.target_port.into() })
            .collect(),
        endpoints: s
            .endpoints
            .iter()
            .map(|e| proto::Endpoint {
                address: address(&e.address),
                workload: e.workload.as_ref().map(NsName::to_string).unwrap_or_default(),
                health: match e.health {
                    EndpointHealth::Ready => proto::EndpointHealth::Ready,
                    EndpointHealth::Fallback => proto::EndpointHealth::Fallback,
                    EndpointHealth::NotReady => proto::EndpointHealth::NotReady,
                }
                .into(),
                zone: text(&e.zone),
                node: text(&e.node),
            })
            .collect(),
    }
}

fn roots(r: &Roots) -> proto::Roots {
    proto::Roots { revision: r.revision, certificates: r.certificates.iter().map(|der| der.to_vec()).collect() }
}

fn certificate(c: &Certificate) -> proto::Certificate {
    proto::Certificate {
        id: c.id.to_string(),
        chain: c.chain.iter().map(|der| der.to_vec()).collect(),
        key: c.key.secret_der().to_vec(),
    }
}

fn gateway(g: &Gateway) -> proto::Gateway {
    let listener = |l: &Listener| {
        let (protocol, certificates) = match &l.protocol {
            ListenerProtocol::Http => (proto::ListenerProtocol::Http, &[][..]),
            ListenerProtocol::Https(c) => (proto::ListenerProtocol::Https, &c[..]),
            ListenerProtocol::TlsPassthrough => (proto::ListenerProtocol::TlsPassthrough, &[][..]),
            ListenerProtocol::TlsTerminate(c) => (proto::ListenerProtocol::TlsTerminate, &c[..]),
            ListenerProtocol::Tcp => (proto::ListenerProtocol::Tcp, &[][..]),
        };
        proto::Listener {
            name: text(&l.name),
            port: l.port.into(),
            hostname: l.hostname.as_ref().map(HostPattern::to_string).unwrap_or_default(),
            protocol: protocol.into(),
            certificates: certificates.iter().map(NsName::to_string).collect(),
        }
    };
    proto::Gateway {
        id: g.id.to_string(),
        addresses: g.addresses.iter().map(address).collect(),
        listeners: g.listeners.iter().map(listener).collect(),
    }
}

fn http_route(r: &HttpRoute) -> proto::HttpRoute {
    proto::HttpRoute {
        kind: route_kind(r.id.kind).into(),
        id: r.id.name.to_string(),
        created: r.created,
        attachments: r.attachments.iter().map(attachment).collect(),
        rules: r.rules.iter().map(|rule| http_rule(rule)).collect(),
    }
}

fn stream_route(r: &StreamRoute) -> proto::StreamRoute {
    proto::StreamRoute {
        kind: route_kind(r.id.kind).into(),
        id: r.id.name.to_string(),
        created: r.created,
        attachments: r.attachments.iter().map(attachment).collect(),
        backends: r
            .backends
            .iter()
            .map(|(weight, to)| proto::StreamBackend { weight: *weight, service: target(to) })
            .collect(),
    }
}

fn route_kind(kind: RouteKind) -> proto::RouteKind {
    match kind {
        RouteKind::Grpc => proto::RouteKind::Grpc,
        RouteKind::Http => proto::RouteKind::Http,
        RouteKind::Tls => proto::RouteKind::Tls,
        RouteKind::Tcp => proto::RouteKind::Tcp,
    }
}

fn attachment(a: &Attachment) -> proto::Attachment {
    use proto::attachment::To;
    let to = match a {
        Attachment::Service { service, ports, scope, hostnames } => To::Service(proto::ServiceAttachment {
            service: service.to_string(),
            ports: ports.iter().map(|p| u32::from(*p)).collect(),
            consumer: match scope {
                Scope::Producer => String::new(),
                Scope::Consumer(namespace) => text(namespace),
            },
            hostnames: hostnames.iter().map(HostPattern::to_string).collect(),
        }),
        Attachment::Listener { gateway, listener, hostnames } => To::Listener(proto::ListenerAttachment {
            gateway: gateway.to_string(),
            listener: text(listener),
            hostnames: hostnames.iter().map(HostPattern::to_string).collect(),
        }),
    };
    proto::Attachment { to: Some(to) }
}

fn http_rule(r: &HttpRule) -> proto::HttpRule {
    proto::HttpRule {
        name: r.name.as_ref().map(text),
        matches: r.matches.iter().map(http_match).collect(),
        filters: r.filters.iter().map(filter).collect(),
        backends: r
            .backends
            .iter()
            .map(|b| proto::HttpBackend {
                weight: b.weight,
                service: target(&b.target),
                filters: b.filters.iter().map(filter).collect(),
            })
            .collect(),
        request_timeout_ns: r.request_timeout.map(nanos),
        backend_timeout_ns: r.backend_timeout.map(nanos),
        retry: r.retry.as_ref().map(|r| proto::Retry {
            attempts: r.attempts,
            codes: r.codes.iter().map(|c| u32::from(*c)).collect(),
            backoff_ns: r.backoff.map(nanos),
        }),
    }
}

fn http_match(m: &HttpMatch) -> proto::HttpMatch {
    use proto::path_match::Path;
    let path = match &m.path {
        PathMatch::Exact(p) => Path::Exact(text(p)),
        PathMatch::Prefix(p) => Path::Prefix(text(p)),
        PathMatch::Regex(p) => Path::Regex(text(p.source())),
        PathMatch::Grpc { service, method } => Path::Grpc(proto::GrpcMatch {
            service: service.as_ref().map(text_match),
            method: method.as_ref().map(text_match),
        }),
    };
    proto::HttpMatch {
        path: Some(proto::PathMatch { path: Some(path) }),
        method: m.method.as_ref().map(|m| m.as_str().to_owned()).unwrap_or_default(),
        headers: m
            .headers
            .iter()
            .map(|h| proto::HeaderMatch { name: h.name.as_str().into(), value: Some(text_match(&h.value)) })
            .collect(),
        query: m
            .query
            .iter()
            .map(|q| proto::QueryMatch { name: text(&q.name), value: Some(text_match(&q.value)) })
            .collect(),
    }
}

fn text_match(m: &TextMatch) -> proto::TextMatch {
    use proto::text_match::Text;
    proto::TextMatch {
        text: Some(match m {
            TextMatch::Exact(t) => Text::Exact(text(t)),
            TextMatch::Regex(p) => Text::Regex(text(p.source())),
        }),
    }
}

fn target(t: &BackendTarget) -> Option<proto::ServiceTarget> {
    match t {
        BackendTarget::Service { service, port } => {
            Some(proto::ServiceTarget { service: service.to_string(), port: (*port).into() })
        }
        BackendTarget::Broken => None,
    }
}

fn filter(f: &Filter) -> proto::Filter {
    use proto::filter::Filter as F;
    let filter = match f {
        Filter::RequestHeaders(e) => F::RequestHeaders(header_edit(e)),
        Filter::ResponseHeaders(e) => F::ResponseHeaders(header_edit(e)),
        Filter::Redirect(r) => F::Redirect(proto::Redirect {
            scheme: match r.scheme {
                None => proto::Scheme::Unspecified,
                Some(Scheme::Http) => proto::Scheme::Http,
                Some(Scheme::Https) => proto::Scheme::Https,
            }
            .into(),
            hostname: r.hostname.as_ref().map(text),
            path: r.path.as_ref().map(path_edit),
            port: r.port.unwrap_or_default().into(),
            status: r.status.as_u16().into(),
        }),
        Filter::Rewrite(r) => {
            F::Rewrite(proto::Rewrite { hostname: r.hostname.as_ref().map(text), path: r.path.as_ref().map(path_edit) })
        }
        Filter::Mirror(m) => {
            F::Mirror(proto::Mirror { service: target(&m.target), numerator: m.numerator, denominator: m.denominator })
        }
        Filter::Cors(c) => F::Cors(proto::Cors {
            allow_origins: c.allow_origins.iter().map(text).collect(),
            allow_credentials: c.allow_credentials,
            allow_methods: c.allow_methods.iter().map(text).collect(),
            allow_headers: c.allow_headers.iter().map(text).collect(),
            expose_headers: c.expose_headers.iter().map(text).collect(),
            max_age_ns: nanos(c.max_age),
        }),
    };
    proto::Filter { filter: Some(filter) }
}

fn header_edit(e: &HeaderEdit) -> proto::HeaderEdit {
    proto::HeaderEdit {
        set: e.set.iter().map(header).collect(),
        add: e.add.iter().map(header).collect(),
        remove: e.remove.iter().map(|name| name.as_str().to_owned()).collect(),
    }
}

fn header((name, value): &(http::HeaderName, http::HeaderValue)) -> proto::Header {
    proto::Header { name: name.as_str().into(), value: value.as_bytes().to_vec() }
}

fn path_edit(e: &PathEdit) -> proto::PathEdit {
    use proto::path_edit::Edit;
    proto::PathEdit {
        edit: Some(match e {
            PathEdit::Full(p) => Edit::Full(text(p)),
            PathEdit::Prefix(p) => Edit::Prefix(text(p)),
        }),
    }
}

fn traffic_policy(p: &TrafficPolicy) -> proto::TrafficPolicy {
    proto::TrafficPolicy {
        id: p.id.to_string(),
        targets: p.targets.iter().map(NsName::to_string).collect(),
        retry_budget: p.retry_budget.map(|b| proto::RetryBudget {
            percent: b.percent.into(),
            interval_ns: nanos(b.interval),
            min_retries: b.min_retries,
            min_interval_ns: nanos(b.min_interval),
        }),
    }
}

fn text(t: &Text) -> String {
    t.as_str().into()
}

fn address(ip: &IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().into(),
        IpAddr::V6(ip) => ip.octets().into(),
    }
}

/// 584 years are enough for any time of ours; what is longer becomes that.
fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}
