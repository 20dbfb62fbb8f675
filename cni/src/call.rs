//! What the runtime asks, from the environment. It must not read the configuration.

use crate::fault::{CniFault, Code};
use std::path::PathBuf;

/// A call of the plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What is asked.
    pub command: Command,
}

/// `CNI_COMMAND` with what it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A pod's sandbox exists.
    Add(Sandbox),
    /// A sandbox goes away.
    Del {
        /// `CNI_CONTAINERID`.
        container: String,
        /// `K8S_POD_NAMESPACE` of `CNI_ARGS`, if the runtime says it.
        namespace: Option<String>,
        /// `CNI_NETNS`, if the runtime says it.
        netns: Option<PathBuf>,
    },
    /// Is the sandbox as ADD left it?
    Check {
        /// `CNI_CONTAINERID`.
        container: String,
        /// `K8S_POD_NAMESPACE` of `CNI_ARGS`, if the runtime says it.
        namespace: Option<String>,
    },
    /// Would ADD be served?
    Status,
    /// Only the sandboxes of the configuration still exist.
    Gc,
    /// Which versions are spoken?
    Version,
}

/// A pod's sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// `CNI_CONTAINERID`.
    pub container: String,
    /// `CNI_NETNS`.
    pub netns: PathBuf,
    /// `K8S_POD_NAMESPACE` of `CNI_ARGS`.
    pub namespace: String,
    /// `K8S_POD_NAME` of `CNI_ARGS`.
    pub name: String,
    /// `K8S_POD_UID` of `CNI_ARGS`; empty if the runtime does not say.
    pub uid: String,
}

impl Call {
    /// Reads the environment.
    pub fn parse(env: &dyn Fn(&str) -> Option<String>) -> Result<Self, CniFault> {
        let needed =
            |name: &str| env(name).filter(|v| !v.is_empty()).ok_or_else(|| environment(format!("{name} is not set")));
        let command = match &*needed("CNI_COMMAND")? {
            "ADD" => Command::Add(Self::sandbox(&needed)?),
            "DEL" => {
                let netns = env("CNI_NETNS").filter(|n| !n.is_empty()).map(PathBuf::from);
                Command::Del { container: container(&needed)?, namespace: namespace(env), netns }
            }
            "CHECK" => Command::Check { container: container(&needed)?, namespace: namespace(env) },
            "STATUS" => Command::Status,
            "GC" => Command::Gc,
            "VERSION" => Command::Version,
            other => {
                return Err(environment(format!(
                    "CNI_COMMAND is {other:?}; it must be ADD, DEL, CHECK, GC, STATUS or VERSION"
                )));
            }
        };
        Ok(Self { command })
    }

    fn sandbox(needed: &dyn Fn(&str) -> Result<String, CniFault>) -> Result<Sandbox, CniFault> {
        let container = container(needed)?;
        let netns = PathBuf::from(needed("CNI_NETNS")?);
        if !netns.is_absolute() {
            return Err(environment(format!("CNI_NETNS is {netns:?}; it must be an absolute path")));
        }
        needed("CNI_IFNAME")?;
        let args = needed("CNI_ARGS")
            .map_err(|_| environment("CNI_ARGS is not set; K8S_POD_NAMESPACE and K8S_POD_NAME name the pod"))?;
        let (mut namespace, mut name, mut uid) = (None, None, None);
        for pair in args.split(';').filter(|p| !p.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| {
                environment(format!("CNI_ARGS has {pair:?}; it must be KEY=VALUE pairs joined by ';'"))
            })?;
            match key {
                "K8S_POD_NAMESPACE" => namespace = Some(value),
                "K8S_POD_NAME" => name = Some(value),
                "K8S_POD_UID" => uid = Some(value),
                _ => {}
            }
        }
        let part = |value: Option<&str>, key: &str| match value {
            Some(v) if !v.is_empty() && !v.contains('/') => Ok(v.to_owned()),
            Some(v) => Err(environment(format!("CNI_ARGS has {key}={v:?}, which names nothing"))),
            None => Err(environment(format!("CNI_ARGS lacks {key}"))),
        };
        Ok(Sandbox {
            container,
            netns,
            namespace: part(namespace, "K8S_POD_NAMESPACE")?,
            name: part(name, "K8S_POD_NAME")?,
            uid: uid.unwrap_or_default().to_owned(),
        })
    }
}

/// The pod's namespace, for commands that work without it.
fn namespace(env: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let args = env("CNI_ARGS")?;
    args.split(';').find_map(|pair| pair.strip_prefix("K8S_POD_NAMESPACE=")).map(str::to_owned)
}

/// CNI: container ids "must start with an alphanumeric character, optionally followed by … alphanumeric characters, underscore, dot or hyphen".
fn container(needed: &dyn Fn(&str) -> Result<String, CniFault>) -> Result<String, CniFault> {
    let id = needed("CNI_CONTAINERID")?;
    let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if id.bytes().all(ok) && id.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Ok(id);
    }
    Err(environment(format!(
        "CNI_CONTAINERID is {id:?}; it must be alphanumeric characters, '_', '.' and '-', the first alphanumeric"
    )))
}

fn environment(message: impl Into<String>) -> CniFault {
    CniFault::new(Code::Environment, message)
}
