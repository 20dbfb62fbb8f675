//! Tunnel: HTTP/2 over mTLS to other workloads' :15008, pooled; HBONE streams on it. It must not choose endpoints.

mod fault;
mod pool;
mod slot;
mod stream;

pub use fault::DialFault;
pub use pool::Pool;
pub use slot::{Lease, Slot};
pub use stream::{TunnelStream, connect};
