//! An HTTP/2 connection to an application, which many requests share. It must not pool.

use super::pool;
use crate::{
    batch::Batch,
    http::{exchange::fault_of_stream, windows},
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
        .map_err(|e| DialFault::new(fault_of_stream(&e), e))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%address, %error, "connection to an application ended");
        }
    });
    Ok(sender)
}

/// Begins to speak HTTP/2: who sends requests, and who moves the bytes.
async fn over<T: AsyncRead + AsyncWrite + Unpin>(
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

#[cfg(test)]
mod tests {
    use super::super::pool::{Key, Pool};
    use super::*;
    use crate::{
        batch::tests::Noted,
        http::{
            body::{Body, Place},
            exchange::exchange,
        },
    };
    use http::{Request, Response};
    use std::sync::{Arc, Mutex};
    use tokio::task::JoinSet;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn requests_of_one_turn_go_to_an_application_together_with_their_bodies() {
        const REQUESTS: usize = 10;
        let (near, far) = tokio::io::duplex(1 << 20);
        let wrote = Arc::new(Mutex::new(Vec::new()));
        let (sender, connection) = over(Noted(near, wrote.clone()), &Limits::default()).await.unwrap();
        tokio::spawn(connection);
        tokio::spawn(async move {
            let mut connection = h2::server::handshake(far).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                tokio::spawn(async move {
                    let mut body = request.into_body();
                    while let Some(data) = body.data().await {
                        body.flow_control().release_capacity(data.unwrap().len()).unwrap();
                    }
                    respond.send_response(Response::new(()), true).unwrap();
                });
            }
        });
        // From the runtime's own thread, as the proxy's requests are.
        let answered = tokio::spawn(async move {
            let (pool, key) = (Arc::new(Pool::default()), Key { address: ([127, 0, 0, 1], 80).into(), uid: None });
            drop(pool.add(key.clone(), sender));
            let mut requests = JoinSet::new();
            for _ in 0..REQUESTS {
                let (sender, stream) = pool.share(&key).unwrap();
                let place = Place::Application(stream);
                let request = Request::post("http://application/").body(()).unwrap();
                requests.spawn(exchange(sender, place, request, Body::Full(Bytes::from(vec![7; 100]))));
            }
            requests.join_all().await
        });
        for response in answered.await.unwrap() {
            assert_eq!(response.unwrap().status(), 200);
        }
        let wrote = wrote.lock().unwrap();
        // A frame for the head and one for the body, with nine bytes before each. The first request may go with the connection's own beginning.
        assert!(wrote.iter().any(|bytes| *bytes > (REQUESTS - 1) * (9 + 9 + 100)), "{wrote:?}");
    }
}
