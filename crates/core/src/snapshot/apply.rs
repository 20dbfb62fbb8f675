//! Apply: puts a delta into a snapshot and compiles again what it touches, nothing else. It must not look anything up for traffic.

use super::{
    Snapshot,
    gateway::GatewayEntry,
    service::{Endpoints, Few, ServiceEntry},
};
use crate::{
    mesh::{Attachment, EndpointSlice, Gateway, HostPattern, HttpRoute, RouteId, Scope, Service, StreamRoute},
    mesh::{TrafficPolicy, Workload},
    name::{GatewayId, NsName, ServiceId, Text},
    node::{NodeDelta, Resource, ResourceId},
    retry::Budget,
    route::{Bucket, CompiledRoute, CompiledStream, RuleIndex, StreamIndex, by_age},
};
use smallvec::SmallVec;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

/// What a delta touches and has to be compiled again.
#[derive(Default)]
struct Touched {
    /// Addresses whose pod changed.
    addresses: BTreeSet<IpAddr>,
    /// Services whose endpoints changed.
    services: BTreeSet<ServiceId>,
    /// Services whose policies changed.
    policies: BTreeSet<ServiceId>,
    http: Changes<RuleIndex>,
    streams: Changes<StreamIndex>,
    gateways: BTreeSet<GatewayId>,
}

/// Place → route → what it is now; none: no longer there.
type Changes<I> = HashMap<Place, BTreeMap<RouteId, Option<Arc<<I as Bucket>::Route>>>>;

/// Where routes meet each other.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Place {
    /// The host pattern is a server name: routes of requests have none here.
    Port(ServiceId, u16, Scope, Option<HostPattern>),
    Listener(GatewayId, Text, Option<HostPattern>),
}

/// Places of a route of requests. On a Service it is chosen by the address that the client dialled, never by host (GEP-1294).
fn http_places(attachments: &[Attachment]) -> Vec<Place> {
    let mut places = places(attachments);
    for place in &mut places {
        if let Place::Port(.., host) = place {
            *host = None;
        }
    }
    places
}

fn places(attachments: &[Attachment]) -> Vec<Place> {
    fn hosts(names: &[HostPattern]) -> Vec<Option<HostPattern>> {
        if names.is_empty() { vec![None] } else { names.iter().cloned().map(Some).collect() }
    }
    let mut places = Vec::new();
    for attachment in attachments {
        match attachment {
            Attachment::Service { service, ports, scope, hostnames } => {
                for host in hosts(hostnames) {
                    let place = |port: &u16| Place::Port(service.clone(), *port, scope.clone(), host.clone());
                    places.extend(ports.iter().map(place));
                }
            }
            Attachment::Listener { gateway, listener, hostnames } => {
                let place = |host| Place::Listener(gateway.clone(), listener.clone(), host);
                places.extend(hosts(hostnames).into_iter().map(place));
            }
        }
    }
    places
}

impl Snapshot {
    pub(super) fn apply(&mut self, delta: &NodeDelta) {
        let mut touched = Touched::default();
        for id in &delta.removes {
            self.take(id, &mut touched);
        }
        for resource in &delta.upserts {
            self.put(resource, &mut touched);
        }
        self.compile(touched);
    }

    fn take(&mut self, id: &ResourceId, touched: &mut Touched) {
        match id {
            // There is always one; what it was stays until a new one comes.
            ResourceId::Settings => {}
            // No decision reads them: they are of the handshakes, which have them from elsewhere.
            ResourceId::Roots => {}
            ResourceId::Workload(id) => self.change_workload(id, None, touched),
            ResourceId::Service(id) => self.change_service(id, None, touched),
            ResourceId::EndpointSlice(id) => self.change_slice(id, None, touched),
            ResourceId::Certificate(id) => drop(self.certificates.remove(id)),
            ResourceId::Gateway(id) => self.change_gateway(id, None, touched),
            ResourceId::HttpRoute(id) => self.change_http_route(id, None, touched),
            ResourceId::StreamRoute(id) => self.change_stream_route(id, None, touched),
            ResourceId::TrafficPolicy(id) => self.change_policy(id, None, touched),
        }
    }

    fn put(&mut self, resource: &Resource, touched: &mut Touched) {
        match resource {
            Resource::Settings(s) => self.settings = s.clone(),
            Resource::Roots(_) => {}
            Resource::Workload(w) => self.change_workload(&w.id, Some(w), touched),
            Resource::Service(s) => self.change_service(&s.id, Some(s), touched),
            Resource::EndpointSlice(s) => self.change_slice(&s.id, Some(s), touched),
            Resource::Certificate(c) => drop(self.certificates.insert(c.id.clone(), c.clone())),
            Resource::Gateway(g) => self.change_gateway(&g.id, Some(g), touched),
            Resource::HttpRoute(r) => self.change_http_route(&r.id, Some(r), touched),
            Resource::StreamRoute(r) => self.change_stream_route(&r.id, Some(r), touched),
            Resource::TrafficPolicy(p) => self.change_policy(&p.id, Some(p), touched),
        }
    }

