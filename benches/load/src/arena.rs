//! The arena: a network namespace of the bench's own with the addresses of proxy and backend on its loopback. It must not touch the machine's network.

use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns};
use std::{
    fs::{self, File},
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

/// Names of our namespaces: this, our pid, and a number.
const PREFIX: &str = "heddle-bench-";

/// Where every proxy listens.
pub const PROXY: &str = "10.77.0.1";
/// Where the backend listens.
pub const BACKEND: &str = "10.77.0.2";

/// For `sh` in a network namespace: a new connection for each request leaves many in TIME_WAIT; the range of ports must hold them for a round, and
/// must spare those that somebody will listen on.
pub const WIDE_PORTS: &str = "echo 1024 65535 > /proc/sys/net/ipv4/ip_local_port_range; \
     echo 5201,8080-8090,8443,9000-9010,9901,15000-15100 > /proc/sys/net/ipv4/ip_local_reserved_ports; \
     echo 1 > /proc/sys/net/ipv4/tcp_tw_reuse";

/// Where a load generator runs.
pub trait Place {
    /// A command that will run inside.
    fn command(&self, program: &str) -> Command;
}

/// A namespace; it goes with the value.
pub struct Arena {
    name: String,
}

impl Arena {
    /// Makes it.
    pub fn new() -> Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        remove_stale();
        let arena = Self { name: format!("{PREFIX}{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed)) };
        ip(&["netns", "add", &arena.name]).context("a network namespace (needs root)")?;
        let inside = |args: &[&str]| ip(&[&["-n", &arena.name], args].concat());
        inside(&["link", "set", "lo", "up"])?;
        for address in [PROXY, BACKEND] {
            inside(&["addr", "add", &format!("{address}/32"), "dev", "lo"])?;
        }
        let wide = arena.command("sh").args(["-c", WIDE_PORTS]).status()?;
        ensure!(wide.success(), "the arena's port range cannot be set");
        Ok(arena)
    }

    /// Runs something inside, on a thread of its own: sockets that it opens are the arena's.
    pub fn inside<T: Send>(&self, run: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        inside(&Path::new("/var/run/netns").join(&self.name), run)
    }
}

impl Place for Arena {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let _ = ip(&["netns", "del", &self.name]);
    }
}

/// Whoever is killed leaves its namespace behind; the next one tidies up.
fn remove_stale() {
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let dead = pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists());
        if dead && let Err(error) = ip(&["netns", "del", &name]) {
            eprintln!("{error:#}");
        }
    }
}

/// Runs something in a network namespace, on a thread of its own.
pub fn inside<T: Send>(namespace: &Path, run: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let namespace = File::open(namespace).with_context(|| namespace.display().to_string())?;
    let enter = move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).context("entering a network namespace")?;
        run()
    };
    thread::scope(|scope| scope.spawn(enter).join()).map_err(|_| anyhow!("a thread in a namespace panicked"))?
}

fn ip(args: &[&str]) -> Result<()> {
    let out = Command::new("ip").args(args).output().context("ip (Debian: iproute2)")?;
    ensure!(out.status.success(), "ip {}: {}", args.join(" "), String::from_utf8_lossy(&out.stderr).trim());
    Ok(())
}
