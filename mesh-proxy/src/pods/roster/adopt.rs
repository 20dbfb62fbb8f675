//! Pods that ran before anybody announced them (a mesh that comes to a living node): their namespaces are found by address. It must not decide
//! who is captured; a pod that is found is taken up like one of the registry.

use super::{Roster, Told};
use crate::pods::registry::{Sandbox, is_container_id};
use mesh_core::{
    enroll::Event,
    mesh::Workload,
    name::{NsName, Text},
};
use mesh_sys::{Netns, address};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// What the container ids begin with that such sandboxes get here: no runtime has told theirs.
const ADOPTED: &str = "adopted-";

/// Pause before namespaces are searched again for the same pods; doubled each time up to [`SEARCH_MAX`].
const SEARCH: Duration = Duration::from_secs(1);
const SEARCH_MAX: Duration = Duration::from_secs(32);

/// Most namespaces that are searched: far above the pods of a node.
const NAMESPACES_MAX: usize = 4096;

/// Where and for which node pods are looked for.
#[derive(Clone, Debug)]
pub struct Adopt {
    dir: PathBuf,
    node: Text,
    /// Pods that were searched for last.
    lost: BTreeSet<NsName>,
    next: Instant,
    pause: Duration,
}

impl Adopt {
    /// Namespaces in this folder belong to pods of this node.
    pub fn new(dir: PathBuf, node: Text) -> Self {
        Self { dir, node, lost: BTreeSet::new(), next: Instant::now(), pause: SEARCH }
    }
}

impl Roster {
    /// Searches the namespaces for the meshed pods of this node that nobody announced, if it is time; the finds come as [`Told::Found`].
    pub(super) fn look_for_pods(&mut self) {
        self.forget_what_is_gone();
        let (Some(adopt), Some(snapshot)) = (&mut self.adopt, self.shared.snapshot.borrow().clone()) else { return };
        let pods = &self.pods;
        let is_lost = |w: &&Arc<Workload>| {
            w.node == adopt.node
                && w.enrolment.is_meshed()
                && !w.addresses.is_empty()
                && pods.get(&w.id).is_none_or(|e| e.sandboxes.is_empty())
        };
        let lost: Vec<Arc<Workload>> = snapshot.workloads().filter(is_lost).cloned().collect();
        if lost.is_empty() {
            return adopt.lost.clear();
        }
        let names: BTreeSet<NsName> = lost.iter().map(|w| w.id.clone()).collect();
        if names != adopt.lost {
            (adopt.lost, adopt.next, adopt.pause) = (names, Instant::now(), SEARCH);
        }
        if Instant::now() < adopt.next {
            return;
        }
        adopt.next = Instant::now() + adopt.pause;
        adopt.pause = (adopt.pause * 2).min(SEARCH_MAX);
        let (dir, tell) = (adopt.dir.clone(), self.tell.clone());
        tokio::task::spawn_blocking(move || {
            let found = search(&dir, &lost);
            if !found.is_empty() {
                // Nobody hears it when the proxy ends meanwhile.
                let _ = tell.send(Told::Found { found });
            }
        });
    }

    /// Takes up what was found, unless the CNI was faster.
    pub(super) fn adopt(&mut self, found: Vec<(Sandbox, Arc<Netns>)>) {
        for (sandbox, netns) in found {
            let pod = sandbox.pod.clone();
            if self.pods.get(&pod).is_some_and(|e| !e.sandboxes.is_empty()) {
                continue;
            }
            if let Err(fault) = self.registry.save(&sandbox) {
                tracing::error!(%pod, fault = crate::fault::chain(&fault), "a pod that was found cannot be remembered");
                continue;
            }
            tracing::info!(%pod, netns = %sandbox.netns.display(), "found a pod that ran before");
            let container = sandbox.container.as_str().into();
            self.hold(sandbox, netns);
            self.run(&pod, Event::Restored { sandbox: container, captured: false });
            if let Some(entry) = self.pods.get(&pod) {
                let says = self.says(entry);
                self.run(&pod, Event::Config(says));
            }
        }
    }

    /// Container ids of adopted sandboxes whose namespace has this path.
    pub(super) fn adopted_at(&self, netns: &Path) -> Vec<String> {
        // The runtime may see the folder elsewhere; the name in it is the same.
        let named = |path: &Path| netns.file_name().is_some() && path.file_name() == netns.file_name();
        self.adopted().filter(|s| named(&s.netns)).map(|s| s.container.clone()).collect()
    }

    /// Nobody says when such a pod ends if the runtime's DEL does not name the namespace; its path is gone then.
    fn forget_what_is_gone(&mut self) {
        let gone: Vec<String> = self.adopted().filter(|s| !s.netns.exists()).map(|s| s.container.clone()).collect();
        for container in gone {
            self.gone(&container);
        }
    }

    fn adopted(&self) -> impl Iterator<Item = &Sandbox> {
        let all = self.pods.values().flat_map(|e| e.sandboxes.values()).map(|held| &held.sandbox);
        all.filter(|s| s.container.starts_with(ADOPTED))
    }
}

/// Enters each namespace of the folder, and matches its addresses to the pods'. Blocks.
fn search(dir: &Path, lost: &[Arc<Workload>]) -> Vec<(Sandbox, Arc<Netns>)> {
    let mut found: Vec<(Sandbox, Arc<Netns>)> = Vec::new();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::warn!(%error, dir = %dir.display(), "namespaces of pods cannot be looked for");
            return found;
        }
    };
    for path in entries.flatten().take(NAMESPACES_MAX).map(|entry| entry.path()) {
        // What is no namespace, or has just gone, is nobody's.
        let Ok(netns) = Netns::open(&path) else { continue };
        let Ok(Ok(addresses)) = netns.run(address::of_interfaces) else { continue };
        let is = |w: &&Arc<Workload>| w.addresses.iter().any(|a| addresses.contains(a));
        let Some(workload) = lost.iter().find(is) else { continue };
        let Some(sandbox) = sandbox(workload, path, &netns) else { continue };
        found.push((sandbox, Arc::new(netns)));
    }
    let claims = |pod: &NsName, found: &[(Sandbox, Arc<Netns>)]| found.iter().filter(|(s, _)| s.pod == *pod).count();
    let doubtful: BTreeSet<NsName> =
        found.iter().map(|(s, _)| s.pod.clone()).filter(|pod| claims(pod, &found) > 1).collect();
    for pod in &doubtful {
        tracing::warn!(%pod, "several namespaces have this pod's address; none is taken");
    }
    found.retain(|(s, _)| !doubtful.contains(&s.pod));
    found
}

fn sandbox(workload: &Workload, path: PathBuf, netns: &Netns) -> Option<Sandbox> {
    let container = format!("{ADOPTED}{}", path.file_name()?.to_str()?);
    is_container_id(&container).then(|| Sandbox {
        container,
        pod: workload.id.clone(),
        uid: workload.uid.to_string(),
        netns: path,
        netns_id: netns.id(),
        addresses: workload.addresses.to_vec(),
        captured: false,
    })
}
