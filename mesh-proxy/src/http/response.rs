//! Response: the body that goes back to the client; it counts, keeps the time, and ends the request's record. It must not change bytes.

use super::{
    answer::GRPC_STATUS,
    body::{Body, BodyError},
    upload::Upload,
};
use crate::telemetry::RequestGuard;
use bytes::Bytes;
use http::{HeaderMap, Response, header::CONTENT_LENGTH};
use http_body::{Body as _, Frame, SizeHint};
use mesh_core::fault::Fault;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::time::{Instant, Sleep, sleep_until};

/// A response body with the record of its request. Dropped before its end, it notes that the client went away.
#[derive(Debug)]
pub struct ResponseBody {
    inner: Body,
    guard: Option<Box<RequestGuard>>,
    upload: Option<Arc<Upload>>,
    deadline: Option<(Pin<Box<Sleep>>, Fault)>,
    expected: Option<u64>,
    ended: bool,
}

/// When a response must be through, and which timeout that is.
pub type Deadline = Option<(Instant, Fault)>;

impl ResponseBody {
    /// Wraps the response to a request. `deadline`: what is left of the route's timeouts.
    pub fn wrap(
        response: Response<Body>,
        mut guard: Box<RequestGuard>,
        upload: Option<Arc<Upload>>,
        deadline: Deadline,
        no_body: bool,
    ) -> Response<Self> {
        guard.record.status = Some(response.status());
        note_grpc(&mut guard, response.headers());
        let expected = response.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
        response.map(|inner| {
            let ended = no_body || inner.is_end_stream();
            let mut body = Self {
                deadline: deadline.filter(|_| !ended).map(|(at, fault)| (Box::pin(sleep_until(at)), fault)),
                inner,
                guard: Some(guard),
                upload,
                expected,
                ended,
            };
            if ended && body.upload.is_none() {
                body.finish();
            }
            body
        })
    }

    /// A response without a record: one of the mesh itself before it knows anything, or the head of an upgrade.
    pub fn bare(response: Response<Body>) -> Response<Self> {
        response.map(|inner| Self { inner, guard: None, upload: None, deadline: None, expected: None, ended: true })
    }

    fn fail(&mut self, fault: Fault, detail: &dyn std::fmt::Display) {
        if let Some(guard) = &mut self.guard {
            guard.record.fail(fault, detail);
        }
        self.finish();
    }

    fn finish(&mut self) {
        self.ended = true;
        if let Some(mut guard) = self.guard.take() {
            guard.record.bytes_in = self.upload.as_ref().map_or(0, |u| u.received());
        }
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(guard) = &mut this.guard {
                    if let Some(data) = frame.data_ref() {
                        guard.record.bytes_out += data.len() as u64;
                    } else if let Some(trailers) = frame.trailers_ref() {
                        note_grpc(guard, trailers);
                    }
                }
                if frame.is_trailers() || this.inner.is_end_stream() {
                    this.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(e))) => {
                this.fail(Fault::UpstreamReset, &format_args!("in the middle of the response: {}", chain(&e)));
                Poll::Ready(Some(Err(e)))
            }
            Poll::Ready(None) => {
                this.finish();
                Poll::Ready(None)
            }
            Poll::Pending => {
                // A body that flows never touches the timer.
                if let Some((sleep, fault)) = &mut this.deadline
                    && sleep.as_mut().poll(cx).is_ready()
                {
                    let fault = *fault;
                    this.deadline = None;
                    this.inner = Body::Empty;
                    this.fail(fault, &"in the middle of the response");
                    return Poll::Ready(Some(Err(BodyError::Timeout(fault))));
                }
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if self.ended || self.guard.is_none() {
            return self.finish();
        }
        let sent = self.guard.as_ref().map_or(0, |g| g.record.bytes_out);
        // Who knows the length stops reading at the last byte.
        if self.inner.is_end_stream() || self.expected.is_some_and(|length| sent >= length) {
            return self.finish();
        }
        self.fail(Fault::ClientGone, &"before the end of the response");
    }
}

fn note_grpc(guard: &mut RequestGuard, headers: &HeaderMap) {
    if let Some(status) = headers.get(GRPC_STATUS) {
        guard.record.grpc_status = status.to_str().ok().and_then(|s| s.parse().ok());
    }
}

/// An error with its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let line = cause.to_string();
        if !text.ends_with(&line) {
            text.push_str(": ");
            text.push_str(&line);
        }
        next = cause.source();
    }
    text
}
