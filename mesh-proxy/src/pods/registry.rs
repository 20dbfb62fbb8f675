//! The registry: which sandboxes the CNI announced, kept in files so that a restarted proxy takes them up again. It must not open namespaces.

use mesh_core::name::NsName;
use mesh_sys::NetnsId;
use serde_json::{Value, json};
use std::{
    fs, io,
    net::IpAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// A pod's sandbox as the CNI announced it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// Container id of the sandbox.
    pub container: String,
    /// The pod.
    pub pod: NsName,
    /// `metadata.uid`, empty if the runtime did not say.
    pub uid: String,
    /// Path of the network namespace.
    pub netns: PathBuf,
    /// Which namespace that was: a path may be used again.
    pub netns_id: NetnsId,
    /// Addresses, primary first.
    pub addresses: Vec<IpAddr>,
    /// Whether it was captured, or about to be: then it is never left uncaptured by a restart.
    pub captured: bool,
}

/// One file for each sandbox, written whole and renamed.
#[derive(Clone, Debug)]
pub struct Registry {
    dir: PathBuf,
}

/// Why a sandbox could not be remembered.
#[derive(Debug, thiserror::Error)]
#[error("registry {path}")]
pub struct RegistryFault {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Registry {
    /// The registry in a directory, made if it is missing.
    pub fn open(dir: PathBuf) -> Result<Self, RegistryFault> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.map_err(|source| RegistryFault { path: dir.clone(), source })?;
        Ok(Self { dir })
    }

    /// Remembers a sandbox, replacing what was known of it.
    pub fn save(&self, sandbox: &Sandbox) -> Result<(), RegistryFault> {
        let path = self.path(&sandbox.container);
        // A dot: names of sandboxes never begin with one, so a half-written file is never read. Two proxies may write at once.
        let half = self.dir.join(format!(".{}.{}", std::process::id(), sandbox.container));
        let write = || {
            let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&half)?;
            io::Write::write_all(&mut file, encode(sandbox).to_string().as_bytes())?;
            file.sync_all()?;
            fs::rename(&half, &path)
        };
        write().map_err(|source| RegistryFault { path: path.clone(), source })
    }

    /// Forgets a sandbox; one that is not known is fine.
    pub fn remove(&self, container: &str) -> Result<(), RegistryFault> {
        let path = self.path(container);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(RegistryFault { path, source: e }),
            _ => Ok(()),
        }
    }

    /// All sandboxes, by container id. A file that cannot be read is reported and left alone.
    pub fn load(&self) -> Result<Vec<Sandbox>, RegistryFault> {
        let fault = |source| RegistryFault { path: self.dir.clone(), source };
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(fault)? {
            let path = entry.map_err(fault)?.path();
            let hidden = path.file_name().is_none_or(|n| n.to_string_lossy().starts_with('.'));
            if hidden {
                continue;
            }
            match fs::read(&path).map_err(|e| e.to_string()).and_then(|bytes| decode(&bytes)) {
                Ok(sandbox) => found.push(sandbox),
                Err(reason) => {
                    tracing::error!(path = %path.display(), reason, "a sandbox of the registry cannot be read")
                }
            }
        }
        found.sort_by(|a, b| a.container.cmp(&b.container));
        Ok(found)
    }

    fn path(&self, container: &str) -> PathBuf {
        self.dir.join(container)
    }
}

/// Whether a container id may name a file: CNI allows alphanumeric characters, '_', '.' and '-', the first alphanumeric.
pub fn is_container_id(id: &str) -> bool {
    // NAME_MAX of Linux, with room for what a half-written file is called.
    const LONGEST: usize = 240;
    let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    id.len() <= LONGEST && id.starts_with(|c: char| c.is_ascii_alphanumeric()) && id.bytes().all(ok)
}

fn encode(sandbox: &Sandbox) -> Value {
    json!({
        "container": sandbox.container,
        "namespace": &*sandbox.pod.namespace,
        "name": &*sandbox.pod.name,
        "uid": sandbox.uid,
        "netns": sandbox.netns.to_string_lossy(),
        "device": sandbox.netns_id.device,
        "inode": sandbox.netns_id.inode,
        "addresses": sandbox.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "captured": sandbox.captured,
    })
}

fn decode(bytes: &[u8]) -> Result<Sandbox, String> {
    let value: Value = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    let text = |field: &str| value[field].as_str().map(str::to_owned).ok_or_else(|| format!("{field} is missing"));
    let number = |field: &str| value[field].as_u64().ok_or_else(|| format!("{field} is missing"));
    let container = text("container")?;
    if !is_container_id(&container) {
        return Err(format!("container {container:?} is no container id"));
    }
    let addresses = value["addresses"].as_array().ok_or("addresses is missing")?;
    let addresses = addresses.iter().map(|a| a.as_str().and_then(|a| a.parse().ok()));
    Ok(Sandbox {
        container,
        pod: NsName::new(text("namespace")?, text("name")?),
        uid: text("uid")?,
        netns: PathBuf::from(text("netns")?),
        netns_id: NetnsId { device: number("device")?, inode: number("inode")? },
        addresses: addresses.collect::<Option<_>>().ok_or("addresses has one that is none")?,
        captured: value["captured"].as_bool().ok_or("captured is missing")?,
    })
}

impl AsRef<Path> for Registry {
    fn as_ref(&self) -> &Path {
        &self.dir
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox() -> Sandbox {
        Sandbox {
            container: "c1".into(),
            pod: NsName::new("shop", "cart-0"),
            uid: "u".into(),
            netns: "/run/netns/x".into(),
            netns_id: NetnsId { device: 4, inode: 4_026_532_000 },
            addresses: vec!["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
            captured: true,
        }
    }

    #[test]
    fn a_sandbox_survives_a_restart_and_a_damaged_file_harms_no_other() {
        let dir = std::env::temp_dir().join(format!("heddle-registry-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let registry = Registry::open(dir.clone()).unwrap();
        registry.save(&sandbox()).unwrap();
        fs::write(dir.join("c2"), b"{").unwrap();
        fs::write(dir.join(".c3"), b"half").unwrap();
        let again = Registry::open(dir.clone()).unwrap();
        assert_eq!(again.load().unwrap(), [sandbox()]);
        again.remove("c1").unwrap();
        again.remove("c1").unwrap();
        assert_eq!(again.load().unwrap(), []);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn container_ids_never_leave_the_directory() {
        for bad in ["", ".", "..", "../x", "a/b", ".x", &"x".repeat(241)] {
            assert!(!is_container_id(bad), "{bad}");
        }
        assert!(is_container_id("a0_.-"));
    }
}
