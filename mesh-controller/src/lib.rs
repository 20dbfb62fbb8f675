//! The controller: objects in, plan, per-node config and statuses out. It must not see pod traffic.

pub mod api;
#[cfg(test)]
pub(crate) mod api_server;
pub mod app;
pub mod authenticate;
pub mod ca;
mod few;
pub mod inventory;
pub mod leader;
pub mod plan;
pub mod publish;
pub mod settings;
pub mod source;
pub mod status;
