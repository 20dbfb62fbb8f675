//! What went wrong while a peer was dialled. It must not decide what happens next; the fault table of the core says that.

use h2::Reason;
use mesh_core::fault::Fault;
use mesh_tls::{Refusal, refusal_of};
use std::{error::Error, fmt, io, sync::Arc};

/// A failed dial: the line of the fault table, and the chain of causes for the log. Shared by all who waited for the same dial.
#[derive(Clone, Debug)]
pub struct DialFault {
    /// What it means.
    pub fault: Fault,
    /// What happened.
    pub source: Option<Arc<dyn Error + Send + Sync>>,
}

impl DialFault {
    /// A fault with its cause.
    pub fn new(fault: Fault, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { fault, source: Some(Arc::from(source.into())) }
    }

    /// Bounded label for metrics: the rule that the peer's certificate broke, or that it says ours broke; else the fault's.
    pub fn rule(&self) -> &'static str {
        let mut next = self.source.as_deref().map(|e| e as &(dyn Error + 'static));
        while let Some(cause) = next {
            let io = cause.downcast_ref::<io::Error>();
            let io = io.or_else(|| cause.downcast_ref::<h2::Error>().and_then(h2::Error::get_io));
            if let Some(refusal) = cause.downcast_ref::<Refusal>().cloned().or_else(|| refusal_of(io?)) {
                return refusal.label();
            }
            next = cause.source();
        }
        self.fault.label()
    }

    /// The whole chain of causes, for one log line.
    pub fn detail(&self) -> String {
        match &self.source {
            Some(source) => crate::fault::chain(&**source),
            None => self.fault.label().to_owned(),
        }
    }
}

/// Whether the peer has certainly not processed the stream.
pub fn is_refused(error: &h2::Error) -> bool {
    match error.reason() {
        Some(Reason::REFUSED_STREAM) => true,
        // RFC 9113 §6.8: streams above the last one of a GOAWAY "will not be processed"; those below it do not end with it.
        Some(Reason::NO_ERROR) => error.is_go_away() && error.is_remote(),
        _ => false,
    }
}

impl From<Fault> for DialFault {
    fn from(fault: Fault) -> Self {
        Self { fault, source: None }
    }
}

impl fmt::Display for DialFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.fault.label())
    }
}

impl Error for DialFault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|e| e as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detail_names_every_cause_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("TLS failed")]
        struct Outer(#[source] std::io::Error);
        let fault = DialFault::new(Fault::PeerIdentity, Outer(std::io::Error::other("wrong name")));
        assert_eq!(fault.detail(), "TLS failed: wrong name");
        assert_eq!(DialFault::from(Fault::NoIdentity).detail(), "no_identity");
    }

    #[test]
    fn the_rule_is_found_wherever_it_lies() {
        let tls: rustls::Error = Refusal::UriSans(2).into();
        let io = || io::Error::new(io::ErrorKind::InvalidData, tls.clone());
        #[derive(Debug, thiserror::Error)]
        #[error("to somebody")]
        struct Named(#[source] Box<dyn Error + Send + Sync>);
        for (source, rule) in [
            (Box::new(Refusal::Expired { ago: 3 }) as Box<dyn Error + Send + Sync>, "expired"),
            (Box::new(io()), "uri_sans"),
            (Box::new(Named(Box::new(io()))), "uri_sans"),
            (Box::new(Named(Box::new(io::Error::other("reset")))), "peer_identity"),
        ] {
            assert_eq!(DialFault::new(Fault::PeerIdentity, source).rule(), rule);
        }
        assert_eq!(DialFault::from(Fault::NoIdentity).rule(), "no_identity");
    }
}
