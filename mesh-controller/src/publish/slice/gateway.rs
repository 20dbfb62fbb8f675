//! The slice of a Gateway: itself, its certificates, its routes, and what those point to. Nothing of anybody else: a certificate's key goes to nobody but its Gateway.

use super::{Changed, Mesh, Touched};
use crate::publish::mesh::{attachments, pods};
use mesh_core::{
    mesh::{Attachment, BackendTarget, Filter, HttpBackend, ListenerProtocol},
    name::{GatewayId, NsName, ServiceId},
    node::{Resource, ResourceId},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    hash::Hash,
    ops::Bound,
};

/// References are counted, so that a change costs what it touches and not what the Gateway holds.
#[derive(Debug)]
pub struct GatewaySlice {
    gateway: GatewayId,
    certificates: Counts<NsName>,
    services: Counts<ServiceId>,
    pods: Counts<NsName>,
    held: BTreeSet<ResourceId>,
}

type Counts<K> = BTreeMap<K, usize>;

impl GatewaySlice {
    pub(super) fn new(gateway: GatewayId) -> Self {
        Self {
            gateway,
            certificates: Counts::new(),
            services: Counts::new(),
            pods: Counts::new(),
            held: BTreeSet::new(),
        }
    }

    /// What it holds after this id.
    pub(super) fn after(&self, last: Option<&ResourceId>) -> impl Iterator<Item = &ResourceId> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        self.held.range::<ResourceId, _>((from, Bound::Unbounded))
    }

    pub(super) fn change(&mut self, mesh: &Mesh, changes: &[Changed]) -> Touched {
        // What may have to come or go, and what has new content.
        let mut suspects: BTreeSet<ResourceId> = BTreeSet::new();
        let mut fresh: BTreeSet<&ResourceId> = BTreeSet::new();
        // Services whose first reference came or last one went, with what was so before.
        let mut flipped: BTreeMap<ServiceId, bool> = BTreeMap::new();
        for change in changes {
            suspects.insert(change.id.clone());
            fresh.insert(&change.id);
            for (entry, step) in [(&change.old, Step::Down), (&change.new, Step::Up)] {
                let Some(entry) = entry else { continue };
                for certificate in self.certificates_of(&entry.resource) {
                    if step.count(&mut self.certificates, certificate) {
                        suspects.insert(ResourceId::Certificate(certificate.clone()));
                    }
                }
                for service in self.services_of(&entry.resource) {
                    flipped.entry(service.clone()).or_insert_with(|| self.services.contains_key(service));
                    step.count(&mut self.services, service);
                }
            }
        }
        // EndpointSlices count pods while their Service is referenced. Changed ones: old content out if it counted, new content in if it counts.
        for change in changes {
            for (entry, step) in [(&change.old, Step::Down), (&change.new, Step::Up)] {
                let Some(Resource::EndpointSlice(slice)) = entry.as_ref().map(|e| &e.resource) else { continue };
                let counts = match step {
                    Step::Down => {
                        flipped.get(&slice.service).copied().unwrap_or(self.services.contains_key(&slice.service))
                    }
                    Step::Up => self.services.contains_key(&slice.service),
                };
                if counts && let Some(entry) = entry {
                    self.count_pods(&entry.resource, step, &mut suspects);
                }
            }
        }
        // Unchanged ones: all in or all out with their Service.
        for (service, before) in &flipped {
            let now = self.services.contains_key(service);
            if now == *before {
                continue;
            }
            suspects.insert(ResourceId::Service(service.clone()));
            for id in mesh.of_service(service) {
                suspects.insert(id.clone());
                if fresh.contains(id) {
                    continue;
                }
                if let Some(entry) = mesh.entry(id) {
                    let step = if now { Step::Up } else { Step::Down };
                    self.count_pods(&entry.resource, step, &mut suspects);
                }
            }
        }
        let mut touched = Touched::new();
        for id in suspects {
            match mesh.entry(&id).filter(|entry| self.needs(&entry.resource)) {
                Some(entry) => {
                    if self.held.insert(id.clone()) || fresh.contains(&id) {
                        touched.insert(id, Some(entry.clone()));
                    }
                }
                None => {
                    if self.held.remove(&id) {
                        touched.insert(id, None);
                    }
                }
            }
        }
        touched
    }

    fn needs(&self, resource: &Resource) -> bool {
        match resource {
            Resource::Settings(_) | Resource::Roots(_) => true,
            Resource::Gateway(g) => g.id == self.gateway,
            Resource::Certificate(c) => self.certificates.contains_key(&c.id),
            Resource::HttpRoute(_) | Resource::StreamRoute(_) => self.is_attached(resource),
            Resource::Service(s) => self.services.contains_key(&s.id),
            Resource::EndpointSlice(s) => self.services.contains_key(&s.service),
            Resource::TrafficPolicy(p) => p.targets.iter().any(|t| self.services.contains_key(t)),
            Resource::Workload(w) => self.pods.contains_key(&w.id),
        }
    }

    fn is_attached(&self, route: &Resource) -> bool {
        attachments(route).iter().any(|a| matches!(a, Attachment::Listener { gateway, .. } if *gateway == self.gateway))
    }

    fn count_pods(&mut self, slice: &Resource, step: Step, suspects: &mut BTreeSet<ResourceId>) {
        for pod in pods(slice) {
            if step.count(&mut self.pods, pod) {
                suspects.insert(ResourceId::Workload(pod.clone()));
            }
        }
    }

    fn certificates_of<'a>(&self, resource: &'a Resource) -> Vec<&'a NsName> {
        let Resource::Gateway(gateway) = resource else { return Vec::new() };
        if gateway.id != self.gateway {
            return Vec::new();
        }
        let of = |protocol: &'a ListenerProtocol| match protocol {
            ListenerProtocol::Https(c) | ListenerProtocol::TlsTerminate(c) => &c[..],
            ListenerProtocol::Http | ListenerProtocol::TlsPassthrough | ListenerProtocol::Tcp => &[],
        };
        gateway.listeners.iter().flat_map(|l| of(&l.protocol)).collect()
    }

    /// Services that a route of this Gateway may send to, also by mirrors.
    fn services_of<'a>(&self, resource: &'a Resource) -> Vec<&'a ServiceId> {
        if !self.is_attached(resource) {
            return Vec::new();
        }
        let mut services = Vec::new();
        let mut add = |target: &'a BackendTarget| {
            if let BackendTarget::Service { service, .. } = target {
                services.push(service);
            }
        };
        match resource {
            Resource::StreamRoute(route) => route.backends.iter().for_each(|(_, target)| add(target)),
            Resource::HttpRoute(route) => {
                for rule in &route.rules {
                    let of_backends = rule.backends.iter().flat_map(|HttpBackend { filters, .. }| filters);
                    for filter in rule.filters.iter().chain(of_backends) {
                        if let Filter::Mirror(mirror) = filter {
                            add(&mirror.target);
                        }
                    }
                    rule.backends.iter().for_each(|backend| add(&backend.target));
                }
            }
            _ => {}
        }
        services
    }
}

#[derive(Clone, Copy)]
enum Step {
    Up,
    Down,
}

impl Step {
    /// Counts, and says whether the first reference came or the last one went.
    fn count<K: Ord + Clone + Hash>(self, counts: &mut Counts<K>, key: &K) -> bool {
        match self {
            Self::Up => {
                let count = counts.entry(key.clone()).or_default();
                *count += 1;
                *count == 1
            }
            Self::Down => {
                let Some(count) = counts.get_mut(key) else { return false };
                *count -= 1;
                if *count == 0 {
                    counts.remove(key);
                    return true;
                }
                false
            }
        }
    }
}
