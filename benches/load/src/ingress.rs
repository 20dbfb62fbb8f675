//! Scenario 1: a proxy at the edge, HTTP/1.1 and HTTP/2, plain and TLS, small and larger bodies. It must not know how proxies are configured.

use crate::{
    arena::{Arena, BACKEND, PROXY},
    figures::{Figures, Sample},
    load::Load,
    measure,
    rival::{self, ALL, BACKEND_PORT, Fill, GRPC_PORT, H2C_PORT, Programs, Rival},
};
use anyhow::Result;
use std::time::Duration;

struct Scenario {
    name: &'static str,
    load: Load,
    /// Port of the proxies, and of the backend itself for `direct`.
    port: u16,
    direct: Option<u16>,
    tls: bool,
    path: &'static str,
    /// Who cannot do it.
    without: &'static [Rival],
    /// Also in a quick run.
    quick: bool,
}

const fn one(connections: u32) -> Load {
    Load::One { connections, fresh: false, body: 0 }
}

/// Far below what every proxy can do on one thread, so that what is seen is the proxy and not a queue.
const STEADY: u32 = 2_000;

const fn steady(connections: u32, h2c: bool) -> Load {
    Load::Steady { rate: STEADY, connections, h2c }
}

const SCENARIOS: [Scenario; 13] = [
    full(scenario("h1/100B/c1", one(1), "/small")),
    scenario("h1/100B/c32", one(32), "/small"),
    full(scenario("h1/100B/c512", one(512), "/small")),
    full(scenario("h1/10KiB/c32", one(32), "/large")),
    Scenario {
        port: 8081,
        direct: Some(H2C_PORT),
        ..scenario("h2-to-h1/100B/c8m16", Load::Two { connections: 8, streams: 16, body: 0 }, "/small")
    },
    full(Scenario {
        port: 8082,
        direct: Some(H2C_PORT),
        // nginx 1.22 speaks no HTTP/2 to backends, but for gRPC.
        without: &[Rival::Nginx],
        ..scenario("h2-to-h2c/100B/c8m16", Load::Two { connections: 8, streams: 16, body: 0 }, "/small")
    }),
    tls("tls/kept/100B/c32", one(32)),
    tls("tls/handshake/100B/c32", Load::One { connections: 32, fresh: true, body: 0 }),
    full(Scenario {
        port: 8083,
        direct: Some(GRPC_PORT),
        ..scenario("grpc-unary/100B/c8m16", Load::Grpc { connections: 8, streams: 16 }, "/bench.Echo/Say")
    }),
    full(Scenario {
        port: 8083,
        direct: Some(GRPC_PORT),
        // haproxy 2.6 refuses some of the streams and ends others without trailers.
        without: &[Rival::Haproxy],
        ..scenario("grpc-stream/100B/c8m4", Load::GrpcStream { connections: 8, streams: 4 }, "/")
    }),
    full(scenario("h1/100B/steady", steady(32, false), "/small")),
    full(Scenario {
        port: 8081,
        direct: Some(H2C_PORT),
        ..scenario("h2-to-h1/100B/steady", steady(1, true), "/small")
    }),
    full(tls("tls/kept/100B/steady", steady(32, false))),
];

const fn tls(name: &'static str, load: Load) -> Scenario {
    Scenario { port: 8443, tls: true, direct: None, ..scenario(name, load, "/small") }
}

/// Not in a quick run.
const fn full(scenario: Scenario) -> Scenario {
    Scenario { quick: false, ..scenario }
}

const fn scenario(name: &'static str, load: Load, path: &'static str) -> Scenario {
    Scenario { name, load, port: 8080, direct: Some(BACKEND_PORT), tls: false, path, without: &[], quick: true }
}

/// Every round runs every scenario with every proxy, so that a slow minute of the machine meets them all.
pub fn run(programs: &Programs, rounds: u32, each: Duration, quick: bool, only: &str) -> Result<Figures> {
    let wanted = |s: &&Scenario| format!("ingress/{}", s.name).contains(only) && (s.quick || !quick);
    let chosen: Vec<&Scenario> = SCENARIOS.iter().filter(wanted).collect();
    let mut figures = Figures::default();
    if chosen.is_empty() {
        return Ok(figures);
    }
    let arena = Arena::new()?;
    let dir = tempfile::tempdir()?;
    rival::certificate(dir.path())?;
    let fill = Fill { dir: dir.path() };
    let backend = rival::backend(programs, &arena, &fill)?;
    for round in 1..=rounds {
        for rival in ALL {
            let running = match rival.start(programs, &arena, &fill) {
                Ok(running) => running,
                Err(error) => {
                    figures.fail(format!("ingress with {}: {error:#}", rival.name()));
                    continue;
                }
            };
            for scenario in &chosen {
                if let Err(error) = measure(scenario, rival, &running, &arena, each, &mut figures) {
                    figures.fail(format!("ingress/{} with {}: {error:#}", scenario.name, rival.name()));
                }
            }
            eprintln!("round {round} of {rounds}: {}", rival.name());
        }
    }
    drop(backend);
    if !figures.failures().is_empty() {
        eprintln!("configs and logs are kept in {}", dir.keep().display());
    }
    Ok(figures)
}

fn measure(
    scenario: &Scenario,
    rival: Rival,
    running: &rival::Running,
    arena: &Arena,
    each: Duration,
    figures: &mut Figures,
) -> Result<()> {
    if scenario.without.contains(&rival) || (rival == Rival::Direct && scenario.direct.is_none()) {
        return Ok(());
    }
    let scheme = if scenario.tls { "https" } else { "http" };
    let url = match (rival, scenario.direct) {
        (Rival::Direct, Some(port)) => format!("http://{BACKEND}:{port}{}", scenario.path),
        _ => format!("{scheme}://{PROXY}:{}{}", scenario.port, scenario.path),
    };
    let used = || running.0.first().map(|p| p.usage()).transpose();
    for (measure, value) in measure::requests(scenario.load, arena, &url, each, &used)? {
        figures.add(Sample { scenario: format!("ingress/{}", scenario.name), proxy: rival.name(), measure, value });
    }
    Ok(())
}
