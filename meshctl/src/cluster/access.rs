//! Access to the cluster: objects of any kind by server-side apply, read, list, delete. It must not know what the objects mean.

use anyhow::{Context, Result, bail};
use clap::Args;
use kube::{
    Api, Client, Config,
    api::{DeleteParams, ListParams, LogParams, Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::Value;
use std::path::PathBuf;

/// Field manager of what is applied.
const MANAGER: &str = "meshctl";

/// Which cluster.
#[derive(Args, Clone, Debug, Default)]
pub struct Target {
    /// Kubeconfig file [default: $KUBECONFIG, ~/.kube/config, or the cluster this runs in]
    #[arg(long, value_name = "FILE", global = true)]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME", global = true)]
    pub context: Option<String>,
}

/// A cluster that answers.
#[derive(Clone)]
pub struct Access {
    pub(super) client: Client,
}

/// What an apply did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Applied {
    Created,
    Changed,
    Same,
}

/// Kinds that are read or written here: kind, group/version, plural, whether in a namespace.
const KINDS: [(&str, &str, &str, bool); 26] = [
    ("CustomResourceDefinition", "apiextensions.k8s.io/v1", "customresourcedefinitions", false),
    ("Namespace", "v1", "namespaces", false),
    ("ResourceQuota", "v1", "resourcequotas", true),
    ("ServiceAccount", "v1", "serviceaccounts", true),
    ("ClusterRole", "rbac.authorization.k8s.io/v1", "clusterroles", false),
    ("ClusterRoleBinding", "rbac.authorization.k8s.io/v1", "clusterrolebindings", false),
    ("Role", "rbac.authorization.k8s.io/v1", "roles", true),
    ("RoleBinding", "rbac.authorization.k8s.io/v1", "rolebindings", true),
    ("NetworkPolicy", "networking.k8s.io/v1", "networkpolicies", true),
    ("Service", "v1", "services", true),
    ("PodDisruptionBudget", "policy/v1", "poddisruptionbudgets", true),
    ("MeshParameters", "heddle.dev/v1alpha1", "meshparameters", false),
    ("XMesh", "gateway.networking.x-k8s.io/v1alpha1", "xmeshes", false),
    ("Deployment", "apps/v1", "deployments", true),
    ("DaemonSet", "apps/v1", "daemonsets", true),
    ("Pod", "v1", "pods", true),
    ("Event", "v1", "events", true),
    ("Secret", "v1", "secrets", true),
    ("ConfigMap", "v1", "configmaps", true),
    ("Node", "v1", "nodes", false),
    ("Lease", "coordination.k8s.io/v1", "leases", true),
    ("HTTPRoute", "gateway.networking.k8s.io/v1", "httproutes", true),
    ("GRPCRoute", "gateway.networking.k8s.io/v1", "grpcroutes", true),
    ("TLSRoute", "gateway.networking.k8s.io/v1", "tlsroutes", true),
    ("TCPRoute", "gateway.networking.k8s.io/v1", "tcproutes", true),
    ("XBackendTrafficPolicy", "gateway.networking.x-k8s.io/v1alpha1", "xbackendtrafficpolicies", true),
];

/// The place of a kind in the order in which objects are made; what others refer to comes first.
pub(super) fn rank(kind: &str) -> usize {
    KINDS.iter().position(|k| k.0 == kind).unwrap_or(KINDS.len())
}

/// `namespace/Kind/name` of an object, for people.
pub(super) fn name_of(object: &Value) -> String {
    let text = |at: &str| object.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
    format!("{} {}", text("/kind"), text("/metadata/name"))
}

impl Access {
    /// Connects; an error says what was tried.
    pub async fn to(target: &Target) -> Result<Self> {
        let options = KubeConfigOptions { context: target.context.clone(), ..KubeConfigOptions::default() };
        let config = match &target.kubeconfig {
            Some(file) => {
                let read = Kubeconfig::read_from(file).with_context(|| format!("--kubeconfig {}", file.display()))?;
                Config::from_custom_kubeconfig(read, &options)
                    .await
                    .with_context(|| format!("--kubeconfig {}", file.display()))?
            }
            None if target.context.is_some() => Config::from_kubeconfig(&options).await.context("--context")?,
            None => Config::infer().await.context("no cluster: set KUBECONFIG or give --kubeconfig")?,
        };
        let server = config.cluster_url.clone();
        let client = Client::try_from(config).context("kubeconfig")?;
        let access = Self { client };
        access.client.apiserver_version().await.with_context(|| format!("the cluster at {server} does not answer"))?;
        Ok(access)
    }

    /// Objects of a kind, in a namespace if the kind lives in one.
    pub(super) fn api(&self, kind: &str, namespace: &str) -> Result<Api<DynamicObject>> {
        let Some((_, version, plural, namespaced)) = KINDS.iter().find(|k| k.0 == kind) else {
            bail!("{kind} is not a kind that meshctl knows");
        };
        let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        Ok(match (namespaced, namespace) {
            (true, "") | (false, _) => Api::all_with(self.client.clone(), &resource),
            (true, namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
        })
    }

    /// Makes an object as it is written; fields of other managers stay.
    pub(super) async fn apply(&self, object: &Value) -> Result<Applied> {
        let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
        let api = self.api(object["kind"].as_str().unwrap_or_default(), namespace)?;
        let what = || format!("apply {}", name_of(object));
        let before = api.get_metadata_opt(name).await.with_context(what)?;
        let params = PatchParams::apply(MANAGER).force();
        let after = api.patch(name, &params, &Patch::Apply(object)).await.with_context(what)?;
        Ok(match before {
            None => Applied::Created,
            Some(before) if before.metadata.resource_version == after.metadata.resource_version => Applied::Same,
            Some(_) => Applied::Changed,
        })
    }

    /// An object as JSON; none if it, or its kind, is not there.
    pub(super) async fn get(&self, kind: &str, namespace: &str, name: &str) -> Result<Option<Value>> {
        let found = self
            .api(kind, namespace)?
            .get_opt(name)
            .await
            .with_context(|| format!("read {kind} {namespace}/{name}"))?;
        found.map(serde_json::to_value).transpose().map_err(Into::into)
    }

    /// All objects of a kind (in a namespace; empty: in all) that match a label selector (empty: all). A kind that is not defined has none.
    pub(super) async fn list(&self, kind: &str, namespace: &str, labels: &str) -> Result<Vec<Value>> {
        let params = if labels.is_empty() { ListParams::default() } else { ListParams::default().labels(labels) };
        match self.api(kind, namespace)?.list(&params).await {
            Ok(list) => list.items.into_iter().map(|item| serde_json::to_value(item).map_err(Into::into)).collect(),
            Err(error) if absent(&error) => Ok(Vec::new()),
            Err(error) => Err(error).with_context(|| format!("list {kind}")),
        }
    }

    /// Deletes an object; says whether it was there.
    pub(super) async fn delete(&self, kind: &str, namespace: &str, name: &str) -> Result<bool> {
        match self.api(kind, namespace)?.delete(name, &DeleteParams::foreground()).await {
            Ok(_) => Ok(true),
            Err(error) if absent(&error) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("delete {kind} {namespace}/{name}")),
        }
    }

    /// Merges fields into an object.
    pub(super) async fn merge(&self, kind: &str, namespace: &str, name: &str, patch: &Value) -> Result<()> {
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        let api = self.api(kind, namespace)?;
        api.patch(name, &params, &Patch::Merge(patch)).await.with_context(|| format!("change {kind} {name}"))?;
        Ok(())
    }

    /// Merges fields into an object of a kind of Kubernetes itself; containers are found by their names.
    pub(super) async fn merge_named(&self, kind: &str, namespace: &str, name: &str, patch: &Value) -> Result<()> {
        let api = self.api(kind, namespace)?;
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        api.patch(name, &params, &Patch::Strategic(patch)).await.with_context(|| format!("change {kind} {name}"))?;
        Ok(())
    }

    /// The end of a pod's log; empty if there is none.
    pub(super) async fn log(&self, namespace: &str, pod: &str, lines: i64, previous: bool) -> String {
        let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(self.client.clone(), namespace);
        let params = LogParams { tail_lines: Some(lines), previous, ..LogParams::default() };
        pods.logs(pod, &params).await.unwrap_or_default()
    }

    /// What a pod answers over HTTP, asked through the API server.
    pub(super) async fn ask_pod(&self, namespace: &str, pod: &str, port: u16, path: &str) -> Result<String> {
        let url = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy{path}");
        let request = http::Request::get(&url).body(Vec::new())?;
        self.client.request_text(request).await.with_context(|| format!("ask pod {pod} for {path}"))
    }
}

/// The object, or its whole kind, is not there.
pub(super) fn absent(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}
