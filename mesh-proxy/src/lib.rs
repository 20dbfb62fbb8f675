//! The node proxy and the ingress proxy: takes traffic, proves who speaks, decides with `mesh-core`, carries bytes. It must not know Kubernetes.

mod ahead;
pub mod app;
mod batch;
pub mod control;
pub mod fault;
pub mod gateway;
pub mod http;
pub mod inbound;
pub mod listen;
pub mod local;
pub mod outbound;
mod parting;
pub mod pods;
pub mod settings;
pub mod shared;
pub mod tcp;
pub mod telemetry;
pub mod tunnel;
pub mod turn;
