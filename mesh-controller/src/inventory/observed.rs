//! Observed: one object read from JSON, defaulted and typed, or why it cannot be read. The door of the controller; it must not relate objects.

use super::{
    facts::{Pod, Secret, Service, Slice},
    key::{Key, Kind},
};
use crate::api::{
    BackendTlsPolicySpec, GatewayClassSpec, GatewaySpec, GrpcRouteSpec, HttpRouteSpec, ListenerSetSpec,
    MeshParametersSpec, Meta, Object, ReferenceGrantSpec, TcpRouteSpec, TlsRouteSpec, UdpRouteSpec,
    XBackendTrafficPolicySpec, XMeshSpec,
    schema::{self, Flaw},
};
use mesh_core::name::Text;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};

/// An object that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// Which object it is.
    pub key: Key,
    pub(super) thing: Thing,
}

/// Why an object cannot be used. What was known of it before stays as it was.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}: {}", .key.as_ref().map_or_else(|| "object".to_owned(), Key::to_string), .flaws.iter().map(|f| format!("{} {}", f.field, f.reason)).collect::<Vec<_>>().join("; "))]
pub struct Unreadable {
    /// Which object, if it says so much.
    pub key: Option<Key>,
    /// All that is wrong with it.
    pub flaws: Vec<Flaw>,
}

macro_rules! things {
    ($($kind:ident($spec:ty)),* $(,)?) => {
        /// A typed object.
        #[derive(Clone, Debug, PartialEq)]
        pub(super) enum Thing { $($kind(Arc<Object<$spec>>)),* }
    };
}
things! {
    Namespace(()),
    ServiceAccount(()),
    Pod(Pod),
    Service(Service),
    EndpointSlice(Slice),
    Secret(Secret),
    ConfigMap(()),
    MeshParameters(MeshParametersSpec),
    XMesh(XMeshSpec),
    GatewayClass(GatewayClassSpec),
    Gateway(GatewaySpec),
    ListenerSet(ListenerSetSpec),
    ReferenceGrant(ReferenceGrantSpec),
    HttpRoute(HttpRouteSpec),
    GrpcRoute(GrpcRouteSpec),
    TlsRoute(TlsRouteSpec),
    TcpRoute(TcpRouteSpec),
    UdpRoute(UdpRouteSpec),
    BackendTlsPolicy(BackendTlsPolicySpec),
    XBackendTrafficPolicy(XBackendTrafficPolicySpec),
}

/// Fills in what the CRD defaults, checks what an API server would check, and types the object.
pub fn admit(object: &mut Value) -> Result<Observed, Unreadable> {
    let (kind, meta) = name(object)?;
    let api_version = object["apiVersion"].as_str().unwrap_or_default().to_owned();
    if let Some(crd) = schema::kind_of(&api_version, kind.as_str()) {
        let flaws = crd.admit(object);
        if !flaws.is_empty() {
            return Err(Unreadable { key: Some(key(kind, &meta)), flaws });
        }
    }
    type_it(kind, meta, object)
}

/// Types an object that was admitted: by [`admit`], or by an API server.
pub fn observe(object: &Value) -> Result<Observed, Unreadable> {
    let (kind, meta) = name(object)?;
    type_it(kind, meta, object)
}

fn name(object: &Value) -> Result<(Kind, Meta), Unreadable> {
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    let kind = object["kind"].as_str().unwrap_or_default();
    let unnamed = |field: &str, reason| Unreadable { key: None, flaws: vec![flaw(field, reason)] };
    let known = Kind::of(api_version, kind);
    let kind =
        known.ok_or_else(|| unnamed("kind", format!("{api_version} {kind} is not a kind that the mesh reads")))?;
    let mut meta = Meta::read(object).map_err(|(field, reason)| unnamed(field, reason))?;
    if !kind.namespaced() {
        // Whatever is written: an API server would not keep it.
        meta.namespace = Text::default();
    }
    if kind.namespaced() && meta.namespace.is_empty() {
        let flaws = vec![flaw("metadata.namespace", "is required".into())];
        return Err(Unreadable { key: Some(key(kind, &meta)), flaws });
    }
    Ok((kind, meta))
}

