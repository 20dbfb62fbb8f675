//! Scenario 5: a controller with a hundred thousand workloads and more, and 500 nodes' streams: what it weighs, what a changed endpoint costs, and what a
//! node weighs that knows so many. The cluster is simulated; the controller, its messages and a node's records are the product's. It must not plan or slice.

mod api;
mod controller;
mod streams;
mod world;

use crate::{
    figures::{Figures, HEDDLE, Sample},
    rival::INSTALLED,
    routes::percentile,
};
use anyhow::{Context, Result, bail, ensure};
use api::Api;
use mesh_wire::{
    proto::{Ack, ToController, to_controller::Message as Say},
    sender::Outgoing,
};
use prost::Message;
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{Semaphore, mpsc};
use world::{NODES, World, node_name};

/// The program that is a node; it lies beside this one, and has an allocator of its own as the product has.
const NODE: &str = "mesh-bench-node";

/// Sizes; the first is what everything else is compared with: a node that knows nothing to speak of.
const SIZES: [u32; 4] = [10, 1_000, 100_000, 1_000_000];
/// Those of a quick run.
const QUICK: [u32; 2] = [10, 100_000];
/// How many workloads a node talks to.
const TALKS: [(u32, &str); 3] =
    [(10, "node_mib_talking_to_10"), (1_000, "node_mib_talking_to_1000"), (100_000, "node_mib_talking_to_100000")];
/// Changed endpoints.
const CHANGES: u32 = 100;
/// Streams that are being opened at once; in a cluster, too, not all nodes come in the same millisecond.
const OPENING: usize = 50;
/// Between two changes, so that each is one.
const BETWEEN: Duration = Duration::from_millis(20);
/// A million workloads times 500 streams take a while.
const PATIENCE: Duration = Duration::from_secs(1_800);
/// After a burst of work, until memory is looked at: what is given back is given back by then.
const SETTLE: Duration = Duration::from_secs(2);

/// The processes that the simulation starts of this program.
#[derive(clap::Subcommand)]
pub enum Part {
    /// The controller.
    #[command(hide = true)]
    ScaleController,
}

impl Part {
    /// Is it, until told to end.
    pub fn run(&self) -> Result<()> {
        match self {
            Self::ScaleController => controller::run(),
        }
    }
}

