//! Balance: which backend by weight, which endpoint by load. Deterministic given the random number; all state is atomics. It must not dial.

use crate::{mesh::Workload, name::Text};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

/// Smooth weighted choice: exact over each window of the (reduced) total weight, spread evenly within it.
#[derive(Debug)]
pub struct Split {}

impl Split {
    /// For these weights; all zero or none: nothing is ever chosen.
    pub fn new(_weights: &[u32]) -> Self {
        todo!("core")
    }

    /// The index of the next choice.
    pub fn next(&self) -> Option<usize> {
        todo!("core")
    }
}

/// Endpoints of one Service port that may take traffic: the ready ones, else the draining ones.
#[derive(Debug, Default)]
pub struct EndpointSet {
    /// The endpoints, sorted by address.
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

/// What this proxy knows of an endpoint's load: requests in flight and EWMA of latency, in atomics.
#[derive(Debug, Default)]
pub struct Load {}

/// A request in flight; dropping it without [`InFlight::done`] counts it as ended without a latency sample.
#[derive(Debug)]
pub struct InFlight {
    load: Arc<Load>,
}

impl InFlight {
    /// The attempt got its response head at `now`; a failure is sampled as slow so that the next choice avoids it.
    pub fn done(self, _now: Instant, _failed: bool) {
        let _ = &self.load;
        todo!("core")
    }
}

impl Load {
    /// Counts an attempt that starts at `now`.
    pub fn start(self: &Arc<Self>, _now: Instant) -> InFlight {
        todo!("core")
    }
}

/// Time after which an EWMA sample has lost 1/e of its weight.
pub const EWMA_DECAY: Duration = Duration::from_secs(10);

impl EndpointSet {
    /// Power of two choices over load, avoiding `tried` addresses while another is left. `random` is any uniform 64-bit number.
    pub fn pick(&self, _random: u64, _now: Instant, _tried: &[SocketAddr]) -> Option<&Arc<Target>> {
        todo!("core")
    }

    /// Whether an address is among them.
    pub fn contains(&self, _address: IpAddr) -> bool {
        todo!("core")
    }
}
