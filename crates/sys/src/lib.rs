//! TOUCH: the syscalls that the mesh needs, as safe functions; the only crate where `unsafe` may stand. It must not decide when they are called.

pub mod address;
pub mod descriptors;
pub mod ending;
pub mod folder;
pub mod limit;
#[cfg(feature = "mimalloc")]
pub mod memory;
pub mod netns;
pub mod socket;
pub mod tool;

pub use netns::{Netns, NetnsError, NetnsId};
