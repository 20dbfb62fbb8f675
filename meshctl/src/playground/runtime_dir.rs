//! The directory of a playground on the host: lock and control socket, found by the folder's path. It must not hold anything that has to outlive the playground.

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use super::addresses::stable_hash;

/// Paths of one playground.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeDir {
    dir: PathBuf,
}

impl RuntimeDir {
    /// Where the playground of a folder (absolute path) is, whether it runs or not.
    pub fn of(folder: &Path) -> Self {
        let uid = nix::unistd::geteuid();
        let base = match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
            Some(dir) if dir.is_dir() => dir.join("heddle-playground"),
            _ => std::env::temp_dir().join(format!("heddle-playground-{uid}")),
        };
        Self { dir: base.join(format!("{:016x}", stable_hash(folder.as_os_str().as_encoded_bytes()))) }
    }

    /// The one at this path.
    pub fn at(path: &Path) -> Self {
        Self { dir: path.to_owned() }
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Control socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("control.sock")
    }

    /// Where the supervisor mounts its memory file system: empty as seen from outside.
    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Makes it and takes the lock, which is held as long as the file is open. What a crash left is removed first.
    pub fn claim(&self) -> Result<File> {
        let parent = self.dir.parent().unwrap_or(&self.dir);
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700);
        private.create(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        let owner = fs::metadata(parent)?.uid();
        if owner != nix::unistd::geteuid().as_raw() {
            bail!("{} belongs to another user (uid {owner})", parent.display());
        }
        // Another playground that ends may remove the empty parent at any moment before.
        let lock = private.create(&self.dir).and_then(|()| File::create(self.dir.join("lock")));
        let lock = lock.with_context(|| format!("cannot make {}", self.dir.display()))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => bail!("a playground of this folder is already up"),
            Err(error) => return Err(error).context("cannot lock the playground's directory"),
        }
        match fs::remove_file(self.socket()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
        fs::create_dir_all(self.state())?;
        Ok(lock)
    }

    /// Removes it. Whoever of the outer process and the stage ends last finds nothing left to do.
    pub fn remove(&self) {
        if let Err(error) = fs::remove_dir_all(&self.dir)
            && error.kind() != io::ErrorKind::NotFound
        {
            eprintln!("cannot remove {}: {error}", self.dir.display());
        }
        // Fails when another playground runs.
        let _ = self.dir.parent().map(fs::remove_dir);
    }
}
