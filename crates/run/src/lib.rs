//! RUN: the life of a process: its own log, span export, admin server, readiness, drain, signals. It must not know what the process is for.
//!
//! A program starts with [`log::start`], makes a [`Readiness`] and a [`Drain`], serves [`Admin`], waits for [`signals::stop`], starts the drain
//! and ends when it is over or its time is up.

pub mod admin;
pub mod drain;
pub mod log;
pub mod readiness;
pub mod signals;
pub mod spans;

pub use admin::Admin;
pub use drain::Drain;
pub use log::LogLevel;
pub use readiness::{Condition, Readiness};
