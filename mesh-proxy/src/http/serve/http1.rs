//! HTTP/1.1: the requests of a connection one after the other, until it ends, becomes another protocol's, or rests. It must not look into requests.

use crate::{
    http::{
        frontend::Frontend,
        gathered::Gathered,
        handle::handle,
        plain::H1_BUFFER_MIN,
        progress::Progress,
        upgrade::Upgrades,
        watch::{Version, Watch, Word},
    },
    parting::Parting,
};
use bytes::Bytes;
use futures_util::{
    TryFutureExt,
    stream::{FuturesUnordered, StreamExt},
};
use http::{HeaderValue, StatusCode, header::CONNECTION};
use hyper::{server::conn::http1::Builder, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh_core::mesh::Limits;
use std::{future::poll_fn, pin::Pin, sync::Arc, task::Poll};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

/// Serves requests; `read` was read before. Returns the connection when it rests: no request is under way, and none has come for a tick of
/// its watch. Then the caller keeps it for less memory than all that serves it takes. Cancelling it ends the request under way.
pub(super) async fn serve<T>(io: T, read: Bytes, front: &Arc<Frontend>, limits: &Limits) -> Option<(T, Bytes)>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let progress = Arc::new(Progress::default());
    let upgrades = Arc::new(Upgrades::default());
    let service = service_fn(|request| {
        let (ending, request_in) = (front.clone(), progress.request());
        // On the heap once, instead of moved about: it holds all that a request may come to need.
        Box::pin(handle(front.clone(), request, Some(upgrades.clone())).map_ok(move |mut response| {
            if response.status() != StatusCode::SWITCHING_PROTOCOLS && ending.is_ending() {
                // The client hears it before it sends again; a connection that was just closed might be in use.
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            drop(request_in);
            response
        }))
    });
    let mut connection = Builder::new()
        .timer(TokioTimer::new())
        // It would close kept-alive connections that wait for their next request; `Progress` bounds heads that have begun.
        .header_read_timeout(None)
        .max_buf_size((limits.header_bytes as usize).max(H1_BUFFER_MIN))
        .serve_connection(TokioIo::new(Gathered(Parting::new(progress.watch(io, read)))), service);
    // What seldom happens is polled only when it has happened, not with each step of the connection.
    let watch = Watch::new(Version::Http1, front, limits, &progress);
    let mut watching: FuturesUnordered<_> = [watch.next()].into_iter().collect();
    // Set when it was told to rest: how many requests it had had.
    let mut rests = None;
    let ended = poll_fn(|cx| {
        loop {
            let polled = match rests {
                None => Pin::new(&mut connection).poll(cx),
                Some(_) => connection.poll_without_shutdown(cx),
            };
            if let Poll::Ready(ended) = polled {
                return Poll::Ready(Some(ended));
            }
            match watching.poll_next_unpin(cx) {
                Poll::Ready(Some((Word::Leave, watch))) => {
                    Pin::new(&mut connection).graceful_shutdown();
                    watching.push(watch.next());
                }
                Poll::Ready(Some((Word::Rest, watch))) => {
                    // It ends at once, as no request is under way; or that one is its last.
                    rests = Some(progress.begun());
                    Pin::new(&mut connection).graceful_shutdown();
                    watching.push(watch.next());
                }
                Poll::Ready(Some((Word::Close, _)) | None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
    drop(watching);
    match ended {
        None => {
            tracing::debug!(peer = %front.peer, "client connection closed: idle, stalled, or drained");
            return None;
        }
        Some(Err(error)) => {
            tracing::debug!(peer = %front.peer, %error, "client connection ended");
            return None;
        }
        Some(Ok(())) => {}
    }
    let parts = connection.into_parts();
    let Gathered(mut parting) = parts.io.into_inner();
    if upgrades.is_switched() {
        upgrades.give(parting.into_inner().into_ahead(parts.read_buf));
        return None;
    }
    match rests {
        Some(before) if before == progress.begun() => {
            Some(parting.into_inner().into_ahead(parts.read_buf).into_parts())
        }
        // A request came in that moment, whose answer said that it was the last.
        Some(_) => {
            let _ = parting.shutdown().await;
            None
        }
        None => None,
    }
}
