//! `mesh-cni`: the plugin (environment and stdin in, JSON out, exit code), or the agent where a word says so. It must not do more.

use clap::Parser;
use mesh_cni::{
    agent,
    fault::{CniFault, Code, chain},
    flags::{Flags, What},
};
use std::{
    io::{Read, Write},
    process::ExitCode,
};

/// Longest network configuration that is read: runtimes add prevResult and args, a few KiB; this stops a runaway.
const STDIN_MAX: u64 = 1024 * 1024;

fn main() -> ExitCode {
    // Runtimes call plugins without arguments.
    if std::env::args_os().len() > 1 { words() } else { plugin() }
}

fn plugin() -> ExitCode {
    let mut stdin = Vec::new();
    let read = std::io::stdin().take(STDIN_MAX).read_to_end(&mut stdin);
    let done = match read {
        Ok(_) => mesh_cni::run(&|name| std::env::var(name).ok(), &stdin),
        Err(error) => Err(CniFault::new(Code::Io, format!("stdin: {error}"))),
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

fn words() -> ExitCode {
    // clap itself ends with 2 when a flag is missing or unknown.
    let done = match Flags::parse().what {
        What::Agent(flags) => agent::run(&flags).map_err(|e| chain(&e)),
        What::Status(flags) => agent::status(&flags),
        What::Uninstall(flags) => agent::uninstall(&flags).map_err(|e| chain(&e)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("mesh-cni: {fault}");
            ExitCode::FAILURE
        }
    }
}
