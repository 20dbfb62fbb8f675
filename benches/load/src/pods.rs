//! Two pods on two nodes, as the playground lays them, with a mesh between them or without: started, found, ended. It must not measure.

use crate::{
    arena::{Place, WIDE_PORTS},
    process::{Process, Usage},
    rival::{BACKEND_PORT, Fill, H2C_PORT, INSTALLED, Programs},
};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// A playground whose pods do not run by then is broken.
const READY: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// Addresses of the pods.
pub const CLIENT: &str = "10.20.1.50";
/// See `CLIENT`.
pub const SERVER: &str = "10.20.2.50";

/// What is between the pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mesh {
    /// Nothing but the nodes' address translation for Services.
    None,
    /// Ours: the real programs, as the playground starts them on each node.
    Heddle,
    /// An Envoy beside each pod.
    Envoy,
}

/// The pods, until the value is dropped.
pub struct Pods {
    /// What is between them.
    pub mesh: Mesh,
    /// Pids of the proxies of the data path.
    proxies: Vec<u32>,
    /// Pid of the process that holds the client's namespace open.
    client: u32,
    /// Address of the Service.
    pub service: String,
    playground: Process,
}

impl Place for Pods {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.client)).arg(program);
        command
    }
}

impl Pods {
    /// Starts pods and mesh; returns when both applications answer through it.
    pub fn up(mesh: Mesh, log: bool, programs: &Programs, fill: &Fill<'_>) -> Result<Self> {
        let folder = fill.dir.join("objects");
        let logs = fill.dir.join("logs");
        for dir in [&folder, &logs] {
            fs::create_dir_all(dir)?;
        }
        let backend = include_str!("../rivals/backend.conf")
            .replace("{backend}", &format!("0.0.0.0:{BACKEND_PORT}"))
            .replace("{h2c}", &format!("0.0.0.0:{H2C_PORT}"));
        fill.write("backend.conf", &backend)?;
        // Without a selector the playground makes no endpoints; mesh-heddle.yaml names them.
        let selector = if mesh == Mesh::Heddle { "" } else { "  selector: {app: server}\n" };
        let pods = include_str!("../rivals/pods.yaml")
            .replace("{ports}", WIDE_PORTS)
            .replace("{selector}\n", selector)
            .replace("{nginx}", &programs.nginx.to_string_lossy());
        let sidecar = |which: &str, capture: &str| {
            include_str!("../rivals/mesh-envoy-sidecar.yaml")
                .lines()
                .filter(|line| mesh == Mesh::Envoy && !line.is_empty())
                .map(|line| format!("{line}\n"))
                .collect::<String>()
                .replace("{capture}", capture)
                .replace("{envoy}", &programs.envoy.to_string_lossy())
                .replace("{config}", which)
        };
        let capture = format!("nft -f {} &&", fill.dir.join("mesh-envoy.nft").display());
        let pods = pods
            .replace("{client_sidecar}\n", &sidecar("client.yaml", &capture))
            .replace("{server_sidecar}\n", &sidecar("server.yaml", ""));
        fill.write("objects/pods.yaml", &pods)?;
        match mesh {
            Mesh::None => {}
            Mesh::Heddle => {
                let level = if log { "All" } else { "Off" };
                let objects = include_str!("../rivals/mesh-heddle.yaml").replace("{log}", level);
                fill.write("objects/mesh.yaml", &objects)?;
            }
            Mesh::Envoy => envoy(log, fill)?,
        }
        let meshctl = programs.heddle.join("meshctl");
        let mut up = Command::new(&meshctl);
        // One thread for the data path, as all have here.
        up.env("HEDDLE_WORKERS", "1").env(INSTALLED.0, INSTALLED.1);
        up.args(["playground", "up", "--nodes", "2", "--logs"]).arg(&logs);
        if mesh != Mesh::Heddle {
            up.arg("--no-mesh");
        }
        up.arg(&folder);
        let mut playground = Process::start("playground", up, fill.dir)?;
        let service = ready(&mut playground, &meshctl, &folder)?;
        let client = find(&playground, 1, |name, line| name == "sleep" && line.contains("infinity"))?;
        let proxies = match mesh {
            Mesh::None => Vec::new(),
            Mesh::Heddle => find(&playground, 2, |name, line| name == "mesh-proxy" && line.contains("node/n"))?,
            Mesh::Envoy => find(&playground, 2, |name, _| name == "envoy")?,
        };
        let mut pods = Self { mesh, proxies, client: client[0], service, playground };
        pods.answers().with_context(|| format!("see {}", logs.display()))?;
        Ok(pods)
    }

