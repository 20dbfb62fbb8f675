//! The playground as a cluster, without the mesh: it leaves the host as it was, works without root, and gives pods what a cluster gives. It must not test the mesh.

use anyhow::{Context, Result, ensure};
use meshctl::playground::{
    Options,
    control::Client,
    host::{self, Playground},
    report::Report,
    request::Request,
};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const LIMIT: Duration = Duration::from_secs(60);

const FOLDER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: a}
spec: {nodeName: n1, containers: [{name: c, image: heddle.dev/echo}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: b}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: c
        image: heddle.dev/echo
        args: [--http, "8080", --greet, "5432", --udp, "9000"]
        ports: [{name: http, containerPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: b}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}, {name: db, port: 5432}, {name: dgram, port: 9000, protocol: UDP}]
---
apiVersion: v1
kind: Service
metadata: {name: pods, namespace: b}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: empty, namespace: b}
spec: {selector: {app: nobody}, ports: [{port: 80}]}
"#;

fn folder(text: &str) -> Result<tempfile::TempDir> {
    let dir = tempfile::tempdir()?;
    // Another user has to read it in one of the tests.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    fs::write(dir.path().join("all.yaml"), text)?;
    Ok(dir)
}

fn options(dir: &Path) -> Result<Options> {
    Ok(Options { meshctl: PathBuf::from(env!("CARGO_BIN_EXE_meshctl")), mesh: false, ..host::options(dir)? })
}

fn start(dir: &Path) -> Result<(Playground, Client)> {
    let playground = Playground::start(options(dir)?)?;
    playground.wait_ready(LIMIT)?;
    let client = playground.client()?;
    Ok((playground, client))
}

fn eventually<T>(mut f: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + LIMIT;
    loop {
        match f() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// What a playground could leave behind: links, mounts, pinned namespaces, files, and processes whose command line names the folder.
fn traces(dir: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let links = Command::new("ip").args(["-o", "link"]).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").output()?;
    for line in String::from_utf8(links.stdout)?.lines() {
        found.insert(format!("link {}", line.split(':').nth(1).unwrap_or_default().trim()));
    }
    for line in fs::read_to_string("/proc/self/mounts")?.lines() {
        found.insert(format!("mount {line}"));
    }
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        found.insert(format!("netns {}", entry.path().display()));
    }
    let runtime = host::options(dir)?.runtime;
    if runtime.exists() {
        found.insert(format!("file {}", runtime.display()));
    }
    for entry in fs::read_dir("/proc")?.flatten() {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(&dir.display().to_string()) {
            found.insert(format!("process {command}"));
        }
    }
    Ok(found)
}

/// Other tests make links and mounts of their own in their namespaces only, so equality holds for the host's.
fn leaves_no_trace(dir: &Path, before: &BTreeSet<String>) -> Result<()> {
    eventually(|| {
        let after = traces(dir)?;
        let new: Vec<&String> = after.difference(before).collect();
        ensure!(new.is_empty(), "left behind: {new:#?}");
        let gone: Vec<&String> = before.difference(&after).collect();
        ensure!(gone.is_empty(), "taken away: {gone:#?}");
        Ok(())
    })
}

#[test]
fn dropping_it_leaves_the_host_as_it_was() -> Result<()> {
    let dir = folder(FOLDER)?;
    let before = traces(dir.path())?;
    let (playground, _) = start(dir.path())?;
    let during = traces(dir.path())?;
    ensure!(during.iter().any(|t| t.starts_with("process")), "it runs in processes of its own");
    ensure!(
        during.iter().filter(|t| t.starts_with("link") || t.starts_with("mount")).count()
            == before.iter().filter(|t| t.starts_with("link") || t.starts_with("mount")).count(),
        "the host's links and mounts stay"
    );
    drop(playground);
    leaves_no_trace(dir.path(), &before)
}

#[test]
fn sigkill_of_the_outer_process_leaves_the_host_as_it_was() -> Result<()> {
    let dir = folder(FOLDER)?;
    let before = traces(dir.path())?;
    let mut up = up(dir.path(), &User::ours())?;
    ready(dir.path(), &User::ours())?;
    up.kill()?;
    up.wait()?;
    leaves_no_trace(dir.path(), &before)
}

#[test]
fn sigkill_of_the_stage_leaves_the_host_as_it_was() -> Result<()> {
    let dir = folder(FOLDER)?;
    let before = traces(dir.path())?;
    let (mut playground, _) = start(dir.path())?;
    let pid = nix::unistd::Pid::from_raw(playground.stage_pid().try_into()?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)?;
    playground.wait()?;
    drop(playground);
    leaves_no_trace(dir.path(), &before)
}

#[test]
fn interrupting_it_leaves_the_host_as_it_was() -> Result<()> {
    let dir = folder(FOLDER)?;
    let before = traces(dir.path())?;
    let mut up = up(dir.path(), &User::ours())?;
    ready(dir.path(), &User::ours())?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(up.id().try_into()?), nix::sys::signal::Signal::SIGINT)?;
    ensure!(up.wait()?.success(), "Ctrl-C is an ordinary end");
    leaves_no_trace(dir.path(), &before)
}

