//! A CNI runtime as the specification 1.1 describes it: a list of plugins, run one after the other with the result of the one before, undone in reverse.
//! It must not know what a plugin does.

use super::netns::{Netns, tool_path};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::{
    fs,
    io::{Read, Write},
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// The version of the specification that we speak.
pub const VERSION: &str = "1.1.0";

/// Longer than `mesh-cni` waits for its proxy, so that its own message is the one that is seen.
const PLUGIN_DEADLINE: Duration = Duration::from_secs(30);

/// How a node's container runtime finds its chain: anew for each call, as containerd and CRI-O notice changes of the folder.
#[derive(Clone, Debug)]
pub struct Runtime {
    /// Folder of network configurations; the first in lexical order counts.
    pub conf_dir: PathBuf,
    /// `CNI_PATH`.
    pub path: PathBuf,
    /// The namespace that the runtime is in: the node's.
    pub host: Netns,
}

impl Runtime {
    /// The chain as it is configured now.
    pub fn chain(&self) -> Result<Chain> {
        let dir = self.conf_dir.display();
        let names = fs::read_dir(&self.conf_dir).with_context(|| format!("{dir}"))?.flatten().map(|e| e.path());
        let first = names.filter(|p| p.extension().is_some_and(|e| e == "conflist")).min();
        let path = first.with_context(|| format!("no network configuration in {dir}"))?;
        let conflist = serde_json::from_slice(&fs::read(&path)?).with_context(|| format!("{}", path.display()))?;
        Ok(Chain { conflist, path: self.path.clone(), host: self.host.clone() })
    }
}

/// A network configuration list of a node, and where its plugins are.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The list as it is in a conflist file: `cniVersion`, `name`, `plugins`.
    pub conflist: Value,
    /// `CNI_PATH`.
    pub path: PathBuf,
    /// The namespace that the runtime is in: the node's.
    pub host: Netns,
}

/// A container's sandbox, as the parameters name it.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// `CNI_CONTAINERID`.
    pub container: String,
    /// `CNI_NETNS`.
    pub netns: PathBuf,
    /// `CNI_ARGS`.
    pub args: Vec<(String, String)>,
}

impl Chain {
    /// Adds the container to the network. If a plugin fails, everything is deleted again and the error names the plugin.
    pub fn add(&self, sandbox: &Sandbox) -> Result<Value> {
        let mut result = Value::Null;
        for plugin in self.plugins()? {
            match self.invoke("ADD", &plugin, Some(sandbox), &result, &Value::Null) {
                Ok(out) => result = out,
                Err(error) => {
                    // "If an ADD fails, the runtime should follow it with a DEL": the first error is kept.
                    if let Err(undo) = self.del(sandbox, &result) {
                        tracing::warn!(sandbox = sandbox.container, "undo of a failed ADD: {undo:#}");
                    }
                    return Err(error);
                }
            }
        }
        Ok(result)
    }

    /// Removes it: plugins in reverse order, all of them even if one fails; the first error is returned.
    pub fn del(&self, sandbox: &Sandbox, result: &Value) -> Result<()> {
        let mut first = Ok(());
        for plugin in self.plugins()?.iter().rev() {
            let outcome = self.invoke("DEL", plugin, Some(sandbox), result, &Value::Null).map(drop);
            first = first.and(outcome);
        }
        first
    }

    /// Asks every plugin whether the container is as ADD left it.
    pub fn check(&self, sandbox: &Sandbox, result: &Value) -> Result<()> {
        self.plugins()?.iter().try_for_each(|p| self.invoke("CHECK", p, Some(sandbox), result, &Value::Null).map(drop))
    }

    /// Tells every plugin which containers exist.
    pub fn gc(&self, valid: &[String]) -> Result<()> {
        let attachments: Vec<Value> = valid.iter().map(|c| json!({"containerID": c, "ifname": "eth0"})).collect();
        let extra = json!({"cni.dev/valid-attachments": attachments});
        self.plugins()?.iter().try_for_each(|p| self.invoke("GC", p, None, &Value::Null, &extra).map(drop))
    }

    fn plugins(&self) -> Result<Vec<Value>> {
        self.conflist["plugins"].as_array().cloned().context("the conflist has no plugins")
    }

    fn invoke(
        &self,
        command: &str,
        plugin: &Value,
        sandbox: Option<&Sandbox>,
        previous: &Value,
        extra: &Value,
    ) -> Result<Value> {
        let kind = plugin["type"].as_str().context("a plugin of the conflist has no type")?;
        let mut conf = plugin.clone();
        conf["cniVersion"] = self.conflist["cniVersion"].clone();
        conf["name"] = self.conflist["name"].clone();
        if !previous.is_null() {
            conf["prevResult"] = previous.clone();
        }
        for (key, value) in extra.as_object().into_iter().flatten() {
            conf[key] = value.clone();
        }
        let program = self.path.join(kind);
        let started = Instant::now();
        let (out, errors, ok) = self.host.run(|| execute(&program, command, sandbox, &self.path, &conf))??;
        tracing::info!(kind, command, micros = started.elapsed().as_micros(), ok, "CNI");
        if ok {
            return if out.trim().is_empty() {
                Ok(Value::Null)
            } else {
                serde_json::from_str(&out).with_context(|| format!("{kind} {command}: the result is no JSON: {out}"))
            };
        }
        let told: Value = serde_json::from_str(&out).unwrap_or(Value::Null);
        match told["msg"].as_str() {
            Some(msg) => bail!(
                "{kind} {command} failed with code {}: {msg}{}",
                told["code"],
                told["details"].as_str().map(|d| format!(" ({d})")).unwrap_or_default()
            ),
            None => bail!("{kind} {command} failed without saying why: {} {}", out.trim(), errors.trim()),
        }
    }
}

/// The addresses in a result, primary first.
pub fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result["ips"].as_array().into_iter().flatten();
    ips.filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok()).collect()
}

fn execute(
    program: &Path,
    command: &str,
    sandbox: Option<&Sandbox>,
    path: &Path,
    conf: &Value,
) -> Result<(String, String, bool)> {
    let mut process = Command::new(program);
    process.env_clear().env("PATH", tool_path()).env("CNI_COMMAND", command).env("CNI_PATH", path);
    if let Some(s) = sandbox {
        let args: Vec<String> = s.args.iter().map(|(k, v)| format!("{k}={v}")).collect();
        process
            .env("CNI_CONTAINERID", &s.container)
            .env("CNI_NETNS", &s.netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_ARGS", args.join(";"));
    }
    let mut child = process
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run the CNI plugin {}", program.display()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A plugin that fails early does not read; its result says why.
        let _ = stdin.write_all(conf.to_string().as_bytes());
    }
    collect(child, program)
}

fn collect(mut child: Child, program: &Path) -> Result<(String, String, bool)> {
    let (mut out, mut errors) = (child.stdout.take(), child.stderr.take());
    let deadline = Instant::now() + PLUGIN_DEADLINE;
    std::thread::scope(|scope| {
        let out = scope.spawn(move || read_all(&mut out));
        let errors = scope.spawn(move || read_all(&mut errors));
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                bail!("the CNI plugin {} did not answer within {PLUGIN_DEADLINE:?}", program.display());
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let joined = |text: std::thread::Result<String>| text.unwrap_or_default();
        Ok((joined(out.join()), joined(errors.join()), status.success()))
    })
}

fn read_all(from: &mut Option<impl Read>) -> String {
    let mut text = Vec::new();
    if let Some(from) = from {
        let _ = from.read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}
