//! Candidates: matches that ask for the same path, in precedence, and which of them holds. It must not look at paths.

use super::{CompiledRule, Matched, RequestHead, header, precedence::Conditions, query};
use crate::mesh::{HttpMatch, TextMatch};
use foldhash::fast::FixedState;
use http::HeaderName;
use smallvec::SmallVec;
use std::{collections::HashMap, sync::Arc};

/// One match of one rule.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    rule: Arc<CompiledRule>,
    /// Index into the rule's matches.
    at: u32,
    /// Nothing but the path is asked.
    bare: bool,
}

impl Candidate {
    pub(super) fn new(rule: Arc<CompiledRule>, at: usize) -> Self {
        let bare = Conditions::of(&rule.rule.matches[at]).is_empty();
        Self { rule, at: at as u32, bare }
    }

    pub(super) fn condition(&self) -> &HttpMatch {
        &self.rule.rule.matches[self.at as usize]
    }

    /// Whether everything but the path holds.
    pub(super) fn holds(&self, head: RequestHead<'_>) -> bool {
        if self.bare {
            return true;
        }
        let condition = self.condition();
        condition.method.as_ref().is_none_or(|m| m == head.method)
            && condition.headers.iter().all(|h| header::holds(h, head.headers))
            && condition.query.iter().all(|q| query::holds(q, head.query))
    }

    pub(super) fn matched(&self) -> Matched<'_> {
        Matched { rule: &self.rule, condition: self.condition() }
    }
}

/// From how many matches of one path on an index of their headers pays: a scan of so many costs about as much as the lookups.
const INDEXED_FROM: usize = 16;

/// Matches with an equal path, in precedence.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    list: SmallVec<[Candidate; 1]>,
    /// Only of a long list, as when every tenant has a route of its own that asks for a header.
    by_header: Option<Box<HeaderIndex>>,
}

/// Header value → positions, ascending.
type ByValue = HashMap<Box<[u8]>, Vec<u32>, FixedState>;

/// Positions in the list by the first exact header condition.
#[derive(Debug, Default)]
struct HeaderIndex {
    /// Header name → its values.
    headers: HashMap<HeaderName, ByValue, FixedState>,
    /// Positions of those without such a condition, ascending.
    others: Vec<u32>,
}

impl Candidates {
    pub(super) fn push(&mut self, candidate: Candidate) {
        self.list.push(candidate);
    }

    /// Sorts by conditions; the order of pushing, which is age, settles ties.
    pub(super) fn settle(&mut self) {
        self.list.sort_by_key(|c| Conditions::of(c.condition()));
        self.by_header = (self.list.len() >= INDEXED_FROM).then(|| Box::new(HeaderIndex::of(&self.list)));
    }

    pub(super) fn find(&self, head: RequestHead<'_>) -> Option<Matched<'_>> {
        let found = match &self.by_header {
            None => self.list.iter().find(|c| c.holds(head)),
            Some(index) => index.first(head, |at| self.list[at as usize].holds(head)).map(|at| &self.list[at as usize]),
        };
        found.map(Candidate::matched)
    }
}

impl HeaderIndex {
    fn of(list: &[Candidate]) -> Self {
        let mut index = Self::default();
        for (at, candidate) in (0..).zip(list) {
            let exact = candidate.condition().headers.iter().find_map(|h| match &h.value {
                TextMatch::Exact(text) => Some((&h.name, text.as_bytes())),
                TextMatch::Regex(_) => None,
            });
            match exact {
                Some((name, value)) => {
                    let values = index.headers.entry(name.clone()).or_default();
                    values.entry(value.into()).or_default().push(at);
                }
                None => index.others.push(at),
            }
        }
        index
    }

    /// The lowest position that holds: of each list that can hold anything for this request, no further than the best so far.
    fn first(&self, head: RequestHead<'_>, holds: impl Fn(u32) -> bool) -> Option<u32> {
        let of_headers =
            self.headers.iter().filter_map(|(name, values)| values.get(&*header::value(name, head.headers)?));
        of_headers.chain([&self.others]).fold(None, |best: Option<u32>, positions| {
            let better = positions.iter().take_while(|at| best.is_none_or(|best| **at < best)).find(|at| holds(**at));
            better.copied().or(best)
        })
    }
}
