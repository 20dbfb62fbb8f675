//! An X.509-SVID of ours: identity, chain, key and the roots that came with it, checked once. It must not fetch or store.

use crate::{
    Refusal, leaf,
    verify::{Rules, Side},
};
use mesh_core::{identity::Identity, mesh::Roots};
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime},
    sign::CertifiedKey,
};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};
use zeroize::Zeroizing;

/// An SVID that would be accepted by a peer with the same roots. Made only by [`Svid::new`].
pub struct Svid {
    identity: Identity,
    chain: Vec<CertificateDer<'static>>,
    key: Zeroizing<Vec<u8>>,
    roots: Vec<CertificateDer<'static>>,
    /// Of the roots; 0 if nobody numbered them.
    revision: u64,
    not_before: SystemTime,
    not_after: SystemTime,
    generation: u64,
    certified: Arc<CertifiedKey>,
    rules: Arc<Rules>,
}

/// Why something is not a usable SVID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSvid {
    /// No certificate.
    #[error("the SVID of {0} has no certificate")]
    Empty(Identity),
    /// No roots: nobody could be verified with it.
    #[error("the SVID of {0} came without roots")]
    NoRoots(Identity),
    /// A peer would refuse it.
    #[error("the SVID of {identity} would be refused by every peer")]
    Refused {
        /// Whose.
        identity: Identity,
        /// Why.
        #[source]
        refusal: Box<Refusal>,
    },
    /// Key and certificate do not belong together, or the key cannot be read.
    #[error("the key of the SVID of {identity}: {reason}")]
    Key {
        /// Whose.
        identity: Identity,
        /// Why.
        reason: String,
    },
}

/// Numbers the SVIDs of this process, so that whatever is cached with one is never mixed up with another.
static GENERATION: AtomicU64 = AtomicU64::new(1);

impl Svid {
    /// Checks chain (leaf first), key (PKCS#8 DER) and roots against each other, the identity and the present time.
    pub fn new(
        identity: Identity,
        chain: Vec<CertificateDer<'static>>,
        key: Zeroizing<Vec<u8>>,
        roots: Vec<CertificateDer<'static>>,
    ) -> Result<Self, BadSvid> {
        let Some((first, intermediates)) = chain.split_first() else {
            return Err(BadSvid::Empty(identity));
        };
        if roots.is_empty() {
            return Err(BadSvid::NoRoots(identity));
        }
        let refused = |refusal| BadSvid::Refused { identity: identity.clone(), refusal: Box::new(refusal) };
        let rules = Rules::new(&roots, identity.trust_domain.clone()).map_err(refused)?;
        for side in [Side::Client, Side::Server] {
            rules.check(first, intermediates, UnixTime::now(), side, Some(&identity)).map_err(refused)?;
        }
        let leaf = leaf::read(first).map_err(refused)?;
        let bad_key = |reason: String| BadSvid::Key { identity: identity.clone(), reason };
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_vec()));
        let signing = crate::provider().key_provider.load_private_key(der).map_err(|e| bad_key(e.to_string()))?;
        let certified = CertifiedKey::new(chain.clone(), signing);
        certified.keys_match().map_err(|e| bad_key(e.to_string()))?;
        // A second reader of the same bytes: what SPIFFE's own library would not take as an X.509-SVID, nobody else's peer would.
        let concatenated: Vec<u8> = chain.iter().flat_map(|c| c.iter().copied()).collect();
        spiffe::X509Svid::parse_from_der(&concatenated, &key).map_err(|e| bad_key(e.to_string()))?;
        Ok(Self {
            chain,
            key,
            roots,
            revision: 0,
            not_before: leaf.not_before,
            not_after: leaf.not_after,
            generation: GENERATION.fetch_add(1, Ordering::Relaxed),
            certified: Arc::new(certified),
            rules: Arc::new(rules),
            identity,
        })
    }

    /// Says of which revision its roots are.
    pub fn at_revision(mut self, revision: u64) -> Self {
        self.revision = revision;
        self
    }

    /// The same certificate with other roots: another generation, since it trusts others. Refused if they do not vouch for itself.
    pub fn with_roots(&self, roots: &Roots) -> Result<Self, BadSvid> {
        let certificates = roots.certificates.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
        let svid = Self::new(self.identity.clone(), self.chain.clone(), self.key.clone(), certificates)?;
        Ok(svid.at_revision(roots.revision))
    }

    /// Takes what SPIFFE's Workload API gives: the way in for SPIRE.
    pub fn from_spiffe(svid: &spiffe::X509Svid, bundle: &spiffe::X509Bundle) -> Result<Self, NotOurs> {
        let identity = leaf::identity_of_uri(&svid.spiffe_id().to_string()).map_err(NotOurs::Identity)?;
        let der = |c: &spiffe::Certificate| CertificateDer::from(c.as_bytes().to_vec());
        let chain = svid.cert_chain().iter().map(der).collect();
        let roots = bundle.authorities().iter().map(der).collect();
        let key = Zeroizing::new(svid.private_key().as_bytes().to_vec());
        Self::new(identity, chain, key, roots).map_err(NotOurs::Svid)
    }

    /// Whose it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Certificates, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Whom it trusts.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// Of which revision the roots are; 0: not numbered.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// First moment of its validity.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// Last moment of its validity.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Whether it is over.
    pub fn is_expired(&self, now: SystemTime) -> bool {
        now > self.not_after
    }

    /// Differs for every SVID that this process ever held: the "trust generation" of pool keys.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The key, PKCS#8 DER, for the store only.
    pub(crate) fn secret_key(&self) -> &[u8] {
        &self.key
    }

    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    pub(crate) fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }
}

/// Shows everything but the key.
impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid")
            .field("identity", &self.identity)
            .field("not_after", &self.not_after)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// A SPIFFE SVID that is none of a workload of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotOurs {
    /// Its SPIFFE ID has another form.
    #[error("the SVID names no workload of this mesh")]
    Identity(#[source] Refusal),
    /// It cannot be used.
    #[error("the SVID cannot be used")]
    Svid(#[source] BadSvid),
}
