//! Mirror: a copy of a request, sent aside; its answer is read and thrown away. It must never slow the request that it copies.

use super::{
    body::{Body, BodyError},
    frontend::Frontend,
    outgoing::{Keep, Outgoing, Unsent},
    send::{Sent, send},
};
use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::BodyExt;
use mesh_core::{mesh::BackendTarget, snapshot::Snapshot};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Bytes of a request body that may wait for a mirror; a mirror that is further behind is given up.
const BEHIND_MAX: usize = 1024 * 1024;
/// Time that a mirrored request gets as a whole: nobody waits for it, but it holds memory.
const PATIENCE: Duration = Duration::from_secs(30);

/// The writing end of a copied body.
#[derive(Debug)]
pub struct Tap {
    frames: UnboundedSender<Piece>,
    behind: Arc<AtomicUsize>,
}

#[derive(Debug)]
enum Piece {
    Data(Bytes),
    End(Option<HeaderMap>),
}

/// The reading end of a copied body.
#[derive(Debug)]
pub struct MirrorBody {
    frames: UnboundedReceiver<Piece>,
    behind: Arc<AtomicUsize>,
    ended: bool,
}

/// A body to copy into and the copy.
pub fn copy() -> (Tap, MirrorBody) {
    let (send, frames) = unbounded_channel();
    let behind = Arc::new(AtomicUsize::new(0));
    (Tap { frames: send, behind: behind.clone() }, MirrorBody { frames, behind, ended: false })
}

impl Tap {
    /// Copies a chunk; false if the mirror is gone or too far behind, and gets nothing more.
    pub fn data(&self, data: &Bytes) -> bool {
        // The queue has no length of its own; its bytes are bounded here.
        let waiting = self.behind.fetch_add(data.len(), Ordering::Relaxed) + data.len();
        waiting <= BEHIND_MAX && self.frames.send(Piece::Data(data.clone())).is_ok()
    }

    /// The body is whole.
    pub fn end(self, trailers: Option<HeaderMap>) {
        // A mirror that is gone does not matter.
        let _ = self.frames.send(Piece::End(trailers));
    }
}

impl MirrorBody {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        match ready!(self.frames.poll_recv(cx)) {
            Some(Piece::Data(data)) => {
                self.behind.fetch_sub(data.len(), Ordering::Relaxed);
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Piece::End(trailers)) => {
                self.ended = true;
                Poll::Ready(trailers.map(|t| Ok(Frame::trailers(t))))
            }
            // Cut off without an end: the copy must not look whole.
            None => {
                self.ended = true;
                Poll::Ready(Some(Err(BodyError::MirrorBehind)))
            }
        }
    }
}

/// Sends a copy of a request to one endpoint of a backend, in a task of its own. A backend that is broken or has no endpoint gets none.
pub fn mirror(front: &Arc<Frontend>, snapshot: &Snapshot, to: &BackendTarget, outgoing: Box<Outgoing>, body: Body) {
    let BackendTarget::Service { service, port } = to else { return };
    let Some(endpoints) = snapshot.endpoints(service, *port) else { return };
    let Some(target) = endpoints.pick(rand::random(), Instant::now(), &[]).cloned() else { return };
    let Ok(permit) = front.local.upstreams().mirror() else { return };
    let protocol = front.protocol_of(snapshot, service, *port, &outgoing);
    let front = front.clone();
    let limits = snapshot.settings().limits.clone();
    tokio::spawn(async move {
        let _permit = permit;
        let whole = async {
            let mut head = Some(outgoing);
            let unsent = Unsent::new(&mut head, body, Keep::Never);
            let Sent { response, .. } = send(&front, &limits, &target, protocol, unsent).await?;
            let mut body = response.into_body();
            // "Responses from the mirror backend are ignored."
            while let Some(frame) = body.frame().await {
                if frame.is_err() {
                    break;
                }
            }
            Ok::<_, crate::tunnel::DialFault>(())
        };
        match tokio::time::timeout(PATIENCE, whole).await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => tracing::debug!(address = %target.address, %fault, "mirrored request failed"),
            Err(_) => tracing::debug!(address = %target.address, "mirrored request took too long"),
        }
    });
}
