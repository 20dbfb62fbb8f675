//! A process that is measured: started in the arena, ended with its value, and what it has used so far. It must not judge.

use crate::arena::{Arena, Place};
use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A program that does not listen by then is broken, also on a machine that has much else to do.
const READY: Duration = Duration::from_secs(60);
/// Between SIGTERM and SIGKILL.
const PATIENCE: Duration = Duration::from_secs(10);

/// Names the folder of the counters of `copied.c`, which is preloaded into every program then; `make bench-copied` sets both.
pub const COPIED: &str = "HEDDLE_BENCH_COPIED";

/// A running program.
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

/// What a program has used since it started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Processor time of all its threads and of the processes it started, nanoseconds.
    pub cpu: u64,
    /// Resident memory, bytes.
    pub memory: u64,
    /// Context switches.
    pub switches: u64,
    /// Bytes copied from memory to memory, where that is counted ([`COPIED`]).
    pub copied: Option<u64>,
}

impl Process {
    /// Starts it; its words go to a file of the folder. It ends with us, however we end.
    pub fn start(name: &str, command: Command, log: &Path) -> Result<Self> {
        let path = log.join(format!("{name}.log"));
        let log = fs::File::create(&path)?;
        let mut bound = Command::new("setpriv");
        bound.args(["--pdeathsig", "TERM", "--"]).arg(command.get_program()).args(command.get_args());
        bound.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let child = bound.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        Ok(Self { child: child.with_context(|| name.to_owned())?, name: name.to_owned(), log: path })
    }

    /// Waits until something answers at the address, asked from inside the arena.
    pub fn listens(&mut self, arena: &Arena, at: SocketAddr) -> Result<()> {
        let end = Instant::now() + READY;
        let probe = format!("exec 3<>/dev/tcp/{}/{}", at.ip(), at.port());
        while Instant::now() < end {
            self.lives()?;
            if arena.command("bash").args(["-c", &probe]).stderr(Stdio::null()).status()?.success() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(30));
        }
        bail!("{} does not listen at {at} within {READY:?}: {}", self.name, self.said())
    }

    /// Fails if it has ended.
    pub fn lives(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} ended: {status}: {}", self.name, self.said()),
            None => Ok(()),
        }
    }

    /// What it wrote.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default().trim().to_owned()
    }

    /// It and its children.
    pub fn family(&self) -> Result<Vec<u32>> {
        family(self.child.id())
    }

    /// What it and its children have used.
    pub fn usage(&self) -> Result<Usage> {
        Usage::of(&self.family()?).with_context(|| self.name.clone())
    }
}

impl Usage {
    /// What these processes have used together.
    pub fn of(pids: &[u32]) -> Result<Self> {
        let mut sum = Self::default();
        for pid in pids {
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} is gone"))?;
            for task in tasks {
                let path = task?.path();
                // A thread may end between the listing and the reading.
                let Ok(stat) = fs::read_to_string(path.join("schedstat")) else { continue };
                sum.cpu += stat.split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or_default();
                let status = fs::read_to_string(path.join("status")).unwrap_or_default();
                sum.switches +=
                    field(&status, "voluntary_ctxt_switches:") + field(&status, "nonvoluntary_ctxt_switches:");
            }
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            sum.memory += field(&status, "VmRSS:") * 1024;
        }
        if let Some(folder) = std::env::var_os(COPIED) {
            sum.copied = Some(copied(Path::new(&folder), pids)?);
        }
        Ok(sum)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Ok(pid) = i32::try_from(self.child.id()) else { return };
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Ok(Some(_)) | Err(_) = self.child.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // Its children too: a worker of nginx outlives its master.
        for pid in self.family().unwrap_or_default().into_iter().filter_map(|pid| i32::try_from(pid).ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}

/// A process and its children (nginx works in one).
fn family(pid: u32) -> Result<Vec<u32>> {
    let mut all = vec![pid];
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let children = fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|c| c.parse().ok()) {
            all.extend(family(child).unwrap_or_default());
        }
    }
    Ok(all)
}

/// A process maps its counter, and a fork that of its parent. (A pid would not do as its name: in a namespace of its own it is another.)
fn copied(folder: &Path, pids: &[u32]) -> Result<u64> {
    let mut counters = BTreeSet::new();
    for pid in pids {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).with_context(|| format!("process {pid} is gone"))?;
        let paths = maps.lines().filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])));
        let own: Vec<_> = paths.filter(|path| path.starts_with(folder)).map(Path::to_owned).collect();
        ensure!(!own.is_empty(), "process {pid} counts no copies: a static program takes no preloaded library");
        counters.extend(own);
    }
    counters.iter().map(|path| count(path)).sum()
}

fn count(file: &Path) -> Result<u64> {
    let bytes = fs::read(file).with_context(|| file.display().to_string())?;
    Ok(u64::from_ne_bytes(bytes.try_into().map_err(|_| anyhow!("{}: is not eight bytes", file.display()))?))
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or_default()
}
