//! Few: a set of mostly one, as readers of a fact or slices of a Service, of which there are hundreds of thousands. It must not be empty.

use std::collections::BTreeSet;

/// At least one.
#[derive(Debug)]
pub(crate) enum Few<T> {
    /// Nearly always.
    One(T),
    /// Sorted.
    Several(BTreeSet<T>),
}

impl<T: Ord + Clone> Few<T> {
    pub(crate) fn insert(&mut self, item: &T) {
        match self {
            Self::One(one) => *self = Self::Several(BTreeSet::from([one.clone(), item.clone()])),
            Self::Several(items) => drop(items.insert(item.clone())),
        }
    }

    /// Whether none is left, so that the set is to go.
    pub(crate) fn remove(&mut self, item: &T) -> bool {
        match self {
            Self::One(one) => one == item,
            Self::Several(items) => {
                items.remove(item);
                items.is_empty()
            }
        }
    }

    /// All, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        let (one, several) = match self {
            Self::One(one) => (Some(one), None),
            Self::Several(items) => (None, Some(items)),
        };
        one.into_iter().chain(several.into_iter().flatten())
    }
}