/// All of it. One round: memory and bytes do not depend on the minute.
pub fn run(quick: bool, only: &str) -> Result<Figures> {
    let mut figures = Figures::default();
    let chosen = |n: u32| (!quick || QUICK.contains(&n)) && scenario(n).contains(only);
    if !SIZES.into_iter().any(chosen) {
        return Ok(figures);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut empty_node = None;
    for size in SIZES.into_iter().filter(|n| chosen(*n) || *n == SIZES[0]) {
        let world = World { workloads: size };
        match runtime.block_on(measure(world, empty_node, &mut figures)) {
            Ok(node) => {
                empty_node.get_or_insert(node);
            }
            Err(error) => figures.fail(format!("{}: {error:#}", scenario(size))),
        }
    }
    Ok(figures)
}

fn scenario(workloads: u32) -> String {
    format!("scale/{workloads}")
}

/// Measures one size; what the node weighs, in bytes.
async fn measure(world: World, empty_node: Option<u64>, figures: &mut Figures) -> Result<u64> {
    let mut add = |measure: &'static str, value: f64| {
        figures.add(Sample { scenario: scenario(world.workloads), proxy: HEDDLE, measure, value });
    };
    let dir = tempfile::tempdir()?;
    let api = Api::start(world).await?;
    let config = dir.path().join("kubeconfig");
    fs::write(&config, kubeconfig(&api).to_string())?;
    let mut controller =
        Simulated::start(std::env::current_exe()?, &["scale-controller"], |c| c.env("KUBECONFIG", &config))?;
    let planned = controller.line().await?;
    let address = planned["address"].as_str().context("the controller says its address")?.to_owned();
    tokio::time::sleep(SETTLE).await;
    let usage = controller.usage()?;
    add("plan_all_s", planned["seconds"].as_f64().context("seconds")?);
    add("plan_all_cpu_s", usage.cpu_s);
    add("controller_planned_mib", mib(usage.memory));
    add("controller_planned_peak_mib", mib(usage.peak));
    eprintln!("scale/{}: planned, {:.0} MiB", world.workloads, mib(usage.memory));

    let (heard, mut hearing) = mpsc::unbounded_channel();
    let began = Instant::now();
    let opening = Arc::new(Semaphore::new(OPENING));
    let follow = |n| tokio::spawn(follow(address.clone(), n, opening.clone(), heard.clone()));
    let streams: Vec<_> = (0..NODES).map(follow).collect();
    drop(heard);
    let mut bytes = 0;
    for _ in 0..NODES {
        bytes += wait(&mut hearing).await?.bytes;
    }
    let synced = began.elapsed().as_secs_f64();
    tokio::time::sleep(SETTLE).await;
    let after = controller.usage()?;
    add("sync_500_nodes_s", synced);
    add("sync_cpu_s", after.cpu_s - usage.cpu_s);
    add("sync_bytes_per_node", bytes as f64 / f64::from(NODES));
    add("controller_mib", mib(after.memory));
    add("controller_peak_mib", mib(after.peak));
    eprintln!("scale/{}: {NODES} nodes synchronised, {:.0} MiB", world.workloads, mib(after.memory));

    let (clocks, usage) = (controller.clocks().await?, controller.usage()?);
    let (mut first, mut last, mut sent) = (Vec::new(), Vec::new(), 0);
    for change in 0..CHANGES {
        // 7,919 is a prime; an even turn takes an endpoint away that the next, odd one brings back.
        let slice = (change / 2 * 7_919) % world.slices();
        let began = Instant::now();
        api.change_slice(slice, change % 2 == 1);
        for n in 0..NODES {
            let heard = wait(&mut hearing).await?;
            ensure!(heard.upserts == 1, "one changed endpoint is {} resources on a stream", heard.upserts);
            sent += heard.bytes;
            let millis = heard.at.saturating_duration_since(began).as_secs_f64() * 1e3;
            if n == 0 {
                first.push(millis);
            }
            if n + 1 == NODES {
                last.push(millis);
            }
        }
        tokio::time::sleep(BETWEEN).await;
    }
    let after = (controller.clocks().await?, controller.usage()?);
    let changes = f64::from(CHANGES);
    add("plan_us_per_change", (after.0.plan - clocks.plan) * 1e6 / changes);
    add("push_us_per_change", (after.0.push - clocks.push) * 1e6 / changes);
    add("controller_cpu_ms_per_change", (after.1.cpu_s - usage.cpu_s) * 1e3 / changes);
    add("bytes_per_change_and_node", sent as f64 / changes / f64::from(NODES));
    add("change_to_first_node_p50_ms", percentile(&first, 50.0));
    add("change_to_last_node_p50_ms", percentile(&last, 50.0));
    add("change_to_last_node_p99_ms", percentile(&last, 99.0));
    streams.iter().for_each(tokio::task::JoinHandle::abort);

    let name = format!("node/{}", node_name(0));
    let state = dir.path().to_string_lossy().into_owned();
    let mut node = Simulated::start(std::env::current_exe()?.with_file_name(NODE), &[&address, &name, &state], |c| c)?;
    let held = node.line().await?;
    tokio::time::sleep(SETTLE).await;
    let weighs = node.usage()?;
    add("node_resources", held["resources"].as_f64().context("resources")?);
    add("node_mib", mib(weighs.memory));
    add("node_peak_mib", mib(weighs.peak));
    add("node_cpu_s", weighs.cpu_s);
    if let Some(empty) = empty_node {
        let grown = weighs.memory.saturating_sub(empty) as f64;
        add("node_bytes_per_workload", grown / f64::from(world.workloads));
    }
    for (talks, measure) in TALKS.into_iter().filter(|(talks, _)| *talks <= world.workloads) {
        node.say(&talks.to_string())?;
        let talking = node.line().await?;
        ensure!(talking["talking"] == talks, "talks to {} of {talks}", talking["talking"]);
        add(measure, mib(node.usage()?.memory));
    }
    eprintln!("scale/{}: a node weighs {:.1} MiB", world.workloads, mib(weighs.memory));
    Ok(weighs.memory)
}

