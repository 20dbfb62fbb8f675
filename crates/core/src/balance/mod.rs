//! Balance: which backend by weight, which endpoint by load. Deterministic given the random number; all state is atomics. It must not dial.

mod p2c;
mod split;

pub use p2c::{EWMA_DECAY, FAILURE_SAMPLE, InFlight, Load};
pub use split::{SMOOTH_WINDOW_MAX, Split};

use crate::{mesh::Workload, name::Text};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// Endpoints of one Service port that may take traffic: the ready ones, else the draining ones.
#[derive(Debug, Default)]
pub struct EndpointSet {
    /// The endpoints, sorted by address, each address once.
    pub endpoints: Vec<Arc<Target>>,
}

/// An endpoint as a thing to dial.
#[derive(Debug)]
pub struct Target {
    /// Address of the application.
    pub address: SocketAddr,
    /// The pod, if the mesh knows it: identity and transport come from it.
    pub workload: Option<Arc<Workload>>,
    /// Zone, empty if unknown.
    pub zone: Text,
    /// Load seen from this proxy; carried over from snapshot to snapshot by address and workload uid.
    pub load: Arc<Load>,
}

impl Target {
    /// All addresses at which the same workload would be reached.
    pub fn everywhere(&self) -> impl Iterator<Item = SocketAddr> {
        let others = self.workload.iter().flat_map(|w| w.addresses.iter());
        others.map(|ip| SocketAddr::new(*ip, self.address.port())).chain([self.address])
    }
}

impl EndpointSet {
    /// Whether an address is among them.
    pub fn contains(&self, address: IpAddr) -> bool {
        let at = self.endpoints.partition_point(|t| t.address.ip() < address);
        self.endpoints.get(at).is_some_and(|t| t.address.ip() == address)
    }

    /// The endpoint at an address.
    pub fn at(&self, address: SocketAddr) -> Option<&Arc<Target>> {
        let at = self.endpoints.binary_search_by_key(&address, |t| t.address).ok()?;
        self.endpoints.get(at)
    }
}