#[test]
fn it_works_without_root() -> Result<()> {
    // Root gives its privileges up; anyone else has none.
    let nobody = User::without_root()?;
    let dir = folder(FOLDER)?;
    let mut up = up(dir.path(), &nobody)?;
    ready(dir.path(), &nobody)?;
    let out =
        nobody.meshctl().args(["playground", "exec"]).arg(dir.path()).args(["a/client", "--", "id", "-u"]).output()?;
    ensure!(out.stdout == b"0\n", "inside, the user is root: {out:?}");
    let seen = "getent ahostsv4 web.b >/dev/null && cat /proc/1/cmdline | tr '\\0' ' '";
    let out = nobody
        .meshctl()
        .args(["playground", "exec"])
        .arg(dir.path())
        .args(["a/client", "--", "sh", "-c", seen])
        .output()?;
    ensure!(out.status.success(), "names resolve: {out:?}");
    let down = nobody.meshctl().args(["playground", "down"]).arg(dir.path()).output()?;
    ensure!(down.status.success(), "{down:?}");
    up.wait()?;
    Ok(())
}

#[test]
fn pods_have_names_and_services() -> Result<()> {
    let dir = folder(FOLDER)?;
    let (_playground, client) = start(dir.path())?;
    let report = client.status()?;
    let web: Vec<_> = report.pods.iter().filter(|p| p.owner == "b/web").collect();
    let nodes: BTreeSet<&str> = web.iter().map(|p| p.node.as_str()).collect();
    ensure!(nodes.len() == 2, "a Deployment is spread over the nodes: {nodes:?}");

    for name in ["web.b", "web.b.svc", "web.b.svc.cluster.local"] {
        let outcomes =
            client.request("a/client", Request { count: 1, ..Request::get(&format!("http://{name}/x"))? })?;
        ensure!(outcomes[0].status == Some(200), "{name}: {:?}", outcomes[0]);
    }
    ensure!(client.request("a/client", Request::get("http://web/")?).is_err(), "a short name is of the own namespace");
    let v6 = report.services.iter().find(|s| s.name == "b/web").context("b/web")?.addresses[1].clone();
    let over_v6 = client.request("a/client", Request::get(&format!("http://[{v6}]/"))?)?;
    ensure!(over_v6[0].status == Some(200), "IPv6: {:?}", over_v6[0]);
    let greeting = client.request("a/client", Request::get("tcp://web.b:5432")?)?;
    ensure!(greeting[0].report.as_ref().is_some_and(|r| r["protocol"] == "tcp-greet"), "{greeting:?}");

    let addresses = exec(&client, "getent ahostsv4 pods.b | cut -d' ' -f1 | sort -u")?;
    let mut of_pods: Vec<&str> = web.iter().map(|p| p.addresses[0].as_str()).collect();
    of_pods.sort_unstable();
    ensure!(addresses.lines().collect::<Vec<_>>() == of_pods, "a headless name is its pods: {addresses:?} {of_pods:?}");
    let udp = exec(&client, "exec 3<>/dev/udp/web.b/9000; echo ping >&3; timeout 5 dd bs=100 count=1 status=none <&3")?;
    ensure!(udp.trim() == "ping", "UDP: {udp:?}");
    let started = Instant::now();
    let refused = client.request("a/client", Request::get("http://empty.b/")?)?;
    ensure!(refused[0].error.as_ref().is_some_and(|e| e.contains("refused")), "without endpoints: {refused:?}");
    ensure!(started.elapsed() < Duration::from_secs(1), "a refusal is prompt");
    let itself = client.request("b/web", Request::get("http://web/")?)?;
    ensure!(itself[0].status == Some(200), "a pod reaches its own Service: {itself:?}");
    ensure!(exec(&client, "hostname")?.trim() == "client", "the host name is the pod's");
    Ok(())
}

