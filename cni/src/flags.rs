//! What people and DaemonSets write behind `mesh-cni`; without a word behind it, it is the plugin. It must not do anything.

use crate::{conf::TIMEOUT_MAX, conflist::TYPE};
use clap::{Args, Parser, Subcommand};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "mesh-cni", version, about = "Heddle's CNI plugin (without a subcommand) and node agent")]
pub struct Flags {
    /// What to do.
    #[command(subcommand)]
    pub what: What,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum What {
    /// Installs the plugin, keeps its place in the runtime's configuration, holds the proxy's listeners; runs until it is told to end.
    Agent(Agent),
    /// Says whether the plugin is in its place (exit code 0), or what is missing.
    Status(Place),
    /// Takes the plugin out of the runtime's configuration and removes its binary.
    Uninstall(Place),
}

/// Flags of the agent.
#[derive(Clone, Debug, Args)]
pub struct Agent {
    /// Where the plugin lives and what the runtime is told of it.
    #[command(flatten)]
    pub place: Place,
    /// Unix socket on which listeners are kept for the node proxy; none: they are not kept.
    #[arg(long, env = "HEDDLE_HOLDER_SOCKET", value_name = "PATH", value_parser = absolute)]
    pub holder_socket: Option<PathBuf>,
}

/// Where the plugin lives.
#[derive(Clone, Debug, Args)]
pub struct Place {
    /// Folder of the runtime's plugins.
    #[arg(long, env = "HEDDLE_BIN_DIR", default_value = "/opt/cni/bin", value_name = "DIR", value_parser = absolute)]
    pub bin_dir: PathBuf,
    /// Folder of the runtime's network configurations.
    #[arg(long, env = "HEDDLE_CONF_DIR", default_value = "/etc/cni/net.d", value_name = "DIR", value_parser = absolute)]
    pub conf_dir: PathBuf,
    /// Unix socket of the node proxy, as the plugin sees it.
    #[arg(long, env = "HEDDLE_CNI_SOCKET", default_value = "/var/run/heddle/cni.sock", value_name = "PATH", value_parser = absolute)]
    pub cni_socket: PathBuf,
    /// Namespaces whose pods are never meshed; the plugin lets them start without asking the proxy.
    #[arg(
        long,
        env = "HEDDLE_EXCLUDE_NAMESPACES",
        default_value = "kube-system,heddle-system",
        value_delimiter = ',',
        value_name = "NAMES"
    )]
    pub exclude_namespaces: Vec<String>,
    /// Patience of the plugin with the proxy.
    #[arg(long, env = "HEDDLE_TIMEOUT_SECONDS", default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=TIMEOUT_MAX))]
    pub timeout_seconds: u64,
}

impl Place {
    /// Our entry in the runtime's configuration.
    pub fn entry(&self) -> Map<String, Value> {
        let names: Vec<&String> = self.exclude_namespaces.iter().filter(|n| !n.is_empty()).collect();
        [
            ("type", json!(TYPE)),
            ("socket", json!(self.cni_socket)),
            ("timeoutSeconds", json!(self.timeout_seconds)),
            ("excludeNamespaces", json!(names)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect()
    }
}

/// `sockaddr_un` holds 108 bytes, the last a zero; a longer path would fail only when it is used.
const SOCKET_PATH_MAX: usize = 107;

fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match () {
        () if !path.is_absolute() => Err("must be an absolute path".into()),
        () if text.len() > SOCKET_PATH_MAX => Err(format!("must not be longer than {SOCKET_PATH_MAX} bytes")),
        () => Ok(path),
    }
}
