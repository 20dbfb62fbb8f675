//! The Identity service: who calls, what they may have, then a signature. It must not decide either; `authenticate` and `entitled` do.

use super::{CertificateAuthority, Entitled, Issued, NotEntitled};
use crate::authenticate::Callers;
use mesh_core::{identity::Identity, name::ProxyName, node::NodeDelta};
use mesh_tls::x509::AuthorityFault;
use mesh_wire::proto::{
    SignRequest, SignResponse,
    identity_server::{Identity as Grpc, IdentityServer},
};
use parking_lot::RwLock;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// Longest request: a CSR of at most 8 KiB and a SPIFFE ID of at most 2 KiB, with room.
const REQUEST_LONGEST: usize = 32 * 1024;

/// Who may have what, followed by whoever publishes the mesh. Cheap to clone.
#[derive(Clone, Default)]
pub struct Grants(Arc<RwLock<Entitled>>);

impl Grants {
    /// Follows a change of the published mesh. Called before the change is published, so that a proxy never learns of a pod that it may not yet
    /// have the identity of.
    pub fn apply(&self, delta: &NodeDelta) {
        self.0.write().apply(delta);
    }

    /// Lifetime that is given now; none before the first plan.
    pub fn lifetime(&self) -> Option<std::time::Duration> {
        self.0.read().svid_lifetime()
    }

    /// Node proxies that may hold identities.
    pub fn holders(&self) -> std::collections::BTreeSet<ProxyName> {
        self.0.read().holders()
    }
}

/// What the service counts.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    answers: Family<Answer, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    result: &'static str,
}

impl Metrics {
    /// Registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("heddle_ca_requests", "Requests for an SVID, by result", metrics.answers.clone());
        metrics
    }
}

/// Serves `heddle.config.v1.Identity`.
pub struct IdentityService {
    authority: Arc<dyn CertificateAuthority>,
    callers: Callers,
    grants: Grants,
    metrics: Metrics,
}

/// Why there is no SVID; what the caller is told.
#[derive(Debug, thiserror::Error)]
enum NotSigned {
    #[error("{0:?} is no identity: {1}")]
    Identity(String, #[source] mesh_core::identity::BadIdentity),
    #[error(transparent)]
    NotEntitled(#[from] NotEntitled),
    #[error(transparent)]
    Authority(#[from] AuthorityFault),
}

impl IdentityService {
    /// A server to add to the controller's.
    pub fn server(
        authority: Arc<dyn CertificateAuthority>,
        callers: Callers,
        grants: Grants,
        metrics: Metrics,
    ) -> IdentityServer<Self> {
        let service = Self { authority, callers, grants, metrics };
        IdentityServer::new(service).max_decoding_message_size(REQUEST_LONGEST)
    }

    async fn issue(&self, proxy: &ProxyName, request: &SignRequest) -> Result<SignResponse, NotSigned> {
        let wanted: Identity = request
            .identity
            .parse()
            .map_err(|e| NotSigned::Identity(request.identity.chars().take(256).collect(), e))?;
        let lifetime = self.grants.0.read().lifetime(proxy, &wanted)?;
        let Issued { signed, roots } = self.authority.sign(&request.csr, &wanted, lifetime).await?;
        tracing::info!(%proxy, identity = %wanted, lifetime_seconds = lifetime.as_secs(), "SVID signed");
        let chain = signed.chain.iter().map(|c| c.to_vec()).collect();
        let certificates = roots.certificates.iter().map(|der| der.to_vec()).collect();
        Ok(SignResponse { chain, roots: certificates, revision: roots.revision })
    }
}

#[tonic::async_trait]
impl Grpc for IdentityService {
    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        let count = |result| self.metrics.answers.get_or_create(&Answer { result }).inc();
        let proxy = self.callers.caller(request.metadata()).await.inspect_err(|_| {
            count("unauthenticated");
        })?;
        match self.issue(&proxy, request.get_ref()).await {
            Ok(response) => {
                count("signed");
                Ok(Response::new(response))
            }
            Err(fault) => {
                let (status, result) = fault.answer();
                count(result);
                tracing::warn!(%proxy, reason = status.message(), "SVID refused");
                Err(status)
            }
        }
    }
}

impl NotSigned {
    fn answer(&self) -> (Status, &'static str) {
        let text = self.to_string();
        match self {
            Self::Identity(..) => (Status::invalid_argument(text), "bad_request"),
            Self::NotEntitled(NotEntitled::NotYet) => (Status::unavailable(text), "not_yet"),
            Self::NotEntitled(refused) => (Status::permission_denied(text), refused.label()),
            Self::Authority(AuthorityFault::RequestLength { .. } | AuthorityFault::Request { .. }) => {
                (Status::invalid_argument(text), "bad_request")
            }
            // What is wrong with our own files is the operator's to read, not the caller's.
            Self::Authority(fault) => {
                tracing::error!(error = %fault, "the authority cannot sign");
                (Status::internal("the authority cannot sign now"), "fault")
            }
        }
    }
}

#[cfg(test)]
mod tests;
