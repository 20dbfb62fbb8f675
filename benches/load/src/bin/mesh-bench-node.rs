//! `mesh-bench-node`: a node's proxy of the simulation. It decodes, compiles and keeps what the controller sends, as the product does and with the
//! product's allocator, and nothing else. It must not measure memory; who started it does.

#[path = "../scale/streams.rs"]
mod streams;

use anyhow::{Context, Result, bail};
use clap::Parser;
use mesh_core::{balance::InFlight, name::ProxyName, snapshot::Snapshot};
use mesh_proxy::control::{Cache, Held};
use mesh_wire::proto::{Ack, ToController, ToProxy, to_controller::Message as Say, to_proxy::Message as Heard};
use std::{io::BufRead, path::PathBuf, sync::Arc, time::Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Takes all that the controller has for this proxy, says so in a line, and then for each number that it reads talks to so many endpoints.
#[derive(Parser)]
struct Flags {
    /// HOST:PORT of the controller.
    controller: String,
    /// Its name.
    name: String,
    /// Folder for its state.
    state: PathBuf,
}

fn main() -> Result<()> {
    mesh_sys::memory::small_pages()?;
    let Flags { controller, name, state } = &Flags::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let held = runtime.block_on(synchronise(controller, name))?;
    // As the product does half a second after a change: what was freed is given back by the thread that took it.
    runtime.block_on(async { tokio::spawn(async { mesh_sys::memory::give_back() }).await })?;
    Cache::new(state, name.parse::<ProxyName>()?).save(&held)?;
    mesh_sys::memory::give_back();
    let snapshot = held.snapshot().context("synchronised without a snapshot")?.clone();
    println!("{}", serde_json::json!({"resources": held.resources().count()}));
    let mut talking = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let wanted: usize = line?.trim().parse()?;
        talk(&snapshot, wanted, &mut talking);
        println!("{}", serde_json::json!({"talking": talking.len()}));
    }
    Ok(())
}

async fn synchronise(controller: &str, name: &str) -> Result<Held> {
    let mut held = Held::default();
    let (say, mut stream) = streams::open::<ToProxy>(controller, name).await?;
    loop {
        let Some(message) = stream.message().await? else { bail!("the controller ended the stream") };
        let Some(Heard::Delta(delta)) = message.message else { continue };
        let (nonce, synced) = (delta.nonce, delta.synced);
        held.take(delta).map_err(|all| anyhow::anyhow!("{} resources were refused: {}", all.len(), all[0]))?;
        say.send(ToController { message: Some(Say::Ack(Ack { nonce, errors: vec![] })) }).await?;
        if synced {
            return Ok(held);
        }
    }
}

/// Has a request under way to so many endpoints: what is made when an endpoint is first used is made.
fn talk(snapshot: &Arc<Snapshot>, wanted: usize, talking: &mut Vec<InFlight>) {
    let now = Instant::now();
    for service in snapshot.services() {
        for port in &service.ports {
            let Some(set) = snapshot.endpoints(&service.id, port.number) else { continue };
            for target in &set.endpoints {
                if talking.len() >= wanted {
                    return;
                }
                talking.push(target.load.start(now));
            }
        }
    }
}
