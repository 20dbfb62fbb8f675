//! The Identity service as a proxy sees it, without sockets: who gets what, and what the others are told.

use super::*;
use crate::authenticate::{Authenticate, Unauthenticated};
use crate::ca::FolderAuthority;
use mesh_core::{
    identity::TrustDomain,
    mesh::{AccessLog, Enrolment, Limits, MeshSettings, Mode, Workload},
    name::NsName,
    node::Resource,
};
use mesh_tls::{KeyRequest, Svid};
use std::time::{Duration, SystemTime};
use tonic::Code;

/// Tokens are proxy names.
struct ByName;

#[tonic::async_trait]
impl Authenticate for ByName {
    async fn authenticate(&self, token: &str) -> Result<ProxyName, Unauthenticated> {
        token.parse().map_err(|_| Unauthenticated::UnknownToken)
    }
}

fn id(text: &str) -> Identity {
    text.parse().unwrap()
}

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

fn service(dir: &std::path::Path) -> (IdentityService, Grants) {
    let grants = Grants::default();
    let authority = Arc::new(FolderAuthority::open(dir).unwrap());
    let (callers, metrics) = (Callers::new(Arc::new(ByName), &mut Registry::default()), Metrics::default());
    (IdentityService { authority, callers, grants: grants.clone(), metrics }, grants)
}

fn mesh() -> NodeDelta {
    let settings = Resource::Settings(Arc::new(MeshSettings {
        name: "heddle".into(),
        trust_domain: TrustDomain::new("cluster.local").unwrap(),
        mode: Some(Mode::Strict),
        svid_lifetime: Duration::from_secs(60),
        tracing: None,
        access_log: AccessLog::All,
        limits: Limits::default(),
    }));
    let cart = Resource::Workload(Arc::new(Workload {
        id: NsName::new("shop", "cart-1"),
        uid: "1".into(),
        node: "n1".into(),
        addresses: vec![],
        identity: id(CART),
        enrolment: Enrolment::Meshed(Mode::Strict),
        owner: "cart".into(),
        probes: [].into(),
    }));
    NodeDelta { upserts: vec![settings, cart], removes: vec![] }
}

async fn ask(service: &IdentityService, token: &str, csr: Vec<u8>, identity: &str) -> Result<SignResponse, Status> {
    let mut request = Request::new(SignRequest { csr, identity: identity.into() });
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    service.sign(request).await.map(Response::into_inner)
}

#[tokio::test]
async fn a_node_gets_an_svid_of_its_pod_that_is_good_for_the_settings_lifetime() {
    let dir = tempfile::tempdir().unwrap();
    let (service, grants) = service(dir.path());
    grants.apply(&mesh());
    let request = KeyRequest::new(&id(CART)).unwrap();
    let response = ask(&service, "node/n1", request.csr().to_vec(), CART).await.unwrap();
    let der = |all: Vec<Vec<u8>>| all.into_iter().map(Into::into).collect();
    let svid = Svid::new(id(CART), der(response.chain), request.into_key(), der(response.roots)).unwrap();
    let left = svid.not_after().duration_since(SystemTime::now()).unwrap();
    assert!(left <= Duration::from_secs(61) && left > Duration::from_secs(50), "{left:?}");
}

#[tokio::test]
async fn everybody_else_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let (service, grants) = service(dir.path());
    let csr = KeyRequest::new(&id(CART)).unwrap().csr().to_vec();
    let early = ask(&service, "node/n1", csr.clone(), CART).await.unwrap_err();
    assert_eq!((early.code(), early.message().contains("not planned yet")), (Code::Unavailable, true));
    grants.apply(&mesh());
    let mut forged = csr.clone();
    *forged.last_mut().unwrap() ^= 1;
    for (token, csr, identity, code, says) in [
        ("nobody", &csr, CART, Code::Unauthenticated, "unknown token"),
        ("node/n2", &csr, CART, Code::PermissionDenied, "node/n2 may not have spiffe://cluster.local/ns/shop/sa/cart"),
        ("node/n1", &csr, "spiffe://cluster.local/ns/shop/sa/pay", Code::PermissionDenied, "no meshed pod"),
        ("node/n1", &csr, "spiffe://evil/ns/shop/sa/cart", Code::PermissionDenied, "spiffe://evil"),
        ("gateway/shop/front", &csr, CART, Code::PermissionDenied, "may only have"),
        ("node/n1", &csr, "cart", Code::InvalidArgument, "is no identity"),
        ("node/n1", &vec![0x30; 9000], CART, Code::InvalidArgument, "9000 bytes"),
        ("node/n1", &vec![0x30; 90], CART, Code::InvalidArgument, "refused"),
        ("node/n1", &forged, CART, Code::InvalidArgument, "ignature"),
    ] {
        let status = ask(&service, token, csr.clone(), identity).await.unwrap_err();
        assert_eq!(status.code(), code, "{token} {identity}: {}", status.message());
        assert!(status.message().contains(says), "{token} {identity}: {}", status.message());
    }
    let counted = |result| service.metrics.answers.get_or_create(&Answer { result }).get();
    assert_eq!((counted("no_pod"), counted("not_own"), counted("unauthenticated")), (3, 1, 1));
}
