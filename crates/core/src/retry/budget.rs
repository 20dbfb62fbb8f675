//! Budget: the share of a Service's requests that may be retries, over a sliding window. It must not know what a request is.

use crate::mesh::RetryBudget;
use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Slots of a window. It slides by a slot at a time, so that it is exact to 1/64 of its interval.
const SLOTS: usize = 64;

/// Sliding window of requests and retries of one Service on this proxy (GEP-3388). Lock-free.
///
/// "if the retry budget interval is 10 seconds, there have been 1000 active requests in the past 10 seconds, and the allowed percentage …
/// is 20% …, then 200 of those requests may be composed of retries": retries are among the requests that they are measured against.
/// Under contention a retry may be refused that would just have fitted; none is allowed that does not fit.
#[derive(Debug)]
pub struct Budget {
    rule: RetryBudget,
    /// The first moment that this value has seen; `Instant` has no absolute number.
    epoch: OnceLock<Instant>,
    requests: Window,
    retries: Window,
    /// Retries again, over the interval of the minimum rate.
    minimum: Window,
}

/// What a budget has counted within its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetState {
    /// Requests, without retries.
    pub requests: u64,
    /// Retries.
    pub retries: u64,
}

impl Budget {
    /// A new budget with an empty window.
    pub fn new(rule: RetryBudget) -> Self {
        Self {
            rule,
            epoch: OnceLock::new(),
            requests: Window::new(rule.interval),
            retries: Window::new(rule.interval),
            minimum: Window::new(rule.min_interval),
        }
    }

    /// Its parameters.
    pub fn rule(&self) -> &RetryBudget {
        &self.rule
    }

    /// Counts a request (first attempt) at `now`.
    pub fn request(&self, now: Instant) {
        self.requests.add(self.since_epoch(now));
    }

    /// Takes a retry at `now` if the budget has one. False: the client gets 503 ([`crate::fault::Fault::RetryBudget`]).
    ///
    /// Each retry counts, also one that only the minimum rate allows: "Retrying the same original request multiple times within the retry
    /// budget interval will lead to each retry being counted".
    pub fn take_retry(&self, now: Instant) -> bool {
        let now = self.since_epoch(now);
        // Count first, then look: two that look at the same moment see each other.
        self.retries.add(now);
        self.minimum.add(now);
        let allowed = self.minimum.sum(now) <= u64::from(self.rule.min_retries) || {
            let (requests, retries) = (self.requests.sum(now), self.retries.sum(now));
            retries * 100 <= u64::from(self.rule.percent) * (requests + retries)
        };
        if !allowed {
            self.retries.undo(now);
            self.minimum.undo(now);
        }
        allowed
    }

    /// What the window holds at `now`, for metrics.
    pub fn state(&self, now: Instant) -> BudgetState {
        let now = self.since_epoch(now);
        BudgetState { requests: self.requests.sum(now), retries: self.retries.sum(now) }
    }

    fn since_epoch(&self, now: Instant) -> Duration {
        now.saturating_duration_since(*self.epoch.get_or_init(|| now))
    }
}

/// Counts by slot: each word is the slot's number since the epoch (high half) and its count (low half), so that a slot that is used again
/// starts from zero in one exchange.
#[derive(Debug)]
struct Window {
    /// Nanoseconds of a slot, not 0.
    width: u128,
    slots: [AtomicU64; SLOTS],
}

impl Window {
    fn new(interval: Duration) -> Self {
        Self { width: (interval.as_nanos() / SLOTS as u128).max(1), slots: [const { AtomicU64::new(0) }; SLOTS] }
    }

    /// The number of the slot at `now`, from 1: 0 is a slot that was never used.
    fn number(&self, now: Duration) -> u32 {
        (now.as_nanos() / self.width) as u32 + 1
    }

    fn slot(&self, number: u32) -> &AtomicU64 {
        &self.slots[number as usize % SLOTS]
    }

