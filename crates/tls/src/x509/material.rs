//! What an authority is made of: a certificate, its key and roots as PEM, made here or brought by the user, and judged before anything is signed with it. It must not know where they lie.

use super::{Authority, CLOCK_SKEW};
use crate::verify::{Rules, Side};
use mesh_core::identity::Identity;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData,
};
use rustls::pki_types::{CertificateDer, UnixTime, pem::PemObject};
use std::time::{Duration, SystemTime};
use x509_parser::certificate::X509Certificate;
use zeroize::Zeroizing;

/// Lifetime of a root that is made here.
const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Certificates of one bundle; more is not a bundle of roots of one mesh.
const BUNDLE_MOST: usize = 32;
/// Life of the leaf that is signed to see whether anybody would take it. Nobody gets it.
const TRIAL: Duration = Duration::from_secs(60);

/// PEM texts under the names that Secrets of type `kubernetes.io/tls` have for them.
#[derive(Clone, Copy)]
pub struct Material<'a> {
    /// `tls.crt`: what signs, first; then what stands between it and a root.
    pub certificate: &'a [u8],
    /// `tls.key`: its key.
    pub key: &'a [u8],
    /// `ca.crt`: roots. May be absent if the signer is a root itself.
    pub roots: Option<&'a [u8]>,
}

/// Which part cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct BadMaterial {
    /// `tls.crt`, `tls.key` or `ca.crt`.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

/// A certificate for people to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Its subject.
    pub name: String,
    /// SHA-256 of its DER.
    pub fingerprint: [u8; 32],
    /// Its end.
    pub not_after: SystemTime,
}

impl Root {
    /// Reads a certificate; says why it is none.
    pub fn read(der: &CertificateDer<'_>) -> Result<Self, String> {
        let cert = parse(der)?;
        let (name, not_after) = (cert.subject().to_string(), end(&cert));
        Ok(Self { name, fingerprint: crate::sha256(der), not_after })
    }
}

impl Material<'_> {
    /// An authority of it. It has proven that every proxy would believe what it signs: a leaf was signed and judged by a proxy's own rules.
    pub fn authority(&self) -> Result<Authority, BadMaterial> {
        let bad = |field: &'static str| move |reason: String| BadMaterial { field, reason };
        let mut chain = certificates(self.certificate).map_err(bad("tls.crt"))?;
        let signer = chain.first().cloned().ok_or_else(|| bad("tls.crt")("has no certificate".into()))?;
        let parsed = parse(&signer).map_err(bad("tls.crt"))?;
        is_authority(&parsed).map_err(bad("tls.crt"))?;
        is_valid(&parsed).map_err(bad("tls.crt"))?;
        let pem = std::str::from_utf8(self.key).map_err(|_| bad("tls.key")("is not PEM".into()))?;
        let key = KeyPair::from_pem(pem).map_err(|e| bad("tls.key")(format!("is not a key that can sign: {e}")))?;
        if parsed.public_key().subject_public_key.data != key.der_bytes() {
            return Err(bad("tls.key")("is not the key of the first certificate of tls.crt".into()));
        }
        let mut roots = Vec::new();
        if is_root(&parsed) {
            roots.push(signer.clone());
        }
        // A root at the end of tls.crt is one that vouches if the user names none; it is never sent to peers.
        let given = match self.roots.filter(|pem| !pem.trim_ascii().is_empty()) {
            Some(pem) => certificates(pem).map_err(bad("ca.crt"))?,
            None => chain.iter().filter(|der| parse(der).is_ok_and(|c| is_root(&c))).cloned().collect(),
        };
        for (at, der) in given.into_iter().enumerate() {
            let root = parse(&der).map_err(|e| bad("ca.crt")(format!("certificate {}: {e}", at + 1)))?;
            is_authority(&root).map_err(|e| bad("ca.crt")(format!("certificate {}: {e}", at + 1)))?;
            // An old root that ended while nobody looked vouches for nobody, and is no reason to stop.
            if is_valid(&root).is_ok() && !roots.contains(&der) {
                roots.push(der);
            }
        }
        if roots.is_empty() {
            return Err(bad("ca.crt")("has no root that is valid now, and tls.crt is none itself".into()));
        }
        chain.retain(|der| !roots.contains(der) && !parse(der).is_ok_and(|c| is_root(&c)));
        let not_after = end(&parsed);
        let issuer = Issuer::from_ca_cert_der(&signer, key).map_err(|e| bad("tls.crt")(e.to_string()))?;
        let authority = Authority { roots, chain, issuer, signer: crate::sha256(&signer), not_after };
        authority.would_be_believed().map_err(bad("tls.crt"))?;
        Ok(authority)
    }
}

