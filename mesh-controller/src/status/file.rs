//! The status file: written whole and atomically after each change. It must not write for every one of many changes that come at once.

use super::{Said, Sink, Statuses, document};
use crate::{inventory::Key, source::Problem};
use parking_lot::Mutex;
use serde_json::Value;
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// How long changes are gathered: a reader sees them within this and the time of one write.
const GATHER: Duration = Duration::from_millis(10);

/// Longest time that a change waits because writing is slow.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What is to be written, and where. The planner changes it; one task writes.
#[derive(Debug)]
pub struct StatusFile {
    path: PathBuf,
    content: Mutex<(Statuses, Vec<Problem>)>,
    changed: Notify,
}

impl StatusFile {
    /// Goes on with the times of the file that is there.
    pub fn open(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let statuses = Statuses::resume(&fs::read_to_string(&path).unwrap_or_default());
        Self { path, content: Mutex::new((statuses, Vec::new())), changed: Notify::new() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Changes the content and has it written.
    pub fn change(&self, edit: impl FnOnce(&mut Statuses, &mut Vec<Problem>)) {
        {
            let (statuses, problems) = &mut *self.content.lock();
            edit(statuses, problems);
        }
        self.changed.notify_one();
    }

    /// Writes whenever something changed, for ever. A write that fails is reported and tried again at the next change.
    pub async fn keep(self: Arc<Self>) {
        let mut pause = GATHER;
        loop {
            self.changed.notified().await;
            tokio::time::sleep(pause).await;
            let (file, began) = (self.clone(), Instant::now());
            let written = tokio::task::spawn_blocking(move || file.write()).await;
            if let Err(e) = written.unwrap_or_else(|e| Err(io::Error::other(e))) {
                tracing::error!("status file {}: cannot be written: {e}", self.path.display());
            }
            // A mesh whose statuses take long to write does not spend all its time on that.
            pause = GATHER.max(began.elapsed() * 4).min(PAUSE_MAX);
        }
    }

    /// Writes now.
    pub fn write(&self) -> io::Result<()> {
        let (objects, problems) = {
            let (statuses, problems) = &*self.content.lock();
            (statuses.snapshot(), problems.clone())
        };
        replace(&self.path, &serde_json::to_vec(&document(&objects, &problems))?)
    }
}

impl Sink for StatusFile {
    fn take(&self, shown: &[(Key, Option<Arc<Value>>)], said: &Said, problems: Vec<Problem>) {
        let now = super::now();
        self.change(|written, all| {
            for (key, object) in shown {
                let status = object.as_ref().and_then(|object| object.get("status"));
                written.observe(key, status.filter(|status| status.is_object()));
            }
            written.apply(said, &now);
            *all = problems;
        });
    }

    fn problems(&self) -> Vec<Problem> {
        self.content.lock().1.clone()
    }
}

/// A reader sees the old file or the new one, never half of one.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().ok_or_else(|| io::Error::other("is not a file name"))?.to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    fs::write(&new, bytes)?;
    fs::rename(&new, path)
}
