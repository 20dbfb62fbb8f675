//! The embedded authority: SVIDs for workloads, a certificate for the controller's server, roots of its own or brought by the user. It must not decide who may have which identity.

mod folder;
mod material;

pub use folder::root_file;
pub use material::{BadMaterial, Material, Root, certificates, encode_certificates, new_root};

use crate::store::StoreFault;
use mesh_core::identity::Identity;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
};
use rustls::{
    pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::CertifiedKey,
};
use std::{
    net::IpAddr,
    path::PathBuf,
    time::{Duration, SystemTime},
};
use zeroize::Zeroizing;

/// Default lifetime of an SVID.
pub const SVID_LIFETIME: Duration = Duration::from_secs(3600);
/// Shortest lifetime that is signed: X.509 counts in seconds, and half of it must suffice to renew.
pub const SVID_LIFETIME_SHORTEST: Duration = Duration::from_secs(2);
/// Longest lifetime that is signed: nothing revokes an SVID but its end.
pub const SVID_LIFETIME_LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);
/// Lifetime of the controller's own server certificate; it is made anew long before, and its key is never stored.
pub const SERVER_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Certificates start so much before now, for nodes whose clocks are behind.
pub const CLOCK_SKEW: Duration = Duration::from_secs(60);
/// A request for a P-256 key is about 300 bytes; more is not one.
pub const CSR_LONGEST: usize = 8 * 1024;
/// Bytes of an uncompressed P-256 point.
const P256_POINT: usize = 65;

/// What signs, and the roots that vouch for what it signs. Its key stays in the process, and where it came from.
pub struct Authority {
    roots: Vec<CertificateDer<'static>>,
    /// What stands between a leaf and a root, the signer first; nothing if the signer is a root.
    chain: Vec<CertificateDer<'static>>,
    issuer: Issuer<'static, KeyPair>,
    signer: [u8; 32],
    not_after: SystemTime,
}

/// Why nothing was signed or loaded.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityFault {
    /// The state folder.
    #[error("the authority's state cannot be kept")]
    State(#[source] StoreFault),
    /// The root's files are there but wrong; nothing is replaced, because every proxy trusts the old root.
    #[error("{path}: {reason}")]
    Root {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Longer than [`CSR_LONGEST`].
    #[error("the request for {identity} has {length} bytes; at most {CSR_LONGEST} are read")]
    RequestLength {
        /// For whom.
        identity: Identity,
        /// Its length.
        length: usize,
    },
    /// Not a request, or it does not prove possession of its key.
    #[error("the request for {identity} is refused: {reason}")]
    Request {
        /// For whom.
        identity: Identity,
        /// Why.
        reason: String,
    },
    /// Signing itself.
    #[error("signing failed: {0}")]
    Signing(String),
}

/// A signed SVID.
#[derive(Debug, Clone)]
pub struct Signed {
    /// DER, leaf first, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// End of the leaf.
    pub not_after: SystemTime,
}

/// A server's certificate and key, for the controller's own listener.
pub struct ServerCertificate {
    /// DER, leaf first, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// PKCS#8 DER.
    pub key: Zeroizing<Vec<u8>>,
    /// End of the leaf.
    pub not_after: SystemTime,
}

impl ServerCertificate {
    /// The chain as PEM.
    pub fn chain_pem(&self) -> String {
        encode_certificates(self.chain.iter().map(|der| &**der))
    }

    /// The key as PEM.
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(pem::encode(&pem::Pem::new("PRIVATE KEY", self.key.as_slice())))
    }

    /// Both, as rustls serves them.
    pub fn certified(&self) -> Result<CertifiedKey, rustls::Error> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.to_vec()));
        Ok(CertifiedKey::new(self.chain.clone(), crate::provider().key_provider.load_private_key(key)?))
    }
}

impl Authority {
    /// Roots that peers must trust, DER: the one that signs first.
    pub fn roots(&self) -> Vec<CertificateDer<'static>> {
        self.roots.clone()
    }

    /// Fingerprint of the certificate that signs.
    pub fn signer(&self) -> [u8; 32] {
        self.signer
    }

    /// When what signs ends; nothing that it signs lives longer.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Signs an SVID for `identity` over the request's key. Of the request only the key and the proof of its possession count; who may ask for
    /// which identity is the caller's to decide, before. `lifetime` is held within the named bounds and the signer's own end.
    pub fn sign(&self, csr: &[u8], identity: &Identity, lifetime: Duration) -> Result<Signed, AuthorityFault> {
        if csr.len() > CSR_LONGEST {
            return Err(AuthorityFault::RequestLength { identity: identity.clone(), length: csr.len() });
        }
        let refused = |reason: String| AuthorityFault::Request { identity: identity.clone(), reason };
        // Parsing checks the request's own signature: proof of possession.
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr))
            .map_err(|e| refused(e.to_string()))?;
        let public = &request.public_key;
        if *PublicKeyData::algorithm(public) != PKCS_ECDSA_P256_SHA256 || public.der_bytes().len() != P256_POINT {
            return Err(refused("the key is not ECDSA P-256".into()));
        }
        let lifetime = lifetime.clamp(SVID_LIFETIME_SHORTEST, SVID_LIFETIME_LONGEST);
        self.svid(public, identity, lifetime)
    }

    fn svid(&self, key: &impl PublicKeyData, identity: &Identity, life: Duration) -> Result<Signed, AuthorityFault> {
        let (mut params, not_after) = self.leaf(life);
        params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into().map_err(signing)?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = params.signed_by(key, &self.issuer).map_err(signing)?;
        Ok(Signed { chain: self.under(leaf.der()), not_after })
    }

    /// A certificate for a server of the controller, good for [`SERVER_LIFETIME`] or until the signer ends.
    pub fn server_certificate(&self, dns: &[&str], addresses: &[IpAddr]) -> Result<ServerCertificate, AuthorityFault> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(signing)?;
        let (mut params, not_after) = self.leaf(SERVER_LIFETIME);
        for name in dns {
            params.subject_alt_names.push(SanType::DnsName((*name).try_into().map_err(signing)?));
        }
        params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&key, &self.issuer).map_err(signing)?;
        Ok(ServerCertificate { chain: self.under(leaf.der()), key: Zeroizing::new(key.serialize_der()), not_after })
    }

    /// What every leaf has in common. No subject: names are in the SAN, which is critical then (RFC 5280 §4.1.2.6).
    fn leaf(&self, lifetime: Duration) -> (CertificateParams, SystemTime) {
        let now = SystemTime::now();
        let not_after = (now + lifetime).min(self.not_after);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = ((now - CLOCK_SKEW).into(), not_after.into());
        (params, not_after)
    }

    fn under(&self, leaf: &CertificateDer<'static>) -> Vec<CertificateDer<'static>> {
        std::iter::once(leaf.clone()).chain(self.chain.iter().cloned()).collect()
    }
}

fn signing(error: rcgen::Error) -> AuthorityFault {
    AuthorityFault::Signing(error.to_string())
}
