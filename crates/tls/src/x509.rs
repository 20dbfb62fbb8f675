//! The embedded authority: a root of its own, SVIDs for workloads, a certificate for the controller's server. It must not decide who may have which identity.

use crate::store::{StoreFault, private_dir, write_private};
use mesh_core::identity::Identity;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, pem::PemObject};
use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use zeroize::Zeroizing;

/// Default lifetime of an SVID.
pub const SVID_LIFETIME: Duration = Duration::from_secs(3600);
/// Shortest lifetime that is signed: X.509 counts in seconds, and half of it must suffice to renew.
pub const SVID_LIFETIME_SHORTEST: Duration = Duration::from_secs(2);
/// Longest lifetime that is signed: nothing revokes an SVID but its end.
pub const SVID_LIFETIME_LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);
/// Certificates start so much before now, for nodes whose clocks are behind.
pub const CLOCK_SKEW: Duration = Duration::from_secs(60);
/// A request for a P-256 key is about 300 bytes; more is not one.
pub const CSR_LONGEST: usize = 8 * 1024;
/// Lifetime of a root.
const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Bytes of an uncompressed P-256 point.
const P256_POINT: usize = 65;

/// The authority of one mesh. Its root key stays in the process and in one file.
///
/// A root is replaced without a break in three steps, each a restart of the controller, with one SVID lifetime between them: add the new root's
/// certificate to `ca.crt` (both are trusted, the old one signs), put its key into `ca.key` (both are trusted, the new one signs), take the old
/// certificate out of `ca.crt`.
pub struct Authority {
    roots: Vec<CertificateDer<'static>>,
    issuer: Issuer<'static, KeyPair>,
    root_path: PathBuf,
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

/// A server's certificate and key as PEM, for the controller's own listener.
pub struct ServerCertificate {
    /// Leaf first.
    pub chain_pem: String,
    /// PKCS#8.
    pub key_pem: Zeroizing<String>,
}

impl Authority {
    /// Loads the roots from `dir` (`ca.crt`, and `ca.key` of one of them) or makes one there. A half or damaged pair is an error, never replaced.
    pub fn load_or_create(dir: &Path) -> Result<Self, AuthorityFault> {
        let (crt, key) = (dir.join("ca.crt"), dir.join("ca.key"));
        private_dir(dir).map_err(AuthorityFault::State)?;
        match (read(&crt)?, read(&key)?) {
            (Some(c), Some(k)) => Self::load(crt, &c, &key, &k),
            // The key is written first, so a key alone is a creation that was interrupted before anybody saw the root.
            (None, _) => Self::create(crt, &key),
            (Some(_), None) => Err(AuthorityFault::Root { path: key, reason: "missing, though ca.crt exists".into() }),
        }
    }

    fn load(crt: PathBuf, certificates: &str, key_path: &Path, key: &str) -> Result<Self, AuthorityFault> {
        let bad = |path: &Path, reason: String| AuthorityFault::Root { path: path.into(), reason };
        let key = KeyPair::from_pem(key).map_err(|e| bad(key_path, e.to_string()))?;
        let mut roots: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificates.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|e| bad(&crt, e.to_string()))?;
        let mut signer = None;
        for (at, root) in roots.iter().enumerate() {
            let (_, parsed) = x509_parser::parse_x509_certificate(root).map_err(|e| bad(&crt, e.to_string()))?;
            if !parsed.is_ca() || !parsed.validity().is_valid() {
                return Err(bad(&crt, format!("certificate {} is not of a CA that is valid now", at + 1)));
            }
            if parsed.public_key().subject_public_key.data == key.der_bytes() {
                let end = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
                signer = Some((at, SystemTime::UNIX_EPOCH + Duration::from_secs(end)));
            }
        }
        let Some((at, not_after)) = signer else {
            return Err(bad(&crt, format!("none of its {} certificates is of the key in ca.key", roots.len())));
        };
        // The one that signs comes first, for readers that look at one only.
        roots.swap(0, at);
        let issuer = Issuer::from_ca_cert_der(&roots[0], key).map_err(|e| bad(&crt, e.to_string()))?;
        Ok(Self { roots, issuer, root_path: crt, not_after })
    }