#[test]
fn edits_scale_replace_and_keep_what_breaks() -> Result<()> {
    let dir = folder(FOLDER)?;
    let (_playground, client) = start(dir.path())?;
    let write = |text: String| fs::write(dir.path().join("all.yaml"), text);
    let names = |report: &Report| -> BTreeSet<String> {
        report.pods.iter().filter(|p| p.owner == "b/web" && p.ready).map(|p| p.name.clone()).collect()
    };
    let first = names(&client.status()?);

    write(FOLDER.replace("replicas: 2", "replicas: 3"))?;
    eventually(|| {
        let now = names(&client.status()?);
        ensure!(now.len() == 3 && now.is_superset(&first), "scaled up: {now:?}");
        Ok(())
    })?;
    // A change of the template replaces all pods, and no request fails while it does.
    write(FOLDER.replace("\"9000\"]", "\"9001\"]"))?;
    let mut sent = 0;
    eventually(|| {
        let outcomes = client.request("a/client", Request { count: 20, ..Request::get("http://web.b/")? })?;
        sent += outcomes.len();
        for outcome in &outcomes {
            assert_eq!(outcome.status, Some(200), "during the replacement: {outcome:?}");
        }
        let report = client.status()?;
        let all: BTreeSet<String> = report.pods.iter().filter(|p| p.owner == "b/web").map(|p| p.name.clone()).collect();
        ensure!(all.len() == 2 && all.is_disjoint(&first), "replaced: {all:?}");
        Ok(())
    })?;
    ensure!(sent > 20, "requests were under way: {sent}");

    let second = names(&client.status()?);
    write(FOLDER.replace("\"9000\"]", "\"9001\"]").replace("replicas: 2", "replicas: two"))?;
    let problem = eventually(|| client.status()?.problems.first().cloned().context("no problem told"))?;
    ensure!(
        problem.object == "Deployment/b/web" && problem.field == "spec.replicas" && problem.line > 1,
        "{problem:?}"
    );
    ensure!(names(&client.status()?) == second, "the last good state stays");
    write(FOLDER.replace("\"9000\"]", "\"9001\"]").replace("replicas: 2", "replicas: 1"))?;
    eventually(|| {
        let report = client.status()?;
        ensure!(report.problems.is_empty() && names(&report).len() == 1, "mended: {:?}", report.problems);
        Ok(())
    })
}

