//! Mesh: what is meant; nothing dangles in it. The nouns that the planner makes and that each proxy gets a slice of. It must not know Kubernetes types.

mod gateway;
mod policy;
mod probe;
mod route;
mod service;
mod settings;
mod trust;
mod uid;
mod workload;

pub use gateway::*;
pub use policy::*;
pub use probe::*;
pub use route::*;
pub use service::*;
pub use settings::*;
pub use trust::*;
pub use uid::*;
pub use workload::*;
