//! Limits of the process. It must not choose them; it takes what the system grants.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;

/// Raises the number of open files to the hard limit: a node proxy holds several sockets per connection of every pod. Returns the limit.
pub fn raise_open_files() -> io::Result<u64> {
    let now = getrlimit(Resource::Nofile);
    let Some(maximum) = now.maximum else { return Ok(u64::MAX) };
    if now.current != now.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: Some(maximum), maximum: Some(maximum) })?;
    }
    Ok(maximum)
}

#[cfg(test)]
mod tests {
    #[test]
    fn open_files_reach_the_hard_limit() {
        let limit = super::raise_open_files().unwrap();
        let now = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        assert_eq!(now.current.unwrap_or(u64::MAX), limit);
    }
}
