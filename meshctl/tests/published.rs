//! The traffic-splitting examples that the Gateway API publishes, read from its Go module and run: each becomes the route of a Service, and its weights hold exactly.

use anyhow::{Context, Result, ensure};
use meshctl::playground::{
    Options,
    folder::documents,
    host::{self, Playground},
    request::{Outcome, Request},
};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

const MODULE: &str = "sigs.k8s.io/gateway-api@v1.7.0";
const LIMIT: Duration = Duration::from_secs(120);

/// foo-v1 and foo-v2 as the examples name them, foo in front of both, and somebody to ask.
const AROUND: &str = r#"
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XMesh
metadata: {name: heddle}
spec: {controllerName: heddle.dev/controller}
---
apiVersion: v1
kind: Namespace
metadata: {name: default, labels: {heddle.dev/mesh: enabled}}
---
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec: {containers: [{name: c, image: heddle.dev/echo}]}
---
apiVersion: v1
kind: Pod
metadata: {name: foo-v1, labels: {app: foo, version: v1}}
spec: {containers: [{name: c, image: heddle.dev/echo, args: [--http, "8080", --http, "50051"], ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: foo-v2, labels: {app: foo, version: v2}}
spec: {containers: [{name: c, image: heddle.dev/echo, args: [--http, "8080", --http, "50051"], ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: foo}
spec: {selector: {app: foo}, ports: [{name: http, port: 8080}, {name: grpc, port: 50051}]}
---
apiVersion: v1
kind: Service
metadata: {name: foo-v1}
spec: {selector: {app: foo, version: v1}, ports: [{name: http, port: 8080}, {name: grpc, port: 50051}]}
---
apiVersion: v1
kind: Service
metadata: {name: foo-v2}
spec: {selector: {app: foo, version: v2}, ports: [{name: http, port: 8080}, {name: grpc, port: 50051}]}
"#;

/// The folder of the module. An older Go refuses the module's go directive after having unpacked it, so the folder decides, not the exit code.
fn module() -> Result<PathBuf> {
    let go = |args: &[&str]| {
        let run = Command::new("go").args(args).current_dir(std::env::temp_dir()).output();
        run.with_context(|| format!("this test reads {MODULE} with the go tool; install Go (https://go.dev/dl)"))
    };
    let folder = Path::new(String::from_utf8(go(&["env", "GOMODCACHE"])?.stdout)?.trim()).join(MODULE);
    if !folder.is_dir() {
        let download = go(&["mod", "download", "-json", MODULE])?;
        ensure!(folder.is_dir(), "go mod download {MODULE}: {}", String::from_utf8_lossy(&download.stdout));
    }
    Ok(folder)
}

fn from_v2(outcomes: &[Outcome]) -> usize {
    outcomes.iter().filter(|o| o.report.as_ref().is_some_and(|r| r["pod"] == "foo-v2")).count()
}

#[test]
fn published_traffic_splits_hold_exactly() -> Result<()> {
    let examples = module()?.join("examples/standard/traffic-splitting");
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("around.yaml"), AROUND)?;
    let options = Options { meshctl: PathBuf::from(env!("CARGO_BIN_EXE_meshctl")), ..host::options(dir.path())? };
    let playground = Playground::start(options)?;
    playground.wait_ready(LIMIT)?;
    let client = playground.client()?;

    // Of 100 requests so many go to v2, without and with the header `traffic: test`.
    let expected = [
        ("grpc-traffic-split-2.yaml", 10, 10),
        ("simple-split.yaml", 10, 10),
        ("traffic-split-1.yaml", 0, 100),
        ("traffic-split-2.yaml", 10, 10),
        ("traffic-split-3.yaml", 100, 100),
    ];
    let mut published: Vec<String> = Vec::new();
    for entry in fs::read_dir(&examples)? {
        published.push(entry?.file_name().to_string_lossy().into_owned());
    }
    published.sort();
    ensure!(published == expected.map(|(file, ..)| file), "other examples than this test knows: {published:?}");

    for (file, plain, with_header) in expected {
        let text = fs::read_to_string(examples.join(file))?;
        let (_, document) = documents(&text)[0];
        let mut route: Value = serde_saphyr::from_str(document).map_err(|e| anyhow::anyhow!("{file}: {e}"))?;
        let grpc = route["kind"] == "GRPCRoute";
        let port = if grpc { 50051 } else { 8080 };
        let name = route["metadata"]["name"].as_str().context("a name")?.to_owned();
        route["spec"]["parentRefs"] = json!([{"group": "", "kind": "Service", "name": "foo", "port": port}]);
        // Its own name tells the status of this route from that of the one before.
        let unique = format!("{name}-{}", file.trim_end_matches(".yaml"));
        route["metadata"]["name"] = unique.clone().into();
        fs::write(dir.path().join("route.json"), route.to_string())?;
        let deadline = Instant::now() + LIMIT;
        while !client.status()?.objects.iter().any(|o| o["name"] == unique.as_str() && o["kind"] == route["kind"]) {
            ensure!(Instant::now() < deadline, "{file}: no status: {:?}", client.status()?.problems);
            std::thread::sleep(Duration::from_millis(10));
        }
        // The status is written when the plan is made; the proxy has it some milliseconds later, and says so in its log.
        let url = if grpc { "grpc://foo:50051/a.B/C".to_owned() } else { "http://foo:8080/".to_owned() };
        loop {
            let probe = client.request("default/client", Request::get(&url)?)?;
            let routed = client.access_log()?.iter().any(|l| {
                l.line["trace_id"] == probe[0].trace_id.as_str()
                    && l.line["route"].as_str().is_some_and(|r| r.ends_with(&format!("/{unique}")))
            });
            if routed {
                break;
            }
            ensure!(Instant::now() < deadline, "{file}: the route is not in use: {probe:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        for (header, want) in [(None, plain), (Some("test"), with_header)] {
            let mut request = Request { count: 100, ..Request::get(&url)? };
            request.headers.extend(header.map(|h| ("traffic".to_owned(), h.to_owned())));
            let outcomes = client.request("default/client", request)?;
            ensure!(outcomes.iter().all(|o| o.status == Some(200)), "{file}: {:?}", outcomes.first());
            ensure!(from_v2(&outcomes) == want, "{file}, header {header:?}: {} of 100 to v2", from_v2(&outcomes));
        }
    }
    Ok(())
}
