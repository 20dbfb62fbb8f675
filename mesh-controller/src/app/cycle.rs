//! The cycle: a batch from the source is planned, granted, published, and its statuses noted. It must not decide; each step's owner does.

use crate::{
    ca::Grants,
    inventory::Change,
    plan::{PlanDelta, Planner},
    publish::Publisher,
    source::{self, Batch, folder::Folders},
    status::StatusFile,
};
use mesh_core::node::NodeDelta;
use serde_json::Value;
use std::{sync::Arc, time::Instant};

/// What a change runs through, in order.
pub(super) struct Cycle {
    planner: Planner,
    publisher: Arc<Publisher>,
    grants: Grants,
    status: Arc<StatusFile>,
}

impl Cycle {
    pub(super) fn new(mesh: &str, publisher: Arc<Publisher>, grants: Grants, status: Arc<StatusFile>) -> Self {
        Self { planner: Planner::new(mesh), publisher, grants, status }
    }

    /// Runs the first batch and all that follow, until the source is stopped.
    pub(super) fn run(mut self, mut folders: Folders, first: Batch, planned: impl FnOnce()) {
        // What a planner holds before it has seen an object: the default settings.
        let defaults = delta(self.planner.plan().mesh.iter().map(|(id, r)| (id.clone(), Some(r.clone()))));
        let mut known = Vec::new();
        self.turn(first, defaults, &mut known);
        planned();
        while let Some(batch) = folders.wait() {
            self.turn(batch, NodeDelta::default(), &mut known);
        }
    }

    fn turn(&mut self, batch: Batch, mut before: NodeDelta, known: &mut Vec<source::Problem>) {
        let metrics = self.publisher.metrics().clone();
        for problem in batch.problems.iter().filter(|p| !known.contains(p)) {
            tracing::warn!("{problem}");
        }
        let began = Instant::now();
        let mut changes = Vec::with_capacity(batch.changes.len());
        let mut observed = Vec::with_capacity(batch.changes.len());
        for change in &batch.changes {
            match Change::read(change) {
                Ok(read) => {
                    let status = match change {
                        source::Change::Upsert(_, object) => object.get("status").cloned(),
                        source::Change::Remove(_) => None,
                    };
                    observed.push((read.key().clone(), status));
                    changes.push(read);
                }
                // A source hands over only what it has read this way itself.
                Err(e) => tracing::error!("an admitted object cannot be read: {e}"),
            }
        }
        let PlanDelta { resources, statuses } = self.planner.apply(changes);
        let mut resources = delta(resources);
        let planned = Instant::now();
        // The newer plan counts where both speak of a resource.
        before.upserts.retain(|r| {
            let id = r.id();
            !resources.upserts.iter().any(|n| n.id() == id) && !resources.removes.contains(&id)
        });
        resources.upserts.append(&mut before.upserts);
        self.grants.apply(&resources);
        self.publisher.publish(&resources);
        metrics.plan.observe((planned - began).as_secs_f64());
        metrics.push.observe(planned.elapsed().as_secs_f64());
        metrics.batches.inc();
        metrics.problems.set(batch.problems.len() as i64);
        tracing::debug!(
            changes = batch.changes.len(),
            upserts = resources.upserts.len(),
            removes = resources.removes.len(),
            plan = ?(planned - began),
            push = ?planned.elapsed(),
            "planned"
        );
        let now = now();
        known.clone_from(&batch.problems);
        self.status.change(|written, problems| {
            for (key, status) in &observed {
                written.observe(key, status.as_ref().filter(|s: &&Value| s.is_object()));
            }
            written.apply(&statuses, &now);
            *problems = batch.problems;
        });
    }
}

fn delta(
    resources: impl IntoIterator<Item = (mesh_core::node::ResourceId, Option<mesh_core::node::Resource>)>,
) -> NodeDelta {
    let mut delta = NodeDelta::default();
    for (id, resource) in resources {
        match resource {
            Some(resource) => delta.upserts.push(resource),
            None => delta.removes.push(id),
        }
    }
    delta
}

/// Whole seconds, as `metav1.Time` writes them.
fn now() -> String {
    let now = jiff::Timestamp::now();
    now.round(jiff::Unit::Second).unwrap_or(now).to_string()
}
