//! The vocabulary of the netns rung: a mesh made of the real programs, pods to act from, load that counts its failures, captures of the wire.
//! It must not assert what a test is about; it fails only when its own means fail.

use anyhow::{Context, Result, bail, ensure};
use meshctl::playground::{
    control::Client,
    host::{self, Playground},
    report::Report,
    request::{Outcome, Request},
};
use serde_json::Value;
use std::{
    fs,
    io::{PipeReader, PipeWriter, Read, pipe},
    os::fd::AsFd,
    path::{Path, PathBuf},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Programs start within seconds; a busy machine of two cores may take longer.
const READY: Duration = Duration::from_secs(90);

/// A pod that every topology of this rung has.
const ANY_POD: &str = "outside/outsider";

/// How often [`eventually`] looks.
const LOOK: Duration = Duration::from_millis(20);

/// A program that `cargo build --workspace --bins` makes, found next to this test.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test's own path");
    let path = test.ancestors().nth(2).expect("deps/ lies in the profile's folder").join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --workspace --bins` first", path.display());
    path
}

/// Looks again and again until `look` gives something; fails with its last word after `limit`.
pub fn eventually<T>(limit: Duration, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() > end => return Err(error.context(format!("not within {limit:?}"))),
            Err(_) => std::thread::sleep(LOOK),
        }
    }
}

/// A mesh on this machine; ends with the value.
pub struct Mesh {
    folder: tempfile::TempDir,
    playground: Playground,
}

impl Mesh {
    /// Brings up the objects (YAML) and waits until all that they ask for runs.
    pub fn up(objects: &str) -> Result<Self> {
        let mesh = Self::start(objects)?;
        mesh.playground.wait_ready(READY)?;
        Ok(mesh)
    }

    /// As [`Mesh::up`], but does not wait.
    pub fn start(objects: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("mesh.yaml"), objects)?;
        let mut options = host::options(folder.path())?;
        options.meshctl = program("meshctl");
        for other in ["mesh-controller", "mesh-proxy", "mesh-cni", "mesh-load"] {
            program(other);
        }
        let missing = host::missing(&options);
        ensure!(missing.is_empty(), "this machine cannot run the netns rung: {}", missing.join("; "));
        let playground = Playground::start(options)?;
        Ok(Self { folder, playground })
    }

    /// Writes a file of the folder, as an editor does: whole, by rename.
    pub fn write(&self, file: &str, text: &str) -> Result<()> {
        let new = self.folder.path().join(format!(".{file}.new"));
        fs::write(&new, text)?;
        Ok(fs::rename(&new, self.folder.path().join(file))?)
    }

    /// Removes a file of the folder.
    pub fn remove(&self, file: &str) -> Result<()> {
        Ok(fs::remove_file(self.folder.path().join(file))?)
    }

    /// Waits until everything that the folder asks for runs.
    pub fn wait_ready(&self) -> Result<Report> {
        self.playground.wait_ready(READY)
    }

    fn client(&self) -> Result<Client> {
        self.playground.client()
    }

    /// What it tells of itself.
    pub fn report(&self) -> Result<Report> {
        self.client()?.status()
    }

    /// A pod, or one of a Deployment's, by `namespace/name`.
    pub fn pod<'a>(&'a self, name: &'a str) -> Pod<'a> {
        Pod { mesh: self, name }
    }

    /// Primary address of a pod (or of the first of a Deployment).
    pub fn address(&self, pod: &str) -> Result<String> {
        let report = self.report()?;
        let is = |p: &&meshctl::playground::report::PodReport| {
            format!("{}/{}", p.namespace, p.name) == pod || format!("{}/{}", p.namespace, p.owner) == pod
        };
        let found = report.pods.iter().find(is).with_context(|| format!("no pod {pod}"))?;
        found.addresses.first().cloned().with_context(|| format!("{pod} has no address"))
    }

    /// Orders `stop`, `start`, `kill` (SIGKILL), `pause` or `resume` a program: `controller`, `agent/n1`, `node/n1`, `gateway/ns/name`; or `replace`
    /// a proxy by a new one beside it, which is ready when this returns.
    pub fn program(&self, name: &str, order: &str) -> Result<()> {
        self.client()?.program(name, order)
    }

    /// Whether a program runs.
    pub fn runs(&self, name: &str) -> Result<bool> {
        Ok(self.client()?.programs()?.contains_key(name))
    }

    /// The end of a program's log.
    pub fn log(&self, name: &str) -> Result<String> {
        self.client()?.log(name, 4000)
    }

    /// Access log lines of all proxies.
    pub fn access_log(&self) -> Result<Vec<Value>> {
        Ok(self.client()?.access_log()?.into_iter().map(|l| l.line).collect())
    }

    /// PEM of the mesh's root certificate and key: a test may forge what an attacker with the root could.
    pub fn authority(&self) -> Result<(String, String)> {
        let state = self.playground.runtime().state().join("run/controller");
        let read = |file: &str| {
            let path = state.join(file);
            // The playground's files are in its own memory file system; a pod of it sees them.
            let (code, out, err) = self.pod(ANY_POD).run(&["cat", &path.to_string_lossy()])?;
            ensure!(code == 0, "{}: {err}", path.display());
            Ok(out)
        };
        Ok((read("ca.crt")?, read("ca.key")?))
    }

    /// Makes a node's proxy, which must not run, forget all pods: what it is on a node to which the mesh has just come.
    pub fn forget_pods(&self, node: &str) -> Result<()> {
        let registry = self.playground.runtime().state().join(format!("proxy/node_{node}/pods"));
        let (code, _, err) = self.pod(ANY_POD).run(&["rm", "-r", &registry.to_string_lossy()])?;
        ensure!(code == 0, "{}: {err}", registry.display());
        Ok(())
    }

    /// The status that the controller gives an object.
    pub fn status(&self, kind: &str, namespace: &str, name: &str) -> Result<Value> {
        let report = self.report()?;
        let is = |o: &&Value| {
            o["kind"] == kind && o["namespace"].as_str().unwrap_or_default() == namespace && o["name"] == name
        };
        report
            .objects
            .iter()
            .find(is)
            .map(|o| o["status"].clone())
            .with_context(|| format!("{kind} {namespace}/{name} has no status"))
    }
}

/// A pod to act from.
#[derive(Clone, Copy)]
pub struct Pod<'a> {
    mesh: &'a Mesh,
    name: &'a str,
}

impl Pod<'_> {
    /// Sends `count` requests; the URL's scheme says the protocol (`http`, `h2c`, `grpc`, `ws`, `tcp`, …).
    pub fn requests(&self, url: &str, count: u32) -> Result<Vec<Outcome>> {
        let mut request = Request::get(url)?;
        request.count = count;
        self.mesh.client()?.request(self.name, request)
    }

    /// Sends one request.
    pub fn request(&self, url: &str) -> Result<Outcome> {
        self.send(Request::get(url)?)
    }

    /// Sends a request of one's own making.
    pub fn send(&self, request: Request) -> Result<Outcome> {
        self.mesh.client()?.request(self.name, request)?.pop().context("no outcome")
    }

    /// Runs a command to its end: exit code, stdout, stderr.
    pub fn run(&self, argv: &[&str]) -> Result<(i32, String, String)> {
        let running = self.spawn(argv)?;
        drop(running.stdin);
        let code = running.exit.join().map_err(|_| anyhow::anyhow!("the thread of {argv:?} panicked"))??;
        let read = |t: JoinHandle<String>| t.join().map_err(|_| anyhow::anyhow!("a reader panicked"));
        Ok((code, read(running.stdout)?, read(running.stderr)?))
    }

    /// Starts `mesh-load` with these arguments; it ends by itself or with [`Load::end`].
    pub fn load(&self, args: &[&str]) -> Result<Load> {
        let path = program("mesh-load");
        let path = path.to_str().context("path of mesh-load")?;
        Ok(Load(self.spawn(&[&[path], args].concat())?))
    }

    fn spawn(&self, argv: &[&str]) -> Result<Running> {
        let client = self.mesh.client()?;
        let (stdin_read, stdin) = pipe()?;
        let (stdout_read, stdout) = pipe()?;
        let (stderr_read, stderr) = pipe()?;
        let (pod, argv) = (self.name.to_owned(), argv.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>());
        let exit =
            std::thread::spawn(move || client.exec(&pod, &argv, [stdin_read.as_fd(), stdout.as_fd(), stderr.as_fd()]));
        Ok(Running { stdin, stdout: reader(stdout_read), stderr: reader(stderr_read), exit })
    }

    /// Captures what crosses the pod's interface until the capture is ended.
    pub fn capture(&self) -> Result<Capture> {
        let file = tempfile::NamedTempFile::new()?;
        let path = file.path().to_str().context("path of the capture")?.to_owned();
        let running =
            self.spawn(&["tcpdump", "-i", "eth0", "-U", "--immediate-mode", "-Z", "root", "-w", &path, "-s", "0"])?;
        // The file header is written when the socket is open.
        eventually(Duration::from_secs(10), || {
            ensure!(fs::metadata(&path)?.len() > 0, "tcpdump does not capture");
            Ok(())
        })?;
        Ok(Capture { file, running })
    }
}

struct Running {
    stdin: PipeWriter,
    stdout: JoinHandle<String>,
    stderr: JoinHandle<String>,
    exit: JoinHandle<Result<i32>>,
}

fn reader(mut from: PipeReader) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is what there is.
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Load that runs.
pub struct Load(Running);

impl Load {
    /// Ends it and reads its report.
    pub fn end(self) -> Result<Value> {
        drop(self.0.stdin);
        let code = self.0.exit.join().map_err(|_| anyhow::anyhow!("the thread of mesh-load panicked"))??;
        let out = self.0.stdout.join().map_err(|_| anyhow::anyhow!("a reader panicked"))?;
        let err = self.0.stderr.join().map_err(|_| anyhow::anyhow!("a reader panicked"))?;
        if code != 0 {
            bail!("mesh-load ended with {code}: {err}");
        }
        serde_json::from_str(&out).with_context(|| format!("report of mesh-load: {out:?} {err}"))
    }
}

/// A capture that runs.
pub struct Capture {
    file: tempfile::NamedTempFile,
    running: Running,
}

impl Capture {
    /// The raw packets so far (the file is flushed by packet).
    pub fn bytes(&self) -> Result<Vec<u8>> {
        Ok(fs::read(self.file.path())?)
    }

    /// Where the packets are.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// How many packets match a filter of tcpdump.
    pub fn count(&self, filter: &str) -> Result<usize> {
        let out = std::process::Command::new("tcpdump").arg("-nr").arg(self.file.path()).arg(filter).output()?;
        ensure!(out.status.success(), "tcpdump -r: {}", String::from_utf8_lossy(&out.stderr));
        Ok(out.stdout.iter().filter(|b| **b == b'\n').count())
    }

    /// Whether a text is in it.
    pub fn contains(&self, text: &str) -> Result<bool> {
        let bytes = self.bytes()?;
        Ok(bytes.windows(text.len()).any(|w| w == text.as_bytes()))
    }

    /// Whether the process still captures.
    pub fn is_running(&self) -> bool {
        !self.running.exit.is_finished()
    }
}