fn key(kind: Kind, meta: &Meta) -> Key {
    Key::new(kind, meta.id())
}

fn type_it(kind: Kind, meta: Meta, object: &Value) -> Result<Observed, Unreadable> {
    let key = key(kind, &meta);
    match thing(kind, meta, object) {
        Ok(thing) => Ok(Observed { key, thing }),
        Err(flaw) => Err(Unreadable { key: Some(key), flaws: vec![flaw] }),
    }
}

/// Prefix of our labels. Of pods, Services and their endpoints no plan reads others: what the facts need of them is read with the facts.
const OURS: &str = "heddle.dev/";

fn own(meta: Meta) -> Meta {
    // Collected anew: a map that was emptied keeps the room that it had.
    let ours = |all: BTreeMap<String, String>| all.into_iter().filter(|(name, _)| name.starts_with(OURS)).collect();
    Meta { labels: ours(meta.labels), annotations: ours(meta.annotations), ..meta }
}

fn thing(kind: Kind, meta: Meta, object: &Value) -> Result<Thing, Flaw> {
    Ok(match kind {
        Kind::Namespace => Thing::Namespace(plain(meta)),
        Kind::ServiceAccount => Thing::ServiceAccount(plain(meta)),
        Kind::ConfigMap => Thing::ConfigMap(plain(meta)),
        Kind::Pod => Thing::Pod(Arc::new(Object { spec: Pod::read(object, &meta)?, meta: own(meta) })),
        Kind::Service => Thing::Service(Arc::new(Object { spec: Service::read(object)?, meta: own(meta) })),
        Kind::EndpointSlice => {
            Thing::EndpointSlice(Arc::new(Object { spec: Slice::read(object, &meta)?, meta: own(meta) }))
        }
        Kind::Secret => Thing::Secret(Arc::new(Object { spec: Secret::read(object, &meta)?, meta })),
        Kind::MeshParameters => Thing::MeshParameters(typed(meta, object)?),
        Kind::XMesh => Thing::XMesh(typed(meta, object)?),
        Kind::GatewayClass => Thing::GatewayClass(typed(meta, object)?),
        Kind::Gateway => Thing::Gateway(typed(meta, object)?),
        Kind::ListenerSet => Thing::ListenerSet(typed(meta, object)?),
        Kind::ReferenceGrant => Thing::ReferenceGrant(typed(meta, object)?),
        Kind::HttpRoute => Thing::HttpRoute(typed(meta, object)?),
        Kind::GrpcRoute => Thing::GrpcRoute(typed(meta, object)?),
        Kind::TlsRoute => Thing::TlsRoute(typed(meta, object)?),
        Kind::TcpRoute => Thing::TcpRoute(typed(meta, object)?),
        Kind::UdpRoute => Thing::UdpRoute(typed(meta, object)?),
        Kind::BackendTlsPolicy => Thing::BackendTlsPolicy(typed(meta, object)?),
        Kind::XBackendTrafficPolicy => Thing::XBackendTrafficPolicy(typed(meta, object)?),
    })
}

fn plain(meta: Meta) -> Arc<Object<()>> {
    Arc::new(Object { meta, spec: () })
}

fn typed<S: DeserializeOwned + Default>(meta: Meta, object: &Value) -> Result<Arc<Object<S>>, Flaw> {
    let spec = match &object["spec"] {
        Value::Null => S::default(),
        spec => S::deserialize(spec).map_err(|e| flaw("spec", e.to_string()))?,
    };
    Ok(Arc::new(Object { meta, spec }))
}

fn flaw(field: &str, reason: String) -> Flaw {
    Flaw { field: field.into(), reason }
}
