//! Exchange: a request and its response on an HTTP/2 stream of their own, to the proxy of an endpoint or to an application. It must not dial, pool or retry.

use super::{
    body::{Body, Native, Place},
    pump::{PumpError, pump},
};
use crate::tunnel::{DialFault, is_refused};
use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, Response};
use http_body::Body as _;
use mesh_core::fault::Fault;
use std::{future::poll_fn, pin::Pin, task::Poll};
use tokio_util::task::AbortOnDropHandle;

/// Bytes of a body that may go with their head: before it has written the head, the HTTP/2 library gives the stream no part of the window, and who
/// waits for one sends head and bytes one after the other: two records, two system calls, two segments.
const WITH_HEAD: usize = 16 * 1024;

/// Sends a request by a ready `sender` and waits for the response head. `place` is the stream's, until the response is through. Cancelling it resets the stream.
pub async fn exchange(
    mut sender: SendRequest<Bytes>,
    place: Place,
    request: Request<()>,
    body: Body,
) -> Result<Response<Body>, DialFault> {
    if !body.is_end_stream() {
        return Box::pin(with_body(sender, place, request, body)).await;
    }
    let (response, _) = sender.send_request(request, true).map_err(not_sent)?;
    // Who can send keeps a connection alive.
    drop(sender);
    let (head, stream) = response.await.map_err(failed)?.into_parts();
    let native = Native::new(stream, &head.headers, Some(place), None);
    Ok(Response::from_parts(head, Body::Native(native)))
}

/// The body is sent from here until the response head comes; only what is left then needs a task.
async fn with_body(
    mut sender: SendRequest<Bytes>,
    place: Place,
    request: Request<()>,
    body: Body,
) -> Result<Response<Body>, DialFault> {
    let (mut response, stream) = sender.send_request(request, false).map_err(not_sent)?;
    drop(sender);
    let mut upload = Some(Box::pin(pump(body, stream, WITH_HEAD, |_| ())));
    let head = poll_fn(|cx| {
        // The response first: a server may answer without reading the body.
        if let Poll::Ready(head) = Pin::new(&mut response).poll(cx) {
            return Poll::Ready(head.map_err(failed));
        }
        if let Some(pumping) = &mut upload
            && let Poll::Ready(done) = pumping.as_mut().poll(cx)
        {
            upload = None;
            if let Err(PumpError::Source(error)) = done {
                return Poll::Ready(Err(DialFault::new(Fault::ClientGone, error)));
            }
            // Any other failure is the peer's, and its response or reset says what it means.
        }
        Poll::Pending
    })
    .await?;
    let upload = upload.map(|pumping| {
        AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(error) = pumping.await {
                tracing::debug!(%error, "the rest of a request body was not sent");
            }
        }))
    });
    let (head, stream) = head.into_parts();
    let native = Native::new(stream, &head.headers, Some(place), upload);
    Ok(Response::from_parts(head, Body::Native(native)))
}

/// The connection ended between our getting the place and our use of it.
fn not_sent(error: h2::Error) -> DialFault {
    DialFault::new(Fault::StreamRefused, error)
}

fn failed(error: h2::Error) -> DialFault {
    DialFault::new(fault_of_stream(&error), error)
}

/// What a failed stream means.
pub fn fault_of_stream(error: &h2::Error) -> Fault {
    match error.reason() {
        _ if is_refused(error) => Fault::StreamRefused,
        _ if error.is_remote() || error.is_io() => Fault::UpstreamReset,
        _ => Fault::UpstreamProtocol,
    }
}
