//! Endpoints: the slices of a Service merged into what may take traffic on one port. It must not choose among them.

use crate::{
    balance::{EndpointSet, Target},
    mesh::{Endpoint, EndpointHealth, EndpointSlice, Uid, Workload},
};
use std::{net::SocketAddr, sync::Arc};

/// Who is behind an endpoint.
pub(super) enum Behind {
    /// A pod that the mesh knows.
    Workload(Arc<Workload>),
    /// Something that no pod is known to be.
    Outside,
    /// A pod that this proxy has not been told of. Whether it is meshed is unknown, so it gets nothing, rather than plaintext.
    Unknown,
}

/// Merges slices for one port. Targets of `before` are kept where they are still the same, so that their load survives.
pub(super) fn merge<'a>(
    slices: impl Iterator<Item = &'a Arc<EndpointSlice>>,
    port: u16,
    behind: impl Fn(&Endpoint) -> Behind,
    before: Option<&EndpointSet>,
) -> EndpointSet {
    let mut found = Vec::new();
    for slice in slices {
        let Some(mapping) = slice.ports.iter().find(|m| m.service_port == port) else { continue };
        let usable = slice.endpoints.iter().filter(|e| e.health != EndpointHealth::NotReady);
        found.extend(usable.map(|e| (SocketAddr::new(e.address.to_canonical(), mapping.target_port), e)));
    }
    // EndpointSlice: "a given endpoint can show up in more than one slice at the same time"; its better state counts.
    found.sort_by_key(|(address, e)| (*address, e.health != EndpointHealth::Ready));
    found.dedup_by_key(|(address, _)| *address);
    let known = found.into_iter().filter_map(|(address, e)| match behind(e) {
        Behind::Workload(workload) => Some((address, e, Some(workload))),
        Behind::Outside => Some((address, e, None)),
        Behind::Unknown => None,
    });
    let known: Vec<_> = known.collect();
    let any_ready = known.iter().any(|(_, e, _)| e.health == EndpointHealth::Ready);
    let taken = known.into_iter().filter(|(_, e, _)| !any_ready || e.health == EndpointHealth::Ready);
    let endpoints =
        taken.map(|(address, e, workload)| target(address, e, workload, before.and_then(|b| b.at(address))));
    EndpointSet { endpoints: endpoints.collect() }
}

fn target(
    address: SocketAddr,
    e: &Endpoint,
    workload: Option<Arc<Workload>>,
    before: Option<&Arc<Target>>,
) -> Arc<Target> {
    let before = before.filter(|b| uid(&b.workload) == uid(&workload));
    match before {
        Some(b) if b.zone == e.zone && b.workload == workload => b.clone(),
        _ => {
            let load = before.map(|b| b.load.clone()).unwrap_or_default();
            Arc::new(Target { address, workload, zone: e.zone.clone(), load })
        }
    }
}

fn uid(workload: &Option<Arc<Workload>>) -> Option<&Uid> {
    workload.as_ref().map(|w| &w.uid)
}
