//! HTTP/2: the requests of a connection beside each other, until it ends. It must not look into requests.

use crate::{
    batch::Batch,
    http::{
        frontend::Frontend,
        handle::handle,
        progress::Progress,
        watch::{Version, Watch, Word},
        windows,
    },
    parting::Parting,
    turn::Turn,
};
use bytes::Bytes;
use futures_util::{
    TryFutureExt,
    stream::{FuturesUnordered, StreamExt},
};
use hyper::{server::conn::http2::Builder, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use mesh_core::mesh::Limits;
use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::{Poll, ready},
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncWrite};

/// A client that does not answer a PING for so long is gone, however many streams it left.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Serves requests; `read` was read before. Cancelling it ends all of them.
pub(super) async fn serve<T>(io: T, read: Bytes, front: &Arc<Frontend>, limits: &Limits)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let progress = Arc::new(Progress::default());
    let service = service_fn(|request| {
        let request_in = progress.request();
        // On the heap once, instead of moved about: it holds all that a request may come to need.
        Box::pin(handle(front.clone(), request, None).map_ok(move |response| {
            drop(request_in);
            response
        }))
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_header_list_size(limits.header_bytes)
        .max_concurrent_streams(limits.streams_per_connection)
        .initial_stream_window_size(windows::STREAM)
        .initial_connection_window_size(windows::from_client(limits.streams_per_connection))
        // A client may give up all its requests at once.
        .max_pending_accept_reset_streams(limits.streams_per_connection as usize)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(limits.handshake);
    let io = TokioIo::new(Batch::new(Parting::new(progress.watch(io, read))));
    let mut connection = pin!(builder.serve_connection(io, service));
    // What seldom happens is polled only when it has happened, not with each step of the connection.
    let watch = Watch::new(Version::Http2, front, limits, &progress);
    let mut watching: FuturesUnordered<_> = [watch.next()].into_iter().collect();
    // Its requests are tasks of their own, whose answers go out together.
    let mut turn = Turn::default();
    poll_fn(|cx| {
        ready!(turn.poll(cx));
        turn.over();
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                if let Err(error) = ended {
                    tracing::debug!(peer = %front.peer, %error, "client connection ended");
                }
                return Poll::Ready(());
            }
            match watching.poll_next_unpin(cx) {
                Poll::Ready(Some((Word::Leave, watch))) => {
                    connection.as_mut().graceful_shutdown();
                    watching.push(watch.next());
                }
                // Not said of HTTP/2.
                Poll::Ready(Some((Word::Rest, watch))) => watching.push(watch.next()),
                Poll::Ready(Some((Word::Close, _)) | None) => {
                    tracing::debug!(peer = %front.peer, "client connection closed: idle, stalled, or drained");
                    return Poll::Ready(());
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
}
