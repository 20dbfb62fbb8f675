//! The Secret of the authority, read and written: certificates and keys to fingerprints for `rotation`, and its steps back to bytes. Pure. It must not decide a step.

use crate::ca::rotation::{Fingerprint, Ledger, Seen, Signer, Step};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use mesh_core::mesh::Roots;
use mesh_tls::{
    Authority, sha256,
    x509::{BadMaterial, Material, certificates, encode_certificates},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// What shall sign: the names that `kubernetes.io/tls` and cert-manager give them.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const ROOTS: &str = "ca.crt";
/// What signs; ours alone.
const ACTIVE_CERTIFICATE: &str = "active.crt";
const ACTIVE_KEY: &str = "active.key";
/// What all proxies are told to trust; ours alone.
const TRUSTED: &str = "trusted.crt";
const LEDGER: &str = "rotation.json";

/// By this annotation `meshctl ca rotate`, or anybody who may write the Secret, asks for a new root; its value says when.
pub const REQUEST: &str = "heddle.dev/rotate";
/// By this one cert-manager says that the Secret is its own.
const CERT_MANAGER: &str = "cert-manager.io/certificate-name";

/// The parts of the Secret, parsed.
pub(super) struct Contents {
    /// What shall sign.
    pub(super) wanted: Result<Authority, BadMaterial>,
    /// What signs; none: nothing yet.
    pub(super) active: Option<Result<Authority, BadMaterial>>,
    /// DER.
    pub(super) trusted: Vec<Arc<[u8]>>,
    pub(super) seen: Seen,
    /// Somebody asks for a new root.
    pub(super) requested: bool,
    /// Somebody else makes what shall sign.
    pub(super) foreign: bool,
}

impl Contents {
    pub(super) fn read(secret: &Secret) -> Self {
        let empty = BTreeMap::new();
        let data = secret.data.as_ref().unwrap_or(&empty);
        let field = |name: &str| data.get(name).map(|bytes| &bytes.0[..]);
        let missing = |field| BadMaterial { field, reason: "is missing".into() };
        let material = |certificate, key, roots| {
            Material {
                certificate: field(certificate).ok_or_else(|| missing(certificate))?,
                key: field(key).ok_or_else(|| missing(key))?,
                roots: field(roots),
            }
            .authority()
        };
        let wanted = material(CERTIFICATE, KEY, ROOTS);
        let active = field(ACTIVE_CERTIFICATE).map(|_| material(ACTIVE_CERTIFICATE, ACTIVE_KEY, TRUSTED));
        // A bundle that cannot be read trusts nobody, which the active signer notices: then it counts as unusable.
        let trusted: Vec<Arc<[u8]>> = field(TRUSTED)
            .and_then(|pem| certificates(pem).ok())
            .map_or_else(Vec::new, |all| all.iter().map(|der| Arc::from(&**der)).collect());
        let first = |name| field(name).and_then(|pem| certificates(pem).ok()?.first().map(|der| sha256(der)));
        let seen = Seen {
            wanted: wanted.as_ref().ok().and_then(|authority| {
                Some(Signer {
                    id: first(CERTIFICATE)?,
                    roots: authority.roots().iter().map(|der| sha256(der)).collect(),
                })
            }),
            active: active.as_ref().and_then(|a| a.as_ref().ok()).and_then(|_| first(ACTIVE_CERTIFICATE)),
            trusted: trusted.iter().map(|der| sha256(der)).collect(),
            ledger: field(LEDGER).and_then(|json| serde_json::from_slice(json).ok()).unwrap_or_default(),
        };
        let annotated = |name| secret.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(name));
        Self { wanted, active, trusted, seen, requested: annotated(REQUEST), foreign: annotated(CERT_MANAGER) }
    }

    /// What signs now, and what is trusted: the active one, or, before anybody made one active, the wanted one.
    pub(super) fn current(self) -> Result<(Authority, Roots), BadMaterial> {
        let roots = Roots { revision: self.seen.ledger.revision, certificates: self.roots() };
        match (self.active, self.wanted) {
            (Some(Ok(active)), _) => Ok((active, roots)),
            (_, Ok(wanted)) => Ok((wanted, roots)),
            (Some(Err(_)) | None, Err(bad)) => Err(bad),
        }
    }

    /// The roots that vouch for what signs now, DER; none if nothing can.
    pub(super) fn roots(&self) -> Vec<Arc<[u8]>> {
        match (&self.active, &self.wanted) {
            (Some(Ok(_)), _) => self.trusted.clone(),
            (_, Ok(_)) => self.trusted_after(Step::Adopt),
            _ => Vec::new(),
        }
    }

    /// The roots after a step, DER.
    fn trusted_after(&self, step: Step) -> Vec<Arc<[u8]>> {
        let wanted = || self.wanted.iter().flat_map(Authority::roots).map(|der| Arc::from(&*der));
        let mut met = BTreeSet::<Fingerprint>::new();
        let all: Vec<Arc<[u8]>> = match step {
            Step::Adopt | Step::Introduce => self.trusted.iter().cloned().chain(wanted()).collect(),
            Step::Retire => wanted().collect(),
            Step::Switch | Step::Note => self.trusted.clone(),
        };
        all.into_iter().filter(|der| met.insert(sha256(der))).collect()
    }
}

/// The fields of `secret` that a step changes.
pub(super) fn after(secret: &Secret, contents: &Contents, step: Step, ledger: &Ledger) -> BTreeMap<String, ByteString> {
    let mut changed = BTreeMap::new();
    let copy = |from: &str| secret.data.as_ref().and_then(|data| data.get(from)).cloned().unwrap_or_default();
    if matches!(step, Step::Adopt | Step::Switch) {
        changed.insert(ACTIVE_CERTIFICATE.to_owned(), copy(CERTIFICATE));
        changed.insert(ACTIVE_KEY.to_owned(), copy(KEY));
    }
    if matches!(step, Step::Adopt | Step::Introduce | Step::Retire) {
        changed.insert(TRUSTED.to_owned(), bytes(&bundle(&contents.trusted_after(step))));
    }
    let json = serde_json::to_vec(ledger).expect("numbers under names are JSON");
    changed.insert(LEDGER.to_owned(), ByteString(json));
    changed
}

/// The fields of what shall sign, for a root of our own.
pub(super) fn wanted(certificate: &str, key: &str) -> BTreeMap<String, ByteString> {
    let fields = [(CERTIFICATE, certificate), (KEY, key), (ROOTS, certificate)];
    fields.into_iter().map(|(name, text)| (name.to_owned(), bytes(text))).collect()
}

/// Roots as the text that proxies read.
pub(super) fn bundle(roots: &[Arc<[u8]>]) -> String {
    encode_certificates(roots.iter().map(|der| &**der))
}

fn bytes(text: &str) -> ByteString {
    ByteString(text.as_bytes().to_vec())
}
