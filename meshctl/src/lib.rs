//! What the program `meshctl` does, as a library, so that tests drive the same code. It must not parse a command line; `main` does.

pub mod cluster;
pub mod echo;
pub mod playground;
