//! P2C: power of two choices over load, and what load is: requests in flight and a peak-sensitive EWMA of latency. It must not dial.

use super::{EndpointSet, Target};
use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Time after which an EWMA sample has lost 1/e of its weight.
pub const EWMA_DECAY: Duration = Duration::from_secs(10);

/// A failed attempt counts as at least this slow: an endpoint that refuses at once must not look like the fastest one.
pub const FAILURE_SAMPLE: Duration = Duration::from_secs(1);

/// What this proxy knows of an endpoint's load: requests in flight and EWMA of latency, in atomics.
///
/// Two attempts that end at the same moment may lose one of their samples; the average does not need both.
#[derive(Debug, Default)]
pub struct Load {
    in_flight: AtomicU32,
    /// Latency in nanoseconds as the bits of an `f64`; 0 bits: no sample yet.
    latency: AtomicU64,
    /// Nanoseconds from `epoch` to the newest sample.
    sampled: AtomicU64,
    /// The first moment that this value has seen; `Instant` has no absolute number.
    epoch: OnceLock<Instant>,
}

/// A request in flight; dropping it without [`InFlight::done`] counts it as ended without a latency sample.
#[derive(Debug)]
pub struct InFlight {
    load: Arc<Load>,
    started: Instant,
}

impl InFlight {
    /// The attempt got its response head at `now`; a failure is sampled as slow so that the next choice avoids it.
    pub fn done(self, now: Instant, failed: bool) {
        let took = now.saturating_duration_since(self.started);
        self.load.sample(if failed { took.max(FAILURE_SAMPLE) } else { took }, now);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.load.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Load {
    /// Counts an attempt that starts at `now`.
    pub fn start(self: &Arc<Self>, now: Instant) -> InFlight {
        self.epoch.get_or_init(|| now);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight { load: self.clone(), started: now }
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The latency as of `now`, which fades to zero without traffic so that a slow endpoint is tried again; none: never sampled.
    fn latency(&self, now: Instant) -> Option<f64> {
        let latency = f64::from_bits(self.latency.load(Ordering::Relaxed));
        if latency == 0.0 {
            return None;
        }
        let idle = self.nanos(now).saturating_sub(self.sampled.load(Ordering::Relaxed));
        Some(latency * fading(idle))
    }

    fn sample(&self, took: Duration, now: Instant) {
        let sample = (took.as_nanos() as f64).max(1.0);
        let at = self.nanos(now);
        let before = f64::from_bits(self.latency.load(Ordering::Relaxed));
        let idle = at.saturating_sub(self.sampled.swap(at, Ordering::Relaxed));
        // A peak is believed at once, an improvement only over time.
        let average = if before == 0.0 || sample > before {
            sample
        } else {
            let keep = fading(idle);
            before * keep + sample * (1.0 - keep)
        };
        self.latency.store(average.to_bits(), Ordering::Relaxed);
    }

    fn nanos(&self, now: Instant) -> u64 {
        let epoch = *self.epoch.get_or_init(|| now);
        u64::try_from(now.saturating_duration_since(epoch).as_nanos()).unwrap_or(u64::MAX)
    }
}

fn fading(idle_nanos: u64) -> f64 {
    (-(idle_nanos as f64) / EWMA_DECAY.as_nanos() as f64).exp()
}

impl EndpointSet {
    /// Power of two choices over load, avoiding `tried` addresses while another is left. `random` is any uniform 64-bit number.
    pub fn pick(&self, random: u64, now: Instant, tried: &[SocketAddr]) -> Option<&Arc<Target>> {
        let n = self.endpoints.len();
        let first = below(random >> 32, n)?;
        let Some(first) = self.untried_from(first, None, tried) else {
            // All were tried: better one of them again than none.
            return self.endpoints.get(below(random & 0xffff_ffff, n)?);
        };
        let second = below(random & 0xffff_ffff, n)?;
        let Some(second) = self.untried_from(second, Some(first), tried) else {
            return self.endpoints.get(first);
        };
        let (a, b) = (&self.endpoints[first], &self.endpoints[second]);
        Some(if less_loaded(&b.load, &a.load, now) { b } else { a })
    }

    /// The first endpoint at or (around the end) after `start` that is neither `not` nor tried.
    fn untried_from(&self, start: usize, not: Option<usize>, tried: &[SocketAddr]) -> Option<usize> {
        let n = self.endpoints.len();
        (start..n).chain(0..start).find(|i| Some(*i) != not && !tried.contains(&self.endpoints[*i].address))
    }
}

/// A uniform 32-bit number to a uniform index below `n`.
fn below(random32: u64, n: usize) -> Option<usize> {
    (n > 0).then(|| ((random32 as u128 * n as u128) >> 32) as usize)
}

/// Whether `a` is expected to answer sooner. Latency counts only if both have some: one that is new is neither flooded nor shunned.
fn less_loaded(a: &Load, b: &Load, now: Instant) -> bool {
    let (busy_a, busy_b) = (f64::from(a.in_flight()) + 1.0, f64::from(b.in_flight()) + 1.0);
    match (a.latency(now), b.latency(now)) {
        (Some(latency_a), Some(latency_b)) => latency_a * busy_a < latency_b * busy_b,
        _ => busy_a < busy_b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(n: u8) -> EndpointSet {
        let target = |i| Target {
            address: SocketAddr::from(([10, 0, 0, i], 80)),
            workload: None,
            zone: "".into(),
            load: Arc::default(),
        };
        EndpointSet { endpoints: (0..n).map(|i| Arc::new(target(i))).collect() }
    }

    /// A fixed sequence of well mixed numbers.
    fn numbers() -> impl Iterator<Item = u64> {
        (1u64..).map(|i| {
            let x = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ (x >> 31)
        })
    }

    #[test]
    fn an_empty_set_has_no_pick_and_one_endpoint_is_always_picked() {
        let now = Instant::now();
        assert!(set(0).pick(7, now, &[]).is_none());
        assert!(numbers().take(50).all(|r| set(1).pick(r, now, &[]).is_some()));
    }

    #[test]
    fn idle_endpoints_share_evenly() {
        let (set, now, mut counts) = (set(4), Instant::now(), [0; 4]);
        for r in numbers().take(4000) {
            let SocketAddr::V4(a) = set.pick(r, now, &[]).unwrap().address else { unreachable!() };
            counts[usize::from(a.ip().octets()[3])] += 1;
        }
        assert!(counts.iter().all(|c| (800..1200).contains(c)), "{counts:?}");
    }

    #[test]
    fn tried_endpoints_are_avoided_while_another_is_left() {
        let (set, now) = (set(3), Instant::now());
        let all: Vec<_> = set.endpoints.iter().map(|t| t.address).collect();
        for r in numbers().take(100) {
            assert_eq!(set.pick(r, now, &all[..2]).unwrap().address, all[2]);
            assert!(set.pick(r, now, &all).is_some(), "all tried: one of them again");
        }
    }

    #[test]
    fn the_busier_of_two_is_not_picked() {
        let (set, now) = (set(2), Instant::now());
        let _busy = set.endpoints[0].load.start(now);
        assert!(numbers().take(100).all(|r| set.pick(r, now, &[]).unwrap().address == set.endpoints[1].address));
    }

    #[test]
    fn a_slow_endpoint_is_avoided_until_its_latency_fades() {
        let (set, now) = (set(2), Instant::now());
        set.endpoints[0].load.start(now).done(now + Duration::from_millis(500), false);
        set.endpoints[1].load.start(now).done(now + Duration::from_millis(5), false);
        let soon = now + Duration::from_secs(1);
        assert!(numbers().take(100).all(|r| set.pick(r, soon, &[]).unwrap().address == set.endpoints[1].address));
        // The fast one keeps its traffic and so its latency; the slow one fades below it.
        let later = now + Duration::from_secs(60);
        set.endpoints[1].load.start(later).done(later + Duration::from_millis(5), false);
        let picked =
            numbers().take(100).filter(|r| set.pick(*r, later, &[]).unwrap().address == set.endpoints[0].address);
        assert!(picked.count() > 0);
    }

    #[test]
    fn an_endpoint_that_fails_fast_does_not_look_fast() {
        let (set, now) = (set(2), Instant::now());
        set.endpoints[0].load.start(now).done(now + Duration::from_micros(50), true);
        set.endpoints[1].load.start(now).done(now + Duration::from_millis(80), false);
        assert!(numbers().take(100).all(|r| set.pick(r, now, &[]).unwrap().address == set.endpoints[1].address));
    }

    #[test]
    fn a_dropped_attempt_is_no_longer_in_flight_and_leaves_no_sample() {
        let load = Arc::new(Load::default());
        let now = Instant::now();
        drop(load.start(now));
        assert_eq!((load.in_flight(), load.latency(now)), (0, None));
    }

    #[test]
    fn an_endpoint_is_found_by_its_address() {
        let set = set(3);
        assert!(set.contains([10, 0, 0, 2].into()) && !set.contains([10, 0, 0, 3].into()));
        assert!(set.at(([10, 0, 0, 1], 80).into()).is_some() && set.at(([10, 0, 0, 1], 81).into()).is_none());
    }
}
