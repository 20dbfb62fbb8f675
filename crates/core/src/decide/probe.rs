//! What a kubelet may say to a pod that takes no plaintext: exactly its probes, and what the application then gets: exactly what the pod's spec says. It must not send.
//!
//! A host's address proves little: what is translated to it on the way (a NodePort, a masqueraded pod) bears it too. So nothing that a caller
//! says reaches the application: a request that is a probe is made anew from the spec. An attacker can make the pod answer its own probes.

use crate::{
    fault::Fault,
    mesh::{Ask, HttpProbe, Workload},
    name::Text,
};
use http::{
    HeaderValue, Method, Request, Version,
    header::{self, HeaderMap},
    request::Parts,
};
use std::net::SocketAddr;

/// Path of a gRPC health check (gRPC Health Checking Protocol).
pub const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";

/// Longest user agent that is believed; a kubelet's are half as long.
const AGENT_MAX: usize = 64;

/// Proof that a connection from the pod's own host may ask what the pod's probes on one port ask, and nothing else.
/// Only [`super::admit_plaintext`] makes one.
#[derive(Clone, Debug)]
pub struct ProbePermit {
    destination: SocketAddr,
    asks: Vec<Ask>,
}

impl ProbePermit {
    /// The permit for a port of the workload; none if nothing probes it.
    pub(super) fn of(workload: &Workload, destination: SocketAddr) -> Option<Self> {
        let at_port = workload.probes.iter().filter(|p| p.port == destination.port());
        let asks: Vec<Ask> = at_port.map(|p| p.ask.clone()).collect();
        (!asks.is_empty()).then_some(Self { destination, asks })
    }

    /// The application.
    pub fn destination(&self) -> SocketAddr {
        self.destination
    }

    /// Whether a connection without a byte is a probe.
    pub fn takes_silence(&self) -> bool {
        self.asks.contains(&Ask::Tcp)
    }

    /// Whether requests over TLS (or without) are.
    pub fn takes_http(&self, tls: bool) -> bool {
        self.asks.iter().any(|a| matches!(a, Ask::Http(h) if h.tls == tls))
    }

    /// Whether gRPC health checks are.
    pub fn takes_grpc(&self) -> bool {
        self.asks.iter().any(|a| matches!(a, Ask::Grpc { .. }))
    }

    /// The request that the application gets for this one; its body must be empty, which the caller knows.
    pub fn http(&self, asked: &Parts, tls: bool) -> Result<Request<()>, Fault> {
        let probes = self.asks.iter().filter_map(|a| match a {
            Ask::Http(probe) if probe.tls == tls => Some(probe),
            _ => None,
        });
        let probe = probes.into_iter().find(|p| is_that(p, asked)).ok_or(Fault::PlaintextRefused)?;
        let mut request = Request::new(());
        *request.uri_mut() = probe.target.clone().into();
        let headers = request.headers_mut();
        for (name, value) in &probe.headers {
            headers.append(name, value.clone());
        }
        if !headers.contains_key(header::HOST) {
            headers.insert(header::HOST, text(&self.destination.to_string())?);
        }
        if !headers.contains_key(header::ACCEPT) {
            headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        }
        if !headers.contains_key(header::USER_AGENT) {
            headers.insert(header::USER_AGENT, agent(&asked.headers));
        }
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        Ok(request)
    }

    /// The health check that the application gets for this one, and its whole body. `body` is all that was sent.
    pub fn grpc(&self, asked: &Parts, body: &[u8]) -> Result<(Request<()>, Vec<u8>), Fault> {
        let is_grpc = |v: &HeaderValue| v.as_bytes().starts_with(b"application/grpc");
        let good = asked.method == Method::POST
            && asked.uri.path_and_query().is_some_and(|p| p == HEALTH_CHECK)
            && asked.headers.get(header::CONTENT_TYPE).is_some_and(is_grpc)
            && !asked.headers.contains_key("grpc-encoding");
        let wanted = self.asks.iter().find_map(|a| match a {
            Ask::Grpc { service } if health_check(service) == body => Some(health_check(service)),
            _ => None,
        });
        let (true, Some(wanted)) = (good, wanted) else { return Err(Fault::PlaintextRefused) };
        let uri = format!("http://{}{HEALTH_CHECK}", self.destination);
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = uri.try_into().map_err(|_| Fault::Internal)?;
        let headers = request.headers_mut();
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::USER_AGENT, agent(&asked.headers));
        Ok((request, wanted))
    }
}

/// Longest body of a health check that could be right: frame, field and the longest name.
pub fn health_check_max(permit: &ProbePermit) -> usize {
    let services = permit.asks.iter().filter_map(|a| match a {
        Ask::Grpc { service } => Some(health_check(service).len()),
        _ => None,
    });
    services.max().unwrap_or_default()
}

/// Whether a request head is exactly this probe's. A body, an upgrade or another message behind it is none of its business.
fn is_that(probe: &HttpProbe, asked: &Parts) -> bool {
    let plain = matches!(asked.version, Version::HTTP_10 | Version::HTTP_11)
        && asked.method == Method::GET
        && asked.uri.authority().is_none()
        && asked.uri.path_and_query() == Some(&probe.target);
    let more = [header::TRANSFER_ENCODING, header::UPGRADE, header::EXPECT, header::TRAILER];
    let length = asked.headers.get_all(header::CONTENT_LENGTH);
    let is_there = |(name, value)| asked.headers.get_all::<&header::HeaderName>(name).iter().any(|v| v == value);
    plain
        && !more.iter().any(|name| asked.headers.contains_key(name))
        && length.iter().all(|v| v == "0")
        && probe.headers.iter().map(|(n, v)| (n, v)).all(is_there)
}

/// A kubelet's name of itself, which applications know; nothing else that a caller makes up.
fn agent(headers: &HeaderMap) -> HeaderValue {
    const OURS: HeaderValue = HeaderValue::from_static("kube-probe/heddle");
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'+' | b'-');
    headers
        .get(header::USER_AGENT)
        .filter(|v| v.as_bytes().starts_with(b"kube-probe/") || v.as_bytes().starts_with(b"kube-lifecycle/"))
        .filter(|v| v.len() <= AGENT_MAX && v.as_bytes().iter().all(plain))
        .map_or(OURS, Clone::clone)
}

fn text(value: &str) -> Result<HeaderValue, Fault> {
    HeaderValue::from_str(value).map_err(|_| Fault::Internal)
}

/// A length-prefixed, uncompressed `HealthCheckRequest { service }` as every proto3 writer makes it: field 1, left out if empty.
fn health_check(service: &Text) -> Vec<u8> {
    let mut message = Vec::with_capacity(service.len() + 8);
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(length as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(&message);
    frame
}

#[cfg(test)]
mod tests;
