//! Stream: TLS and TCP routes of one frontend or one Gateway port, by server name. It must not read a ClientHello.

use super::{Bucket, CompiledStream, HostIndex, Hosts};
use std::sync::Arc;

/// Compiled TLS and TCP routes.
#[derive(Debug, Default)]
pub struct StreamTable {
    listeners: HostIndex<Hosts<StreamIndex>>,
    wants_server_name: bool,
}

impl StreamTable {
    pub(crate) fn of_service(routes: Hosts<StreamIndex>) -> Self {
        Self::of_listeners(HostIndex::of_any(routes))
    }

    pub(crate) fn of_listeners(listeners: HostIndex<Hosts<StreamIndex>>) -> Self {
        let wants_server_name = listeners.wants_host() || listeners.values().any(HostIndex::wants_host);
        Self { listeners, wants_server_name }
    }

    /// Whether any entry needs the TLS server name, so that the ClientHello must be read first.
    pub fn wants_server_name(&self) -> bool {
        self.wants_server_name
    }

    /// The route for a connection: most specific server name, then oldest. `server_name`: lower case, none if not TLS.
    ///
    /// Listeners are isolated as for HTTP. "If … multiple TCPRoutes … only the oldest receives traffic".
    pub fn find(&self, server_name: Option<&str>) -> Option<&Arc<CompiledStream>> {
        let name = server_name.unwrap_or_default();
        self.listeners.best(name)?.find_map(name, |routes| routes.0.first())
    }
}

/// Stream routes that share a place and a host name, oldest first.
#[derive(Debug)]
pub(crate) struct StreamIndex(Vec<Arc<CompiledStream>>);

impl Bucket for StreamIndex {
    type Route = CompiledStream;

    fn build(routes: Vec<Arc<CompiledStream>>) -> Self {
        Self(routes)
    }

    fn routes(&self) -> &[Arc<CompiledStream>] {
        &self.0
    }
}
