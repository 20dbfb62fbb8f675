//! The network configuration on stdin, checked field by field. It must not reach for what the fields name.

use crate::{
    VERSIONS,
    fault::{CniFault, Code},
};
use serde_json::{Map, Value};
use std::{path::PathBuf, time::Duration};

/// Patience with the proxy where the configuration says nothing: the proxy itself waits a little less for a pod's config and certificate.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// Longest patience: runtimes give up on a sandbox after minutes, and a waiting plugin holds a pod's start.
pub const TIMEOUT_MAX: u64 = 120;

/// Our part of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Conf {
    /// `cniVersion`.
    pub version: String,
    /// `socket`: where the node proxy listens.
    pub socket: PathBuf,
    /// `timeoutSeconds`.
    pub timeout: Duration,
    /// `excludeNamespaces`: pods of these are never meshed, so nobody is asked.
    pub excluded: Vec<String>,
    /// `prevResult`.
    pub previous: Option<Value>,
    /// Container ids of `cni.dev/valid-attachments` (GC).
    pub valid: Vec<String>,
}

impl Conf {
    /// Reads the configuration; an error names the field.
    pub fn parse(stdin: &[u8]) -> Result<Self, CniFault> {
        let conf = object(stdin)?;
        let version = text(&conf, "cniVersion")?.ok_or_else(|| config("cniVersion is missing"))?;
        if !VERSIONS.contains(&&*version) {
            let message = format!("cniVersion {version:?} is not supported; supported are {}", VERSIONS.join(", "));
            return Err(CniFault::new(Code::Version, message));
        }
        text(&conf, "name")?.filter(|n| !n.is_empty()).ok_or_else(|| config("name is missing"))?;
        let socket = PathBuf::from(text(&conf, "socket")?.ok_or_else(|| config("socket is missing"))?);
        if !socket.is_absolute() {
            return Err(config(format!("socket is {socket:?}; it must be an absolute path")));
        }
        let timeout = match conf.get("timeoutSeconds") {
            None | Some(Value::Null) => TIMEOUT,
            Some(value) => match value.as_u64() {
                Some(seconds @ 1..=TIMEOUT_MAX) => Duration::from_secs(seconds),
                _ => {
                    let message =
                        format!("timeoutSeconds is {value}; it must be a whole number from 1 to {TIMEOUT_MAX}");
                    return Err(config(message));
                }
            },
        };
        let previous = match conf.get("prevResult") {
            None | Some(Value::Null) => None,
            Some(value @ Value::Object(_)) => Some(value.clone()),
            Some(_) => return Err(config("prevResult must be an object")),
        };
        Ok(Self { version, socket, timeout, excluded: excluded(&conf)?, previous, valid: valid(&conf)? })
    }

    /// Whether pods of a namespace are never meshed.
    pub fn excludes(&self, namespace: &str) -> bool {
        self.excluded.iter().any(|n| n == namespace)
    }

    /// The pod's addresses by `prevResult`, primary first.
    pub fn addresses(&self) -> Result<Vec<String>, CniFault> {
        let ips = self.previous.as_ref().and_then(|r| r.get("ips"));
        let list = match ips {
            None | Some(Value::Null) => return Err(config("prevResult.ips is missing: the pod has no address")),
            Some(Value::Array(list)) if list.is_empty() => {
                return Err(config("prevResult.ips is empty: the pod has no address"));
            }
            Some(Value::Array(list)) => list,
            Some(_) => return Err(config("prevResult.ips must be a list")),
        };
        let address = |(n, ip): (usize, &Value)| {
            let written = ip.get("address").and_then(Value::as_str);
            written
                .and_then(|a| a.split('/').next())
                .filter(|a| a.parse::<std::net::IpAddr>().is_ok())
                .map(str::to_owned)
                .ok_or_else(|| {
                    config(format!(
                        "prevResult.ips[{n}].address is {}; it must be ADDRESS/LENGTH",
                        written.unwrap_or("missing")
                    ))
                })
        };
        list.iter().enumerate().map(address).collect()
    }
}

/// `cniVersion`, from a configuration that may have nothing else (VERSION) or be broken elsewhere.
pub fn version_of(stdin: &[u8]) -> Result<Option<String>, CniFault> {
    if stdin.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    text(&object(stdin)?, "cniVersion")
}

fn object(stdin: &[u8]) -> Result<Map<String, Value>, CniFault> {
    match serde_json::from_slice(stdin) {
        Ok(Value::Object(conf)) => Ok(conf),
        Ok(_) => Err(CniFault::new(Code::Decode, "the network configuration on stdin is not a JSON object")),
        Err(error) => Err(CniFault::because(Code::Decode, "the network configuration on stdin is not JSON", &error)),
    }
}

fn text(conf: &Map<String, Value>, field: &str) -> Result<Option<String>, CniFault> {
    match conf.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(value)) => Ok(Some(value.clone())),
        Some(_) => Err(config(format!("{field} must be a string"))),
    }
}

fn excluded(conf: &Map<String, Value>) -> Result<Vec<String>, CniFault> {
    let field = "excludeNamespaces";
    let list = match conf.get(field) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(config(format!("{field} must be a list"))),
    };
    let name = |(n, one): (usize, &Value)| {
        one.as_str().map(str::to_owned).ok_or_else(|| config(format!("{field}[{n}] must be a string")))
    };
    list.iter().enumerate().map(name).collect()
}

fn valid(conf: &Map<String, Value>) -> Result<Vec<String>, CniFault> {
    let field = "cni.dev/valid-attachments";
    let list = match conf.get(field) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(config(format!("{field} must be a list"))),
    };
    let container = |(n, one): (usize, &Value)| {
        let id = one.get("containerID").and_then(Value::as_str).map(str::to_owned);
        id.ok_or_else(|| config(format!("{field}[{n}].containerID is missing")))
    };
    list.iter().enumerate().map(container).collect()
}

fn config(message: impl Into<String>) -> CniFault {
    CniFault::new(Code::Config, message)
}
