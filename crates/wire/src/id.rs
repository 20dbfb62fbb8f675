//! Resource ids from their text, the reverse of their `Display`. It must not know what the resources hold.

use mesh_core::{
    mesh::{RouteId, RouteKind},
    name::NsName,
    node::ResourceId,
};

/// Longest namespace or name (Kubernetes: a DNS subdomain, 253 bytes).
const NAME_MAX: usize = 253;

/// A text that names no resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a resource id (`settings`, `roots` or KIND/NAMESPACE/NAME)")]
pub struct BadResourceId(pub String);

/// Reads what [`ResourceId`] writes of itself, and nothing else.
pub fn parse_resource_id(text: &str) -> Result<ResourceId, BadResourceId> {
    let bad = || BadResourceId(text.chars().take(NAME_MAX).collect());
    if text == "settings" {
        return Ok(ResourceId::Settings);
    }
    if text == "roots" {
        return Ok(ResourceId::Roots);
    }
    let (kind, rest) = text.split_once('/').ok_or_else(bad)?;
    let name = parse_name(rest).ok_or_else(bad)?;
    let route = |kind| RouteId { kind, name: name.clone() };
    Ok(match kind {
        "Pod" => ResourceId::Workload(name),
        "Service" => ResourceId::Service(name),
        "EndpointSlice" => ResourceId::EndpointSlice(name),
        "Secret" => ResourceId::Certificate(name),
        "Gateway" => ResourceId::Gateway(name),
        "HTTPRoute" => ResourceId::HttpRoute(route(RouteKind::Http)),
        "GRPCRoute" => ResourceId::HttpRoute(route(RouteKind::Grpc)),
        "TLSRoute" => ResourceId::StreamRoute(route(RouteKind::Tls)),
        "TCPRoute" => ResourceId::StreamRoute(route(RouteKind::Tcp)),
        "XBackendTrafficPolicy" => ResourceId::TrafficPolicy(name),
        _ => return Err(bad()),
    })
}

/// `namespace/name` of printable ASCII within the bounds of Kubernetes: ids go into logs as they are.
pub(crate) fn parse_name(text: &str) -> Option<NsName> {
    let name: NsName = text.parse().ok()?;
    let fits = |part: &str| part.len() <= NAME_MAX && part.bytes().all(|b| b.is_ascii_graphic());
    (fits(&name.namespace) && fits(&name.name)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_their_text_form() {
        let n = || NsName::new("shop", "cart");
        let route = |kind| RouteId { kind, name: n() };
        for id in [
            ResourceId::Settings,
            ResourceId::Roots,
            ResourceId::Workload(n()),
            ResourceId::Service(n()),
            ResourceId::EndpointSlice(n()),
            ResourceId::Certificate(n()),
            ResourceId::Gateway(n()),
            ResourceId::HttpRoute(route(RouteKind::Http)),
            ResourceId::HttpRoute(route(RouteKind::Grpc)),
            ResourceId::StreamRoute(route(RouteKind::Tls)),
            ResourceId::StreamRoute(route(RouteKind::Tcp)),
            ResourceId::TrafficPolicy(n()),
        ] {
            assert_eq!(parse_resource_id(&id.to_string()), Ok(id));
        }
    }

    #[test]
    fn other_texts_are_no_ids() {
        let long = format!("Pod/shop/{}", "x".repeat(NAME_MAX + 1));
        for bad in [
            "",
            "Settings",
            "Pod",
            "Pod/",
            "Pod/a",
            "Pod/a/",
            "Pod//b",
            "Pod/a/b/c",
            "pod/a/b",
            "X/a/b",
            "Pod/a/b\n",
            &long,
        ] {
            assert!(parse_resource_id(bad).is_err(), "{bad}");
        }
    }
}
