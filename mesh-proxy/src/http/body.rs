//! Body: the bodies that pass through the proxy, as one type. It must not buffer; `upload` does, within bounds.

use super::{
    mirror::MirrorBody,
    plain::{Pooled, Stream},
    upload::UploadReader,
};
use crate::tunnel::Lease;
use bytes::Bytes;
use h2::{Reason, RecvStream};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use mesh_core::fault::Fault;
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio_util::task::AbortOnDropHandle;

/// A request or response body on its way.
#[derive(Debug, Default)]
pub enum Body {
    /// Nothing.
    #[default]
    Empty,
    /// One chunk that is here already.
    Full(Bytes),
    /// From an h1 or h2 client of ours, or from an application by HTTP/1.1; the latter comes with the connection that it is read from.
    Incoming(Incoming, Option<Pooled>),
    /// An HTTP/2 stream between proxies, or from an application.
    Native(Native),
    /// A request body with its counters, replay buffer and mirrors.
    Upload(UploadReader),
    /// The copy of a request body for a mirror.
    Mirror(MirrorBody),
}

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The peer of a hyper connection.
    #[error(transparent)]
    Hyper(#[from] hyper::Error),
    /// The peer of a native stream.
    #[error(transparent)]
    Native(#[from] h2::Error),
    /// A timeout of the route ran out in the middle of a response.
    #[error("{} in the middle of the response", .0.label())]
    Timeout(Fault),
    /// A later attempt took the request body over.
    #[error("another attempt reads this request body")]
    Superseded,
    /// The mirror could not keep up with the request that it copies.
    #[error("the mirror is too slow for a copy of the request body")]
    MirrorBehind,
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let frame = ready!(self.as_mut().poll_any(cx));
            let empty = matches!(&frame, Some(Ok(frame)) if frame.data_ref().is_some_and(Bytes::is_empty));
            // An empty frame that ends nothing says nothing, and HTTP/2 peers give up a connection for a hundred of them.
            if !empty || self.is_end_stream() {
                return Poll::Ready(frame);
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(_) | Self::Mirror(_) => false,
            Self::Incoming(incoming, _) => incoming.is_end_stream(),
            Self::Native(native) => native.is_end(),
            Self::Upload(upload) => upload.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Incoming(incoming, _) => incoming.size_hint(),
            Self::Native(native) => native.size_hint(),
            Self::Upload(upload) => upload.size_hint(),
            Self::Mirror(_) => SizeHint::new(),
        }
    }
}

impl Body {
    fn poll_any(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Incoming(incoming, None) => http_body::Body::poll_frame(Pin::new(incoming), cx)
                .map(|next| next.map(|frame| frame.map_err(BodyError::Hyper))),
            Self::Incoming(incoming, pooled) => {
                let frame = ready!(pooled.as_mut().map_or(Poll::Ready(None), |pooled| pooled.poll_frame(incoming, cx)));
                if frame.is_none()
                    && let Some(pooled) = pooled.take()
                {
                    pooled.reusable();
                }
                Poll::Ready(frame)
            }
            Self::Native(native) => native.poll(cx),
            Self::Upload(upload) => upload.poll(cx),
            Self::Mirror(mirror) => mirror.poll(cx),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        // Whoever knows the length stops reading at the last byte and never sees the end: that body is whole too.
        if let Self::Incoming(incoming, pooled) = self
            && http_body::Body::is_end_stream(incoming)
            && let Some(pooled) = pooled.take()
        {
            pooled.reusable();
        }
    }
}

/// A stream's place on its connection; it is free again when the stream has ended in both directions.
#[derive(Debug)]
pub enum Place {
    /// On a connection between proxies.
    Peer(Lease),
    /// On a connection to an application.
    Application(Stream),
}

/// The receiving half of a native stream, with what must live as long as it.
#[derive(Debug)]
pub struct Native {
    stream: RecvStream,
    data_ended: bool,
    expected: Option<u64>,
    received: u64,
    /// The stream's place on its connection, and the task that still sends the request body. Both end with the response.
    _place: Option<Place>,
    _upload: Option<AbortOnDropHandle<()>>,
}

impl Native {
    /// Wraps a stream. `headers` are those of its head: a `content-length` makes the size known.
    pub fn new(
        stream: RecvStream,
        headers: &http::HeaderMap,
        place: Option<Place>,
        upload: Option<AbortOnDropHandle<()>>,
    ) -> Self {
        let expected =
            headers.get(http::header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
        Self { stream, data_ended: false, expected, received: 0, _place: place, _upload: upload }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if !self.data_ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // The window opens as the data goes on: who polls wants more.
                    let released = self.stream.flow_control().release_capacity(data.len());
                    self.received += data.len() as u64;
                    return Poll::Ready(Some(released.map(|()| Frame::data(data)).map_err(BodyError::Native)));
                }
                // RFC 9113 §8.1: after a complete response a server may reset with NO_ERROR to stop the request body.
                Some(Err(e)) if e.reason() == Some(Reason::NO_ERROR) => return Poll::Ready(None),
                Some(Err(e)) => return Poll::Ready(Some(Err(BodyError::Native(e)))),
                None => self.data_ended = true,
            }
        }
        match ready!(self.stream.poll_trailers(cx)) {
            Ok(Some(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Ok(None) => Poll::Ready(None),
            Err(e) if e.reason() == Some(Reason::NO_ERROR) => Poll::Ready(None),
            Err(e) => Poll::Ready(Some(Err(BodyError::Native(e)))),
        }
    }

    fn is_end(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.expected {
            _ if self.is_end() => SizeHint::with_exact(0),
            Some(expected) => SizeHint::with_exact(expected.saturating_sub(self.received)),
            None => SizeHint::new(),
        }
    }
}
