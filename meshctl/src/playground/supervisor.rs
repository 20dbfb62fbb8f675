//! Pid 1 of a playground: lays the wires, starts the mesh's programs, watches the folder, answers the control socket. It owns every task and process inside.

use super::{
    Options, access,
    addresses::{Node, SUPERVISOR},
    agents::{self, Sockets},
    cluster::{Cluster, Held},
    control::Ask,
    dns, fabric,
    gateways::{Gateways, Link},
    kubelet::Machine,
    link,
    live::Live,
    netns::Netns,
    programs::{Program, Programs},
    report::{Problem, Report},
    request::{self, Outcome},
    runtime_dir::RuntimeDir,
};
use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use nix::sys::signal::{Signal, killpg};
use notify::{RecursiveMode, Watcher};
use serde::Serialize;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr},
    os::{
        fd::OwnedFd,
        unix::{net::UnixListener, net::UnixStream},
    },
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::{mpsc, oneshot, watch};

/// An editor writes a file in several steps; they are read together. Far below the 100 ms that an edit may take.
const SETTLE: Duration = Duration::from_millis(10);

/// The controller writes its root certificate when it starts; proxies wait for it.
const CONTROLLER_START: Duration = Duration::from_secs(15);

/// How often `Ready` looks at what has no event of its own: listeners and the controller's status.
const POLL: Duration = Duration::from_millis(20);

const CONTROLLER_PORT: u16 = 15010;
const CONTROLLER_ADMIN: u16 = 15014;
const PROXY_ADMIN: u16 = 15021;

/// Paths in the playground's own memory file system.
#[derive(Clone, Debug)]
pub struct Paths {
    state: PathBuf,
    /// Logs of programs and containers.
    pub logs: PathBuf,
}

impl Paths {
    fn at(&self, name: &str) -> PathBuf {
        self.state.join(name)
    }

    fn make(options: &Options) -> Result<Self> {
        let state = RuntimeDir::at(&options.runtime).state();
        let logs = options.logs.clone().unwrap_or_else(|| state.join("logs"));
        for dir in ["netns", "pods", "cni/bin", "live", "run", "run/controller", "ipam", "access", "proxy"] {
            fs::create_dir_all(state.join(dir))?;
        }
        fs::create_dir_all(&logs).with_context(|| format!("{}", logs.display()))?;
        let netns = state.join("netns");
        // A mount of its own, so that a pod can drop all of it at once.
        nix::mount::mount(Some("heddle"), &netns, Some("tmpfs"), nix::mount::MsFlags::empty(), None::<&str>)?;
        Ok(Self { state, logs })
    }
}

/// What the main task is asked.
enum Order {
    Find(String, oneshot::Sender<Option<(Arc<Machine>, Arc<Pod>)>>),
    Listeners(oneshot::Sender<Vec<(String, SocketAddr)>>),
}

/// What connections of the control socket need.
#[derive(Clone)]
struct Desk {
    options: Options,
    paths: Paths,
    orders: mpsc::UnboundedSender<Order>,
    report: watch::Receiver<Arc<Report>>,
    zone: watch::Receiver<Arc<dns::Zone>>,
    programs: Arc<Programs>,
    runtime: tokio::runtime::Handle,
}

/// Runs the playground until it is told to end.
pub fn run(options: Options, link: UnixStream) -> Result<()> {
    let log = tracing_subscriber_init(&options)?;
    tracing::info!(?log, "playground");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve(options, link))
}

/// Our own log goes where the others' go.
fn tracing_subscriber_init(options: &Options) -> Result<PathBuf> {
    let paths = Paths::make(options)?;
    let path = paths.logs.join("playground.log");
    let file = fs::OpenOptions::new().append(true).create(true).open(&path)?;
    tracing_subscriber::fmt().with_ansi(false).with_writer(Mutex::new(file)).init();
    Ok(path)
}

