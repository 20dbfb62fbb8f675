//! The authority behind a trait, and the service that signs for proxies what they are entitled to. It must not plan, nor know pods beyond their identity and node.

mod entitled;
mod service;

pub use entitled::{Entitled, NotEntitled};
pub use service::{Grants, IdentityService, Metrics};

use mesh_core::identity::Identity;
use mesh_tls::{
    Authority,
    x509::{AuthorityFault, ServerCertificate, Signed},
};
use std::{net::IpAddr, time::Duration};

/// Signs SVIDs: embedded, or SPIRE. Whether the caller may have the identity is decided before.
#[tonic::async_trait]
pub trait CertificateAuthority: Send + Sync + 'static {
    /// Signs the key of a PKCS#10 request whose proof of possession holds. `lifetime` is a wish.
    async fn sign(&self, csr: &[u8], identity: &Identity, lifetime: Duration) -> Result<Signed, AuthorityFault>;

    /// Roots that verify what it signs, DER; several while a root is rotated.
    fn roots(&self) -> Vec<Vec<u8>>;

    /// A certificate for the controller's own server.
    fn server_certificate(&self, dns: &[&str], addresses: &[IpAddr]) -> Result<ServerCertificate, AuthorityFault>;
}

/// The embedded authority; a signature takes a fraction of a millisecond, so it is made where it is asked for.
#[tonic::async_trait]
impl CertificateAuthority for Authority {
    async fn sign(&self, csr: &[u8], identity: &Identity, lifetime: Duration) -> Result<Signed, AuthorityFault> {
        Authority::sign(self, csr, identity, lifetime)
    }

    fn roots(&self) -> Vec<Vec<u8>> {
        Authority::roots(self).iter().map(|root| root.to_vec()).collect()
    }

    fn server_certificate(&self, dns: &[&str], addresses: &[IpAddr]) -> Result<ServerCertificate, AuthorityFault> {
        Authority::server_certificate(self, dns, addresses)
    }
}
