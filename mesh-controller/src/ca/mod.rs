//! The authority behind a trait, its rotation, and the service that signs for proxies what they are entitled to. It must not plan, nor know pods beyond their identity and node.

pub mod cluster;
mod entitled;
mod folder;
pub mod rotation;
mod server;
mod service;

pub use entitled::{Entitled, NotEntitled};
pub use folder::FolderAuthority;
pub use server::{Accepted, Server};
pub use service::{Grants, IdentityService, Metrics};

use mesh_core::{identity::Identity, mesh::Roots};
use mesh_tls::x509::{AuthorityFault, ServerCertificate, Signed};
use std::{net::IpAddr, sync::Arc, time::Duration};
use tokio::sync::watch;

/// Signs SVIDs: embedded, or SPIRE. Whether the caller may have the identity is decided before.
#[tonic::async_trait]
pub trait CertificateAuthority: Send + Sync + 'static {
    /// Signs the key of a PKCS#10 request whose proof of possession holds. `lifetime` is a wish.
    async fn sign(&self, csr: &[u8], identity: &Identity, lifetime: Duration) -> Result<Issued, AuthorityFault>;

    /// What stands now, and every change of it.
    fn standing(&self) -> watch::Receiver<Standing>;

    /// A certificate for a server of the controller.
    fn server_certificate(&self, dns: &[&str], addresses: &[IpAddr]) -> Result<ServerCertificate, AuthorityFault>;
}

/// A signed certificate, with the roots that were trusted when it was signed.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate.
    pub signed: Signed,
    /// The roots.
    pub roots: Arc<Roots>,
}

/// Who signs, and what everybody must trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Roots that verify whatever is valid now; several while a root is rotated.
    pub roots: Arc<Roots>,
    /// Fingerprint of the signer's certificate.
    pub signer: [u8; 32],
}
