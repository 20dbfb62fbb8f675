//! Settings of the process: flags and environment as they were given, then checked, all errors at once. It must not hold settings of the mesh; `MeshParameters` does.

use clap::Parser;
use mesh_core::name::NsName;
use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

/// Where Heddle is installed unless said otherwise.
const NAMESPACE: &str = "heddle-system";

/// ServiceAccount of the node proxies, in the controller's namespace unless said otherwise.
const NODE_ACCOUNT: &str = "mesh-proxy";

/// Audience of the proxies' tokens unless said otherwise.
const AUDIENCE: &str = "heddle";

/// Namespaces whose pods are never meshed, beside the controller's own: DNS and the like must start before a proxy knows anything.
const EXCLUDED: &str = "kube-system";

/// The client of the API server calls each failed request an error; who asked says it better, and once.
const QUIET: &str = "kube_client::client::builder=off";

/// First stage: what was given.
#[derive(Debug, Parser)]
#[command(name = "mesh-controller", version, about = "Plans the mesh and streams each proxy what it needs")]
pub struct Flags {
    /// Read the objects of the cluster that this runs in, and write their statuses there (excludes --folder, --state, --tokens, --status-file)
    #[arg(long, env = "HEDDLE_KUBERNETES")]
    pub kubernetes: bool,
    /// With --kubernetes: namespace of the controller's own objects: its Lease, the authority's Secret [default: heddle-system]
    #[arg(long, env = "HEDDLE_NAMESPACE", value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// With --kubernetes: audience of the proxies' ServiceAccount tokens [default: heddle]
    #[arg(long, env = "HEDDLE_TOKEN_AUDIENCE", value_name = "AUDIENCE")]
    pub token_audience: Option<String>,
    /// With --kubernetes: ServiceAccount of the node proxies [default: mesh-proxy in --namespace]
    #[arg(long, env = "HEDDLE_NODE_SERVICE_ACCOUNT", value_name = "NAMESPACE/NAME")]
    pub node_service_account: Option<String>,
    /// With --kubernetes: namespaces whose pods are never meshed, whatever their labels say [default: kube-system and --namespace]
    #[arg(long, env = "HEDDLE_EXCLUDE_NAMESPACES", value_name = "NAMESPACE", value_delimiter = ',')]
    pub exclude_namespaces: Option<Vec<String>>,
    /// With --kubernetes: name of this replica, unique among all [default: the host's name]
    #[arg(long, env = "HOSTNAME", value_name = "NAME", hide_env_values = true)]
    pub replica: Option<String>,
    /// Folder of YAML or JSON files to read and watch; several: an object in a later one replaces the same object in an earlier one
    #[arg(long = "folder", env = "HEDDLE_FOLDER", value_name = "DIR", value_delimiter = ',')]
    pub folders: Vec<PathBuf>,
    /// With --folder: folder that holds the root certificate and key of the mesh
    #[arg(long, env = "HEDDLE_STATE", value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Address that proxies connect to
    #[arg(long, env = "HEDDLE_LISTEN", value_name = "IP:PORT", default_value = "127.0.0.1:15010")]
    pub listen: String,
    /// Address of the admin server
    #[arg(long, env = "HEDDLE_ADMIN", value_name = "IP:PORT", default_value = "127.0.0.1:15014")]
    pub admin: String,
    /// With --folder: file of lines TOKEN PROXYNAME; read anew for each caller
    #[arg(long, env = "HEDDLE_TOKENS", value_name = "FILE")]
    pub tokens: Option<PathBuf>,
    /// With --folder: file to which the statuses of all objects are written
    #[arg(long, env = "HEDDLE_STATUS_FILE", value_name = "FILE")]
    pub status_file: Option<PathBuf>,
    /// Name of the XMesh that this controller runs
    #[arg(long, env = "HEDDLE_MESH_NAME", value_name = "NAME", default_value = "heddle")]
    pub mesh_name: String,
    /// Filter of the process's own log
    #[arg(long, env = "HEDDLE_LOG", value_name = "DIRECTIVES", default_value = "info")]
    pub log: String,
}

