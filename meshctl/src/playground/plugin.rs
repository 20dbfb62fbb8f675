//! `playground-net`: the CNI plugin that wires a pod to its virtual node, point to point, and gives it addresses. It keeps its allocations as files and must not
//! know anything of the mesh.
//!
//! A pod's `eth0` has a /32 and a /128; everything goes through the node, so that the node's nftables see all traffic, also between pods of one node.

use super::{
    addresses::stable_hash,
    netns::{Netns, ip_here},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

/// Name under which the plugin is found in `CNI_PATH`.
pub const TYPE: &str = "playground-net";

const VERSIONS: [&str; 3] = ["0.4.0", "1.0.0", "1.1.0"];

/// Codes of the CNI specification 1.1, and ours from 100.
mod code {
    pub const VERSION: u32 = 1;
    pub const ENVIRONMENT: u32 = 4;
    pub const CONFIG: u32 = 7;
    pub const NETWORK: u32 = 100;
    pub const FULL: u32 = 101;
    pub const CHECK: u32 = 102;
}

#[derive(Deserialize)]
struct Conf {
    #[serde(rename = "cniVersion")]
    cni_version: String,
    name: String,
    ipam: Ipam,
    #[serde(rename = "cni.dev/valid-attachments", default)]
    valid: Vec<Attachment>,
}

#[derive(Deserialize)]
struct Ipam {
    dir: PathBuf,
    #[serde(rename = "v4Prefix")]
    v4: Ipv4Addr,
    #[serde(rename = "v6Prefix")]
    v6: Ipv6Addr,
}

#[derive(Deserialize)]
struct Attachment {
    #[serde(rename = "containerID")]
    container_id: String,
}

struct Failure {
    code: u32,
    message: String,
}

fn fail<T>(code: u32, message: impl Into<String>) -> Result<T, Failure> {
    Err(Failure { code, message: message.into() })
}

/// Runs the plugin as the CNI specification says: parameters in the environment, configuration on stdin, result on stdout. Returns the exit code.
pub fn main() -> u8 {
    let mut text = String::new();
    let outcome = match io::stdin().read_to_string(&mut text) {
        Ok(_) => run(&text),
        Err(e) => fail(5, format!("cannot read the configuration: {e}")),
    };
    let (out, exit) = match outcome {
        Ok(value) => (value, 0),
        Err(f) => (Some(json!({"cniVersion": "1.1.0", "code": f.code, "msg": f.message})), 1),
    };
    if let Some(value) = out
        && let Err(e) = writeln!(io::stdout(), "{value}")
    {
        eprintln!("{TYPE}: cannot write the result: {e}");
        return 1;
    }
    exit
}

fn run(text: &str) -> Result<Option<Value>, Failure> {
    let command = env("CNI_COMMAND")?;
    if command == "VERSION" {
        return Ok(Some(json!({"cniVersion": "1.1.0", "supportedVersions": VERSIONS})));
    }
    let conf: Conf = serde_json::from_str(text)
        .or_else(|e| fail(code::CONFIG, format!("the network configuration is invalid: {e}")))?;
    if !VERSIONS.contains(&conf.cni_version.as_str()) {
        return fail(code::VERSION, format!("cniVersion {} is not supported", conf.cni_version));
    }
    match command.as_str() {
        "ADD" => add(&conf, &Pod::from_env()?).map(Some),
        "DEL" => del(&conf, &env("CNI_CONTAINERID")?).map(|()| None),
        "CHECK" => check(&conf, &Pod::from_env()?).map(|()| None),
        "GC" => gc(&conf).map(|()| None),
        "STATUS" => Ok(None),
        other => {
            fail(code::ENVIRONMENT, format!("CNI_COMMAND {other} is not one of ADD, DEL, CHECK, GC, STATUS, VERSION"))
        }
    }
}

struct Pod {
    container: String,
    netns: Netns,
    ifname: String,
    /// `IP=` of CNI_ARGS: the address that the pod wants.
    wanted: Option<Ipv4Addr>,
}

impl Pod {
    fn from_env() -> Result<Self, Failure> {
        let args = std::env::var("CNI_ARGS").unwrap_or_default();
        let wanted = match args.split(';').find_map(|a| a.strip_prefix("IP=")) {
            Some(ip) => {
                Some(ip.parse().or_else(|_| fail(code::ENVIRONMENT, format!("CNI_ARGS IP={ip} is no IPv4 address")))?)
            }
            None => None,
        };
        Ok(Self {
            container: env("CNI_CONTAINERID")?,
            netns: Netns::at(env("CNI_NETNS")?),
            ifname: env("CNI_IFNAME")?,
            wanted,
        })
    }

    fn host_end(&self) -> String {
        host_end(&self.container)
    }
}

fn add(conf: &Conf, pod: &Pod) -> Result<Value, Failure> {
    let host = allocate(conf, pod)?;
    wire(conf, pod, host).inspect_err(|_| {
        // The first error is the one to tell; what is left over goes away with DEL.
        let _ = del(conf, &pod.container);
    })
}

fn wire(conf: &Conf, pod: &Pod, host: u8) -> Result<Value, Failure> {
    let (v4, v6) = addresses(conf, host);
    let (gw4, gw6) = addresses(conf, 1);
    let (host_end, ifname) = (pod.host_end(), &pod.ifname);
    let network = |e: anyhow::Error| Failure { code: code::NETWORK, message: format!("{}: {e:#}", conf.name) };
    ip_here(&format!("link add {host_end} type veth peer name {ifname} netns {}\n", pod.netns.path().display()))
        .map_err(network)?;
    pod.netns
        .ip(&format!(
            "addr add {v4}/32 dev {ifname}\naddr add {v6}/128 dev {ifname} nodad\nlink set {ifname} up\n\
             route add {gw4} dev {ifname} scope link src {v4}\nroute add default via {gw4} dev {ifname} src {v4}\n\
             route add {gw6} dev {ifname}\nroute add default via {gw6} dev {ifname}\n"
        ))
        .map_err(network)?;
    ip_here(&format!(
        "addr add {gw4}/32 dev {host_end}\naddr add {gw6}/128 dev {host_end} nodad\nlink set {host_end} up\n\
         route replace {v4} dev {host_end}\nroute replace {v6} dev {host_end}\n"
    ))
    .map_err(network)?;
    Ok(json!({
        "cniVersion": conf.cni_version,
        "interfaces": [{"name": host_end}, {"name": ifname, "sandbox": pod.netns.path()}],
        "ips": [
            {"address": format!("{v4}/32"), "gateway": gw4, "interface": 1},
            {"address": format!("{v6}/128"), "gateway": gw6, "interface": 1},
        ],
        "routes": [{"dst": "0.0.0.0/0", "gw": gw4}, {"dst": "::/0", "gw": gw6}],
        "dns": {},
    }))
}

/// "Plugins should generally complete a DEL action without error even if some resources are missing."
fn del(conf: &Conf, container: &str) -> Result<(), Failure> {
    let link = host_end(container);
    if fs::exists(format!("/proc/sys/net/ipv4/conf/{link}")).unwrap_or(false) {
        ip_here(&format!("link del {link}\n"))
            .or_else(|e| fail(code::NETWORK, format!("cannot remove {link}: {e:#}")))?;
    }
    for (path, holder) in holders(conf)? {
        if holder == container {
            let _ = fs::remove_file(path);
        }
    }
    Ok(())
}

fn check(conf: &Conf, pod: &Pod) -> Result<(), Failure> {
    if !holders(conf)?.iter().any(|(_, holder)| *holder == pod.container) {
        return fail(code::CHECK, format!("sandbox {} holds no address", pod.container));
    }
    if !fs::exists(format!("/proc/sys/net/ipv4/conf/{}", pod.host_end())).unwrap_or(false) {
        return fail(code::CHECK, format!("the link {} of sandbox {} is gone", pod.host_end(), pod.container));
    }
    Ok(())
}

fn gc(conf: &Conf) -> Result<(), Failure> {
    let valid: BTreeSet<&str> = conf.valid.iter().map(|a| a.container_id.as_str()).collect();
    let stale: BTreeSet<String> =
        holders(conf)?.into_iter().map(|(_, holder)| holder).filter(|h| !valid.contains(h.as_str())).collect();
    stale.iter().try_for_each(|container| del(conf, container))
}

/// Takes a free address. Creating the file is the lock; the search goes on from the last one given, so that an address rests before it is used again.
fn allocate(conf: &Conf, pod: &Pod) -> Result<u8, Failure> {
    let dir = &conf.ipam.dir;
    fs::create_dir_all(dir).or_else(|e| fail(code::NETWORK, format!("cannot make {}: {e}", dir.display())))?;
    let last_file = dir.join("last");
    let last: u8 = fs::read_to_string(&last_file).ok().and_then(|t| t.parse().ok()).unwrap_or(1);
    let range = 2..=254_u8;
    let candidates: Vec<u8> = match pod.wanted {
        Some(ip) => vec![ip.octets()[3]],
        None => range.clone().filter(|h| *h > last).chain(range.filter(|h| *h <= last)).collect(),
    };
    for host in candidates {
        if let Ok(mut file) = OpenOptions::new().write(true).create_new(true).open(dir.join(host.to_string())) {
            let kept = file.write_all(pod.container.as_bytes()).and_then(|()| fs::write(&last_file, host.to_string()));
            return match kept {
                Ok(()) => Ok(host),
                Err(e) => fail(code::NETWORK, format!("cannot keep the address: {e}")),
            };
        }
    }
    fail(code::FULL, format!("no free address in {}/24 ({})", conf.ipam.v4, conf.name))
}

fn holders(conf: &Conf) -> Result<Vec<(PathBuf, String)>, Failure> {
    let entries = match fs::read_dir(&conf.ipam.dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return fail(code::NETWORK, format!("cannot read {}: {e}", conf.ipam.dir.display())),
    };
    Ok(entries
        .flatten()
        .filter(|e| e.file_name() != "last")
        .filter_map(|e| fs::read_to_string(e.path()).ok().map(|holder| (e.path(), holder)))
        .collect())
}

fn addresses(conf: &Conf, host: u8) -> (Ipv4Addr, Ipv6Addr) {
    let [a, b, c, _] = conf.ipam.v4.octets();
    let mut v6 = conf.ipam.v6.segments();
    v6[7] = u16::from(host);
    (Ipv4Addr::new(a, b, c, host), v6.into())
}

/// Interface names hold 15 bytes, so the container id is hashed.
fn host_end(container: &str) -> String {
    format!("pg{:012x}", stable_hash(container.as_bytes()) & 0xffff_ffff_ffff)
}

fn env(name: &str) -> Result<String, Failure> {
    match std::env::var(name) {
        Ok(value) if !value.is_empty() => Ok(value),
        _ => fail(code::ENVIRONMENT, format!("{name} is not set")),
    }
}
