//! The outer process: it stays in the host's network, starts the stage, and opens the sockets on 127.0.0.1 that the supervisor asks for. It must not do anything
//! else to the host.

use super::{
    Options,
    control::{Bind, Client},
    link, netns,
    report::Report,
    runtime_dir::RuntimeDir,
};
use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::File,
    net::{Ipv4Addr, TcpListener},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Child, Command},
    time::{Duration, Instant},
};

/// The control socket appears when namespaces and bridge stand; that takes a fraction of a second.
const START: Duration = Duration::from_secs(20);

/// A listener's port below 1024 is found on the host at this much more: 80 at 8080, 443 at 8443.
const PRIVILEGED_OFFSET: u16 = 8000;

/// A playground that runs; dropping it ends it.
#[derive(Debug)]
pub struct Playground {
    options: Options,
    runtime: RuntimeDir,
    stage: Child,
    _lock: File,
}

/// The programs of the mesh, next to `meshctl`.
pub const PROGRAMS: [&str; 3] = ["mesh-controller", "mesh-proxy", "mesh-cni"];

/// Everything that is missing on this machine, each in a line.
pub fn missing(options: &Options) -> Vec<String> {
    let path = netns::tool_path();
    let found = |name: &str| std::env::split_paths(&path).any(|dir| dir.join(name).is_file());
    let tools = [("ip", "iproute2"), ("nft", "nftables")];
    let mut lines: Vec<String> = tools
        .into_iter()
        .filter(|(program, _)| !found(program))
        .map(|(program, package)| format!("{program} is missing: install {package}"))
        .collect();
    if options.mesh {
        let next_to_us = options.meshctl.parent().unwrap_or(Path::new("."));
        for program in PROGRAMS.iter().filter(|p| !next_to_us.join(p).is_file()) {
            lines
                .push(format!("{program} is missing next to {}: build the whole workspace", options.meshctl.display()));
        }
    }
    if !options.dir.is_dir() {
        lines.push(format!("{} is no folder", options.dir.display()));
    }
    lines
}

/// The options for a folder, with the programs next to this one.
pub fn options(dir: &Path) -> Result<Options> {
    let dir = dir.canonicalize().with_context(|| format!("{}", dir.display()))?;
    let runtime = RuntimeDir::of(&dir).path().to_owned();
    Ok(Options { dir, runtime, nodes: 2, mesh: true, meshctl: std::env::current_exe()?, logs: None })
}

impl Playground {
    /// Starts a playground; returns when it can be spoken to. Call from a thread that lives as long as the playground: the kernel ties the stage's life to it.
    pub fn start(options: Options) -> Result<Self> {
        let missing = missing(&options);
        if !missing.is_empty() {
            bail!("{}", missing.join("\n"));
        }
        let runtime = RuntimeDir::at(&options.runtime);
        let lock = runtime.claim()?;
        let (ours, theirs) = UnixStream::pair()?;
        let stage = Command::new(&options.meshctl)
            .arg("playground-stage")
            .arg(serde_json::to_string(&options)?)
            .stdin(OwnedFd::from(theirs))
            .spawn();
        let stage = stage.inspect_err(|_| runtime.remove()).context("cannot start the stage")?;
        std::thread::Builder::new().name("host-sockets".into()).spawn(move || serve_sockets(&ours))?;
        let mut started = Self { options, runtime, stage, _lock: lock };
        started.wait_for_socket()?;
        Ok(started)
    }

    /// Speaks to it.
    pub fn client(&self) -> Result<Client> {
        Client::connect(&self.runtime)
    }

    /// Waits until everything that the folder asks for runs, or fails with what is missing.
    pub fn wait_ready(&self, limit: Duration) -> Result<Report> {
        self.client()?.wait_ready(limit)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.options.dir
    }

    /// Directory on the host.
    pub fn runtime(&self) -> &RuntimeDir {
        &self.runtime
    }

    /// Pid of the stage.
    pub fn stage_pid(&self) -> u32 {
        self.stage.id()
    }

    /// Whether it still runs.
    pub fn is_up(&mut self) -> bool {
        matches!(self.stage.try_wait(), Ok(None))
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> Result<()> {
        self.stage.wait()?;
        Ok(())
    }

    fn wait_for_socket(&mut self) -> Result<()> {
        let deadline = Instant::now() + START;
        while Instant::now() < deadline {
            if UnixStream::connect(self.runtime.socket()).is_ok() {
                return Ok(());
            }
            if let Some(status) = self.stage.try_wait()? {
                bail!("the playground did not start ({status}); its reason is above");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("the playground did not start within {START:?}")
    }
}

impl Drop for Playground {
    fn drop(&mut self) {
        if self.is_up() {
            // The stage kills the supervisor, and with it the kernel ends everything inside.
            if let Ok(pid) = i32::try_from(self.stage.id()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            }
            let _ = self.stage.wait();
        }
        self.runtime.remove();
    }
}

/// Binds what the supervisor asks for and hands the listening socket in, until it is gone.
fn serve_sockets(link: &UnixStream) {
    while let Ok(Some((Bind { port }, _))) = link::receive::<Bind>(link) {
        let sent = match bind(port) {
            Ok((address, listener)) => link::send(link, &Ok::<_, String>(address), &[listener.as_fd()]),
            Err(error) => link::send(link, &Err::<String, _>(format!("{error:#}")), &[]),
        };
        if sent.is_err() {
            return;
        }
    }
}

/// The port itself if anyone may bind it, else a fixed one that resembles it, else any.
fn bind(port: u16) -> Result<(String, TcpListener)> {
    let similar = if port < 1024 { port + PRIVILEGED_OFFSET } else { port };
    let listener = [similar, 0]
        .into_iter()
        .find_map(|p| TcpListener::bind((Ipv4Addr::LOCALHOST, p)).ok())
        .with_context(|| format!("no port free on 127.0.0.1 for a listener on {port}"))?;
    Ok((listener.local_addr()?.to_string(), listener))
}

/// The folder's absolute path, for finding a playground that runs.
pub fn folder(dir: &Path) -> Result<PathBuf> {
    dir.canonicalize().with_context(|| format!("{}", dir.display()))
}
