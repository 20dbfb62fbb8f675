//! Method: gRPC service and method of a request, and an index over them. It must not match HTTP methods; those are one comparison.

use super::{
    Matched, RequestHead,
    candidates::{Candidate, Candidates},
    precedence::GrpcRank,
};
use crate::{
    mesh::{PathMatch, TextMatch},
    name::Text,
};
use http::{HeaderMap, header::CONTENT_TYPE};
use std::collections::HashMap;

/// Whether this is a gRPC request: `application/grpc` with or without a suffix or parameters.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(b"application/grpc"))
}

/// `/package.Service/Method` as its two parts; none for any other path.
fn parts(path: &str) -> Option<(&str, &str)> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    (!service.is_empty() && !method.is_empty() && !method.contains('/')).then_some((service, method))
}

/// Matches of GRPCRoutes.
#[derive(Debug, Default)]
pub(super) struct GrpcIndex {
    /// Exact service and method, the usual case.
    exact: HashMap<Text, HashMap<Text, Candidates>>,
    /// Exact service; any method or a pattern. In precedence.
    services: HashMap<Text, Vec<Candidate>>,
    /// Any service or a pattern. In precedence.
    others: Vec<Candidate>,
}

impl GrpcIndex {
    pub(super) fn push(&mut self, candidate: Candidate) {
        let PathMatch::Grpc { service, method } = &candidate.condition().path else { return };
        match (service, method) {
            (Some(TextMatch::Exact(service)), Some(TextMatch::Exact(method))) => {
                let methods = self.exact.entry(service.clone()).or_default();
                methods.entry(method.clone()).or_default().push(candidate);
            }
            (Some(TextMatch::Exact(service)), _) => self.services.entry(service.clone()).or_default().push(candidate),
            _ => self.others.push(candidate),
        }
    }

    /// Sorts; the order of pushing, which is age, settles ties.
    pub(super) fn settle(&mut self) {
        self.exact.values_mut().flat_map(HashMap::values_mut).for_each(Candidates::settle);
        for list in self.services.values_mut().chain([&mut self.others]) {
            list.sort_by_key(|c| GrpcRank::of(c.condition()));
        }
    }

    /// GRPCRouteRule.matches: service before method before headers; see [`GrpcRank`].
    pub(super) fn find(&self, head: RequestHead<'_>) -> Option<Matched<'_>> {
        if (self.exact.is_empty() && self.services.is_empty() && self.others.is_empty()) || !is_grpc(head.headers) {
            return None;
        }
        let call = parts(head.path);
        let holds = |c: &&Candidate| matches(c, call) && c.holds(head);
        (call.and_then(|(service, method)| self.exact.get(service)?.get(method)?.find(head)))
            .or_else(|| self.services.get(call?.0)?.iter().find(holds).map(Candidate::matched))
            .or_else(|| self.others.iter().find(holds).map(Candidate::matched))
    }
}

fn matches(candidate: &Candidate, call: Option<(&str, &str)>) -> bool {
    let PathMatch::Grpc { service, method } = &candidate.condition().path else { return false };
    let text = |wanted: &Option<TextMatch>, part: Option<&str>| match (wanted, part) {
        (None, _) => true,
        (Some(TextMatch::Exact(text)), Some(part)) => **text == *part,
        (Some(TextMatch::Regex(pattern)), Some(part)) => pattern.is_match(part),
        (Some(_), None) => false,
    };
    text(service, call.map(|c| c.0)) && text(method, call.map(|c| c.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_parts_are_a_grpc_call() {
        assert_eq!(parts("/a.b.C/Do"), Some(("a.b.C", "Do")));
        for path in ["", "/", "/a", "/a/", "//b", "/a/b/c", "a/b"] {
            assert_eq!(parts(path), None, "{path}");
        }
    }
}
