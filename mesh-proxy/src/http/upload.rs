//! Upload: a request body that several may read: the attempts one after the other, each from the start, and mirrors beside them. What it keeps is bounded. It must not send.

use super::{
    body::{Body, BodyError},
    mirror::Tap,
};
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

/// A request body. Only the newest reader reads; older ones, of attempts that were given up, get an error.
#[derive(Debug)]
pub struct Upload {
    received: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    source: Body,
    kept: Option<Kept>,
    started: bool,
    ended: bool,
    trailers: Option<HeaderMap>,
    reader: u32,
    /// Kept chunks that the newest reader has read.
    next: usize,
    taps: SmallVec<[Tap; 1]>,
}

/// What was read so far, for the next attempt.
#[derive(Debug)]
struct Kept {
    chunks: Vec<Bytes>,
    bytes: usize,
    limit: usize,
}

impl Upload {
    /// Takes a body. `keep`: bytes that may be kept for later attempts; none: there will be one attempt.
    pub fn new(source: Body, keep: Option<usize>, taps: SmallVec<[Tap; 1]>) -> Arc<Self> {
        let kept = keep.map(|limit| Kept { chunks: Vec::new(), bytes: 0, limit });
        Arc::new(Self {
            received: AtomicU64::new(0),
            state: Mutex::new(State {
                source,
                kept,
                started: false,
                ended: false,
                trailers: None,
                reader: 0,
                next: 0,
                taps,
            }),
        })
    }

    /// Bytes that came from the client so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Whether another attempt can have the whole body.
    pub fn is_replayable(&self) -> bool {
        let state = self.state.lock();
        !state.started || state.kept.is_some()
    }

    /// There will be no other attempt: what was kept for it is freed.
    pub fn keep_no_more(&self) {
        let mut state = self.state.lock();
        let read = state.next;
        match &mut state.kept {
            // Not all of it was read again yet.
            Some(kept) if read < kept.chunks.len() => kept.limit = 0,
            _ => state.kept = None,
        }
    }

    /// A reader from the start; readers before it end. None if what was read is not kept any more.
    pub fn reader(self: &Arc<Self>) -> Option<UploadReader> {
        let mut state = self.state.lock();
        if state.started && state.kept.is_none() {
            return None;
        }
        state.reader += 1;
        state.next = 0;
        let kept = state.kept.as_ref().map_or(0, |k| k.bytes) as u64;
        let remaining = state.source.size_hint().exact().map(|rest| rest + kept);
        Some(UploadReader { upload: self.clone(), number: state.reader, remaining, done: false })
    }
}

/// Reads an [`Upload`] for one attempt.
#[derive(Debug)]
pub struct UploadReader {
    upload: Arc<Upload>,
    number: u32,
    remaining: Option<u64>,
    done: bool,
}

