//! Drain: told once to everybody that the process goes away, and who is still busy. It must not close anything; owners do.

use std::time::Duration;
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

/// Cheap to clone; all clones are one drain.
#[derive(Clone, Default)]
pub struct Drain {
    started: CancellationToken,
    busy: TaskTracker,
}

/// Something that the end waits for. Drop it when done.
#[must_use = "dropping it says that the work is done"]
pub struct Busy(TaskTrackerToken);

impl Drain {
    /// Nothing is draining yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts the drain. Again: nothing happens.
    pub fn start(&self) {
        self.started.cancel();
        self.busy.close();
    }

    /// Whether it has started.
    pub fn is_started(&self) -> bool {
        self.started.is_cancelled()
    }

    /// Ends when the drain starts. Dropping it is harmless.
    pub async fn started(&self) {
        self.started.cancelled().await;
    }

    /// The token that is cancelled when the drain starts, for those who want one.
    pub fn token(&self) -> CancellationToken {
        self.started.clone()
    }

    /// Marks work that the end should wait for.
    pub fn busy(&self) -> Busy {
        Busy(self.busy.token())
    }

    /// How much work is marked.
    pub fn busy_count(&self) -> usize {
        self.busy.len()
    }

    /// Waits, after [`Self::start`], until nobody is busy or `longest` is over. Gives what is still busy then: 0 is a clean end.
    pub async fn finished(&self, longest: Duration) -> usize {
        let _ = tokio::time::timeout(longest, self.busy.wait()).await;
        self.busy.len()
    }
}

/// The token itself is never looked at; holding it is what counts.
impl std::fmt::Debug for Busy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(_held) = self;
        f.write_str("Busy")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_end_waits_for_the_busy_and_no_longer_than_allowed() {
        let drain = Drain::new();
        let (one, two) = (drain.busy(), drain.busy());
        assert!(!drain.is_started());
        drain.start();
        drain.started().await;
        drop(one);
        assert_eq!(drain.finished(Duration::from_secs(30)).await, 1);
        drop(two);
        assert_eq!(drain.finished(Duration::from_secs(30)).await, 0);
    }
}
