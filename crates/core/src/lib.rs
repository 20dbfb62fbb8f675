//! THINK: the nouns of the mesh and every decision about them. No runtime, no clock, no socket, no file: values in, values out.

pub mod balance;
pub mod capture;
pub mod decide;
pub mod enroll;
pub mod fault;
pub mod filter;
pub mod identity;
pub mod mesh;
pub mod name;
pub mod node;
pub mod records;
pub mod retry;
pub mod route;
pub mod snapshot;

#[cfg(test)]
mod tests;
