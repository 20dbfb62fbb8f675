//! Enroll: the life of a pod on its node: what the CNI and the config say of it, and what has to be done. Pure. It must not touch a namespace.
//!
//! ```text
//!          Announced            config: meshed           Captured
//!  Absent ───────────▶ Waiting ────────────────▶ Capturing ─────────▶ Captured
//!                        │                         ▲                     │
//!     config: not meshed │          config: meshed │                     │ config: not meshed
//!                        ▼                         │                     ▼
//!                      Plain ──────────────────────┘                 Releasing
//!                        ▲                  Released                     │
//!                        └───────────────────────────────────────────────┘
//! ```
//! A failure of either work leads to Broken, from where the config leads on to Capturing or Releasing again. `Gone` leads from everywhere to Absent. A pod that the config no longer names stays what it is: the config may be behind, and letting a
//! captured pod talk in plaintext is not undone by a later correction.

use crate::{mesh::Workload, name::Text};
use smallvec::SmallVec;

/// What the config says of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Says {
    /// It does not name this pod (yet, or any longer).
    Unknown,
    /// The pod is not in the mesh.
    NotMeshed,
    /// The pod is in the mesh.
    Meshed,
}

impl Says {
    /// What a workload record says of the pod with this uid. A record of another uid is of a pod that had the name before, or will have it;
    /// a CNI that does not pass the uid is believed by name.
    pub fn of(workload: Option<&Workload>, uid: &str) -> Self {
        match workload {
            Some(w) if uid.is_empty() || w.uid == *uid => {
                if w.enrolment.is_meshed() {
                    Self::Meshed
                } else {
                    Self::NotMeshed
                }
            }
            _ => Self::Unknown,
        }
    }
}

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The CNI announced a sandbox (container id) and waits for an answer. Doing so again asks again.
    Announced(Text),
    /// A sandbox from the registry after a restart of the proxy; nobody waits. Whether it was captured is known from the registry.
    Restored {
        /// Container id.
        sandbox: Text,
        /// Whether it was captured before, which must be so again whatever the config knows yet.
        captured: bool,
    },
    /// The CNI (DEL or GC) or the node says that a sandbox is no more.
    Gone(Text),
    /// The config says this of the pod now.
    Config(Says),
    /// [`Action::Capture`] is done: rules applied, listeners open.
    Captured,
    /// [`Action::Capture`] failed.
    CaptureFailed,
    /// [`Action::Release`] is done.
    Released,
    /// [`Action::Release`] failed.
    ReleaseFailed,
    /// The time that the CNI is kept waiting is over.
    Expired,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Apply the rules in this sandbox, then open the listeners; harmless if they are there. Then tell [`Event::Captured`] or
    /// [`Event::CaptureFailed`].
    Capture(Text),
    /// Close the listeners to new connections and remove the rules. Then tell [`Event::Released`] or [`Event::ReleaseFailed`].
    Release(Text),
    /// Close whatever is open for this sandbox; its namespace is gone or about to go, so its rules stay.
    Forget(Text),
    /// Answer the CNI (all its calls that wait for this pod): the pod may start.
    Answer,
    /// Answer the CNI, which waits: not now, try again.
    AnswerRetry,
    /// Keep the CNI waiting, and tell [`Event::Expired`] when that has been long enough.
    Wait,
    /// Tell the newest config again (with [`Event::Config`]) after a pause: something failed.
    TryAgain,
}

/// What there is to do, in order.
pub type Actions = SmallVec<[Action; 2]>;

/// A pod's state on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// The living sandbox and how far it is; none: absent.
    sandbox: Option<(Text, Phase)>,
    /// What the config said last.
    says: Option<Says>,
    /// The CNI waits for an answer.
    asked: bool,
}

/// How far a sandbox is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The config has not named the pod yet.
    Waiting,
    /// Being captured.
    Capturing,
    /// Captured.
    Captured,
    /// Being released.
    Releasing,
    /// Capturing or releasing failed half way: rules or listeners may be there or not.
    Broken,
    /// Not in the mesh.
    Plain,
}

impl Pod {
    /// A pod without a sandbox, of which the config says this.
    pub fn new(says: Says) -> Self {
        Self { says: Some(says), ..Self::default() }
    }

    /// How far its sandbox is; none: it has none.
    pub fn phase(&self) -> Option<Phase> {
        self.sandbox.as_ref().map(|(_, phase)| *phase)
    }

    /// Its sandbox.
    pub fn sandbox(&self) -> Option<&Text> {
        self.sandbox.as_ref().map(|(id, _)| id)
    }

