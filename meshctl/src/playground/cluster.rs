//! The cluster of the playground: scheduler, controllers and allocators in one task that owns all of it. Each event changes what is wanted or what is, and `reconcile`
//! makes the rest follow. It must not run pods itself; `kubelet` does.

use super::{
    Options,
    addresses::{ClusterIps, Node, stable_hash},
    deployment::{self, Member},
    dns::Zone,
    endpoints::{self, Placed},
    folder::{Folder, Key, Object},
    gateways::{self, Gateways},
    kubelet::{self, Event, Machine, PodState},
    live::Live,
    netns::Netns,
    programs::Program,
    report::{PodReport, Problem, Report, ServiceReport},
    request,
    services::{self, Frontend, Protocol},
};
use anyhow::{Context, Result};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{Pod, Service},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// How a Gateway's proxy is started; none where there is no mesh.
pub type GatewayProgram = Box<dyn Fn(&str, &Netns) -> Result<Option<Program>> + Send>;

/// All that the cluster holds.
pub struct Cluster {
    /// Options of the playground.
    pub options: Options,
    /// The nodes with their namespaces and kubelets.
    pub nodes: Vec<(Node, Netns, Arc<Machine>)>,
    /// What it writes for the controller.
    pub live: Live,
    /// Gateways.
    pub gateways: Gateways,
    /// How to start a gateway's proxy.
    pub gateway_program: GatewayProgram,
    /// Where pods tell their state.
    pub events: mpsc::UnboundedSender<Event>,
    /// Names for the DNS server.
    pub zone: watch::Sender<Arc<Zone>>,
    /// The report, for whoever asks.
    pub report: watch::Sender<Arc<Report>>,
    /// State.
    pub held: Held,
}

/// What the cluster remembers.
#[derive(Default)]
pub struct Held {
    folder: Folder,
    objects: Arc<BTreeMap<Key, Object>>,
    pods: BTreeMap<String, Entry>,
    addresses: ClusterIps,
    ruleset: String,
    made: u64,
    problems: Vec<Problem>,
}

/// A pod that exists.
struct Entry {
    pod: Arc<Pod>,
    node: usize,
    /// `namespace/deployment`, if one made it.
    deployment: Option<String>,
    /// Hash of what it was made from.
    template: u64,
    made: u64,
    state: PodState,
    stop: CancellationToken,
    started: bool,
}

impl Entry {
    fn ending(&self) -> bool {
        self.stop.is_cancelled()
    }
}

impl Cluster {
    /// Reads the folder, as far as it changed, and makes everything follow.
    pub fn read_folder(&mut self) -> Result<()> {
        self.held.folder = Folder::read(&self.options.dir, &self.held.folder)
            .with_context(|| format!("cannot read {}", self.options.dir.display()))?;
        self.held.objects = Arc::new(self.held.folder.objects());
        self.reconcile()
    }

    /// Takes what a pod tells.
    pub fn note(&mut self, event: Event) -> Result<()> {
        let named = self.held.pods.iter().find(|(_, e)| e.pod.metadata.uid.as_deref() == Some(&event.uid));
        let Some(name) = named.map(|(name, _)| name.clone()) else { return Ok(()) };
        match event.state {
            None => drop(self.held.pods.remove(&name)),
            Some(state) => {
                if let Some(entry) = self.held.pods.get_mut(&name) {
                    let terminating = entry.ending();
                    entry.state = PodState { terminating, ..state };
                }
            }
        }
        self.reconcile()
    }

