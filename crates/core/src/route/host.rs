//! Host: from a host name to what is most specific for it: its own name, then the longest wildcard, then anything. It must not know what it finds.

use crate::{mesh::HostPattern, name::Text};
use foldhash::fast::FixedState;
use imbl::{GenericHashMap, shared_ptr::DefaultSharedPtr};

/// Longest host name (RFC 1035 §2.3.4, as text). A longer one matches no pattern, so that a huge Host header costs nothing.
pub const HOST_MAX: usize = 253;

/// Host names to values. The keys come from config, not from requests, so that a fast hash without a secret does.
type Names<T> = GenericHashMap<Text, T, FixedState, DefaultSharedPtr>;

/// A map from optional host patterns, cheap to clone and to change in one place.
#[derive(Clone, Debug)]
pub(crate) struct HostIndex<T> {
    exact: Names<T>,
    /// Suffix after `*.` → value.
    wildcard: Names<T>,
    any: Option<T>,
}

impl<T> Default for HostIndex<T> {
    fn default() -> Self {
        Self { exact: Names::default(), wildcard: Names::default(), any: None }
    }
}

impl<T: Clone> HostIndex<T> {
    /// One value for every host.
    pub(crate) fn of_any(value: T) -> Self {
        Self { any: Some(value), ..Self::default() }
    }

    /// The value of a pattern; no pattern: any host.
    pub(crate) fn at(&self, pattern: Option<&HostPattern>) -> Option<&T> {
        match pattern {
            Some(HostPattern::Exact(name)) => self.exact.get(name),
            Some(HostPattern::Wildcard(suffix)) => self.wildcard.get(suffix),
            None => self.any.as_ref(),
        }
    }

    /// Puts or removes the value of a pattern.
    pub(crate) fn set(&mut self, pattern: Option<&HostPattern>, value: Option<T>) {
        let (map, key) = match pattern {
            Some(HostPattern::Exact(name)) => (&mut self.exact, name),
            Some(HostPattern::Wildcard(suffix)) => (&mut self.wildcard, suffix),
            None => return self.any = value,
        };
        match value {
            Some(value) => drop(map.insert(key.clone(), value)),
            None => drop(map.remove(key)),
        }
    }

    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wildcard.is_empty() && self.any.is_none()
    }

    /// Whether a host makes a difference.
    pub(crate) fn wants_host(&self) -> bool {
        !self.exact.is_empty() || !self.wildcard.is_empty()
    }

    /// All values, in no order.
    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.exact.values().chain(self.wildcard.values()).chain(&self.any)
    }

    /// The value of the most specific pattern that matches.
    pub(crate) fn best(&self, host: &str) -> Option<&T> {
        self.find_map(host, Some)
    }

    /// The first answer on the way from the most specific pattern that matches to the least.
    ///
    /// HTTPRoute.hostnames: "precedence must be given to rules from the HTTPRoute with the largest number of: Characters in a
    /// matching non-wildcard hostname. Characters in a matching hostname."
    pub(crate) fn find_map<'a, R>(&'a self, host: &str, mut ask: impl FnMut(&'a T) -> Option<R>) -> Option<R> {
        if !host.is_empty() && host.len() <= HOST_MAX {
            if !self.exact.is_empty()
                && let Some(answer) = self.exact.get(host).and_then(&mut ask)
            {
                return Some(answer);
            }
            if !self.wildcard.is_empty() {
                // "a match for `*.example.com` would match both `test.example.com`, and `foo.test.example.com`, but not `example.com`".
                for (dot, _) in host.match_indices('.').filter(|(dot, _)| *dot > 0) {
                    if let Some(answer) = self.wildcard.get(&host[dot + 1..]).and_then(&mut ask) {
                        return Some(answer);
                    }
                }
            }
        }
        self.any.as_ref().and_then(ask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(patterns: &[&str]) -> HostIndex<String> {
        let mut index = HostIndex::default();
        for p in patterns {
            let pattern = match (p.strip_prefix("*."), *p) {
                (Some(suffix), _) => Some(HostPattern::Wildcard(suffix.into())),
                (None, "") => None,
                (None, name) => Some(HostPattern::Exact(name.into())),
            };
            index.set(pattern.as_ref(), Some(p.to_string()));
        }
        index
    }

    #[test]
    fn the_most_specific_pattern_wins() {
        let index = index(&["", "*.com", "*.example.com", "a.example.com"]);
        for (host, best) in [
            ("a.example.com", "a.example.com"),
            ("b.example.com", "*.example.com"),
            ("c.b.example.com", "*.example.com"),
            ("example.com", "*.com"),
            ("com", ""),
            ("", ""),
            (".com", ""),
        ] {
            assert_eq!(index.best(host).unwrap(), best, "{host}");
        }
    }

    #[test]
    fn less_specific_patterns_are_asked_next() {
        let index = index(&["", "*.com", "*.example.com", "a.example.com"]);
        let mut asked = Vec::new();
        let none: Option<()> = index.find_map("a.example.com", |p| {
            asked.push(p.clone());
            None
        });
        assert_eq!((none, asked.join(" ")), (None, "a.example.com *.example.com *.com ".into()));
    }

    #[test]
    fn a_host_longer_than_any_name_matches_no_pattern() {
        let host = format!("{}.com", "a.".repeat(200));
        assert_eq!(index(&["*.com"]).best(&host), None);
    }

    #[test]
    fn a_removed_pattern_is_gone() {
        let mut index = index(&["a.com"]);
        index.set(Some(&HostPattern::Exact("a.com".into())), None);
        assert!(index.is_empty() && index.best("a.com").is_none());
    }
}