/// Second stage: what can be worked with.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where objects come from, and all that follows from it.
    pub world: World,
    /// For proxies.
    pub listen: SocketAddr,
    /// For people and scrapers.
    pub admin: SocketAddr,
    /// Name of the XMesh.
    pub mesh_name: String,
    /// Directives of the log.
    pub log: String,
}

/// The world that the controller runs in.
#[derive(Debug, Clone, PartialEq)]
pub enum World {
    /// Folders of files: the playground.
    Folders(Folders),
    /// A Kubernetes cluster.
    Kubernetes(Cluster),
}

/// Settings of a controller of folders.
#[derive(Debug, Clone, PartialEq)]
pub struct Folders {
    /// Where objects come from; at least one.
    pub folders: Vec<PathBuf>,
    /// Of the authority.
    pub state: PathBuf,
    /// See [`crate::authenticate::TokenFile`].
    pub tokens: PathBuf,
    /// See [`crate::status::StatusFile`].
    pub status_file: PathBuf,
}

/// Settings of a controller of a cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// Of the controller's own objects.
    pub namespace: String,
    /// Name of this replica.
    pub replica: String,
    /// Audience that proxies' tokens must have.
    pub token_audience: String,
    /// ServiceAccount of the node proxies.
    pub node_service_account: NsName,
    /// Namespaces whose pods are never meshed.
    pub excluded: BTreeSet<String>,
}

/// All that is wrong with the flags.
#[derive(Debug, PartialEq, thiserror::Error)]
pub struct BadSettings(pub Vec<String>);

impl fmt::Display for BadSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl Settings {
    /// Checks the flags; says everything that is wrong with them. It looks at folders, so that a mistyped one is named before anything starts.
    pub fn check(flags: Flags) -> Result<Self, BadSettings> {
        let mut wrong = Vec::new();
        let mut address = |flag: &str, text: &str| match text.parse::<SocketAddr>() {
            Ok(address) => address,
            Err(_) => {
                wrong.push(format!("{flag} {text}: is not of the form IP:PORT"));
                SocketAddr::from(([0; 4], 0))
            }
        };
        let (listen, admin) = (address("--listen", &flags.listen), address("--admin", &flags.admin));
        if listen == admin && listen.port() != 0 {
            wrong.push(format!("--admin {admin}: is the address of --listen"));
        }
        if !is_name(&flags.mesh_name) {
            wrong.push(format!("--mesh-name {:?}: is not the name of an object", flags.mesh_name));
        }
        let (mesh_name, mut log) = (flags.mesh_name.clone(), flags.log.clone());
        if flags.kubernetes && !log.contains("kube_client") {
            log = format!("{log},{QUIET}");
        }
        let world = if flags.kubernetes { cluster(flags, &mut wrong) } else { folders(flags, &mut wrong) };
        match world {
            Some(world) if wrong.is_empty() => Ok(Self { world, listen, admin, mesh_name, log }),
            _ => Err(BadSettings(wrong)),
        }
    }

    /// Addresses that our server certificate must name: the one we listen at, or loopback if that is any.
    pub fn server_addresses(&self) -> Vec<IpAddr> {
        match self.listen.ip() {
            any if any.is_unspecified() => vec![[127, 0, 0, 1].into(), std::net::Ipv6Addr::LOCALHOST.into()],
            ip => vec![ip],
        }
    }

    /// Names that our server certificate must bear: those of the Service in a cluster.
    pub fn server_names(&self) -> Vec<String> {
        const NAME: &str = "mesh-controller";
        let mut names = vec![NAME.to_owned()];
        if let World::Kubernetes(Cluster { namespace, .. }) = &self.world {
            names.extend(["", ".svc", ".svc.cluster.local"].map(|rest| format!("{NAME}.{namespace}{rest}")));
        }
        names
    }
}

