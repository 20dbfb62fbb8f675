//! Network namespaces, pinned as files, and running something inside one. Entering happens on a thread that ends with the call, so that no thread of ours is ever
//! left in a foreign namespace. It must not know what the namespaces are for.

use anyhow::{Context, Result, bail};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};
use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A network namespace that a file keeps alive.
#[derive(Clone, Debug)]
pub struct Netns {
    path: PathBuf,
}

impl Netns {
    /// A namespace that exists already.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Makes a new one, with `lo` up, and pins it at `path`.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        File::create_new(&path).with_context(|| format!("network namespace {}", path.display()))?;
        let pin = || -> nix::Result<()> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            mount(Some("/proc/thread-self/ns/net"), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        };
        on_a_thread(pin)?.with_context(|| format!("cannot make the network namespace {}", path.display()))?;
        let made = Self { path };
        made.ip("link set lo up")?;
        Ok(made)
    }

    /// Where it is pinned.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `f` inside. Sockets and processes made there stay there.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        on_a_thread(|| {
            let file = File::open(&self.path)?;
            setns(&file, CloneFlags::CLONE_NEWNET)?;
            Ok::<T, std::io::Error>(f())
        })?
        .with_context(|| format!("cannot enter the network namespace {}", self.path.display()))
    }

    /// Runs lines of `ip` as one batch inside; the first that fails ends it.
    pub fn ip(&self, lines: &str) -> Result<()> {
        self.run(|| feed("ip", &["-batch", "-"], lines))?
    }

    /// Applies nftables text inside, as one transaction.
    pub fn nft(&self, text: &str) -> Result<()> {
        self.run(|| feed("nft", &["-f", "-"], text))?
    }

    /// Writes a sysctl inside, for instance `net/ipv4/ip_forward`.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        self.run(|| fs::write(format!("/proc/sys/{name}"), value))?
            .with_context(|| format!("cannot set {name} (is /proc/sys read-only here?)"))
    }

    /// Unpins it. It ends when the last process inside has ended.
    pub fn remove(&self) -> Result<()> {
        umount2(&self.path, MntFlags::MNT_DETACH)
            .with_context(|| format!("cannot unpin the network namespace {}", self.path.display()))?;
        fs::remove_file(&self.path).with_context(|| format!("cannot remove {}", self.path.display()))
    }
}

/// Runs lines of `ip` in the network namespace that the caller is in.
pub fn ip_here(lines: &str) -> Result<()> {
    feed("ip", &["-batch", "-"], lines)
}

/// Where the tools of an administrator are when `PATH` of an ordinary user leaves them out.
pub fn tool_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin")
}

fn feed(program: &str, args: &[&str], input: &str) -> Result<()> {
    let mut child = Command::new(program)
        .args(args)
        .env("PATH", tool_path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    let mut stdin = child.stdin.take().context("a pipe that was asked for")?;
    // A tool that stops early says why on stderr; a broken pipe says less.
    let written = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{program} failed: {}\n{}", String::from_utf8_lossy(&output.stderr).trim(), input.trim());
    }
    Ok(written?)
}

fn on_a_thread<T: Send>(f: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, f)?;
        match thread.join() {
            Ok(value) => Ok(value),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
