//! Publish: keeps every proxy at its slice of the mesh, by deltas over one gRPC stream each. It must not plan; it must not wait for a slow proxy.

mod config;
mod mesh;
mod metrics;
mod publisher;
mod session;
mod slice;
mod stage;

pub use config::{ConfigService, SESSION_LIFE};
pub use mesh::{Changed, Entry, Mesh};
pub use metrics::Metrics;
pub use publisher::{ProxyState, Publisher, Taken};
pub use slice::{Slice, slice};
