//! An API server made of a closure, for tests of who speaks to one. It must not know kinds; the closure does.

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{Method, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use std::{convert::Infallible, pin::Pin, sync::Arc};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

/// A request as the closure sees it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) body: Value,
}

impl Asked {
    pub(crate) fn is_watch(&self) -> bool {
        self.query.contains("watch=true")
    }
}

/// What it answers.
pub(crate) enum Answer {
    /// A status code and a body.
    Json(u16, Value),
    /// The lines of a watch, until the sender is dropped.
    Lines(mpsc::UnboundedReceiver<String>),
    /// The connection breaks.
    Broken,
}

impl Answer {
    /// An error as the API server says it.
    pub(crate) fn status(code: u16) -> Self {
        let reason = match code {
            403 => "Forbidden",
            404 => "NotFound",
            409 => "Conflict",
            410 => "Expired",
            429 => "TooManyRequests",
            _ => "InternalError",
        };
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": format!("is {code}"), "reason": reason, "code": code});
        Self::Json(code, status)
    }

    /// A watch, and what makes it say something.
    pub(crate) fn watch() -> (mpsc::UnboundedSender<String>, Self) {
        let (sender, lines) = mpsc::unbounded_channel();
        (sender, Self::Lines(lines))
    }
}

/// A line of a watch.
pub(crate) fn event(kind: &str, object: &Value) -> String {
    json!({"type": kind, "object": object}).to_string()
}

type Chunks = Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>;

/// A client of a server that answers like this.
pub(crate) fn client(answer: impl Fn(Asked) -> Answer + Send + Sync + 'static) -> Client {
    let answer = Arc::new(answer);
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let answer = answer.clone();
        async move {
            let (parts, body) = request.into_parts();
            let bytes = body.collect().await.map_err(|_| "the request has no body")?.to_bytes();
            let asked = Asked {
                method: parts.method,
                path: parts.uri.path().to_owned(),
                query: parts.uri.query().unwrap_or_default().to_owned(),
                body: serde_json::from_slice(&bytes).unwrap_or_default(),
            };
            let frame = |text: String| Ok(Frame::data(Bytes::from(text)));
            let (code, chunks): (u16, Chunks) = match answer(asked) {
                Answer::Json(code, body) => (code, Box::pin(stream::iter([frame(body.to_string())]))),
                Answer::Lines(lines) => {
                    (200, Box::pin(UnboundedReceiverStream::new(lines).map(move |line| frame(line + "\n"))))
                }
                Answer::Broken => return Err("the connection broke"),
            };
            let response = Response::builder().status(code).body(StreamBody::new(chunks));
            response.map_err(|_| "a response that cannot be")
        }
    });
    Client::new(service, "default")
}
