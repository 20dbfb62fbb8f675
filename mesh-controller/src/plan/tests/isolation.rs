//! One broken object never breaks another: all other outputs stay equal, but those that say that they depend on it.

use super::{
    set,
    world::{Edit, edits},
};
use crate::{
    inventory::{Change, admit},
    plan::Planner,
};
use mesh_core::{
    mesh::{Attachment, BackendTarget, Filter, HttpRoute, ListenerProtocol},
    node::{Resource, ResourceId},
};
use proptest::prelude::*;
use serde_json::json;

/// What a resource names, and what must therefore be there.
pub(super) fn points_to(resource: &Resource) -> Vec<ResourceId> {
    fn target(target: &BackendTarget) -> Option<ResourceId> {
        match target {
            BackendTarget::Service { service, .. } => Some(ResourceId::Service(service.clone())),
            BackendTarget::Broken => None,
        }
    }
    fn places(attachments: &[Attachment]) -> Vec<ResourceId> {
        let place = |a: &Attachment| match a {
            Attachment::Service { service, .. } => ResourceId::Service(service.clone()),
            Attachment::Listener { gateway, .. } => ResourceId::Gateway(gateway.clone()),
        };
        attachments.iter().map(place).collect()
    }
    fn http(route: &HttpRoute) -> Vec<ResourceId> {
        let mut ids = places(&route.attachments);
        for rule in &route.rules {
            ids.extend(rule.backends.iter().filter_map(|b| target(&b.target)));
            ids.extend(rule.filters.iter().filter_map(|f| match f {
                Filter::Mirror(m) => target(&m.target),
                _ => None,
            }));
        }
        ids
    }
    match resource {
        Resource::EndpointSlice(s) => vec![ResourceId::Service(s.service.clone())],
        Resource::HttpRoute(r) => http(r),
        Resource::StreamRoute(r) => {
            let mut ids = places(&r.attachments);
            ids.extend(r.backends.iter().filter_map(|(_, b)| target(b)));
            ids
        }
        Resource::TrafficPolicy(p) => p.targets.iter().map(|t| ResourceId::Service(t.clone())).collect(),
        Resource::Gateway(g) => g
            .listeners
            .iter()
            .flat_map(|l| match &l.protocol {
                ListenerProtocol::Https(ids) | ListenerProtocol::TlsTerminate(ids) => ids.clone(),
                _ => Vec::new(),
            })
            .map(ResourceId::Certificate)
            .collect(),
        _ => Vec::new(),
    }
}

/// Objects that are wrong in ways that an API server lets through.
fn broken() -> impl Strategy<Value = serde_json::Value> {
    let meta = |name: &str| json!({"name": name, "namespace": "a", "generation": 1});
    prop_oneof![
        Just(
            json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": meta("broken"), "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "nowhere"}], "rules": [{"backendRefs": [{"name": "nowhere", "port": 1}]}]}})
        ),
        Just(
            json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": meta("broken"), "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "x"}], "rules": [{"matches": [{"path": {"type": "RegularExpression", "value": "("}}]}]}})
        ),
        Just(
            json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": meta("broken"), "spec": {
            "gatewayClassName": "x", "listeners": [{"name": "l", "port": 80, "protocol": "CARRIER-PIGEON"}]}})
        ),
        Just(
            json!({"apiVersion": "gateway.networking.x-k8s.io/v1alpha1", "kind": "XBackendTrafficPolicy", "metadata": meta("broken"), "spec": {
            "targetRefs": [{"group": "", "kind": "Service", "name": "x"}], "retryConstraint": {"budget": {"interval": "900h"}}}})
        ),
        Just(
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": meta("broken"), "stringData": {"tls.crt": "no", "tls.key": "no"}})
        ),
        Just(
            json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta("broken"), "addressType": "IPv4", "endpoints": []})
        ),
        Just(
            json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "TLSRoute", "metadata": meta("broken"), "spec": {
            "parentRefs": [{"name": "nowhere"}], "hostnames": ["a.b"], "rules": [{"backendRefs": [{"name": "x"}]}]}})
        ),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_broken_object_leaves_all_other_outputs_equal(edits in edits(40), broken in broken()) {
        let mut planner = Planner::new("heddle");
        planner.apply(edits.iter().filter_map(|e| match e {
            Edit::Set(object) => Some(set(object)),
            Edit::Remove(_) => None,
        }));
        let before = planner.plan().clone();
        let key = admit(&mut broken.clone()).expect("an API server lets it through").key;
        planner.apply([set(&broken)]);
        let after = planner.plan();
        let is_its_own = |id: &ResourceId| id.to_string() == key.to_string();
        let others = |plan: &crate::plan::Plan| -> Vec<(ResourceId, Resource)> {
            plan.mesh.iter().map(|r| (r.id(), r.clone())).filter(|(id, _)| !is_its_own(id)).collect()
        };
        prop_assert_eq!(others(&before), others(after));
        for (other, status) in &before.statuses {
            if *other != key {
                prop_assert_eq!(after.statuses.get(other), Some(status), "{}", other);
            }
        }
        planner.apply([Change::Remove(key)]);
        prop_assert_eq!(planner.plan(), &before);
    }
}
