//! A ready stream slot of a pooled connection, and the count of streams in use. It must not outlive its stream.

use super::Open;
use bytes::Bytes;
use h2::client::SendRequest;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The right to open one stream on a pooled connection. Dropping it unused gives it back.
#[derive(Debug)]
pub struct Slot {
    send: SendRequest<Bytes>,
    lease: Lease,
}

/// One stream in use. Keep it until the stream has ended in both directions (beside the response body); dropping it gives the slot back.
#[derive(Debug)]
pub struct Lease {
    streams: Arc<AtomicUsize>,
    open: Arc<Open>,
}

impl Slot {
    pub(super) fn new(send: SendRequest<Bytes>, lease: Lease) -> Self {
        Self { send, lease }
    }

    /// Who opens the stream, and the stream's place.
    pub fn into_parts(self) -> (SendRequest<Bytes>, Lease) {
        (self.send, self.lease)
    }
}

impl Lease {
    /// Takes one of `most` streams, if one is free.
    pub(super) fn take(streams: &Arc<AtomicUsize>, most: usize, open: &Arc<Open>) -> Option<Self> {
        let more = |used| (used < most).then_some(used + 1);
        streams.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        open.stream_begins();
        Some(Self { streams: streams.clone(), open: open.clone() })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.streams.fetch_sub(1, Ordering::AcqRel);
        self.open.stream_ended();
    }
}
