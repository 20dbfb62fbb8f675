//! Scenario 6: thousands of connections that say nothing: what each weighs in a proxy. It must not keep a proxy busy.

use crate::{
    arena::{Arena, PROXY, Place},
    client::{Connection, connect, tls},
    figures::{Figures, Sample},
    process::Process,
    rival::{self, Fill, Programs, Rival, Running},
};
use anyhow::{Context, Result, bail, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    thread,
    time::Duration,
};

/// How many connections.
const COUNTS: [u32; 2] = [10_000, 100_000];
/// The most with TLS: a handshake each.
const TLS_MAX: u32 = 10_000;
/// Connections from one address: the arena has 60,000 ports for each.
const FROM_ONE: u32 = 30_000;
/// Files beside the connections that a proxy, or the bench, has open.
const OTHER_FILES: u64 = 1_000;
/// What the proxies are allowed to serve.
const ALLOWED: u32 = 200_000;
/// How many are asked again at the end whether they live.
const ASKED: usize = 100;
/// Threads that open connections.
const OPENERS: u32 = 2;
/// Until memory is looked at, before the connections.
const SETTLE: Duration = Duration::from_secs(1);
/// How long they have said nothing when memory is looked at: an idle connection is one that has been idle for a while, and Heddle takes some seconds
/// to give back what only a busy one needs.
const IDLE: Duration = Duration::from_secs(7);

const PROXIES: [Rival; 4] = [Rival::Heddle, Rival::Envoy, Rival::Nginx, Rival::Haproxy];

/// What an idle connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// HTTP/1.1, kept after one request.
    Kept,
    /// The same inside TLS.
    Tls,
}

impl Kind {
    fn scenario(self, count: u32) -> String {
        match self {
            Self::Kept => format!("idle/h1/{count}"),
            Self::Tls => format!("idle/tls/{count}"),
        }
    }
}

/// All of it. One round: memory does not depend on the minute.
pub fn run(programs: &Programs, quick: bool, only: &str) -> Result<Figures> {
    let mut figures = Figures::default();
    // A quick run has those with TLS only, which weigh more.
    let kept = COUNTS.into_iter().filter(|_| !quick).map(|n| (Kind::Kept, n));
    let tls = COUNTS.into_iter().filter(|n| *n <= TLS_MAX).map(|n| (Kind::Tls, n));
    let chosen: Vec<(Kind, u32)> = kept.chain(tls).filter(|(kind, n)| kind.scenario(*n).contains(only)).collect();
    if chosen.is_empty() {
        return Ok(figures);
    }
    for (kind, count) in chosen {
        if let Err(granted) = allow_files(u64::from(count) + OTHER_FILES)? {
            figures.missing(format!("{}: a process may have {granted} files open here", kind.scenario(count)));
            continue;
        }
        for proxy in PROXIES {
            measure(programs, proxy, kind, count, &mut figures)
                .with_context(|| format!("{} with {}", kind.scenario(count), proxy.name()))?;
            eprintln!("{}: {}", kind.scenario(count), proxy.name());
        }
    }
    Ok(figures)
}

/// Lets this process and its children have so many files open; or says how many are granted.
pub fn allow_files(wanted: u64) -> Result<Result<(), u64>> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // Who may raise the hard limit does.
    let raised = setrlimit(Resource::RLIMIT_NOFILE, hard.max(wanted), hard.max(wanted)).is_ok();
    Ok(if raised { Ok(()) } else { Err(hard) })
}

fn measure(programs: &Programs, proxy: Rival, kind: Kind, count: u32, figures: &mut Figures) -> Result<()> {
    let arena = Arena::new()?;
    let net = arena.command("ip").args(["addr", "add", "10.78.0.1/24", "dev", "lo"]).status()?;
    ensure!(net.success(), "the arena gets no addresses for clients");
    let dir = tempfile::tempdir()?;
    rival::certificate(dir.path())?;
    let fill = Fill { dir: dir.path() };
    let _backend = rival::backend(programs, &arena, &fill)?;
    let running = start(proxy, programs, &arena, &fill)?;
    let usage = || running.0.first().context("a proxy has a process").and_then(Process::usage);
    // What a first connection needs is there already.
    drop(arena.inside(|| open(kind, 64))?);
    thread::sleep(SETTLE);
    let before = usage()?;
    let mut streams = arena.inside(|| open(kind, count))?;
    thread::sleep(IDLE);
    let after = usage()?;
    let mut add = |measure: &'static str, value: f64| {
        figures.add(Sample { scenario: kind.scenario(count), proxy: proxy.name(), measure, value });
    };
    add("kib_per_connection", after.memory.saturating_sub(before.memory) as f64 / 1024.0 / f64::from(count));
    add("memory_mib", after.memory as f64 / 1024.0 / 1024.0);
    add("cpu_us_per_opened_connection", (after.cpu - before.cpu) as f64 / 1e3 / f64::from(count));
    still_open(&mut streams)
}

