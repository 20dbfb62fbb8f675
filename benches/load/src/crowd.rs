//! Scenario 6 in a mesh: opaque connections that say nothing between two pods, and hundreds of pods on one node, in a playground of the real programs. It must
//! not keep a proxy busy.

use crate::{
    arena::inside,
    client::{Connection, connect},
    figures::{Figures, HEDDLE, Sample},
    idle::{allow_files, still_open},
    process::Process,
    rival::{BACKEND_PORT, Fill, INSTALLED, Programs},
};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Idle connections between two pods.
const CONNECTIONS: u32 = 10_000;
/// Pods of a crowd.
const PODS: u32 = 200;
/// Files that a proxy has open beside connections.
const OTHER_FILES: u64 = 1_000;
/// A playground that does not run by then is broken; a crowd takes a while.
const READY: Duration = Duration::from_secs(180);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// Until memory is looked at.
const SETTLE: Duration = Duration::from_secs(2);

/// All of it. One round: memory does not depend on the minute.
pub fn run(programs: &Programs, only: &str) -> Result<Figures> {
    let mut figures = Figures::default();
    let tcp = format!("idle/mesh-tcp/{CONNECTIONS}");
    let pods = format!("idle/pods/{PODS}");
    if tcp.contains(only) {
        let needed = u64::from(CONNECTIONS) + OTHER_FILES;
        match allow_files(needed)? {
            files if files >= needed => connections(programs, &tcp, &mut figures).context(tcp)?,
            files => figures.missing(format!("{tcp}: a process may have {files} files open here")),
        }
    }
    if pods.contains(only) {
        crowd(programs, &pods, &mut figures).context(pods)?;
    }
    Ok(figures)
}

fn connections(programs: &Programs, scenario: &str, figures: &mut Figures) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let stage = Stage::up(programs, dir.path(), 2, 0)?;
    let client = stage.pid(|name, line| name == "sleep" && line.contains("infinity"))?;
    let namespace = PathBuf::from(format!("/proc/{client}/ns/net"));
    let proxies = [stage.proxy("n1")?, stage.proxy("n2")?];
    let to: SocketAddr = format!("{}:90", stage.service).parse()?;
    let open = |count: u32| inside(&namespace, || (0..count).map(|_| one(to)).collect::<Result<Vec<_>>>());
    drop(open(64)?);
    thread::sleep(SETTLE);
    let before = proxies.map(resident);
    let mut streams = open(CONNECTIONS)?;
    thread::sleep(SETTLE);
    let after = proxies.map(resident);
    still_open(&mut streams)?;
    for (side, measure) in ["client_kib_per_connection", "server_kib_per_connection"].into_iter().enumerate() {
        let (before, after) = (before[side].context("a proxy is gone")?, after[side].context("a proxy is gone")?);
        let value = after.saturating_sub(before) as f64 / f64::from(CONNECTIONS);
        figures.add(Sample { scenario: scenario.into(), proxy: HEDDLE, measure, value });
    }
    Ok(())
}

fn one(to: SocketAddr) -> Result<TcpStream> {
    let mut connection = Connection::new(connect(None, to)?);
    let answer = connection.get("server", "/small")?;
    ensure!(answer.status == 200, "answered {}", answer.status);
    Ok(connection.into_inner())
}

fn crowd(programs: &Programs, scenario: &str, figures: &mut Figures) -> Result<()> {
    let weighs = |replicas: u32| -> Result<(u64, f64)> {
        let dir = tempfile::tempdir()?;
        let began = Instant::now();
        let stage = Stage::up(programs, dir.path(), 1, replicas)?;
        let took = began.elapsed().as_secs_f64();
        thread::sleep(SETTLE);
        Ok((resident(stage.proxy("n1")?).context("the proxy is gone")?, took))
    };
    let (few, quick) = weighs(1)?;
    let (many, took) = weighs(PODS)?;
    let mut add = |measure: &'static str, value: f64| {
        figures.add(Sample { scenario: scenario.into(), proxy: HEDDLE, measure, value });
    };
    add("memory_mib", many as f64 / 1024.0);
    add("kib_per_pod", many.saturating_sub(few) as f64 / f64::from(PODS - 1));
    add("ms_to_start_a_pod", (took - quick) * 1e3 / f64::from(PODS - 1));
    Ok(())
}

/// A playground; it ends with the value.
struct Stage {
    playground: Process,
    /// Address of the Service.
    service: String,
}

impl Stage {
    fn up(programs: &Programs, dir: &Path, nodes: u32, replicas: u32) -> Result<Self> {
        let (folder, logs) = (dir.join("objects"), dir.join("logs"));
        for dir in [&folder, &logs] {
            fs::create_dir_all(dir)?;
        }
        let fill = Fill { dir };
        // A pod has addresses of both families, and both are endpoints.
        let backend = include_str!("../rivals/backend.conf")
            .replace("{backend}", &format!("[::]:{BACKEND_PORT} ipv6only=off"))
            .replace("{h2c}", "127.0.0.1:9001")
            .replace("worker_connections 8192;", "worker_connections 16384;");
        fill.write("backend.conf", &backend)?;
        let objects = include_str!("../rivals/crowd.yaml")
            .replace("{replicas}", &replicas.to_string())
            .replace("{server_node}", if nodes > 1 { "n2" } else { "n1" })
            .replace("{nginx}", &programs.nginx.to_string_lossy());
        fill.write("objects/crowd.yaml", &objects)?;
        let meshctl = programs.heddle.join("meshctl");
        let mut up = Command::new(&meshctl);
        up.env("HEDDLE_WORKERS", "1").env(INSTALLED.0, INSTALLED.1);
        up.args(["playground", "up", "--nodes", &nodes.to_string(), "--logs"]).arg(&logs).arg(&folder);
        let playground = Process::start("playground", up, dir)?;
        let end = Instant::now() + READY;
        let service = loop {
            let mut status = Command::new(&meshctl);
            let out = status.args(["playground", "status", "--json"]).arg(&folder).stderr(Stdio::null()).output()?;
            let report: Value = serde_json::from_slice(&out.stdout).unwrap_or_default();
            let address = report["services"][0]["addresses"][0].as_str();
            if let Some(address) = address.filter(|_| report["ready"] == true) {
                break address.to_owned();
            }
            let why = (&report["waiting_for"], &report["problems"]);
            ensure!(Instant::now() < end, "the playground is not ready within {READY:?}: {} {}", why.0, why.1);
            thread::sleep(LOOK);
        };
        Ok(Self { playground, service })
    }

    /// The proxy of a node.
    fn proxy(&self, node: &str) -> Result<u32> {
        self.pid(|name, line| name == "mesh-proxy" && line.contains(&format!("node/{node}")))
    }

    /// The first process below the playground that fits.
    fn pid(&self, fits: impl Fn(&str, &str) -> bool) -> Result<u32> {
        let read = |pid: u32, file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let fits = |pid: &u32| fits(read(*pid, "comm").trim(), &read(*pid, "cmdline").replace('\0', " "));
        self.playground.family()?.into_iter().find(fits).context("a process of the playground is missing")
    }
}

/// Resident memory, KiB.
fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()
}
