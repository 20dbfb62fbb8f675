//! An httpGet probe or hook: one request head, the application's short answer, the end. It must not pass on what the caller says.

use super::{ANSWER, Door, late, refused, tls};
use crate::tunnel::DialFault;
use bytes::{Bytes, BytesMut};
use http::{Request, Response, header::CONTENT_TYPE};
use http_body::Body;
use http_body_util::{BodyExt, Empty, Full};
use hyper::{body::Incoming, client, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh_core::fault::Fault;
use parking_lot::Mutex;
use std::pin::pin;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

/// Bytes of an answer that are passed on; a kubelet reads 10 KiB.
const ANSWER_BYTES: usize = 16 * 1024;

/// HTTP/1.1 buffers cannot be smaller than this.
const BUFFER_MIN: usize = 8192;

/// Serves one request. What follows it is never read.
pub(super) async fn serve<T>(io: T, tls: bool, door: &Door<'_>) -> Result<(), DialFault>
where
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    let outcome = Mutex::new(None);
    let service = service_fn(|request| async {
        let answered = answer(request, tls, door).await;
        // An error makes hyper close without a word.
        *outcome.lock() = Some(answered.as_ref().map(drop).map_err(Clone::clone));
        answered
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .header_read_timeout(door.limits.handshake)
        .max_buf_size((door.limits.header_bytes as usize).max(BUFFER_MIN))
        .serve_connection(TokioIo::new(io), service);
    let ended = timeout(ANSWER, connection).await.map_err(|_| late("the probe was not answered"))?;
    match (outcome.into_inner(), ended) {
        (Some(answered), _) => answered,
        (None, Err(error)) => Err(DialFault::new(Fault::BadRequest, error)),
        (None, Ok(())) => Err(Fault::ClientGone.into()),
    }
}

async fn answer(request: Request<Incoming>, tls: bool, door: &Door<'_>) -> Result<Response<Full<Bytes>>, DialFault> {
    let (asked, body) = request.into_parts();
    if !body.is_end_stream() {
        return Err(refused("a probe has no body"));
    }
    let request = door.permit.http(&asked, tls).map_err(|_| refused("no probe of this port is this request"))?;
    let stream = door.application().await?;
    if tls {
        ask(tls::connect(stream, door.permit.destination().ip(), door.limits.handshake).await?, request).await
    } else {
        ask(stream, request).await
    }
}

/// The application's status and the beginning of its body.
async fn ask<T>(io: T, request: Request<()>) -> Result<Response<Full<Bytes>>, DialFault>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |e: hyper::Error| DialFault::new(Fault::UpstreamReset, e);
    let (mut sender, connection) =
        client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(io)).await.map_err(broken)?;
    let asked = async {
        let response = sender.send_request(request.map(|()| Empty::new())).await.map_err(broken)?;
        let (parts, mut body) = response.into_parts();
        let mut kept = BytesMut::new();
        while kept.len() < ANSWER_BYTES {
            match body.frame().await {
                None => break,
                Some(Err(error)) => return Err(broken(error)),
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    kept.extend_from_slice(&data[..data.len().min(ANSWER_BYTES - kept.len())]);
                }
            }
        }
        // Of the head, only what a kubelet reads. Without a Location it takes a redirect for what it is, a success, instead of asking for a
        // path that nobody has said may be asked for.
        let mut answer = Response::new(Full::new(kept.freeze()));
        *answer.status_mut() = parts.status;
        if let Some(kind) = parts.headers.get(CONTENT_TYPE) {
            answer.headers_mut().insert(CONTENT_TYPE, kind.clone());
        }
        Ok(answer)
    };
    let (mut asked, mut connection) = (pin!(asked), pin!(connection));
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            done = &mut asked => return done,
            // Its end reaches the request; what was read before is still to be taken.
            _ = &mut connection, if open => open = false,
        }
    }
}
