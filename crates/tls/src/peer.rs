//! The proof that a peer was verified. It must not verify chains; the handshake did, and this refuses if it did not.

use crate::{ALPN_H2, Refusal, leaf};
use mesh_core::identity::Identity;
use rustls::CommonState;
use std::time::SystemTime;

/// A peer whose certificate passed every rule in a completed handshake of one of [`crate::Trust`]'s configs. Only [`verified_peer`] makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedPeer {
    identity: Identity,
    not_after: SystemTime,
}

impl VerifiedPeer {
    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// When its certificate ends.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }
}

/// Who is at the other end of a finished handshake. The connection must come from a config of [`crate::Trust`]; those never finish with an
/// unverified peer. A resumed session skips the certificate, so its time is looked at again here.
pub fn verified_peer(connection: &CommonState) -> Result<VerifiedPeer, Refusal> {
    if connection.is_handshaking() {
        return Err(Refusal::Unfinished);
    }
    let chain = connection.peer_certificates().unwrap_or_default();
    let leaf = leaf::read(chain.first().ok_or(Refusal::NoCertificate)?)?;
    if connection.alpn_protocol() != Some(ALPN_H2) {
        return Err(Refusal::Alpn);
    }
    if let Ok(since) = SystemTime::now().duration_since(leaf.not_after)
        && since.as_secs() > 0
    {
        return Err(Refusal::Expired { ago: since.as_secs() });
    }
    Ok(VerifiedPeer { identity: leaf.identity, not_after: leaf.not_after })
}
