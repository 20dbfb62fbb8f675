//! Settings of the process: flags as they were written, then as they are meant; every fault of them at once. It must not open anything.

use clap::Parser;
use mesh_core::name::ProxyName;
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

/// The proxy of a node or of a Gateway.
#[derive(Clone, Debug, Parser)]
#[command(name = "mesh-proxy", version, about)]
pub struct Flags {
    /// Which proxy this is: node/NAME or gateway/NAMESPACE/NAME.
    #[arg(long, env = "HEDDLE_NAME")]
    pub name: String,
    /// Where the controller is: https://HOST:PORT.
    #[arg(long, env = "HEDDLE_CONTROLLER")]
    pub controller: String,
    /// PEM file of the controller's root certificate.
    #[arg(long, env = "HEDDLE_CONTROLLER_CA", value_name = "FILE")]
    pub controller_ca: PathBuf,
    /// File of the token that proves to the controller which proxy this is.
    #[arg(long, env = "HEDDLE_TOKEN_FILE", value_name = "FILE")]
    pub token_file: PathBuf,
    /// Folder for what outlives the process: config, certificates, pods.
    #[arg(long, env = "HEDDLE_STATE_DIR", value_name = "DIR")]
    pub state_dir: PathBuf,
    /// Address of the admin server (/ready, /live, /metrics, /debug).
    #[arg(long, env = "HEDDLE_ADMIN", value_name = "IP:PORT")]
    pub admin: String,
    /// File of the access log; - is standard output.
    #[arg(long, env = "HEDDLE_ACCESS_LOG", value_name = "FILE")]
    pub access_log: String,
    /// Unix socket for the CNI plugin (a node's proxy only).
    #[arg(long, env = "HEDDLE_CNI_SOCKET", value_name = "PATH")]
    pub cni_socket: Option<PathBuf>,
    /// Unix socket of the node's agent, which keeps the pods' listeners open while proxies come and go (a node's proxy only).
    #[arg(long, env = "HEDDLE_HOLDER_SOCKET", value_name = "PATH")]
    pub holder_socket: Option<PathBuf>,
    /// Folder in which the runtime keeps the pods' network namespaces; pods that ran before the proxy are found there (a node's proxy only).
    #[arg(long, env = "HEDDLE_NETNS_DIR", value_name = "DIR")]
    pub netns_dir: Option<PathBuf>,
    /// Address of the machine or network namespace that this proxy lives in.
    #[arg(long, env = "HEDDLE_ADDRESS", value_name = "IP")]
    pub address: Option<String>,
    /// What the process writes to its own log, for example info,mesh_proxy::outbound=debug.
    #[arg(long, env = "HEDDLE_LOG", default_value = "info", value_name = "DIRECTIVES")]
    pub log: String,
    /// Threads of the data path; 0: one for each processor.
    #[arg(long, env = "HEDDLE_WORKERS", default_value = "0", value_name = "N")]
    pub workers: String,
}

/// What the flags mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Which proxy this is.
    pub name: ProxyName,
    /// Node or gateway.
    pub role: Role,
    /// The controller and what is needed to speak with it.
    pub control: Control,
    /// Folder for what outlives the process.
    pub state_dir: PathBuf,
    /// Address of the admin server.
    pub admin: SocketAddr,
    /// Where access log lines go.
    pub access_log: AccessLogTo,
    /// Directives of the process's own log.
    pub log: String,
    /// Threads of the data path.
    pub workers: Option<std::num::NonZeroUsize>,
}

/// What the proxy is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Serves the meshed pods of a node, which the CNI announces on this socket.
    Node {
        /// `--cni-socket`.
        cni_socket: PathBuf,
        /// `--holder-socket`.
        holder_socket: Option<PathBuf>,
        /// `--netns-dir`.
        netns_dir: Option<PathBuf>,
    },
    /// Serves the listeners of a Gateway.
    Gateway {
        /// `--address`.
        address: Option<IpAddr>,
    },
}

/// The controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// `https://HOST:PORT`.
    pub url: String,
    /// `--controller-ca`.
    pub authority: PathBuf,
    /// `--token-file`.
    pub token: PathBuf,
}

/// Where access log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogTo {
    /// Standard output.
    Stdout,
    /// Appended to this file.
    File(PathBuf),
}

/// Every flag that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct BadFlags(pub Vec<String>);

impl fmt::Display for BadFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

/// Threads beyond this are a slip of the pen: no machine of today has as many processors.
const WORKERS_MAX: usize = 1024;

impl TryFrom<Flags> for Settings {
    type Error = BadFlags;

