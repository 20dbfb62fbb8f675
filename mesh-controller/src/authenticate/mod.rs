//! Who a caller is: tokens to proxy names. It must not decide what that proxy may have; slicing and signing do.

mod review;
mod tokens;

pub use review::{Accounts, TokenReviews};
pub use tokens::{TokenFile, check};

use mesh_core::name::ProxyName;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use std::{io, path::PathBuf, sync::Arc};

/// Finds out which proxy calls: the playground has a file, a cluster asks its API server.
#[tonic::async_trait]
pub trait Authenticate: Send + Sync + 'static {
    /// The proxy that this bearer token belongs to.
    async fn authenticate(&self, token: &str) -> Result<ProxyName, Unauthenticated>;
}

/// Why a caller is nobody. The caller itself is told no more than that.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Unauthenticated {
    /// No `authorization: Bearer TOKEN`.
    #[error("no bearer token")]
    NoToken,
    /// Nobody has this token: made up, expired, of a pod that is gone, or made for another audience.
    #[error("unknown token")]
    UnknownToken,
    /// A good token, but not made for us.
    #[error("the token is not made for the audience {wanted:?}")]
    Audience {
        /// What it must be made for.
        wanted: String,
    },
    /// A good token of somebody who is no proxy.
    #[error("{user:?} is not the account of a proxy of this mesh")]
    Account {
        /// Whose it is.
        user: String,
    },
    /// A good token of the proxies' account that is not bound to a pod on a node.
    #[error("the token of {user:?} does not say on which node its pod is")]
    NoNode {
        /// Whose it is.
        user: String,
    },
    /// The tokens cannot be read; everybody is refused.
    #[error("token file {path}: cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Arc<io::Error>,
    },
    /// Nobody could be asked whose token it is; says nothing about the token.
    #[error("the token cannot be reviewed now: {0}")]
    Unavailable(String),
}

impl Unauthenticated {
    /// Bounded label for metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::UnknownToken => "unknown_token",
            Self::Audience { .. } => "audience",
            Self::Account { .. } => "account",
            Self::NoNode { .. } => "no_node",
            Self::Unreadable { .. } | Self::Unavailable(_) => "unavailable",
        }
    }

    fn status(&self) -> tonic::Status {
        match self {
            Self::Unreadable { .. } | Self::Unavailable(_) => tonic::Status::unavailable("cannot authenticate now"),
            Self::NoToken | Self::UnknownToken => tonic::Status::unauthenticated(self.to_string()),
            // Whoever holds a token of somebody else learns nothing from us but that it is of no use here.
            Self::Audience { .. } | Self::Account { .. } | Self::NoNode { .. } => {
                tonic::Status::unauthenticated("not a token of a proxy of this mesh")
            }
        }
    }
}

/// Those who call, counted by what came of it. Cheap to clone.
#[derive(Clone)]
pub struct Callers {
    authenticate: Arc<dyn Authenticate>,
    results: Family<Outcome, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

impl Callers {
    /// Callers that `authenticate` knows.
    pub fn new(authenticate: Arc<dyn Authenticate>, registry: &mut Registry) -> Self {
        let callers = Self { authenticate, results: Family::default() };
        let help = "Calls of proxies, by whether the caller is known";
        registry.register("heddle_controller_authentications", help, callers.results.clone());
        callers
    }

    /// The proxy behind the `authorization` metadata of a request.
    pub async fn caller(&self, metadata: &tonic::metadata::MetadataMap) -> Result<ProxyName, tonic::Status> {
        let token = metadata.get("authorization").and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("Bearer "));
        let found = match token {
            Some(token) => self.authenticate.authenticate(token.trim()).await,
            None => Err(Unauthenticated::NoToken),
        };
        self.count(found.as_ref().map_or_else(Unauthenticated::label, |_| "known"));
        found.map_err(|e| {
            tracing::warn!(reason = e.label(), "refused a caller: {e}");
            e.status()
        })
    }

    /// A known caller said that it is another proxy than its token does.
    pub(crate) fn impostor(&self) {
        self.count("other_proxy");
    }

    fn count(&self, result: &'static str) {
        self.results.get_or_create(&Outcome { result }).inc();
    }
}
