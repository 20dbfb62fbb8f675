//! The agent as a program, on folders of a node: in place, repaired, undone. It must not need privileges.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// "Notices when another writer rewrites it, repairs": within a second, and a busy machine's slack.
const REPAIRED: Duration = Duration::from_secs(10);

const PLAIN: &str = r#"{ "cniVersion": "0.3.1", "name": "net", "plugins": [ {"type": "bridge"} ] }"#;

/// A node's folders, and the agent once it is started.
struct Node {
    dir: tempfile::TempDir,
    agent: Option<Child>,
}

impl Node {
    fn new() -> Self {
        let node = Self { dir: tempfile::tempdir().unwrap(), agent: None };
        fs::create_dir(node.at("bin")).unwrap();
        fs::create_dir(node.at("net.d")).unwrap();
        node
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn command(&self, word: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-cni"));
        command.arg(word).arg("--bin-dir").arg(self.at("bin")).arg("--conf-dir").arg(self.at("net.d"));
        command.stderr(Stdio::null());
        command
    }

    fn start(&mut self) {
        self.agent = Some(self.command("agent").spawn().unwrap());
    }

    fn stop(&mut self) {
        let mut agent = self.agent.take().unwrap();
        Command::new("kill").args(["-TERM", &agent.id().to_string()]).status().unwrap();
        assert!(agent.wait().unwrap().success(), "SIGTERM is a clean end");
    }

    fn is_in_place(&self) -> bool {
        self.command("status").status().unwrap().success()
    }

    /// Types of the plugins of a chain.
    fn chain(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.at("net.d").join(file)).unwrap_or_default();
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        let types = value["plugins"].as_array().into_iter().flatten();
        types.filter_map(|p| p["type"].as_str().map(str::to_owned)).collect()
    }

    fn becomes(&self, what: &str, is: impl Fn() -> bool) {
        let end = Instant::now() + REPAIRED;
        while !is() {
            assert!(Instant::now() < end, "not within {REPAIRED:?}: {what}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }
}

fn rename_over(path: &Path, text: &str) {
    let half = path.with_extension("half");
    fs::write(&half, text).unwrap();
    fs::rename(half, path).unwrap();
}

#[test]
fn the_agent_takes_its_place_defends_it_and_leaves_it_as_it_was() {
    let mut node = Node::new();
    let file = node.at("net.d/10-net.conflist");
    node.start();
    // Nothing is configured yet; the binary is there before any entry can be.
    node.becomes("the binary", || node.at("bin/mesh-cni").exists());
    assert!(!node.is_in_place());
    fs::write(&file, PLAIN).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let in_place = |node: &Node| node.chain("10-net.conflist") == ["bridge", "mesh-cni"];
    node.becomes("the entry", || in_place(&node));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
    let entry: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(
        entry["plugins"][1],
        json!({"type": "mesh-cni", "socket": "/var/run/heddle/cni.sock", "timeoutSeconds": 10,
               "excludeNamespaces": ["kube-system", "heddle-system"]})
    );
    node.becomes("the agent's own word", || node.is_in_place());

    // Others write it again, in place and by rename; put something behind it; or remove the binary.
    fs::write(&file, PLAIN).unwrap();
    node.becomes("the entry after a write", || in_place(&node));
    rename_over(&file, PLAIN);
    node.becomes("the entry after a rename", || in_place(&node));
    let text = fs::read_to_string(&file).unwrap();
    rename_over(&file, &text.replace(" ] }", r#", {"type": "tuning"} ] }"#));
    node.becomes("the last place", || node.chain("10-net.conflist") == ["bridge", "tuning", "mesh-cni"]);
    fs::remove_file(node.at("bin/mesh-cni")).unwrap();
    node.becomes("the binary again", || node.is_in_place());
    // A new first file.
    rename_over(&node.at("net.d/05-other.conflist"), PLAIN);
    node.becomes("the entry in the new first", || node.chain("05-other.conflist") == ["bridge", "mesh-cni"]);
    node.becomes("and in no other", || node.chain("10-net.conflist") == ["bridge", "tuning"]);
    fs::remove_file(node.at("net.d/05-other.conflist")).unwrap();
    rename_over(&file, PLAIN);
    node.becomes("the entry in the old first", || in_place(&node));

    node.stop();
    assert!(node.is_in_place(), "an agent that ends leaves all as it is");
    assert!(node.command("uninstall").status().unwrap().success());
    assert_eq!(fs::read_to_string(&file).unwrap(), PLAIN);
    assert!(!node.at("bin/mesh-cni").exists());
    assert_eq!(fs::read_dir(node.at("net.d")).unwrap().count(), 1);
    assert!(node.command("uninstall").status().unwrap().success(), "again is harmless");
}

/// A writer that writes again just when the agent, woken by its first word, writes too: the last word is the writer's.
#[test]
fn what_another_writes_meanwhile_is_not_lost() {
    let mut node = Node::new();
    let file = node.at("net.d/10-net.conflist");
    node.start();
    for round in 0..50_u64 {
        rename_over(&file, PLAIN);
        // The agent lets writers settle for 20 ms.
        thread::sleep(Duration::from_micros(18_000 + round * 200));
        let last = format!("last{round}");
        rename_over(&file, &PLAIN.replace(r#""net""#, &format!(r#""{last}""#)));
        // For a moment what the agent made of the first word may be there; the last word comes back.
        node.becomes(&format!("{last} and the entry"), || {
            let text = fs::read_to_string(&file).unwrap();
            text.contains(&last) && node.chain("10-net.conflist") == ["bridge", "mesh-cni"]
        });
    }
}

#[test]
fn a_reader_never_sees_half_a_configuration() {
    let mut node = Node::new();
    let file = node.at("net.d/10-net.conflist");
    fs::write(&file, PLAIN).unwrap();
    node.start();
    let end = Instant::now() + Duration::from_secs(2);
    let mut seen = 0;
    while Instant::now() < end {
        // Only whole files are written, by us and by the test.
        rename_over(&file, PLAIN);
        for _ in 0..200 {
            let text = fs::read_to_string(&file).unwrap();
            let value: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text:?}"));
            seen += usize::from(value["plugins"].as_array().unwrap().len() == 2);
        }
    }
    assert!(seen > 0, "the agent never wrote");
}

#[test]
fn a_binary_of_another_version_is_replaced_as_a_whole() {
    let mut node = Node::new();
    let binary = node.at("bin/mesh-cni");
    fs::write(&binary, "#!/bin/sh\n").unwrap();
    let old = fs::File::open(&binary).unwrap();
    node.start();
    let ours = fs::read(env!("CARGO_BIN_EXE_mesh-cni")).unwrap();
    node.becomes("the binary", || fs::read(&binary).is_ok_and(|b| b == ours));
    assert_eq!(fs::metadata(&binary).unwrap().permissions().mode() & 0o777, 0o755);
    // Who runs the old one goes on with it.
    assert_eq!(std::io::read_to_string(old).unwrap(), "#!/bin/sh\n");
}
