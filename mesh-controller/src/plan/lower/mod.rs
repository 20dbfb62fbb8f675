//! Lower: rules of routes to what they mean, with all references resolved and all patterns compiled. It must not know parents.

mod filter;
mod grpc;
mod http;
mod matches;
mod stream;

use super::{
    attach::Refusal,
    backend::Resolver,
    route::{Route, Spec},
    status::{Condition, reason},
    view::View,
};
use mesh_core::mesh::{BackendTarget, HttpRule};
use std::sync::Arc;

/// The rules of a route, and what is wrong with them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Lowered {
    pub(super) rules: Rules,
    /// References that lead nowhere.
    problems: Vec<Refusal>,
    /// Rules that cannot be applied, by index.
    dropped: Vec<(usize, Refusal)>,
    /// How many rules the spec has.
    total: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Rules {
    Http(Vec<Arc<HttpRule>>),
    Stream(Vec<(u32, BackendTarget)>),
}

/// A rule, or why it cannot be applied.
type Rule = Result<HttpRule, Refusal>;

/// Lowers the rules of a route.
pub(super) fn lower(view: &View<'_>, route: &Route<'_>, needs_grants: bool) -> Lowered {
    let mut resolver = Resolver::new(view, route, needs_grants);
    let http = |rules: Vec<Rule>| {
        let total = rules.len();
        let mut dropped = Vec::new();
        let mut kept = Vec::with_capacity(total);
        for (index, rule) in rules.into_iter().enumerate() {
            match rule {
                Ok(rule) => kept.push(Arc::new(rule)),
                Err(refusal) => dropped.push((index, refusal)),
            }
        }
        (Rules::Http(kept), dropped, total)
    };
    let (rules, dropped, total) = match route.spec {
        Spec::Http(spec) => http(self::http::rules(&mut resolver, spec)),
        Spec::Grpc(spec) => http(grpc::rules(&mut resolver, spec)),
        Spec::Tls(spec) => stream::rules(&mut resolver, &spec.rules),
        Spec::Tcp(spec) => stream::rules(&mut resolver, &spec.rules),
        Spec::Udp => (Rules::Stream(Vec::new()), Vec::new(), 0),
    };
    let Resolver { problems, failing, .. } = resolver;
    let mut dropped: Vec<(usize, Refusal)> = dropped;
    dropped.extend(failing);
    dropped.sort_by_key(|(index, _)| *index);
    Lowered { rules, problems, dropped, total }
}

impl Lowered {
    /// Why nothing of the route can be applied. "A Route MUST be considered Accepted if at least one of the Route's rules is implemented."
    pub(super) fn rejected(&self) -> Option<Refusal> {
        let (_, first) = self.dropped.first()?;
        (self.dropped.len() == self.total).then(|| Refusal::new(first.reason, self.dropped_text()))
    }

    /// "The message for this condition MUST start with the prefix "Dropped Rule" and include information about which Rules have been dropped."
    pub(super) fn partially_invalid(&self) -> Option<Condition> {
        if self.dropped.is_empty() {
            return None;
        }
        let message = format!("Dropped Rule(s): {}", self.dropped_text());
        Some(Condition::yes("PartiallyInvalid", reason::UNSUPPORTED_VALUE, message))
    }

    /// Whether all references lead somewhere. One condition has one reason; the first problem gives it.
    pub(super) fn resolved_refs(&self) -> Condition {
        match self.problems.first() {
            None => Condition::yes("ResolvedRefs", reason::RESOLVED_REFS, "all references lead somewhere".into()),
            Some(first) => {
                let all: Vec<&str> = self.problems.iter().map(|p| &*p.message).collect();
                Condition::no("ResolvedRefs", first.reason, all.join("; "))
            }
        }
    }

    fn dropped_text(&self) -> String {
        let all = self.dropped.iter().map(|(index, refusal)| format!("spec.rules[{index}]{}", refusal.message));
        all.collect::<Vec<_>>().join("; ")
    }
}

/// A value that cannot be applied; `field` is its path below the rule, with its leading dot.
fn unsupported(field: &str, why: impl std::fmt::Display) -> Refusal {
    Refusal::new(reason::UNSUPPORTED_VALUE, format!("{field}: {why}"))
}

fn weight(weight: Option<i32>) -> u32 {
    // The CRD bounds it to 0..=1,000,000 and defaults it to 1.
    weight.map_or(1, |w| u32::try_from(w).unwrap_or(0))
}
