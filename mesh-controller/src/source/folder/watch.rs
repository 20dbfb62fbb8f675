//! inotify events to paths that need a look. It must not read files, and it must not queue: a path waits once, however often it changes.

use super::CannotWatch;
use notify::{
    Event, EventKind, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, CreateKind, ModifyKind},
};
use parking_lot::{Condvar, Mutex};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// Paths that wait at most; more than that, and everything is read anew.
const PATHS_MAX: usize = 10_000;

/// Paths that need a look.
#[derive(Default)]
pub(super) struct Wakes {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

#[derive(Default)]
struct Waiting {
    paths: BTreeSet<PathBuf>,
    rescan: bool,
    stop: bool,
}

impl Wakes {
    /// Waits for a path, or until `due`; then a little longer, to gather what belongs together. None: stopped.
    pub(super) fn wait(&self, due: Option<Instant>, gather: Duration) -> Option<(BTreeSet<PathBuf>, bool)> {
        let mut waiting = self.waiting.lock();
        while waiting.paths.is_empty() && !waiting.rescan && !waiting.stop {
            match due {
                Some(due) => {
                    if self.wake.wait_until(&mut waiting, due).timed_out() {
                        break;
                    }
                }
                None => self.wake.wait(&mut waiting),
            }
        }
        if !waiting.stop && (waiting.rescan || !waiting.paths.is_empty()) {
            let until = Instant::now() + gather;
            while !waiting.stop && !self.wake.wait_until(&mut waiting, until).timed_out() {}
        }
        if waiting.stop {
            return None;
        }
        Some((std::mem::take(&mut waiting.paths), std::mem::take(&mut waiting.rescan)))
    }

    pub(super) fn stop(&self) {
        self.waiting.lock().stop = true;
        self.wake.notify_all();
    }

    fn add(&self, event: &Event) {
        let mut waiting = self.waiting.lock();
        if event.need_rescan() || waiting.paths.len() + event.paths.len() > PATHS_MAX {
            waiting.rescan = true;
            waiting.paths.clear();
        } else {
            waiting.paths.extend(event.paths.iter().map(|path| worth(path)));
        }
        drop(waiting);
        self.wake.notify_all();
    }
}

pub(super) fn watch(roots: &[PathBuf], wakes: Arc<Wakes>) -> Result<notify::RecommendedWatcher, CannotWatch> {
    let at = |path: &Path| {
        let path = path.to_path_buf();
        move |source| CannotWatch::Watch { path, source }
    };
    let first = roots.first().map_or(Path::new(""), PathBuf::as_path);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| match event {
        Ok(event) if event.need_rescan() || is_complete(&event) => wakes.add(&event),
        Ok(_) => {}
        Err(e) => {
            tracing::warn!("folder watch: {e}; reading everything anew");
            wakes.add(&Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan));
        }
    })
    .map_err(at(first))?;
    for root in roots {
        watcher.watch(root, RecursiveMode::Recursive).map_err(at(root))?;
    }
    Ok(watcher)
}

/// Whether what the event is about is as its author wants it. A file that is being written is not: its close follows.
fn is_complete(event: &Event) -> bool {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Modify(ModifyKind::Name(_))
        | EventKind::Remove(_)
        | EventKind::Create(CreateKind::Folder) => true,
        // Links to what is complete already: nobody will close them.
        EventKind::Create(_) => event
            .paths
            .iter()
            .any(|path| fs::symlink_metadata(path).is_ok_and(|m| m.is_symlink() || m.is_dir() || m.nlink() > 1)),
        _ => false,
    }
}

/// What to look at: a volume of Kubernetes swaps the hidden link `..data`, which changes all links beside it.
fn worth(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if path.file_name().is_some_and(|n| n == "..data") => parent.into(),
        _ => path.into(),
    }
}
