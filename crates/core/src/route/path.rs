//! Path: prefixes by path element, from the longest that matches to the shortest. It must not know what they lead to.

use crate::name::Text;
use smallvec::SmallVec;
use std::collections::HashMap;

/// Elements of a path that are usually walked without allocating.
const USUAL_DEPTH: usize = 12;

/// A tree of path elements. Its depth, and with it the cost of a lookup, is bounded by its prefixes, not by the request's path.
#[derive(Debug)]
pub(super) struct PrefixTree<T> {
    /// The first is the root: the prefix `/`.
    nodes: Vec<Node<T>>,
}

#[derive(Debug)]
struct Node<T> {
    value: Option<T>,
    children: HashMap<Text, u32>,
}

impl<T> Default for PrefixTree<T> {
    fn default() -> Self {
        Self { nodes: vec![Node { value: None, children: HashMap::new() }] }
    }
}

/// A prefix without trailing slash: "When specified, a trailing `/` is ignored."
pub(crate) fn trimmed(prefix: &str) -> &str {
    prefix.trim_end_matches('/')
}

impl<T: Default> PrefixTree<T> {
    /// The value of a prefix, made if there is none.
    pub(super) fn entry(&mut self, prefix: &str) -> &mut T {
        let mut at = 0;
        let below_root = trimmed(prefix).strip_prefix('/');
        for element in below_root.into_iter().flat_map(|p| p.split('/')) {
            at = match self.nodes[at].children.get(element) {
                Some(child) => *child as usize,
                None => {
                    let child = self.nodes.len();
                    self.nodes.push(Node { value: None, children: HashMap::new() });
                    self.nodes[at].children.insert(element.into(), child as u32);
                    child
                }
            };
        }
        self.nodes[at].value.get_or_insert_default()
    }
}

impl<T> PrefixTree<T> {
    /// All values.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.nodes.iter_mut().filter_map(|n| n.value.as_mut())
    }

    /// The first answer on the way from the longest prefix of `path` to the shortest.
    ///
    /// HTTPPathMatch: "Matches based on a URL path prefix split by `/`. … matching is case-sensitive and done on a path element by
    /// element basis." The prefix `/` matches whatever path there is, `*` of `OPTIONS *` included.
    pub(super) fn find_map<'a, R>(&'a self, path: &str, mut ask: impl FnMut(&'a T) -> Option<R>) -> Option<R> {
        let root = &self.nodes[0];
        let mut matching: SmallVec<[&T; USUAL_DEPTH]> = root.value.iter().collect();
        let mut at = root;
        for element in path.strip_prefix('/').into_iter().flat_map(|p| p.split('/')) {
            let Some(child) = at.children.get(element) else { break };
            at = &self.nodes[*child as usize];
            matching.extend(&at.value);
        }
        matching.into_iter().rev().find_map(&mut ask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_match_whole_elements_longest_first() {
        let mut tree = PrefixTree::<String>::default();
        for prefix in ["/", "/abc", "/abc/def/", "/x//y"] {
            tree.entry(prefix).push_str(prefix);
        }
        let matching = |path: &str| {
            let mut seen = Vec::new();
            let none: Option<()> = tree.find_map(path, |v| {
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
    fn without_a_root_value_unmatched_paths_find_nothing() {
        let mut tree = PrefixTree::<()>::default();
        tree.entry("/abc");
        assert_eq!(tree.find_map("/abcd", |_| Some(())), None);
        assert_eq!(tree.find_map("/abc", |_| Some(())), Some(()));
    }
}
