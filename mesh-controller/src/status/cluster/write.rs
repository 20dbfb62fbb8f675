//! The writer: applies what is to be applied, some objects at once, as long as this replica leads. It must not decide what.

use super::{ClusterStatuses, Patch, Shown};
use crate::{
    inventory::{Key, Kind},
    leader::Leadership,
    source::kubernetes::object_path,
};
use futures_util::stream::{FuturesUnordered, StreamExt};
use kube::Client;
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep_until, timeout};

/// Who we are to the API server: the owner of what we apply.
pub const FIELD_MANAGER: &str = "heddle.dev/controller";

/// Objects that are written at the same time.
const WRITERS: usize = 8;

/// Longest answer to one request.
const REQUEST: Duration = Duration::from_secs(10);

/// How a look at an object ended.
enum Done {
    /// It says what it shall.
    Settled,
    /// Look again, later.
    Again,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error("no answer within {REQUEST:?}")]
    Late,
    #[error("the request cannot be made: {0}")]
    Request(#[from] http::Error),
    #[error("the answer is no object: {0}")]
    Answer(#[from] serde_json::Error),
}

impl Fault {
    fn code(&self) -> u16 {
        match self {
            Self::Api(kube::Error::Api(status)) => status.code,
            _ => 0,
        }
    }
}

impl ClusterStatuses {
    /// Writes while this replica leads, for ever. What is under way when it ceases to lead is dropped.
    pub async fn keep(self: Arc<Self>, client: Client, mut leadership: Leadership) {
        loop {
            leadership.gained().await;
            self.look_at_all();
            let mut lost = leadership.clone();
            tokio::select! {
                biased;
                () = lost.lost() => {}
                () = self.write(&client, &leadership) => {}
            }
        }
    }

    async fn write(&self, client: &Client, leadership: &Leadership) {
        let mut busy: BTreeSet<Key> = BTreeSet::new();
        let mut running = FuturesUnordered::new();
        loop {
            let when = {
                let mut state = self.state.lock();
                while running.len() < WRITERS
                    && let Some(key) = state.queue.next(Instant::now(), &busy)
                {
                    busy.insert(key.clone());
                    running.push(async move {
                        let done = self.settle(client, leadership, &key).await;
                        (key, done)
                    });
                }
                self.metrics.waiting.set(state.queue.len() as i64);
                state.queue.when(&busy).filter(|_| running.len() < WRITERS)
            };
            tokio::select! {
                Some((key, done)) = running.next(), if !running.is_empty() => {
                    busy.remove(&key);
                    let mut state = self.state.lock();
                    match done {
                        Done::Settled => state.queue.done(&key),
                        Done::Again if state.shown.contains_key(&key) => {
                            state.queue.retry(&key, Instant::now(), rand::random_range(0.5..1.5));
                        }
                        Done::Again => state.queue.forget(&key),
                    }
                }
                () = self.changed.notified() => {}
                () = until(when) => {}
            }
        }
    }

    /// Brings the status of one object to what it shall be.
    async fn settle(&self, client: &Client, leadership: &Leadership, key: &Key) -> Done {
        let Some((patch, shown)) = self.patch(key) else { return Done::Settled };
        if !leadership.is_held() {
            return Done::Again;
        }
        match apply(client, key, &patch, &shown).await {
            Ok(object) => {
                self.metrics.count("written");
                tracing::debug!("status of {key} written");
                self.shows(key, &object);
                // An atomic list says itself what is ours in it.
                if !patch.locked {
                    self.state.lock().applied.insert(key.clone(), patch.status);
                }
                Done::Settled
            }
            Err(fault) => self.failed(client, key, &fault).await,
        }
    }

    async fn failed(&self, client: &Client, key: &Key, fault: &Fault) -> Done {
        match fault.code() {
            // Gone, or its kind is; the watch will say so.
            404 => {
                self.metrics.count("gone");
                Done::Settled
            }
            // Somebody wrote since it was read: read it, and look again.
            409 => {
                self.metrics.count("conflict");
                match request(client, http::Request::get(object_path(key)), Vec::new()).await {
                    Ok(object) => self.shows(key, &object),
                    Err(fault) => tracing::debug!("{key}: {fault}"),
                }
                Done::Again
            }
            _ => {
                self.metrics.count("failed");
                tracing::warn!("status of {key} cannot be written, trying again: {fault}");
                Done::Again
            }
        }
    }
}

async fn apply(client: &Client, key: &Key, patch: &Patch, shown: &Shown) -> Result<Value, Fault> {
    let mut object = json!({
        "apiVersion": key.kind.api_version(),
        "kind": key.kind.as_str(),
        "metadata": {"name": &*key.name.name, "uid": shown.uid},
        "status": patch.status,
    });
    if key.kind.namespaced() {
        object["metadata"]["namespace"] = (*key.name.namespace).into();
    }
    if patch.locked {
        object["metadata"]["resourceVersion"] = shown.version.as_str().into();
    }
    let path = format!("{}/status?fieldManager={FIELD_MANAGER}&force=true", object_path(key));
    let builder = http::Request::patch(path).header(http::header::CONTENT_TYPE, "application/apply-patch+yaml");
    request(client, builder, serde_json::to_vec(&object)?).await
}

/// One request, and the object that it answers with.
pub(super) async fn send(
    client: &Client,
    builder: http::request::Builder,
    body: Vec<u8>,
) -> Result<Value, (u16, String)> {
    request(client, builder, body).await.map_err(|fault| (fault.code(), fault.to_string()))
}

async fn request(client: &Client, builder: http::request::Builder, body: Vec<u8>) -> Result<Value, Fault> {
    let text = timeout(REQUEST, client.request_text(builder.body(body)?)).await.map_err(|_| Fault::Late)??;
    Ok(serde_json::from_str(&text)?)
}

async fn until(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}

/// Path of all XMeshes, for creating one.
pub(super) fn meshes() -> String {
    crate::source::kubernetes::path(Kind::XMesh)
}
