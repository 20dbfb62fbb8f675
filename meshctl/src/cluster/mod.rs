//! Heddle on a Kubernetes cluster: install, upgrade, uninstall, check. It must not know how the mesh works inside; it reads and writes objects as any administrator could.

mod access;
mod ca;
mod check;
mod finding;
mod install;
mod manifests;
mod nodes;
mod rollout;
mod trial;
mod uninstall;

pub use ca::{Ca, ca};
pub use check::{When, check};
pub use install::{Choice, install, upgrade};
pub use manifests::Mode;
pub use uninstall::{Removal, uninstall};

pub use access::{Access, Target};

/// Where Heddle is installed. The manifests name it in many places; it is not a choice.
const NAMESPACE: &str = "heddle-system";

/// Name of the XMesh and of its MeshParameters that the commands here make.
const MESH: &str = "heddle";

/// `spec.controllerName` of what is ours.
const CONTROLLER: &str = "heddle.dev/controller";

/// The workloads, in the order in which they are replaced: what others need comes first.
const WORKLOADS: [(&str, &str); 3] =
    [("Deployment", "mesh-controller"), ("DaemonSet", "mesh-agent"), ("DaemonSet", "mesh-proxy")];

/// The user's label that takes a namespace into the mesh.
const MESH_LABEL: &str = "heddle.dev/mesh";
