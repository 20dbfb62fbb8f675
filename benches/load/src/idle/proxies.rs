//! The proxies as for the other scenarios, but allowed to serve thousands of connections. It must not measure.

use crate::{
    arena::{Arena, PROXY, Place},
    process::Process,
    rival::{self, Fill, Programs, Rival, Running},
};
use anyhow::{Result, ensure};
use std::{fs, net::SocketAddr};

/// What the proxies are allowed to serve.
const ALLOWED: u32 = 200_000;

/// Starts one.
pub fn start(proxy: Rival, programs: &Programs, arena: &Arena, fill: &Fill<'_>) -> Result<Running> {
    let replaced = |template: &str, from: &str, to: String| {
        ensure!(template.contains(from), "{}'s config has no {from:?}", proxy.name());
        Ok(template.replace(from, &to))
    };
    let at: SocketAddr = format!("{PROXY}:8443").parse()?;
    let mut process = match proxy {
        Rival::Heddle => {
            return rival::heddle(programs, arena, fill, |folder| {
                let file = folder.join("bench.yaml");
                let from = r#"spec: {accessLog: "Off"}"#;
                let to = format!(r#"spec: {{accessLog: "Off", limits: {{connectionsPerPod: {ALLOWED}}}}}"#);
                Ok(fs::write(&file, replaced(&fs::read_to_string(&file)?, from, to)?)?)
            });
        }
        Rival::Nginx => {
            let template = include_str!("../../rivals/nginx.conf");
            let to = format!("worker_connections {ALLOWED};");
            let conf = fill.write("nginx.conf", &replaced(template, "worker_connections 8192;", to)?)?;
            let mut command = arena.command(&programs.nginx.to_string_lossy());
            command.arg("-c").arg(conf).arg("-e").arg(fill.dir.join("nginx.error"));
            Process::start("nginx", command, fill.dir)?
        }
        Rival::Haproxy => {
            let template = include_str!("../../rivals/haproxy.cfg");
            // It would count two files for each, though the idle ones have no server's.
            let maxconn = format!("maxconn {ALLOWED}\n  no strict-limits");
            let conf = fill.write("haproxy.cfg", &replaced(template, "maxconn 8192", maxconn)?)?;
            let mut command = arena.command(&programs.haproxy.to_string_lossy());
            command.arg("-db").arg("-f").arg(conf);
            Process::start("haproxy", command, fill.dir)?
        }
        Rival::Envoy | Rival::Direct => return proxy.start(programs, arena, fill),
    };
    process.listens(arena, at)?;
    Ok(Running(vec![process]))
}
