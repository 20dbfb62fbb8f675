//! Reads the identity of a leaf certificate by the rules of X509-SVID. It must not judge chain, time or trust; `verify` does.

use crate::Refusal;
use mesh_core::identity::Identity;
use std::time::{Duration, SystemTime};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

/// What a leaf certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Who it names.
    pub identity: Identity,
    /// First moment of its validity.
    pub not_before: SystemTime,
    /// Last moment of its validity.
    pub not_after: SystemTime,
}

/// Reads a leaf. Refuses everything that X509-SVID forbids in one.
pub fn read(der: &[u8]) -> Result<Leaf, Refusal> {
    let (rest, cert) = X509Certificate::from_der(der).map_err(|e| Refusal::Malformed(e.to_string()))?;
    if !rest.is_empty() {
        return Err(Refusal::Malformed(format!("{} bytes after the certificate", rest.len())));
    }
    let malformed = |e: x509_parser::error::X509Error| Refusal::Malformed(e.to_string());
    if cert.basic_constraints().map_err(malformed)?.is_some_and(|bc| bc.value.ca) {
        return Err(Refusal::CaLeaf);
    }
    // X509-SVID §4.3: "Key Usage … MUST be set on all SVIDs".
    match cert.key_usage().map_err(malformed)? {
        Some(usage) if usage.value.key_cert_sign() || usage.value.crl_sign() => return Err(Refusal::SigningLeaf),
        Some(usage) if usage.value.digital_signature() => {}
        _ => return Err(Refusal::NoDigitalSignature),
    }
    let identity = identity(&cert)?;
    Ok(Leaf {
        identity,
        not_before: moment(cert.validity().not_before.timestamp()),
        not_after: moment(cert.validity().not_after.timestamp()),
    })
}

/// X509-SVID §2: "exactly one URI SAN"; other kinds of names may stand beside it and mean nothing to us.
fn identity(cert: &X509Certificate<'_>) -> Result<Identity, Refusal> {
    let san = cert.subject_alternative_name().map_err(|e| Refusal::Malformed(e.to_string()))?.ok_or(Refusal::NoSan)?;
    let names = &san.value.general_names;
    // A name that cannot be read might be a second URI, so it counts against the certificate.
    if let Some(GeneralName::Invalid(tag, _)) = names.iter().find(|n| matches!(n, GeneralName::Invalid(..))) {
        return Err(Refusal::Malformed(format!("subject alternative name with tag {} cannot be read", tag.0)));
    }
    let mut uris = names.iter().filter_map(|n| match n {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let uri = uris.next().ok_or(Refusal::NoUriSan { names: names.len() })?;
    match uris.count() {
        0 => identity_of_uri(uri),
        more => Err(Refusal::UriSans(more + 1)),
    }
}

/// The identity behind a URI: a SPIFFE ID first, a workload of ours second, so that the reason says which it is not.
pub fn identity_of_uri(uri: &str) -> Result<Identity, Refusal> {
    spiffe::SpiffeId::new(uri).map_err(|e| Refusal::NotIdentity(format!("{:.256}: {e}", format!("{uri:?}"))))?;
    uri.parse().map_err(|e: mesh_core::identity::BadIdentity| Refusal::NotIdentity(e.to_string()))
}

/// X.509 times are seconds and may lie before 1970; those are clamped, which makes the certificate no more valid.
fn moment(timestamp: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(timestamp).unwrap_or(0))
}
