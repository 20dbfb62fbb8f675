//! Classify: which ends of an attempt may be repeated. It must not count attempts or look at budgets and bodies.

use crate::{fault::Fault, mesh::Retry};
use http::{Method, StatusCode};

/// Endpoints that are tried for one request or connection while none is reached, though nobody asked for retries: what is left then is more
/// likely our own trouble than theirs.
pub const REACHES: u32 = 3;

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
pub fn may_repeat(retry: &Retry, method: &Method, outcome: Outcome) -> bool {
    // "An explicit zero value MUST disable retries."
    if retry.attempts == 0 {
        return false;
    }
    let listed = |status: StatusCode| retry.codes.contains(&status.as_u16());
    match outcome {
        Outcome::Response(status) => listed(status),
        Outcome::Failed(fault) if fault.unprocessed() => true,
        // "any retry attempts which reach the configured BackendRequest timeout … SHOULD schedule the next retry attempt". The backend
        // may have acted on it, so that whoever lists 504 says that this is safe for any method.
        Outcome::Failed(Fault::BackendTimeout) => method.is_idempotent() || listed(StatusCode::GATEWAY_TIMEOUT),
        Outcome::Failed(Fault::UpstreamReset) => method.is_idempotent(),
        // Nothing went wrong between us and an endpoint, or repeating would end the same.
        Outcome::Failed(_) => false,
    }
}

/// Where an attempt may be made anew though it is no retry: no upstream has begun to process the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anew {
    /// At any endpoint, also the same one.
    Anywhere,
    /// Only at one that was not tried yet, which may be another address of the same workload.
    OtherAddress,
    /// Only at one of a workload that was not tried yet.
    OtherWorkload,
}

/// Whether an attempt that ended so may be made anew without counting as a retry (not looking at [`REACHES`] and body replay).
/// `retry`: what the rule says about retries, also if it forbids them; none: nothing.
pub fn may_begin_anew(retry: Option<&Retry>, outcome: Outcome) -> Option<Anew> {
    match outcome {
        // RFC 9113 §8.7: "Requests that have not been processed have not failed; clients MAY automatically retry them, even those with
        // non-idempotent methods." A peer refuses streams when it goes away: who dials it again finds its successor.
        Outcome::Failed(Fault::StreamRefused) => Some(Anew::Anywhere),
        // Who says how often to retry gets exactly that. HTTPRouteRetry.attempts: "An explicit zero value MUST disable retries."
        Outcome::Failed(Fault::ConnectFailed) if retry.is_none() => Some(Anew::OtherAddress),
        // Whoever is at one of its addresses is at the others, and another wait for the dead would double the client's.
        Outcome::Failed(Fault::ConnectTimeout | Fault::PeerIdentity) if retry.is_none() => Some(Anew::OtherWorkload),
        Outcome::Failed(_) | Outcome::Response(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry(attempts: u32, codes: &[u16]) -> Retry {
        Retry { attempts, codes: codes.to_vec(), backoff: None }
    }

    #[test]
    fn listed_codes_are_repeated_for_any_method_and_others_are_not() {
        let response = |code| Outcome::Response(StatusCode::from_u16(code).unwrap());
        for method in [Method::GET, Method::POST] {
            assert!(may_repeat(&retry(1, &[500, 503]), &method, response(503)));
            assert!(!may_repeat(&retry(1, &[500, 503]), &method, response(502)));
            assert!(!may_repeat(&retry(1, &[]), &method, response(500)));
        }
    }

    #[test]
    fn zero_attempts_disable_retries() {
        assert!(!may_repeat(&retry(0, &[503]), &Method::GET, Outcome::Response(StatusCode::SERVICE_UNAVAILABLE)));
        assert!(!may_repeat(&retry(0, &[]), &Method::GET, Outcome::Failed(Fault::ConnectFailed)));
    }

    #[test]
    fn what_was_never_processed_is_repeated_for_any_method() {
        for fault in [Fault::ConnectFailed, Fault::ConnectTimeout, Fault::StreamRefused] {
            assert!(may_repeat(&retry(1, &[]), &Method::POST, Outcome::Failed(fault)), "{fault:?}");
        }
    }

    #[test]
    fn what_reached_nobody_begins_anew_unless_the_rule_speaks_of_retries() {
        for (fault, anew) in [
            (Fault::ConnectFailed, Anew::OtherAddress),
            (Fault::ConnectTimeout, Anew::OtherWorkload),
            (Fault::PeerIdentity, Anew::OtherWorkload),
        ] {
            assert_eq!(may_begin_anew(None, Outcome::Failed(fault)), Some(anew), "{fault:?}");
            for attempts in [0, 1] {
                assert_eq!(may_begin_anew(Some(&retry(attempts, &[])), Outcome::Failed(fault)), None, "{fault:?}");
            }
        }
        for outcome in [Outcome::Failed(Fault::UpstreamReset), Outcome::Response(StatusCode::SERVICE_UNAVAILABLE)] {
            assert_eq!(may_begin_anew(None, outcome), None, "{outcome:?}");
        }
    }

    #[test]
    fn a_refused_stream_has_not_failed() {
        for rule in [None, Some(&retry(0, &[]))] {
            assert_eq!(may_begin_anew(rule, Outcome::Failed(Fault::StreamRefused)), Some(Anew::Anywhere));
        }
    }

    #[test]
    fn a_reset_or_timeout_is_repeated_only_where_repeating_is_safe() {
        for fault in [Fault::UpstreamReset, Fault::BackendTimeout] {
            assert!(may_repeat(&retry(1, &[]), &Method::PUT, Outcome::Failed(fault)), "{fault:?}");
            assert!(!may_repeat(&retry(1, &[]), &Method::POST, Outcome::Failed(fault)), "{fault:?}");
        }
        assert!(may_repeat(&retry(1, &[504]), &Method::POST, Outcome::Failed(Fault::BackendTimeout)));
    }

    #[test]
    fn faults_that_are_not_an_endpoints_are_not_repeated() {
        for fault in [Fault::RequestTimeout, Fault::NoEndpoint, Fault::BrokenBackend, Fault::ClientGone, Fault::Limit] {
            assert!(!may_repeat(&retry(5, &[503, 504]), &Method::GET, Outcome::Failed(fault)), "{fault:?}");
        }
    }
}
