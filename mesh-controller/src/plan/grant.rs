//! ReferenceGrants: whether one namespace lets another refer to its objects. It must not ask for grants where none are needed.

use super::view::View;
use crate::inventory::{GATEWAY_GROUP, Kind};
use mesh_core::name::NsName;

/// Whether some grant beside `to` permits objects of kind `from_kind` in `from_namespace` to refer to it.
pub(super) fn permits(view: &View<'_>, from_kind: Kind, from_namespace: &str, to_kind: Kind, to: &NsName) -> bool {
    view.grants_in(&to.namespace).into_iter().any(|grant| {
        let from = grant
            .from
            .iter()
            .any(|f| f.group == GATEWAY_GROUP && f.kind == from_kind.as_str() && f.namespace == *from_namespace);
        // "When unspecified, this policy refers to all resources of the specified Group and Kind" (ReferenceGrantTo.name).
        from && grant.to.iter().any(|t| {
            t.group == to_kind.group()
                && t.kind == to_kind.as_str()
                && t.name.as_deref().filter(|n| !n.is_empty()).is_none_or(|n| n == &*to.name)
        })
    })
}
