//! Listeners of a Gateway of ours: which are valid, what they admit, and what is to be said of each. It must not look at routes.

mod certificates;
mod conflict;
mod kinds;

use super::{
    CONTROLLER_NAME,
    attach::Refusal,
    hostname,
    status::{Condition, reason},
    view::View,
};
use crate::{
    api::{self, GatewaySpec, RoutesFrom, Selector, TlsMode},
    inventory::Kind,
};
use mesh_core::{
    mesh::{self, HostPattern, ListenerProtocol},
    name::{GatewayId, NsName, Text},
};

/// The listeners of a Gateway of ours.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Listeners {
    /// Why the Gateway as a whole cannot be served.
    pub(super) refused: Option<Refusal>,
    /// In the order of the spec.
    pub(super) listeners: Vec<Listener>,
}

/// One listener.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Listener {
    pub(super) name: Text,
    pub(super) port: u16,
    pub(super) hostname: Option<HostPattern>,
    /// Kinds of routes that may attach.
    pub(super) kinds: Vec<Kind>,
    /// What it is lowered to, if it is served.
    pub(super) served: Option<mesh::Listener>,
    pub(super) conditions: Vec<Condition>,
    from: Admits,
}

#[derive(Clone, Debug, PartialEq)]
enum Admits {
    All,
    Same,
    Selected(Selector),
    Nobody,
}

/// A listener while it is judged.
struct Draft<'a> {
    spec: &'a api::Listener,
    port: u16,
    hostname: Option<HostPattern>,
    speaks: Result<Speaks, Refusal>,
    conflict: Option<Refusal>,
    overlaps: Vec<&'a str>,
}

/// What a listener speaks, before its certificates are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    Http,
    Https,
    TlsPassthrough,
    TlsTerminate,
    Tcp,
}

impl Speaks {
    /// Whether the server name in the ClientHello tells listeners of a port apart.
    const fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::TlsPassthrough | Self::TlsTerminate)
    }
}

/// The listeners of a Gateway; none if it is not ours.
pub(super) fn plan(view: &View<'_>, id: &GatewayId) -> Option<Listeners> {
    let gateway = view.gateway(id)?;
    let class = view.class(&NsName::new("", gateway.spec.gateway_class_name.as_str()))?;
    if class.spec.controller_name != CONTROLLER_NAME {
        return None;
    }
    let refused = refuse(&gateway.spec);
    let mut drafts: Vec<Draft<'_>> = gateway.spec.listeners.iter().map(|spec| draft(&gateway.spec, spec)).collect();
    conflict::find(&mut drafts);
    let listeners = drafts.into_iter().map(|draft| judge(view, id, draft, refused.is_none())).collect();
    Some(Listeners { refused, listeners })
}

/// What we cannot give the Gateway as a whole.
fn refuse(spec: &GatewaySpec) -> Option<Refusal> {
    if let Some(parameters) = spec.infrastructure.as_ref().and_then(|i| i.parameters_ref.as_ref()) {
        let message =
            format!("spec.infrastructure.parametersRef: {}.{} is not supported", parameters.kind, parameters.group);
        return Some(Refusal::new(reason::INVALID_PARAMETERS, message));
    }
    let mut addresses = spec.addresses.iter().flatten();
    let foreign = addresses.find(|a| a.r#type.as_deref().is_some_and(|t| t != "IPAddress"))?;
    let message = format!("spec.addresses: type {} is not supported", foreign.r#type.as_deref().unwrap_or_default());
    Some(Refusal::new(reason::UNSUPPORTED_ADDRESS, message))
}

fn draft<'a>(gateway: &GatewaySpec, spec: &'a api::Listener) -> Draft<'a> {
    let mode = spec.tls.as_ref().map_or(&TlsMode::Terminate, |tls| tls.mode.as_ref().unwrap_or(&TlsMode::Terminate));
    let mut speaks = match (spec.protocol.as_str(), mode) {
        ("HTTP", _) => Ok(Speaks::Http),
        ("HTTPS", TlsMode::Terminate) => Ok(Speaks::Https),
        ("TLS", TlsMode::Terminate) => Ok(Speaks::TlsTerminate),
        ("TLS", TlsMode::Passthrough) => Ok(Speaks::TlsPassthrough),
        ("TCP", _) => Ok(Speaks::Tcp),
        ("HTTPS", TlsMode::Passthrough) => {
            Err(Refusal::new(reason::UNSUPPORTED_VALUE, "tls.mode must be Terminate for protocol HTTPS"))
        }
        (other, _) => Err(Refusal::new(reason::UNSUPPORTED_PROTOCOL, format!("protocol {other} is not supported"))),
    };
    // A listener that should ask clients for certificates must not serve those who have none.
    let frontend = gateway.tls.as_ref().and_then(|tls| tls.frontend.as_ref());
    if speaks == Ok(Speaks::Https) && frontend.is_some() {
        let message = "spec.tls.frontend (validation of client certificates) is not supported";
        speaks = Err(Refusal::new(reason::UNSUPPORTED_VALUE, message));
    }
    if spec.filters.as_ref().is_some_and(|f| f.requests.as_ref().is_some_and(|r| !r.is_empty())) {
        speaks = Err(Refusal::new(reason::UNSUPPORTED_VALUE, "filters of listeners are not supported"));
    }
    let text = spec.hostname.as_deref().filter(|h| !h.is_empty());
    let hostname = text.and_then(hostname::parse);
    if let (Some(text), None) = (text, &hostname) {
        speaks = Err(Refusal::new(reason::UNSUPPORTED_VALUE, format!("{text:?} is not a hostname")));
    }
    // The CRD bounds it to 1..=65535.
    let port = u16::try_from(spec.port).unwrap_or(0);
    Draft { spec, port, hostname, speaks, conflict: None, overlaps: Vec::new() }
}

