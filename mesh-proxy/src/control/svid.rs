//! SVIDs from the controller's authority. It must not decide when; `Svids` does.

use super::{Link, link::causes};
use mesh_core::identity::Identity;
use mesh_tls::{FetchFault, Fetching, KeyRequest, Svid, SvidSource};
use mesh_wire::proto::{SignRequest, SignResponse, identity_client::IdentityClient};
use rustls::pki_types::CertificateDer;
use std::time::Duration;
use tokio::{sync::Mutex, time::timeout};
use tonic::{Code, Status, transport::Channel};

/// One signature; the controller has nothing to wait for.
const SIGN_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer: a few certificates.
const ANSWER_LONGEST: usize = 256 * 1024;

/// Asks the controller to sign. Keeps one connection; drops it after a fault, so that the next call reads the authority and token anew.
pub struct SvidClient {
    link: Link,
    channel: Mutex<Option<Channel>>,
}

impl SvidClient {
    /// Over this link.
    pub fn new(link: Link) -> Self {
        Self { link, channel: Mutex::default() }
    }

    async fn sign(&self, identity: &Identity) -> Result<Svid, FetchFault> {
        let request = KeyRequest::new(identity).map_err(|e| FetchFault::Unusable(e.to_string()))?;
        let message = SignRequest { csr: request.csr().to_vec(), identity: identity.to_string() };
        let message = self.link.request(message).await.map_err(|e| FetchFault::Unreachable(e.to_string()))?;
        let channel = self.channel().await?;
        let mut client = IdentityClient::new(channel).max_decoding_message_size(ANSWER_LONGEST);
        let SignResponse { chain, roots, revision } = match timeout(SIGN_TIMEOUT, client.sign(message)).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => {
                self.disconnect().await;
                return Err(fault(&status));
            }
            Err(_) => {
                self.disconnect().await;
                return Err(FetchFault::Timeout);
            }
        };
        let der = |all: Vec<Vec<u8>>| all.into_iter().map(CertificateDer::from).collect::<Vec<_>>();
        let svid = Svid::new(identity.clone(), der(chain), request.into_key(), der(roots));
        svid.map(|svid| svid.at_revision(revision)).map_err(|e| FetchFault::Unusable(causes(&e)))
    }

    /// The lock is held over the dial on purpose: those who wait want this very connection, and the dial is bounded.
    async fn channel(&self) -> Result<Channel, FetchFault> {
        let mut kept = self.channel.lock().await;
        if let Some(channel) = &*kept {
            return Ok(channel.clone());
        }
        let channel = self.link.connect().await.map_err(|e| FetchFault::Unreachable(e.to_string()))?;
        *kept = Some(channel.clone());
        Ok(channel)
    }

    async fn disconnect(&self) {
        *self.channel.lock().await = None;
    }
}

impl SvidSource for SvidClient {
    fn fetch<'a>(&'a self, identity: &'a Identity) -> Fetching<'a> {
        Box::pin(self.sign(identity))
    }
}

fn fault(status: &Status) -> FetchFault {
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated | Code::InvalidArgument | Code::FailedPrecondition => {
            FetchFault::Refused(status.message().to_owned())
        }
        _ => FetchFault::Unreachable(causes(status)),
    }
}