async fn serve(options: Options, link: UnixStream) -> Result<()> {
    let state = RuntimeDir::at(&options.runtime).state();
    let logs = options.logs.clone().unwrap_or_else(|| state.join("logs"));
    let paths = Paths { state, logs };
    let programs = Arc::new(Programs::new(options.meshctl.clone(), paths.logs.clone()));
    let nodes: Vec<Node> = (1..=options.nodes).map(Node::new).collect();

    fabric::lay_bridge()?;
    let (zone_out, zone) = watch::channel(Arc::default());
    let (report_out, report) = watch::channel(Arc::default());
    let dns_zone = zone.clone();
    tokio::spawn(async move {
        if let Err(error) = dns::serve(SocketAddr::from((SUPERVISOR, 53)), dns_zone).await {
            tracing::error!(%error, "DNS ended");
        }
    });
    let mut machines = Vec::new();
    for node in &nodes {
        let netns = fabric::lay_node(node, &nodes, &paths.at("netns"))?;
        machines.push((node.clone(), netns.clone(), Arc::new(machine(&options, &paths, node, netns)?)));
    }

    let (events, mut from_pods) = mpsc::unbounded_channel();
    let tokens = Arc::new(Mutex::new(BTreeMap::new()));
    let gateway_program = {
        let (options, paths, tokens) = (options.clone(), paths.clone(), Arc::clone(&tokens));
        move |name: &str, netns: &Netns| {
            if !options.mesh {
                return Ok(None);
            }
            proxy(&options, &paths, &tokens, &format!("gateway/{name}"), netns, None, None).map(Some)
        }
    };
    let mut cluster = Cluster {
        live: Live::create(paths.at("live"))?,
        gateways: Gateways {
            netns_dir: paths.at("netns"),
            nodes: nodes.clone(),
            programs: Arc::clone(&programs),
            link: Link::new(Mutex::new(link)),
            running: BTreeMap::new(),
        },
        gateway_program: Box::new(gateway_program),
        nodes: machines.clone(),
        events,
        zone: zone_out,
        report: report_out,
        held: Held::default(),
        options: options.clone(),
    };

    let (changed, mut changes) = mpsc::unbounded_channel();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading is an event too, and would answer itself.
        if !event.is_ok_and(|e| matches!(e.kind, notify::EventKind::Access(_))) {
            let _ = changed.send(());
        }
    })?;
    watcher
        .watch(&options.dir, RecursiveMode::Recursive)
        .with_context(|| format!("cannot watch {}", options.dir.display()))?;

    if options.mesh {
        start_mesh(&options, &paths, &programs, &tokens, &machines).await?;
    }
    cluster.read_folder()?;

    let (orders_in, mut orders) = mpsc::unbounded_channel();
    let desk = Desk {
        options: options.clone(),
        paths: paths.clone(),
        orders: orders_in,
        report,
        zone,
        programs,
        runtime: tokio::runtime::Handle::current(),
    };
    let socket =
        UnixListener::bind(RuntimeDir::at(&options.runtime).socket()).context("cannot open the control socket")?;
    std::thread::Builder::new().name("control".into()).spawn(move || {
        for stream in socket.incoming().flatten() {
            let desk = desk.clone();
            let served = std::thread::Builder::new().name("control-one".into()).spawn(move || {
                if let Err(error) = desk.serve(stream) {
                    tracing::debug!("control: {error:#}");
                }
            });
            if let Err(error) = served {
                tracing::warn!(%error, "control: no thread");
            }
        }
    })?;

    loop {
        let outcome = tokio::select! {
            Some(event) = from_pods.recv() => cluster.note(event),
            Some(()) = changes.recv() => {
                tokio::time::sleep(SETTLE).await;
                while changes.try_recv().is_ok() {}
                cluster.read_folder()
            }
            Some(order) = orders.recv() => {
                match order {
                    // Who asked may be gone.
                    Order::Find(name, to) => drop(to.send(cluster.find(&name))),
                    Order::Listeners(to) => drop(to.send(cluster.gateways.listeners())),
                }
                Ok(())
            }
        };
        if let Err(error) = outcome {
            tracing::error!("{error:#}");
        }
    }
}

/// A node's kubelet: its runtime and directories.
fn machine(options: &Options, paths: &Paths, node: &Node, netns: Netns) -> Result<Machine> {
    Ok(Machine {
        options: options.clone(),
        node: node.name.clone(),
        runtime: agents::runtime(options, &paths.state, node, netns)?,
        netns_dir: paths.at("netns"),
        pods_dir: paths.at("pods"),
        logs: paths.logs.clone(),
        dns: IpAddr::V4(SUPERVISOR),
    })
}

fn sibling(options: &Options, name: &str) -> PathBuf {
    options.meshctl.parent().unwrap_or(Path::new(".")).join(name)
}

type Tokens = Arc<Mutex<BTreeMap<String, String>>>;

