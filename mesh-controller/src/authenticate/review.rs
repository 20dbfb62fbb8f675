//! A cluster's way to know a caller: the API server reviews its ServiceAccount token. It must not believe anything that stands in a token itself.

use super::{Authenticate, Unauthenticated};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus, UserInfo};
use kube::{Api, Client, api::PostParams};
use mesh_core::name::{NsName, ProxyName};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use tokio::{sync::Semaphore, time::timeout};

/// A reviewed token counts so long without being reviewed again, and so long a deleted pod's token is still taken at most. Enough for the burst of
/// certificates of a node that starts; about the time for which API servers themselves remember a token.
const KNOWN: Duration = Duration::from_secs(15);
/// A refused one, so that a proxy that tries again and again costs the API server little; short, because a pod may be known to it in a moment.
const REFUSED: Duration = Duration::from_secs(2);
/// Tokens that are remembered: two of every node of a cluster of 5,000 (its own, and its next one), with room.
const REMEMBERED: usize = 16 * 1024;
/// Longest token that is sent on: one of a ServiceAccount has one or two KiB.
const TOKEN_LONGEST: usize = 16 * 1024;
/// Reviews at once: when all nodes come at the same moment the API server must not be overrun by us.
const REVIEWS: usize = 32;
/// One review, waiting included; the proxy itself gives up after about the same time.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the API server says on which node the token's pod runs (KEP-4193; always there since Kubernetes 1.32).
const NODE: &str = "authentication.kubernetes.io/node-name";
const POD: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const ACCOUNT: &str = "system:serviceaccount:";

/// Whose tokens are taken, and as what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accounts {
    /// Tokens must be made for this audience, so that one that was given to somebody else is of no use here.
    pub audience: String,
    /// ServiceAccount of the node proxies. A Gateway's proxy, once Gateways are provisioned, runs as an account of the Gateway's own name and
    /// namespace: then `Accounts::proxy` is where it gets its name.
    pub node: NsName,
}

/// A reviewed token's owner.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    proxy: ProxyName,
    pod: String,
    pod_uid: String,
}

/// By a token's hash: until when what counts.
type Memory = HashMap<[u8; 32], (Instant, Result<ProxyName, Unauthenticated>)>;

/// Reviews tokens by the API server, and remembers the answers for moments. Of a token only its hash is kept.
pub struct TokenReviews {
    reviews: Api<TokenReview>,
    accounts: Accounts,
    memory: Mutex<Memory>,
    permits: Semaphore,
}

impl TokenReviews {
    /// Asks this API server. Needs `create` on `tokenreviews.authentication.k8s.io`.
    pub fn new(client: Client, accounts: Accounts) -> Self {
        Self { reviews: Api::all(client), accounts, memory: Mutex::default(), permits: Semaphore::new(REVIEWS) }
    }

    fn remembered(&self, hash: &[u8; 32]) -> Option<Result<ProxyName, Unauthenticated>> {
        let memory = self.memory.lock();
        memory.get(hash).filter(|(until, _)| Instant::now() < *until).map(|(_, answer)| answer.clone())
    }

    fn remember(&self, hash: [u8; 32], answer: &Result<ProxyName, Unauthenticated>) {
        let now = Instant::now();
        let mut memory = self.memory.lock();
        if memory.len() >= REMEMBERED {
            memory.retain(|_, (until, _)| now < *until);
        }
        // Still full: somebody invents tokens. Those who are known are reviewed again, which is all that is lost.
        if memory.len() >= REMEMBERED {
            memory.clear();
        }
        memory.insert(hash, (now + if answer.is_ok() { KNOWN } else { REFUSED }, answer.clone()));
    }

    async fn review(&self, token: &str) -> Result<Result<Known, Unauthenticated>, Unauthenticated> {
        let spec = TokenReviewSpec { audiences: Some(vec![self.accounts.audience.clone()]), token: token.to_owned() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let asked = async {
            let _permit = self.permits.acquire().await.map_err(|e| Unauthenticated::Unavailable(e.to_string()))?;
            let answered = self.reviews.create(&PostParams::default(), &review).await;
            answered.map_err(|e| Unauthenticated::Unavailable(format!("TokenReview: {e}")))
        };
        let late = || Unauthenticated::Unavailable(format!("no TokenReview within {} s", REVIEW_TIMEOUT.as_secs()));
        let answer = timeout(REVIEW_TIMEOUT, asked).await.map_err(|_| late())??;
        // An answer without a verdict says nothing of the token.
        let status = answer.status.ok_or_else(|| Unauthenticated::Unavailable("TokenReview without status".into()))?;
        Ok(self.accounts.judge(status))
    }
}

#[tonic::async_trait]
impl Authenticate for TokenReviews {
    async fn authenticate(&self, token: &str) -> Result<ProxyName, Unauthenticated> {
        if token.is_empty() || token.len() > TOKEN_LONGEST {
            return Err(Unauthenticated::UnknownToken);
        }
        let hash = mesh_tls::sha256(token.as_bytes());
        if let Some(answer) = self.remembered(&hash) {
            return answer;
        }
        // Unavailable is not remembered: it may be over with the next call.
        let judged = self.review(token).await?;
        if let Ok(Known { proxy, pod, pod_uid }) = &judged {
            tracing::debug!(%proxy, pod, pod_uid, "token reviewed");
        }
        let answer = judged.map(|known| known.proxy);
        self.remember(hash, &answer);
        answer
    }
}

impl Accounts {
    /// What a review means. Pure.
    fn judge(&self, status: TokenReviewStatus) -> Result<Known, Unauthenticated> {
        if status.authenticated != Some(true) {
            if let Some(error) = &status.error {
                tracing::debug!(error, "the API server does not take a token");
            }
            return Err(Unauthenticated::UnknownToken);
        }
        // TokenReviewStatus.audiences: "A client of the TokenReview API that sets the spec.audiences field should validate that a compatible
        // audience identifier is returned in the status.audiences field to ensure that the TokenReview server is audience aware".
        if !status.audiences.iter().flatten().any(|audience| *audience == self.audience) {
            return Err(Unauthenticated::Audience { wanted: self.audience.clone() });
        }
        let user = status.user.unwrap_or_default();
        let said = |key: &str| match user.extra.as_ref().and_then(|extra| extra.get(key)).map(Vec::as_slice) {
            // Several would be several pods; no API server says so.
            Some([one]) if !one.is_empty() => Some(one.clone()),
            _ => None,
        };
        let proxy = self.proxy(&user, said(NODE))?;
        Ok(Known { proxy, pod: said(POD).unwrap_or_default(), pod_uid: said(POD_UID).unwrap_or_default() })
    }

    /// Which proxy runs as this account.
    fn proxy(&self, user: &UserInfo, node: Option<String>) -> Result<ProxyName, Unauthenticated> {
        let name = user.username.clone().unwrap_or_default();
        let account = name.strip_prefix(ACCOUNT).and_then(|rest| rest.split_once(':'));
        if account != Some((&*self.node.namespace, &*self.node.name)) {
            return Err(Unauthenticated::Account { user: name });
        }
        match node {
            Some(node) => Ok(ProxyName::Node(node.into())),
            None => Err(Unauthenticated::NoNode { user: name }),
        }
    }
}

#[cfg(test)]
mod tests;