    /// What both proxies have used together.
    pub fn usage(&self) -> Result<Option<Usage>> {
        if self.proxies.is_empty() {
            return Ok(None);
        }
        Usage::of(&self.proxies).map(Some)
    }

    /// Waits until each port of the Service leads to its application.
    fn answers(&mut self) -> Result<()> {
        let end = Instant::now() + READY;
        for (port, protocol) in
            [(80, "--http1.1"), (81, "--http2-prior-knowledge"), (90, "--http1.1"), (92, "--http1.1")]
        {
            let url = format!("http://{}:{port}/small", self.service);
            loop {
                self.playground.lives()?;
                let mut curl = self.command("curl");
                let out = curl.args(["-sSf", "-m", "2", "-o", "/dev/null", protocol, &url]).output()?;
                if out.status.success() {
                    break;
                }
                let why = String::from_utf8_lossy(&out.stderr).trim().to_owned();
                ensure!(Instant::now() < end, "{url} does not answer within {READY:?}: {why}");
                std::thread::sleep(LOOK);
            }
        }
        Ok(())
    }
}

/// Configs, certificates and capture of the pair of Envoys.
fn envoy(log: bool, fill: &Fill<'_>) -> Result<()> {
    identities(fill)?;
    let line = if log { include_str!("../rivals/mesh-envoy-log.yaml") } else { "" };
    for (name, template) in [
        ("client.yaml", include_str!("../rivals/mesh-envoy-client.yaml")),
        ("server.yaml", include_str!("../rivals/mesh-envoy-server.yaml")),
    ] {
        fill.write(name, &template.replace("{log}\n", line))?;
    }
    fill.write("mesh-envoy.nft", include_str!("../rivals/mesh-envoy.nft"))?;
    Ok(())
}

/// A root and the two pods' certificates with their SPIFFE identities: ECDSA P-256, as Heddle's are.
fn identities(fill: &Fill<'_>) -> Result<()> {
    const SCRIPT: &str = r#"set -eu; cd "$0"
        key="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
        openssl req -x509 $key -subj /O=bench -addext keyUsage=critical,keyCertSign -keyout root.key -out root.crt
        for name in client server; do
          openssl req -x509 $key -CA root.crt -CAkey root.key -subj / -keyout $name.key -out $name.crt \
            -addext basicConstraints=critical,CA:FALSE -addext keyUsage=critical,digitalSignature \
            -addext subjectAltName=critical,URI:spiffe://cluster.local/ns/bench/sa/$name
        done"#;
    let out = Command::new("bash").args(["-c", SCRIPT]).arg(fill.dir).output().context("bash")?;
    ensure!(out.status.success(), "openssl: {}", String::from_utf8_lossy(&out.stderr));
    Ok(())
}

/// Waits for the playground's own word; the Service's address.
fn ready(playground: &mut Process, meshctl: &PathBuf, folder: &PathBuf) -> Result<String> {
    let end = Instant::now() + READY;
    loop {
        playground.lives()?;
        let mut status = Command::new(meshctl);
        let out = status.args(["playground", "status", "--json"]).arg(folder).stderr(Stdio::null()).output()?;
        let report: Value = serde_json::from_slice(&out.stdout).unwrap_or_default();
        if report["ready"] == true {
            let address = report["services"][0]["addresses"][0].as_str();
            return Ok(address.context("the Service has no address")?.to_owned());
        }
        ensure!(
            Instant::now() < end,
            "the playground is not ready within {READY:?}: {} {} {}",
            report["waiting_for"],
            report["problems"],
            playground.said()
        );
        std::thread::sleep(LOOK);
    }
}

/// Pids of so many processes below the playground whose name and command line fit, waiting until they have become what they shall be.
fn find(playground: &Process, count: usize, fits: impl Fn(&str, &str) -> bool) -> Result<Vec<u32>> {
    let read = |pid: u32, file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let end = Instant::now() + READY;
    loop {
        let mut found = playground.family()?;
        found.retain(|pid| fits(read(*pid, "comm").trim(), &read(*pid, "cmdline").replace('\0', " ")));
        if found.len() == count {
            return Ok(found);
        }
        ensure!(Instant::now() < end, "{} processes are there where {count} should be", found.len());
        std::thread::sleep(LOOK);
    }
}
