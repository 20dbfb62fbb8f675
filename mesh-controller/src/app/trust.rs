//! Trust in the app: the controller's own TLS, the roots on their way to the proxies, and what a rotation looks at. It must not decide any of it.

use crate::{
    ca::{Accepted, CertificateAuthority, Grants, Server, cluster::Surroundings},
    leader::Leadership,
    publish::Publisher,
};
use anyhow::{Context, Result};
use mesh_core::name::ProxyName;
use std::{collections::BTreeSet, io, net::IpAddr, sync::Arc, time::Duration};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;

/// Finished TLS connections of a listener, by certificates for these names.
pub(super) fn accept(
    authority: Arc<dyn CertificateAuthority>,
    names: Vec<String>,
    addresses: Vec<IpAddr>,
    listener: TcpListener,
    tasks: &mut JoinSet<&'static str>,
) -> Result<ReceiverStream<io::Result<Accepted>>> {
    let server = Server::new(authority, names, addresses).context("the controller's own certificate")?;
    let accepted = server.accept(listener).context("the controller's TLS")?;
    tasks.spawn(async move {
        server.keep().await;
        "the renewal of the controller's own certificate"
    });
    Ok(accepted)
}

/// Tells proxies of the roots, now and whenever they change, for ever.
pub(super) async fn publish(authority: Arc<dyn CertificateAuthority>, publisher: Arc<Publisher>) -> &'static str {
    let mut standing = authority.standing();
    loop {
        let roots = standing.borrow_and_update().roots.clone();
        // Roots that nobody has numbered yet are on their way with each certificate; proxies could not tell which of two are newer.
        if roots.revision > 0 {
            publisher.trust(&roots);
        }
        if standing.changed().await.is_err() {
            return "the authority";
        }
    }
}

/// What goes on around the authority of a cluster.
pub(super) struct Around {
    pub(super) leadership: Leadership,
    pub(super) grants: Grants,
    pub(super) publisher: Arc<Publisher>,
}

impl Surroundings for Around {
    fn leads(&self) -> bool {
        self.leadership.is_held()
    }

    fn lifetime(&self) -> Option<Duration> {
        self.grants.lifetime()
    }

    fn holders(&self) -> BTreeSet<ProxyName> {
        self.grants.holders()
    }

    fn trusting(&self, revision: u64) -> (BTreeSet<ProxyName>, BTreeSet<ProxyName>) {
        self.publisher.trusting(revision)
    }
}
