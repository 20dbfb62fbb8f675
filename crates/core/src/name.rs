//! Names of Kubernetes objects as types, so that a namespace is never taken for a name. It must not know what the objects are.

use std::{fmt, sync::Arc};

/// Shared immutable text. Names travel through every noun; cloning one is a reference count.
pub type Text = Arc<str>;

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
            Some((ns, n)) if !ns.is_empty() && !n.is_empty() && !n.contains('/') => Ok(Self::new(ns, n)),
            _ => Err(BadName(s.into())),
        }
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
    fn proxy_names_survive_their_text_form() {
        for name in [ProxyName::Node("n1".into()), ProxyName::Gateway(NsName::new("shop", "front"))] {
            assert_eq!(name.to_string().parse::<ProxyName>(), Ok(name));
        }
        for bad in ["", "node/", "node/a/b", "gateway/x", "pod/x", "gateway/a/b/c"] {
            assert!(bad.parse::<ProxyName>().is_err(), "{bad}");
        }
    }
}