impl UploadReader {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.done {
            return Poll::Ready(None);
        }
        let mut state = self.upload.state.lock();
        if state.reader != self.number {
            self.done = true;
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        if let Some(chunk) = state.kept.as_ref().and_then(|k| k.chunks.get(state.next)).cloned() {
            state.next += 1;
            self.remaining = self.remaining.map(|r| r.saturating_sub(chunk.len() as u64));
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        if state.ended {
            self.done = true;
            return Poll::Ready(state.trailers.clone().map(|t| Ok(Frame::trailers(t))));
        }
        state.started = true;
        let frame = ready!(Pin::new(&mut state.source).poll_frame(cx));
        let frame = match frame {
            None => {
                state.end(None);
                self.done = true;
                return Poll::Ready(None);
            }
            Some(Err(e)) => {
                // The client broke off: no attempt can ever have the whole body, and no mirror either.
                state.kept = None;
                state.taps.clear();
                self.done = true;
                return Poll::Ready(Some(Err(e)));
            }
            Some(Ok(frame)) => frame,
        };
        match frame.into_data() {
            Ok(data) => {
                self.upload.received.fetch_add(data.len() as u64, Ordering::Relaxed);
                self.remaining = self.remaining.map(|r| r.saturating_sub(data.len() as u64));
                state.keep(&data);
                state.taps.retain(|tap| tap.data(&data));
                if state.source.is_end_stream() {
                    state.end(None);
                    self.done = true;
                }
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Err(frame) => {
                let trailers = frame.into_trailers().ok();
                state.end(trailers.clone());
                self.done = true;
                Poll::Ready(trailers.map(|t| Ok(Frame::trailers(t))))
            }
        }
    }

    pub(super) fn is_end(&self) -> bool {
        self.done
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

impl State {
    /// Keeps a chunk that was just read. A body that grows over the limit is not kept at all.
    fn keep(&mut self, data: &Bytes) {
        let Some(kept) = &mut self.kept else { return };
        if kept.bytes + data.len() > kept.limit {
            self.kept = None;
            return;
        }
        kept.bytes += data.len();
        kept.chunks.push(data.clone());
        self.next += 1;
    }

    fn end(&mut self, trailers: Option<HeaderMap>) {
        self.ended = true;
        for tap in self.taps.drain(..) {
            tap.end(trailers.clone());
        }
        self.trailers = trailers;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    /// Yields the given chunks one poll after the other.
    fn source(chunks: &[&'static str]) -> Body {
        let (tap, body) = crate::http::mirror::copy();
        for chunk in chunks {
            assert!(tap.data(&Bytes::from_static(chunk.as_bytes())));
        }
        tap.end(Some(HeaderMap::from_iter([(
            http::HeaderName::from_static("t"),
            http::HeaderValue::from_static("1"),
        )])));
        Body::Mirror(body)
    }

    async fn read(reader: UploadReader) -> Result<(Bytes, bool), BodyError> {
        let collected = Body::Upload(reader).collect().await?;
        let trailers = collected.trailers().is_some();
        Ok((collected.to_bytes(), trailers))
    }

    #[tokio::test]
    async fn a_second_attempt_reads_the_whole_body_again_with_its_trailers() {
        let upload = Upload::new(source(&["ab", "cd"]), Some(4), SmallVec::new());
        for _ in 0..3 {
            assert!(upload.is_replayable());
            assert_eq!(read(upload.reader().unwrap()).await.unwrap(), (Bytes::from_static(b"abcd"), true));
        }
        assert_eq!(upload.received(), 4, "what is replayed does not count twice");
    }

    #[tokio::test]
    async fn an_attempt_that_broke_off_in_the_middle_hands_the_rest_to_the_next() {
        let upload = Upload::new(source(&["ab", "cd"]), Some(100), SmallVec::new());
        let mut first = Body::Upload(upload.reader().unwrap());
        assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap(), "ab");
        let second = upload.reader().unwrap();
        assert!(matches!(first.frame().await, Some(Err(BodyError::Superseded))));
        assert_eq!(read(second).await.unwrap().0, "abcd");
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_sent_once() {
        let upload = Upload::new(source(&["ab", "cd", "e"]), Some(4), SmallVec::new());
        assert_eq!(read(upload.reader().unwrap()).await.unwrap().0, "abcde");
        assert!(!upload.is_replayable());
        assert!(upload.reader().is_none());
    }

    #[tokio::test]
    async fn what_is_not_kept_any_more_is_read_to_its_end_all_the_same() {
        let upload = Upload::new(source(&["ab", "cd", "ef"]), Some(100), SmallVec::new());
        let mut first = Body::Upload(upload.reader().unwrap());
        for chunk in ["ab", "cd"] {
            assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap(), chunk);
        }
        let second = upload.reader().unwrap();
        upload.keep_no_more();
        assert_eq!(read(second).await.unwrap().0, "abcdef");
        assert!(!upload.is_replayable());
    }

    #[tokio::test]
    async fn a_body_that_nobody_touched_can_be_sent_even_if_it_is_not_kept() {
        let upload = Upload::new(source(&["ab"]), None, SmallVec::new());
        drop(upload.reader().unwrap());
        assert!(upload.is_replayable());
        assert_eq!(read(upload.reader().unwrap()).await.unwrap().0, "ab");
        assert!(!upload.is_replayable());
    }

    #[tokio::test]
    async fn a_mirror_gets_a_copy_and_replays_do_not_reach_it() {
        let (tap, copy) = crate::http::mirror::copy();
        let upload = Upload::new(source(&["ab", "cd"]), Some(100), SmallVec::from_iter([tap]));
        read(upload.reader().unwrap()).await.unwrap();
        read(upload.reader().unwrap()).await.unwrap();
        let collected = Body::Mirror(copy).collect().await.unwrap();
        assert!(collected.trailers().is_some());
        assert_eq!(collected.to_bytes(), "abcd");
    }
}