    fn create(crt: PathBuf, key_path: &Path) -> Result<Self, AuthorityFault> {
        let signing = |e: rcgen::Error| AuthorityFault::Signing(e.to_string());
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(signing)?;
        let key_pem = Zeroizing::new(key.serialize_pem());
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "heddle");
        // Each root has a name of its own, so that a peer of another mesh is told "unknown issuer" and not "wrong signature".
        let name: String = params.key_identifier(&key).iter().take(8).map(|b| format!("{b:02x}")).collect();
        params.distinguished_name.push(DnType::CommonName, format!("heddle mesh root {name}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let now = SystemTime::now();
        (params.not_before, params.not_after) = ((now - CLOCK_SKEW).into(), (now + ROOT_LIFETIME).into());
        let root = CertifiedIssuer::self_signed(params, key).map_err(signing)?;
        write_private(key_path, key_pem.as_bytes()).map_err(AuthorityFault::State)?;
        let certificate = root.pem();
        write_private(&crt, certificate.as_bytes()).map_err(AuthorityFault::State)?;
        Self::load(crt, &certificate, key_path, &key_pem)
    }

    /// Roots that peers must trust, DER: the one that signs first.
    pub fn roots(&self) -> Vec<CertificateDer<'static>> {
        self.roots.clone()
    }

    /// `ca.crt`: what proxies pin to reach the controller.
    pub fn root_path(&self) -> &Path {
        &self.root_path
    }

    /// Signs an SVID for `identity` over the request's key. Of the request only the key and the proof of its possession count; who may ask for
    /// which identity is the caller's to decide, before. `lifetime` is held within the named bounds and the root's own end.
    pub fn sign(&self, csr: &[u8], identity: &Identity, lifetime: Duration) -> Result<Signed, AuthorityFault> {
        if csr.len() > CSR_LONGEST {
            return Err(AuthorityFault::RequestLength { identity: identity.clone(), length: csr.len() });
        }
        let refused = |reason: String| AuthorityFault::Request { identity: identity.clone(), reason };
        let signing = |e: rcgen::Error| AuthorityFault::Signing(e.to_string());
        // Parsing checks the request's own signature: proof of possession.
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr))
            .map_err(|e| refused(e.to_string()))?;
        let public = &request.public_key;
        if *PublicKeyData::algorithm(public) != PKCS_ECDSA_P256_SHA256 || public.der_bytes().len() != P256_POINT {
            return Err(refused("the key is not ECDSA P-256".into()));
        }
        let now = SystemTime::now();
        let lifetime = lifetime.clamp(SVID_LIFETIME_SHORTEST, SVID_LIFETIME_LONGEST);
        let not_after = (now + lifetime).min(self.not_after);
        let mut params = leaf_params((now - CLOCK_SKEW, not_after));
        params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into().map_err(signing)?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = params.signed_by(public, &self.issuer).map_err(signing)?;
        Ok(Signed { chain: vec![leaf.der().clone()], not_after })
    }

    /// A certificate for a server of the controller, valid as long as the root; made anew at each start, its key is never stored.
    pub fn server_certificate(&self, dns: &[&str], addresses: &[IpAddr]) -> Result<ServerCertificate, AuthorityFault> {
        let signing = |e: rcgen::Error| AuthorityFault::Signing(e.to_string());
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(signing)?;
        let mut params = leaf_params((SystemTime::now() - CLOCK_SKEW, self.not_after));
        for name in dns {
            params.subject_alt_names.push(SanType::DnsName((*name).try_into().map_err(signing)?));
        }
        params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&key, &self.issuer).map_err(signing)?;
        Ok(ServerCertificate { chain_pem: leaf.pem(), key_pem: Zeroizing::new(key.serialize_pem()) })
    }
}

/// What every leaf has in common. No subject: names are in the SAN, which is critical then (RFC 5280 §4.1.2.6).
fn leaf_params((not_before, not_after): (SystemTime, SystemTime)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = (not_before.into(), not_after.into());
    params
}

fn read(path: &Path) -> Result<Option<Zeroizing<String>>, AuthorityFault> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(Zeroizing::new(text))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(AuthorityFault::State(StoreFault::Io { path: path.into(), source })),
    }
}
