//! Route tables: compiled routes of one frontend or one Gateway port, matched in Gateway API precedence. It must not know where requests come from.

mod candidates;
mod compile;
mod header;
mod host;
mod method;
mod path;
mod precedence;
mod query;
mod rules;
mod stream;

pub use compile::{CompiledRule, CompiledStream};
pub use host::HOST_MAX;
pub use stream::StreamTable;

pub(crate) use compile::CompiledRoute;
pub(crate) use host::HostIndex;
pub(crate) use path::trimmed;
pub(crate) use precedence::{Aged, by_age};
pub(crate) use rules::RuleIndex;
pub(crate) use stream::StreamIndex;

use crate::mesh::HttpMatch;
use http::{HeaderMap, Method};
use std::{fmt, sync::Arc};

/// What a request shows to a route table. Borrowed from the request; building it allocates nothing.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// Host without port, lower case; empty if there is none. Ignored by tables of Services (GAMMA matches the ClusterIP).
    pub host: &'a str,
    /// Method.
    pub method: &'a Method,
    /// Path, not decoded, without query.
    pub path: &'a str,
    /// Query without `?`, not decoded.
    pub query: Option<&'a str>,
    /// Headers.
    pub headers: &'a HeaderMap,
}

/// A match.
#[derive(Clone, Copy, Debug)]
pub struct Matched<'a> {
    /// The rule that won.
    pub rule: &'a Arc<CompiledRule>,
    /// The condition that won; its path says what ReplacePrefixMatch replaces.
    pub condition: &'a HttpMatch,
}

/// Compiled HTTP and gRPC routes.
#[derive(Debug, Default)]
pub struct RouteTable {
    /// Listener hostname → route hostname → rules. A Service has one listener without hostname, and one route hostname: any.
    listeners: HostIndex<Hosts<RuleIndex>>,
}

impl RouteTable {
    pub(crate) fn of_service(rules: Arc<RuleIndex>) -> Self {
        Self { listeners: HostIndex::of_any(HostIndex::of_any(rules)) }
    }

    pub(crate) fn of_listeners(listeners: HostIndex<Hosts<RuleIndex>>) -> Self {
        Self { listeners }
    }

    /// The rule for a request, by the precedence of HTTPRoute and GRPCRoute; none: 404 or UNIMPLEMENTED.
    ///
    /// Gateway.spec.listeners: "inbound request hostnames MUST match from the most specific to least specific Hostname values to
    /// choose the correct Listener", and only its routes count. Within it, rules of the route with the most specific matching
    /// hostname of its own come first; a request that they do not match falls to the next.
    pub fn find(&self, head: RequestHead<'_>) -> Option<Matched<'_>> {
        let hosts = self.listeners.best(head.host)?;
        hosts.find_map(head.host, |rules| rules.find(head))
    }
}

/// Routes of one listener by their own hostnames.
pub(crate) type Hosts<I> = HostIndex<Arc<I>>;

/// Routes that share one place of attachment and one hostname, ready for lookup.
pub(crate) trait Bucket: fmt::Debug {
    /// What is attached.
    type Route: Aged + fmt::Debug;
    /// Compiles routes, sorted by age.
    fn build(routes: Vec<Arc<Self::Route>>) -> Self;
    /// What was given.
    fn routes(&self) -> &[Arc<Self::Route>];
}

#[cfg(test)]
mod tests;
