//! One measurement: warm up, look at what the proxies have used, run the load, look again. It must not know which proxy it is.

use crate::{arena::Place, bulk::Bulk, load::Load, process::Usage};
use anyhow::{Context, Result, ensure};
use std::time::Duration;

/// Failed requests that a round may have before the figure is worthless: none, but for a generator that stops in the middle of some.
const FAILED_SHARE: f64 = 0.001;
/// Before each measurement: connections are there, caches are warm.
const WARM: Duration = Duration::from_secs(1);
/// After it: bytes that were still under way are carried.
const SETTLE: Duration = Duration::from_millis(300);
/// A tail of latencies needs thousands of requests, at whatever rate.
const STEADY: Duration = Duration::from_secs(4);

/// A name and a value.
pub type Figure = (&'static str, f64);
/// What the proxies have used so far, together; none where there is no proxy.
pub type Used<'a> = &'a dyn Fn() -> Result<Option<Usage>>;

/// Requests. Where each has a connection of its own, a figure per request is one per connection.
pub fn requests(load: Load, place: &dyn Place, url: &str, time: Duration, used: Used<'_>) -> Result<Vec<Figure>> {
    load.run(place, url, WARM).context("warming up")?;
    let time = if matches!(load, Load::Steady { .. }) { time.max(STEADY) } else { time };
    let before = used()?;
    let outcome = load.run(place, url, time)?;
    let after = used()?;
    let count = outcome.requests as f64;
    ensure!(outcome.failed as f64 <= count * FAILED_SHARE, "{} of {count} requests failed", outcome.failed);
    let mut figures = Vec::new();
    if let (Some(before), Some(after)) = (before, after) {
        figures.extend([
            ("cpu_us_per_request", (after.cpu - before.cpu) as f64 / 1e3 / count),
            ("switches_per_request", (after.switches - before.switches) as f64 / count),
            ("memory_mib", mib(after.memory)),
        ]);
        figures.extend(copied(before, after).map(|bytes| ("copied_bytes_per_request", bytes / count)));
    }
    // At a fixed rate the rate says nothing, and the generator's cost is that of another program.
    let named = match load {
        Load::Steady { .. } => [("p50_us", outcome.p50), ("p99_us", outcome.p99), ("p999_us", outcome.p999)],
        Load::One { .. } | Load::Two { .. } | Load::Grpc { .. } | Load::GrpcStream { .. } => {
            figures.push(("requests_per_second", outcome.rate));
            figures.push(("generator_cpu_us_per_request", outcome.generator as f64 / 1e3 / count));
            [("p50_us_saturated", outcome.p50), ("p99_us_saturated", outcome.p99), ("p999_us_saturated", outcome.p999)]
        }
    };
    figures.extend(named.into_iter().filter_map(|(name, value)| Some((name, value?))));
    Ok(figures)
}

/// Bytes.
pub fn bytes(
    bulk: Bulk,
    place: &dyn Place,
    host: &str,
    port: u16,
    time: Duration,
    used: Used<'_>,
) -> Result<Vec<Figure>> {
    bulk.run(place, host, port, WARM).context("warming up")?;
    std::thread::sleep(SETTLE);
    let before = used()?;
    let outcome = bulk.run(place, host, port, time)?;
    let after = used()?;
    let gib = outcome.bytes as f64 / f64::from(1 << 30);
    let mut figures = vec![("gbit_per_second", outcome.bits_per_second / 1e9)];
    if let (Some(before), Some(after)) = (before, after) {
        let seconds = (after.cpu - before.cpu) as f64 / 1e9;
        figures.extend([
            ("cpu_seconds_per_gib", seconds / gib),
            ("gib_per_cpu_second", gib / seconds),
            ("switches_per_mib", (after.switches - before.switches) as f64 / gib / 1024.0),
            ("memory_mib", mib(after.memory)),
        ]);
        figures.extend(copied(before, after).map(|bytes| ("copied_bytes_per_byte", bytes / outcome.bytes as f64)));
    }
    figures.push(("generator_cpu_seconds_per_gib", outcome.generator as f64 / 1e9 / gib));
    Ok(figures)
}

/// From memory to memory, if it was counted.
fn copied(before: Usage, after: Usage) -> Option<f64> {
    Some((after.copied? - before.copied?) as f64)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}
