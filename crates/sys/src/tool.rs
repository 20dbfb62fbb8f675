//! Running `nft` and `ip` inside a network namespace. It must not compose rules; it applies text, and names what is missing.

use crate::netns::{Netns, NetnsError};
use std::{
    io::{self, Write},
    process::{Command, Stdio},
};

/// Why a tool did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// The program is not installed.
    #[error("the program `{program}` is not installed (package {package})")]
    Missing {
        /// Program that was looked for.
        program: &'static str,
        /// Package that has it, in Debian's naming.
        package: &'static str,
    },
    /// The namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The program could not be started or fed.
    #[error("cannot run `{program}`")]
    Run {
        /// Program that was started.
        program: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The program refused.
    #[error("`{program}` failed: {stderr}")]
    Refused {
        /// Program that ran.
        program: &'static str,
        /// What it wrote.
        stderr: String,
    },
}

/// Applies nftables text inside a namespace, all of it or nothing (`nft -f -` is one transaction).
pub fn apply_nft(netns: &Netns, ruleset: &str) -> Result<(), ToolError> {
    feed(netns, "nft", "nftables", &["-f", "-"], ruleset, |_| false)
}

/// Fails unless the namespace has a table of family inet with this name.
pub fn nft_has_table(netns: &Netns, table: &str) -> Result<(), ToolError> {
    feed(netns, "nft", "nftables", &["list", "table", "inet", table], "", |_| false)
}

/// Applies `ip -batch` text of one address family inside a namespace; what is there already is no error.
pub fn apply_ip(netns: &Netns, family: &'static str, batch: &str) -> Result<(), ToolError> {
    feed(netns, "ip", "iproute2", &[family, "-force", "-batch", "-"], batch, |line| {
        line.contains("File exists") || line.starts_with("Command failed -:")
    })
}

/// Removes by `ip -batch` text; what is not there is no error.
pub fn remove_ip(netns: &Netns, family: &'static str, batch: &str) -> Result<(), ToolError> {
    feed(netns, "ip", "iproute2", &[family, "-force", "-batch", "-"], batch, |line| {
        line.contains("No such file or directory")
            || line.contains("No such process")
            || line.starts_with("Command failed -:")
    })
}

/// Whether the namespace has IPv6 at all; where it is off, no rule for it can be set and none is needed.
pub fn has_ipv6(netns: &Netns) -> Result<bool, NetnsError> {
    // /proc/sys/net shows the namespace of the thread that reads it.
    netns.run(|| std::fs::read_to_string("/proc/sys/net/ipv6/conf/lo/disable_ipv6").is_ok_and(|off| off.trim() == "0"))
}

/// Starts `program` inside the namespace, feeds it `input` and waits. `harmless` says which lines of stderr are no failure.
fn feed(
    netns: &Netns,
    program: &'static str,
    package: &'static str,
    args: &[&str],
    input: &str,
    harmless: impl Fn(&str) -> bool,
) -> Result<(), ToolError> {
    let run = |source| ToolError::Run { program, source };
    // The child is made by the thread that is inside, so it lives there; the thread comes back at once.
    let spawned = netns.run(|| {
        Command::new(program).args(args).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
    })?;
    let mut child = spawned.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ToolError::Missing { program, package },
        _ => run(source),
    })?;
    let fed = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().map_err(run)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() && (stderr.trim().is_empty() || !stderr.lines().all(&harmless)) {
        return Err(ToolError::Refused { program, stderr: stderr.trim().to_owned() });
    }
    fed.map_err(run)
}
