//! A session: what one connected proxy still has to be told. Pure. It must not send; what it holds is bounded by the slice, each resource once.

use super::{mesh::Entry, slice::Touched};
use mesh_core::node::ResourceId;
use mesh_wire::{
    parse_resource_id, proto,
    sender::{DELTA_BYTES, OutgoingDelta},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

/// Resources after which a delta ends, however small they are.
const DELTA_ITEMS: usize = 1024;

/// ```text
///   start ──► idle ──next──► in flight ──answer(ack)───► idle
///              ▲ change: pending      └─answer(nack)──► idle, the refused ones marked, the others pending again
/// ```
/// One delta is in flight; what changes meanwhile is merged, so that a slow proxy gets the newest state and nothing in between.
#[derive(Debug)]
pub(super) struct Session {
    /// How far a proxy that holds nothing was told: what comes after is read from its slice when it is its turn, so that a session does not hold it.
    told: Told,
    pending: Touched,
    in_flight: Option<InFlight>,
    /// Versions that the proxy refused; not sent again.
    refused: BTreeMap<ResourceId, Refusal>,
    nonce: u64,
    /// How many resources the next delta may hold; halved while a refused delta does not say which resource it is about.
    items: usize,
    synced: bool,
}

#[derive(Debug)]
enum Told {
    /// Up to this id; none: nothing yet.
    UpTo(Option<ResourceId>),
    /// All, but for what is pending.
    All,
}

/// What a proxy needs beyond what it was told, in the order of ids.
pub(super) type Rest<'a> = &'a mut dyn Iterator<Item = (ResourceId, Arc<Entry>)>;

#[derive(Debug)]
struct InFlight {
    nonce: u64,
    sent: Touched,
    since: Instant,
    synced: bool,
}

/// Why a proxy did not take a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Version that it refused.
    pub version: u64,
    /// Field that it named.
    pub field: String,
    /// Its reason.
    pub reason: String,
}

/// An answer, understood.
#[derive(Debug, PartialEq)]
pub(super) struct Answered {
    /// How long the proxy took.
    pub lag: Duration,
    /// What it refused, for log and metrics.
    pub refused: Vec<(ResourceId, Refusal)>,
}

/// An answer to nothing that was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ack of nonce {0}, which is not in flight")]
pub(super) struct UnknownNonce(u64);

impl Session {
    /// A session with a proxy that holds nothing.
    pub(super) fn fresh() -> Self {
        Self {
            told: Told::UpTo(None),
            pending: Touched::new(),
            in_flight: None,
            refused: BTreeMap::new(),
            nonce: 0,
            items: DELTA_ITEMS,
            synced: false,
        }
    }

    /// A session with a proxy that needs `slice` and holds `known` (id as text → version).
    pub(super) fn resume(slice: impl Iterator<Item = (ResourceId, Arc<Entry>)>, known: &BTreeMap<String, u64>) -> Self {
        let mut pending = Touched::new();
        // An id that we cannot read names nothing that we could have sent; the proxy drops it with its next restart.
        let known = known.iter().filter_map(|(id, version)| Some((parse_resource_id(id).ok()?, *version)));
        let mut left: HashMap<ResourceId, u64> = known.collect();
        for (id, entry) in slice {
            if left.remove(&id) != Some(entry.encoded.version) {
                pending.insert(id, Some(entry));
            }
        }
        pending.extend(left.into_keys().map(|id| (id, None)));
        Self { told: Told::All, pending, ..Self::fresh() }
    }

    /// After which id [`Session::next`] wants what the proxy needs; none: it wants nothing.
    pub(super) fn reads_after(&self) -> Option<Option<&ResourceId>> {
        match &self.told {
            Told::UpTo(last) if self.in_flight.is_none() => Some(last.as_ref()),
            _ => None,
        }
    }

    /// Takes changes of its slice.
    pub(super) fn change(&mut self, touched: &Touched) {
        for (id, entry) in touched {
            // It will be read as it is then.
            if matches!(&self.told, Told::UpTo(last) if last.as_ref().is_none_or(|last| id > last)) {
                continue;
            }
            let same = |refusal: &Refusal| entry.as_ref().is_some_and(|e| e.encoded.version == refusal.version);
            match self.refused.get(id) {
                // It holds its last good state of this object, and would refuse again; an older change that waits is void.
                Some(refusal) if same(refusal) => {
                    self.pending.remove(id);
                }
                _ => {
                    self.refused.remove(id);
                    self.pending.insert(id.clone(), entry.clone());
                }
            }
        }
    }

