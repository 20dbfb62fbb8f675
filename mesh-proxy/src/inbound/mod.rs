//! Inbound: what peers and strangers open towards a workload; terminated, admitted, delivered. It must not decide who is admitted.

mod hbone;
mod plaintext;
mod probe;

pub use hbone::mesh;
pub use plaintext::plaintext;
pub use probe::probe;

use std::net::SocketAddr;

/// Where a peer's connection came from and where it arrived: what admission asks of each of its streams.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The peer's address: the source that the application sees.
    pub peer: SocketAddr,
    /// The address that the peer connected to.
    pub local: SocketAddr,
}
