//! Inbound: what peers and strangers open towards a workload; terminated, admitted, delivered. It must not decide who is admitted.

mod hbone;
mod plaintext;
mod probe;

pub use hbone::mesh;
pub use plaintext::plaintext;
pub use probe::probe;

use std::net::SocketAddr;

/// How a native request arrived: an extension of each request that `http::deliver` gets.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The peer's address: the source that the application sees.
    pub peer: SocketAddr,
    /// The address that the peer connected to.
    pub local: SocketAddr,
}