#[test]
fn endpoints_follow_readiness() -> Result<()> {
    let text = FOLDER.replace(
        "        ports: [{name: http, containerPort: 8080}]\n",
        "        ports: [{name: http, containerPort: 8080}]\n        readinessProbe: {exec: {command: [sh, -c, 'test -e /tmp/ready-$(hostname)']}, periodSeconds: 1, failureThreshold: 1}\n",
    );
    let marker = |name: &str| PathBuf::from(format!("/tmp/ready-{name}"));
    let dir = folder(&text)?;
    let playground = Playground::start(options(dir.path())?)?;
    let client = playground.client()?;
    let endpoints = || -> Result<Vec<String>> {
        let report = client.status()?;
        Ok(report.services.iter().find(|s| s.name == "b/web").context("b/web")?.endpoints.clone())
    };
    let pods = eventually(|| {
        let report = client.status()?;
        let pods: Vec<_> = report.pods.into_iter().filter(|p| p.owner == "b/web" && p.phase == "Running").collect();
        ensure!(pods.len() == 2, "{pods:?}");
        Ok(pods)
    })?;
    ensure!(endpoints()?.is_empty(), "nobody is ready: {:?}", endpoints()?);
    let checked = (|| {
        fs::write(marker(&pods[0].name), "")?;
        eventually(|| {
            let now = endpoints()?;
            ensure!(now.len() == 3 && now.iter().all(|e| e.starts_with(&pods[0].addresses[0])), "{now:?}");
            Ok(())
        })?;
        fs::remove_file(marker(&pods[0].name))?;
        eventually(|| {
            ensure!(endpoints()?.is_empty(), "not ready any more: {:?}", endpoints()?);
            Ok(())
        })
    })();
    for pod in &pods {
        let _ = fs::remove_file(marker(&pod.name));
    }
    checked
}

#[test]
fn what_is_missing_is_named_in_one_line() -> Result<()> {
    let dir = folder(FOLDER)?;
    let lonely = dir.path().join("meshctl");
    let missing = host::missing(&Options { mesh: true, meshctl: lonely, ..options(dir.path())? });
    ensure!(missing.len() == 3 && missing[0].starts_with("mesh-controller is missing next to"), "{missing:?}");
    let out = User::ours().meshctl().args(["playground", "status"]).arg(dir.path()).output()?;
    let said = String::from_utf8(out.stderr)?;
    ensure!(out.status.code() == Some(1) && said.contains("no playground of this folder is up"), "{said}");
    Ok(())
}

fn exec(client: &Client, script: &str) -> Result<String> {
    use std::{io::Read, os::fd::AsFd};
    let (mut read, write) = std::io::pipe()?;
    let null = fs::File::open("/dev/null")?;
    let argv = ["bash", "-c", script].map(str::to_owned);
    let code = client.exec("a/client", &argv, [null.as_fd(), write.as_fd(), write.as_fd()])?;
    drop(write);
    let mut text = String::new();
    read.read_to_string(&mut text)?;
    ensure!(code == 0, "{script}: {code}: {text}");
    Ok(text)
}

/// Who runs `meshctl`.
struct User {
    /// Another one than ours.
    uid: Option<u32>,
    program: PathBuf,
    /// Where a program lies that others may read: the build's folder may be closed to them.
    _open: Option<tempfile::TempDir>,
}

impl User {
    fn ours() -> Self {
        Self { uid: None, program: env!("CARGO_BIN_EXE_meshctl").into(), _open: None }
    }

    fn without_root() -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            return Ok(Self::ours());
        }
        let open = tempfile::tempdir()?;
        fs::set_permissions(open.path(), fs::Permissions::from_mode(0o755))?;
        let program = open.path().join("meshctl");
        fs::copy(env!("CARGO_BIN_EXE_meshctl"), &program)?;
        Ok(Self { uid: Some(65534), program, _open: Some(open) })
    }

    fn meshctl(&self) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(user) = self.uid {
            command.uid(user).gid(user).env_remove("XDG_RUNTIME_DIR");
        }
        command.stdin(Stdio::null());
        command
    }
}

fn up(dir: &Path, user: &User) -> Result<Child> {
    Ok(user.meshctl().args(["playground", "up", "--no-mesh"]).arg(dir).stdout(Stdio::null()).spawn()?)
}

fn ready(dir: &Path, user: &User) -> Result<()> {
    eventually(|| {
        let out = user.meshctl().args(["playground", "status", "--json"]).arg(dir).output()?;
        let report: Report = serde_json::from_slice(&out.stdout)?;
        ensure!(report.ready && !report.pods.is_empty(), "waiting for {:?}", report.waiting_for);
        Ok(())
    })
}
