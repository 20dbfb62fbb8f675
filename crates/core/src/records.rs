//! Records: a sorted set of records that bear their own keys, cheap to copy and to change a little. It must not know what they are.

use imbl::OrdMap;
use std::{cmp::Ordering, fmt, ops::Bound, sync::Arc};

/// Most records of a page. A change copies a page or two; what is beside the records themselves is spent once a page.
const PAGE: usize = 128;

/// Room for more that both halves of a page have which was full.
const ROOM: usize = PAGE / 4;

/// A page with fewer is joined with the one before it, if both fit.
const SPARSE: usize = PAGE / 4;

/// Something that bears its own key.
pub trait Record {
    /// What it is sorted by and found with.
    type Key: Ord + Clone;

    /// The key.
    fn key(&self) -> Self::Key;

    /// How the key compares with another one.
    fn compare(&self, key: &Self::Key) -> Ordering {
        self.key().cmp(key)
    }
}

impl<T: Record> Record for Arc<T> {
    type Key = T::Key;

    fn key(&self) -> T::Key {
        T::key(self)
    }

    fn compare(&self, key: &T::Key) -> Ordering {
        T::compare(self, key)
    }
}

/// A persistent set: a clone shares everything, and a change of one copies what it touches.
///
/// A sorted map would hold each key beside the record that bears it, and leave half of its room empty when it is filled in the order of its
/// keys, as config comes. With hundreds of thousands of records that is most of what they weigh.
#[derive(Clone)]
pub struct Records<T: Record> {
    /// Each page by a key that none of its records is below, nor any record of later pages; none is empty.
    pages: OrdMap<T::Key, Arc<Vec<T>>>,
    len: usize,
}

impl<T: Record> Default for Records<T> {
    fn default() -> Self {
        Self { pages: OrdMap::new(), len: 0 }
    }
}

impl<T: Record + Clone + PartialEq> PartialEq for Records<T> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl<T: Record + Clone + fmt::Debug> fmt::Debug for Records<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<T: Record + Clone> Records<T> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.pages.values().flat_map(|page| page.iter())
    }

    /// Those whose keys come after this one, in order; all, if there is none.
    pub fn after<'a>(&'a self, last: Option<&T::Key>) -> impl Iterator<Item = &'a T> + use<'a, T> {
        let found = last.and_then(|last| Some((last, self.pages.get_prev(last)?)));
        // Of that page some come before it, of those after it none.
        let (from, skip) = match found {
            Some((last, (first, page))) => {
                (Bound::Included(first), page.partition_point(|record| record.compare(last).is_le()))
            }
            None => (Bound::Unbounded, 0),
        };
        self.pages.range((from, Bound::Unbounded)).flat_map(|(_, page)| page.iter()).skip(skip)
    }

    /// Whether there is one with this key.
    pub fn contains(&self, key: &T::Key) -> bool {
        self.get(key).is_some()
    }

    /// The record with this key.
    pub fn get(&self, key: &T::Key) -> Option<&T> {
        let (_, page) = self.page(key)?;
        page.get(find(page, key).ok()?)
    }

    /// Puts a record in its place; the one that had its key before.
    pub fn insert(&mut self, record: T) -> Option<T> {
        let key = record.key();
        let Some((first, page)) = self.page(&key) else {
            self.pages.insert(key, Arc::new(vec![record]));
            self.len = 1;
            return None;
        };
        let (first, len) = (first.clone(), page.len());
        match find(page, &key) {
            Ok(at) => return Some(std::mem::replace(&mut self.page_mut(&first)?[at], record)),
            // What comes in order leaves full pages behind.
            Err(PAGE) => drop(self.pages.insert(key, Arc::new(vec![record]))),
            Err(at) if len == PAGE => {
                let page = self.page_mut(&first)?;
                let mut right = page.split_off(PAGE / 2);
                page.shrink_to(PAGE / 2 + ROOM);
                right.reserve_exact(ROOM);
                let (half, at) = if at <= PAGE / 2 { (page, at) } else { (&mut right, at - PAGE / 2) };
                half.insert(at, record);
                self.pages.insert(right[0].key(), Arc::new(right));
                self.lower(first, key);
            }
            Err(at) => {
                place(self.pages.get_mut(&first)?, at, record);
                self.lower(first, key);
            }
        }
        self.len += 1;
        None
    }

    /// Takes the record with this key out.
    pub fn remove(&mut self, key: &T::Key) -> Option<T> {
        let (first, page) = self.page(key)?;
        let (first, at) = (first.clone(), find(page, key).ok()?);
        let page = self.page_mut(&first)?;
        let record = page.remove(at);
        let left = page.len();
        self.len -= 1;
        match left {
            0 => drop(self.pages.remove(&first)),
            1..SPARSE => self.join(&first),
            _ => {}
        }
        Some(record)
    }

    /// The page that holds the key if any does, and what it is found by.
    fn page(&self, key: &T::Key) -> Option<(&T::Key, &Arc<Vec<T>>)> {
        self.pages.get_prev(key).or_else(|| self.pages.get_min().map(|(first, page)| (first, page)))
    }

    fn page_mut(&mut self, first: &T::Key) -> Option<&mut Vec<T>> {
        self.pages.get_mut(first).map(Arc::make_mut)
    }

    /// The first page got a record below all others.
    fn lower(&mut self, first: T::Key, key: T::Key) {
        if key < first
            && let Some(page) = self.pages.remove(&first)
        {
            self.pages.insert(key, page);
        }
    }

    fn join(&mut self, first: &T::Key) {
        let fits = |(_, page): &(&T::Key, &Arc<Vec<T>>)| page.len() + SPARSE <= PAGE;
        let before = self.pages.range((Bound::Unbounded, Bound::Excluded(first))).next_back().filter(fits);
        let Some(before) = before.map(|(key, _)| key.clone()) else { return };
        let Some(page) = self.pages.remove(first) else { return };
        if let Some(before) = self.page_mut(&before) {
            before.extend_from_slice(&page);
        }
    }
}

