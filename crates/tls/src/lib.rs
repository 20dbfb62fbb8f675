//! TRUST: who a peer is and who we are: SVIDs, strict SPIFFE verification, TLS configs, the embedded authority. It must not dial, listen or decide what a peer may do.
//!
//! Reading order: [`refusal`] says what can be wrong with a peer, [`leaf`] and [`verify`] find it out, [`peer`] is the proof that nothing was;
//! [`svid`] is our own side, [`svids`] keeps it fresh, [`trust`] turns it into TLS configs; [`gateway`] is TLS towards the outside;
//! [`x509`] is the authority of the controller; [`unverified`] is for who asks a server without minding who it is.

pub mod gateway;
pub mod leaf;
pub mod peer;
pub mod refusal;
pub mod request;
pub mod store;
pub mod svid;
pub mod svids;
pub mod trust;
pub mod unverified;
pub mod verify;
pub mod x509;

pub use peer::{VerifiedPeer, verified_peer};
pub use refusal::{Refusal, refusal_of};
pub use request::KeyRequest;
pub use store::SvidStore;
pub use svid::{BadSvid, Svid};
pub use svids::{FetchFault, Fetching, SvidSource, Svids};
pub use trust::{NoIdentity, Trust};
pub use x509::Authority;

/// The one ALPN protocol between nodes.
pub const ALPN_H2: &[u8] = b"h2";

/// The fingerprint of bytes, of a token or a certificate: SHA-256.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref());
    hash
}

/// The cryptography of every TLS connection of the mesh, built once.
pub(crate) fn provider() -> &'static std::sync::Arc<rustls::crypto::CryptoProvider> {
    static PROVIDER: std::sync::LazyLock<std::sync::Arc<rustls::crypto::CryptoProvider>> =
        std::sync::LazyLock::new(|| std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    &PROVIDER
}
