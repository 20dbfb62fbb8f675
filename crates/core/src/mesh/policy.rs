//! Policies lowered to what they mean for one Service. It must not know which user object won a conflict; the planner settled that.

use crate::name::{NsName, ServiceId};
use std::time::Duration;

/// What an `XBackendTrafficPolicy` means for its targets.
#[derive(Clone, Debug, PartialEq)]
pub struct TrafficPolicy {
    /// The policy object.
    pub id: NsName,
    /// Services it governs after conflicts were settled (oldest wins); sorted.
    pub targets: Vec<ServiceId>,
    /// Retry budget, if it has one.
    pub retry_budget: Option<RetryBudget>,
}

/// XBackendTrafficPolicy.spec.retryConstraint (GEP-3388).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// Highest share of requests within `interval` that may be retries, 0 to 100.
    pub percent: u8,
    /// The sliding window, 1 s to 1 h.
    pub interval: Duration,
    /// Retries that are always allowed: `min_retries` per `min_interval`.
    pub min_retries: u32,
    /// Interval of `min_retries`.
    pub min_interval: Duration,
}

impl Default for RetryBudget {
    /// The CRD's defaults: budget {interval: 10s, percent: 20}, minRetryRate {count: 10, interval: 1s}.
    fn default() -> Self {
        Self { percent: 20, interval: Duration::from_secs(10), min_retries: 10, min_interval: Duration::from_secs(1) }
    }
}
