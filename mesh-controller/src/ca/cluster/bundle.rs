//! The ConfigMap of the roots: the bundle that proxies pin, and, while a root is rotated, what each replica saw and what the leader waits for. It must not be believed about anything but that.

use super::BUNDLE;
use crate::ca::rotation::{Report, Stage};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const ROOTS: &str = "ca.crt";
const ROTATION: &str = "rotation.json";
/// What a replica saw, under its name.
const REPORT: &str = "seen-by.";
/// Names that the progress lists; the others are counted.
const NAMED: usize = 20;

/// How far a rotation is, for people and `meshctl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Progress {
    pub(super) stage: Option<Stage>,
    /// Why there is no stage or no progress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
    pub(super) revision: u64,
    /// Seconds since 1970.
    pub(super) since: u64,
    /// When it goes on by itself at the latest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) until: Option<u64>,
    /// Proxies that do not trust the new roots yet; at most some of them.
    pub(super) waiting_for: Vec<String>,
    pub(super) waiting: usize,
    pub(super) confirmed: usize,
}

impl Progress {
    pub(super) fn of_missing(mut self, missing: &BTreeSet<String>, confirmed: usize) -> Self {
        self.waiting_for = missing.iter().take(NAMED).cloned().collect();
        (self.waiting, self.confirmed) = (missing.len(), confirmed);
        self
    }
}

/// The ConfigMap as it was last seen, and the way to change it.
pub(super) struct Bundle {
    api: Api<ConfigMap>,
    data: Option<BTreeMap<String, String>>,
}

impl Bundle {
    pub(super) fn new(client: &Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client.clone(), namespace), data: None }
    }

    pub(super) fn api(&self) -> Api<ConfigMap> {
        self.api.clone()
    }

    /// What the watch said.
    pub(super) fn seen(&mut self, object: Option<ConfigMap>) {
        self.data = object.map(|o| o.data.unwrap_or_default());
    }

    pub(super) fn holds(&self, roots: &str) -> bool {
        self.field(ROOTS) == Some(roots)
    }

    pub(super) fn reports(&self) -> BTreeMap<String, Report> {
        let of = |(name, text): (&String, &String)| {
            Some((name.strip_prefix(REPORT)?.to_owned(), serde_json::from_str(text).ok()?))
        };
        self.data.iter().flatten().filter_map(of).collect()
    }

    /// The leader's part: roots and progress, and no reports when there is nothing to report of.
    pub(super) async fn lead(&mut self, roots: &str, progress: &Progress) -> Result<(), kube::Error> {
        let text = serde_json::to_string(progress).unwrap_or_default();
        let mut data = BTreeMap::new();
        if !self.holds(roots) {
            data.insert(ROOTS.to_owned(), json!(roots));
        }
        if self.field(ROTATION) != Some(&text) {
            data.insert(ROTATION.to_owned(), json!(text));
        }
        if progress.stage == Some(Stage::Steady) {
            let names = self.data.iter().flatten().map(|(name, _)| name).filter(|name| name.starts_with(REPORT));
            data.extend(names.map(|name| (name.clone(), Value::Null)));
        }
        if self.data.is_none() {
            let data = [(ROOTS, roots), (ROTATION, &text)].map(|(name, text)| (name.to_owned(), text.to_owned()));
            let metadata = ObjectMeta { name: Some(BUNDLE.into()), ..ObjectMeta::default() };
            let object = ConfigMap { metadata, data: Some(data.into()), ..ConfigMap::default() };
            match self.api.create(&PostParams::default(), &object).await {
                // Somebody made it meanwhile: what is wrong with it is mended below.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                made => {
                    self.seen(Some(made?));
                    return Ok(());
                }
            }
        }
        self.write(data).await
    }

    /// A replica's part.
    pub(super) async fn report(&mut self, replica: &str, report: &Report) -> Result<(), kube::Error> {
        let (name, text) = (format!("{REPORT}{replica}"), serde_json::to_string(report).unwrap_or_default());
        if self.data.is_none() || self.field(&name) == Some(&text) {
            return Ok(());
        }
        self.write(BTreeMap::from([(name, json!(text))])).await
    }

    async fn write(&mut self, data: BTreeMap<String, Value>) -> Result<(), kube::Error> {
        if data.is_empty() {
            return Ok(());
        }
        let patch = Patch::Merge(json!({ "data": data }));
        let written = self.api.patch(BUNDLE, &PatchParams::default(), &patch).await?;
        self.seen(Some(written));
        Ok(())
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.data.as_ref()?.get(name).map(String::as_str)
    }
}
