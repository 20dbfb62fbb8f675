//! Certificates of a TLS listener: its references to Secrets. It must not read PEM; the inventory did.

use crate::{
    api,
    inventory::Kind,
    plan::{attach::Refusal, grant, status::reason, view::View},
};
use mesh_core::name::{GatewayId, NsName};

/// The Secrets of a listener, in the order of the spec; or the first that cannot be used. Half of the certificates would be a
/// listener that some server names cannot reach, and nobody told.
pub(super) fn find(view: &View<'_>, gateway: &GatewayId, spec: &api::Listener) -> Result<Vec<NsName>, Refusal> {
    let invalid = |message: String| Refusal::new(reason::INVALID_CERTIFICATE_REF, message);
    let references = spec.tls.iter().flat_map(|tls| tls.certificate_refs.iter().flatten());
    let mut found = Vec::new();
    for (i, reference) in references.enumerate() {
        let at = format!("tls.certificateRefs[{i}]");
        let group = reference.group.as_deref().unwrap_or_default();
        let kind = reference.kind.as_deref().unwrap_or("Secret");
        if !group.is_empty() || kind != "Secret" {
            return Err(invalid(format!("{at}: kind {kind} of group {group:?} is not supported")));
        }
        let id = NsName::new(reference.namespace.as_deref().unwrap_or(&gateway.namespace), reference.name.as_str());
        // Asked before whether the Secret exists, so that nobody learns what another namespace holds.
        if id.namespace != gateway.namespace
            && !grant::permits(view, Kind::Gateway, &gateway.namespace, Kind::Secret, &id)
        {
            let message = format!("{at}: no ReferenceGrant in namespace {} permits Secret {id}", id.namespace);
            return Err(Refusal::new(reason::REF_NOT_PERMITTED, message));
        }
        let secret = view.secret(&id).ok_or_else(|| invalid(format!("{at}: Secret {id} does not exist")))?;
        if let Err(why) = &secret.spec.certificate {
            return Err(invalid(format!("{at}: Secret {id}: {why}")));
        }
        found.push(id);
    }
    if found.is_empty() {
        return Err(invalid("tls.certificateRefs: a listener that terminates TLS needs a certificate".into()));
    }
    Ok(found)
}
