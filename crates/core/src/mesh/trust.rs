//! The roots that vouch for every identity of the mesh. It must not look into certificates; the TLS stack does.

use std::{fmt, sync::Arc};

/// Whom everybody in the mesh trusts, from some moment on. More than one root while the mesh's root is replaced.
#[derive(Clone, PartialEq, Eq)]
pub struct Roots {
    /// Of two, the one with the higher revision is newer: a proxy that hears of both, over whatever way, keeps that one.
    pub revision: u64,
    /// DER certificates.
    pub certificates: Vec<Arc<[u8]>>,
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots(revision {}, {} certificates)", self.revision, self.certificates.len())
    }
}
