//! Service: all that a snapshot knows of one Service, in one place, so that one lookup finds it. It must not decide who gets what.

use crate::{
    balance::EndpointSet,
    mesh::{HostPattern, Scope, Service},
    name::{NsName, Text},
    retry::Budget,
    route::{Bucket, Hosts, RouteTable, RuleIndex, StreamIndex, StreamTable},
};
use smallvec::SmallVec;
use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

/// There are tens of thousands of Services, and most have one of a kind: one slice, one port, at most one policy.
pub(super) type Few<T> = SmallVec<[T; 1]>;

/// A Service, or what others say of one that is not known (yet).
#[derive(Clone, Default)]
pub(super) struct ServiceEntry {
    pub(super) service: Option<Arc<Service>>,
    /// Its EndpointSlices, sorted.
    pub(super) slices: Few<NsName>,
    /// Policies that target it, sorted; the first with a budget counts (the planner leaves one).
    pub(super) policies: Few<NsName>,
    pub(super) budget: Option<Arc<Budget>>,
    /// Its ports and those that only routes name, by number.
    pub(super) ports: Few<PortEntry>,
}

/// A port of a Service.
#[derive(Clone, Default)]
pub(super) struct PortEntry {
    pub(super) number: u16,
    /// None: no such port, or the Service is not known.
    pub(super) endpoints: Option<Endpoints>,
    /// None: no routes, as of most ports.
    routes: Option<Arc<Routes>>,
}

impl PortEntry {
    /// What governs clients of a namespace, if there are routes at all.
    pub(super) fn governing(&self, namespace: &str) -> Option<&Governing> {
        self.routes.as_ref().map(|routes| routes.for_clients_of(namespace))
    }

    pub(super) fn change_routes(&mut self, scope: &Scope, change: impl FnOnce(&mut Governing)) {
        let routes = self.routes.get_or_insert_default();
        Arc::make_mut(routes).change(scope, change);
        if routes.is_empty() {
            self.routes = None;
        }
    }
}

/// Endpoints of a port, merged when somebody first asks for them: of most Services of a mesh nobody on a node ever does.
///
/// Whoever changes what is merged puts a new value in its place, so that all snapshots that share one would merge the same.
#[derive(Clone, Default)]
pub(super) struct Endpoints {
    merged: OnceLock<Arc<EndpointSet>>,
    /// What was merged before the last change; its targets' load goes on.
    before: Option<Arc<EndpointSet>>,
}

impl Endpoints {
    /// What comes after a change of what is merged.
    pub(super) fn changed(&self) -> Self {
        Self { merged: OnceLock::new(), before: self.merged.get().or(self.before.as_ref()).cloned() }
    }

    /// Whether somebody asked for those before the last change, and so will ask again.
    pub(super) fn was_asked_for(&self) -> bool {
        self.before.is_some()
    }

    /// The endpoints, by `merge` of those before if nobody asked yet.
    pub(super) fn get(&self, merge: impl FnOnce(Option<&EndpointSet>) -> EndpointSet) -> &Arc<EndpointSet> {
        self.merged.get_or_init(|| Arc::new(merge(self.before.as_deref())))
    }
}

/// Routes of a port by whose requests they govern.
#[derive(Clone, Default)]
struct Routes {
    producer: Governing,
    /// Client namespace → routes.
    consumers: BTreeMap<Text, Governing>,
}

/// Routes that govern some clients of a port, with what they compile to.
#[derive(Clone, Default)]
pub(super) struct Governing {
    pub(super) http: Option<(Arc<RuleIndex>, Arc<RouteTable>)>,
    /// None if there are no stream routes.
    pub(super) streams: Option<(Hosts<StreamIndex>, Arc<StreamTable>)>,
}

impl Routes {
    /// GAMMA: "requests from a namespace that has consumer routes use only those"; groups are never merged, whatever their kinds.
    fn for_clients_of(&self, namespace: &str) -> &Governing {
        self.consumers.get(namespace).unwrap_or(&self.producer)
    }

    fn change(&mut self, scope: &Scope, change: impl FnOnce(&mut Governing)) {
        match scope {
            Scope::Producer => change(&mut self.producer),
            Scope::Consumer(namespace) => {
                let governing = self.consumers.entry(namespace.clone()).or_default();
                change(governing);
                if governing.is_empty() {
                    self.consumers.remove(namespace);
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.producer.is_empty() && self.consumers.is_empty()
    }
}

impl Governing {
    fn is_empty(&self) -> bool {
        self.http.is_none() && self.streams.is_none()
    }

    pub(super) fn change_http(
        &mut self,
        change: impl FnOnce(&[Arc<<RuleIndex as Bucket>::Route>]) -> Option<RuleIndex>,
    ) {
        let index = change(self.http.as_ref().map_or(&[], |(index, _)| index.routes())).map(Arc::new);
        self.http = index.map(|index| (index.clone(), Arc::new(RouteTable::of_service(index))));
    }

    pub(super) fn change_streams(
        &mut self,
        host: Option<&HostPattern>,
        change: impl FnOnce(&[Arc<<StreamIndex as Bucket>::Route>]) -> Option<StreamIndex>,
    ) {
        let mut hosts = self.streams.take().map(|(hosts, _)| hosts).unwrap_or_default();
        let index = change(hosts.at(host).map_or(&[], |index| index.routes()));
        hosts.set(host, index.map(Arc::new));
        self.streams = (!hosts.is_empty()).then(|| (hosts.clone(), Arc::new(StreamTable::of_service(hosts))));
    }
}

impl ServiceEntry {
    pub(super) fn port(&self, number: u16) -> Option<&PortEntry> {
        let at = self.ports.binary_search_by_key(&number, |p| p.number).ok()?;
        self.ports.get(at)
    }

    /// The port, made if there is none.
    pub(super) fn port_mut(&mut self, number: u16) -> &mut PortEntry {
        let at = match self.ports.binary_search_by_key(&number, |p| p.number) {
            Ok(at) => at,
            Err(at) => {
                self.ports.insert(at, PortEntry { number, ..PortEntry::default() });
                at
            }
        };
        &mut self.ports[at]
    }

    /// Drops ports that nobody speaks of; whether nothing is left.
    pub(super) fn prune(&mut self) -> bool {
        self.ports.retain(|p| p.endpoints.is_some() || p.routes.is_some());
        self.service.is_none() && self.slices.is_empty() && self.policies.is_empty() && self.ports.is_empty()
    }
}
