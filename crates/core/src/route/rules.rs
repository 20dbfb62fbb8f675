//! Rules: the matches of all routes that share a host, indexed by path, so that a request meets few of them. It must not know hosts.

use super::{
    Bucket, CompiledRoute, Matched, RequestHead,
    candidates::{Candidate, Candidates},
    method::GrpcIndex,
    path::{Prefixes, trimmed},
    precedence::Conditions,
};
use crate::{
    mesh::{PathMatch, Pattern},
    name::Text,
};
use foldhash::fast::FixedState;
use std::{cmp::Reverse, collections::HashMap, sync::Arc};

/// HTTPRouteRule.matches: "precedence must be given to the match having: 'Exact' path match. 'Prefix' path match with largest number of
/// characters. Method match. Largest number of header matches. Largest number of query param matches." Regular expressions, whose place
/// is ours to choose, come between exact paths and prefixes, the longer pattern first: who writes one means more than a prefix.
#[derive(Debug)]
pub(crate) struct RuleIndex {
    routes: Vec<Arc<CompiledRoute>>,
    exact: HashMap<Text, Candidates, FixedState>,
    /// In precedence.
    regex: Vec<(Pattern, Candidate)>,
    /// Elements that a pattern starts with → positions in `regex`, ascending.
    regex_under: Prefixes<Vec<usize>>,
    prefixes: Prefixes<Candidates>,
    grpc: GrpcIndex,
}

impl Bucket for RuleIndex {
    type Route = CompiledRoute;

    fn build(routes: Vec<Arc<CompiledRoute>>) -> Self {
        let mut exact = HashMap::<Text, Candidates, FixedState>::default();
        let mut regex = Vec::new();
        let mut prefixes = Prefixes::<Candidates>::default();
        let mut grpc = GrpcIndex::default();
        let all = routes.iter().flat_map(|route| &route.rules);
        for candidate in all.flat_map(|rule| (0..rule.rule.matches.len()).map(|at| Candidate::new(rule.clone(), at))) {
            match &candidate.condition().path {
                PathMatch::Exact(path) => exact.entry(path.clone()).or_default().push(candidate),
                PathMatch::Prefix(prefix) => prefixes.entry(trimmed(prefix)).push(candidate),
                PathMatch::Regex(pattern) => regex.push((pattern.clone(), candidate)),
                PathMatch::Grpc { .. } => grpc.push(candidate),
            }
        }
        exact.values_mut().chain(prefixes.values_mut()).for_each(Candidates::settle);
        regex.sort_by_key(|(p, c)| (Reverse(p.source().chars().count()), Conditions::of(c.condition())));
        let mut regex_under = Prefixes::<Vec<usize>>::default();
        for (at, (pattern, _)) in regex.iter().enumerate() {
            regex_under.entry(elements(pattern)).push(at);
        }
        grpc.settle();
        Self { routes, exact, regex, regex_under, prefixes, grpc }
    }

    fn routes(&self) -> &[Arc<CompiledRoute>] {
        &self.routes
    }
}

impl RuleIndex {
    /// The first match by precedence. GRPCRoutes and HTTPRoutes do not share a host (the planner settles it), so that gRPC first is
    /// only a way to save work for what is not gRPC.
    pub(crate) fn find(&self, head: RequestHead<'_>) -> Option<Matched<'_>> {
        (self.grpc.find(head))
            .or_else(|| self.exact.get(head.path)?.find(head))
            .or_else(|| self.find_regex(head))
            .or_else(|| self.prefixes.find_map(head.path, |candidates| candidates.find(head)))
    }

    /// Only expressions that can match the path are tried: those under the whole elements that their literal start begins with.
    fn find_regex(&self, head: RequestHead<'_>) -> Option<Matched<'_>> {
        if self.regex.is_empty() {
            return None;
        }
        let mut best = self.regex.len();
        let _: Option<()> = self.regex_under.find_map(head.path, |positions| {
            let first = positions.iter().take_while(|at| **at < best).find(|at| {
                let (pattern, candidate) = &self.regex[**at];
                pattern.is_match(head.path) && candidate.holds(head)
            });
            best = first.copied().unwrap_or(best);
            None
        });
        self.regex.get(best).map(|(_, candidate)| candidate.matched())
    }
}

/// The whole path elements that every match of a pattern lies under.
fn elements(pattern: &Pattern) -> &str {
    let literal = pattern.literal();
    literal.strip_prefix('/').map_or("", |_| &literal[..literal.rfind('/').unwrap_or(0)])
}