/// The command line of a proxy; its token is made and told to the controller.
fn proxy(
    options: &Options,
    paths: &Paths,
    tokens: &Tokens,
    name: &str,
    netns: &Netns,
    sockets: Option<Sockets>,
    address: Option<IpAddr>,
) -> Result<Program> {
    let label = name.replace('/', "_");
    let token = format!("{:016x}{:016x}", request::random(), request::random());
    let token_file = paths.at("run").join(format!("{label}.token"));
    fs::write(&token_file, &token)?;
    {
        let mut tokens = tokens.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        tokens.insert(name.to_owned(), token);
        let lines: String = tokens.iter().map(|(name, token)| format!("{token} {name}\n")).collect();
        let unfinished = paths.at("run/.tokens");
        fs::write(&unfinished, lines)?;
        fs::rename(unfinished, paths.at("run/tokens"))?;
    }
    let state_dir = paths.at("proxy").join(&label);
    fs::create_dir_all(&state_dir)?;
    let mut argv = vec![
        sibling(options, "mesh-proxy").display().to_string(),
        "--name".into(),
        name.into(),
        "--controller".into(),
        format!("https://{SUPERVISOR}:{CONTROLLER_PORT}"),
        "--controller-ca".into(),
        paths.at("run/controller/ca.crt").display().to_string(),
        "--token-file".into(),
        token_file.display().to_string(),
        "--state-dir".into(),
        state_dir.display().to_string(),
        "--admin".into(),
        format!("0.0.0.0:{PROXY_ADMIN}"),
        "--access-log".into(),
        paths.at("access").join(format!("{label}.log")).display().to_string(),
    ];
    if let Some(sockets) = sockets {
        let paths =
            [("--cni-socket", sockets.cni), ("--holder-socket", sockets.holder), ("--netns-dir", paths.at("netns"))];
        argv.extend(paths.into_iter().flat_map(|(flag, path)| [flag.to_owned(), path.display().to_string()]));
    }
    if let Some(address) = address {
        argv.extend(["--address".into(), address.to_string()]);
    }
    Ok(Program { name: name.to_owned(), argv, netns: Some(netns.path().to_owned()) })
}

