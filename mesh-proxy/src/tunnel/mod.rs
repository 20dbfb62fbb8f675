//! Tunnel: HTTP/2 over mTLS to other workloads' :15008, pooled; HBONE streams on it. It must not choose endpoints.

mod connection;
mod fault;
pub mod limits;
mod ping;
mod pool;
pub mod server;
mod slot;
mod stream;
mod window;

pub(crate) use connection::lapse;
pub use fault::DialFault;
pub(crate) use fault::is_refused;
pub use pool::{Pool, Reached, Way};
pub use slot::{Lease, Slot};
pub use stream::{TunnelStream, connect};
pub use window::Open;
