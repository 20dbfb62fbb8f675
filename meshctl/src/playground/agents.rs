//! The node agents of a playground: the folders that a node's container runtime reads, and the program that puts `mesh-cni` in its place there.
//! It must not write that entry itself.

use super::{
    Options,
    addresses::Node,
    cni::{self, Runtime},
    netns::Netns,
    plugin,
    programs::Program,
};
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

/// An agent needs some milliseconds, a busy machine more.
const START: Duration = Duration::from_secs(30);

/// How often it is looked whether an agent is through.
const LOOK: Duration = Duration::from_millis(10);

/// Where a node's agent and proxy meet, and what they are to each other.
#[derive(Clone, Debug)]
pub struct Sockets {
    /// The proxy serves the plugin here.
    pub cni: PathBuf,
    /// The agent keeps the proxy's listeners here.
    pub holder: PathBuf,
}

impl Sockets {
    /// Those of a node, in the playground's state folder.
    pub fn of(state: &Path, node: &str) -> Self {
        let at = |what: &str| state.join("run").join(format!("{what}-{node}.sock"));
        Self { cni: at("cni"), holder: at("holder") }
    }
}

/// The runtime of a node with nothing but the plugin that makes interfaces: what a cluster has before the mesh comes.
pub fn runtime(options: &Options, state: &Path, node: &Node, host: Netns) -> Result<Runtime> {
    let (path, conf_dir) = (state.join("cni/bin"), state.join("cni").join(&node.name));
    fs::create_dir_all(&conf_dir)?;
    if !path.join(plugin::TYPE).exists() {
        symlink(&options.meshctl, path.join(plugin::TYPE))?;
    }
    let conflist = json!({
        "cniVersion": cni::VERSION,
        "name": format!("playground-{}", node.name),
        "plugins": [{
            "type": plugin::TYPE,
            "ipam": {"dir": state.join("ipam").join(&node.name), "v4Prefix": node.pods_v4(), "v6Prefix": node.pods_v6()},
        }],
    });
    fs::write(conf_dir.join("10-playground.conflist"), conflist.to_string())?;
    Ok(Runtime { conf_dir, path, host })
}

/// The command line of a node's agent.
pub fn program(program: &Path, state: &Path, node: &str, runtime: &Runtime) -> Program {
    let sockets = Sockets::of(state, node);
    let flags = [
        ("--bin-dir", &runtime.path),
        ("--conf-dir", &runtime.conf_dir),
        ("--cni-socket", &sockets.cni),
        ("--holder-socket", &sockets.holder),
    ];
    let flags = flags.into_iter().flat_map(|(flag, path)| [flag.to_owned(), path.display().to_string()]);
    Program {
        name: format!("agent/{node}"),
        argv: [program.display().to_string(), "agent".into()].into_iter().chain(flags).collect(),
        netns: Some(runtime.host.path().to_owned()),
    }
}

/// Waits until an agent has done its work: no pod may start before.
pub async fn settled(state: &Path, node: &str, runtime: &Runtime) -> Result<()> {
    let is_settled = || -> Result<()> {
        let chain = runtime.chain()?;
        let last = chain.conflist["plugins"].as_array().and_then(|p| p.last()).map(|p| p["type"].clone());
        if last != Some("mesh-cni".into()) {
            bail!("the agent of {node} has not put its plugin into {}", runtime.conf_dir.display());
        }
        let socket = Sockets::of(state, node).holder;
        fs::metadata(&socket).map(drop).with_context(|| format!("{}", socket.display()))
    };
    let end = tokio::time::Instant::now() + START;
    loop {
        match is_settled() {
            Ok(()) => return Ok(()),
            Err(error) if tokio::time::Instant::now() > end => return Err(error),
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}
