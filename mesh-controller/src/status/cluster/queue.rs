//! The queue: which objects are to be looked at, when, and how often it failed. Pure; time comes from outside. It holds each object at most once.

use crate::inventory::Key;
use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};
use tokio::time::Instant;

/// How long a change waits for others of the same object: routes that come together change their Gateway once.
const GATHER: Duration = Duration::from_millis(20);

/// First and longest pause after a write that failed.
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Objects to look at, in the order of their time.
#[derive(Debug, Default)]
pub(super) struct Queue {
    due: BTreeSet<(Instant, Key)>,
    at: HashMap<Key, Instant>,
    failures: HashMap<Key, u32>,
}

impl Queue {
    /// Something about the object changed. One that waits after a failure goes on waiting.
    pub(super) fn add(&mut self, key: &Key, now: Instant) {
        if !self.at.contains_key(key) {
            self.put(key, now + GATHER);
        }
    }

    /// A write failed: it is tried again, each time later.
    pub(super) fn retry(&mut self, key: &Key, now: Instant, spread: f64) {
        let failures = self.failures.entry(key.clone()).or_default();
        let pause = PAUSE.saturating_mul(1 << (*failures).min(16)).min(PAUSE_MAX);
        *failures += 1;
        self.take_out(key);
        self.put(key, now + pause.mul_f64(spread));
    }

    /// The object is as it shall be.
    pub(super) fn done(&mut self, key: &Key) {
        self.failures.remove(key);
    }

    /// The object is no more.
    pub(super) fn forget(&mut self, key: &Key) {
        self.failures.remove(key);
        self.take_out(key);
    }

    /// The next object whose time has come, but none that is `busy`.
    pub(super) fn next(&mut self, now: Instant, busy: &BTreeSet<Key>) -> Option<Key> {
        let key = self.due.iter().take_while(|(at, _)| *at <= now).find(|(_, key)| !busy.contains(key))?.1.clone();
        self.take_out(&key);
        Some(key)
    }

    /// When there will be something to do.
    pub(super) fn when(&self, busy: &BTreeSet<Key>) -> Option<Instant> {
        self.due.iter().find(|(_, key)| !busy.contains(key)).map(|(at, _)| *at)
    }

    pub(super) fn len(&self) -> usize {
        self.due.len()
    }

    fn put(&mut self, key: &Key, at: Instant) {
        self.due.insert((at, key.clone()));
        self.at.insert(key.clone(), at);
    }

    fn take_out(&mut self, key: &Key) {
        if let Some(at) = self.at.remove(key) {
            self.due.remove(&(at, key.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::Kind;

    #[test]
    fn an_object_is_in_it_once_and_failures_make_it_wait() {
        let (mut queue, start, none) = (Queue::default(), Instant::now(), BTreeSet::new());
        let key = Key::new(Kind::HttpRoute, "a/b".parse().unwrap());
        let at = |ms| start + Duration::from_millis(ms);
        queue.add(&key, at(0));
        queue.add(&key, at(5));
        assert_eq!((queue.len(), queue.next(at(19), &none)), (1, None));
        assert_eq!(queue.next(at(20), &BTreeSet::from([key.clone()])), None, "one writer for each object");
        assert_eq!(queue.next(at(20), &none), Some(key.clone()));
        assert_eq!((queue.len(), queue.when(&none)), (0, None));
        queue.retry(&key, at(20), 1.0);
        queue.add(&key, at(21));
        assert_eq!(queue.when(&none), Some(at(220)));
        assert_eq!(queue.next(at(220), &none), Some(key.clone()));
        queue.retry(&key, at(220), 1.0);
        assert_eq!(queue.when(&none), Some(at(620)));
        for _ in 0..40 {
            queue.retry(&key, at(0), 1.0);
        }
        assert_eq!(queue.when(&none), Some(start + PAUSE_MAX));
        queue.done(&key);
        queue.forget(&key);
        assert_eq!(queue.len(), 0);
    }
}
