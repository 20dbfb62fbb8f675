//! Requests to the API server: what is asked for each kind, and what an answer means. It must not keep objects.

use super::trim::trim;
use crate::{
    api::schema,
    inventory::{Key, Kind},
};
use kube::{Client, Config};
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;

/// Objects of one page of a list: a page of pods stays below some megabytes.
const PAGE: u32 = 500;

/// The program cannot speak to an API server at all.
#[derive(Debug, thiserror::Error)]
pub enum CannotConnect {
    /// Neither a kubeconfig nor a pod's ServiceAccount.
    #[error("there is no kubeconfig, and this is no pod of a cluster")]
    Config(#[from] kube::config::InferConfigError),
    /// The configuration does not make a client.
    #[error("the API server's client cannot be made")]
    Client(#[from] kube::Error),
}

/// A client of the cluster that this runs in; with KUBECONFIG, of that one.
pub async fn connect() -> Result<Client, CannotConnect> {
    Ok(Client::try_from(Config::infer().await?)?)
}

/// Why a request has no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The kind is not served here.
    #[error("there is no such kind in this cluster")]
    Absent,
    /// The resource version or the page is too old: the kind must be listed again.
    #[error("what was asked for is too old")]
    Expired,
    /// Not allowed.
    #[error("is not allowed: {0}")]
    Forbidden(String),
    /// The server asks for patience.
    #[error("the server is busy, and asks to wait {0:?}")]
    Busy(Duration),
    /// Anything else: it is tried again.
    #[error("{0}")]
    Failed(String),
}

impl Fault {
    /// For metrics.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Expired => "expired",
            Self::Forbidden(_) => "forbidden",
            Self::Busy(_) => "busy",
            Self::Failed(_) => "failed",
        }
    }

    /// What a `Status` says.
    pub(super) fn of_status(status: &kube::core::Status) -> Self {
        let wait = status.details.as_ref().map(|d| d.retry_after_seconds).unwrap_or_default();
        match status.code {
            404 => Self::Absent,
            410 => Self::Expired,
            401 | 403 => Self::Forbidden(status.message.clone()),
            429 | 503 | 504 if wait > 0 => Self::Busy(Duration::from_secs(wait.into())),
            code => Self::Failed(format!("{code} {}: {}", status.reason, status.message)),
        }
    }
}

impl From<kube::Error> for Fault {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(&status),
            // The cause says what happened; the outer error only where.
            error => {
                let mut text = error.to_string();
                let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(&error);
                while let Some(error) = cause {
                    let more = error.to_string();
                    if !text.ends_with(&more) {
                        text = format!("{text}: {more}");
                    }
                    cause = error.source();
                }
                Self::Failed(text)
            }
        }
    }
}

/// A page of a list, trimmed.
pub(super) struct Page {
    pub(super) items: Vec<Value>,
    /// Asks for the next page; empty: this is the last.
    pub(super) next: String,
    /// Watching begins here.
    pub(super) version: String,
}

#[derive(Deserialize)]
struct List {
    metadata: ListMeta,
    items: Option<Vec<Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    #[serde(default)]
    resource_version: String,
    #[serde(default, rename = "continue")]
    next: String,
}

/// Asks for a page of all objects of a kind.
pub(super) async fn list(client: &Client, kind: Kind, from: &str) -> Result<Page, Fault> {
    let mut query = format!("limit={PAGE}");
    if !from.is_empty() {
        query.push_str("&continue=");
        query.extend(form_urlencoded::byte_serialize(from.as_bytes()));
    }
    let text = client.request_text(get(kind, &query)?).await?;
    // An error of parsing names a place, never the text: it may hold keys.
    let list: List = serde_json::from_str(&text).map_err(|e| Fault::Failed(format!("the list is not one: {e}")))?;
    let mut items = list.items.unwrap_or_default();
    for item in &mut items {
        trim(kind, item);
    }
    Ok(Page { items, next: list.metadata.next, version: list.metadata.resource_version })
}

/// The request that watches all objects of a kind from a version on.
pub(super) fn watch(kind: Kind, version: &str, longest: Duration) -> Result<http::Request<Vec<u8>>, Fault> {
    let seconds = longest.as_secs();
    let query = format!("watch=true&allowWatchBookmarks=true&resourceVersion={version}&timeoutSeconds={seconds}");
    get(kind, &query)
}

fn get(kind: Kind, query: &str) -> Result<http::Request<Vec<u8>>, Fault> {
    let uri = format!("{}?{query}{}", path(kind), selector(kind));
    http::Request::get(uri).body(Vec::new()).map_err(|e| Fault::Failed(e.to_string()))
}

/// Path of all objects of a kind, in the version that we read.
pub(crate) fn path(kind: Kind) -> String {
    let version = kind.api_version();
    let root = if kind.group().is_empty() { "api" } else { "apis" };
    format!("/{root}/{version}/{}", plural(kind))
}

/// Path of one object. Names of objects need no escaping.
pub(crate) fn object_path(key: &Key) -> String {
    let (kind, name) = (key.kind, &key.name);
    if !kind.namespaced() {
        return format!("{}/{}", path(kind), name.name);
    }
    let root = if kind.group().is_empty() { "api" } else { "apis" };
    format!("/{root}/{}/namespaces/{}/{}/{}", kind.api_version(), name.namespace, plural(kind), name.name)
}

/// The resource of a kind, as in URLs and RBAC.
fn plural(kind: Kind) -> &'static str {
    match kind {
        Kind::Namespace => "namespaces",
        Kind::ServiceAccount => "serviceaccounts",
        Kind::Pod => "pods",
        Kind::Service => "services",
        Kind::EndpointSlice => "endpointslices",
        Kind::Secret => "secrets",
        Kind::ConfigMap => "configmaps",
        kind => schema::kind_of(kind.api_version(), kind.as_str()).map_or("", |crd| &crd.plural),
    }
}

/// Objects that no plan reads need not come at all.
fn selector(kind: Kind) -> &'static str {
    match kind {
        // An ended pod comes as deleted.
        Kind::Pod => "&fieldSelector=status.phase%21%3DSucceeded%2Cstatus.phase%21%3DFailed",
        Kind::Secret => "&fieldSelector=type%3Dkubernetes.io%2Ftls",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_path() {
        assert_eq!(path(Kind::Pod), "/api/v1/pods");
        assert_eq!(path(Kind::GatewayClass), "/apis/gateway.networking.k8s.io/v1/gatewayclasses");
        assert_eq!(
            path(Kind::XBackendTrafficPolicy),
            "/apis/gateway.networking.x-k8s.io/v1alpha1/xbackendtrafficpolicies"
        );
        for kind in Kind::ALL {
            assert!(!plural(kind).is_empty(), "{kind}");
        }
    }
}
