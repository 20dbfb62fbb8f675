//! The CNI runtime against plugins that write down how they are called: order, parameters, result chaining, rollback. It needs a network namespace of its own, made
//! by the test; without the privilege it fails and names it.

use anyhow::{Context, Result, ensure};
use meshctl::playground::{
    cni::{Chain, Sandbox, addresses},
    netns::Netns,
};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use std::{fs, os::unix::fs::PermissionsExt, path::Path};

/// Writes what it is called with to `calls`, and answers with an address more than the one before; fails on ADD if its configuration says so.
const PLUGIN: &str = r#"#!/bin/sh
conf=$(cat)
dir=$(dirname "$0")
printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$(basename "$0")" "$CNI_COMMAND" "$CNI_CONTAINERID" "$CNI_IFNAME" "$CNI_ARGS" "$conf" >> "$dir/calls"
if [ "$CNI_COMMAND" = ADD ]; then
  case "$conf" in *'"refuse":true'*) echo '{"code": 11, "msg": "not now", "details": "busy"}'; exit 1;; esac
  echo "{\"cniVersion\":\"1.1.0\",\"ips\":[{\"address\":\"10.0.0.2/32\"},{\"address\":\"fd00::2/128\"}],\"by\":\"$(basename "$0")\"}"
fi
"#;

struct Call {
    plugin: String,
    command: String,
    container: String,
    ifname: String,
    args: String,
    conf: Value,
}

fn chain(dir: &Path, plugins: Value) -> Result<Chain> {
    unshare(CloneFlags::CLONE_NEWNET).context("this test needs root, to make a network namespace (CAP_SYS_ADMIN)")?;
    for name in ["first", "second", "third"] {
        fs::write(dir.join(name), PLUGIN)?;
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755))?;
    }
    Ok(Chain {
        conflist: json!({"cniVersion": "1.1.0", "name": "test", "plugins": plugins}),
        path: dir.to_owned(),
        host: Netns::at("/proc/thread-self/ns/net"),
    })
}

fn sandbox() -> Sandbox {
    Sandbox {
        container: "c1".into(),
        netns: "/var/run/x".into(),
        args: vec![("K8S_POD_NAME".into(), "a".into()), ("B".into(), "2".into())],
    }
}

fn calls(dir: &Path) -> Result<Vec<Call>> {
    let text = fs::read_to_string(dir.join("calls"))?;
    text.lines()
        .map(|line| {
            let parts: Vec<&str> = line.splitn(6, '\t').collect();
            let [plugin, command, container, ifname, args, conf] = parts[..] else { anyhow::bail!("{line}") };
            Ok(Call {
                plugin: plugin.into(),
                command: command.into(),
                container: container.into(),
                ifname: ifname.into(),
                args: args.into(),
                conf: serde_json::from_str(conf)?,
            })
        })
        .collect()
}

fn order(calls: &[Call]) -> Vec<String> {
    calls.iter().map(|c| format!("{} {}", c.command, c.plugin)).collect()
}

#[test]
fn results_go_from_plugin_to_plugin_and_del_goes_backwards() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let chain = chain(dir.path(), json!([{"type": "first", "mtu": 1400}, {"type": "second"}]))?;
    let result = chain.add(&sandbox())?;
    ensure!(result["by"] == "second" && addresses(&result).len() == 2, "{result}");
    chain.check(&sandbox(), &result)?;
    chain.del(&sandbox(), &result)?;
    chain.gc(&["c9".into()])?;
    let calls = calls(dir.path())?;
    ensure!(
        order(&calls)
            == [
                "ADD first",
                "ADD second",
                "CHECK first",
                "CHECK second",
                "DEL second",
                "DEL first",
                "GC first",
                "GC second"
            ],
        "{:?}",
        order(&calls)
    );
    let [add_first, add_second, check, ..] = &calls[..] else { anyhow::bail!("too few calls") };
    ensure!((add_first.container.as_str(), add_first.ifname.as_str()) == ("c1", "eth0"));
    ensure!(add_first.args == "K8S_POD_NAME=a;B=2", "{}", add_first.args);
    ensure!(
        add_first.conf["mtu"] == 1400 && add_first.conf["name"] == "test" && add_first.conf["cniVersion"] == "1.1.0"
    );
    ensure!(add_first.conf.get("prevResult").is_none(), "the first has none before it");
    ensure!(add_second.conf["prevResult"]["by"] == "first");
    ensure!(check.conf["prevResult"]["by"] == "second", "CHECK gets the final result");
    ensure!(calls[6].conf["cni.dev/valid-attachments"][0]["containerID"] == "c9");
    Ok(())
}

#[test]
fn a_failing_add_is_undone_and_says_which_plugin_and_why() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let chain = chain(dir.path(), json!([{"type": "first"}, {"type": "second", "refuse": true}, {"type": "third"}]))?;
    let error = chain.add(&sandbox()).expect_err("the second refuses");
    ensure!(format!("{error:#}") == "second ADD failed with code 11: not now (busy)", "{error:#}");
    let order = order(&calls(dir.path())?);
    ensure!(order == ["ADD first", "ADD second", "DEL third", "DEL second", "DEL first"], "{order:?}");
    Ok(())
}

#[test]
fn a_plugin_that_is_not_there_is_named() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let chain = chain(dir.path(), json!([{"type": "absent"}]))?;
    let error = chain.add(&sandbox()).expect_err("there is no such plugin");
    ensure!(
        format!("{error:#}").contains("cannot run the CNI plugin") && format!("{error:#}").contains("absent"),
        "{error:#}"
    );
    Ok(())
}
