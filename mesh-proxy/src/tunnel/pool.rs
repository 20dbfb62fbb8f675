//! The pool of connections to peers. It must not hold a lock while it dials.

use super::{DialFault, Slot};
use crate::local::Local;
use mesh_core::{balance::Target, identity::Identity};
use std::sync::Arc;

/// Connections to peers, kept as long as what they trust.
#[derive(Clone, Debug, Default)]
pub struct Pool {}

impl Pool {
    /// A stream slot on a connection from `local` to `target`'s workload, whose certificate must be `peer`'s; dials if there is none.
    /// Bounded by `limits.handshake`. Cancelling it leaves the dial to those who also wait for it.
    pub async fn open(&self, _local: &Arc<Local>, _target: &Target, _peer: &Identity) -> Result<Slot, DialFault> {
        todo!("l4")
    }
}
