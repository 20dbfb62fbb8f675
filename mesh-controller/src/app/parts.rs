//! Parts: what differs between a controller of folders and one of a cluster, behind traits. It must not build them; `folders` and `cluster` do.

use crate::{
    authenticate::Authenticate,
    ca::{CertificateAuthority, Grants},
    publish::Publisher,
    source::Source,
    status::Sink,
};
use anyhow::Result;
use prometheus_client::registry::Registry;
use std::{collections::BTreeSet, future::Future, pin::Pin, sync::Arc};
use tokio::task::JoinSet;

/// What all worlds have, for those who build parts.
pub(super) struct Common<'a> {
    /// Name of the mesh.
    pub(super) mesh: String,
    /// Knows how far each proxy is.
    pub(super) publisher: Arc<Publisher>,
    /// Knows who may have which identity.
    pub(super) grants: Grants,
    /// For metrics.
    pub(super) registry: &'a mut Registry,
}

/// Ends the wait of a source.
pub(super) type Stop = Box<dyn FnOnce() + Send>;

/// Opens a source; may block.
pub(super) type Open = Box<dyn FnOnce() -> Result<(Box<dyn Source>, Stop)> + Send>;

/// The parts of one world.
pub(super) struct Parts {
    /// Signs.
    pub(super) authority: Arc<dyn CertificateAuthority>,
    /// Knows callers.
    pub(super) authenticate: Arc<dyn Authenticate>,
    /// Where statuses go.
    pub(super) sink: Arc<dyn Sink>,
    /// Namespaces whose pods are never meshed.
    pub(super) excluded: BTreeSet<String>,
    /// Where objects come from. Opened when the ports are bound, so that a second controller on this machine ends before it does anything.
    pub(super) open: Open,
    /// Run until the end; each says what it is when it ends before.
    pub(super) tasks: JoinSet<&'static str>,
    /// What is done last, when all tasks have ended.
    pub(super) finish: Pin<Box<dyn Future<Output = Result<()>> + Send>>,
}
