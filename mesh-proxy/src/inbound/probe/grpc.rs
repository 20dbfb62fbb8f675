//! A grpc probe: one `Health/Check` over HTTP/2 with prior knowledge, and its answer. It must not pass on what the caller says.

use super::{ANSWER, Door, late, refused};
use crate::tunnel::DialFault;
use bytes::Bytes;
use h2::{Reason, RecvStream, client, server, server::SendResponse};
use http::{HeaderMap, HeaderName, Request, Response, header::CONTENT_TYPE};
use mesh_core::{decide::health_check_max, fault::Fault};
use std::{future::poll_fn, pin::pin};
use tokio::{net::TcpStream, time::timeout};

/// Bytes of an answer: a frame head and one enum field take seven.
const ANSWER_BYTES: usize = 64;

/// What a kubelet reads of heads and trailers.
const KEPT: [HeaderName; 3] =
    [CONTENT_TYPE, HeaderName::from_static("grpc-status"), HeaderName::from_static("grpc-message")];

/// Serves one call.
pub(super) async fn serve(stream: TcpStream, door: &Door<'_>) -> Result<(), DialFault> {
    let wait = door.limits.handshake;
    let handshake = server::Builder::new()
        .max_concurrent_streams(1)
        .max_header_list_size(door.limits.header_bytes)
        .handshake::<_, Bytes>(stream);
    let gone = |e: h2::Error| DialFault::new(Fault::ClientGone, e);
    let bad = |e: h2::Error| DialFault::new(Fault::BadRequest, e);
    let mut connection = timeout(wait, handshake).await.map_err(|_| late("no HTTP/2 preface in time"))?.map_err(bad)?;
    let first = timeout(wait, connection.accept()).await.map_err(|_| late("no call in time"))?;
    let (request, respond) = first.ok_or(Fault::ClientGone)?.map_err(bad)?;
    let done = {
        let mut call = pin!(timeout(ANSWER, call(request, respond, door)));
        loop {
            tokio::select! {
                done = &mut call => break done.map_err(|_| late("the probe was not answered"))?,
                next = connection.accept() => match next {
                    Some(Ok((_, mut more))) => more.send_reset(Reason::REFUSED_STREAM),
                    Some(Err(error)) => return Err(gone(error)),
                    None => return Err(Fault::ClientGone.into()),
                },
            }
        }
    };
    connection.graceful_shutdown();
    // Whether the kubelet reads to the end is its own business.
    let _ = timeout(wait, poll_fn(|cx| connection.poll_closed(cx))).await;
    done
}

async fn call(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    door: &Door<'_>,
) -> Result<(), DialFault> {
    let refuse = |respond: &mut SendResponse<Bytes>, why| {
        respond.send_reset(Reason::REFUSED_STREAM);
        Err(refused(why))
    };
    let gone = |e: h2::Error| DialFault::new(Fault::ClientGone, e);
    let (asked, mut body) = request.into_parts();
    let most = health_check_max(&door.permit);
    let mut message = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(gone)?;
        message.extend_from_slice(&chunk);
        if message.len() > most {
            return refuse(&mut respond, "longer than a health check of this port");
        }
        // Fails only when more is released than was received, and we release what we took.
        let _ = body.flow_control().release_capacity(chunk.len());
    }
    let Ok((request, message)) = door.permit.grpc(&asked, &message) else {
        return refuse(&mut respond, "no probe of this port is this call");
    };
    let stream = door.application().await?;
    let answer = ask(stream, request, message.into()).await?;
    let mut head = Response::new(());
    *head.status_mut() = answer.head.0;
    *head.headers_mut() = answer.head.1;
    let (empty, trailers) = (answer.message.is_empty(), answer.trailers);
    let mut send = respond.send_response(head, empty && trailers.is_none()).map_err(gone)?;
    if !empty {
        send.send_data(answer.message, trailers.is_none()).map_err(gone)?;
    }
    match trailers {
        Some(trailers) => send.send_trailers(trailers).map_err(gone),
        None => Ok(()),
    }
}

struct Answer {
    head: (http::StatusCode, HeaderMap),
    message: Bytes,
    trailers: Option<HeaderMap>,
}

async fn ask(stream: TcpStream, request: Request<()>, message: Bytes) -> Result<Answer, DialFault> {
    let broken = |e: h2::Error| DialFault::new(Fault::UpstreamReset, e);
    let (mut sender, connection) = client::handshake(stream).await.map_err(broken)?;
    let asked = async {
        poll_fn(|cx| sender.poll_ready(cx)).await.map_err(broken)?;
        let (response, mut send) = sender.send_request(request, false).map_err(broken)?;
        send.send_data(message, true).map_err(broken)?;
        let (parts, mut body) = response.await.map_err(broken)?.into_parts();
        let mut message = Vec::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk.map_err(broken)?;
            message.extend_from_slice(&chunk);
            if message.len() > ANSWER_BYTES {
                return Err(DialFault::new(Fault::UpstreamProtocol, "longer than the answer to a health check"));
            }
        }
        let trailers = body.trailers().await.map_err(broken)?.map(|t| kept(&t));
        Ok(Answer { head: (parts.status, kept(&parts.headers)), message: message.into(), trailers })
    };
    let (mut asked, mut connection) = (pin!(asked), pin!(connection));
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            done = &mut asked => return done,
            _ = &mut connection, if open => open = false,
        }
    }
}

fn kept(from: &HeaderMap) -> HeaderMap {
    KEPT.iter().filter_map(|name| Some((name.clone(), from.get(name)?.clone()))).collect()
}
