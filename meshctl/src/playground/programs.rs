//! The mesh's own programs as children of the supervisor: started, started again when they end, stopped and killed when a test asks. It must not know what they do.

use super::{
    enter::Enter,
    request::{self, From, Request},
};
use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::watch;

/// Before a program that ended is started again.
const RESTART: Duration = Duration::from_millis(200);

/// A program that was told to end gets so long before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// Likewise one that drains: longer than the longest drain of a proxy.
const DRAIN_GRACE: Duration = Duration::from_secs(60);

/// A proxy that starts beside another one is ready within a second; a busy machine takes longer.
const READY: Duration = Duration::from_secs(60);

/// How often a new proxy is asked whether it is ready.
const LOOK: Duration = Duration::from_millis(20);

/// What to run.
#[derive(Clone, Debug)]
pub struct Program {
    /// `controller`, `node/n1`, `gateway/shop/front`.
    pub name: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The network namespace to run it in; none: the supervisor's.
    pub netns: Option<PathBuf>,
}

impl Program {
    /// Where its admin server is, as seen from its own namespace.
    fn admin(&self) -> Option<SocketAddr> {
        let at = self.argv.iter().position(|a| a == "--admin")?;
        let address: SocketAddr = self.argv.get(at + 1)?.parse().ok()?;
        Some(SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())))
    }

    /// The same program for a second process in the same namespace: its admin server is on the port after, or before, this one's.
    fn beside(&self) -> Option<Self> {
        let at = self.argv.iter().position(|a| a == "--admin")? + 1;
        let address: SocketAddr = self.argv.get(at)?.parse().ok()?;
        let mut program = self.clone();
        // Odd and the even one after it.
        let port = if address.port() % 2 == 1 { address.port() + 1 } else { address.port() - 1 };
        program.argv[at] = SocketAddr::new(address.ip(), port).to_string();
        Some(program)
    }
}

/// What a program should be doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Running,
    Stopped,
    Gone,
    /// Gone, but with the time that a node gives a proxy for its drain.
    Leaving,
}

#[derive(Debug)]
struct Entry {
    program: Program,
    wanted: watch::Sender<Wanted>,
    pid: Arc<Mutex<Option<i32>>>,
}

/// All programs of a playground.
#[derive(Debug)]
pub struct Programs {
    meshctl: PathBuf,
    logs: PathBuf,
    entries: Mutex<BTreeMap<String, Entry>>,
}

impl Programs {
    /// None yet.
    pub fn new(meshctl: PathBuf, logs: PathBuf) -> Self {
        Self { meshctl, logs, entries: Mutex::default() }
    }

    /// Starts a program and keeps it running.
    pub fn start(&self, program: Program) -> Result<()> {
        let path = self.logs.join(format!("{}.log", program.name.replace('/', "_")));
        let log =
            OpenOptions::new().append(true).create(true).open(&path).with_context(|| format!("{}", path.display()))?;
        let mut command = match &program.netns {
            None => {
                let mut command = std::process::Command::new(&program.argv[0]);
                command.args(&program.argv[1..]);
                command
            }
            Some(netns) => {
                Enter { netns: netns.clone(), pod: None, workdir: None }.command(&self.meshctl, &program.argv)?
            }
        };
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let (wanted, orders) = watch::channel(Wanted::Running);
        let pid = Arc::default();
        tokio::spawn(keep(program.name.clone(), command.into(), orders, Arc::clone(&pid)));
        self.lock().insert(program.name.clone(), Entry { program, wanted, pid });
        Ok(())
    }

    /// Ends a program for good.
    pub fn remove(&self, name: &str) {
        if let Some(entry) = self.lock().remove(name) {
            let _ = entry.wanted.send(Wanted::Gone);
        }
    }