impl Authority {
    fn would_be_believed(&self) -> Result<(), String> {
        let identity: Identity = "spiffe://cluster.local/ns/trial/sa/trial".parse().map_err(|e| format!("{e}"))?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| e.to_string())?;
        let signed = self.svid(&key, &identity, TRIAL).map_err(|e| e.to_string())?;
        let refused = |e: crate::Refusal| format!("every proxy would refuse what it signs: {e}");
        let rules = Rules::new(&self.roots, identity.trust_domain.clone()).map_err(refused)?;
        for side in [Side::Client, Side::Server] {
            let checked = rules.check(&signed.chain[0], &signed.chain[1..], UnixTime::now(), side, Some(&identity));
            checked.map_err(refused)?;
        }
        Ok(())
    }
}

/// A new root of our own: certificate and key as PEM.
pub fn new_root() -> Result<(String, Zeroizing<String>), rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
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
    Ok((CertifiedIssuer::self_signed(params, key)?.pem(), key_pem))
}

/// The certificates of a PEM text, in its order.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .take(BUNDLE_MOST + 1)
        .collect::<Result<_, _>>()
        .map_err(|e| e.to_string())?;
    match found.len() {
        0 => Err("has no certificate".into()),
        n if n > BUNDLE_MOST => Err(format!("has more than {BUNDLE_MOST} certificates")),
        _ => Ok(found),
    }
}

/// Certificates as one PEM text.
pub fn encode_certificates<'a>(all: impl IntoIterator<Item = &'a [u8]>) -> String {
    let blocks: Vec<_> = all.into_iter().map(|der| pem::Pem::new("CERTIFICATE", der)).collect();
    // Line feeds, as everybody else writes PEM on Linux.
    pem::encode_many_config(&blocks, pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF))
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    x509_parser::parse_x509_certificate(der).map(|(_, parsed)| parsed).map_err(|e| e.to_string())
}

fn is_root(cert: &X509Certificate<'_>) -> bool {
    cert.subject() == cert.issuer()
}

fn is_authority(cert: &X509Certificate<'_>) -> Result<(), String> {
    if !cert.is_ca() {
        return Err("is not a certificate of an authority: basicConstraints does not say CA".into());
    }
    // RFC 5280 §4.2.1.3: with key usage, only keyCertSign allows to sign certificates.
    if cert.key_usage().map_err(|e| e.to_string())?.is_some_and(|usage| !usage.value.key_cert_sign()) {
        return Err("may not sign certificates: its key usage lacks keyCertSign".into());
    }
    Ok(())
}

fn is_valid(cert: &X509Certificate<'_>) -> Result<(), String> {
    let (validity, now) = (cert.validity(), x509_parser::time::ASN1Time::now());
    if now > validity.not_after {
        return Err(format!("expired at {}", validity.not_after));
    }
    if now < validity.not_before {
        return Err(format!("is valid only from {}", validity.not_before));
    }
    Ok(())
}

fn end(cert: &X509Certificate<'_>) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(cert.validity().not_after.timestamp()).unwrap_or(0))
}