    /// The next delta to send; none: one is in flight, or there is nothing to say. `rest` is read if [`Session::reads_after`] says so.
    pub(super) fn next(&mut self, now: Instant, rest: Rest<'_>) -> Option<OutgoingDelta> {
        if self.in_flight.is_some() || (self.synced && self.pending.is_empty()) {
            return None;
        }
        let (mut bytes, limit) = (0, self.items);
        let mut sent = Touched::new();
        let mut delta = OutgoingDelta::default();
        let mut add = |sent: &mut Touched, id: &ResourceId, entry: &Option<Arc<Entry>>| {
            let size = entry.as_ref().map_or(0, |e| e.encoded.bytes.len());
            if sent.len() >= limit || (!sent.is_empty() && bytes + size > DELTA_BYTES) {
                return false;
            }
            bytes += size;
            match entry {
                Some(entry) => delta.upserts.push(entry.encoded.bytes.clone()),
                None => delta.removes.push(id.to_string()),
            }
            sent.insert(id.clone(), entry.clone());
            true
        };
        // Upserts first, what others point to first; removes last, when nothing points to them any more.
        let mut upserts = self.pending.iter().filter(|(_, entry)| entry.is_some());
        let fits = upserts.all(|(id, entry)| add(&mut sent, id, entry));
        if fits && let Told::UpTo(last) = &mut self.told {
            let mut all = true;
            for (id, entry) in rest {
                all = add(&mut sent, &id, &Some(entry));
                if !all {
                    break;
                }
                *last = Some(id);
            }
            if all {
                self.told = Told::All;
            }
        }
        let mut removes = self.pending.iter().filter(|(_, entry)| entry.is_none());
        removes.all(|(id, entry)| add(&mut sent, id, entry));
        if self.pending.keys().all(|id| sent.contains_key(id)) {
            self.pending.clear();
        } else {
            sent.keys().for_each(|id| {
                self.pending.remove(id);
            });
        }
        self.nonce += 1;
        delta.nonce = self.nonce;
        delta.synced = !self.synced && self.pending.is_empty() && matches!(self.told, Told::All);
        self.in_flight = Some(InFlight { nonce: self.nonce, sent, since: now, synced: delta.synced });
        Some(delta)
    }

    /// Takes the proxy's answer to the delta in flight.
    pub(super) fn answer(&mut self, ack: &proto::Ack, now: Instant) -> Result<Answered, UnknownNonce> {
        let flight = match self.in_flight.take() {
            Some(flight) if flight.nonce == ack.nonce => flight,
            other => {
                self.in_flight = other;
                return Err(UnknownNonce(ack.nonce));
            }
        };
        let lag = now.saturating_duration_since(flight.since);
        if ack.errors.is_empty() {
            self.synced |= flight.synced;
            self.items = DELTA_ITEMS;
            return Ok(Answered { lag, refused: Vec::new() });
        }
        let refused = self.blame(&flight.sent, &ack.errors);
        if refused.is_empty() && flight.sent.len() <= 1 {
            // It refuses a remove, or a delta of nothing: saying it again would never end.
            self.synced |= flight.synced;
            return Ok(Answered { lag, refused });
        }
        // "nothing of the delta was applied": all others are to be said again, unless something newer waits.
        for (id, entry) in flight.sent {
            if !refused.iter().any(|(r, _)| *r == id) {
                self.pending.entry(id).or_insert(entry);
            }
        }
        // Something newer that waits will be tried, or takes the resource away.
        for (id, refusal) in refused.iter().filter(|(id, _)| !self.pending.contains_key(id)) {
            self.refused.insert(id.clone(), refusal.clone());
        }
        Ok(Answered { lag, refused })
    }

    /// Which upserts of a refused delta the errors are about. If they name none, the next deltas are smaller, until it is plain.
    fn blame(&mut self, sent: &Touched, errors: &[proto::Rejection]) -> Vec<(ResourceId, Refusal)> {
        let refusal = |entry: &Arc<Entry>, error: &proto::Rejection| Refusal {
            version: entry.encoded.version,
            field: error.field.clone(),
            reason: error.reason.clone(),
        };
        let mut refused = Vec::new();
        for (id, entry) in sent {
            let Some(entry) = entry else { continue };
            let name = id.to_string();
            if let Some(error) = errors.iter().find(|e| e.resource == name) {
                refused.push((id.clone(), refusal(entry, error)));
            }
        }
        if refused.is_empty() {
            let mut upserts = sent.iter().filter_map(|(id, entry)| Some((id, entry.as_ref()?)));
            match (upserts.next(), upserts.next()) {
                (Some((id, entry)), None) => refused.push((id.clone(), refusal(entry, &errors[0]))),
                _ => self.items = (sent.len() / 2).max(1),
            }
        }
        refused
    }

    /// Whether the proxy has all that it needs, but for what it refused.
    pub(super) fn is_current(&self) -> bool {
        self.synced && self.pending.is_empty() && self.in_flight.is_none()
    }

    /// Whether the proxy has taken the newest state of a resource of its slice.
    pub(super) fn holds(&self, id: &ResourceId) -> bool {
        let flies = self.in_flight.as_ref().is_some_and(|flight| flight.sent.contains_key(id));
        self.synced && !flies && !self.pending.contains_key(id) && !self.refused.contains_key(id)
    }

    /// Changes that wait.
    pub(super) fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// What the proxy refused and still is the newest.
    pub(super) fn refusals(&self) -> &BTreeMap<ResourceId, Refusal> {
        &self.refused
    }
}

#[cfg(test)]
mod tests;
