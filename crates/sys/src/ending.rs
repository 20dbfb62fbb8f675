//! SIGTERM and SIGINT for a program of threads. It must not end it; the caller does.

use nix::sys::signal::{SigSet, Signal};
use std::io;

/// The signals that end a program, held back so that a thread can wait for them.
#[derive(Debug)]
pub struct Ending(SigSet);

impl Ending {
    /// Holds them back. Call before any thread is made: each has its own mask, inherited from who makes it. The first process of a container
    /// needs this, because the kernel gives it no signal that it does not ask for.
    pub fn expect() -> io::Result<Self> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGTERM);
        set.add(Signal::SIGINT);
        set.thread_block()?;
        Ok(Self(set))
    }

    /// Waits for one; its name.
    pub fn wait(&self) -> io::Result<&'static str> {
        Ok(self.0.wait()?.as_str())
    }
}
