//! The cycle: a batch from the source is planned, granted, published, and its statuses noted. It must not decide; each step's owner does.

use crate::{
    ca::Grants,
    inventory::{Change, Kind},
    plan::{MESH_LABEL, PlanDelta, Planner},
    publish::Publisher,
    source::{self, Batch, Source},
    status::Sink,
};
use mesh_core::node::NodeDelta;
use serde_json::Value;
use std::{collections::BTreeSet, sync::Arc, time::Instant};

/// Changes after which what they took for a moment is given back to the system: a list of everything, not the news of a moment.
const MUCH: usize = 1_000;

/// What a change runs through, in order.
pub struct Cycle {
    planner: Planner,
    publisher: Arc<Publisher>,
    grants: Grants,
    sink: Arc<dyn Sink>,
    /// Never meshed.
    excluded: BTreeSet<String>,
    /// Excluded namespaces of which it was said that their label counts for nothing.
    said: BTreeSet<String>,
}

impl Cycle {
    /// A cycle whose parts have seen nothing yet.
    pub fn new(
        planner: Planner,
        publisher: Arc<Publisher>,
        grants: Grants,
        sink: Arc<dyn Sink>,
        excluded: BTreeSet<String>,
    ) -> Self {
        Self { planner, publisher, grants, sink, excluded, said: BTreeSet::new() }
    }

    /// Runs the first batch and all that follow, until the source is stopped.
    pub fn run(mut self, mut source: Box<dyn Source>, planned: impl FnOnce()) {
        // What a planner holds before it has seen an object: the default settings.
        let defaults = delta(self.planner.plan().mesh.iter().map(|r| (r.id(), Some(r.clone()))));
        let mut known = Vec::new();
        let Some(first) = source.wait() else { return };
        self.turn(first, defaults, &mut known);
        planned();
        while let Some(batch) = source.wait() {
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
        let mut shown = Vec::new();
        let count = batch.changes.len();
        for change in batch.changes {
            let object = match &change {
                source::Change::Upsert(_, object) => Some(Some(object.clone())),
                source::Change::Remove(_) => Some(None),
                // Nobody who writes statuses asks for it.
                source::Change::Read(..) => None,
            };
            match Change::read(change) {
                Ok(read) => {
                    if let Some(object) = object {
                        self.mind(&read, object.as_deref());
                        shown.push((read.key().clone(), object));
                    }
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
        self.publisher.publish_granted(&resources, |shown| self.grants.apply(shown));
        metrics.plan.observe((planned - began).as_secs_f64());
        metrics.push.observe(planned.elapsed().as_secs_f64());
        metrics.batches.inc();
        metrics.problems.set(batch.problems.len() as i64);
        tracing::debug!(
            changes = count,
            upserts = resources.upserts.len(),
            removes = resources.removes.len(),
            plan = ?(planned - began),
            push = ?planned.elapsed(),
            "planned"
        );
        known.clone_from(&batch.problems);
        self.sink.take(&shown, &statuses, batch.problems);
        // Before memory is given back, and not by the end of the function.
        drop((shown, statuses, resources));
        if count >= MUCH {
            mesh_sys::memory::give_back();
        }
    }

    /// A label that counts for nothing is spoken of once.
    fn mind(&mut self, change: &Change, object: Option<&Value>) {
        let key = change.key();
        if key.kind != Kind::Namespace || !self.excluded.contains(&*key.name.name) {
            return;
        }
        let labelled = object.is_some_and(|object| object["metadata"]["labels"][MESH_LABEL] == "enabled");
        if labelled && self.said.insert(key.name.name.to_string()) {
            tracing::warn!(
                "namespace {} is excluded from the mesh; its label {MESH_LABEL} counts for nothing",
                key.name.name
            );
        }
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
