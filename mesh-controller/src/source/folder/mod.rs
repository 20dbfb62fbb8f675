//! Folders of YAML and JSON files, watched: the source of the playground. It must not judge objects; admission does.

mod state;
mod watch;
mod yaml;

use super::Batch;
use state::{Place, State};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use watch::Wakes;

/// Largest file: more than 5,000 routes; what is larger is a mistake.
const FILE_MAX: u64 = 32 * 1024 * 1024;

/// Deepest folder in a folder: what is deeper is a loop of mounts.
const DEPTH_MAX: usize = 32;

/// How long after the first sign of a change we look: an editor's save is several. Whatever is seen is whole by then (`watch`), so a longer one would
/// only save a plan.
const GATHER: Duration = Duration::from_millis(2);

/// How long a file must be gone until we believe it: editors rename the old file away before they write the new one.
const GONE: Duration = Duration::from_millis(60);

/// Several folders; an object in a later one replaces the same object in an earlier one.
pub struct Folders {
    roots: Vec<PathBuf>,
    state: State,
    wakes: Arc<Wakes>,
    gone: BTreeMap<PathBuf, Instant>,
    // Watches as long as it lives.
    _watcher: notify::RecommendedWatcher,
}

/// Why folders cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum CannotWatch {
    /// Not there, or not a folder.
    #[error("folder {path}: cannot be read")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// inotify refused, for example because of `fs.inotify.max_user_watches`.
    #[error("folder {path}: cannot be watched")]
    Watch {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: notify::Error,
    },
}

impl Folders {
    /// Begins to watch, then reads everything: no change in between is missed.
    pub fn open(folders: &[PathBuf]) -> Result<(Self, Batch), CannotWatch> {
        let mut roots = Vec::new();
        for path in folders {
            let at = |source| CannotWatch::Folder { path: path.clone(), source };
            fs::read_dir(path).map_err(at)?;
            roots.push(std::path::absolute(path).map_err(at)?);
        }
        let wakes = Arc::new(Wakes::default());
        let watcher = watch::watch(&roots, wakes.clone())?;
        let mut opened = Self { roots, state: State::default(), wakes, gone: BTreeMap::new(), _watcher: watcher };
        opened.scan();
        let batch = opened.state.settle();
        Ok((opened, batch))
    }

    /// Waits for a change and says what it means. Blocks the thread; none: [`Stop`] was called.
    pub fn wait(&mut self) -> Option<Batch> {
        loop {
            let due = self.gone.values().min().copied();
            let (paths, rescan) = self.wakes.wait(due, GATHER)?;
            if rescan {
                self.scan();
            }
            let mut looked = rescan || !paths.is_empty();
            for path in paths {
                self.look(&path, 0);
            }
            let now = Instant::now();
            let over: Vec<PathBuf> = self.gone.iter().filter(|(_, due)| **due <= now).map(|(p, _)| p.clone()).collect();
            for path in over {
                self.gone.remove(&path);
                looked = true;
                if let Some(place) = self.place(&path) {
                    self.state.remove(&place);
                }
            }
            if looked {
                return Some(self.state.settle());
            }
        }
    }

    /// Ends [`Folders::wait`] from another thread.
    pub fn stopper(&self) -> Stop {
        Stop(self.wakes.clone())
    }

    fn scan(&mut self) {
        for root in self.roots.clone() {
            self.look(&root, 0);
        }
        let known: Vec<Place> = self.state.places().cloned().collect();
        for (_, shown) in known {
            let path = PathBuf::from(&*shown);
            if !path.exists() {
                self.miss(path);
            }
        }
    }

    /// Reads what is at a path now.
    fn look(&mut self, path: &Path, depth: usize) {
        let hidden = |p: &Path| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
        let root = self.roots.iter().any(|root| root == path);
        if !root && path.strip_prefix(self.root_of(path)).into_iter().flat_map(Path::ancestors).any(hidden) {
            return;
        }
        match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => {
                // A link to a folder may lead back here.
                let link = !root && fs::symlink_metadata(path).is_ok_and(|m| m.is_symlink());
                if depth < DEPTH_MAX && !link {
                    let entries = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
                    let entries: BTreeSet<PathBuf> = entries.collect();
                    entries.iter().for_each(|entry| self.look(entry, depth + 1));
                }
            }
            Ok(meta) if meta.is_file() && is_document(path) => {
                self.gone.remove(path);
                let Some(place) = self.place(path) else { return };
                let bytes = if meta.len() > FILE_MAX {
                    Err(format!("is {} bytes long, more than {FILE_MAX}", meta.len()))
                } else {
                    fs::read(path).map_err(|e| format!("cannot be read: {e}"))
                };
                let text = bytes.and_then(|b| String::from_utf8(b).map_err(|e| format!("is not UTF-8: {e}")));
                self.state.set(&place, text.as_deref().map_err(Clone::clone));
            }
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                // It may have been a folder with files.
                let under: Vec<PathBuf> =
                    self.state.places().map(|(_, p)| PathBuf::from(&**p)).filter(|p| p.starts_with(path)).collect();
                under.into_iter().for_each(|p| self.miss(p));
            }
            Err(e) => {
                if let Some(place) = self.place(path).filter(|_| is_document(path)) {
                    self.state.set(&place, Err(format!("cannot be read: {e}")));
                }
            }
        }
    }

    fn miss(&mut self, path: PathBuf) {
        if self.place(&path).is_some_and(|place| self.state.contains(&place)) {
            self.gone.entry(path).or_insert_with(|| Instant::now() + GONE);
        }
    }

    fn root_of(&self, path: &Path) -> &Path {
        let roots = self.roots.iter().filter(|root| path.starts_with(root));
        roots.max_by_key(|root| root.as_os_str().len()).map_or(Path::new(""), PathBuf::as_path)
    }

    /// The file's place: the folder with the longest path that it lies in.
    fn place(&self, path: &Path) -> Option<Place> {
        let root = self.root_of(path);
        let folder = self.roots.iter().position(|r| r == root)?;
        Some((folder, path.to_string_lossy().into()))
    }
}

/// Ends the wait of a [`Folders`].
pub struct Stop(Arc<Wakes>);

impl Stop {
    /// [`Folders::wait`] says none from now on.
    pub fn stop(&self) {
        self.0.stop();
    }
}

fn is_document(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json")
}

#[cfg(test)]
mod tests;
