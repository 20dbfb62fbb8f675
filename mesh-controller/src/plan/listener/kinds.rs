//! Kinds of routes that a listener takes: what its protocol carries, narrowed by `allowedRoutes.kinds`. It must not look at namespaces.

use super::Speaks;
use crate::{
    api,
    inventory::{GATEWAY_GROUP, Kind},
    plan::{attach::Refusal, status::reason},
};

/// The kinds that are admitted, and what is wrong with those that were asked for.
pub(super) fn admitted(spec: &api::Listener, speaks: Option<Speaks>) -> (Vec<Kind>, Option<Refusal>) {
    let carried: &[Kind] = match speaks {
        Some(Speaks::Http | Speaks::Https) => &[Kind::HttpRoute, Kind::GrpcRoute],
        Some(Speaks::TlsPassthrough | Speaks::TlsTerminate) => &[Kind::TlsRoute],
        Some(Speaks::Tcp) => &[Kind::TcpRoute],
        None => &[],
    };
    let Some(wanted) = spec.allowed_routes.as_ref().and_then(|a| a.kinds.as_ref()).filter(|k| !k.is_empty()) else {
        return (carried.to_vec(), None);
    };
    let (mut kinds, mut wrong) = (Vec::new(), Vec::new());
    for want in wanted {
        let group = want.group.as_deref().unwrap_or(GATEWAY_GROUP);
        match carried.iter().find(|k| group == GATEWAY_GROUP && want.kind == k.as_str()) {
            Some(kind) if kinds.contains(kind) => {}
            Some(kind) => kinds.push(*kind),
            None => wrong.push(format!("{}.{group}", want.kind)),
        }
    }
    let wrong = (!wrong.is_empty() && speaks.is_some()).then(|| {
        let message = format!(
            "allowedRoutes.kinds: a listener of protocol {} does not carry {}",
            spec.protocol,
            wrong.join(", ")
        );
        Refusal::new(reason::INVALID_ROUTE_KINDS, message)
    });
    (kinds, wrong)
}
