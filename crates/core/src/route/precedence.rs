//! Precedence: which of two matches wins, as values with an order: less is first. It must not look at requests.

use crate::mesh::{HttpMatch, PathMatch, RouteId, TextMatch};
use std::cmp::{Ordering, Reverse};

/// Something with a name and an age.
pub(crate) trait Aged {
    /// Kind and name.
    fn id(&self) -> &RouteId;
    /// `creationTimestamp`.
    fn created(&self) -> i64;
}

/// HTTPRouteRule.matches: "The oldest Route based on creation timestamp. The Route appearing first in alphabetical order by
/// '{namespace}/{name}'." The text decides, so `a-b/x` is before `a/x`, which comparing part by part would turn round.
pub(crate) fn by_age(a: &impl Aged, b: &impl Aged) -> Ordering {
    fn text(id: &RouteId) -> impl Iterator<Item = u8> + '_ {
        id.name.namespace.bytes().chain([b'/']).chain(id.name.name.bytes())
    }
    (a.created().cmp(&b.created()))
        .then_with(|| text(a.id()).cmp(text(b.id())))
        .then_with(|| a.id().kind.cmp(&b.id().kind))
}

/// What decides among matches with an equal path: "Method match. Largest number of header matches. Largest number of query param
/// matches." Ties keep the order in which they came: older route, then earlier rule, then earlier match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Conditions {
    method: Reverse<bool>,
    headers: Reverse<usize>,
    query: Reverse<usize>,
}

impl Conditions {
    pub(super) fn of(m: &HttpMatch) -> Self {
        Self { method: Reverse(m.method.is_some()), headers: Reverse(m.headers.len()), query: Reverse(m.query.len()) }
    }

    /// Whether there are none.
    pub(super) fn is_empty(self) -> bool {
        self == Self { method: Reverse(false), headers: Reverse(0), query: Reverse(0) }
    }
}

/// Order of gRPC matches: "the largest number of: … Characters in a matching service. Characters in a matching method. Header
/// matches." How a regular expression counts is ours to say: after every exact text, the longer pattern first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GrpcRank {
    service: TextRank,
    method: TextRank,
    conditions: Conditions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum TextRank {
    Exact(Reverse<usize>),
    Regex(Reverse<usize>),
    Any,
}

impl TextRank {
    fn of(text: Option<&TextMatch>) -> Self {
        match text {
            Some(TextMatch::Exact(t)) => Self::Exact(Reverse(t.chars().count())),
            Some(TextMatch::Regex(p)) => Self::Regex(Reverse(p.source().chars().count())),
            None => Self::Any,
        }
    }
}

impl GrpcRank {
    pub(super) fn of(m: &HttpMatch) -> Self {
        let (service, method) = match &m.path {
            PathMatch::Grpc { service, method } => (service.as_ref(), method.as_ref()),
            _ => (None, None),
        };
        Self { service: TextRank::of(service), method: TextRank::of(method), conditions: Conditions::of(m) }
    }
}