/// Starts the node agents and the controller, waits until they have done what others need, starts the node proxies.
async fn start_mesh(
    options: &Options,
    paths: &Paths,
    programs: &Programs,
    tokens: &Tokens,
    machines: &[(Node, Netns, Arc<Machine>)],
) -> Result<()> {
    let proxies: Vec<Program> = machines
        .iter()
        .map(|(node, netns, _)| {
            let name = format!("node/{}", node.name);
            proxy(
                options,
                paths,
                tokens,
                &name,
                netns,
                Some(Sockets::of(&paths.state, &node.name)),
                Some(node.v4().into()),
            )
        })
        .collect::<Result<_>>()?;
    for (node, _, machine) in machines {
        programs.start(agents::program(&sibling(options, "mesh-cni"), &paths.state, &node.name, &machine.runtime))?;
    }
    let argv = [
        sibling(options, "mesh-controller").display().to_string(),
        "--folder".into(),
        options.dir.display().to_string(),
        "--folder".into(),
        paths.at("live").display().to_string(),
        "--state".into(),
        paths.at("run/controller").display().to_string(),
        "--listen".into(),
        format!("{SUPERVISOR}:{CONTROLLER_PORT}"),
        "--admin".into(),
        format!("{SUPERVISOR}:{CONTROLLER_ADMIN}"),
        "--tokens".into(),
        paths.at("run/tokens").display().to_string(),
        "--status-file".into(),
        paths.at("run/status.json").display().to_string(),
    ];
    programs.start(Program { name: "controller".into(), argv: argv.into(), netns: None })?;
    let root = paths.at("run/controller/ca.crt");
    let waited = tokio::time::timeout(CONTROLLER_START, async {
        while !root.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    if waited.await.is_err() {
        let log = tail(&paths.logs.join("controller.log"), 20);
        anyhow::bail!("mesh-controller did not start within {CONTROLLER_START:?}:\n{log}");
    }
    for (node, _, machine) in machines {
        agents::settled(&paths.state, &node.name, &machine.runtime).await?;
    }
    proxies.into_iter().try_for_each(|p| programs.start(p))
}

fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

impl Desk {
    /// Serves one connection: one question.
    fn serve(&self, stream: UnixStream) -> Result<()> {
        let Some((ask, fds)) = link::receive::<Ask>(&stream)? else { return Ok(()) };
        match ask {
            Ask::Status => reply(&stream, Ok::<_, String>(self.status())),
            Ask::Ready(millis) => {
                let report = self.runtime.block_on(self.ready(Duration::from_millis(millis)));
                reply(&stream, Ok::<_, String>(report))
            }
            Ask::Exec { pod, argv } => {
                let code = self.exec(&stream, &pod, &argv, fds);
                reply(&stream, code)
            }
            Ask::Request { pod, request } => reply(&stream, self.request(&pod, *request)),
            Ask::AccessLog => reply(&stream, access::read(&self.paths.at("access")).map_err(|e| format!("{e:#}"))),
            Ask::Log { name, lines } => {
                let path = self.paths.logs.join(format!("{}.log", name.replace('/', "_")));
                reply(&stream, Ok::<_, String>(tail(&path, lines)))
            }
            Ask::Program { name, order } if order == "replace" => {
                reply(&stream, self.runtime.block_on(self.programs.replace(&name)).map_err(|e| format!("{e:#}")))
            }
            Ask::Program { name, order } => reply(&stream, self.programs.order(&name, &order)),
            Ask::Programs => reply(&stream, Ok::<_, String>(self.programs.running())),
            // The kernel ends all the rest with us.
            Ask::Down => std::process::exit(0),
        }
    }

    /// The report with what the controller says.
    fn status(&self) -> Report {
        let mut report = Report::clone(&self.report.borrow());
        let told: Value = fs::read_to_string(self.paths.at("run/status.json"))
            .ok()
            .and_then(|t| serde_json::from_str(&t).ok())
            .unwrap_or_default();
        report.objects = told["objects"].as_array().cloned().unwrap_or_default();
        let mut problems: Vec<Problem> = serde_json::from_value(told["problems"].clone()).unwrap_or_default();
        problems.retain(|p| !p.object.starts_with(super::folder::SCENARIO));
        // What we copied into the live folder is wrong as the user's original is; that one is told.
        let live = self.paths.at("live").display().to_string();
        let (copied, mut problems): (Vec<_>, Vec<_>) = problems.into_iter().partition(|p| p.file.starts_with(&live));
        problems.extend(copied);
        report.problems = Report::merge_problems(problems, report.problems);
        report
    }

    async fn ready(&self, limit: Duration) -> Report {
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            let mut report = self.status();
            if report.ready && self.options.mesh {
                report.waiting_for = self.silent_listeners().await;
                report.ready = report.waiting_for.is_empty();
            }
            if report.ready || tokio::time::Instant::now() > deadline {
                return report;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Listeners of Gateways that do not accept yet.
    async fn silent_listeners(&self) -> Vec<String> {
        let (to, from) = oneshot::channel();
        let _ = self.orders.send(Order::Listeners(to));
        let mut silent = Vec::new();
        for (name, address) in from.await.unwrap_or_default() {
            if tokio::net::TcpStream::connect(address).await.is_err() {
                silent.push(format!("Gateway {name}, listener on {address}"));
            }
        }
        silent
    }

    fn find(&self, pod: &str) -> Result<(Arc<Machine>, Arc<Pod>), String> {
        let name = if pod.contains('/') { pod.to_owned() } else { format!("default/{pod}") };
        let (to, from) = oneshot::channel();
        let _ = self.orders.send(Order::Find(name, to));
        let found = from.blocking_recv().ok().flatten();
        found.ok_or_else(|| format!("no pod {pod} (NAMESPACE/NAME of a pod or of its Deployment)"))
    }

    fn exec(&self, stream: &UnixStream, pod: &str, argv: &[String], fds: Vec<OwnedFd>) -> Result<i32, String> {
        let (machine, pod) = self.find(pod)?;
        let [stdin, stdout, stderr]: [OwnedFd; 3] =
            fds.try_into().map_err(|_| "exec needs three descriptors".to_owned())?;
        let run = || -> Result<i32> {
            let netns = machine.enter(&pod, None).netns;
            let mut command = machine.enter(&pod, None).command(&self.options.meshctl, argv)?;
            let mut child =
                command.stdin(Stdio::from(stdin)).stdout(Stdio::from(stdout)).stderr(Stdio::from(stderr)).spawn()?;
            let group = nix::unistd::Pid::from_raw(i32::try_from(child.id())?);
            stream.set_nonblocking(true)?;
            let status = loop {
                if let Some(status) = child.try_wait()? {
                    break status;
                }
                // The client closes when it is interrupted, and a pod can go away; what was started ends with either.
                let interrupted = matches!(std::io::Read::read(&mut &*stream, &mut [0]), Ok(0));
                if interrupted || !netns.exists() {
                    let _ = killpg(group, Signal::SIGKILL);
                }
                std::thread::sleep(Duration::from_millis(5));
            };
            stream.set_nonblocking(false)?;
            Ok(status.code().unwrap_or(137))
        };
        run().map_err(|e| format!("{e:#}"))
    }

    fn request(&self, pod: &str, request: request::Request) -> Result<Vec<Outcome>, String> {
        let (machine, pod) = self.find(pod)?;
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let addresses = Arc::clone(&self.zone.borrow()).resolve(&namespace, &request.host);
        let Some(address) = addresses.first() else {
            return Err(format!("{} does not resolve in namespace {namespace}", request.host));
        };
        let from = request::From::Netns(machine.enter(&pod, None).netns);
        Ok(self.runtime.block_on(request::perform(&request, &from, SocketAddr::new(*address, request.port))))
    }
}

fn reply<T: Serialize, E: std::fmt::Display>(stream: &UnixStream, answer: Result<T, E>) -> Result<()> {
    link::send(stream, &answer.map_err(|e| e.to_string()), &[])
}
