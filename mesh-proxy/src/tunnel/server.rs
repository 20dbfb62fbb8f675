//! The serving side of a connection between proxies: HTTP/2 streams handed out one by one, within bounds. It must not know what a stream asks for.

use super::{
    limits::{FRAME, SEND_BUFFER, SERVER_IDLE, STREAM_WINDOW, connection_window},
    ping,
};
use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::Request;
use mesh_core::mesh::Limits;
use std::future::Future;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Duration, Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

/// Why a peer's connection ended other than in peace.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// No HTTP/2 preface in time.
    #[error("the peer sent no HTTP/2 preface within {} ms", .0.as_millis())]
    NoPreface(Duration),
    /// Connected, but asked for nothing.
    #[error("the peer asked for nothing within {} ms", .0.as_millis())]
    NoRequest(Duration),
    /// Not HTTP/2, or the connection broke.
    #[error("HTTP/2 with the peer failed")]
    Http(#[source] h2::Error),
    /// See `ping::Silent`.
    #[error(transparent)]
    Silent(#[from] ping::Silent),
    /// Streams that did not end within the drain time were cut.
    #[error("cut: streams outlived the drain time of {} ms", .0.as_millis())]
    Drained(Duration),
    /// What the connection trusted is no more.
    #[error("cut: our certificate has ended and there is no new one")]
    Lapsed,
}

/// Longest life of streams to a pod that has left the mesh: it still lives, and they are not in the way of anything.
const RELEASED: Duration = Duration::from_secs(30 * 24 * 3600);

/// Serves streams by `each` until the peer leaves. `stop`: say GOAWAY and let living streams finish; `drain`: likewise, but within
/// `limits.drain`. `lapsed` ends when the connection has outlived what it trusts. Cancelling it resets all streams.
pub async fn serve<T: AsyncRead + AsyncWrite + Unpin>(
    io: T,
    limits: &Limits,
    (stop, drain): (&CancellationToken, &CancellationToken),
    lapsed: impl Future<Output = ()>,
    mut each: impl FnMut(Request<RecvStream>, SendResponse<Bytes>),
) -> Result<(), Ended> {
    let handshake = h2::server::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(connection_window(limits.streams_per_connection))
        .max_concurrent_streams(limits.streams_per_connection)
        .max_header_list_size(limits.header_bytes)
        .max_frame_size(FRAME)
        .max_send_buffer_size(SEND_BUFFER)
        .handshake(io);
    let mut connection = timeout(limits.handshake, handshake)
        .await
        .map_err(|_| Ended::NoPreface(limits.handshake))?
        .map_err(Ended::Http)?;
    let mut pings = connection.ping_pong();
    let silent = async {
        match &mut pings {
            Some(pings) => ping::watch(pings).await,
            None => std::future::pending().await,
        }
    };
    let mut silent = std::pin::pin!(silent);
    let mut lapsed = std::pin::pin!(lapsed);
    let (mut stage, mut cutting) = (Stage::Silent, false);
    let mut timer = std::pin::pin!(sleep_until(Instant::now() + limits.handshake));
    loop {
        tokio::select! {
            stream = connection.accept() => match stream {
                None => return Ok(()),
                Some(Err(e)) => return Err(Ended::Http(e)),
                Some(Ok((request, respond))) => {
                    if stage == Stage::Silent {
                        timer.as_mut().reset(Instant::now() + SERVER_IDLE);
                    }
                    if stage != Stage::Draining {
                        stage = Stage::Used;
                    }
                    each(request, respond);
                }
            },
            gone = &mut silent => return Err(gone.into()),
            () = &mut lapsed => return Err(Ended::Lapsed),
            // Who has just come gets the stream that it came for.
            () = stop.cancelled(), if matches!(stage, Stage::Used | Stage::Unused) => {
                connection.graceful_shutdown();
                stage = Stage::Draining;
                timer.as_mut().reset(Instant::now() + RELEASED);
            }
            () = drain.cancelled(), if !cutting && stage != Stage::Silent => {
                connection.graceful_shutdown();
                (stage, cutting) = (Stage::Draining, true);
                timer.as_mut().reset(Instant::now() + limits.drain);
            }
            () = &mut timer => match stage {
                Stage::Silent => return Err(Ended::NoRequest(limits.handshake)),
                Stage::Draining => return Err(Ended::Drained(limits.drain)),
                Stage::Unused if !connection.has_streams() => {
                    connection.graceful_shutdown();
                    stage = Stage::Draining;
                    timer.as_mut().reset(Instant::now() + limits.drain);
                }
                Stage::Unused | Stage::Used => {
                    stage = if connection.has_streams() { Stage::Used } else { Stage::Unused };
                    timer.as_mut().reset(Instant::now() + SERVER_IDLE);
                }
            },
        }
    }
}

/// Where a connection is in its life; the timer means something else in each.
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    /// Nothing was asked for yet.
    Silent,
    /// Something was asked for since the timer last fired.
    Used,
    /// Nothing was asked for and no stream was open when the timer last fired.
    Unused,
    /// GOAWAY was said.
    Draining,
}