    fn add(&self, now: Duration) {
        let number = self.number(now);
        self.update(number, |count| count.saturating_add(1));
    }

    fn undo(&self, now: Duration) {
        let number = self.number(now);
        self.update(number, |count| count.saturating_sub(1));
    }

    fn update(&self, number: u32, change: impl Fn(u32) -> u32) {
        let next = |word: u64| {
            let (at, count) = ((word >> 32) as u32, word as u32);
            // A slower thread must not empty a slot that is newer than its own moment.
            let (at, count) = if at > number {
                (at, count)
            } else if at == number {
                (at, change(count))
            } else {
                (number, change(0))
            };
            Some(u64::from(at) << 32 | u64::from(count))
        };
        // The closure never gives up, so neither does this.
        let _ = self.slot(number).fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    fn sum(&self, now: Duration) -> u64 {
        let newest = self.number(now);
        let within = |word: u64| {
            let at = (word >> 32) as u32;
            at != 0 && at <= newest && newest - at < SLOTS as u32
        };
        self.slots.iter().map(|s| s.load(Ordering::Relaxed)).filter(|w| within(*w)).map(|w| w & 0xffff_ffff).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// 20 % of 10 s, and a minimum that a test can leave out.
    fn budget(percent: u8, min_retries: u32) -> Budget {
        Budget::new(RetryBudget { percent, interval: 10 * SECOND, min_retries, min_interval: SECOND })
    }

    fn taken(budget: &Budget, now: Instant, wanted: u32) -> usize {
        (0..wanted).filter(|_| budget.take_retry(now)).count()
    }

    #[test]
    fn two_hundred_of_a_thousand_requests_may_be_retries() {
        let (b, now) = (budget(20, 0), Instant::now());
        (0..800).for_each(|_| b.request(now));
        assert_eq!(taken(&b, now, 1000), 200);
        assert_eq!(b.state(now), BudgetState { requests: 800, retries: 200 });
    }

    #[test]
    fn a_refused_retry_does_not_count() {
        let (b, now) = (budget(50, 0), Instant::now());
        assert_eq!(taken(&b, now, 100), 0);
        b.request(now);
        assert_eq!(taken(&b, now, 100), 1);
    }

    #[test]
    fn the_minimum_rate_is_always_allowed() {
        let (b, now) = (budget(0, 10), Instant::now());
        assert_eq!(taken(&b, now, 100), 10);
        assert_eq!(taken(&b, now + SECOND / 2, 100), 0);
        assert_eq!(taken(&b, now + SECOND, 100), 10);
    }

    #[test]
    fn the_minimum_does_not_come_on_top_of_the_share() {
        let (b, now) = (budget(20, 10), Instant::now());
        (0..800).for_each(|_| b.request(now));
        assert_eq!(taken(&b, now, 1000), 200);
    }

    #[test]
    fn the_window_slides() {
        let (b, start) = (budget(20, 0), Instant::now());
        for second in 0..10 {
            (0..80).for_each(|_| b.request(start + second * SECOND));
        }
        let nine = start + 9 * SECOND;
        assert_eq!(taken(&b, nine, 1000), 200);
        // Two seconds later the requests of the first two seconds have left; the retries have not.
        assert_eq!(b.state(start + 11 * SECOND), BudgetState { requests: 640, retries: 200 });
        assert_eq!(taken(&b, start + 11 * SECOND, 10), 0);
        // When the retries have left too, only the newer requests count.
        let later = start + 20 * SECOND;
        (0..4).for_each(|_| b.request(later));
        assert_eq!(taken(&b, later, 10), 1);
    }

    #[test]
    fn threads_at_once_never_take_more_than_the_share() {
        let (b, now) = (budget(20, 0), Instant::now());
        (0..8_000).for_each(|_| b.request(now));
        let all: usize = std::thread::scope(|s| {
            let threads: Vec<_> = (0..4).map(|_| s.spawn(|| taken(&b, now, 2_000))).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert!((1_990..=2_000).contains(&all), "{all}");
    }
}
