//! Outbound: what a workload opens; its destination decided, an endpoint dialled, bytes carried. It must not decide where to.

use crate::{local::Local, shared::Shared, telemetry::Connection};
use mesh_core::{balance::EndpointSet, mesh::Service};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

/// Carries a stream to one endpoint of a Service port, another one if the first cannot be reached, until both sides are done;
/// then tells `record`. Cancelling it resets both sides.
pub async fn carry<T: AsyncRead + AsyncWrite + Unpin + Send>(
    _io: T,
    _service: &Arc<Service>,
    _port: u16,
    _endpoints: &Arc<EndpointSet>,
    _local: &Arc<Local>,
    _shared: &Arc<Shared>,
    _record: Connection,
) {
    todo!("l4")
}
