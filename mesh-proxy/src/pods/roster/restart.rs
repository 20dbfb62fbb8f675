//! The roster across proxies: taking up what an earlier one left, living beside another one, and leaving. It must not decide who is captured.

use super::{LOOK, Roster};
use crate::pods::{
    capture::Serving,
    registry::{RegistryFault, Sandbox},
};
use mesh_core::enroll::Event;
use mesh_sys::Netns;
use std::{collections::HashSet, sync::Arc};
use tokio::time::{sleep, timeout};

impl Roster {
    /// A sandbox of the registry.
    pub(super) fn take_up(&mut self, sandbox: Sandbox) -> Result<(), RegistryFault> {
        let netns = match Netns::open(&sandbox.netns) {
            Ok(netns) if netns.id() == sandbox.netns_id => Arc::new(netns),
            // The pod ended while nobody was here to hear its DEL, or the node began anew; its path may lead to another namespace now.
            _ => {
                tracing::info!(pod = %sandbox.pod, container = sandbox.container, "a sandbox of the registry is gone");
                return self.registry.remove(&sandbox.container);
            }
        };
        let event = Event::Restored { sandbox: sandbox.container.as_str().into(), captured: sandbox.captured };
        let pod = sandbox.pod.clone();
        self.hold(sandbox, netns).restored = true;
        self.run(&pod, event);
        Ok(())
    }

    /// A look at the node, now and then.
    pub(super) fn look(&mut self, settled: bool) {
        let alone = self.listeners.others().borrow().connected == 0;
        if !alone {
            // The CNI speaks with one of us; the registry is where both write down what they heard.
            self.read_registry();
        } else if settled {
            let served: HashSet<_> =
                self.pods.values().flat_map(|e| e.sandboxes.values()).map(|held| held.netns.id()).collect();
            self.listeners.close_except(|netns| served.contains(&netns));
        }
        self.look_for_pods();
    }

    fn read_registry(&mut self) {
        let written = match self.registry.load() {
            Ok(written) => written,
            Err(fault) => return tracing::warn!(fault = crate::fault::chain(&fault), "the registry cannot be read"),
        };
        let known: HashSet<String> = self.pods.values().flat_map(|e| e.sandboxes.keys().cloned()).collect();
        for container in known.iter().filter(|c| !written.iter().any(|w| w.container == **c)) {
            self.gone(container);
        }
        for sandbox in written.into_iter().filter(|w| !known.contains(&w.container)) {
            let pod = sandbox.pod.clone();
            if let Err(fault) = self.take_up(sandbox) {
                tracing::warn!(%pod, fault = crate::fault::chain(&fault), "a sandbox of the proxy beside is not taken up");
                continue;
            }
            if let Some(entry) = self.pods.get(&pod) {
                let says = self.says(entry);
                self.run(&pod, Event::Config(says));
            }
        }
    }

    /// Ends: living connections are told, and get `limits.drain`. New ones are taken until another proxy of the node takes them, unless they
    /// would not wait for it: nobody is refused.
    pub(super) async fn leave(mut self) {
        let drain = self.shared.settings().map_or_else(Default::default, |s| s.limits.drain);
        let sandboxes = self.pods.values_mut().flat_map(|e| e.sandboxes.values_mut());
        let releases: Vec<_> = sandboxes.filter_map(|h| h.release.take()).map(|r| r.task).collect();
        let serving: Vec<&Serving> =
            self.pods.values().flat_map(|e| e.sandboxes.values()).filter_map(|h| h.serving.as_ref()).collect();
        self.listeners.serving(false);
        serving.iter().for_each(|s| s.leave());
        let others = self.listeners.others();
        let ended = async {
            // What comes while nobody accepts waits in the backlogs that the holder keeps.
            while self.listeners.is_held() && others.borrow().serving == 0 && !serving.iter().all(|s| s.is_idle()) {
                sleep(LOOK / 10).await;
            }
            serving.iter().for_each(|s| s.deafen());
            futures_util::future::join_all(serving.iter().map(|s| s.ended())).await;
            // Pods that are being let go: what lives there drains by itself.
            futures_util::future::join_all(releases).await;
        };
        // Rules stay: without a proxy a meshed pod is closed, not open.
        let _ = timeout(drain, ended).await;
        futures_util::future::join_all(serving.iter().map(|s| s.end())).await;
    }
}
