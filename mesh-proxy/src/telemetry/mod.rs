//! Telemetry: access log, metrics, spans. It must never block a connection.

/// Where the proxy tells what happened.
#[derive(Clone, Debug, Default)]
pub struct Telemetry {}

/// What is told of one connection when it ends; the layer that carries it fills it.
#[derive(Debug, Default)]
pub struct Connection {}
