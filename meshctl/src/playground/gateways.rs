//! Gateways of the folder: an address each, a network namespace with a proxy in gateway mode, and a port on the host for every listener port. It must not read routes.

use super::{
    CONTROLLER_NAME, addresses,
    addresses::Node,
    control::Bind,
    fabric,
    folder::{Key, Object},
    link,
    netns::Netns,
    programs::{Program, Programs},
    report::GatewayReport,
};
use anyhow::{Context, Result};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::task::AbortHandle;

/// A gateway proxy that does not answer for so long is told to the client by closing.
const DIAL: Duration = Duration::from_secs(2);

/// The way to the outer process, which alone may open sockets of the host.
pub type Link = Arc<Mutex<UnixStream>>;

/// The gateways that run.
#[derive(Debug)]
pub struct Gateways {
    /// Directory of pinned namespaces.
    pub netns_dir: PathBuf,
    /// Nodes, for routes.
    pub nodes: Vec<Node>,
    /// Programs.
    pub programs: Arc<Programs>,
    /// Link to the outer process.
    pub link: Link,
    /// The gateways.
    pub running: BTreeMap<String, Gateway>,
}

/// One gateway.
#[derive(Debug)]
pub struct Gateway {
    n: u8,
    netns: Netns,
    ports: BTreeMap<u16, (String, AbortHandle)>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        for (_, task) in self.ports.values() {
            task.abort();
        }
    }
}

/// A Gateway as far as we need it: name and ports of its listeners.
pub fn wanted(objects: &BTreeMap<Key, Object>) -> BTreeMap<String, BTreeSet<u16>> {
    let of = |kind: &'static str| {
        objects.values().filter(move |o| o.key.group == "gateway.networking.k8s.io" && o.key.kind == kind)
    };
    let ours: BTreeSet<&str> = of("GatewayClass")
        .filter(|c| c.value["spec"]["controllerName"] == CONTROLLER_NAME)
        .map(|c| c.key.name.as_str())
        .collect();
    of("Gateway")
        .filter(|g| g.value["spec"]["gatewayClassName"].as_str().is_some_and(|c| ours.contains(c)))
        .map(|g| {
            let listeners = g.value["spec"]["listeners"].as_array().into_iter().flatten();
            let ports = listeners.filter_map(|l| l["port"].as_u64().and_then(|p| u16::try_from(p).ok())).collect();
            (format!("{}/{}", g.key.namespace, g.key.name), ports)
        })
        .collect()
}

impl Gateways {
    /// Makes what runs be what is wanted. `program` names the proxy of a gateway; none: there is no mesh.
    pub fn reconcile(
        &mut self,
        wanted: &BTreeMap<String, BTreeSet<u16>>,
        program: impl Fn(&str, &Netns) -> Result<Option<Program>>,
    ) -> Result<()> {
        let gone: Vec<String> = self.running.keys().filter(|name| !wanted.contains_key(*name)).cloned().collect();
        for name in gone {
            self.programs.remove(&format!("gateway/{name}"));
            if let Some(gateway) = self.running.remove(&name) {
                gateway.netns.remove()?;
            }
        }
        for (name, ports) in wanted {
            if !self.running.contains_key(name) {
                let used: BTreeSet<u8> = self.running.values().map(|g| g.n).collect();
                let n = (1..=250).find(|n| !used.contains(n)).context("more than 250 Gateways")?;
                let netns = fabric::lay_gateway(&format!("gw-{n}"), n, &self.nodes, &self.netns_dir)?;
                if let Some(program) = program(name, &netns)? {
                    self.programs.start(program)?;
                }
                self.running.insert(name.clone(), Gateway { n, netns, ports: BTreeMap::new() });
            }
            let Some(gateway) = self.running.get_mut(name) else { continue };
            gateway.ports.retain(|port, (_, task)| {
                let keep = ports.contains(port);
                if !keep {
                    task.abort();
                }
                keep
            });
            for port in ports {
                if !gateway.ports.contains_key(port) {
                    let (address, listener) = bind(&self.link, *port)?;
                    let to = SocketAddr::from((addresses::gateway(gateway.n).0, *port));
                    let task = tokio::spawn(forward(listener, to)).abort_handle();
                    gateway.ports.insert(*port, (address, task));
                }
            }
        }
        Ok(())
    }

    /// Addresses of a gateway in the playground.
    pub fn addresses(&self, name: &str) -> Vec<String> {
        let Some(gateway) = self.running.get(name) else { return Vec::new() };
        let (v4, v6) = addresses::gateway(gateway.n);
        vec![v4.to_string(), v6.to_string()]
    }

    /// Listeners to wait for: address and port inside the playground.
    pub fn listeners(&self) -> Vec<(String, SocketAddr)> {
        let of = |(name, g): (&String, &Gateway)| {
            let v4 = addresses::gateway(g.n).0;
            g.ports.keys().map(|p| (name.clone(), SocketAddr::from((v4, *p)))).collect::<Vec<_>>()
        };
        self.running.iter().flat_map(of).collect()
    }

    /// For `status`.
    pub fn report(&self) -> Vec<GatewayReport> {
        let of = |(name, g): (&String, &Gateway)| GatewayReport {
            name: name.clone(),
            addresses: self.addresses(name),
            ports: g.ports.iter().map(|(port, (address, _))| (*port, address.clone())).collect(),
        };
        self.running.iter().map(of).collect()
    }
}

/// Marks a copy of the Gateway with its addresses: what provisioning does in a cluster.
pub fn annotated(gateway: &Value, addresses: &[String]) -> Value {
    let mut copy = gateway.clone();
    copy["metadata"]["annotations"]["heddle.dev/addresses"] = addresses.join(",").into();
    copy
}

fn bind(link: &Link, port: u16) -> Result<(String, TcpListener)> {
    let stream = link.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    link::send(&stream, &Bind { port }, &[])?;
    let (address, mut fds) = link::receive::<Result<String, String>>(&stream)?.context("the outer process is gone")?;
    let address = address.map_err(anyhow::Error::msg)?;
    let fd: OwnedFd = fds.pop().context("the outer process sent no socket")?;
    Ok((address, TcpListener::from(fd)))
}

async fn forward(listener: TcpListener, to: SocketAddr) -> Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let Ok((mut from_host, peer)) = listener.accept().await else {
            // Out of descriptors, most likely: let some go.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        tokio::spawn(async move {
            if let Ok(Ok(mut inside)) = tokio::time::timeout(DIAL, dial(peer.port(), to)).await {
                let _ = (inside.set_nodelay(true), from_host.set_nodelay(true));
                // Either end may break off; the other sees it by the closing.
                let _ = tokio::io::copy_bidirectional(&mut from_host, &mut inside).await;
            }
        });
    }
}

/// Connects from the port that the client has on the host, if it is free here: by it the client finds its line in the access log.
async fn dial(port: u16, to: SocketAddr) -> std::io::Result<tokio::net::TcpStream> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    if socket.bind((addresses::SUPERVISOR, port).into()).is_err() {
        return tokio::net::TcpStream::connect(to).await;
    }
    socket.connect(to).await
}