    fn change_workload(&mut self, id: &NsName, new: Option<&Arc<Workload>>, touched: &mut Touched) {
        let old = match new {
            Some(new) => self.workloads.insert(new.clone()),
            None => self.workloads.remove(id),
        };
        if old.as_ref() == new {
            return;
        }
        let before = old.as_ref().map_or(&[][..], |w| &w.addresses);
        let after = new.map_or(&[][..], |w| &w.addresses);
        // A pod of the same name but another uid is another pod: its claim is new.
        let another = old.as_ref().is_some_and(|o| new.is_some_and(|n| o.uid != n.uid));
        if another {
            self.workloads_at.replace(before, &[], id);
        }
        self.workloads_at.replace(if another { &[] } else { before }, after, id);
        touched.addresses.extend(before.iter().chain(after));
    }

    fn change_service(&mut self, id: &ServiceId, new: Option<&Arc<Service>>, touched: &mut Touched) {
        if self.service(id) == new {
            return;
        }
        let old = std::mem::replace(&mut self.service_mut(id).service, new.cloned());
        let before = old.as_ref().map_or(&[][..], |s| &s.addresses);
        self.services_at.replace(before, new.map_or(&[][..], |s| &s.addresses), id);
        touched.services.insert(id.clone());
    }

    fn change_slice(&mut self, id: &NsName, new: Option<&Arc<EndpointSlice>>, touched: &mut Touched) {
        let old = match new {
            Some(new) => self.slices.insert(new.clone()),
            None => self.slices.remove(id),
        };
        if old.as_ref() == new {
            return;
        }
        let addresses = |s: Option<&Arc<EndpointSlice>>| -> BTreeSet<IpAddr> {
            s.into_iter().flat_map(|s| s.endpoints.iter().map(|e| e.address)).collect()
        };
        let (before, after) = (addresses(old.as_ref()), addresses(new));
        before.difference(&after).for_each(|a| self.slices_at.release(*a, id));
        after.difference(&before).for_each(|a| self.slices_at.claim(*a, id));
        let (from, to) = (old.map(|s| s.service.clone()), new.map(|s| s.service.clone()));
        if from != to {
            from.iter().for_each(|s| self.service_mut(s).slices.retain(|x| x != id));
            to.iter().for_each(|s| insert_sorted(&mut self.service_mut(s).slices, id));
        }
        touched.services.extend(from.into_iter().chain(to));
    }

    fn change_policy(&mut self, id: &NsName, new: Option<&Arc<TrafficPolicy>>, touched: &mut Touched) {
        let old = match new {
            Some(new) => self.policies.insert(id.clone(), new.clone()),
            None => self.policies.remove(id),
        };
        if old.as_ref() == new {
            return;
        }
        for service in old.iter().flat_map(|p| &p.targets) {
            self.service_mut(service).policies.retain(|x| x != id);
            touched.policies.insert(service.clone());
        }
        for service in new.iter().flat_map(|p| &p.targets) {
            insert_sorted(&mut self.service_mut(service).policies, id);
            touched.policies.insert(service.clone());
        }
    }

    fn change_gateway(&mut self, id: &GatewayId, new: Option<&Arc<Gateway>>, touched: &mut Touched) {
        if self.gateway(id) == new {
            return;
        }
        self.gateway_mut(id).gateway = new.cloned();
        touched.gateways.insert(id.clone());
    }

    fn change_http_route(&mut self, id: &RouteId, new: Option<&Arc<HttpRoute>>, touched: &mut Touched) {
        if self.http_routes.get(id).map(|old| &old.route) == new {
            return;
        }
        let old = self.http_routes.remove(id);
        for place in old.iter().flat_map(|r| http_places(&r.route.attachments)) {
            touched.http.entry(place).or_default().insert(id.clone(), None);
        }
        let Some(new) = new else { return };
        let compiled = Arc::new(CompiledRoute::new(new.clone(), old.as_deref()));
        for place in http_places(&new.attachments) {
            touched.http.entry(place).or_default().insert(id.clone(), Some(compiled.clone()));
        }
        self.http_routes.insert(id.clone(), compiled);
    }

    fn change_stream_route(&mut self, id: &RouteId, new: Option<&Arc<StreamRoute>>, touched: &mut Touched) {
        if self.stream_routes.get(id).map(|old| &old.route) == new {
            return;
        }
        let old = self.stream_routes.remove(id);
        for place in old.iter().flat_map(|r| places(&r.route.attachments)) {
            touched.streams.entry(place).or_default().insert(id.clone(), None);
        }
        let Some(new) = new else { return };
        let compiled = Arc::new(CompiledStream::new(new.clone(), old.as_deref()));
        for place in places(&new.attachments) {
            touched.streams.entry(place).or_default().insert(id.clone(), Some(compiled.clone()));
        }
        self.stream_routes.insert(id.clone(), compiled);
    }

