//! Scenarios 2 and 3: from a client's pod through a proxy, mTLS and another proxy to a server's pod, requests and opaque bytes. All figures are of both proxies together.
//! It must not know how meshes are configured.

use crate::{
    bulk::Bulk,
    figures::{Figures, Sample},
    load::Load,
    measure,
    pods::{Mesh, Pods},
    rival::{Fill, Programs},
};
use anyhow::Result;
use std::time::Duration;

/// A column of the table.
struct Rival {
    name: &'static str,
    mesh: Mesh,
    /// Whether opaque bytes go by HTTP/2 CONNECT where the same proxy also has another way.
    connect: bool,
}

const RIVALS: [Rival; 4] = [
    Rival { name: "direct", mesh: Mesh::None, connect: false },
    Rival { name: crate::figures::HEDDLE, mesh: Mesh::Heddle, connect: false },
    Rival { name: "envoy", mesh: Mesh::Envoy, connect: false },
    Rival { name: "envoy-connect", mesh: Mesh::Envoy, connect: true },
];

/// The meshes in the order of a round.
const MESHES: [Mesh; 3] = [Mesh::None, Mesh::Heddle, Mesh::Envoy];

#[derive(Clone, Copy)]
enum Drive {
    /// Requests as HTTP.
    Http { load: Load, h2c: bool, path: &'static str },
    /// Requests, but the mesh is told that the port carries bytes.
    Opaque { load: Load, path: &'static str },
    /// Nothing but bytes.
    Bytes(Bulk),
}

struct Scenario {
    name: &'static str,
    drive: Drive,
    /// With the access log on.
    log: bool,
    /// Also in a quick run.
    quick: bool,
}

const fn h1(connections: u32) -> Load {
    Load::One { connections, fresh: false, body: 0 }
}

/// As gRPC does it: each request posts a body and gets one.
const fn h2(connections: u32, streams: u32, body: u32) -> Load {
    Load::Two { connections, streams, body }
}

const fn http(name: &'static str, load: Load, path: &'static str, quick: bool) -> Scenario {
    let h2c = matches!(load, Load::Two { .. } | Load::Steady { h2c: true, .. });
    Scenario { name, drive: Drive::Http { load, h2c, path }, log: false, quick }
}

const fn logged(scenario: Scenario) -> Scenario {
    Scenario { log: true, ..scenario }
}

const fn tcp(name: &'static str, drive: Drive, quick: bool) -> Scenario {
    Scenario { name, drive, log: false, quick }
}

/// Far below what every proxy can do on one thread, so that what is seen is the proxy and not a queue.
const STEADY: u32 = 1_000;

const SCENARIOS: [Scenario; 19] = [
    http("mesh/h1/100B/c1", h1(1), "/small", false),
    http("mesh/h1/100B/c32", h1(32), "/small", true),
    http("mesh/h1/100B/c512", h1(512), "/small", false),
    http("mesh/h1/10KiB/c1", h1(1), "/large", false),
    http("mesh/h1/10KiB/c32", h1(32), "/large", false),
    http("mesh/h2/100B/c1m32", h2(1, 32, 100), "/small", true),
    http("mesh/h2/100B/c32m4", h2(32, 4, 100), "/small", false),
    http("mesh/h2/10KiB/c1m32", h2(1, 32, 10_240), "/large", false),
    http("mesh/h2/10KiB/c32m4", h2(32, 4, 10_240), "/large", false),
    http("mesh/h1/100B/steady", Load::Steady { rate: STEADY, connections: 32, h2c: false }, "/small", true),
    http("mesh/h2/100B/steady", Load::Steady { rate: STEADY, connections: 1, h2c: true }, "/small", false),
    logged(http("mesh/h1/100B/c32/log", h1(32), "/small", false)),
    logged(http("mesh/h2/100B/c1m32/log", h2(1, 32, 100), "/small", false)),
    logged(http(
        "mesh/h1/100B/steady/log",
        Load::Steady { rate: STEADY, connections: 32, h2c: false },
        "/small",
        false,
    )),
    tcp("tcp/bulk/c1", Drive::Bytes(Bulk { connections: 1, down: false }), true),
    tcp("tcp/bulk/c8", Drive::Bytes(Bulk { connections: 8, down: false }), false),
    tcp("tcp/bulk-down/c1", Drive::Bytes(Bulk { connections: 1, down: true }), false),
    // Request and response of a kibibyte: the opaque bytes happen to be HTTP, so that proven generators drive them.
    tcp(
        "tcp/1KiB/c32",
        Drive::Opaque { load: Load::One { connections: 32, fresh: false, body: 1024 }, path: "/kib" },
        true,
    ),
    tcp(
        "tcp/new/c32",
        Drive::Opaque { load: Load::One { connections: 32, fresh: true, body: 0 }, path: "/small" },
        true,
    ),
];

/// In every round all meshes are up beside each other, new ones, and each scenario meets one after the other within seconds, so that a slow
/// moment of the machine meets them all. Who begins changes from round to round.
pub fn run(programs: &Programs, rounds: u32, each: Duration, quick: bool, only: &str) -> Result<Figures> {
    let chosen: Vec<&Scenario> = SCENARIOS.iter().filter(|s| s.name.contains(only) && (s.quick || !quick)).collect();
    let mut figures = Figures::default();
    for round in 1..=rounds {
        for log in [false, true] {
            let now: Vec<&&Scenario> = chosen.iter().filter(|s| s.log == log).collect();
            if now.is_empty() {
                continue;
            }
            let mut meshes = Vec::new();
            let failures = figures.failures().len();
            for mesh in MESHES {
                // Without a mesh nobody writes a log.
                if log && mesh == Mesh::None {
                    continue;
                }
                let dir = tempfile::tempdir()?;
                let pods = Pods::up(mesh, log, programs, &Fill { dir: dir.path() })
                    .inspect_err(|error| figures.fail(format!("{mesh:?}: {error:#}")));
                meshes.push((pods, dir));
            }
            for scenario in now {
                for at in 0..RIVALS.len() {
                    let rival = &RIVALS[(at + round as usize) % RIVALS.len()];
                    let Some(pods) = meshes.iter().flat_map(|(pods, _)| pods).find(|p| p.mesh == rival.mesh) else {
                        continue;
                    };
                    if let Err(error) = scenario.measure(rival, pods, each, &mut figures) {
                        figures.fail(format!("{} with {}: {error:#}", scenario.name, rival.name));
                    }
                }
            }
            if figures.failures().len() > failures {
                for (pods, dir) in meshes {
                    drop(pods);
                    eprintln!("configs and logs are kept in {}", dir.keep().display());
                }
            }
        }
        eprintln!("mesh, round {round} of {rounds}");
    }
    Ok(figures)
}

impl Scenario {
    fn measure(&self, rival: &Rival, pods: &Pods, each: Duration, figures: &mut Figures) -> Result<()> {
        let used = || pods.usage();
        let url = |port: u16, path: &str| format!("http://{}:{port}{path}", pods.service);
        let ports = if rival.connect { (92, 93) } else { (90, 91) };
        let values = match self.drive {
            // Requests have but one way.
            Drive::Http { .. } if rival.connect => return Ok(()),
            Drive::Http { load, h2c, path } => {
                measure::requests(load, pods, &url(if h2c { 81 } else { 80 }, path), each, &used)
            }
            Drive::Opaque { load, path } => measure::requests(load, pods, &url(ports.0, path), each, &used),
            Drive::Bytes(bulk) => measure::bytes(bulk, pods, &pods.service, ports.1, each, &used),
        };
        for (measure, value) in values? {
            figures.add(Sample { scenario: self.name.into(), proxy: rival.name, measure, value });
        }
        Ok(())
    }
}
