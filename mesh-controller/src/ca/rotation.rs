//! Rotation of the mesh's root: what stands in the Secret, and the one next step. Pure; all state is the Secret's, so whoever leads may end at any moment. It must not know keys, only fingerprints.
//!
//! ```text
//!              the wanted signer is another (by us, by the user, by cert-manager)
//!   Steady ──────────────────────────────► Introducing   its roots are trusted by all, the active one still signs
//!     ▲                                        │ every proxy said that it trusts them, or holds nothing that is valid any more
//!     │ what the old one signed has ended      ▼
//!     └──────────────────────────────────── Draining      the wanted one is active; the old roots are still trusted
//! ```
//! So at no moment does a proxy hold a certificate that another's roots do not vouch for.

use mesh_core::name::ProxyName;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

/// SHA-256 of a certificate.
pub type Fingerprint = [u8; 32];

/// A replica may go on signing with what the Secret said so long ago at most: it must hear of the Secret from the same API server that it asks
/// about each caller, whose answers it remembers for seconds, and whose watch is made anew within half a minute.
pub const LAG: Duration = Duration::from_secs(90);

/// Who can sign, and the roots that vouch for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// Of its certificate.
    pub id: Fingerprint,
    /// Of the roots.
    pub roots: BTreeSet<Fingerprint>,
}

/// What must be remembered beside keys and certificates. Times are seconds since 1970, of the leader's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Number of the trusted roots; grows with each change of them.
    pub revision: u64,
    /// When roots or the active signer changed last.
    pub since: u64,
    /// Lifetime that the active signer gives to certificates; those that it gave more are in `drained`.
    pub longest: u64,
    /// When the last certificate of a signer that is active no more, or of a longer lifetime than the present, has ended.
    pub drained: u64,
}

/// What the Secret says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Who shall sign; none: what is there cannot be used.
    pub wanted: Option<Signer>,
    /// Who signs.
    pub active: Option<Fingerprint>,
    /// Roots that all proxies are told to trust.
    pub trusted: BTreeSet<Fingerprint>,
    /// The rest.
    pub ledger: Ledger,
}

/// Where a rotation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// What shall sign does, and nothing else is trusted.
    Steady,
    /// The roots of what shall sign are being trusted by everybody.
    Introducing,
    /// It signs; what its predecessor signed has not ended yet.
    Draining,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Steady => "steady",
            Self::Introducing => "introducing",
            Self::Draining => "draining",
        })
    }
}

/// One change of the Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing usable is active: what is wanted becomes active at once, and trusted beside what is.
    Adopt,
    /// The roots of the wanted one are trusted too.
    Introduce,
    /// The wanted one becomes active.
    Switch,
    /// Only its roots are trusted.
    Retire,
    /// Only the ledger changes.
    Note,
}

/// What the leader sees around it.
#[derive(Clone, Copy, Debug)]
pub struct Around {
    /// Seconds since 1970.
    pub now: u64,
    /// Lifetime that certificates get now.
    pub lifetime: Duration,
    /// Whether every proxy trusts the roots of the ledger's revision.
    pub confirmed: bool,
}

impl Seen {
    /// Where the rotation is. None while the wanted signer cannot be used or nothing is active.
    pub fn stage(&self) -> Option<Stage> {
        let wanted = self.wanted.as_ref()?;
        Some(match (self.active? == wanted.id, self.trusted == wanted.roots) {
            (false, _) => Stage::Introducing,
            (true, false) => Stage::Draining,
            (true, true) => Stage::Steady,
        })
    }

    /// The next step and the ledger after it; none: there is nothing to do now.
    pub fn next(&self, around: Around) -> Option<(Step, Ledger)> {
        let (ledger, now) = (self.ledger, around.now);
        let lifetime = around.lifetime.as_secs();
        let longest = ledger.longest.max(lifetime);
        // Milliseconds, so that a Secret that is made anew after a loss is newer than the lost one too.
        let revision = (ledger.revision + 1).max(now.saturating_mul(1000));
        let wanted = self.wanted.as_ref()?;
        let Some(active) = self.active else {
            // Whatever signed before may have signed a moment ago.
            let drained = now + longest + LAG.as_secs();
            return Some((Step::Adopt, Ledger { revision, since: now, longest: lifetime, drained }));
        };
        if !self.trusted.is_superset(&wanted.roots) {
            return Some((Step::Introduce, Ledger { revision, since: now, longest, ..ledger }));
        }
        if active != wanted.id {
            // A proxy that was not heard of for so long has no valid certificate left, and with it nothing to judge others by.
            let ended = now >= self.patience(longest);
            if around.confirmed || ended {
                let drained = ledger.drained.max(now + longest + LAG.as_secs());
                return Some((Step::Switch, Ledger { since: now, longest: lifetime, drained, ..ledger }));
            }
        } else if self.trusted != wanted.roots && now >= ledger.drained {
            return Some((Step::Retire, Ledger { revision, since: now, longest, ..ledger }));
        }
        let drained = match lifetime < ledger.longest {
            true => ledger.drained.max(now + ledger.longest + LAG.as_secs()),
            false => ledger.drained,
        };
        (lifetime != ledger.longest).then_some((Step::Note, Ledger { longest: lifetime, drained, ..ledger }))
    }

    /// When an introduction ends though not everybody has confirmed it.
    pub fn patience(&self, longest: u64) -> u64 {
        self.ledger.drained.max(self.ledger.since + longest + LAG.as_secs())
    }
}

/// What one replica knows of the proxies that are connected to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Of these roots.
    pub revision: u64,
    /// Proxies that trust them.
    pub held: BTreeSet<String>,
    /// Connected proxies that do not yet.
    pub behind: BTreeSet<String>,
}

/// Who has not confirmed the roots of a revision: those expected, and those that some replica sees behind, without those that any replica saw trust them.
pub fn missing(revision: u64, expected: &BTreeSet<ProxyName>, reports: &BTreeMap<String, Report>) -> BTreeSet<String> {
    let of_revision = || reports.values().filter(|report| report.revision == revision);
    let mut missing: BTreeSet<String> = expected.iter().map(ToString::to_string).collect();
    missing.extend(of_revision().flat_map(|report| report.behind.iter().cloned()));
    for held in of_revision().flat_map(|report| &report.held) {
        missing.remove(held);
    }
    missing
}

#[cfg(test)]
mod tests;
