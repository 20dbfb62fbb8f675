//! Gateway: listeners of Gateways. It must not decide routes.

pub mod listeners;
