//! Workloads: pods as the mesh sees them. It must not hold endpoints of Services.

use super::Mode;
use crate::{
    identity::Identity,
    name::{NsName, Text},
};
use std::net::IpAddr;

/// A pod. Its id is namespace/name; `uid` tells two pods of the same name apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Namespace and name of the pod.
    pub id: NsName,
    /// `metadata.uid`: a pod recreated under the same name, or an address used again, has another.
    pub uid: Text,
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
}

/// Whether a pod is in the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Enrolment {
    /// Not in the mesh: plaintext, not captured.
    None,
    /// In the mesh: captured, reachable by HBONE on :15008 (and by native HTTP/2 requests there), plaintext by mode.
    Meshed(Mode),
}

impl Enrolment {
    /// Whether the pod is captured and reachable by mTLS.
    pub const fn is_meshed(self) -> bool {
        matches!(self, Self::Meshed(_))
    }
}
