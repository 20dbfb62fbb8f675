//! Shared: what every connection of the proxy may read. It must not grow doors to one workload's things; those are in `Local`.

use crate::{telemetry::Telemetry, tunnel::Pool};
use mesh_core::{mesh::MeshSettings, snapshot::Snapshot};
use mesh_tls::Trust;
use std::{collections::HashSet, net::IpAddr, sync::Arc};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Given to every connection behind an `Arc`.
pub struct Shared {
    /// The newest config; none until the first has come. A connection takes one snapshot and lets go of it when its way is chosen, since
    /// whoever holds one holds all that has changed since; a request takes the newest for its routes.
    pub snapshot: watch::Receiver<Option<Arc<Snapshot>>>,
    /// TLS configs of the workloads.
    pub trust: Arc<Trust>,
    /// Connections to peers.
    pub pool: Pool,
    /// Logs, metrics, spans.
    pub telemetry: Telemetry,
    /// Addresses of the node's own host, from where kubelet probes come; empty until the node's agent has told them, and for a gateway.
    pub host_addresses: watch::Receiver<Arc<HashSet<IpAddr>>>,
    /// Cancelled when the proxy goes away: listeners stop, living connections get `limits.drain`.
    pub drain: CancellationToken,
}

impl Shared {
    /// The newest config; none until the first has come.
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.snapshot.borrow().clone()
    }

    /// Settings of the mesh by the newest config.
    pub fn settings(&self) -> Option<Arc<MeshSettings>> {
        self.snapshot.borrow().as_ref().map(|s| s.settings().clone())
    }
}
