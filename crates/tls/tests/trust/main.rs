//! The crate as its users see it: handshakes, time, the authority, gateway certificates, and damaged input. One binary, because they share a forge.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod authority;
mod forge;
mod fuzz;
mod gateway;
mod handshakes;
mod rotation;
