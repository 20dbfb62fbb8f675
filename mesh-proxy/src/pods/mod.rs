//! Pods: the sandboxes of this node, from the CNI's word to served listeners and back. It must not decide who is meshed; `mesh_core::enroll` does.

mod capture;
mod cni;
mod listeners;
mod registry;
mod roster;

pub use capture::{CaptureFault, Serving};
pub use cni::serve as serve_cni;
pub use listeners::{Listeners, Others};
pub use registry::{Registry, RegistryFault, Sandbox};
pub use roster::{Adopt, Answer, Ask, Phases, Roster, Shown};
