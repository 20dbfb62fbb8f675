//! The command line of `meshctl`. It must not do the work; the library does.

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use meshctl::{
    cluster::{self, Access},
    echo,
    playground::{
        Options,
        control::Client,
        enter::Enter,
        host::{self, Playground},
        plugin,
        runtime_dir::RuntimeDir,
        scenario, stage,
    },
};
use nix::sys::signal::{SigSet, Signal};
use std::{
    io::IsTerminal,
    os::fd::AsFd,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

/// Pods and their processes start within a few seconds; an application of the user's may take its time.
const READY: Duration = Duration::from_secs(60);

/// A service mesh for Kubernetes without sidecars.
#[derive(Parser)]
#[command(name = "meshctl", version)]
struct Cli {
    #[command(subcommand)]
    command: Top,
}

#[derive(Subcommand)]
enum Top {
    /// The whole mesh on one machine, without Kubernetes, for a folder of YAML.
    #[command(subcommand)]
    Playground(Play),
    /// Installs Heddle on a cluster; run again, it changes what is chosen otherwise.
    Install {
        #[command(flatten)]
        target: cluster::Target,
        #[command(flatten)]
        choice: cluster::Choice,
    },
    /// Replaces an installation by this version, one part after the other; no request fails.
    Upgrade {
        #[command(flatten)]
        target: cluster::Target,
        #[command(flatten)]
        choice: cluster::Choice,
    },
    /// Takes all pods out of the mesh, cleans the nodes and removes Heddle from a cluster.
    Uninstall {
        #[command(flatten)]
        target: cluster::Target,
        #[command(flatten)]
        removal: cluster::Removal,
    },
    /// Shows and replaces the root that vouches for every identity of a cluster's mesh.
    Ca {
        #[command(flatten)]
        target: cluster::Target,
        #[command(subcommand)]
        what: cluster::Ca,
    },
    /// Says what is wrong with a cluster or an installation and what to do; sends traffic in a namespace of its own.
    Check {
        #[command(flatten)]
        target: cluster::Target,
        /// Look only at what an installation needs, or only at what is installed.
        #[arg(value_enum)]
        when: Option<cluster::When>,
        /// Without the connectivity and bypass test, which makes a namespace heddle-check-… and removes it.
        #[arg(long)]
        no_traffic: bool,
    },
    /// Runs what the image heddle.dev/echo runs.
    #[command(hide = true)]
    EchoServer(echo::Settings),
    /// Asks URLs and says how often an answer came.
    #[command(hide = true)]
    EchoClient(echo::client::Settings),
    #[command(hide = true)]
    PlaygroundStage { options: String },
    #[command(hide = true)]
    PlaygroundSupervise { options: String },
    #[command(hide = true)]
    PlaygroundEnter {
        enter: String,
        #[arg(last = true)]
        argv: Vec<String>,
    },
}

#[derive(Subcommand)]
enum Play {
    /// Starts it and keeps it running until Ctrl-C; edits of the folder become live as they are saved.
    Up {
        #[command(flatten)]
        common: Common,
        /// Return when it is ready; `down` ends it.
        #[arg(long, short)]
        detach: bool,
    },
    /// Starts it, performs the example's requests, checks them, ends it. Exit code 0 if all is as expected.
    Run(Common),
    /// Runs a command in a pod, for instance `exec examples/shop shop/frontend -- curl http://cart`.
    Exec {
        /// The folder.
        dir: PathBuf,
        /// NAMESPACE/NAME of a pod, or of a Deployment for one of its pods.
        pod: String,
        /// The command.
        #[arg(last = true, required = true)]
        argv: Vec<String>,
    },
    /// Shows pods, Services, Gateways, conditions and problems.
    Status {
        /// The folder.
        dir: PathBuf,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Shows the end of a log: `controller`, `node/n1`, `gateway/NS/NAME`, `playground`, or NAMESPACE_POD_CONTAINER.
    Logs {
        /// The folder.
        dir: PathBuf,
        /// Which.
        name: String,
        /// Lines.
        #[arg(long, default_value_t = 50)]
        lines: usize,
    },
    /// Ends it.
    Down {
        /// The folder.
        dir: PathBuf,
    },
}

#[derive(Args, Clone)]
struct Common {
    /// The folder.
    dir: PathBuf,
    /// Virtual nodes.
    #[arg(long, default_value_t = 2, env = "HEDDLE_PLAYGROUND_NODES", value_parser = clap::value_parser!(u8).range(1..=50))]
    nodes: u8,
    /// Keep logs in this folder.
    #[arg(long, env = "HEDDLE_PLAYGROUND_LOGS")]
    logs: Option<PathBuf>,
    /// Without controller and proxies: a cluster without a mesh.
    #[arg(long)]
    no_mesh: bool,
}

fn main() -> ExitCode {
    // A CNI runtime finds the plugin under its type's name.
    let called = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    if called.file_name().is_some_and(|n| n == plugin::TYPE) {
        return ExitCode::from(plugin::main());
    }
    match run(Cli::parse().command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("meshctl: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn run(command: Top) -> Result<u8> {
    match command {
        Top::Playground(play) => playground(play),
        Top::EchoServer(settings) => on_a_thread(echo::serve(settings)),
        Top::EchoClient(settings) => on_a_thread(echo::client::run(settings)),
        Top::Install { target, choice } => {
            on_a_thread(async { cluster::install(&Access::to(&target).await?, &choice).await })
        }
        Top::Upgrade { target, choice } => {
            on_a_thread(async { cluster::upgrade(&Access::to(&target).await?, &choice).await })
        }
        Top::Uninstall { target, removal } => {
            on_a_thread(async { cluster::uninstall(&Access::to(&target).await?, &removal).await })
        }
        Top::Ca { target, what } => on_a_thread(async { cluster::ca(&Access::to(&target).await?, &what).await }),
        Top::Check { target, when, no_traffic } => {
            on_a_thread(async { cluster::check(&Access::to(&target).await?, when, !no_traffic).await })
        }
        Top::PlaygroundStage { options } => stage::stage(&serde_json::from_str(&options)?),
        Top::PlaygroundSupervise { options } => stage::supervise(serde_json::from_str(&options)?).map(|()| 0),
        Top::PlaygroundEnter { enter, argv } => {
            let enter: Enter = serde_json::from_str(&enter)?;
            match enter.become_program(&argv)? {}
        }
    }
}

fn on_a_thread(work: impl Future<Output = Result<()>>) -> Result<u8> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)?;
    Ok(0)
}

fn playground(play: Play) -> Result<u8> {
    match play {
        Play::Up { common, detach: true } => detach(&common),
        Play::Up { common, detach: false } => up(&common),
        Play::Run(common) => run_example(&common),
        Play::Exec { dir, pod, argv } => {
            let stdio = (std::io::stdin(), std::io::stdout(), std::io::stderr());
            let code = client(&dir)?.exec(&pod, &argv, [stdio.0.as_fd(), stdio.1.as_fd(), stdio.2.as_fd()])?;
            Ok(u8::try_from(code).unwrap_or(1))
        }
        Play::Status { dir, json } => {
            let report = client(&dir)?.status()?;
            if json {
                println!("{}", serde_json::to_string_pretty(&report)?);
            } else {
                print!("{}", report.text());
            }
            Ok(0)
        }
        Play::Logs { dir, name, lines } => {
            println!("{}", client(&dir)?.log(&name, lines)?);
            Ok(0)
        }
        Play::Down { dir } => {
            client(&dir)?.down()?;
            Ok(0)
        }
    }
}

fn client(dir: &Path) -> Result<Client> {
    Client::connect(&RuntimeDir::of(&host::folder(dir)?))
}

fn options(common: &Common) -> Result<Options> {
    let logs = match &common.logs {
        None => None,
        Some(dir) => {
            std::fs::create_dir_all(dir).with_context(|| format!("{}", dir.display()))?;
            Some(dir.canonicalize()?)
        }
    };
    Ok(Options { nodes: common.nodes, mesh: !common.no_mesh, logs, ..host::options(&common.dir)? })
}

fn up(common: &Common) -> Result<u8> {
    let signals = blocked_signals()?;
    let started = Instant::now();
    let mut playground = Playground::start(options(common)?)?;
    match playground.wait_ready(READY) {
        Ok(report) => {
            print!("{}", report.text());
            println!("ready after {:.1} s; Ctrl-C ends it", started.elapsed().as_secs_f32());
        }
        // Something of the user's may be broken; mending it in the folder helps.
        Err(error) => println!("{error:#}"),
    }
    let mut problems = Vec::new();
    while playground.is_up() {
        if interrupted(&signals, Duration::from_millis(200))? {
            break;
        }
        let Ok(report) = playground.client().and_then(|c| c.status()) else { continue };
        for problem in report.problems.iter().filter(|p| !problems.contains(*p)) {
            println!("problem: {problem}");
        }
        problems = report.problems;
    }
    Ok(0)
}

fn detach(common: &Common) -> Result<u8> {
    let dir = host::folder(&common.dir)?;
    let missing = host::missing(&options(common)?);
    if !missing.is_empty() {
        bail!("{}", missing.join("\n"));
    }
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["playground", "up", "--nodes", &common.nodes.to_string()]).arg(&dir);
    if common.no_mesh {
        command.arg("--no-mesh");
    }
    if let Some(logs) = &common.logs {
        command.arg("--logs").arg(logs);
    }
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).process_group(0).spawn()?;
    let runtime = RuntimeDir::of(&dir);
    let client = loop {
        if let Ok(client) = Client::connect(&runtime) {
            break client;
        }
        if let Some(status) = child.try_wait()? {
            bail!("the playground did not start: {status}");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    print!("{}", client.wait_ready(READY)?.text());
    Ok(0)
}

fn run_example(common: &Common) -> Result<u8> {
    let signals = blocked_signals()?;
    // What cannot be read is told before anything is started.
    scenario::read(&common.dir)?;
    let started = Instant::now();
    let playground = Playground::start(options(common)?)?;
    let client = playground.client()?;
    let dir = playground.dir().to_owned();
    let (done, finished) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let work = || -> Result<bool> {
            let report = client.wait_ready(READY)?;
            println!("ready after {:.1} s", started.elapsed().as_secs_f32());
            for gateway in &report.gateways {
                for (port, address) in &gateway.ports {
                    println!("Gateway {} port {port} is at {address} on this machine", gateway.name);
                }
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            scenario::run(&dir, &client, &report, &runtime)
        };
        // Nobody waits any more after Ctrl-C.
        let _ = done.send(work());
    });
    loop {
        match finished.recv_timeout(Duration::from_millis(20)) {
            Ok(good) => return Ok(u8::from(!good?)),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => bail!("the run ended without a result"),
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) if interrupted(&signals, Duration::ZERO)? => {
                bail!("interrupted")
            }
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
        }
    }
}

/// Ctrl-C and its like are waited for, so that the playground is ended before we end.
fn blocked_signals() -> Result<SigSet> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    if std::io::stdout().is_terminal() {
        signals.add(Signal::SIGHUP);
    }
    signals.thread_block()?;
    Ok(signals)
}

fn interrupted(signals: &SigSet, limit: Duration) -> Result<bool> {
    use nix::sys::signalfd::{SfdFlags, SignalFd};
    let fd = SignalFd::with_flags(signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    let deadline = Instant::now() + limit;
    loop {
        if fd.read_signal()?.is_some() {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
