//! The serving side of a connection between proxies: HTTP/2 streams handed out one by one, within bounds. It must not know what a stream asks for.

use super::{
    Open,
    limits::{FRAME, RESETS_MADE, RESETS_REMEMBERED, SEND_BUFFER, SERVER_IDLE, connection_window},
    ping, window,
};
use crate::{batch::Batch, parting::Parting, turn::Turn};
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
/// `limits.drain`. `lapsed` ends when the connection has outlived what it trusts; `open` is whose windows it shares. Cancelling it resets all streams.
pub async fn serve<T: AsyncRead + AsyncWrite + Unpin>(
    io: T,
    limits: &Limits,
    (stop, drain): (&CancellationToken, &CancellationToken),
    lapsed: impl Future<Output = ()>,
    open: &Open,
    mut each: impl FnMut(Request<RecvStream>, SendResponse<Bytes>),
) -> Result<(), Ended> {
    let mut size = open.window();
    let handshake = h2::server::Builder::new()
        .initial_window_size(size)
        .initial_connection_window_size(connection_window(limits.streams_per_connection))
        .max_concurrent_streams(limits.streams_per_connection)
        .max_header_list_size(limits.header_bytes)
        .max_frame_size(FRAME)
        .max_send_buffer_size(SEND_BUFFER)
        // A client that goes away takes all its streams along at once; those of others on the connection must not suffer for it.
        .max_pending_accept_reset_streams(limits.streams_per_connection as usize)
        .max_concurrent_reset_streams(RESETS_REMEMBERED)
        .max_local_error_reset_streams(RESETS_MADE)
        .handshake(Batch::new(Parting::new(io)));
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
    let mut turn = Turn::default();
    let (mut stage, mut cutting) = (Stage::Silent, false);
    let mut timer = std::pin::pin!(sleep_until(Instant::now() + limits.handshake));
    loop {
        tokio::select! {
            stream = turn.take(|cx| connection.poll_accept(cx)) => match stream {
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
                    // Refused while the peer has not confirmed the last change; the next stream tries again.
                    if let Some(other) = window::change(size, open.window())
                        && connection.set_initial_window_size(other).is_ok()
                    {
                        size = other;
                    }
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

#[cfg(test)]
mod tests {
    use super::{super::limits::*, *};
    use http::{Response, StatusCode};
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    /// A frame (RFC 9113 §4.1) of a stream.
    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// The next frame's type and stream.
    async fn next(io: &mut DuplexStream) -> (u8, u32) {
        let mut head = [0; 9];
        io.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        io.read_exact(&mut vec![0; length as usize]).await.unwrap();
        (head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]))
    }

    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;

    #[tokio::test]
    async fn bodies_that_come_after_their_answer_do_not_end_the_connection() {
        // More than HTTP/2 libraries forgive on one connection; the frames come when the streams they belong to are long forgotten.
        const STREAMS: u32 = 2500;
        let (mut peer, io) = tokio::io::duplex(1 << 20);
        tokio::spawn(async move {
            let (limits, never) = (Limits::default(), CancellationToken::new());
            let refuse = |_, mut respond: SendResponse<Bytes>| {
                let mut response = Response::new(());
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                respond.send_response(response, true).unwrap();
            };
            serve(io, &limits, (&never, &never), std::future::pending(), &Open::new(100), refuse).await
        });
        peer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        peer.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
        // POST, http, / by the static table; the authority `a` as a literal without indexing (RFC 7541 §6.2.2).
        let head = [0x83, 0x86, 0x84, 0x01, 0x01, b'a'];
        for stream in (1..).step_by(2).take(STREAMS as usize) {
            peer.write_all(&frame(HEADERS, 4, stream, &head)).await.unwrap();
            loop {
                match next(&mut peer).await {
                    (RST_STREAM, of) if of == stream => break,
                    (GOAWAY, _) => panic!("the connection was given up at stream {stream}"),
                    _ => {}
                }
            }
            if stream > 2 * 1200 {
                peer.write_all(&frame(DATA, 0, stream - 2 * 1200, b"late")).await.unwrap();
            }
        }
    }

    /// What a client may send on a new stream, asked until it is `wanted`.
    async fn window_becomes(send: &h2::client::SendRequest<Bytes>, wanted: u32) {
        for _ in 0..1000 {
            let request = Request::post("https://peer/").body(()).unwrap();
            let mut send = send.clone().ready().await.unwrap();
            let (response, mut body) = send.send_request(request, false).unwrap();
            body.reserve_capacity(2 * STREAM_WINDOW as usize);
            // Capacity comes in parts.
            let mut got = 0;
            while let Ok(Some(Ok(now))) = timeout(Duration::from_millis(20), poll_fn(|cx| body.poll_capacity(cx))).await
            {
                got = now;
            }
            body.send_reset(h2::Reason::CANCEL);
            drop(response);
            if got == wanted as usize {
                return;
            }
        }
        panic!("a stream's window does not become {wanted}");
    }

    #[tokio::test]
    async fn streams_of_a_pod_that_has_much_open_get_smaller_windows_until_it_has_little() {
        let open = Open::new(20_000);
        let (near, far) = tokio::io::duplex(1024 * 1024);
        let served = open.clone();
        tokio::spawn(async move {
            let stay = CancellationToken::new();
            let mut kept = Vec::new();
            let keep = |request, respond| kept.push((request, respond));
            serve(far, &Limits::default(), (&stay, &stay), std::future::pending(), &served, keep).await
        });
        let (send, connection) = h2::client::Builder::new()
            .max_send_buffer_size(2 * STREAM_WINDOW as usize)
            .handshake::<_, Bytes>(near)
            .await
            .unwrap();
        tokio::spawn(connection);
        window_becomes(&send, STREAM_WINDOW).await;
        let many: Vec<_> = (0..20_000).map(|_| open.place().unwrap()).collect();
        window_becomes(&send, STREAM_WINDOW_MIN).await;
        drop(many);
        window_becomes(&send, STREAM_WINDOW).await;
    }
}
