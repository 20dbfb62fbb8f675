//! Compile: a route with the state that lives as long as it. It must not look at requests.

use super::Aged;
use crate::{
    balance::Split,
    mesh::{HttpBackend, HttpRoute, HttpRule, RouteId, StreamRoute},
    name::Text,
};
use std::sync::Arc;

/// A rule with what lives as long as it: its weights' state and its names for telemetry.
#[derive(Debug)]
pub struct CompiledRule {
    /// The route it is of.
    pub route: RouteId,
    /// `name` of the rule, else its index as text.
    pub name: Text,
    /// The rule.
    pub rule: Arc<HttpRule>,
    /// Chooses among `rule.backends`.
    pub split: Split,
}

/// An HTTPRoute or GRPCRoute, shared by all tables that it is in.
#[derive(Debug)]
pub(crate) struct CompiledRoute {
    pub(crate) route: Arc<HttpRoute>,
    pub(crate) rules: Vec<Arc<CompiledRule>>,
}

impl CompiledRoute {
    /// Compiles a route. A rule that was in `before` under the same name keeps its place in the split if the shares are the same, and nothing
    /// else: who kept an equal rule whole would hold it twice, as the route brings its own.
    pub(crate) fn new(route: Arc<HttpRoute>, before: Option<&Self>) -> Self {
        let compile = |(index, rule): (usize, &Arc<HttpRule>)| {
            let name = rule.name.clone().unwrap_or_else(|| index.to_string().into());
            let old = before.and_then(|b| b.rules.iter().find(|r| r.name == name));
            let split = match old {
                Some(old) if shares(&old.rule.backends).eq(shares(&rule.backends)) => old.split.clone(),
                _ => Split::new(&rule.backends.iter().map(|b| b.weight).collect::<Vec<_>>()),
            };
            Arc::new(CompiledRule { route: route.id.clone(), name, rule: rule.clone(), split })
        };
        let rules = route.rules.iter().enumerate().map(compile).collect();
        Self { rules, route }
    }
}

fn shares(backends: &[HttpBackend]) -> impl Iterator<Item = (u32, &crate::mesh::BackendTarget)> {
    backends.iter().map(|b| (b.weight, &b.target))
}

impl Aged for CompiledRoute {
    fn id(&self) -> &RouteId {
        &self.route.id
    }
    fn created(&self) -> i64 {
        self.route.created
    }
}

/// A stream route with its weights' state.
#[derive(Debug)]
pub struct CompiledStream {
    /// The route.
    pub route: Arc<StreamRoute>,
    /// Chooses among `route.backends`.
    pub split: Split,
}

impl CompiledStream {
    /// Compiles a route, which goes on where `before` was if the shares are the same.
    pub(crate) fn new(route: Arc<StreamRoute>, before: Option<&Self>) -> Self {
        let split = match before {
            Some(old) if old.route.backends == route.backends => old.split.clone(),
            _ => Split::new(&route.backends.iter().map(|(weight, _)| *weight).collect::<Vec<_>>()),
        };
        Self { route, split }
    }
}

impl Aged for CompiledStream {
    fn id(&self) -> &RouteId {
        &self.route.id
    }
    fn created(&self) -> i64 {
        self.route.created
    }
}
