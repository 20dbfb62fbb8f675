//! Ask: what the CNI asks the roster, and what it hears. It must not decide.

use crate::pods::registry::Sandbox;
use mesh_sys::Netns;
use std::{path::PathBuf, sync::Arc};
use tokio::sync::oneshot;

/// What the CNI asks.
#[derive(Debug)]
pub enum Ask {
    /// A sandbox exists.
    Add {
        /// What the plugin said of it.
        sandbox: Sandbox,
        /// Its namespace.
        netns: Arc<Netns>,
        /// Answered when the pod may start.
        reply: oneshot::Sender<Answer>,
    },
    /// A sandbox goes away.
    Del {
        /// Which.
        container: String,
        /// Path of its namespace, if the runtime says it; else empty.
        netns: PathBuf,
        /// Answered when nothing is left of it.
        reply: oneshot::Sender<Answer>,
    },
    /// Is a sandbox as ADD left it?
    Check {
        /// Which.
        container: String,
        /// Answered after a look.
        reply: oneshot::Sender<Answer>,
    },
    /// Would ADD be served?
    Status {
        /// Answered at once.
        reply: oneshot::Sender<Answer>,
    },
    /// Only these still exist.
    Gc {
        /// Container ids.
        valid: Vec<String>,
        /// Answered at once.
        reply: oneshot::Sender<Answer>,
    },
}

/// What the CNI hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done.
    Done {
        /// Whether the pod is captured.
        meshed: bool,
    },
    /// Not done.
    Failed {
        /// Why, naming the pod.
        message: String,
        /// Whether to try again.
        retry: bool,
    },
}
