//! The authority of a controller of folders: one root, for as long as the process lives. It must not watch its files.

use super::{CertificateAuthority, Issued, Standing};
use mesh_core::{identity::Identity, mesh::Roots};
use mesh_tls::{
    Authority,
    x509::{AuthorityFault, ServerCertificate, root_file},
};
use std::{
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::sync::watch;

/// Signs with the root of a folder.
pub struct FolderAuthority {
    authority: Authority,
    standing: watch::Sender<Standing>,
}

impl FolderAuthority {
    /// Loads the root of a folder, or makes one there.
    pub fn open(dir: &Path) -> Result<Self, AuthorityFault> {
        let authority = Authority::load_or_create(dir)?;
        // When the bundle was written: the same over restarts, and later for another bundle.
        let written = std::fs::metadata(root_file(dir)).and_then(|m| m.modified());
        let since = written.ok().and_then(|t| t.duration_since(SystemTime::UNIX_EPOCH).ok()).unwrap_or_default();
        let revision = u64::try_from(since.as_millis()).unwrap_or(u64::MAX).max(1);
        let certificates = authority.roots().iter().map(|der| Arc::from(&**der)).collect();
        let standing = Standing { roots: Arc::new(Roots { revision, certificates }), signer: authority.signer() };
        Ok(Self { authority, standing: watch::Sender::new(standing) })
    }
}

#[tonic::async_trait]
impl CertificateAuthority for FolderAuthority {
    /// A signature takes a fraction of a millisecond, so it is made where it is asked for.
    async fn sign(&self, csr: &[u8], identity: &Identity, lifetime: Duration) -> Result<Issued, AuthorityFault> {
        let signed = self.authority.sign(csr, identity, lifetime)?;
        Ok(Issued { signed, roots: self.standing.borrow().roots.clone() })
    }

    fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    fn server_certificate(&self, dns: &[&str], addresses: &[IpAddr]) -> Result<ServerCertificate, AuthorityFault> {
        self.authority.server_certificate(dns, addresses)
    }
}
