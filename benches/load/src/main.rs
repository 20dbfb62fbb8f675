//! `mesh-bench-load`: Heddle and the proxies that a user would pick instead, one after another on the same backends, in one run. It must not
//! tune a rival worse than its experts would, nor Heddle beyond what is installed.

mod arena;
mod bulk;
mod client;
mod crowd;
mod figures;
mod idle;
mod ingress;
mod load;
mod measure;
mod mesh;
mod pods;
mod process;
mod rival;
mod routes;
mod scale;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use figures::Figures;
use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

/// As the product's programs have: the simulated controller is a part of this one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Side by side with Envoy, nginx and haproxy: CPU per request, latency, throughput.
#[derive(Parser)]
#[command(subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
pub struct Flags {
    #[command(subcommand)]
    part: Option<scale::Part>,
    /// Shorter measurements, the most telling scenarios only: under ten minutes instead of more than an hour.
    #[arg(long)]
    quick: bool,
    /// Only scenarios whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Rounds; each runs every scenario with every proxy once. 3 unless said.
    #[arg(long)]
    rounds: Option<u32>,
    /// Seconds of each measurement.
    #[arg(long)]
    seconds: Option<u64>,
    /// Folder of Heddle's programs; else the one this program lies in.
    #[arg(long)]
    programs: Option<PathBuf>,
    /// The envoy program; without it Envoy is missing, which is an error.
    #[arg(long, env = "HEDDLE_BENCH_ENVOY")]
    #[arg(required = true)]
    envoy: Option<PathBuf>,
    /// Where results.json and results.md go.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

/// The least that has a median; the machine's slow moments are minutes, so more of them rather than longer measurements.
const ROUNDS: u32 = 3;

fn main() -> Result<()> {
    let flags = Flags::parse();
    if let Some(part) = &flags.part {
        return part.run();
    }
    let programs = match &flags.programs {
        Some(dir) => dir.clone(),
        None => std::env::current_exe()?.parent().context("this program lies nowhere")?.to_owned(),
    };
    let rivals = rival::Programs::find(&flags.envoy.clone().unwrap_or_default(), &programs)?;
    let rounds = flags.rounds.unwrap_or(ROUNDS);
    let each = flags.seconds.map_or(Duration::from_secs(if flags.quick { 1 } else { 2 }), Duration::from_secs);
    ensure!(each >= Duration::from_secs(1), "--seconds 0: nothing to measure");
    ensure!(rounds > 0, "--rounds 0: nothing to measure");
    fs::create_dir_all(&flags.out).with_context(|| format!("--out {}", flags.out.display()))?;
    let (quick, only) = (flags.quick, flags.only.as_str());
    let routes = routes::Effort::new(quick);
    let parts: [(&str, &dyn Fn() -> Result<Figures>); 6] = [
        ("ingress", &|| ingress::run(&rivals, rounds, each, quick, only)),
        ("mesh", &|| mesh::run(&rivals, rounds, each, quick, only)),
        ("routes", &|| routes::run(&rivals, &routes, only)),
        ("scale", &|| scale::run(quick, only)),
        ("idle", &|| idle::run(&rivals, quick, only)),
        ("crowd", &|| crowd::run(&rivals, only)),
    ];
    let mut figures = Figures::default();
    for (name, run) in parts {
        let began = Instant::now();
        match run() {
            Ok(more) => figures.extend(more),
            Err(error) => figures.fail(format!("{name}: {error:#}")),
        }
        eprintln!("{name}: {:.0?}", began.elapsed());
        // What is measured is kept, whatever becomes of the rest.
        fs::write(flags.out.join("results.json"), format!("{:#}\n", figures.to_json()))?;
        fs::write(flags.out.join("results.md"), figures.to_markdown())?;
    }
    println!("{}", figures.to_markdown());
    ensure!(!figures.is_empty(), "--only {only:?}: no scenario has such a name");
    ensure!(figures.failures().is_empty(), "not measured:\n{}", figures.failures().join("\n"));
    Ok(())
}
