//! The wires of the playground: a bridge, a network namespace per virtual node and per Gateway, routes between them. It must not know pods; the CNI plugin wires those.

use super::{
    addresses::{self, Node, SUPERVISOR, SUPERVISOR_V6},
    netns::{Netns, ip_here},
};
use anyhow::{Context, Result};
use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
};

/// A bridge without an address of its own takes the lowest of its ports', and changes it when a Gateway is plugged in; neighbours would not know for half a minute.
const BRIDGE_MAC: &str = "02:68:65:64:64:01";

/// Lays the bridge in the supervisor's own network namespace.
pub fn lay_bridge() -> Result<()> {
    fs::write("/proc/sys/net/ipv4/ip_forward", "1")
        .context("cannot set net.ipv4.ip_forward in a namespace of our own (is /proc/sys read-only here?)")?;
    // Duplicate address detection would hold back every IPv6 address for a second.
    fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").context("cannot set accept_dad: is IPv6 disabled?")?;
    ip_here(&format!(
        "link set lo up\nlink add fabric address {BRIDGE_MAC} type bridge\nlink set fabric up\n\
         addr add {SUPERVISOR}/16 dev fabric\naddr add {SUPERVISOR_V6}/64 dev fabric nodad\n"
    ))
    .context("cannot lay the bridge between the nodes")
}

/// Makes a node: namespace, link to the bridge, forwarding, and routes to it here.
pub fn lay_node(node: &Node, all: &[Node], netns_dir: &Path) -> Result<Netns> {
    let netns = Netns::create(netns_dir.join(&node.name))?;
    netns.sysctl("net/ipv4/ip_forward", "1")?;
    netns.sysctl("net/ipv6/conf/all/forwarding", "1")?;
    netns.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
    plug(&netns, &node.name, node.v4(), node.v6())?;
    ip_here(&pod_routes(std::slice::from_ref(node)))?;
    let others: Vec<Node> = all.iter().filter(|n| *n != node).cloned().collect();
    netns.ip(&format!("{}{}", pod_routes(&others), default_routes()))?;
    Ok(netns)
}

/// Makes the namespace of a Gateway's proxy. `n` counts from 1.
pub fn lay_gateway(label: &str, n: u8, nodes: &[Node], netns_dir: &Path) -> Result<Netns> {
    let netns = Netns::create(netns_dir.join(label))?;
    netns.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
    let (v4, v6) = addresses::gateway(n);
    plug(&netns, &format!("gw{n}"), v4, v6)?;
    netns.ip(&format!("{}{}", pod_routes(nodes), default_routes()))?;
    Ok(netns)
}

/// A cable from the bridge to `eth0` of a namespace.
fn plug(netns: &Netns, label: &str, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<()> {
    ip_here(&format!(
        "link add fab-{label} type veth peer name eth0 netns {}\nlink set fab-{label} master fabric up\n",
        netns.path().display()
    ))
    .with_context(|| format!("cannot plug {label} into the bridge"))?;
    netns.ip(&format!("addr add {v4}/16 dev eth0\naddr add {v6}/64 dev eth0 nodad\nlink set eth0 up\n"))
}

fn pod_routes(nodes: &[Node]) -> String {
    nodes
        .iter()
        .map(|n| format!("route add {}/24 via {}\nroute add {}/64 via {}\n", n.pods_v4(), n.v4(), n.pods_v6(), n.v6()))
        .collect()
}

/// What is nobody's goes to the supervisor, which has no way out: an "unreachable" comes back at once instead of a timeout.
fn default_routes() -> String {
    format!("route add default via {SUPERVISOR}\nroute add default via {SUPERVISOR_V6}\n")
}
