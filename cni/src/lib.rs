//! The CNI plugin `mesh-cni`: reads what the runtime says, hands the pod's facts to the node proxy, passes the result on. It must not decide anything itself.
//!
//! The same binary is the node agent (`agent`), which puts the plugin into its place and keeps it there.

pub mod agent;
pub mod call;
pub mod conf;
pub mod conflist;
pub mod fault;
pub mod flags;
pub mod hand_over;

use call::{Call, Command};
use conf::Conf;
use fault::{CniFault, Code};
use serde_json::{Value, json};

/// Versions of the CNI specification that we speak.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The newest of them, for answers to configs whose version is not known.
pub const NEWEST: &str = "1.1.0";

/// Does what the environment and the configuration ask for. Returns what to print; nothing for commands without a result.
pub fn run(env: &dyn Fn(&str) -> Option<String>, stdin: &[u8]) -> Result<Option<Value>, CniFault> {
    let call = Call::parse(env)?;
    if call.command == Command::Version {
        let version = conf::version_of(stdin)?.unwrap_or_else(|| NEWEST.into());
        return Ok(Some(json!({ "cniVersion": version, "supportedVersions": VERSIONS })));
    }
    let conf = Conf::parse(stdin)?;
    match &call.command {
        Command::Add(add) => {
            let excluded = conf.excludes(&add.namespace);
            // A runtime runs plugins in order; without a result before us there is no interface that could be captured.
            let mut result = conf.previous.clone().ok_or_else(|| {
                CniFault::new(
                    Code::Config,
                    "prevResult is missing: mesh-cni must come after the plugin that makes the interface",
                )
            })?;
            if !excluded {
                let addresses = conf.addresses()?;
                hand_over::add(&conf, add, addresses)?;
            }
            result["cniVersion"] = Value::from(conf.version.clone());
            Ok(Some(result))
        }
        Command::Del { namespace, .. } | Command::Check { namespace, .. }
            if namespace.as_ref().is_some_and(|n| conf.excludes(n)) =>
        {
            Ok(None)
        }
        Command::Del { container, netns, .. } => hand_over::del(&conf, container, netns.as_deref()).map(|()| None),
        Command::Check { container, .. } => hand_over::check(&conf, container).map(|()| None),
        // Pods of the excluded namespaces can always be added, the proxy's own among them: were the whole node unready until there is a
        // proxy, there would never be one.
        Command::Status if !conf.excluded.is_empty() => Ok(None),
        Command::Status => hand_over::status(&conf).map(|()| None),
        Command::Gc => hand_over::gc(&conf).map(|()| None),
        Command::Version => Ok(None),
    }
}
