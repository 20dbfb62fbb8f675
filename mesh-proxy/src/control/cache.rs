//! The file of the last good config, so that a restarted proxy serves before the controller answers. It must not decide when to write.

use super::Held;
use mesh_core::name::ProxyName;
use mesh_wire::{PROTOCOL, proto::Delta};
use prost::Message;
use siphasher::sip::SipHasher13;
use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// First bytes of the file; another layout has another number.
const MAGIC: &[u8; 16] = b"heddle-config-1\n";
/// Longest file that is read back: a config of 100,000 resources is far below it.
const LONGEST: u64 = 1024 * 1024 * 1024;

/// The file, and whose config it holds.
///
/// Layout: magic, hash of all that follows (u64), protocol (u32), length of the proxy name (u32), all big endian; the name; a `Delta`.
#[derive(Clone, Debug)]
pub struct Cache {
    path: PathBuf,
    proxy: ProxyName,
}

/// Why the file was not used or written.
#[derive(Debug, thiserror::Error)]
pub enum CacheFault {
    /// The file system.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Damaged, or of another version or proxy.
    #[error("{path} is not used: {reason}")]
    Content {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl Cache {
    /// The cache of a proxy in its state folder, which must exist.
    pub fn new(state_dir: &Path, proxy: ProxyName) -> Self {
        Self { path: state_dir.join("config"), proxy }
    }

    /// The stored config; none if there is no file. A file that is wrong in any part is not used at all.
    pub fn load(&self) -> Result<Option<Held>, CacheFault> {
        let read = || -> io::Result<Vec<u8>> {
            match fs::metadata(&self.path)?.len() {
                length if length > LONGEST => Err(io::Error::new(io::ErrorKind::FileTooLarge, "too long")),
                _ => fs::read(&self.path),
            }
        };
        let bytes = match read() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|source| self.io(source))?,
        };
        let held = self.parse(&bytes).map_err(|reason| CacheFault::Content { path: self.path.clone(), reason })?;
        Ok(Some(held))
    }

    fn parse(&self, bytes: &[u8]) -> Result<Held, String> {
        let rest = bytes.strip_prefix(MAGIC).ok_or("it does not begin like a config of this version")?;
        let (hash, rest) = rest.split_first_chunk::<8>().ok_or("it is cut short")?;
        if u64::from_be_bytes(*hash) != SipHasher13::new().hash(rest) {
            return Err("its hash is wrong: it is damaged".into());
        }
        let (protocol, rest) = rest.split_first_chunk::<4>().ok_or("it is cut short")?;
        if u32::from_be_bytes(*protocol) != PROTOCOL {
            return Err(format!("it is of protocol {}, this is {PROTOCOL}", u32::from_be_bytes(*protocol)));
        }
        let (length, rest) = rest.split_first_chunk::<4>().ok_or("it is cut short")?;
        let (name, body) =
            rest.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or("its proxy name is cut short")?;
        if name != self.proxy.to_string().as_bytes() {
            return Err(format!("it is of {:?}, this is {}", String::from_utf8_lossy(name), self.proxy));
        }
        let delta = Delta::decode(body).map_err(|e| e.to_string())?;
        let mut held = Held::default();
        held.take(delta).map_err(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
        Ok(held)
    }

    /// Replaces the file, whole or not at all. Readable by the owner only: a gateway's config holds keys.
    pub fn save(&self, held: &Held) -> Result<(), CacheFault> {
        let name = self.proxy.to_string();
        let delta = held.export();
        let mut content = Vec::with_capacity(8 + name.len() + delta.encoded_len());
        content.extend(PROTOCOL.to_be_bytes());
        content.extend((name.len() as u32).to_be_bytes());
        content.extend(name.as_bytes());
        content.extend(delta.encode_to_vec());
        // Two proxies of a node may write at once while one takes over from the other.
        let new = self.path.with_extension(format!("{}.new", std::process::id()));
        let write = || -> io::Result<()> {
            match fs::remove_file(&new) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            io::Write::write_all(&mut file, MAGIC)?;
            io::Write::write_all(&mut file, &SipHasher13::new().hash(&content).to_be_bytes())?;
            io::Write::write_all(&mut file, &content)?;
            file.sync_all()?;
            fs::rename(&new, &self.path)
        };
        write().map_err(|source| self.io(source))
    }

    fn io(&self, source: io::Error) -> CacheFault {
        CacheFault::Io { path: self.path.clone(), source }
    }
}
