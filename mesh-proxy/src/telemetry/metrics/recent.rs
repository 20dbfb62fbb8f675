//! Recent: the counters that a thread used last, found by where their names lie instead of by what they say: a hash of eight labels costs more
//! than routing. It must not decide what is counted.

use super::super::{Direction, Record};
use mesh_core::{
    fault::Fault,
    mesh::{RouteId, Workload},
    name::{NsName, ServiceId, Text},
};
use prometheus_client::metrics::{counter::Counter, histogram::Histogram};
use std::{cell::RefCell, sync::Arc};

/// Counters that one thread remembers of each kind: more than a node's busy routes, less than a page of memory for each.
const PLACES: usize = 64;

/// Counters of requests with the same names.
#[derive(Clone, Debug)]
pub(super) struct Requests {
    pub(super) total: Counter,
    pub(super) latency: Histogram,
}

/// Remembered counters, each with the names that it bears. They hold their names, so no other name can come to lie there meanwhile.
type Places<N, C> = [Option<Box<(N, C)>>; PLACES];

thread_local! {
    static REQUESTS: RefCell<Places<RequestNames, Requests>> = const { RefCell::new([const { None }; PLACES]) };
    static ATTEMPTS: RefCell<Places<AttemptNames, Counter>> = const { RefCell::new([const { None }; PLACES]) };
}

/// What a request is counted under.
struct RequestNames {
    family: usize,
    direction: Direction,
    local: Option<Arc<Workload>>,
    service: Option<(ServiceId, u16)>,
    route: Option<RouteId>,
    rule: Option<Text>,
    status: Option<http::StatusCode>,
    fault: Option<Fault>,
}

/// What an attempt is counted under.
struct AttemptNames {
    family: usize,
    service: Option<(ServiceId, u16)>,
    fault: Option<Fault>,
}

/// The counters of a request's names; `find` looks for them the long way. `family`: which set of families, of those of this process.
pub(super) fn requests(family: usize, record: &Record, find: impl FnOnce() -> Requests) -> Requests {
    let local = record.local();
    let place = address(record.rule.as_deref())
        ^ address(record.service.as_ref().map(|(id, _)| &*id.name))
        ^ local.map_or(0, |w| Arc::as_ptr(w) as usize)
        ^ record.status.map_or(0, |s| usize::from(s.as_u16()) << 4);
    REQUESTS.with_borrow_mut(|places| {
        let kept = &mut places[place_of(place)];
        match kept.as_deref() {
            Some((names, found)) if names.are(family, record) => found.clone(),
            _ => {
                let found = find();
                *kept = Some(Box::new((RequestNames::of(family, record), found.clone())));
                found
            }
        }
    })
}

/// The counter of an attempt's names, likewise.
pub(super) fn attempts(
    family: usize,
    service: Option<&(ServiceId, u16)>,
    fault: Option<Fault>,
    find: impl FnOnce() -> Counter,
) -> Counter {
    let place = address(service.map(|(id, _)| &*id.name)) ^ fault.map_or(0, |f| (f as usize) << 4);
    ATTEMPTS.with_borrow_mut(|places| {
        let kept = &mut places[place_of(place)];
        match kept.as_deref() {
            Some((names, found))
                if names.family == family && names.fault == fault && same_service(names.service.as_ref(), service) =>
            {
                found.clone()
            }
            _ => {
                let found = find();
                let names = AttemptNames { family, service: service.cloned(), fault };
                *kept = Some(Box::new((names, found.clone())));
                found
            }
        }
    })
}

impl RequestNames {
    fn of(family: usize, record: &Record) -> Self {
        Self {
            family,
            direction: record.direction,
            local: record.local().cloned(),
            service: record.service.clone(),
            route: record.route.clone(),
            rule: record.rule.clone(),
            status: record.status,
            fault: record.fault,
        }
    }

    fn are(&self, family: usize, record: &Record) -> bool {
        let same_local = match (&self.local, record.local()) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        let same_route = match (&self.route, &record.route) {
            (Some(a), Some(b)) => a.kind == b.kind && same_name(&a.name, &b.name),
            (a, b) => a.is_none() && b.is_none(),
        };
        same_local
            && same_route
            && same_text(self.rule.as_deref(), record.rule.as_deref())
            && same_service(self.service.as_ref(), record.service.as_ref())
            && (self.family, self.direction, self.status, self.fault)
                == (family, record.direction, record.status, record.fault)
    }
}

fn same_service(a: Option<&(ServiceId, u16)>, b: Option<&(ServiceId, u16)>) -> bool {
    match (a, b) {
        (Some((a, port_a)), Some((b, port_b))) => port_a == port_b && same_name(a, b),
        (a, b) => a.is_none() && b.is_none(),
    }
}

fn same_name(a: &NsName, b: &NsName) -> bool {
    same_text(Some(&a.name), Some(&b.name)) && same_text(Some(&a.namespace), Some(&b.namespace))
}

/// Whether both lie at one place. Equal texts at two places are not found out here; then the long way is gone.
fn same_text(a: Option<&str>, b: Option<&str>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => std::ptr::eq(a, b),
        (a, b) => a.is_none() && b.is_none(),
    }
}

fn address(text: Option<&str>) -> usize {
    text.map_or(0, |t| t.as_ptr() as usize)
}

/// Addresses are multiples of 8 at least, so their lowest bits say nothing.
fn place_of(mixed: usize) -> usize {
    ((mixed >> 4) ^ (mixed >> 10) ^ (mixed >> 16)) % PLACES
}
