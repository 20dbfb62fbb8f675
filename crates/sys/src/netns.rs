//! Network namespaces: open one, run a closure inside, tell two apart. It must not keep a thread in a foreign namespace, whatever the closure does.

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// A network namespace held open: it stays alive, even without processes, as long as this value.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
    id: NetnsId,
}

/// What tells two network namespaces apart. An inode number is used again once its namespace is gone; nobody holding it open is mistaken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NetnsId {
    /// Device of the namespace file system.
    pub device: u64,
    /// Inode of the namespace.
    pub inode: u64,
}

/// Why a network namespace could not be opened or entered.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The path cannot be opened.
    #[error("cannot open network namespace {path}")]
    Open {
        /// Path that was tried.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The file is not a network namespace.
    #[error("{0} is not a network namespace")]
    NotNetns(String),
    /// The kernel refused to enter it.
    #[error("cannot enter the network namespace (CAP_SYS_ADMIN over it is needed)")]
    Enter(#[source] io::Error),
}

impl Netns {
    /// Opens the namespace at a path such as `/var/run/netns/NAME` or `/proc/PID/ns/net`.
    pub fn open(path: &Path) -> Result<Self, NetnsError> {
        let file = File::open(path).map_err(|source| NetnsError::Open { path: path.into(), source })?;
        Self::from_fd(file.into()).map_err(|_| NetnsError::NotNetns(path.display().to_string()))
    }

    /// The namespace of the calling thread.
    pub fn current() -> Result<Self, NetnsError> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// Takes a descriptor that someone handed over.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, NetnsError> {
        let not = |what: &dyn std::fmt::Display| NetnsError::NotNetns(format!("the descriptor ({what})"));
        // Namespaces are files of nsfs; entering anything else would fail much later, or enter a namespace of another kind.
        let nsfs = rustix::fs::fstatfs(&fd).map_err(|e| not(&e))?.f_type == NSFS_MAGIC;
        if !nsfs {
            return Err(not(&"not of nsfs"));
        }
        let file = File::from(fd);
        let meta = file.metadata().map_err(|e| not(&e))?;
        Ok(Self { id: NetnsId { device: meta.dev(), inode: meta.ino() }, fd: file.into() })
    }

    /// What tells it apart.
    pub fn id(&self) -> NetnsId {
        self.id
    }

    /// Runs `f` on this thread inside the namespace, and comes back however `f` ends. Sockets made by `f` belong to the namespace
    /// for ever; `f` must not block for long, because the thread serves others.
    pub fn run<T>(&self, f: impl FnOnce() -> T) -> Result<T, NetnsError> {
        let home = home()?;
        if home.id == self.id {
            return Ok(f());
        }
        move_into_link_name_space(self.fd.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|e| NetnsError::Enter(e.into()))?;
        let _back = ComeBack(home.fd.as_fd());
        Ok(f())
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// `NSFS_MAGIC` of linux/magic.h.
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// The namespace that this process lives in, opened once: threads only ever leave it inside [`Netns::run`].
fn home() -> Result<&'static Netns, NetnsError> {
    static HOME: OnceLock<Netns> = OnceLock::new();
    if let Some(home) = HOME.get() {
        return Ok(home);
    }
    // The main thread never runs `Netns::run` concurrently with the first call on itself, so its namespace is the process's.
    let opened = Netns::open(Path::new("/proc/self/ns/net"))?;
    Ok(HOME.get_or_init(|| opened))
}

/// Returns the thread to its own namespace on drop, so also on `?` and on panic.
struct ComeBack(BorrowedFd<'static>);

impl Drop for ComeBack {
    fn drop(&mut self) {
        if let Err(error) = move_into_link_name_space(self.0, Some(LinkNameSpaceType::Network)) {
            // A worker thread that stays in a pod's namespace would open other pods' sockets there. Nothing is safer than to end.
            eprintln!("cannot return to the own network namespace: {error}; aborting");
            std::process::abort();
        }
    }
}