fn judge(view: &View<'_>, gateway: &GatewayId, draft: Draft<'_>, gateway_accepted: bool) -> Listener {
    let Draft { spec, port, hostname, speaks, conflict, overlaps } = draft;
    let (kinds, wrong_kinds) = kinds::admitted(spec, speaks.as_ref().ok().copied());
    let certificates = match speaks {
        Ok(Speaks::Https | Speaks::TlsTerminate) => certificates::find(view, gateway, spec),
        _ => Ok(Vec::new()),
    };
    let accepted = match (&speaks, &conflict) {
        (Err(refusal), _) | (Ok(_), Some(refusal)) => {
            Condition::no("Accepted", refusal.reason, refusal.message.clone())
        }
        (Ok(_), None) => Condition::yes("Accepted", reason::ACCEPTED, "valid".into()),
    };
    let resolved = match (&wrong_kinds, &certificates) {
        (Some(refusal), _) | (None, Err(refusal)) => {
            Condition::no("ResolvedRefs", refusal.reason, refusal.message.clone())
        }
        (None, Ok(_)) => Condition::yes("ResolvedRefs", reason::RESOLVED_REFS, "all references lead somewhere".into()),
    };
    let conflicted = match &conflict {
        Some(refusal) => Condition::yes("Conflicted", refusal.reason, refusal.message.clone()),
        None => Condition::no("Conflicted", reason::NO_CONFLICTS, "distinct from all others".into()),
    };
    let served = match (&speaks, &certificates) {
        (Ok(speaks), Ok(certificates)) if conflict.is_none() && !kinds.is_empty() && gateway_accepted => {
            let protocol = match speaks {
                Speaks::Http => ListenerProtocol::Http,
                Speaks::Https => ListenerProtocol::Https(certificates.clone()),
                Speaks::TlsPassthrough => ListenerProtocol::TlsPassthrough,
                Speaks::TlsTerminate => ListenerProtocol::TlsTerminate(certificates.clone()),
                Speaks::Tcp => ListenerProtocol::Tcp,
            };
            Some(mesh::Listener { name: spec.name.as_str().into(), port, hostname: hostname.clone(), protocol })
        }
        _ => None,
    };
    let programmed = if served.is_some() {
        Condition::yes("Programmed", reason::PROGRAMMED, "sent to the proxies of the Gateway".into())
    } else {
        Condition::no("Programmed", reason::INVALID, "not served; see the other conditions".into())
    };
    let mut conditions = vec![accepted, programmed, resolved, conflicted];
    if !overlaps.is_empty() {
        // GEP-3567: clients may reuse a connection for a host of another listener.
        let message = format!("its hostnames overlap with those of {}", overlaps.join(", "));
        conditions.push(Condition::yes("OverlappingTLSConfig", reason::OVERLAPPING_HOSTNAMES, message));
    }
    Listener { name: spec.name.as_str().into(), port, hostname, kinds, served, conditions, from: admits(spec) }
}

fn admits(spec: &api::Listener) -> Admits {
    let Some(namespaces) = spec.allowed_routes.as_ref().and_then(|a| a.namespaces.as_ref()) else {
        return Admits::Same;
    };
    match (namespaces.from.as_ref().unwrap_or(&RoutesFrom::Same), &namespaces.selector) {
        (RoutesFrom::All, _) => Admits::All,
        (RoutesFrom::Same, _) => Admits::Same,
        (RoutesFrom::Selector, Some(selector)) => Admits::Selected(selector.clone()),
        (RoutesFrom::Selector, None) => Admits::Nobody,
    }
}

impl Listeners {
    /// Whether a listener is served.
    pub(super) fn serves(&self, name: &str) -> bool {
        self.listeners.iter().any(|l| *l.name == *name && l.served.is_some())
    }

    /// Secrets whose certificates are served.
    pub(super) fn certificates(&self) -> impl Iterator<Item = &NsName> {
        self.listeners.iter().filter_map(|l| l.served.as_ref()).flat_map(|l| match &l.protocol {
            ListenerProtocol::Https(ids) | ListenerProtocol::TlsTerminate(ids) => &ids[..],
            ListenerProtocol::Http | ListenerProtocol::TlsPassthrough | ListenerProtocol::Tcp => &[],
        })
    }
}

impl Listener {
    /// Whether routes of a namespace may attach.
    pub(super) fn admits(&self, view: &View<'_>, gateway: &GatewayId, namespace: &str) -> bool {
        match &self.from {
            Admits::All => true,
            Admits::Same => *gateway.namespace == *namespace,
            Admits::Nobody => false,
            Admits::Selected(selector) => super::selector::matches(selector, &view.namespace_labels(namespace)),
        }
    }
}
