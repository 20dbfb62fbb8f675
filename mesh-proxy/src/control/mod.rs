//! Control: the config stream, the cache of the last config and the SVID client. It must not touch connections.
//!
//! ```text
//!   cache file ──► Held ──► watch::Sender<Option<Arc<Snapshot>>> ──► data path
//!                   ▲ delta / ack, nack
//!   controller ─────┴──── Link (TLS to the pinned CA, token) ──── SvidClient ──► Svids
//! ```
//! Everything here runs on the control runtime. A controller that is gone changes nothing: the last good config serves on.

mod cache;
mod config;
mod held;
mod link;
mod svid;

pub use cache::{Cache, CacheFault};
pub use config::{ConfigClient, ConfigView};
pub use held::Held;
pub use link::{Link, LinkFault};
pub use svid::SvidClient;
