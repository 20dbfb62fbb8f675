//! Stages: brings running pods into the mesh and out of it step by step, so that no request fails by it and no strict pod gets plaintext. Pure. It must not send.
//!
//! ```text
//!             in                                            out
//!   None ──▶ Joining ──JOIN──▶ Meshed(mode)     Meshed(Strict) ──▶ Meshed(Permissive) ──YIELD──▶ Leaving ──LEAVE──▶ None
//! ```
//! A pod that is new (to this controller) is at once what is planned: nothing is in doubt for one that does not run yet, and after a restart
//! of the controller the planned state is the safe one to assume. A step is made when its time is over and every connected proxy holds all
//! that is published, or, for those that are away, [`PATIENCE`] later.

use mesh_core::{
    mesh::{Enrolment, Mode, Workload},
    name::NsName,
    node::{NodeDelta, Resource, ResourceId},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a pod joins: all nodes capture their pods meanwhile, hundreds a node, before any of them refuses plaintext of the others.
pub const JOIN: Duration = Duration::from_secs(20);

/// How long a strict pod takes plaintext before its peers are told to speak it: what a delta takes to reach its node, and more.
pub const YIELD: Duration = Duration::from_secs(2);

/// How long a pod stays captured after its peers were told to speak plaintext: those who have not heard it yet still speak mTLS.
pub const LEAVE: Duration = Duration::from_secs(3);

/// How much longer a step waits for proxies that do not acknowledge what they were sent.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Where every pod is on its way.
#[derive(Debug, Default)]
pub(super) struct Stages {
    shown: HashMap<NsName, Shown>,
    /// Pods under way.
    moving: BTreeMap<NsName, Instant>,
}

#[derive(Debug)]
struct Shown {
    planned: Arc<Workload>,
    enrolment: Enrolment,
}

impl Stages {
    /// Takes what was planned; what is to be published for it now.
    pub(super) fn take(&mut self, planned: &NodeDelta, now: Instant) -> NodeDelta {
        for id in &planned.removes {
            if let ResourceId::Workload(id) = id {
                self.shown.remove(id);
                self.moving.remove(id);
            }
        }
        let upserts = planned.upserts.iter().map(|resource| match resource {
            Resource::Workload(w) => Resource::Workload(self.workload(w, now)),
            other => other.clone(),
        });
        NodeDelta { upserts: upserts.collect(), removes: planned.removes.clone() }
    }

    fn workload(&mut self, planned: &Arc<Workload>, now: Instant) -> Arc<Workload> {
        let id = &planned.id;
        let known = self.shown.get(id).filter(|s| s.planned.uid == planned.uid);
        // Without a node it does not run; nobody can be in the middle of speaking with it.
        let before = known.filter(|s| !s.planned.node.is_empty()).map(|s| s.enrolment);
        let enrolment = match before {
            None => {
                self.moving.remove(id);
                planned.enrolment
            }
            Some(at) => self.towards(id, at, planned.enrolment, now, false),
        };
        self.shown.insert(id.clone(), Shown { planned: planned.clone(), enrolment });
        shown(planned, enrolment)
    }

    /// Steps whose time has come. `current`: every connected proxy holds all that is published.
    pub(super) fn step(&mut self, now: Instant, current: bool) -> NodeDelta {
        let due = |until: &Instant| *until <= now && (current || *until + PATIENCE <= now);
        let ready: Vec<NsName> = self.moving.iter().filter(|(_, until)| due(until)).map(|(id, _)| id.clone()).collect();
        let mut delta = NodeDelta::default();
        for id in ready {
            self.moving.remove(&id);
            let Some((at, wanted)) = self.shown.get(&id).map(|s| (s.enrolment, s.planned.enrolment)) else { continue };
            let enrolment = self.towards(&id, at, wanted, now, true);
            if let Some(known) = self.shown.get_mut(&id) {
                known.enrolment = enrolment;
                delta.upserts.push(Resource::Workload(shown(&known.planned, enrolment)));
            }
        }
        delta
    }

    /// When there may be a step.
    pub(super) fn next(&self) -> Option<Instant> {
        self.moving.values().min().copied()
    }

    /// What a pod is now that is `at` and shall be `wanted`; `over`: the time of the step that it is in.
    fn towards(&mut self, id: &NsName, at: Enrolment, wanted: Enrolment, now: Instant, over: bool) -> Enrolment {
        use Enrolment::{Joining, Leaving, Meshed, None};
        let under_way = self.moving.contains_key(id) && !over;
        let (to, rest) = match (at, wanted) {
            (None, Meshed(_)) => (Joining, Some(JOIN)),
            // It is still captured.
            (Leaving, Meshed(_)) => (Joining, Some(JOIN)),
            (Joining, Meshed(_)) if under_way => return Joining,
            // One that has just begun to take plaintext is not to be sent any yet.
            (at, wanted) if at == wanted && under_way => return at,
            (Meshed(Mode::Strict), Meshed(Mode::Permissive)) => (wanted, Some(YIELD)),
            (Meshed(Mode::Strict), None) => (Meshed(Mode::Permissive), Some(YIELD)),
            (Meshed(Mode::Permissive), None) if under_way => return at,
            (Meshed(Mode::Permissive) | Joining, None) => (Leaving, Some(LEAVE)),
            (Leaving, None) if under_way => return Leaving,
            // Who joins at the same time may not be captured yet, and would be refused.
            (Meshed(Mode::Permissive), Meshed(Mode::Strict)) if !over => match self.joined() {
                Some(until) if until > now => {
                    self.moving.insert(id.clone(), until);
                    return at;
                }
                _ => (wanted, Option::None),
            },
            _ => (wanted, Option::None),
        };
        match rest {
            Some(rest) => self.moving.insert(id.clone(), now + rest),
            Option::None => self.moving.remove(id),
        };
        to
    }

    /// When the last of those who join now will have joined.
    fn joined(&self) -> Option<Instant> {
        let joins = |id: &NsName| self.shown.get(id).is_some_and(|s| s.enrolment == Enrolment::Joining);
        self.moving.iter().filter(|(id, _)| joins(id)).map(|(_, until)| *until).max()
    }
}

fn shown(planned: &Arc<Workload>, enrolment: Enrolment) -> Arc<Workload> {
    if planned.enrolment == enrolment {
        return planned.clone();
    }
    Arc::new(Workload { enrolment, ..Workload::clone(planned) })
}

#[cfg(test)]
mod tests;