fn folders(flags: Flags, wrong: &mut Vec<String>) -> Option<World> {
    for (flag, given) in [
        ("--namespace", flags.namespace.is_some()),
        ("--token-audience", flags.token_audience.is_some()),
        ("--node-service-account", flags.node_service_account.is_some()),
        ("--exclude-namespaces", flags.exclude_namespaces.is_some()),
    ] {
        if given {
            wrong.push(format!("{flag}: needs --kubernetes"));
        }
    }
    if flags.folders.is_empty() {
        wrong.push("--folder <DIR> or --kubernetes: is required".into());
    }
    for folder in flags.folders.iter().filter(|folder| !folder.is_dir()) {
        wrong.push(format!("--folder {}: is not a folder", folder.display()));
    }
    for (i, folder) in flags.folders.iter().enumerate() {
        if flags.folders[..i].contains(folder) {
            wrong.push(format!("--folder {}: is given twice", folder.display()));
        }
    }
    let mut required = |flag: &str, value: Option<PathBuf>| {
        if value.is_none() {
            wrong.push(format!("{flag}: is required with --folder"));
        }
        value
    };
    let state = required("--state <DIR>", flags.state);
    let tokens = required("--tokens <FILE>", flags.tokens);
    let status_file = required("--status-file <FILE>", flags.status_file)?;
    if status_file.file_name().is_none() || status_file.is_dir() {
        wrong.push(format!("--status-file {}: is not a file name", status_file.display()));
    } else if flags.folders.iter().any(|folder| status_file.starts_with(folder)) {
        // Written at each change of a folder, it would be read as a change.
        wrong.push(format!("--status-file {}: must not lie in a --folder", status_file.display()));
    }
    Some(World::Folders(Folders { folders: flags.folders, state: state?, tokens: tokens?, status_file }))
}

fn cluster(flags: Flags, wrong: &mut Vec<String>) -> Option<World> {
    for (flag, given) in [
        ("--folder", !flags.folders.is_empty()),
        ("--state", flags.state.is_some()),
        ("--tokens", flags.tokens.is_some()),
        ("--status-file", flags.status_file.is_some()),
    ] {
        if given {
            wrong.push(format!("{flag}: cannot be used with --kubernetes"));
        }
    }
    let namespace = flags.namespace.unwrap_or_else(|| NAMESPACE.into());
    if !is_namespace(&namespace) {
        wrong.push(format!("--namespace {namespace:?}: is not the name of a namespace"));
    }
    let token_audience = flags.token_audience.unwrap_or_else(|| AUDIENCE.into());
    if token_audience.is_empty() {
        wrong.push("--token-audience: must not be empty, or tokens made for others would be taken".into());
    }
    let account = flags.node_service_account.unwrap_or_else(|| format!("{namespace}/{NODE_ACCOUNT}"));
    let node_service_account =
        account.parse().ok().filter(|account: &NsName| is_namespace(&account.namespace) && is_name(&account.name));
    if node_service_account.is_none() {
        wrong.push(format!("--node-service-account {account}: is not of the form NAMESPACE/NAME"));
    }
    let excluded = flags.exclude_namespaces.unwrap_or_else(|| vec![EXCLUDED.into(), namespace.clone()]);
    // An empty list is written as an empty word.
    let excluded: BTreeSet<String> = excluded.into_iter().filter(|name| !name.is_empty()).collect();
    for name in excluded.iter().filter(|name| !is_namespace(name)) {
        wrong.push(format!("--exclude-namespaces {name:?}: is not the name of a namespace"));
    }
    let replica = flags.replica.filter(|name| is_name(name));
    if replica.is_none() {
        wrong.push("--replica: is required (in a pod, HOSTNAME says it), and must be like the name of a pod".into());
    }
    Some(World::Kubernetes(Cluster {
        namespace,
        replica: replica?,
        token_audience,
        node_service_account: node_service_account?,
        excluded,
    }))
}

/// Names of objects: RFC 1123 subdomains, nearly; the API server has the last word.
fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b);
    !text.is_empty() && text.len() <= 253 && text.bytes().all(allowed)
}

/// Names of namespaces: RFC 1123 labels, nearly.
fn is_namespace(text: &str) -> bool {
    is_name(text) && text.len() <= 63 && !text.contains('.')
}

#[cfg(test)]
mod tests;
