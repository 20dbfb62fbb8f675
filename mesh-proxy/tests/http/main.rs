//! Requests through a whole proxy in one process: real applications on loopback, clients over in-memory connections. It must not need privileges.
#![expect(clippy::unwrap_used, reason = "tests")]

mod app;
mod filters;
mod gateways;
mod mesh;
mod retries;
mod server;
mod unwatched;
mod upstream;
mod world;