    /// Takes an event; what there is to do.
    pub fn handle(&mut self, event: Event) -> Actions {
        let mut actions = Actions::new();
        match event {
            Event::Announced(sandbox) => {
                self.supersede(&sandbox, &mut actions);
                self.asked = true;
                let phase = self.phase().unwrap_or(Phase::Waiting);
                self.sandbox = Some((sandbox, phase));
                if phase == Phase::Captured && self.says() != Says::NotMeshed {
                    // Asked again about a captured sandbox: the doer makes sure of it, then answers.
                    self.capture(&mut actions);
                } else {
                    self.follow(&mut actions);
                }
                if self.asked && self.phase() == Some(Phase::Waiting) {
                    actions.push(Action::Wait);
                }
            }
            Event::Restored { sandbox, captured } => {
                self.supersede(&sandbox, &mut actions);
                self.sandbox = Some((sandbox, Phase::Waiting));
                if captured && self.says() == Says::Unknown {
                    self.capture(&mut actions);
                } else if captured && self.says() == Says::NotMeshed {
                    // Its rules are still there from before.
                    self.release(&mut actions);
                } else {
                    self.follow(&mut actions);
                }
            }
            Event::Gone(sandbox) if self.sandbox() == Some(&sandbox) => {
                self.sandbox = None;
                self.answer(Action::AnswerRetry, &mut actions);
                actions.push(Action::Forget(sandbox));
            }
            // Of an earlier sandbox of the same pod, forgotten when its successor came.
            Event::Gone(_) => {}
            Event::Config(says) => {
                self.says = Some(says);
                self.follow(&mut actions);
            }
            Event::Captured => self.settle(Phase::Capturing, Phase::Captured, &mut actions),
            Event::Released => self.settle(Phase::Releasing, Phase::Plain, &mut actions),
            Event::CaptureFailed if self.phase() == Some(Phase::Capturing) => {
                self.turn(Phase::Broken);
                self.answer(Action::AnswerRetry, &mut actions);
                actions.push(Action::TryAgain);
            }
            Event::ReleaseFailed if self.phase() == Some(Phase::Releasing) => {
                self.turn(Phase::Broken);
                self.answer(Action::AnswerRetry, &mut actions);
                actions.push(Action::TryAgain);
            }
            Event::CaptureFailed | Event::ReleaseFailed => {}
            Event::Expired => self.answer(Action::AnswerRetry, &mut actions),
        }
        actions
    }

    fn says(&self) -> Says {
        self.says.unwrap_or(Says::Unknown)
    }

    fn turn(&mut self, to: Phase) {
        if let Some((_, phase)) = &mut self.sandbox {
            *phase = to;
        }
    }

    /// A new sandbox of the same pod: the old one is gone, whether or not anyone said so.
    fn supersede(&mut self, by: &Text, actions: &mut Actions) {
        if let Some((old, _)) = self.sandbox.take_if(|(old, _)| old != by) {
            self.answer(Action::AnswerRetry, actions);
            actions.push(Action::Forget(old));
        }
    }

    /// What the doer was told to do is done; the config may have changed its mind meanwhile.
    fn settle(&mut self, from: Phase, to: Phase, actions: &mut Actions) {
        if self.phase() == Some(from) {
            self.turn(to);
            self.follow(actions);
        }
    }

    /// Brings the sandbox to what the config says, and answers the CNI once it is there. Work in progress is let finish first.
    fn follow(&mut self, actions: &mut Actions) {
        match (self.phase(), self.says()) {
            (None | Some(Phase::Capturing | Phase::Releasing), _) => {}
            (Some(Phase::Waiting | Phase::Plain), Says::Meshed) => self.capture(actions),
            (Some(Phase::Captured | Phase::Broken), Says::NotMeshed) => self.release(actions),
            (Some(Phase::Broken), _) => self.capture(actions),
            (Some(Phase::Waiting), Says::NotMeshed) => {
                self.turn(Phase::Plain);
                self.answer(Action::Answer, actions);
            }
            (Some(Phase::Waiting), Says::Unknown) => {}
            (Some(Phase::Captured | Phase::Plain), _) => self.answer(Action::Answer, actions),
        }
    }

    fn capture(&mut self, actions: &mut Actions) {
        self.turn(Phase::Capturing);
        actions.extend(self.sandbox().cloned().map(Action::Capture));
    }

    fn release(&mut self, actions: &mut Actions) {
        self.turn(Phase::Releasing);
        actions.extend(self.sandbox().cloned().map(Action::Release));
    }

    fn answer(&mut self, answer: Action, actions: &mut Actions) {
        if std::mem::take(&mut self.asked) {
            actions.push(answer);
        }
    }
}

#[cfg(test)]
mod tests;
