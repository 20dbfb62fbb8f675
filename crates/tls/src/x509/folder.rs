//! An authority whose root lies in a folder: made there once, read ever after. It must not replace what is there.

use super::{Authority, AuthorityFault, Material, material::new_root, signing};
use crate::store::{StoreFault, private_dir, write_private};
use rcgen::{KeyPair, PublicKeyData};
use std::{
    fs, io,
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// Where the roots of a folder are: what proxies pin to reach the controller.
pub fn root_file(dir: &Path) -> PathBuf {
    dir.join("ca.crt")
}

/// A root in a folder is replaced without a break in three steps, each a restart of the controller, with one SVID lifetime between them: add the
/// new root's certificate to `ca.crt` (both are trusted, the old one signs), put its key into `ca.key` (both are trusted, the new one signs), take
/// the old certificate out of `ca.crt`.
impl Authority {
    /// Loads the roots from `dir` (`ca.crt`, and `ca.key` of one of them) or makes one there. A half or damaged pair is an error, never replaced.
    pub fn load_or_create(dir: &Path) -> Result<Self, AuthorityFault> {
        let (crt, key) = (root_file(dir), dir.join("ca.key"));
        private_dir(dir).map_err(AuthorityFault::State)?;
        match (read(&crt)?, read(&key)?) {
            (Some(c), Some(k)) => load(crt, &c, key, &k),
            // The key is written first, so a key alone is a creation that was interrupted before anybody saw the root.
            (None, _) => {
                let (certificate, secret) = new_root().map_err(signing)?;
                write_private(&key, secret.as_bytes()).map_err(AuthorityFault::State)?;
                write_private(&crt, certificate.as_bytes()).map_err(AuthorityFault::State)?;
                load(crt, &certificate, key, &secret)
            }
            (Some(_), None) => Err(AuthorityFault::Root { path: key, reason: "missing, though ca.crt exists".into() }),
        }
    }
}

fn load(crt: PathBuf, certificates: &str, key_path: PathBuf, key: &str) -> Result<Authority, AuthorityFault> {
    let bad = |path: &Path, reason: String| AuthorityFault::Root { path: path.into(), reason };
    let pair = KeyPair::from_pem(key).map_err(|e| bad(&key_path, e.to_string()))?;
    let roots = super::certificates(certificates.as_bytes()).map_err(|e| bad(&crt, e))?;
    // The one that signs comes first, for readers that look at one only.
    let mut signer = None;
    for root in &roots {
        let (_, parsed) = x509_parser::parse_x509_certificate(root).map_err(|e| bad(&crt, e.to_string()))?;
        if parsed.public_key().subject_public_key.data == pair.der_bytes() {
            signer = Some(super::encode_certificates([&**root]));
        }
    }
    let Some(signer) = signer else {
        return Err(bad(&crt, format!("none of its {} certificates is of the key in ca.key", roots.len())));
    };
    let material =
        Material { certificate: signer.as_bytes(), key: key.as_bytes(), roots: Some(certificates.as_bytes()) };
    material.authority().map_err(|e| bad(if e.field == "tls.key" { &key_path } else { &crt }, e.reason))
}

fn read(path: &Path) -> Result<Option<Zeroizing<String>>, AuthorityFault> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(Zeroizing::new(text))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(AuthorityFault::State(StoreFault::Io { path: path.into(), source })),
    }
}
