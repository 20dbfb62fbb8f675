//! The file of the last good config, so that a restarted proxy serves before the controller answers. It must not decide when to write.

use super::Held;
use mesh_core::name::ProxyName;
use mesh_wire::{PROTOCOL, proto::Delta};
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, decode_key, skip_field},
};
use siphasher::sip::SipHasher13;
use std::{
    fs,
    hash::Hasher,
    io::{self, BufWriter, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// First bytes of the file; another layout has another number.
const MAGIC: &[u8; 16] = b"heddle-config-1\n";
/// Longest file that is read back: a config of 100,000 resources is far below it.
const LONGEST: u64 = 1024 * 1024 * 1024;

/// Bytes that are written at once.
const CHUNK: usize = 64 * 1024;

/// The file, and whose config it holds.
///
/// Layout: magic, hash of all that follows (u64), protocol (u32), length of the proxy name (u32), all big endian; the name; a `Delta`, of which each
/// resource is a piece.
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
        let mut held = Held::default();
        for delta in pieces(body) {
            let delta = delta.map_err(|e| e.to_string())?;
            held.take(delta).map_err(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
        }
        Ok(held)
    }

    /// Replaces the file, whole or not at all. Readable by the owner only: a gateway's config holds keys.
    pub fn save(&self, held: &Held) -> Result<(), CacheFault> {
        // Two proxies of a node may write at once while one takes over from the other.
        let new = self.path.with_extension(format!("{}.new", std::process::id()));
        let write = || -> io::Result<()> {
            match fs::remove_file(&new) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            // The hash is known at the end; until it is there, the file is a damaged one.
            file.write_all(MAGIC)?;
            file.write_all(&[0; 8])?;
            let mut content = Hashed { into: BufWriter::with_capacity(CHUNK, &file), hash: SipHasher13::new() };
            self.write(held, &mut content)?;
            content.into.flush()?;
            let hash = content.hash.finish();
            drop(content);
            file.write_all_at(&hash.to_be_bytes(), MAGIC.len() as u64)?;
            file.sync_all()?;
            fs::rename(&new, &self.path)
        };
        write().map_err(|source| self.io(source))
    }

    /// What the hash is of.
    fn write(&self, held: &Held, into: &mut impl Write) -> io::Result<()> {
        let name = self.proxy.to_string();
        into.write_all(&PROTOCOL.to_be_bytes())?;
        into.write_all(&(name.len() as u32).to_be_bytes())?;
        into.write_all(name.as_bytes())?;
        let mut piece = Vec::new();
        for delta in held.export() {
            piece.clear();
            delta.encode(&mut piece).map_err(io::Error::other)?;
            into.write_all(&piece)?;
        }
        Ok(())
    }

    fn io(&self, source: io::Error) -> CacheFault {
        CacheFault::Io { path: self.path.clone(), source }
    }
}

/// A message of protobuf is the sequence of its fields, and repeated ones may stand alone: so one is written and read piece by piece.
fn pieces(mut body: &[u8]) -> impl Iterator<Item = Result<Delta, DecodeError>> {
    std::iter::from_fn(move || {
        if body.is_empty() {
            return None;
        }
        let mut rest = body;
        let skipped =
            decode_key(&mut rest).and_then(|(tag, wire)| skip_field(wire, tag, &mut rest, DecodeContext::default()));
        let field = &body[..body.len() - rest.len()];
        // What cannot be read is said once.
        body = if skipped.is_ok() { rest } else { &[] };
        Some(skipped.and_then(|()| Delta::decode(field)))
    })
}

/// Hashes what it writes.
struct Hashed<W> {
    into: W,
    hash: SipHasher13,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let wrote = self.into.write(data)?;
        self.hash.write(&data[..wrote]);
        Ok(wrote)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.into.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_wire::proto::Resource;

    #[test]
    fn a_message_and_its_pieces_are_the_same_bytes() {
        let named = |id: &str| Resource { id: id.into(), version: 7, body: None };
        let whole = Delta { upserts: vec![named("a"), named("b")], synced: true, ..Delta::default() };
        let read: Vec<Delta> = pieces(&whole.encode_to_vec()).collect::<Result<_, _>>().unwrap();
        assert_eq!(read.len(), 3, "what a proxy of before has stored is read piece by piece: {read:?}");
        let written: Vec<u8> = read.iter().flat_map(Message::encode_to_vec).collect();
        assert_eq!(Delta::decode(&*written).unwrap(), whole, "what is stored by pieces, one of before reads whole");
        assert!(pieces(&written[..written.len() - 1]).last().unwrap().is_err());
    }
}
