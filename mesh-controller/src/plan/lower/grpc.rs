//! Rules of a GRPCRoute. It must not know filters or matches one by one; `filter` and `matches` do.

use super::{
    Rule,
    filter::{self, Filters},
    matches, unsupported, weight,
};
use crate::{
    api::{GrpcMatch, GrpcRouteSpec, GrpcRule},
    plan::{
        attach::Refusal,
        backend::{Reference, Resolver},
    },
};
use mesh_core::mesh::{BackendTarget, HttpBackend, HttpMatch, HttpRule};

pub(super) fn rules(resolver: &mut Resolver<'_, '_>, spec: &GrpcRouteSpec) -> Vec<Rule> {
    let rules = spec.rules.iter().flatten().enumerate();
    let lower = |(index, spec)| {
        resolver.rule = index;
        rule(resolver, spec)
    };
    rules.map(lower).collect()
}

fn rule(resolver: &mut Resolver<'_, '_>, spec: &GrpcRule) -> Rule {
    if spec.session_persistence.is_some() {
        return Err(unsupported(".sessionPersistence", "is not supported"));
    }
    let conditions = spec.matches.iter().flatten().enumerate();
    let mut matches = conditions
        .map(|(i, m)| matches::grpc(&format!(".matches[{i}]"), m))
        .collect::<Result<Vec<HttpMatch>, Refusal>>()?;
    if matches.is_empty() {
        // "If no matches are specified, the implementation MUST match every gRPC request."
        matches.push(matches::grpc(".matches", &GrpcMatch::default())?);
    }
    let filters = filter::grpc(resolver, ".filters", spec.filters.as_deref().unwrap_or_default())?;
    let mut backends = Vec::new();
    for (i, backend) in spec.backend_refs.iter().flatten().enumerate() {
        let field = format!(".backendRefs[{i}]");
        let reference = Reference {
            group: backend.group.as_deref(),
            kind: backend.kind.as_deref(),
            name: &backend.name,
            namespace: backend.namespace.as_deref(),
            port: backend.port,
        };
        let target = resolver.resolve(&field, &reference);
        let specs = backend.filters.as_deref().unwrap_or_default();
        let (target, filters) = match filter::grpc(resolver, &format!("{field}.filters"), specs)? {
            Filters::All(filters) => (target, filters),
            Filters::Failing => (BackendTarget::Broken, Vec::new()),
        };
        backends.push(HttpBackend { weight: weight(backend.weight), target, filters });
    }
    let filters = match filters {
        Filters::All(filters) => filters,
        Filters::Failing => {
            backends.clear();
            Vec::new()
        }
    };
    let name = spec.name.as_deref().map(Into::into);
    Ok(HttpRule { name, matches, filters, backends, request_timeout: None, backend_timeout: None, retry: None })
}
