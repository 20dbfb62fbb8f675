//! Identity: pods as workloads, whether they are in the mesh and who they are. It must not issue anything.

use super::view::View;
use mesh_core::{
    identity::Identity,
    mesh::{Enrolment, Workload},
    name::NsName,
};
use std::sync::Arc;

/// Label that puts a namespace's pods into the mesh (`enabled`) or keeps one pod out (`disabled`).
pub const MESH_LABEL: &str = "heddle.dev/mesh";

/// The workload of a pod; none if it has ended or uses its node's network, where there is nothing of its own to capture.
pub(super) fn workload(view: &View<'_>, id: &NsName) -> Option<Workload> {
    let pod = view.pod(id).filter(|pod| !pod.spec.ended && !pod.spec.host_network)?;
    let settings = view.settings();
    // Names that no SPIFFE ID can hold do not pass an API server; such a pod has no identity and is unknown to the mesh.
    let identity = Identity::new(settings.trust_domain.clone(), &id.namespace, &pod.spec.service_account).ok()?;
    let wanted = !view.is_excluded(&id.namespace) && view.namespace_label(&id.namespace, MESH_LABEL) == Some("enabled");
    let refused = pod.meta.labels.get(MESH_LABEL).is_some_and(|v| v == "disabled");
    let mode = settings.mode.filter(|_| wanted && !refused);
    Some(Workload {
        id: id.clone(),
        uid: pod.meta.uid.clone(),
        node: pod.spec.node.clone(),
        addresses: pod.spec.addresses.clone(),
        identity,
        enrolment: mode.map_or(Enrolment::None, Enrolment::Meshed),
        owner: pod.spec.owner.clone(),
        probes: if mode.is_some() { pod.spec.probes.clone() } else { Arc::default() },
    })
}
