//! A fresh key and the request to certify it. It must not send; a `SvidSource` does.

use mesh_core::identity::Identity;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use zeroize::Zeroizing;

/// A P-256 key made here and its PKCS#10 request. The key never leaves the process except into the SVID store.
pub struct KeyRequest {
    key: Zeroizing<Vec<u8>>,
    csr: Vec<u8>,
}

/// The key could not be made; says why.
#[derive(Debug, Clone, thiserror::Error)]
#[error("key and request for {identity} cannot be made: {reason}")]
pub struct NoRequest {
    identity: Identity,
    reason: String,
}

impl KeyRequest {
    /// Makes a key for an identity.
    pub fn new(identity: &Identity) -> Result<Self, NoRequest> {
        let make = || -> Result<Self, rcgen::Error> {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into()?)];
            let csr = params.serialize_request(&key)?.der().to_vec();
            Ok(Self { key: Zeroizing::new(key.serialize_der()), csr })
        };
        make().map_err(|e| NoRequest { identity: identity.clone(), reason: e.to_string() })
    }

    /// The request, DER.
    pub fn csr(&self) -> &[u8] {
        &self.csr
    }

    /// The key, PKCS#8 DER, for [`crate::Svid::new`].
    pub fn into_key(self) -> Zeroizing<Vec<u8>> {
        self.key
    }
}
