//! Split: smooth weighted choice among backends without a lock. It must not know what a backend is.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Longest window whose smooth order is written out: 1024 choices are 2 KiB a rule, and every split by percent fits.
/// Longer windows are walked by a stride near the golden ratio, which is as exact and nearly as even.
pub const SMOOTH_WINDOW_MAX: u64 = 1024;

/// Smooth weighted choice: exact over each window of the (reduced) total weight, spread evenly within it.
///
/// A clone shares the position, so that a rule that is compiled again goes on where it was.
#[derive(Clone, Debug)]
pub struct Split {
    order: Arc<Order>,
    position: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Order {
    /// Nothing to choose from.
    Never,
    /// One backend has all the weight.
    Always(usize),
    /// The window, written out.
    Written(Box<[u16]>),
    /// The window as a permutation `position * stride mod total`, cut at the cumulative weights.
    Strided { cumulative: Box<[u64]>, total: u64, stride: u64 },
}

impl Split {
    /// For these weights; all zero or none: nothing is ever chosen.
    pub fn new(weights: &[u32]) -> Self {
        Self { order: Arc::new(Order::of(weights)), position: Arc::default() }
    }

    /// The index of the next choice.
    pub fn next(&self) -> Option<usize> {
        match &*self.order {
            Order::Never => None,
            Order::Always(index) => Some(*index),
            Order::Written(window) => {
                let n = self.position.fetch_add(1, Ordering::Relaxed) % window.len() as u64;
                window.get(n as usize).map(|i| usize::from(*i))
            }
            Order::Strided { cumulative, total, stride } => {
                let n = self.position.fetch_add(1, Ordering::Relaxed) % total;
                // 128 bits: position and stride are both below the total, at most 2^32 times the number of backends.
                let point = (u128::from(n) * u128::from(*stride) % u128::from(*total)) as u64;
                Some(cumulative.partition_point(|end| *end <= point))
            }
        }
    }
}

impl Order {
    fn of(weights: &[u32]) -> Self {
        let divisor = weights.iter().fold(0, |a, b| gcd(a, u64::from(*b)));
        if divisor == 0 {
            return Self::Never;
        }
        let reduced: Vec<u64> = weights.iter().map(|w| u64::from(*w) / divisor).collect();
        let total: u64 = reduced.iter().sum();
        if let Some(only) = reduced.iter().position(|w| *w == total) {
            return Self::Always(only);
        }
        if total <= SMOOTH_WINDOW_MAX && weights.len() <= usize::from(u16::MAX) {
            return Self::Written(smooth_window(&reduced, total));
        }
        let cumulative = reduced.iter().scan(0, |sum, w| {
            *sum += w;
            Some(*sum)
        });
        Self::Strided { cumulative: cumulative.collect(), total, stride: golden_stride(total) }
    }
}

/// The order in which each backend's turn comes when it has waited longest by its share: each step gives everyone its weight in
/// credit, takes the richest, and charges it the total.
fn smooth_window(weights: &[u64], total: u64) -> Box<[u16]> {
    let mut credit = vec![0i64; weights.len()];
    let mut window = Vec::with_capacity(total as usize);
    for _ in 0..total {
        let mut richest = 0;
        for (i, weight) in weights.iter().enumerate() {
            credit[i] += *weight as i64;
            if credit[i] > credit[richest] {
                richest = i;
            }
        }
        credit[richest] -= total as i64;
        window.push(richest as u16);
    }
    window.into_boxed_slice()
}

/// Candidates around the golden section among which the best stride is looked for: a good one is common.
const STRIDES_TRIED: u64 = 128;

/// A number coprime to `total`, so that its multiples visit every residue once, whose multiples spread: as for the golden section, the
/// partial quotients of the fraction `stride / total` are small.
fn golden_stride(total: u64) -> u64 {
    let middle = (total as f64 * 0.618_033_988_749_895) as u64;
    let around = (0..STRIDES_TRIED).flat_map(|d| [middle.saturating_sub(d), middle + d]);
    let coprime = around.filter(|s| *s > 0 && *s < total && gcd(*s, total) == 1);
    coprime.min_by_key(|s| largest_quotient(*s, total)).unwrap_or(1)
}

fn largest_quotient(a: u64, b: u64) -> u64 {
    match b.checked_div(a) {
        Some(quotient) => quotient.max(largest_quotient(b % a, a)),
        None => 0,
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counts(split: &Split, n: usize, choices: u64) -> Vec<u64> {
        let mut counts = vec![0; n];
        for _ in 0..choices {
            counts[split.next().unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn nothing_is_chosen_without_weight() {
        assert_eq!(Split::new(&[]).next(), None);
        assert_eq!(Split::new(&[0, 0]).next(), None);
    }

    #[test]
    fn ninety_to_ten_is_nine_of_ten_in_every_ten() {
        let split = Split::new(&[90, 10]);
        for _ in 0..5 {
            assert_eq!(counts(&split, 2, 10), [9, 1]);
        }
    }

    #[test]
    fn equal_weights_alternate() {
        let split = Split::new(&[7, 7, 0]);
        let first: Vec<_> = (0..6).map(|_| split.next().unwrap()).collect();
        assert_eq!(first, [0, 1, 0, 1, 0, 1]);
    }

    #[test]
    fn a_clone_goes_on_where_the_original_is() {
        let split = Split::new(&[1, 1]);
        assert_eq!(split.next(), Some(0));
        assert_eq!(split.clone().next(), Some(1));
        assert_eq!(split.next(), Some(0));
    }

    #[test]
    fn huge_coprime_weights_are_exact_over_their_window() {
        let weights = [999_983, 7, 1_000];
        let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
        let split = Split::new(&weights);
        assert_eq!(counts(&split, 3, total), weights.map(u64::from));
    }

    proptest! {
        #[test]
        fn any_window_is_exact_and_any_prefix_is_near_its_share(
            weights in prop::collection::vec(0u32..400, 1..6),
            skip in 0u64..50,
        ) {
            let divisor = weights.iter().fold(0, |a, b| gcd(a, u64::from(*b)));
            prop_assume!(divisor > 0);
            let total = weights.iter().map(|w| u64::from(*w)).sum::<u64>() / divisor;
            let split = Split::new(&weights);
            let n = weights.len();
            counts(&split, n, skip);
            let mut seen = vec![0u64; n];
            for step in 1..=total {
                seen[split.next().unwrap()] += 1;
                for (i, w) in weights.iter().enumerate() {
                    let share = f64::from(*w) / divisor as f64 * step as f64 / total as f64;
                    // A window of credit differs by at most one choice a backend from each end; a stride by a little more.
                    prop_assert!((seen[i] as f64 - share).abs() < 2.0 + n as f64, "{:?} after {} of {}: {:?}", weights, step, total, seen);
                }
            }
            for (i, w) in weights.iter().enumerate() {
                prop_assert_eq!(seen[i], u64::from(*w) / divisor);
            }
        }
    }
}
