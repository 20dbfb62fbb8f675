//! Path: prefixes by path element, from the longest that matches to the shortest. It must not know what they lead to.

use crate::name::Text;
use foldhash::fast::FixedState;
use smallvec::SmallVec;
use std::collections::HashMap;

/// Path elements up to which a lookup does not allocate.
const USUAL_DEPTH: usize = 12;

/// Prefixes and what they lead to. The cost of a lookup is bounded by the depth of the prefixes, not by that of the request's path.
#[derive(Debug)]
pub(super) struct Prefixes<T> {
    /// Trimmed prefix → value; the prefix `/` is the empty text. The keys come from config, so that a hash without a secret does.
    values: HashMap<Text, T, FixedState>,
    /// Bit n: there is a prefix of n elements. The last bit stands for all depths from 63 on.
    depths: u64,
    /// Elements of the deepest prefix.
    deepest: usize,
}

impl<T> Default for Prefixes<T> {
    fn default() -> Self {
        Self { values: HashMap::default(), depths: 0, deepest: 0 }
    }
}

/// A prefix without trailing slash: "When specified, a trailing `/` is ignored."
pub(crate) fn trimmed(prefix: &str) -> &str {
    prefix.trim_end_matches('/')
}

fn depth_bit(depth: usize) -> u64 {
    1 << depth.min(63)
}

impl<T: Default> Prefixes<T> {
    /// The value of a prefix, made if there is none.
    pub(super) fn entry(&mut self, prefix: &str) -> &mut T {
        let prefix = trimmed(prefix);
        let depth = prefix.bytes().filter(|b| *b == b'/').count();
        self.depths |= depth_bit(depth);
        self.deepest = self.deepest.max(depth);
        self.values.entry(prefix.into()).or_default()
    }
}

impl<T> Prefixes<T> {
    /// All values.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.values.values_mut()
    }

    /// The first answer on the way from the longest prefix of `path` to the shortest.
    ///
    /// HTTPPathMatch: "Matches based on a URL path prefix split by `/`. … matching is case-sensitive and done on a path element by
    /// element basis." The prefix `/` matches whatever path there is, `*` of `OPTIONS *` included.
    pub(super) fn find_map<'a, R>(&'a self, path: &str, mut ask: impl FnMut(&'a T) -> Option<R>) -> Option<R> {
        if self.depths > 1 && path.starts_with('/') {
            // Ends of the path's first 1, 2, … elements, where there are prefixes of as many.
            let slashes = path.bytes().enumerate().skip(1).filter(|(_, b)| *b == b'/').map(|(at, _)| at);
            let ends = slashes.chain([path.len()]).take(self.deepest);
            let ends = ends.zip(1..).filter(|(_, depth)| self.depths & depth_bit(*depth) != 0).map(|(end, _)| end);
            let ends: SmallVec<[usize; USUAL_DEPTH]> = ends.collect();
            for end in ends.into_iter().rev() {
                if let Some(answer) = self.values.get(&path[..end]).and_then(&mut ask) {
                    return Some(answer);
                }
            }
        }
        if self.depths & 1 == 0 { None } else { self.values.get("").and_then(ask) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_match_whole_elements_longest_first() {
        let mut prefixes = Prefixes::<String>::default();
        for prefix in ["/", "/abc", "/abc/def/", "/x//y"] {
            prefixes.entry(prefix).push_str(prefix);
        }
        let matching = |path: &str| {
            let mut seen = Vec::new();
            let none: Option<()> = prefixes.find_map(path, |v| {
                seen.push(v.as_str());
                None
            });
            assert_eq!(none, None);
            seen.join(" ")
        };
        for (path, want) in [
            ("/abc", "/abc /"),
            ("/abc/", "/abc /"),
            ("/abc/x", "/abc /"),
            ("/abcd", "/"),
            ("/abc/def", "/abc/def/ /abc /"),
            ("/abc/def/g", "/abc/def/ /abc /"),
            ("/x//y/z", "/x//y /"),
            ("/x/y", "/"),
            ("/", "/"),
            ("*", "/"),
            ("", "/"),
        ] {
            assert_eq!(matching(path), want, "{path}");
        }
    }

    #[test]
    fn prefixes_deeper_than_the_mask_of_depths_are_found() {
        let mut prefixes = Prefixes::<()>::default();
        let deep = "/a".repeat(70);
        prefixes.entry(&deep);
        assert_eq!(prefixes.find_map(&format!("{deep}/b"), |_| Some(())), Some(()));
        assert_eq!(prefixes.find_map(&"/a".repeat(69), |_| Some(())), None);
        assert_eq!(prefixes.find_map(&"/a".repeat(30_000), |_| Some(())), Some(()));
    }

    #[test]
    fn without_a_root_value_unmatched_paths_find_nothing() {
        let mut prefixes = Prefixes::<()>::default();
        prefixes.entry("/abc");
        assert_eq!(prefixes.find_map("/abcd", |_| Some(())), None);
        assert_eq!(prefixes.find_map("/abc", |_| Some(())), Some(()));
    }
}