    fn try_from(flags: Flags) -> Result<Self, BadFlags> {
        let mut bad = Vec::new();
        let name = flags.name.parse::<ProxyName>();
        if name.is_err() {
            bad.push(format!("--name {:?}: must be node/NAME or gateway/NAMESPACE/NAME", flags.name));
        }
        let authority = flags.controller.parse::<http::Uri>().ok().filter(|u| {
            u.scheme_str() == Some("https")
                && u.port_u16().is_some()
                && matches!(u.path(), "" | "/")
                && u.query().is_none()
        });
        if authority.is_none() {
            bad.push(format!("--controller {:?}: must be https://HOST:PORT", flags.controller));
        }
        let admin = flags.admin.parse::<SocketAddr>();
        if admin.is_err() {
            bad.push(format!("--admin {:?}: must be IP:PORT", flags.admin));
        }
        let address = flags.address.as_deref().map(|text| {
            let parsed = text.parse::<IpAddr>();
            if parsed.is_err() {
                bad.push(format!("--address {text:?}: must be an IP address"));
            }
            parsed
        });
        let workers = flags.workers.parse::<usize>().ok().filter(|n| *n <= WORKERS_MAX);
        if workers.is_none() {
            bad.push(format!("--workers {:?}: must be a whole number from 0 to {WORKERS_MAX}", flags.workers));
        }
        if flags.access_log.is_empty() {
            bad.push("--access-log: must be a file or -".into());
        }
        let node = [("--holder-socket", &flags.holder_socket), ("--netns-dir", &flags.netns_dir)];
        for (flag, path) in node.into_iter().filter_map(|(flag, path)| path.as_ref().map(|p| (flag, p))) {
            if matches!(name, Ok(ProxyName::Gateway(_))) {
                bad.push(format!("{flag}: a gateway's proxy serves no pods"));
            } else if !path.is_absolute() {
                bad.push(format!("{flag} {path:?}: must be an absolute path"));
            }
        }
        let role = match (&name, flags.cni_socket) {
            (Ok(ProxyName::Node(_)), Some(socket)) if socket.is_absolute() => {
                Some(Role::Node { cni_socket: socket, holder_socket: flags.holder_socket, netns_dir: flags.netns_dir })
            }
            (Ok(ProxyName::Node(_)), Some(socket)) => {
                bad.push(format!("--cni-socket {socket:?}: must be an absolute path"));
                None
            }
            (Ok(ProxyName::Node(_)), None) => {
                bad.push("--cni-socket: a node's proxy needs it, to hear of pods".into());
                None
            }
            (Ok(ProxyName::Gateway(_)), Some(_)) => {
                bad.push("--cni-socket: a gateway's proxy serves no pods".into());
                None
            }
            (Ok(ProxyName::Gateway(_)), None) => Some(Role::Gateway { address: address.and_then(Result::ok) }),
            (Err(_), _) => None,
        };
        match (name, role, admin, workers) {
            (Ok(name), Some(role), Ok(admin), Some(workers)) if bad.is_empty() => Ok(Self {
                name,
                role,
                control: Control { url: flags.controller, authority: flags.controller_ca, token: flags.token_file },
                state_dir: flags.state_dir,
                admin,
                access_log: if flags.access_log == "-" {
                    AccessLogTo::Stdout
                } else {
                    AccessLogTo::File(flags.access_log.into())
                },
                log: flags.log,
                workers: std::num::NonZeroUsize::new(workers),
            }),
            _ => Err(BadFlags(bad)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(change: &[(&str, &str)]) -> Result<Settings, BadFlags> {
        let mut all: Vec<(&str, &str)> = vec![
            ("--name", "node/n1"),
            ("--controller", "https://10.0.0.1:15010"),
            ("--controller-ca", "/x/ca.crt"),
            ("--token-file", "/x/token"),
            ("--state-dir", "/x/state"),
            ("--admin", "127.0.0.1:15021"),
            ("--access-log", "-"),
            ("--cni-socket", "/run/cni.sock"),
        ];
        for (flag, value) in change {
            all.retain(|(f, _)| f != flag);
            if *value != "absent" {
                all.push((flag, value));
            }
        }
        let args = all.iter().map(|(f, v)| format!("{f}={v}"));
        Settings::try_from(
            Flags::try_parse_from(std::iter::once("mesh-proxy".to_owned()).chain(args)).expect("clap takes it"),
        )
    }

    #[test]
    fn good_flags_make_settings() {
        let node = Role::Node { cni_socket: "/run/cni.sock".into(), holder_socket: None, netns_dir: None };
        assert_eq!(flags(&[]).unwrap().role, node);
        let gateway = [("--name", "gateway/shop/front"), ("--cni-socket", "absent"), ("--address", "10.0.0.9")];
        assert_eq!(flags(&gateway).unwrap().role, Role::Gateway { address: Some("10.0.0.9".parse().unwrap()) });
    }

    #[test]
    fn each_bad_flag_is_named_with_what_it_must_be() {
        let cases: &[(&str, &str, &str)] = &[
            ("--name", "n1", "--name \"n1\": must be node/NAME or gateway/NAMESPACE/NAME"),
            ("--name", "node/", "--name \"node/\": must be node/NAME or gateway/NAMESPACE/NAME"),
            ("--controller", "http://x:1", "--controller \"http://x:1\": must be https://HOST:PORT"),
            ("--controller", "https://x", "--controller \"https://x\": must be https://HOST:PORT"),
            ("--controller", "https://x:1/y", "--controller \"https://x:1/y\": must be https://HOST:PORT"),
            ("--admin", "15021", "--admin \"15021\": must be IP:PORT"),
            ("--address", "here", "--address \"here\": must be an IP address"),
            ("--workers", "many", "--workers \"many\": must be a whole number from 0 to 1024"),
            ("--workers", "-1", "--workers \"-1\": must be a whole number from 0 to 1024"),
            ("--access-log", "", "--access-log: must be a file or -"),
            ("--cni-socket", "absent", "--cni-socket: a node's proxy needs it, to hear of pods"),
            ("--cni-socket", "cni.sock", "--cni-socket \"cni.sock\": must be an absolute path"),
            ("--holder-socket", "x", "--holder-socket \"x\": must be an absolute path"),
            ("--netns-dir", "x", "--netns-dir \"x\": must be an absolute path"),
            ("--name", "gateway/a/b", "--cni-socket: a gateway's proxy serves no pods"),
        ];
        for (flag, value, message) in cases {
            assert_eq!(flags(&[(flag, value)]), Err(BadFlags(vec![(*message).to_owned()])), "{flag}={value}");
        }
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let faults = flags(&[("--name", "x"), ("--admin", "x"), ("--controller", "x")]).unwrap_err();
        assert_eq!(faults.0.len(), 3, "{faults}");
    }
}