fn find<T: Record>(page: &[T], key: &T::Key) -> Result<usize, usize> {
    page.binary_search_by(|record| record.compare(key))
}

/// Puts a record into a page that has a place, with little room beside.
fn place<T: Clone>(page: &mut Arc<Vec<T>>, at: usize, record: T) {
    match Arc::get_mut(page) {
        Some(page) => {
            if page.len() == page.capacity() {
                page.reserve_exact((page.len() / 2).clamp(1, PAGE - page.len()));
            }
            page.insert(at, record);
        }
        None => {
            let mut copy = Vec::with_capacity(page.len() + 1);
            copy.extend_from_slice(&page[..at]);
            copy.push(record);
            copy.extend_from_slice(&page[at..]);
            *page = Arc::new(copy);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    impl Record for (u16, u32) {
        type Key = u16;
        fn key(&self) -> u16 {
            self.0
        }
    }

    fn check(records: &Records<(u16, u32)>, like: &BTreeMap<u16, u32>) {
        assert!(records.iter().copied().eq(like.iter().map(|(k, v)| (*k, *v))));
        assert_eq!((records.len(), records.is_empty()), (like.len(), like.is_empty()));
        let pages: Vec<_> = records.pages.iter().collect();
        assert!(pages.iter().all(|(first, page)| !page.is_empty() && page.len() <= PAGE && page[0].0 >= **first));
        assert!(pages.windows(2).all(|two| two[0].1.last().unwrap().0 < *two[1].0));
    }

    fn ten_pages() -> Records<(u16, u32)> {
        let mut records = Records::default();
        for n in 0..10 * PAGE as u16 {
            records.insert((n, 0));
        }
        records
    }

    #[test]
    fn what_comes_in_order_fills_its_pages() {
        let records = ten_pages();
        assert_eq!(records.pages.len(), 10);
        assert!(records.pages.values().all(|page| page.capacity() == PAGE));
    }

    #[test]
    fn pages_that_lose_most_are_joined() {
        let mut records = ten_pages();
        for n in (0..10 * PAGE as u16).filter(|n| n % 10 > 0) {
            records.remove(&n);
        }
        assert_eq!(records.len(), PAGE);
        assert!(records.pages.len() <= 3, "{} pages", records.pages.len());
    }

    proptest! {
        #[test]
        fn they_are_what_a_sorted_map_is_and_a_clone_stays_as_it_was(
            steps in prop::collection::vec((any::<bool>(), 0..600u16, 0..400u16), 1..60)
        ) {
            let (mut records, mut like) = (Records::default(), BTreeMap::new());
            let mut version = 0;
            for (insert, from, count) in steps {
                let (before, like_before) = (records.clone(), like.clone());
                for key in from..from + count {
                    version += 1;
                    // Up, or down, as the first key says.
                    let key = if from % 2 == 0 { key } else { from + from + count - 1 - key };
                    if insert {
                        prop_assert_eq!(records.insert((key, version)), like.insert(key, version).map(|v| (key, v)));
                    } else {
                        prop_assert_eq!(records.remove(&key), like.remove(&key).map(|v| (key, v)));
                    }
                    prop_assert_eq!(records.get(&key).copied(), like.get(&key).map(|v| (key, *v)));
                }
                check(&before, &like_before);
                check(&records, &like);
                let after = |key: u16| like.range(key + 1..).map(|(k, v)| (*k, *v));
                prop_assert!(records.after(Some(&from)).copied().eq(after(from)));
                prop_assert!(records.after(None).copied().eq(records.iter().copied()));
            }
        }
    }
}