    /// Makes what is be what is wanted, as far as it can be now; publishes the result; then starts new pods, which the controller must know before their CNI ADD.
    pub fn reconcile(&mut self) -> Result<()> {
        let mut problems = self.held.folder.problems();
        self.want_pods();
        self.want_deployments();
        let services: BTreeMap<String, Service> = self.typed("", "Service");
        let gateways = gateways::wanted(&self.held.objects);
        if let Err(error) = self.gateways.reconcile(&gateways, &self.gateway_program) {
            problems.push(Problem {
                file: String::new(),
                line: 0,
                object: "Gateway".into(),
                field: String::new(),
                reason: format!("{error:#}"),
            });
        }
        self.held.problems = problems;
        self.held.addresses.keep(&services.keys().cloned().collect());
        let placed = self.placed();
        self.publish(&services, &placed)?;
        self.translate(&services, &placed)?;
        self.name(&services, &placed);
        self.tell(&services, &placed);
        self.start_pods();
        Ok(())
    }

    /// Objects of a kind, as Kubernetes' own type, by namespace/name. They were checked when read.
    fn typed<T: serde::de::DeserializeOwned>(&self, group: &str, kind: &str) -> BTreeMap<String, T> {
        let all = self.held.objects.values().filter(|o| o.key.group == group && o.key.kind == kind);
        all.filter_map(|o| {
            let mut value = Value::clone(&o.value);
            value["metadata"]["namespace"] = o.key.namespace.clone().into();
            Some((format!("{}/{}", o.key.namespace, o.key.name), serde_json::from_value(value).ok()?))
        })
        .collect()
    }

    fn want_pods(&mut self) {
        let wanted: BTreeMap<String, Pod> = self.typed("", "Pod");
        for (name, entry) in self.held.pods.iter().filter(|(_, e)| e.deployment.is_none()) {
            if wanted.get(name).is_none_or(|p| hash(&p.spec) != entry.template) {
                entry.stop.cancel();
            }
        }
        for (name, pod) in wanted {
            match self.held.pods.get_mut(&name) {
                // Labels and annotations of a running pod may change; who it is stays.
                Some(entry) if !entry.ending() => {
                    let old = &entry.pod.metadata;
                    if old.labels != pod.metadata.labels || old.annotations != pod.metadata.annotations {
                        let mut changed = Pod::clone(&entry.pod);
                        changed.metadata.labels = pod.metadata.labels;
                        changed.metadata.annotations = pod.metadata.annotations;
                        entry.pod = Arc::new(changed);
                    }
                }
                // The old one of this name has to be gone first.
                Some(_) => {}
                None => {
                    let template = hash(&pod.spec);
                    self.add(name, pod, None, template);
                }
            }
        }
    }

