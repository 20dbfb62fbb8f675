//! Backoff: how long to wait before a retry. It must not wait.

use std::time::Duration;

/// Base of the backoff when the rule has none: long enough to let a burst pass, too short for a user to notice.
pub const BACKOFF_BASE: Duration = Duration::from_millis(25);

/// Longest pause, unless the rule's own base is longer: "an implementation-defined maximum, which SHOULD NOT be less than the base".
pub const BACKOFF_CAP: Duration = Duration::from_secs(2);

/// The pause before retry number `retry` (1-based): exponential from the rule's base, capped, with jitter from `random`.
///
/// Half of the pause is fixed and half is random: retries of many clients spread, yet none follows the failure at once, which a base that
/// a user wrote down forbids. A base of zero means no pause.
pub fn backoff(base: Option<Duration>, retry: u32, random: u64) -> Duration {
    let base = base.unwrap_or(BACKOFF_BASE);
    let doubled = base.saturating_mul(2u32.saturating_pow(retry.saturating_sub(1).min(31)));
    let half = doubled.min(BACKOFF_CAP.max(base)) / 2;
    half + half.mul_f64(random as f64 / u64::MAX as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn pauses_double_between_half_and_whole() {
        for (retry, whole) in [(1, 100), (2, 200), (3, 400)] {
            assert_eq!(backoff(Some(MS(100)), retry, 0), MS(whole / 2));
            assert_eq!(backoff(Some(MS(100)), retry, u64::MAX), MS(whole));
        }
    }

    #[test]
    fn pauses_are_capped_but_never_below_the_base() {
        assert_eq!(backoff(None, u32::MAX, u64::MAX), BACKOFF_CAP);
        assert_eq!(backoff(Some(Duration::from_secs(30)), 5, u64::MAX), Duration::from_secs(30));
        assert_eq!(backoff(Some(Duration::ZERO), 3, u64::MAX), Duration::ZERO);
        assert_eq!(
            backoff(Some(Duration::MAX), 9, u64::MAX / 2).as_secs() / 1_000_000,
            Duration::MAX.as_secs() / 4 * 3 / 1_000_000
        );
    }
}
