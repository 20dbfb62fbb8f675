//! Probes of a container, made from the node to the pod's address as a kubelet's are; what only the playground asks, inside the pod. It must not decide what an answer means for the pod.

use super::{enter::Enter, netns::Netns};
use anyhow::{Context, Result, bail};
use k8s_openapi::{
    api::core::v1::{Container, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};
use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

/// What a probe asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Nothing: ready as soon as it runs.
    Nothing,
    /// Whether the built-in echo server, which declares no probe, listens; asked inside the pod.
    Listens(u16),
    /// A TCP connection.
    Tcp(u16),
    /// An HTTP GET; 200 to 399 is good.
    Http {
        /// Port.
        port: u16,
        /// Path and query.
        path: String,
        /// Headers.
        headers: Vec<(String, String)>,
    },
    /// A command that must end with 0.
    Exec(Vec<String>),
}

/// A readiness probe with its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// What it asks.
    pub ask: Ask,
    /// Before the first.
    pub initial_delay: Duration,
    /// Between two, once the container is ready.
    pub period: Duration,
    /// For one.
    pub timeout: Duration,
    /// So many bad ones in a row make the container not ready.
    pub failures: u32,
}

/// The echo server's port when it names none.
pub const ECHO_PORT: u16 = 8080;

impl Readiness {
    /// The probe of a container; an echo server without one is asked whether it listens.
    pub fn of(container: &Container, is_echo: bool) -> Result<Self, String> {
        let probe = container.readiness_probe.clone().unwrap_or_default();
        let seconds = |n: Option<i32>, default: u64| {
            Duration::from_secs(n.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0).unwrap_or(default))
        };
        let port = |p: &IntOrString| match p {
            IntOrString::Int(n) => u16::try_from(*n).map_err(|_| format!("port {n} of the readinessProbe")),
            IntOrString::String(name) => container
                .ports
                .iter()
                .flatten()
                .find(|p| p.name.as_deref() == Some(name))
                .and_then(|p| u16::try_from(p.container_port).ok())
                .ok_or_else(|| format!("the container has no port {name} that the readinessProbe names")),
        };
        let ask = match &probe {
            Probe { http_get: Some(get), .. } => Ask::Http {
                port: port(&get.port)?,
                path: get.path.clone().unwrap_or_else(|| "/".into()),
                headers: get.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone())).collect(),
            },
            Probe { tcp_socket: Some(tcp), .. } => Ask::Tcp(port(&tcp.port)?),
            Probe { exec: Some(exec), .. } => Ask::Exec(exec.command.clone().unwrap_or_default()),
            Probe { grpc: Some(_), .. } => return Err("a grpc readinessProbe is not supported here".into()),
            _ if is_echo => Ask::Listens(
                container
                    .ports
                    .iter()
                    .flatten()
                    .find(|p| p.protocol.as_deref().unwrap_or("TCP") == "TCP")
                    .and_then(|p| u16::try_from(p.container_port).ok())
                    .unwrap_or(ECHO_PORT),
            ),
            _ => Ask::Nothing,
        };
        Ok(Self {
            ask,
            initial_delay: Duration::from_secs(
                probe.initial_delay_seconds.and_then(|n| n.try_into().ok()).unwrap_or(0),
            ),
            // Kubernetes waits 10 s by default; a person at a playground does not.
            period: seconds(probe.period_seconds, 1),
            timeout: seconds(probe.timeout_seconds, 1),
            failures: probe.failure_threshold.and_then(|n| n.try_into().ok()).unwrap_or(3),
        })
    }
}

/// Asks once, from `node` to the pod's `address`. Blocks up to `timeout`.
pub fn ask(ask: &Ask, timeout: Duration, (node, address): (&Netns, IpAddr), pod: &Enter, meshctl: &Path) -> Result<()> {
    match ask {
        Ask::Nothing => Ok(()),
        Ask::Listens(port) => {
            let inside = Netns::at(&pod.netns);
            inside.run(|| connect(Ipv4Addr::LOCALHOST.into(), *port, timeout))?.map(drop)
        }
        Ask::Tcp(port) => node.run(|| connect(address, *port, timeout))?.map(drop),
        Ask::Http { port, path, headers } => {
            let mut stream = node.run(|| connect(address, *port, timeout))??;
            stream.set_read_timeout(Some(timeout))?;
            let host = if headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("host")) {
                String::new()
            } else {
                format!("Host: {}\r\n", SocketAddr::new(address, *port))
            };
            let headers: String = headers.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
            write!(
                stream,
                "GET {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\nUser-Agent: kube-probe/playground\r\n\r\n"
            )?;
            // "HTTP/1.1 200": the status is in the first twelve bytes.
            let mut head = [0; 12];
            stream.read_exact(&mut head).context("no response")?;
            match std::str::from_utf8(&head[9..]).ok().and_then(|s| s.parse::<u16>().ok()) {
                Some(200..=399) => Ok(()),
                other => bail!("status {other:?}"),
            }
        }
        Ask::Exec(argv) => {
            let mut command = pod.command(meshctl, argv)?;
            let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
            let deadline = Instant::now() + timeout;
            loop {
                if let Some(status) = child.try_wait()? {
                    return if status.success() { Ok(()) } else { bail!("{status}") };
                }
                if Instant::now() > deadline {
                    child.kill()?;
                    child.wait()?;
                    bail!("no end within {timeout:?}");
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

fn connect(address: IpAddr, port: u16, timeout: Duration) -> Result<TcpStream> {
    Ok(TcpStream::connect_timeout(&SocketAddr::new(address, port), timeout)?)
}
