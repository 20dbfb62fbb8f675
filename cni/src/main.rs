//! `mesh-cni`: environment and stdin in, JSON out, exit code. It must not do more.

use std::{
    io::{Read, Write},
    process::ExitCode,
};

/// Longest network configuration that is read: runtimes add prevResult and args, a few KiB; this stops a runaway.
const STDIN_MAX: u64 = 1024 * 1024;

fn main() -> ExitCode {
    let mut stdin = Vec::new();
    let read = std::io::stdin().take(STDIN_MAX).read_to_end(&mut stdin);
    let done = match read {
        Ok(_) => mesh_cni::run(&|name| std::env::var(name).ok(), &stdin),
        Err(error) => Err(mesh_cni::fault::CniFault::new(mesh_cni::fault::Code::Io, format!("stdin: {error}"))),
    };
    let (out, code) = match done {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(value)) => (value, ExitCode::SUCCESS),
        Err(fault) => (fault.json(mesh_cni::conf::version_of(&stdin).ok().flatten()), ExitCode::FAILURE),
    };
    match writeln!(std::io::stdout(), "{out}") {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}
