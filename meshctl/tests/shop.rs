//! The example `examples/shop` with the real programs: it goes as it expects, and edits of it are live at once. The programs must have been built (`make build`);
//! without them the tests fail and say so.

use anyhow::{Context, Result, ensure};
use meshctl::playground::{
    Options,
    control::Client,
    host::{self, Playground},
    request::{Outcome, Request},
    scenario,
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

const READY: Duration = Duration::from_secs(120);

/// What an edit may take until it is live, on a machine with nothing else to do; a test beside others gets more.
const LIVE: Duration = Duration::from_millis(100);
const BUSY: u32 = 20;

fn shop() -> Result<tempfile::TempDir> {
    let dir = tempfile::tempdir()?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/shop");
    for entry in fs::read_dir(&source).with_context(|| format!("{}", source.display()))? {
        let path = entry?.path();
        fs::copy(&path, dir.path().join(path.file_name().context("a file has a name")?))?;
    }
    Ok(dir)
}

fn start(dir: &Path) -> Result<(Playground, Client)> {
    let options = Options { meshctl: PathBuf::from(env!("CARGO_BIN_EXE_meshctl")), ..host::options(dir)? };
    let playground = Playground::start(options)?;
    playground.wait_ready(READY)?;
    let client = playground.client()?;
    Ok((playground, client))
}

fn edit(dir: &Path, file: &str, from: &str, to: &str) -> Result<()> {
    let path = dir.join(file);
    let text = fs::read_to_string(&path)?;
    ensure!(text.contains(from), "{file} has no {from:?}");
    Ok(fs::write(path, text.replace(from, to))?)
}

fn get(client: &Client, url: &str, count: u32) -> Result<Vec<Outcome>> {
    client.request("shop/frontend", Request { count, ..Request::get(url)? })
}

fn is_v2(outcome: &Outcome) -> bool {
    outcome.report.as_ref().is_some_and(|r| r["pod"].as_str().unwrap_or_default().starts_with("cart-v2"))
}

fn until<T>(mut f: impl FnMut() -> Result<T>, limit: Duration) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match f() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

#[test]
fn the_shop_goes_as_it_expects() -> Result<()> {
    let dir = shop()?;
    let (_playground, client) = start(dir.path())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let good = scenario::run(dir.path(), &client, &client.status()?, &runtime)?;
    ensure!(good, "see the table");
    Ok(())
}

#[test]
fn a_saved_route_is_live_at_once_and_a_broken_one_keeps_the_last_good() -> Result<()> {
    let dir = shop()?;
    let (_playground, client) = start(dir.path())?;
    // The first request opens connections; edits are timed without that.
    get(&client, "http://cart/", 5)?;
    let mut times = Vec::new();
    for (from, to, v2) in
        [("weight: 90", "weight: 0", true), ("weight: 0", "weight: 90", false), ("weight: 90", "weight: 0", true)]
    {
        edit(dir.path(), "routes.yaml", from, to)?;
        let saved = Instant::now();
        until(
            || {
                let outcomes = get(&client, "http://cart/", 4)?;
                ensure!(outcomes.iter().all(is_v2) == v2, "{to} is not live");
                Ok(())
            },
            LIVE * BUSY,
        )?;
        times.push(saved.elapsed());
    }
    println!("edits were live after {times:?}");

    edit(dir.path(), "routes.yaml", "weight: 0", "weight: none")?;
    let problem =
        until(|| client.status()?.problems.first().cloned().context("no problem is told"), Duration::from_secs(10))?;
    ensure!(
        problem.file.ends_with("routes.yaml") && problem.line > 1 && problem.object.contains("cart"),
        "{problem:?}"
    );
    ensure!(problem.field.contains("weight") && !problem.reason.is_empty(), "{problem:?}");
    ensure!(client.status()?.problems.len() == 1, "told once: {:?}", client.status()?.problems);
    ensure!(get(&client, "http://cart/", 10)?.iter().all(is_v2), "the last good state serves on");
    edit(dir.path(), "routes.yaml", "weight: none", "weight: 90")?;
    until(
        || {
            ensure!(client.status()?.problems.is_empty(), "{:?}", client.status()?.problems);
            Ok(())
        },
        Duration::from_secs(10),
    )
}

#[test]
fn replacing_and_scaling_pods_fails_no_request() -> Result<()> {
    let dir = shop()?;
    let (_playground, client) = start(dir.path())?;
    let over = Arc::new(AtomicBool::new(false));
    let (told, requests) = (Arc::clone(&over), client.clone());
    let load = std::thread::spawn(move || -> Result<Vec<Outcome>> {
        let mut all = Vec::new();
        while !told.load(Ordering::Relaxed) {
            all.extend(get(&requests, "http://cart/", 20)?);
        }
        Ok(all)
    });
    let text = fs::read_to_string(dir.path().join("apps.yaml"))?;
    let carts = |f: &dyn Fn(&str) -> String| {
        let documents = text.split("---\n").map(|d| if d.contains("name: cart-v") { f(d) } else { d.to_owned() });
        fs::write(dir.path().join("apps.yaml"), documents.collect::<Vec<_>>().join("---\n"))
    };
    let settled = |v1: usize, marker: &str| {
        until(
            || {
                let report = client.status()?;
                let pods: Vec<_> = report.pods.iter().filter(|p| p.owner == "shop/cart-v1").collect();
                ensure!(pods.len() == v1 && pods.iter().all(|p| p.ready), "{marker}: {pods:?}");
                Ok(pods.iter().map(|p| p.name.clone()).collect::<Vec<_>>())
            },
            READY,
        )
    };
    let before = settled(2, "at first")?;
    carts(&|d| d.replace("\"8080\"]", "\"8080\", \"--udp\", \"9999\"]"))?;
    until(
        || {
            let now = settled(2, "replaced")?;
            ensure!(now.iter().all(|p| !before.contains(p)), "still there: {now:?}");
            Ok(())
        },
        READY,
    )?;
    carts(&|d| d.replace("\"8080\"]", "\"8080\", \"--udp\", \"9999\"]").replace("replicas: 2", "replicas: 4"))?;
    settled(4, "scaled up")?;
    carts(&|d| d.replace("\"8080\"]", "\"8080\", \"--udp\", \"9999\"]").replace("replicas: 2", "replicas: 1"))?;
    settled(1, "scaled down")?;
    over.store(true, Ordering::Relaxed);
    let all = load.join().map_err(|_| anyhow::anyhow!("the load panicked"))??;
    let failed: Vec<_> = all.iter().filter(|o| o.status != Some(200)).collect();
    ensure!(failed.is_empty(), "{} of {} failed, first {:?}", failed.len(), all.len(), failed.first());
    ensure!(all.len() > 100, "only {} requests were under way", all.len());
    Ok(())
}

#[test]
fn a_running_pod_is_enrolled_and_released_by_its_label() -> Result<()> {
    let dir = shop()?;
    let (_playground, client) = start(dir.path())?;
    let reaches_the_mesh = |want: bool| {
        until(
            || {
                let outcome =
                    client.request("shop/printer", Request::get("http://cart/")?)?.pop().context("no outcome")?;
                ensure!((outcome.status == Some(200)) == want, "{outcome:?}");
                Ok(())
            },
            Duration::from_secs(20),
        )
    };
    let printer = || -> Result<(String, u32)> {
        let report = client.status()?;
        let pod = report.pods.iter().find(|p| p.name == "printer").context("printer")?;
        Ok((pod.netns.clone(), pod.restarts))
    };
    let before = printer()?;
    reaches_the_mesh(false)?;
    edit(dir.path(), "apps.yaml", "heddle.dev/mesh: disabled", "heddle.dev/mesh: enabled")?;
    reaches_the_mesh(true)?;
    edit(dir.path(), "apps.yaml", "heddle.dev/mesh: enabled", "heddle.dev/mesh: disabled")?;
    reaches_the_mesh(false)?;
    ensure!(printer()? == before, "the pod was not restarted: {:?}", printer()?);
    Ok(())
}
