//! Retry: what may be repeated, after which pause, and within which budget. It must not send.

use crate::{
    fault::Fault,
    mesh::{Retry, RetryBudget},
};
use http::{Method, StatusCode};
use std::time::{Duration, Instant};

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A response head came.
    Response(StatusCode),
    /// None came.
    Failed(Fault),
}

/// Whether an attempt that ended so may be repeated by the rule's `retry` (not counting attempts, budget or body replay).
/// HTTPRouteRetry: codes are retried as listed; connection errors and unprocessed requests are retried whenever `retry` is set.
/// A reset after the request was sent is repeated only for idempotent methods.
pub fn may_repeat(_retry: &Retry, _method: &Method, _outcome: Outcome) -> bool {
    todo!("core")
}

/// The pause before retry number `retry` (1-based): exponential from the rule's base, capped, full jitter from `random`.
pub fn backoff(_base: Option<Duration>, _retry: u32, _random: u64) -> Duration {
    todo!("core")
}

/// Sliding window of requests and retries of one Service on this proxy (GEP-3388). Lock-free.
#[derive(Debug)]
pub struct Budget {
    rule: RetryBudget,
}

impl Budget {
    /// A new, empty window that starts at `now`'s epoch.
    pub fn new(rule: RetryBudget) -> Self {
        Self { rule }
    }

    /// Its parameters.
    pub fn rule(&self) -> &RetryBudget {
        &self.rule
    }

    /// Counts a request (first attempt) at `now`.
    pub fn request(&self, _now: Instant) {
        todo!("core")
    }

    /// Takes a retry at `now` if the budget has one. False: the client gets 503 ([`Fault::RetryBudget`]).
    pub fn take_retry(&self, _now: Instant) -> bool {
        todo!("core")
    }
}
