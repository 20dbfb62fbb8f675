//! Direct: from a request head to what shall be done with it: route, filters, backend. Pure but for the counters of weights; it must not send.

use super::{answer, body::Body, frontend::Frontend, head::match_host, outgoing::Outgoing};
use crate::telemetry::Record;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header::VARY, uri::Authority};
use mesh_core::{
    fault::Fault,
    filter::{self, CorsAnswer},
    mesh::{BackendTarget, Filter, HttpRule, Retry},
    name::ServiceId,
    route::{CompiledRule, RequestHead},
    snapshot::Snapshot,
};
use smallvec::SmallVec;
use std::sync::Arc;

/// Where a request goes.
#[derive(Debug)]
pub struct Directed {
    /// The rule; none: nobody attached a route, and the request goes to the Service itself.
    pub rule: Option<Arc<CompiledRule>>,
    /// Which of its backends.
    pub backend: usize,
    /// The Service of the backend.
    pub service: ServiceId,
    /// Its port.
    pub port: u16,
    /// CORS headers for the response.
    pub cors: Option<HeaderMap>,
    /// Who gets a copy.
    pub mirrors: SmallVec<[BackendTarget; 1]>,
}

/// What shall be done with a request.
#[derive(Debug)]
pub enum Direction {
    /// Send it on.
    Forward(Directed),
    /// A filter answers it.
    Answer(Response<Body>),
    /// Nobody does.
    Refuse(Fault),
}

/// Finds the route of a request and applies its request filters to `outgoing`.
pub fn direct(front: &Frontend, snapshot: &Snapshot, outgoing: &mut Outgoing, record: &mut Record) -> Direction {
    let Some(table) = front.routes(snapshot) else {
        return match front.without_routes() {
            Some((service, port)) => Direction::Forward(Directed {
                rule: None,
                backend: 0,
                service: service.clone(),
                port,
                cors: None,
                mirrors: SmallVec::new(),
            }),
            None => Direction::Refuse(Fault::NoRoute),
        };
    };
    let host = outgoing.authority.clone();
    let Some(found) = table.find(head(outgoing, &match_host(&host))) else {
        return Direction::Refuse(Fault::NoRoute);
    };
    let rule = found.rule.clone();
    record.route = Some(rule.route.clone());
    record.rule = Some(rule.name.clone());

    // Conditions and prefixes speak of the request as it came, whatever a filter before changed.
    let path = outgoing.path.clone();
    let mut cors = None;
    let mut mirrors = SmallVec::new();
    let mut apply = |filters: &[Filter], outgoing: &mut Outgoing| {
        for filter in filters {
            match filter {
                Filter::RequestHeaders(edit) => filter::edit_headers(edit, &mut outgoing.headers),
                // The response gets them when it comes.
                Filter::ResponseHeaders(_) => {}
                Filter::Redirect(redirect) => {
                    let head = original(outgoing, &path, &host);
                    let head = RequestHead { host: &match_host(&host), ..head };
                    return match filter::redirect(redirect, front.arrival(&host), head, found.condition) {
                        Some((status, location)) => Some(Direction::Answer(answer::redirect(status, location))),
                        None => Some(Direction::Refuse(Fault::Internal)),
                    };
                }
                Filter::Rewrite(rewrite) => {
                    let head = original(outgoing, &path, &host);
                    let rewritten = filter::rewrite_path(rewrite, head, found.condition);
                    if let Some(path) = rewritten {
                        outgoing.path = path;
                    }
                    if let Some(name) = &rewrite.hostname {
                        match Authority::try_from(name.as_bytes()) {
                            Ok(authority) => outgoing.authority = authority,
                            Err(_) => return Some(Direction::Refuse(Fault::Internal)),
                        }
                    }
                }
                Filter::Mirror(mirror) => {
                    if filter::mirrors(mirror, rand::random()) {
                        mirrors.push(mirror.target.clone());
                    }
                }
                Filter::Cors(rules) => match filter::cors(rules, original(outgoing, &path, &host)) {
                    CorsAnswer::Preflight(headers) => return Some(Direction::Answer(answer::preflight(headers))),
                    CorsAnswer::Actual(headers) => cors = Some(headers),
                },
            }
        }
        None
    };
    if let Some(answered) = apply(&rule.rule.filters, outgoing) {
        return answered;
    }
    // HTTPRouteRule.backendRefs: without a valid backend "the request … MUST receive a 500".
    let Some(backend) = rule.split.next() else { return Direction::Refuse(Fault::BrokenBackend) };
    let chosen = &rule.rule.backends[backend];
    let BackendTarget::Service { service, port } = &chosen.target else {
        return Direction::Refuse(Fault::BrokenBackend);
    };
    if let Some(answered) = apply(&chosen.filters, outgoing) {
        return answered;
    }
    let (service, port) = (service.clone(), *port);
    Direction::Forward(Directed { rule: Some(rule), backend, service, port, cors, mirrors })
}

fn head<'a>(outgoing: &'a Outgoing, host: &'a str) -> RequestHead<'a> {
    RequestHead {
        host,
        method: &outgoing.method,
        path: outgoing.path.path(),
        query: outgoing.path.query(),
        headers: &outgoing.headers,
    }
}

fn original<'a>(outgoing: &'a Outgoing, path: &'a http::uri::PathAndQuery, host: &'a Authority) -> RequestHead<'a> {
    RequestHead { path: path.path(), query: path.query(), ..head(outgoing, host.host()) }
}

impl Directed {
    /// The rule, if there is one.
    pub fn rule(&self) -> Option<&HttpRule> {
        self.rule.as_ref().map(|r| &*r.rule)
    }

    /// What may be repeated.
    pub fn retry(&self) -> Option<&Retry> {
        self.rule().and_then(|r| r.retry.as_ref()).filter(|r| r.attempts > 0)
    }

    /// Applies the filters that concern the response: the rule's, then the backend's, then CORS.
    pub fn edit_response(&self, headers: &mut HeaderMap) {
        if let Some(rule) = self.rule() {
            let backend = rule.backends.get(self.backend).map_or(&[][..], |b| &b.filters);
            for filter in rule.filters.iter().chain(backend) {
                if let Filter::ResponseHeaders(edit) = filter {
                    filter::edit_headers(edit, headers);
                }
            }
        }
        if let Some(cors) = &self.cors {
            for (name, value) in cors {
                // The application may vary by more than the origin.
                match *name {
                    VARY => drop(headers.append(name, HeaderValue::clone(value))),
                    _ => drop(headers.insert(name, HeaderValue::clone(value))),
                }
            }
        }
    }
}

/// The status of a request for a host that another listener owns (RFC 9110 §15.5.20).
pub fn misdirected() -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::MISDIRECTED_REQUEST;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cors_replaces_what_the_application_says_but_adds_to_what_its_response_varies_by() {
        let lines = |lines: &[(&'static str, &'static str)]| {
            lines.iter().map(|(n, v)| (http::HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
        };
        let cors: HeaderMap = lines(&[("access-control-allow-origin", "https://shop.example"), ("vary", "origin")]);
        let service = ServiceId::new("shop", "cart");
        let directed =
            Directed { rule: None, backend: 0, service, port: 80, cors: Some(cors), mirrors: SmallVec::new() };
        let mut headers: HeaderMap = lines(&[("access-control-allow-origin", "*"), ("vary", "accept-encoding")]);
        directed.edit_response(&mut headers);
        let all = |name| headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(all("access-control-allow-origin"), ["https://shop.example"]);
        assert_eq!(all("vary"), ["accept-encoding", "origin"]);
    }
}
