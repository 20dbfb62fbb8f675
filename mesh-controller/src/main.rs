//! `mesh-controller`: reads its flags, starts the log, and runs the app. It must not do more.

use clap::Parser;
use mesh_controller::{
    app,
    settings::{Flags, Settings},
};
use std::process::ExitCode;

fn main() -> ExitCode {
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
