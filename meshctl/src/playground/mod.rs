//! The playground: the whole mesh on one machine, without Kubernetes and without a container engine. It plays kubelet, scheduler, kube-proxy, DNS
//! and endpoint controller for a folder of YAML; it must not play any part of the mesh: controller, node proxies and CNI plugin are the real programs.
//!
//! ```text
//! meshctl playground up            outer process: host's network; binds 127.0.0.1 sockets, hands them in
//!   └─ stage                       user + pid namespace; undoes what is left when the outer process dies
//!        └─ supervisor (pid 1)     mount + network namespace; if it ends, the kernel ends everything below
//!             ├─ mesh-controller
//!             ├─ mesh-proxy        one per virtual node and per Gateway
//!             └─ containers        one process each, in the pod's namespaces
//! ```

pub mod access;
pub mod addresses;
mod agents;
pub mod cluster;
pub mod cni;
pub mod containers;
pub mod control;
pub mod deployment;
pub mod dns;
pub mod endpoints;
pub mod enter;
pub mod fabric;
pub mod folder;
pub mod gateways;
pub mod host;
pub mod kubelet;
pub mod link;
pub mod live;
pub mod netns;
pub mod plugin;
pub mod probe;
pub mod programs;
pub mod report;
pub mod request;
pub mod runtime_dir;
pub mod scenario;
pub mod services;
pub mod stage;
pub mod supervisor;

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What a playground is started with; handed from process to process as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Options {
    /// The user's folder, absolute.
    pub dir: PathBuf,
    /// Our directory on the host. Found once: inside a user namespace we would look like root.
    pub runtime: PathBuf,
    /// Number of virtual nodes.
    pub nodes: u8,
    /// Whether controller, proxies and `mesh-cni` run. Without them it is a cluster without a mesh.
    pub mesh: bool,
    /// The `meshctl` binary; the other programs are found next to it.
    pub meshctl: PathBuf,
    /// Where logs go; none: into the playground's own memory file system, gone with it.
    pub logs: Option<PathBuf>,
}

/// The name that GatewayClasses of ours bear in `controllerName`.
pub const CONTROLLER_NAME: &str = "heddle.dev/controller";
