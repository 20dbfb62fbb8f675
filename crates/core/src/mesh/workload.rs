//! Workloads: pods as the mesh sees them. It must not hold endpoints of Services.

use super::{Mode, Probe, Uid};
use crate::{
    identity::Identity,
    name::{NsName, Text},
};
use std::{net::IpAddr, sync::Arc};

/// A pod. Its id is namespace/name; `uid` tells two pods of the same name apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Namespace and name of the pod.
    pub id: NsName,
    /// `metadata.uid`: a pod recreated under the same name, or an address used again, has another.
    pub uid: Uid,
    /// Node it is scheduled on; empty while unscheduled.
    pub node: Text,
    /// Pod addresses, primary first; empty until the pod has a sandbox.
    pub addresses: Vec<IpAddr>,
    /// Who it is.
    pub identity: Identity,
    /// How peers reach it and whether its node takes its traffic.
    pub enrolment: Enrolment,
    /// Controller that owns it (Deployment name or pod name): the bounded label for logs and metrics.
    pub owner: Text,
    /// What its kubelet asks of it. Only the proxy of its own node is told; empty for all others, and for a pod that is not meshed. Pods of one
    /// owner are asked the same, and share it.
    pub probes: Arc<[Probe]>,
}

/// Whether a pod is in the mesh. A running pod is taken in by `None → Joining → Meshed` and let go by
/// `Meshed(Strict) → Meshed(Permissive) → Leaving → None`, each step when all proxies have had time to know of the one before; so that
/// whatever two neighbouring states two proxies believe in, they can speak with each other, and none speaks plaintext to a strict pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Enrolment {
    /// Not in the mesh: plaintext, not captured.
    None,
    /// A running pod on its way in: to be captured, takes plaintext. Its peers speak mTLS if it answers, else plaintext as before.
    Joining,
    /// In the mesh: captured, reachable by HBONE on :15008 (and by native HTTP/2 requests there), plaintext by mode.
    Meshed(Mode),
    /// A running pod on its way out: still captured, takes both. Its peers speak plaintext.
    Leaving,
}

impl Enrolment {
    /// Whether the pod's node captures it.
    pub const fn is_meshed(self) -> bool {
        !matches!(self, Self::None)
    }
}
