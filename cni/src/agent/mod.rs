//! The node agent: keeps the plugin in its place and the proxy's listeners open, until it is told to end. It must not speak to the controller.
//!
//! What it did stays when it ends: pods that start meanwhile still wait for the proxy. [`uninstall`] undoes it.

mod holder;
mod place;

use crate::{
    fault::chain,
    flags::{Agent, Place as Flags},
};
use mesh_sys::{ending::Ending, folder::Folders};
use place::{Place, PlaceFault, State};
use std::{io, thread, time::Duration};

/// How often the folders are looked at though nobody told of a change: a folder may have been replaced by another of its name.
const LOOK: Duration = Duration::from_secs(5);

/// Likewise while something is wrong or missing, so that it is put right within a second.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// A writer writes in several steps; they are read together.
const SETTLE: Duration = Duration::from_millis(20);

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentFault {
    /// Signals, inotify or threads are not to be had.
    #[error("{0}")]
    Start(&'static str, #[source] io::Error),
}

/// Runs until SIGTERM or SIGINT.
pub fn run(flags: &Agent) -> Result<(), AgentFault> {
    let start = |what| move |source| AgentFault::Start(what, source);
    let ending = Ending::expect().map_err(start("cannot hold signals back"))?;
    let folders = Folders::none().map_err(start("cannot watch folders"))?;
    if let Some(socket) = &flags.holder_socket {
        holder::start(socket).map_err(start("cannot serve --holder-socket"))?;
    }
    let place = Place::new(&flags.place);
    let thread = thread::Builder::new().name("place".into());
    thread.spawn(move || keep(place, &folders)).map_err(start("cannot make a thread"))?;
    let signal = ending.wait().map_err(start("cannot wait for signals"))?;
    say("INFO", &format!("{signal}: ending; the plugin stays in its place"));
    Ok(())
}

/// Puts the plugin into its place whenever it is not there.
fn keep(mut place: Place, folders: &Folders) {
    let mut said = String::new();
    loop {
        for folder in place.folders() {
            // A folder that is not there is told by the look into it.
            let _ = folders.watch(folder);
        }
        let (level, now, pause) = match place.settle() {
            Ok(State::Changed(what)) => {
                say("INFO", &what);
                continue;
            }
            Ok(State::Waiting) => {
                let dir = place.conf_dir().display();
                ("INFO", format!("no network plugin has written a configuration to {dir} yet; waiting"), LOOK_AGAIN)
            }
            Ok(State::Settled) => ("INFO", "the plugin is in its place".into(), LOOK),
            Err(fault) => ("ERROR", chain(&fault), LOOK_AGAIN),
        };
        // Once for each state, not once for each look.
        if now != said {
            say(level, &now);
            said = now;
        }
        match folders.changed(pause) {
            Ok(true) => thread::sleep(SETTLE),
            Ok(false) => {}
            Err(error) => {
                say("ERROR", &format!("cannot hear of changes: {error}"));
                thread::sleep(LOOK_AGAIN);
            }
        }
    }
}

/// Whether the plugin is in its place; the text says what is not.
pub fn status(flags: &Flags) -> Result<(), String> {
    match Place::new(flags).look() {
        Ok(State::Settled) => Ok(()),
        Ok(State::Waiting) => Err(format!("no network configuration in {}", flags.conf_dir.display())),
        Ok(State::Changed(what)) => Err(what),
        Err(fault) => Err(chain(&fault)),
    }
}

/// Takes the plugin out of the runtime's configuration, then removes the binary: a runtime never finds an entry without its binary.
pub fn uninstall(flags: &Flags) -> Result<(), PlaceFault> {
    Place::new(flags).clear(|what| say("INFO", what))
}

/// A line of the agent's own log.
fn say(level: &str, message: &str) {
    eprintln!("{}", serde_json::json!({"level": level, "target": "mesh_cni::agent", "message": message}));
}
