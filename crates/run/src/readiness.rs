//! Readiness: named conditions, all of which must hold before the process takes traffic. It must not wait for them.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// All conditions of a process. Cheap to clone. With no condition it is ready.
#[derive(Clone, Default)]
pub struct Readiness {
    waiting: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

/// One condition. Starts unmet; dropping it leaves it as it is.
#[must_use = "a condition that nobody meets keeps the process unready"]
pub struct Condition {
    name: &'static str,
    waiting: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

impl Readiness {
    /// Adds a condition, unmet for `reason` until said otherwise.
    pub fn condition(&self, name: &'static str, reason: &str) -> Condition {
        let condition = Condition { name, waiting: self.waiting.clone() };
        condition.unmet(reason);
        condition
    }

    /// Whether all conditions hold.
    pub fn is_ready(&self) -> bool {
        lock(&self.waiting).is_empty()
    }

    /// What is waited for: name and reason of each condition that does not hold.
    pub fn waiting(&self) -> Vec<(&'static str, String)> {
        lock(&self.waiting).iter().map(|(name, reason)| (*name, reason.clone())).collect()
    }
}

impl Condition {
    /// It holds.
    pub fn met(&self) {
        if lock(&self.waiting).remove(self.name).is_some() {
            tracing::info!(condition = self.name, "ready");
        }
    }

    /// It does not hold (any more).
    pub fn unmet(&self, reason: &str) {
        lock(&self.waiting).insert(self.name, reason.to_owned());
    }
}

/// A panic while holding the lock cannot leave the map half changed.
fn lock<'a>(
    map: &'a Mutex<BTreeMap<&'static str, String>>,
) -> std::sync::MutexGuard<'a, BTreeMap<&'static str, String>> {
    map.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.waiting();
        if waiting.is_empty() {
            return f.write_str("ready\n");
        }
        waiting.iter().try_for_each(|(name, reason)| writeln!(f, "waiting for {name}: {reason}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_when_every_condition_is_met() {
        let readiness = Readiness::default();
        assert!(readiness.is_ready());
        let (config, identity) =
            (readiness.condition("config", "not connected"), readiness.condition("identity", "none"));
        config.met();
        assert_eq!(readiness.to_string(), "waiting for identity: none\n");
        identity.met();
        assert!(readiness.is_ready());
        config.unmet("lost");
        assert_eq!(readiness.waiting(), [("config", "lost".to_owned())]);
    }
}
