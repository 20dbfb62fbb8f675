//! Scenario 6: thousands of connections that say nothing: what each weighs in a proxy. It must not keep a proxy busy.

mod held;
mod proxies;

use crate::{
    arena::Arena,
    figures::{Figures, Sample},
    process::{Process, Usage},
    rival::{self, Fill, Programs, Rival, Running},
};
use anyhow::{Context, Result, bail, ensure};
use held::{Held, Kind};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::{fs, net::TcpStream, thread, time::Duration};
use tempfile::TempDir;

/// How many connections.
const COUNTS: [u32; 2] = [10_000, 100_000];
/// The most with TLS: a handshake each.
const TLS_MAX: u32 = 10_000;
/// Files beside the connections that a proxy, or the bench, has open.
const OTHER_FILES: u64 = 1_000;
/// The most processes of one proxy that share the connections.
const PROCESSES_MAX: usize = 16;
/// How many are asked again at the end whether they live.
const ASKED: usize = 100;
/// Until memory is looked at, before the connections.
const SETTLE: Duration = Duration::from_secs(1);
/// How long they have said nothing when memory is looked at: an idle connection is one that has been idle for a while, and Heddle takes some seconds
/// to give back what only a busy one needs.
const IDLE: Duration = Duration::from_secs(7);

const PROXIES: [Rival; 4] = [Rival::Heddle, Rival::Envoy, Rival::Nginx, Rival::Haproxy];

/// All of it. One round: memory does not depend on the minute.
pub fn run(programs: &Programs, quick: bool, only: &str) -> Result<Figures> {
    let mut figures = Figures::default();
    // A quick run has those with TLS only, which weigh more.
    let kept = COUNTS.into_iter().filter(|_| !quick).map(|n| (Kind::Kept, n));
    let tls = COUNTS.into_iter().filter(|n| *n <= TLS_MAX).map(|n| (Kind::Tls, n));
    for (kind, count) in kept.chain(tls) {
        let scenario = match kind {
            Kind::Kept => format!("idle/h1/{count}"),
            Kind::Tls => format!("idle/tls/{count}"),
        };
        if !scenario.contains(only) {
            continue;
        }
        let files = allow_files(u64::from(count) + OTHER_FILES)?;
        let counts = shares(count, files);
        if counts.len() > PROCESSES_MAX {
            figures.missing(format!("{scenario}: a process may have {files} files open here"));
            continue;
        }
        for proxy in PROXIES {
            let values = measure(programs, proxy, kind, &counts);
            let values = values.with_context(|| format!("{scenario} with {}", proxy.name()))?;
            for (measure, value) in values {
                figures.add(Sample { scenario: scenario.clone(), proxy: proxy.name(), measure, value });
            }
            eprintln!("{scenario}: {}", proxy.name());
        }
    }
    Ok(figures)
}

/// Lets this process and its children have so many files open, or as many as are granted; says how many that are.
pub fn allow_files(wanted: u64) -> Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // Who may raise the hard limit does.
    let most = hard.max(wanted);
    if setrlimit(Resource::RLIMIT_NOFILE, most, most).is_ok() {
        return Ok(most);
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// How many connections each process of a proxy holds: one holds all if it may have so many files open, else as few processes as can.
fn shares(count: u32, files: u64) -> Vec<u32> {
    let most = u32::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(u32::MAX).max(1);
    let processes = count.div_ceil(most);
    (0..processes).map(|n| count / processes + u32::from(n < count % processes)).collect()
}

fn measure(programs: &Programs, proxy: Rival, kind: Kind, counts: &[u32]) -> Result<Vec<(&'static str, f64)>> {
    let shared = counts.iter().map(|_| Share::up(programs, proxy)).collect::<Result<Vec<_>>>()?;
    // What a first connection needs is there already.
    for share in &shared {
        share.arena.inside(|| held::open(kind, 64))?;
    }
    thread::sleep(SETTLE);
    let (before, kept) = (usage(&shared)?, kernel()?);
    thread::scope(|scope| {
        let held = shared.iter().zip(counts).map(|(share, count)| Held::open(scope, &share.arena, kind, *count));
        let held = held.collect::<Result<Vec<_>>>()?;
        thread::sleep(IDLE);
        let (after, keeps) = (usage(&shared)?, kernel()?);
        // An idle connection that was closed costs nothing; none of these may be.
        held.into_iter().try_for_each(Held::close)?;
        let count = f64::from(counts.iter().sum::<u32>());
        let kib = |bytes: u64| bytes as f64 / 1024.0;
        Ok(vec![
            ("kib_per_connection", kib(after.memory.saturating_sub(before.memory)) / count),
            ("kernel_kib_per_connection", kib(keeps.saturating_sub(kept)) / count),
            ("memory_mib", kib(after.memory) / 1024.0),
            ("cpu_us_per_opened_connection", (after.cpu - before.cpu) as f64 / 1e3 / count),
            ("processes", counts.len() as f64),
        ])
    })
}

/// A process of a proxy in an arena of its own, with its backend. They end in this order.
struct Share {
    proxy: Running,
    _backend: Running,
    arena: Arena,
    _dir: TempDir,
}

impl Share {
    fn up(programs: &Programs, proxy: Rival) -> Result<Self> {
        let (arena, dir) = (Arena::new()?, tempfile::tempdir()?);
        held::addresses(&arena)?;
        rival::certificate(dir.path())?;
        let fill = Fill { dir: dir.path() };
        let backend = rival::backend(programs, &arena, &fill)?;
        let proxy = proxies::start(proxy, programs, &arena, &fill)?;
        Ok(Self { proxy, _backend: backend, arena, _dir: dir })
    }
}

/// What all the proxies have used.
fn usage(shared: &[Share]) -> Result<Usage> {
    shared.iter().try_fold(Usage::default(), |sum, share| {
        let one = share.proxy.0.first().context("a proxy has a process").and_then(Process::usage)?;
        Ok(Usage { cpu: sum.cpu + one.cpu, memory: sum.memory + one.memory, ..sum })
    })
}

/// Bytes that the kernel keeps its own things in, of which each connection has both its ends.
fn kernel() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Slab:"));
    let kib: u64 = line.and_then(|l| l.trim().strip_suffix(" kB")).context("/proc/meminfo: no Slab")?.parse()?;
    Ok(kib * 1024)
}

/// Fails if one of those that are asked was closed.
pub fn still_open(streams: &mut [TcpStream]) -> Result<()> {
    ensure!(!streams.is_empty(), "no connection was opened");
    let each = streams.len() / ASKED;
    for stream in streams.iter_mut().step_by(each.max(1)) {
        stream.set_nonblocking(true)?;
        match stream.peek(&mut [0]) {
            Ok(0) => bail!("an idle connection was closed"),
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e).context("an idle connection"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_few_processes_as_can_hold_all_connections_in_equal_shares() {
        assert_eq!(shares(100_000, 101_000), [100_000]);
        assert_eq!(shares(100_000, 20_000), [16_667, 16_667, 16_667, 16_667, 16_666, 16_666]);
        assert_eq!(shares(3, 0), [1, 1, 1]);
    }
}