    fn compile(&mut self, mut touched: Touched) {
        for address in &touched.addresses {
            for slice in self.slices_at.of(*address) {
                touched.services.extend(self.slices.get(slice).map(|s| s.service.clone()));
            }
        }
        for id in &touched.services {
            self.compile_endpoints(id);
        }
        for id in &touched.policies {
            self.compile_budget(id);
        }
        let mut services: BTreeSet<_> = touched.services.into_iter().chain(touched.policies).collect();
        for (place, changes) in touched.http {
            match place {
                Place::Port(service, port, scope, _) => {
                    let port = self.service_mut(&service).port_mut(port);
                    port.change_routes(&scope, |g| g.change_http(|before| changed(before, changes)));
                    services.insert(service);
                }
                Place::Listener(gateway, listener, host) => {
                    let entry = self.gateway_mut(&gateway);
                    entry.change_http(&listener, host.as_ref(), |before| changed(before, changes));
                    touched.gateways.insert(gateway);
                }
            }
        }
        for (place, changes) in touched.streams {
            match place {
                Place::Port(service, port, scope, host) => {
                    let port = self.service_mut(&service).port_mut(port);
                    port.change_routes(&scope, |g| g.change_streams(host.as_ref(), |before| changed(before, changes)));
                    services.insert(service);
                }
                Place::Listener(gateway, listener, host) => {
                    let entry = self.gateway_mut(&gateway);
                    entry.change_streams(&listener, host.as_ref(), |before| changed(before, changes));
                    touched.gateways.insert(gateway);
                }
            }
        }
        for id in touched.gateways {
            let entry = self.gateway_mut(&id);
            entry.assemble();
            if entry.is_empty() {
                self.gateways.remove(&id);
            }
        }
        for id in services {
            if self.service_mut(&id).prune() {
                self.services.remove(&id);
            }
        }
    }

    /// The endpoints of its ports are to be merged anew: at once where somebody asked for them before, so that no request has to do it; else
    /// when somebody first asks.
    fn compile_endpoints(&mut self, id: &ServiceId) {
        let Some(entry) = self.services.get(id) else { return };
        let ports = entry.service.as_ref().map_or(&[][..], |s| &s.ports);
        let of = |number| entry.port(number).and_then(|p| p.endpoints.as_ref());
        let changed: BTreeMap<_, _> =
            ports.iter().map(|p| (p.number, of(p.number).map(Endpoints::changed).unwrap_or_default())).collect();
        let entry = self.service_mut(id);
        entry.ports.iter_mut().for_each(|p| p.endpoints = None);
        let mut asked: SmallVec<[u16; 4]> = SmallVec::new();
        for (number, endpoints) in changed {
            asked.extend(endpoints.was_asked_for().then_some(number));
            entry.port_mut(number).endpoints = Some(endpoints);
        }
        for number in asked {
            self.endpoints(id, number);
        }
    }

    fn compile_budget(&mut self, id: &ServiceId) {
        let Some(entry) = self.services.get(id) else { return };
        let rule = entry.policies.iter().find_map(|p| self.policies.get(p)?.retry_budget);
        let budget = match (&entry.budget, rule) {
            (Some(budget), Some(rule)) if *budget.rule() == rule => return,
            (_, rule) => rule.map(|rule| Arc::new(Budget::new(rule))),
        };
        self.service_mut(id).budget = budget;
    }

    fn service_mut(&mut self, id: &ServiceId) -> &mut ServiceEntry {
        Arc::make_mut(self.services.entry(id.clone()).or_default())
    }

    fn gateway_mut(&mut self, id: &GatewayId) -> &mut GatewayEntry {
        Arc::make_mut(self.gateways.entry(id.clone()).or_default())
    }
}

fn insert_sorted(names: &mut Few<NsName>, name: &NsName) {
    if let Err(at) = names.binary_search(name) {
        names.insert(at, name.clone());
    }
}

/// A place's routes after `changes`; none if none are left.
fn changed<I: Bucket>(before: &[Arc<I::Route>], changes: BTreeMap<RouteId, Option<Arc<I::Route>>>) -> Option<I> {
    use crate::route::Aged;
    let stay = before.iter().filter(|r| !changes.contains_key(r.id())).cloned();
    let mut routes: Vec<_> = stay.collect();
    routes.extend(changes.into_values().flatten());
    routes.sort_by(|a, b| by_age(&**a, &**b));
    (!routes.is_empty()).then(|| I::build(routes))
}
