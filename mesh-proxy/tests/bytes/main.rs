//! Bytes between two meshed pods in one process: real mTLS, real HTTP/2, loopback. It must not need privileges.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod probes;
mod rotation;
mod tunnel;
mod world;
