//! `mesh-proxy`: flags in, exit code out. It must not do more.

use clap::Parser;
use mesh_proxy::{
    app,
    settings::{Flags, Settings},
};
use std::process::ExitCode;

/// Each request makes and drops some dozens of small things; SPECIFICATION.md says what this allocator saves of a request.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // First of all, as every allocation may be one in a huge page.
    if let Err(error) = mesh_sys::memory::small_pages() {
        eprintln!("mesh-proxy: the kernel gives huge pages, and the process may take more memory: {error}");
    }
    // clap itself ends with 2 when a flag is missing or unknown.
    let settings = match Settings::try_from(Flags::parse()) {
        Ok(settings) => settings,
        Err(bad) => {
            eprintln!("{bad}");
            return ExitCode::from(2);
        }
    };
    match app::run(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("mesh-proxy: {}", mesh_proxy::fault::chain(&*fault));
            ExitCode::from(if fault.is::<mesh_run::log::BadFilter>() { 2 } else { 1 })
        }
    }
}