/// An idle connection that was closed costs nothing; none of these may be.
pub fn still_open(streams: &mut [TcpStream]) -> Result<()> {
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

/// As for the other scenarios, but allowed to serve so many.
fn start(proxy: Rival, programs: &Programs, arena: &Arena, fill: &Fill<'_>) -> Result<Running> {
    let replaced = |template: &str, from: &str, to: String| {
        ensure!(template.contains(from), "{}'s config has no {from:?}", proxy.name());
        Ok(template.replace(from, &to))
    };
    let at: SocketAddr = format!("{PROXY}:8443").parse()?;
    let mut process = match proxy {
        Rival::Heddle => {
            return rival::heddle(programs, arena, fill, |folder| {
                let file = folder.join("bench.yaml");
                let from = r#"spec: {accessLog: "Off"}"#;
                let to = format!(r#"spec: {{accessLog: "Off", limits: {{connectionsPerPod: {ALLOWED}}}}}"#);
                Ok(fs::write(&file, replaced(&fs::read_to_string(&file)?, from, to)?)?)
            });
        }
        Rival::Nginx => {
            let template = include_str!("../rivals/nginx.conf");
            let to = format!("worker_connections {ALLOWED};");
            let conf = fill.write("nginx.conf", &replaced(template, "worker_connections 8192;", to)?)?;
            let mut command = arena.command(&programs.nginx.to_string_lossy());
            command.arg("-c").arg(conf).arg("-e").arg(fill.dir.join("nginx.error"));
            Process::start("nginx", command, fill.dir)?
        }
        Rival::Haproxy => {
            let template = include_str!("../rivals/haproxy.cfg");
            // It would count two files for each, though the idle ones have no server's.
            let maxconn = format!("maxconn {ALLOWED}\n  no strict-limits");
            let conf = fill.write("haproxy.cfg", &replaced(template, "maxconn 8192", maxconn)?)?;
            let mut command = arena.command(&programs.haproxy.to_string_lossy());
            command.arg("-db").arg("-f").arg(conf);
            Process::start("haproxy", command, fill.dir)?
        }
        Rival::Envoy | Rival::Direct => return proxy.start(programs, arena, fill),
    };
    process.listens(arena, at)?;
    Ok(Running(vec![process]))
}

/// Opens so many connections, each after one request that was answered.
fn open(kind: Kind, count: u32) -> Result<Vec<TcpStream>> {
    let port = if kind == Kind::Tls { 8443 } else { 8080 };
    let to: SocketAddr = format!("{PROXY}:{port}").parse()?;
    let one = |n: u32| {
        let from = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 78, 0, 1)) + n / FROM_ONE);
        let stream = connect(Some(from), to)?;
        let (answer, stream) = match kind {
            Kind::Kept => {
                let mut connection = Connection::new(stream);
                (connection.get("bench", "/small")?, connection.into_inner())
            }
            Kind::Tls => {
                let mut connection = Connection::new(tls(stream)?);
                let answer = connection.get("bench", "/small")?;
                // The proxy does not see that its peer forgets the keys.
                (answer, connection.into_inner().sock)
            }
        };
        ensure!(answer.status == 200, "answered {}", answer.status);
        Ok(stream)
    };
    let one = &one;
    let part = |part: u32| (part..count).step_by(OPENERS as usize).map(one).collect::<Result<Vec<_>>>();
    let part = &part;
    thread::scope(|scope| {
        // A thread of a thread in the arena is in the arena.
        let openers: Vec<_> = (0..OPENERS).map(|n| scope.spawn(move || part(n))).collect();
        let mut all = Vec::with_capacity(count as usize);
        for opener in openers {
            all.append(&mut opener.join().map_err(|_| anyhow::anyhow!("an opener panicked"))??);
        }
        Ok(all)
    })
}