    /// See also [`Self::replace`]. `stop`, `start`, `kill` (SIGKILL; it is started again), `pause` (SIGSTOP) or `resume`.
    pub fn order(&self, name: &str, order: &str) -> Result<()> {
        let entries = self.lock();
        let Some(entry) = entries.get(name) else {
            bail!("no program {name}; there are {}", entries.keys().cloned().collect::<Vec<_>>().join(", "));
        };
        let signal = |signal| match *entry.pid.lock().unwrap_or_else(std::sync::PoisonError::into_inner) {
            Some(pid) => kill(Pid::from_raw(pid), signal).with_context(|| format!("cannot signal {name}")),
            None => bail!("{name} is not running"),
        };
        match order {
            "stop" => Ok(entry.wanted.send(Wanted::Stopped)?),
            "start" => Ok(entry.wanted.send(Wanted::Running)?),
            "kill" => signal(Signal::SIGKILL),
            "pause" => signal(Signal::SIGSTOP),
            "resume" => signal(Signal::SIGCONT),
            other => bail!("unknown order {other}: stop, start, kill, pause, resume or replace"),
        }
    }

    /// Starts a proxy beside the living one, and ends that one, with its time to drain, once the new one says that it is ready: what a rolling
    /// update with surge does. The old one is `NAME-before` until it has ended.
    pub async fn replace(&self, name: &str) -> Result<()> {
        let before = format!("{name}-before");
        let successor = {
            let mut entries = self.lock();
            let Some(old) = entries.remove(name) else { bail!("no program {name}") };
            let successor = old.program.beside();
            entries.insert(before.clone(), old);
            successor.with_context(|| format!("{name} is no proxy"))?
        };
        let (netns, admin) = (successor.netns.clone(), successor.admin().context("it has an admin server")?);
        self.start(successor)?;
        let from = From::Netns(netns.context("it has a namespace")?);
        let ready = Request::get(&format!("http://{admin}/ready"))?;
        let end = tokio::time::Instant::now() + READY;
        while request::perform(&ready, &from, admin).await.first().is_none_or(|o| o.status != Some(200)) {
            if tokio::time::Instant::now() > end {
                bail!("the new {name} is not ready within {READY:?}");
            }
            tokio::time::sleep(LOOK).await;
        }
        if let Some(old) = self.lock().get(&before) {
            old.wanted.send(Wanted::Leaving)?;
        }
        Ok(())
    }

    /// The pid of each that runs, inside the playground.
    pub fn running(&self) -> BTreeMap<String, i32> {
        let pid = |e: &Entry| *e.pid.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.lock().iter().filter_map(|(name, e)| Some((name.clone(), pid(e)?))).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Entry>> {
        // The map is whole at every moment that could panic.
        self.entries.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

async fn keep(
    name: String,
    mut command: tokio::process::Command,
    mut orders: watch::Receiver<Wanted>,
    pid: Arc<Mutex<Option<i32>>>,
) {
    let set = |value: Option<i32>| *pid.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = value;
    loop {
        let over = orders
            .wait_for(|w| *w != Wanted::Stopped)
            .await
            .is_ok_and(|w| matches!(*w, Wanted::Gone | Wanted::Leaving));
        if over || orders.has_changed().is_err() {
            return;
        }
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                tracing::error!(name, %error, "cannot start");
                tokio::time::sleep(RESTART).await;
                continue;
            }
        };
        let id = child.id().and_then(|p| i32::try_from(p).ok());
        set(id);
        // The guard of the value must not live across an await.
        let told = async { drop(orders.wait_for(|w| *w != Wanted::Running).await) };
        tokio::select! {
            status = child.wait() => {
                set(None);
                tracing::warn!(name, ?status, "ended; starting it again");
                tokio::time::sleep(RESTART).await;
            }
            () = told => {
                if let Some(id) = id {
                    // It may have ended a moment ago.
                    let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
                }
                let grace = if *orders.borrow() == Wanted::Leaving { DRAIN_GRACE } else { GRACE };
                if tokio::time::timeout(grace, child.wait()).await.is_err() {
                    tracing::warn!(name, "did not end within {grace:?}; killed");
                    let _ = child.kill().await;
                }
                set(None);
            }
        }
    }
}