/// What came on a stream: the whole of the first synchronisation, or one change.
struct Heard {
    bytes: u64,
    upserts: usize,
    at: Instant,
}

async fn wait(hearing: &mut mpsc::UnboundedReceiver<Result<Heard>>) -> Result<Heard> {
    let heard = tokio::time::timeout(PATIENCE, hearing.recv()).await.context("a node heard nothing")?;
    heard.context("all streams ended")?
}

/// A node's stream, without a node: answers every delta, and says how many bytes came.
async fn follow(controller: String, node: u32, opening: Arc<Semaphore>, heard: mpsc::UnboundedSender<Result<Heard>>) {
    let name = format!("node/{}", node_name(node));
    let following = async {
        let turn = opening.acquire().await?;
        let (say, mut stream) = streams::open::<Outgoing>(&controller, &name).await?;
        drop(turn);
        let (mut bytes, mut synced) = (0, false);
        while let Some(message) = stream.message().await? {
            let at = Instant::now();
            bytes += message.encoded_len() as u64;
            let Some(delta) = message.delta else { continue };
            synced |= delta.synced;
            let ack = Ack { nonce: delta.nonce, errors: vec![] };
            say.send(ToController { message: Some(Say::Ack(ack)) }).await?;
            if synced
                && heard
                    .send(Ok(Heard { bytes: std::mem::take(&mut bytes), upserts: delta.upserts.len(), at }))
                    .is_err()
            {
                return Ok(());
            }
        }
        bail!("the controller ended the stream")
    };
    if let Err(e) = following.await {
        let _ = heard.send(Err(e.context(name)));
    }
}

fn kubeconfig(api: &Api) -> Value {
    serde_json::json!({"apiVersion": "v1", "kind": "Config", "current-context": "bench",
        "clusters": [{"name": "bench", "cluster": {"server": format!("http://{}", api.address)}}],
        "users": [{"name": "bench", "user": {}}],
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}]})
}

/// A process of the simulation.
struct Simulated {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
}

/// Sums of the controller's clocks, seconds.
struct Clocks {
    plan: f64,
    push: f64,
}

struct Usage {
    memory: u64,
    peak: u64,
    cpu_s: f64,
}

impl Simulated {
    fn start(program: PathBuf, args: &[&str], with: impl FnOnce(&mut Command) -> &mut Command) -> Result<Self> {
        let mut command = Command::new(&program);
        command.args(args).env(INSTALLED.0, INSTALLED.1).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = with(&mut command).spawn().with_context(|| program.display().to_string())?;
        let stdout = BufReader::new(child.stdout.take().context("standard output is piped")?);
        let (sender, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Ok(Self { child, lines })
    }

    async fn line(&mut self) -> Result<Value> {
        let line = tokio::time::timeout(PATIENCE, self.lines.recv()).await.context("a process says nothing")?;
        Ok(serde_json::from_str(&line.context("a process of the simulation ended; see above")?)?)
    }

    fn say(&mut self, line: &str) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("standard input is piped")?;
        Ok(writeln!(stdin, "{line}")?)
    }

    async fn clocks(&mut self) -> Result<Clocks> {
        self.say("clocks")?;
        let said = self.line().await?;
        let of = |name: &str| said[name].as_f64().with_context(|| format!("the controller has no clock {name}"));
        Ok(Clocks { plan: of("plan")?, push: of("push")? })
    }

    fn usage(&self) -> Result<Usage> {
        let proc = Path::new("/proc").join(self.child.id().to_string());
        let status = fs::read_to_string(proc.join("status"))?;
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).context(name.to_owned())
        };
        let mut nanos = 0;
        for task in fs::read_dir(proc.join("task"))? {
            // A thread may end between the listing and the reading.
            let Ok(stat) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            nanos += stat.split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or_default();
        }
        Ok(Usage { memory: kib("VmRSS:")? * 1024, peak: kib("VmHWM:")? * 1024, cpu_s: nanos as f64 / 1e9 })
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}
