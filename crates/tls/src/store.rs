//! SVIDs on disk, so that a restarted proxy serves before the controller answers. Readable by the owner alone. It must not decide when.

use crate::{BadSvid, Svid};
use mesh_core::identity::Identity;
use pem::Pem;
use rustls::pki_types::CertificateDer;
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};
use zeroize::Zeroizing;

const KEY: &str = "PRIVATE KEY";
const CHAIN: &str = "CERTIFICATE";
const ROOT: &str = "TRUSTED CERTIFICATE";
/// No SVID file of ours is longer: a few certificates and a key. Keeps a wrong file from filling the memory.
const LONGEST_FILE: u64 = 256 * 1024;

/// A folder with one folder for each trust domain, namespace and service account; the segments of an identity are safe file names.
#[derive(Clone, Debug)]
pub struct SvidStore {
    dir: Arc<Path>,
}

/// What went wrong with a stored SVID.
#[derive(Debug, thiserror::Error)]
pub enum StoreFault {
    /// The file system said no.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Not a file of this store.
    #[error("{path} is not a stored SVID: {reason}")]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Once good; now expired, for example.
    #[error("{path}: {source}")]
    Svid {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<BadSvid>,
    },
}

impl SvidStore {
    /// A store in `dir`, which is made (0700) if missing.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, StoreFault> {
        let dir = dir.into();
        private_dir(&dir)?;
        Ok(Self { dir: dir.into() })
    }

    /// The stored SVID of an identity, if there is one and it is still valid.
    pub fn load(&self, identity: &Identity) -> Result<Option<Svid>, StoreFault> {
        let path = self.path(identity);
        let corrupt = |reason: String| StoreFault::Corrupt { path: path.clone(), reason };
        let bytes = match fs::metadata(&path).and_then(|m| match m.len() > LONGEST_FILE {
            true => Err(io::Error::new(io::ErrorKind::FileTooLarge, "longer than any SVID")),
            false => fs::read(&path).map(Zeroizing::new),
        }) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|source| StoreFault::Io { path: path.clone(), source })?,
        };
        let (mut key, mut chain, mut roots) = (None, vec![], vec![]);
        for block in pem::parse_many(&*bytes).map_err(|e| corrupt(e.to_string()))? {
            match block.tag() {
                KEY => key = Some(Zeroizing::new(block.into_contents())),
                CHAIN => chain.push(CertificateDer::from(block.into_contents())),
                ROOT => roots.push(CertificateDer::from(block.into_contents())),
                other => return Err(corrupt(format!("unexpected block {other:?}"))),
            }
        }
        let key = key.ok_or_else(|| corrupt("no key".into()))?;
        let svid = Svid::new(identity.clone(), chain, key, roots);
        svid.map(Some).map_err(|source| StoreFault::Svid { path: path.clone(), source: source.into() })
    }

    /// Stores an SVID in place of an older one: whole or not at all.
    pub fn save(&self, svid: &Svid) -> Result<(), StoreFault> {
        let mut blocks = vec![Pem::new(KEY, svid.secret_key())];
        blocks.extend(svid.chain().iter().map(|c| Pem::new(CHAIN, c.to_vec())));
        blocks.extend(svid.roots().iter().map(|c| Pem::new(ROOT, c.to_vec())));
        let path = self.path(svid.identity());
        private_dir(path.parent().unwrap_or(&self.dir))?;
        write_private(&path, Zeroizing::new(pem::encode_many(&blocks)).as_bytes())
    }

    /// Removes an identity's SVID. None there: no error.
    pub fn remove(&self, identity: &Identity) -> Result<(), StoreFault> {
        let path = self.path(identity);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(StoreFault::Io { path, source }),
            _ => Ok(()),
        }
    }

    fn path(&self, id: &Identity) -> PathBuf {
        let dir = self.dir.join(id.trust_domain.as_str()).join(&*id.namespace).join(&*id.service_account);
        dir.join("svid.pem")
    }
}

/// Makes a folder that only the owner enters.
pub(crate) fn private_dir(dir: &Path) -> Result<(), StoreFault> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|source| StoreFault::Io { path: dir.into(), source })
}

/// Writes a file that only the owner reads, by renaming a complete one into place.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), StoreFault> {
    // Two proxies of a node may write at once while one takes over from the other.
    let new = path.with_extension(format!("{}.new", std::process::id()));
    let write = || -> io::Result<()> {
        match fs::remove_file(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        io::Write::write_all(&mut file, bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(|source| StoreFault::Io { path: path.into(), source })
}
