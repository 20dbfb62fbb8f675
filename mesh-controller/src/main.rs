//! `mesh-controller`: reads its flags, starts the log, and runs the app. It must not do more.

use clap::Parser;
use mesh_controller::{
    app,
    settings::{Flags, Settings},
};
use std::process::ExitCode;

/// Reading a hundred thousand objects makes and drops millions of small things among those that stay; SPECIFICATION.md says what this allocator
/// saves of it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // First of all, as every allocation may be one in a huge page.
    if let Err(error) = mesh_sys::memory::small_pages() {
        eprintln!("mesh-controller: the kernel gives huge pages, and the process may take more memory: {error}");
    }
    let settings = match Settings::check(Flags::parse()) {
        Ok(settings) => settings,
        Err(bad) => {
            eprintln!("{bad}");
            return ExitCode::from(2);
        }
    };
    let log = match mesh_run::log::start(&settings.log) {
        Ok(log) => log,
        Err(bad) => {
            eprintln!("--log {}: {bad}", settings.log);
            return ExitCode::from(2);
        }
    };
    match app::run(settings, log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mesh-controller: {error:#}");
            ExitCode::FAILURE
        }
    }
}
