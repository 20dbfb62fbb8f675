//! Backend: where a reference of a rule leads, and whether it may. A reference that leads nowhere is Broken, never left out; it must not look at endpoints.

use super::{attach::Refusal, grant, route::Route, status::reason, view::View};
use crate::inventory::{Kind, facts::Frontend};
use mesh_core::{
    mesh::{AppProtocol, BackendTarget},
    name::NsName,
};

/// Resolves the references of one route and keeps what is wrong with them.
pub(super) struct Resolver<'v, 'a> {
    pub(super) view: &'v View<'a>,
    route: &'v Route<'a>,
    needs_grants: bool,
    /// Index of the rule that is being lowered.
    pub(super) rule: usize,
    /// References that lead nowhere.
    pub(super) problems: Vec<Refusal>,
    /// Rules that stay, but only to answer with an error.
    pub(super) failing: Vec<(usize, Refusal)>,
}

/// A reference as all rules have it.
pub(super) struct Reference<'r> {
    pub(super) group: Option<&'r str>,
    pub(super) kind: Option<&'r str>,
    pub(super) name: &'r str,
    pub(super) namespace: Option<&'r str>,
    pub(super) port: Option<i32>,
}

impl<'v, 'a> Resolver<'v, 'a> {
    pub(super) fn new(view: &'v View<'a>, route: &'v Route<'a>, needs_grants: bool) -> Self {
        Self { view, route, needs_grants, rule: 0, problems: Vec::new(), failing: Vec::new() }
    }

    /// Where it leads. `field` is the path of the reference below its rule, with its leading dot.
    pub(super) fn resolve(&mut self, field: &str, reference: &Reference<'_>) -> BackendTarget {
        match self.target(reference) {
            Ok(target) => target,
            Err(refusal) => {
                self.problem(field, refusal);
                BackendTarget::Broken
            }
        }
    }

    pub(super) fn problem(&mut self, field: &str, refusal: Refusal) {
        let message = format!("spec.rules[{}]{field}: {}", self.rule, refusal.message);
        self.problems.push(Refusal::new(refusal.reason, message));
    }

    fn target(&self, reference: &Reference<'_>) -> Result<BackendTarget, Refusal> {
        let (group, kind) = (reference.group.unwrap_or_default(), reference.kind.unwrap_or("Service"));
        if !group.is_empty() || kind != "Service" {
            let message = format!("{kind}{} is not a kind of backend that is supported", dotted(group));
            return Err(Refusal::new(reason::INVALID_KIND, message));
        }
        let own = &self.route.key.name.namespace;
        let id = NsName::new(reference.namespace.unwrap_or(own), reference.name);
        // GEP-1294: "no ReferenceGrant" is needed for routes of the mesh. For Gateways it is asked before whether the Service exists, so
        // that nobody learns what another namespace holds.
        if self.needs_grants
            && id.namespace != *own
            && !grant::permits(self.view, self.route.key.kind, own, Kind::Service, &id)
        {
            let message = format!("no ReferenceGrant in namespace {} permits Service {id}", id.namespace);
            return Err(Refusal::new(reason::REF_NOT_PERMITTED, message));
        }
        let not_found = |message| Refusal::new(reason::BACKEND_NOT_FOUND, message);
        let Some(service) = self.view.service(&id) else {
            return Err(not_found(format!("Service {id} does not exist")));
        };
        if service.spec.frontend == Frontend::ExternalName {
            let message = format!("Service {id} is of type ExternalName, which is not supported");
            return Err(Refusal::new(reason::INVALID_KIND, message));
        }
        let Some(number) = reference.port.and_then(|p| u16::try_from(p).ok()) else {
            return Err(not_found(format!("a port of Service {id} is required")));
        };
        let mut ports = service.spec.ports.iter().filter(|p| p.number == number).peekable();
        if ports.peek().is_none() {
            return Err(not_found(format!("Service {id} has no port {number}")));
        }
        let Some(port) = ports.find(|p| p.tcp) else {
            let message = format!("port {number} of Service {id} is not TCP");
            return Err(Refusal::new(reason::UNSUPPORTED_PROTOCOL, message));
        };
        let mismatch = |what: &str| {
            let message = format!("port {number} of Service {id} {what}");
            Err(Refusal::new(reason::UNSUPPORTED_PROTOCOL, message))
        };
        match (self.route.key.kind, port.app) {
            (Kind::HttpRoute | Kind::GrpcRoute, AppProtocol::Tls) => return mismatch("speaks TLS, not HTTP"),
            (Kind::GrpcRoute, AppProtocol::WebSocket) => return mismatch("speaks WebSocket, not gRPC"),
            _ => {}
        }
        // "Invalid policy ⇒ requests get 5xx (never plaintext)" (BackendTLSPolicy): what we cannot encrypt as asked is not sent.
        if self.needs_grants && self.view.tls_policies_of(&id).next().is_some() {
            return mismatch("wants TLS by a BackendTLSPolicy, which is not supported");
        }
        Ok(BackendTarget::Service { service: id, port: number })
    }
}

fn dotted(group: &str) -> String {
    if group.is_empty() { String::new() } else { format!(".{group}") }
}
