//! Backends of a TCPRoute or TLSRoute. It must not know server names; attachments do.

use super::weight;
use crate::{
    api::generated::tlsroute::TlsRouteRules,
    plan::backend::{Reference, Resolver},
};
use mesh_core::mesh::BackendTarget;

/// Weighted backends of the one rule that the CRD allows.
pub(super) fn backends(resolver: &mut Resolver<'_, '_>, rules: &[TlsRouteRules]) -> Vec<(u32, BackendTarget)> {
    let mut backends = Vec::new();
    for (i, backend) in rules.iter().take(1).flat_map(|rule| &rule.backend_refs).enumerate() {
        let reference = Reference {
            group: backend.group.as_deref(),
            kind: backend.kind.as_deref(),
            name: &backend.name,
            namespace: backend.namespace.as_deref(),
            port: backend.port,
        };
        let target = resolver.resolve(&format!(".backendRefs[{i}]"), &reference);
        backends.push((weight(backend.weight), target));
    }
    backends
}