    fn want_deployments(&mut self) {
        let wanted: BTreeMap<String, Deployment> = self.typed("apps", "Deployment");
        let orphaned = |e: &&Entry| e.deployment.as_ref().is_some_and(|d| !wanted.contains_key(d));
        self.held.pods.values().filter(orphaned).for_each(|e| e.stop.cancel());
        for (owner, deployment) in wanted {
            let spec = deployment.spec;
            let template = hash(&spec.template);
            let of_it = self.held.pods.iter().filter(|(_, e)| e.deployment.as_deref() == Some(&owner) && !e.ending());
            let members: Vec<Member> = of_it
                .map(|(name, e)| Member {
                    name: name.clone(),
                    template: e.template,
                    ready: e.state.ready,
                    made: e.made,
                })
                .collect();
            let replicas = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
            let step = deployment::step(replicas, template, &members);
            for name in step.end {
                if let Some(entry) = self.held.pods.get(&name) {
                    entry.stop.cancel();
                }
            }
            for _ in 0..step.create {
                let metadata = &deployment.metadata;
                let base = metadata.name.clone().unwrap_or_default();
                let short = template & 0xffff;
                let fresh = (1_u32..).map(|n| format!("{base}-{short:04x}-{n}"));
                let taken = |n: &String| self.held.pods.contains_key(&format!("{}/{n}", namespace(metadata)));
                let Some(name) = fresh.into_iter().find(|n| !taken(n)) else { continue };
                let mut pod = Pod {
                    metadata: spec.template.metadata.clone().unwrap_or_default(),
                    spec: spec.template.spec.clone(),
                    status: None,
                };
                pod.metadata.namespace = Some(namespace(metadata).to_owned());
                pod.metadata.name = Some(name.clone());
                // The controller names the owner by the ReplicaSet's name less its hash, as in a cluster.
                let references = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{base}-{short:04x}"),
                    "uid": format!("{template:016x}"), "controller": true}]);
                pod.metadata.owner_references = serde_json::from_value(references).ok();
                pod.metadata.labels.get_or_insert_default().insert("pod-template-hash".into(), format!("{short:04x}"));
                let key = format!("{}/{name}", namespace(metadata));
                self.add(key, pod, Some(owner.clone()), template);
            }
        }
    }

    /// Schedules a pod: where it asks to be, or where the fewest are.
    fn add(&mut self, name: String, mut pod: Pod, deployment: Option<String>, template: u64) {
        let spec = pod.spec.get_or_insert_default();
        let asked = spec
            .node_name
            .clone()
            .or_else(|| spec.node_selector.as_ref()?.get("kubernetes.io/hostname").cloned())
            .and_then(|n| self.nodes.iter().position(|(node, ..)| node.name == n));
        // Pods of one Deployment are spread first, then all.
        let load = |node: usize| {
            let on = self.held.pods.values().filter(|e| e.node == node && !e.ending());
            (on.clone().filter(|e| deployment.is_some() && e.deployment == deployment).count(), on.count())
        };
        let node = asked.unwrap_or_else(|| (0..self.nodes.len()).min_by_key(|n| load(*n)).unwrap_or(0));
        spec.node_name = Some(self.nodes[node].0.name.clone());
        let (a, b) = (request::random(), request::random());
        pod.metadata.uid = Some(format!(
            "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
            a >> 32,
            a >> 16 & 0xffff,
            a & 0xfff,
            b >> 48 & 0xfff,
            b & 0xffff_ffff_ffff
        ));
        pod.metadata.creation_timestamp = Some(now());
        self.held.made += 1;
        let entry = Entry {
            pod: Arc::new(pod),
            node,
            deployment,
            template,
            made: self.held.made,
            state: PodState { phase: "Pending".into(), ..Default::default() },
            stop: CancellationToken::new(),
            started: false,
        };
        self.held.pods.insert(name, entry);
    }

    fn start_pods(&mut self) {
        for entry in self.held.pods.values_mut().filter(|e| !e.started) {
            entry.started = true;
            let (_, _, machine) = &self.nodes[entry.node];
            tokio::spawn(kubelet::live(
                Arc::clone(machine),
                Arc::clone(&entry.pod),
                Arc::clone(&self.held.objects),
                entry.stop.clone(),
                self.events.clone(),
            ));
        }
    }

    fn placed(&self) -> Vec<Placed> {
        let of = |e: &Entry| Placed {
            pod: Arc::clone(&e.pod),
            node: self.nodes[e.node].0.name.clone(),
            state: PodState { terminating: e.ending(), ..e.state.clone() },
        };
        self.held.pods.values().map(of).collect()
    }

    fn publish(&mut self, services: &BTreeMap<String, Service>, placed: &[Placed]) -> Result<()> {
        let mut files = BTreeMap::new();
        for pod in placed {
            let m = &pod.pod.metadata;
            files.insert(
                format!(
                    "pod_{}_{}.json",
                    m.namespace.as_deref().unwrap_or_default(),
                    m.name.as_deref().unwrap_or_default()
                ),
                pod_object(pod),
            );
        }
        for (name, service) in services {
            let mut value = serde_json::to_value(service)?;
            value["apiVersion"] = "v1".into();
            value["kind"] = "Service".into();
            if let Some(addresses) = self.cluster_ips(name, service) {
                value["spec"]["clusterIP"] = addresses[0].to_string().into();
                value["spec"]["clusterIPs"] = json!(addresses);
                value["spec"]["ipFamilies"] = json!(["IPv4", "IPv6"]);
            }
            files.insert(format!("service_{}.json", name.replace('/', "_")), value);
            for (slice, value) in endpoints::slices(service, placed) {
                files.insert(
                    format!("slice_{}_{slice}.json", value["metadata"]["namespace"].as_str().unwrap_or_default()),
                    value,
                );
            }
        }
        for object in self.held.objects.values().filter(|o| o.key.kind == "Gateway") {
            let name = format!("{}/{}", object.key.namespace, object.key.name);
            let addresses = self.gateways.addresses(&name);
            if !addresses.is_empty() {
                files.insert(
                    format!("gateway_{}.json", name.replace('/', "_")),
                    gateways::annotated(&object.value, &addresses),
                );
            }
        }
        self.live.publish(files)
    }

    /// ClusterIPs of a Service; none for a headless one or an alias.
    fn cluster_ips(&mut self, name: &str, service: &Service) -> Option<[IpAddr; 2]> {
        if is_headless(service) {
            return None;
        }
        let (v4, v6) = self.held.addresses.of(name);
        Some([v4.into(), v6.into()])
    }

    fn translate(&mut self, services: &BTreeMap<String, Service>, placed: &[Placed]) -> Result<()> {
        let frontends: Vec<Frontend> = services
            .iter()
            .filter(|(_, s)| !is_headless(s))
            .map(|(name, service)| Frontend {
                addresses: self.held.addresses.of(name),
                ports: ports(service),
                tcp: endpoints::targets(service, placed, "TCP"),
                udp: endpoints::targets(service, placed, "UDP"),
            })
            .collect();
        let ruleset = services::ruleset(&frontends);
        if ruleset != self.held.ruleset {
            for (_, netns, _) in &self.nodes {
                tokio::task::block_in_place(|| netns.nft(&ruleset)).context("cannot translate ClusterIPs")?;
            }
            self.held.ruleset = ruleset;
        }
        Ok(())
    }

    fn name(&mut self, services: &BTreeMap<String, Service>, placed: &[Placed]) {
        let mut zone = Zone::default();
        for (name, service) in services {
            let Some((ns, short)) = name.split_once('/') else { continue };
            if let Some(addresses) = self.cluster_ips(name, service) {
                zone.service(ns, short, addresses.to_vec());
                continue;
            }
            let publish = service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses).unwrap_or(false);
            let members: Vec<&Placed> = endpoints::selected(service, placed)
                .filter(|p| publish || (p.state.ready && !p.state.terminating))
                .collect();
            zone.service(ns, short, members.iter().flat_map(|p| p.state.addresses.clone()).collect());
            for pod in members {
                if let Some(hostname) = pod.pod.spec.as_ref().and_then(|s| s.hostname.as_deref()) {
                    zone.member(ns, short, hostname, pod.state.addresses.clone());
                }
            }
        }
        self.zone.send_if_modified(|old| {
            let changed = **old != zone;
            *old = Arc::new(zone);
            changed
        });
    }

    fn tell(&mut self, services: &BTreeMap<String, Service>, placed: &[Placed]) {
        let mut waiting = Vec::new();
        let pods = self.held.pods.iter().map(|(name, e)| {
            if !e.state.ready && !e.ending() && e.state.phase != "Succeeded" {
                waiting.push(format!("pod {name} ({}) {}", e.state.phase, e.state.message));
            }
            PodReport {
                namespace: e.pod.metadata.namespace.clone().unwrap_or_default(),
                name: e.pod.metadata.name.clone().unwrap_or_default(),
                owner: e.deployment.clone().unwrap_or_else(|| name.clone()),
                node: self.nodes[e.node].0.name.clone(),
                addresses: e.state.addresses.iter().map(ToString::to_string).collect(),
                phase: if e.ending() { "Terminating".into() } else { e.state.phase.clone() },
                ready: e.state.ready && !e.ending(),
                restarts: e.state.restarts,
                netns: self.nodes[e.node].2.enter(&e.pod, None).netns.display().to_string(),
                message: e.state.message.clone(),
            }
        });
        let pods = pods.collect();
        let mut reports = Vec::new();
        for (name, service) in services {
            let addresses = self.cluster_ips(name, service);
            let shown: BTreeSet<String> = ["TCP", "UDP"]
                .into_iter()
                .flat_map(|p| endpoints::targets(service, placed, p))
                .filter(|t| t.address.is_ipv4())
                .map(|t| format!("{}:{}", t.address, t.port))
                .collect();
            let ports = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
            reports.push(ServiceReport {
                name: name.clone(),
                addresses: addresses
                    .map_or_else(|| vec!["None".into()], |a| a.iter().map(ToString::to_string).collect()),
                ports: ports.map(|p| format!("{}/{}", p.port, p.protocol.as_deref().unwrap_or("TCP"))).collect(),
                endpoints: shown.into_iter().collect(),
            });
        }
        self.report.send_replace(Arc::new(Report {
            ready: waiting.is_empty(),
            waiting_for: waiting,
            nodes: self.nodes.iter().map(|(n, ..)| n.name.clone()).collect(),
            pods,
            services: reports,
            gateways: self.gateways.report(),
            objects: Vec::new(),
            problems: self.held.problems.clone(),
        }));
    }

    /// Finds a pod by `namespace/name`, its own or its owner's; a ready one is preferred.
    pub fn find(&self, name: &str) -> Option<(Arc<Machine>, Arc<Pod>)> {
        let mut fitting: Vec<_> = self
            .held
            .pods
            .iter()
            .filter(|(n, e)| (*n == name || e.deployment.as_deref() == Some(name)) && !e.state.addresses.is_empty())
            .collect();
        fitting.sort_by_key(|(_, e)| (e.ending(), !e.state.ready));
        fitting.first().map(|(_, e)| (Arc::clone(&self.nodes[e.node].2), Arc::clone(&e.pod)))
    }
}

