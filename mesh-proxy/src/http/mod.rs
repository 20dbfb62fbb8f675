//! HTTP: requests by routes to endpoints. It must not accept connections.

use crate::{local::Local, shared::Shared};
use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::Request;
use mesh_core::decide::HttpFrontend;
use mesh_tls::VerifiedPeer;
use std::{net::SocketAddr, sync::Arc};
use tokio::net::TcpStream;

/// Serves a captured connection whose traffic is HTTP.
pub async fn serve_frontend(
    _io: TcpStream,
    _frontend: HttpFrontend,
    _local: Arc<Local>,
    _shared: Arc<Shared>,
    _peer: SocketAddr,
    _original: SocketAddr,
) {
    todo!("l7")
}

/// Delivers a native request of a verified peer; the request bears an [`crate::inbound::Arrival`].
pub async fn deliver(
    _request: Request<RecvStream>,
    _respond: SendResponse<Bytes>,
    _peer: VerifiedPeer,
    _local: Arc<Local>,
    _shared: Arc<Shared>,
) {
    todo!("l7")
}
