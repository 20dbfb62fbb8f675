//! The authority of a cluster: its root lies in a Secret that all replicas read and the leader rotates. It must not decide a rotation; `rotation` does.

mod bundle;
mod contents;
mod keeper;

pub use contents::REQUEST;
pub use keeper::{Keeper, Metrics, Surroundings};

use super::{CertificateAuthority, Issued, Standing};
use arc_swap::ArcSwap;
use contents::Contents;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use mesh_core::{identity::Identity, mesh::Roots};
use mesh_tls::{
    Authority,
    x509::{AuthorityFault, ServerCertificate, new_root},
};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

/// The Secret.
pub const SECRET: &str = "heddle-ca";
/// The ConfigMap of the roots.
pub const BUNDLE: &str = "heddle-ca-roots";
/// A Secret that cannot be used or read at the start may be mended or become reachable; after so long it is said by ending, which shows where
/// people look for what is wrong.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_secs(1);

/// Signs with what the Secret last said that could be used.
pub struct ClusterAuthority {
    current: ArcSwap<Current>,
    standing: watch::Sender<Standing>,
}

struct Current {
    authority: Authority,
    roots: Arc<Roots>,
}

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum NoAuthority {
    /// The API server.
    #[error("Secret {namespace}/{SECRET}: {source}")]
    Api {
        /// Where.
        namespace: String,
        /// What it said.
        source: Box<kube::Error>,
    },
    /// The Secret holds nothing to sign with.
    #[error("Secret {namespace}/{SECRET}: {source}")]
    Unusable {
        /// Where.
        namespace: String,
        /// Field and reason.
        source: mesh_tls::x509::BadMaterial,
    },
    /// No root could be made.
    #[error("no root can be made: {0}")]
    Root(String),
}

impl ClusterAuthority {
    /// Reads the Secret, or makes it if there is none; of several replicas that do so at once the first wins. What is there is never replaced.
    pub async fn open(client: &Client, namespace: &str) -> Result<Arc<Self>, NoAuthority> {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let end = Instant::now() + PATIENCE;
        loop {
            let fault = match attempt(&secrets, namespace).await {
                Ok((authority, roots)) => return Ok(Arc::new(Self::new(authority, roots))),
                Err(fault) => fault,
            };
            if Instant::now() >= end {
                return Err(fault);
            }
            tracing::warn!("{fault}; trying again");
            sleep(PAUSE).await;
        }
    }

    fn new(authority: Authority, roots: Roots) -> Self {
        let roots = Arc::new(roots);
        let standing = Standing { roots: roots.clone(), signer: authority.signer() };
        Self { current: ArcSwap::from_pointee(Current { authority, roots }), standing: watch::Sender::new(standing) }
    }

    /// From now on signs with this.
    fn replace(&self, authority: Authority, roots: Roots) {
        let next = Standing { roots: Arc::new(roots), signer: authority.signer() };
        self.current.store(Arc::new(Current { authority, roots: next.roots.clone() }));
        self.standing.send_if_modified(|now| {
            let changed = *now != next;
            if changed {
                tracing::info!(
                    revision = next.roots.revision,
                    roots = next.roots.certificates.len(),
                    "the authority has changed"
                );
                *now = next;
            }
            changed
        });
    }
}

async fn attempt(secrets: &Api<Secret>, namespace: &str) -> Result<(Authority, Roots), NoAuthority> {
    let api = |source: kube::Error| NoAuthority::Api { namespace: namespace.into(), source: Box::new(source) };
    let found = match secrets.get_opt(SECRET).await.map_err(api)? {
        Some(found) => found,
        None => {
            let (certificate, key) = new_root().map_err(|e| NoAuthority::Root(e.to_string()))?;
            let secret = made(contents::wanted(&certificate, &key));
            match secrets.create(&PostParams::default(), &secret).await {
                Ok(made) => {
                    tracing::info!("made a root for this mesh in Secret {namespace}/{SECRET}");
                    made
                }
                // AlreadyExists: another replica was first, and its root counts.
                Err(kube::Error::Api(status)) if status.code == 409 => secrets.get(SECRET).await.map_err(api)?,
                Err(error) => return Err(api(error)),
            }
        }
    };
    let current = Contents::read(&found).current();
    current.map_err(|source| NoAuthority::Unusable { namespace: namespace.into(), source })
}

/// The Secret as we make it.
fn made(data: BTreeMap<String, k8s_openapi::ByteString>) -> Secret {
    Secret {
        metadata: ObjectMeta { name: Some(SECRET.into()), ..ObjectMeta::default() },
        type_: Some("kubernetes.io/tls".into()),
        data: Some(data),
        ..Secret::default()
    }
}

#[tonic::async_trait]
impl CertificateAuthority for ClusterAuthority {
    async fn sign(&self, csr: &[u8], identity: &Identity, lifetime: Duration) -> Result<Issued, AuthorityFault> {
        let current = self.current.load_full();
        let signed = current.authority.sign(csr, identity, lifetime)?;
        Ok(Issued { signed, roots: current.roots.clone() })
    }

    fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    fn server_certificate(&self, dns: &[&str], addresses: &[IpAddr]) -> Result<ServerCertificate, AuthorityFault> {
        self.current.load().authority.server_certificate(dns, addresses)
    }
}

#[cfg(test)]
mod tests;
