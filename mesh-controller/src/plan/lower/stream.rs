//! Backends of a TCPRoute or TLSRoute. It must not know server names; attachments do.

use super::{Rules, unsupported, weight};
use crate::{
    api::generated::tlsroute::TlsRouteRules,
    plan::{
        attach::Refusal,
        backend::{Reference, Resolver},
    },
};

/// Weighted backends of the first rule. `v1` has exactly one; what `v1alpha2` says beyond it is dropped, and said to be.
pub(super) fn rules(resolver: &mut Resolver<'_, '_>, rules: &[TlsRouteRules]) -> (Rules, Vec<(usize, Refusal)>, usize) {
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
    let dropped = (1..rules.len()).map(|i| (i, unsupported("", "only the first rule is applied"))).collect();
    (Rules::Stream(backends), dropped, rules.len())
}
