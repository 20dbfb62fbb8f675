//! Route tables: compiled routes of one frontend or one Gateway port, matched in Gateway API precedence. It must not know where requests come from.

use crate::{
    balance::Split,
    mesh::{HttpMatch, HttpRule, RouteId, StreamRoute},
    name::Text,
};
use http::{HeaderMap, Method};
use std::sync::Arc;

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
pub struct RouteTable {}

impl RouteTable {
    /// The rule for a request, by the precedence of HTTPRoute and GRPCRoute; none: 404 or UNIMPLEMENTED.
    pub fn find(&self, _head: RequestHead<'_>) -> Option<Matched<'_>> {
        todo!("core")
    }
}

/// Compiled TLS and TCP routes.
#[derive(Debug, Default)]
pub struct StreamTable {}

/// A stream route with its weights' state.
#[derive(Debug)]
pub struct CompiledStream {
    /// The route.
    pub route: Arc<StreamRoute>,
    /// Chooses among `route.backends`.
    pub split: Split,
}

impl StreamTable {
    /// Whether any entry needs the TLS server name, so that the ClientHello must be read first.
    pub fn wants_server_name(&self) -> bool {
        todo!("core")
    }

    /// The route for a connection: most specific server name, then oldest. `server_name`: lower case, none if not TLS.
    pub fn find(&self, _server_name: Option<&str>) -> Option<&Arc<CompiledStream>> {
        todo!("core")
    }
}
