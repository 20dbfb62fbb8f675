//! The parts of a controller of a Kubernetes cluster. It must not know kube's types; `source::kubernetes`, `status` and `leader` do.

use super::{
    parts::{Common, Parts},
    trust::Around,
};
use crate::{
    authenticate::{Accounts, TokenReviews},
    ca::cluster::{ClusterAuthority, Keeper, Metrics as KeeperMetrics},
    leader::{self, Candidate, Reports},
    settings::Cluster as Settings,
    source::kubernetes::{self, Kubernetes},
    status::{self, ClusterMetrics, ClusterStatuses},
};
use anyhow::{Context, Result};
use std::{future::Future, sync::Arc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(super) async fn parts(settings: &Settings, common: &mut Common<'_>) -> Result<Parts> {
    let client = kubernetes::connect().await.context("the API server")?;
    let watching = kubernetes::Metrics::register(common.registry);
    tracing::info!("replica {} of namespace {}, mesh {}", settings.replica, settings.namespace, common.mesh);
    let accounts = Accounts { audience: settings.token_audience.clone(), node: settings.node_service_account.clone() };
    let authenticate = Arc::new(TokenReviews::new(client.clone(), accounts));
    let authority = ClusterAuthority::open(&client, &settings.namespace).await.context("the authority")?;
    let (candidate, leadership) =
        Candidate::new(&client, &settings.namespace, &settings.replica, leader::Metrics::register(common.registry));
    let statuses = ClusterStatuses::new(&common.mesh, ClusterMetrics::register(common.registry));
    let mut tasks = JoinSet::new();
    tasks.spawn(named("the candidate for the Lease", candidate.run()));
    tasks.spawn(named("the writer of statuses", statuses.clone().keep(client.clone(), leadership.clone())));
    let report =
        leader::report(client.clone(), settings.namespace.clone(), settings.replica.clone(), common.publisher.clone());
    tasks.spawn(named("the reports to the leader", report));
    let reports = Reports::new(client.clone(), &settings.namespace);
    let programmed = status::programmed(statuses.clone(), common.publisher.clone(), reports, leadership.clone());
    tasks.spawn(named("the watch over acknowledgements", programmed));
    let adopt = status::adopt(client.clone(), statuses.clone(), leadership.clone());
    tasks.spawn(named("the adoption of the XMesh", async move {
        adopt.await;
        std::future::pending().await
    }));
    let around =
        Around { leadership: leadership.clone(), grants: common.grants.clone(), publisher: common.publisher.clone() };
    let keeper = Keeper::new(
        &client,
        &settings.namespace,
        &settings.replica,
        authority.clone(),
        Arc::new(around),
        KeeperMetrics::register(common.registry),
    );
    tasks.spawn(named("the keeper of the authority", keeper.run()));
    let finish = {
        let (client, namespace, replica) = (client.clone(), settings.namespace.clone(), settings.replica.clone());
        async move {
            leader::release(client, &namespace, &replica).await;
            Ok(())
        }
    };
    let stop = CancellationToken::new();
    let open = {
        let stop = stop.clone();
        move || {
            let source = Kubernetes::open(&client, watching, stop.clone());
            Ok((Box::new(source) as Box<_>, Box::new(move || stop.cancel()) as Box<_>))
        }
    };
    Ok(Parts {
        authority,
        authenticate,
        sink: statuses,
        excluded: settings.excluded.clone(),
        open: Box::new(open),
        tasks,
        finish: Box::pin(finish),
    })
}

/// A task that never ends, and what it is if it does.
async fn named(what: &'static str, task: impl Future<Output = ()>) -> &'static str {
    task.await;
    what
}
