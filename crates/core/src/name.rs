//! Names of Kubernetes objects as types, so that a namespace is never taken for a name. It must not know what the objects are.

use crate::records::Record;
use foldhash::fast::FixedState;
use std::{
    cmp::Ordering,
    collections::HashSet,
    fmt,
    sync::{LazyLock, Mutex, PoisonError},
};

/// Shared immutable text. Names travel through every noun; cloning one is a reference count, and each takes one word where it is held.
pub type Text = arcstr::ArcStr;

/// The text, in the one allocation that all have who got it here: for names that many records bear, such as namespaces, nodes and accounts.
///
/// Only who reads config comes here, never traffic.
pub fn shared(text: &str) -> Text {
    static POOL: LazyLock<Mutex<Pool>> = LazyLock::new(Mutex::default);
    POOL.lock().unwrap_or_else(PoisonError::into_inner).get(text)
}

/// Fewest texts after which it is looked which of them are still in use.
const SWEEP_MIN: usize = 4096;

#[derive(Default)]
struct Pool {
    texts: HashSet<Text, FixedState>,
    /// Size at which unused texts are dropped: twice what was left the last time, so that sweeping costs little for each text.
    sweep: usize,
}

impl Pool {
    fn get(&mut self, text: &str) -> Text {
        if let Some(known) = self.texts.get(text) {
            return known.clone();
        }
        if self.texts.len() >= self.sweep.max(SWEEP_MIN) {
            self.texts.retain(|text| Text::strong_count(text).is_some_and(|count| count > 1));
            self.texts.shrink_to(SWEEP_MIN);
            self.sweep = self.texts.len() * 2;
        }
        let new = Text::from(text);
        self.texts.insert(new.clone());
        new
    }
}

/// The name of an object within its namespace: namespace first, so that a sorted map groups by namespace.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NsName {
    /// Namespace of the object.
    pub namespace: Text,
    /// `metadata.name` of the object.
    pub name: Text,
}

impl NsName {
    /// Names an object.
    pub fn new(namespace: impl Into<Text>, name: impl Into<Text>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for NsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for NsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Parses `namespace/name`; both parts must be non-empty.
impl std::str::FromStr for NsName {
    type Err = BadName;
    fn from_str(s: &str) -> Result<Self, BadName> {
        match s.split_once('/') {
            Some((ns, n)) if !ns.is_empty() && !n.is_empty() && !n.contains('/') => {
                Ok(Self { namespace: shared(ns), name: shared(n) })
            }
            _ => Err(BadName(s.into())),
        }
    }
}

/// A set of names is sorted by them.
impl Record for NsName {
    type Key = Self;

    fn key(&self) -> Self {
        self.clone()
    }

    fn compare(&self, key: &Self) -> Ordering {
        self.cmp(key)
    }
}

/// A text that is not `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not of the form namespace/name")]
pub struct BadName(pub Text);

/// A Service: the target of routes and policies and the parent of endpoints.
pub type ServiceId = NsName;

/// A Gateway.
pub type GatewayId = NsName;

/// A proxy, the unit that config is sliced for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProxyName {
    /// The proxy of a node: serves the meshed pods scheduled there.
    Node(Text),
    /// The proxy (all its replicas) of one Gateway.
    Gateway(GatewayId),
}

impl fmt::Display for ProxyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(n) => write!(f, "node/{n}"),
            Self::Gateway(g) => write!(f, "gateway/{g}"),
        }
    }
}

/// Parses what `Display` writes: `node/NAME` or `gateway/NAMESPACE/NAME`.
impl std::str::FromStr for ProxyName {
    type Err = BadName;
    fn from_str(s: &str) -> Result<Self, BadName> {
        match s.split_once('/') {
            Some(("node", n)) if !n.is_empty() && !n.contains('/') => Ok(Self::Node(n.into())),
            Some(("gateway", rest)) => rest.parse().map(Self::Gateway),
            _ => Err(BadName(s.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_one_while_somebody_has_them() {
        let (mut pool, one) = (Pool::default(), Text::from("one"));
        let kept = pool.get("one");
        assert_eq!(kept, one);
        assert!(Text::ptr_eq(&kept, &pool.get("one")));
        for n in 0..3 * SWEEP_MIN {
            pool.get(&n.to_string());
        }
        assert!(pool.texts.len() <= SWEEP_MIN, "{} are kept though nobody has them", pool.texts.len());
        assert!(Text::ptr_eq(&kept, &pool.get("one")), "one in use stays");
    }

    #[test]
    fn proxy_names_survive_their_text_form() {
        for name in [ProxyName::Node("n1".into()), ProxyName::Gateway(NsName::new("shop", "front"))] {
            assert_eq!(name.to_string().parse::<ProxyName>(), Ok(name));
        }
        for bad in ["", "node/", "node/a/b", "gateway/x", "pod/x", "gateway/a/b/c"] {
            assert!(bad.parse::<ProxyName>().is_err(), "{bad}");
        }
    }
}
