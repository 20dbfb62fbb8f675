//! An HTTP/2 connection to an application, which many requests share. It must not pool.

use super::pool;
use crate::{
    batch::Batch,
    http::{exchange::fault_of, windows},
    local::Local,
    tunnel::{
        DialFault,
        limits::{RESETS_MADE, RESETS_REMEMBERED, SEND_BUFFER},
    },
    turn::Turn,
};
use bytes::Bytes;
use futures_util::FutureExt;
use h2::client::{Builder, SendRequest};
use mesh_core::{fault::Fault, mesh::Limits};
use std::{future::Future, net::SocketAddr};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout_at},
};

/// Connects. The connection lives until nobody can send by it any more, or the application ends it.
pub(super) async fn dial(local: &Local, address: SocketAddr, limits: &Limits) -> Result<SendRequest<Bytes>, DialFault> {
    let deadline = Instant::now() + limits.handshake;
    let stream = local.connect(address, deadline).await?;
    let (sender, connection) = timeout_at(deadline, over(stream, limits))
        .await
        .map_err(|_| DialFault::from(Fault::ConnectTimeout))?
        .map_err(|e| DialFault::new(fault_of(&e), e))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%address, %error, "connection to an application ended");
        }
    });
    Ok(sender)
}

/// Begins to speak HTTP/2: who sends requests, and who moves the bytes.
pub(in crate::http) async fn over<T: AsyncRead + AsyncWrite + Unpin>(
    io: T,
    limits: &Limits,
) -> Result<(SendRequest<Bytes>, impl Future<Output = Result<(), h2::Error>> + use<T>), h2::Error> {
    let (sender, mut connection) = Builder::new()
        .initial_window_size(windows::STREAM)
        .initial_connection_window_size(windows::to_application(pool::STREAMS))
        .max_header_list_size(limits.header_bytes)
        .max_send_buffer_size(SEND_BUFFER)
        .enable_push(false)
        .max_concurrent_reset_streams(RESETS_REMEMBERED)
        .max_local_error_reset_streams(RESETS_MADE)
        .handshake(Batch::new(io))
        .await?;
    // Its requests are made by tasks of their own, and go out together.
    Ok((sender, async move { Turn::default().take(|cx| connection.poll_unpin(cx)).await }))
}