/// A pod as an API server would show it.
fn pod_object(placed: &Placed) -> Value {
    let mut value = serde_json::to_value(&*placed.pod).unwrap_or_default();
    value["apiVersion"] = "v1".into();
    value["kind"] = "Pod".into();
    let state = &placed.state;
    if state.terminating {
        // The moment matters to nobody here; that it is set does.
        value["metadata"]["deletionTimestamp"] = value["metadata"]["creationTimestamp"].clone();
    }
    let ready = if state.ready { "True" } else { "False" };
    value["status"] = json!({
        "phase": state.phase,
        "conditions": [{"type": "Ready", "status": ready}],
        "podIPs": state.addresses.iter().map(|a| json!({"ip": a})).collect::<Vec<_>>(),
    });
    if let Some(address) = state.addresses.first() {
        value["status"]["podIP"] = address.to_string().into();
    }
    value
}

fn ports(service: &Service) -> Vec<(u16, Protocol)> {
    let ports = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
    ports
        .filter_map(|p| {
            let protocol = match p.protocol.as_deref() {
                None | Some("TCP") => Protocol::Tcp,
                Some("UDP") => Protocol::Udp,
                Some(_) => return None,
            };
            Some((u16::try_from(p.port).ok()?, protocol))
        })
        .collect()
}

fn is_headless(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|s| s.cluster_ip.as_deref()) == Some("None")
        || spec.and_then(|s| s.type_.as_deref()) == Some("ExternalName")
}

fn namespace(metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> &str {
    metadata.namespace.as_deref().unwrap_or("default")
}

fn hash(value: &impl serde::Serialize) -> u64 {
    stable_hash(&serde_json::to_vec(value).unwrap_or_default())
}

fn now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or_default();
    Time(k8s_openapi::jiff::Timestamp::from_second(seconds).unwrap_or(k8s_openapi::jiff::Timestamp::UNIX_EPOCH))
}
