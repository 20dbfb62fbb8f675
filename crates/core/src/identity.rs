//! SPIFFE identities of workloads: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`. It must not read certificates.

use crate::name::{Text, shared};
use std::fmt;

/// Longest trust domain that SPIFFE allows (SPIFFE-ID §2.1: "The trust domain name … maximum 255 bytes").
pub const TRUST_DOMAIN_MAX: usize = 255;

/// Longest SPIFFE ID that implementations must support (SPIFFE-ID §2.3: "URIs … up to 2048 bytes").
pub const SPIFFE_ID_MAX: usize = 2048;

/// A SPIFFE trust domain: lower case letters, digits, dots, dashes, underscores (SPIFFE-ID §2.1).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Text);

impl TrustDomain {
    /// Checks and takes a trust domain name.
    pub fn new(name: &str) -> Result<Self, BadIdentity> {
        let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        if name.is_empty() || name.len() > TRUST_DOMAIN_MAX || !name.bytes().all(ok) {
            return Err(BadIdentity::TrustDomain(name.into()));
        }
        Ok(Self(shared(name)))
    }

    /// The name, without scheme.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who a workload is. Equality is identity: the peer is this or it is not.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The authority that vouches for it.
    pub trust_domain: TrustDomain,
    /// Namespace of the service account.
    pub namespace: Text,
    /// Name of the service account.
    pub service_account: Text,
}

impl Identity {
    /// Checks and takes the parts of an identity; both must be non-empty SPIFFE path segments.
    pub fn new(trust_domain: TrustDomain, namespace: &str, service_account: &str) -> Result<Self, BadIdentity> {
        for part in [namespace, service_account] {
            if !is_path_segment(part) {
                return Err(BadIdentity::Segment(part.into()));
            }
        }
        Ok(Self { trust_domain, namespace: shared(namespace), service_account: shared(service_account) })
    }
}

/// SPIFFE-ID §2.2: path segments are letters, digits, dots, dashes and underscores, never empty, `.` or `..`.
fn is_path_segment(s: &str) -> bool {
    let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    !s.is_empty() && s != "." && s != ".." && s.bytes().all(ok)
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads exactly the form that `Display` writes; anything else is refused.
impl std::str::FromStr for Identity {
    type Err = BadIdentity;
    fn from_str(s: &str) -> Result<Self, BadIdentity> {
        let bad = || BadIdentity::Form(s.chars().take(SPIFFE_ID_MAX).collect::<String>().into());
        if s.len() > SPIFFE_ID_MAX {
            return Err(bad());
        }
        let rest = s.strip_prefix("spiffe://").ok_or_else(bad)?;
        let mut parts = rest.split('/');
        let (Some(domain), Some("ns"), Some(ns), Some("sa"), Some(sa), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad());
        };
        Self::new(TrustDomain::new(domain)?, ns, sa)
    }
}

/// Why a text is not an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadIdentity {
    /// Not a SPIFFE trust domain.
    #[error("trust domain {0:?} must be 1 to 255 lower case letters, digits, '.', '-' or '_'")]
    TrustDomain(Text),
    /// Not a SPIFFE path segment.
    #[error("{0:?} is not a SPIFFE path segment")]
    Segment(Text),
    /// Not of our form.
    #[error("{0:?} is not of the form spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT")]
    Form(Text),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_survives_its_uri() {
        let id: Identity = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
        assert_eq!((&*id.namespace, &*id.service_account), ("shop", "cart"));
        assert_eq!(id.to_string().parse::<Identity>().unwrap(), id);
    }

    #[test]
    fn everything_but_the_exact_form_is_refused() {
        for bad in [
            "",
            "spiffe://",
            "spiffe://td",
            "http://td/ns/a/sa/b",
            "spiffe://TD/ns/a/sa/b",
            "spiffe://td/ns/a/sa/b/",
            "spiffe://td/ns/a/sa/",
            "spiffe://td/ns//sa/b",
            "spiffe://td/ns/a/sa/b/c",
            "spiffe://td/ns/a/sa/..",
            "spiffe://td/ns/a/sa/b?x",
            "spiffe://td:80/ns/a/sa/b",
            "spiffe://td/sa/b/ns/a",
        ] {
            assert!(bad.parse::<Identity>().is_err(), "{bad}");
        }
    }
}
