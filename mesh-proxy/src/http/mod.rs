//! HTTP: requests by routes to endpoints, and native requests to applications. It must not accept connections.

mod answer;
mod body;
mod deliver;
mod direct;
mod exchange;
mod forward;
mod frontend;
mod gathered;
mod handle;
mod head;
mod mirror;
mod outgoing;
mod plain;
mod progress;
mod pump;
mod response;
mod send;
mod serve;
mod upgrade;
mod upload;
mod watch;
mod windows;

pub use deliver::deliver;
pub use frontend::{Door, Frontend};
pub use plain::Upstreams;
pub use serve::serve;

use crate::{local::Local, shared::Shared};
use mesh_core::decide::HttpFrontend;
use std::{net::SocketAddr, sync::Arc};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

/// Serves a captured connection whose traffic is HTTP. `original`: the address that the client dialled. `stop`: the workload leaves.
/// Cancelling it ends its requests.
pub async fn serve_frontend<T>(
    io: T,
    frontend: HttpFrontend,
    local: Arc<Local>,
    shared: Arc<Shared>,
    (peer, original): (SocketAddr, SocketAddr),
    stop: CancellationToken,
) where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Some(settings) = shared.settings() else { return };
    let door = Door::Service { service: frontend.service, port: frontend.port };
    // Each request asks for the newest.
    drop(frontend.routes);
    let drain = shared.drain.clone();
    let front = Arc::new(Frontend::new(door, local, shared, (peer, original), (stop, drain)));
    serve(io, front, &settings.limits).await;
}
