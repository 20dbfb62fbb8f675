//! Real files in a real folder: a save of any editor is live soon, and nothing flaps.

use super::*;
use crate::source::Change;
use std::{
    fs::{self, File},
    io::Write,
    sync::mpsc,
    thread,
};

/// How a program saves, and what it does.
type Save<'a> = (&'a str, &'a dyn Fn(&str));

/// A watched folder whose batches come over a channel.
struct Bench {
    dir: tempfile::TempDir,
    batches: mpsc::Receiver<Batch>,
    stop: Stop,
    thread: Option<thread::JoinHandle<()>>,
}

impl Bench {
    fn new(files: &[(&str, &str)]) -> (Self, Batch) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let (mut folders, first) = Folders::open(&[dir.path().to_path_buf()]).unwrap();
        let stop = folders.stopper();
        let (send, batches) = mpsc::channel();
        let thread = thread::spawn(move || {
            while let Some(batch) = folders.wait() {
                if send.send(batch).is_err() {
                    return;
                }
            }
        });
        (Self { dir, batches, stop, thread: Some(thread) }, first)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What the next batch with changes says, and when it came.
    fn changes(&self) -> (Vec<String>, Instant) {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let batch =
                self.batches.recv_timeout(end.saturating_duration_since(Instant::now())).expect("a change in time");
            if !batch.changes.is_empty() {
                return (words(&batch), Instant::now());
            }
        }
    }

    /// Nothing changed up to now: a change made now is the next that is heard of.
    fn assert_quiet(&self, marker: &str) {
        fs::write(self.path(&format!("{marker}.yaml")), namespace(marker)).unwrap();
        assert_eq!(self.changes().0, [format!("+Namespace {marker}")]);
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.stop();
        self.thread.take().unwrap().join().unwrap();
    }
}

fn words(batch: &Batch) -> Vec<String> {
    let word = |change: &Change| match change {
        Change::Upsert(key, _) | Change::Read(key, _) => format!("+{key}"),
        Change::Remove(key) => format!("-{key}"),
    };
    batch.changes.iter().map(word).collect()
}

fn namespace(name: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n")
}

fn labelled(name: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{v: \"{value}\"}}}}\n")
}

#[test]
fn every_way_of_saving_is_live_within_the_promise() {
    let (bench, first) = Bench::new(&[("a.yaml", &namespace("a"))]);
    assert_eq!(words(&first), ["+Namespace a"]);
    let path = bench.path("a.yaml");
    let in_place = |text: &str| fs::write(&path, text).unwrap();
    let by_rename = |text: &str| {
        fs::write(bench.path(".a.yaml.swp"), text).unwrap();
        fs::rename(bench.path(".a.yaml.swp"), &path).unwrap();
    };
    let backup_first = |text: &str| {
        fs::rename(&path, bench.path("a.yaml~")).unwrap();
        fs::write(&path, text).unwrap();
    };
    let slowly = |text: &str| {
        let mut file = File::create(&path).unwrap();
        for byte in text.bytes() {
            file.write_all(&[byte]).unwrap();
        }
    };
    let saves: [Save<'_>; 4] =
        [("in place", &in_place), ("rename", &by_rename), ("backup", &backup_first), ("byte by byte", &slowly)];
    for (i, (how, save)) in saves.iter().enumerate() {
        save(&labelled("a", &i.to_string()));
        let saved = Instant::now();
        let (words, at) = bench.changes();
        assert_eq!(words, ["+Namespace a"], "{how}");
        assert!(at.saturating_duration_since(saved) < Duration::from_millis(100), "{how}: {:?}", at - saved);
    }
    bench.assert_quiet("end");
}

#[test]
fn an_emptied_and_refilled_file_does_not_flap() {
    let (bench, _) = Bench::new(&[("a.yaml", &namespace("a"))]);
    File::create(bench.path("a.yaml")).unwrap();
    bench.assert_quiet("m1");
    fs::write(bench.path("a.yaml"), namespace("a")).unwrap();
    bench.assert_quiet("m2");
}

#[test]
fn folders_come_and_go_with_their_files() {
    let (bench, _) = Bench::new(&[]);
    fs::create_dir_all(bench.path("x/y")).unwrap();
    fs::write(bench.path("x/y/a.json"), "{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\"metadata\":{\"name\":\"a\"}}")
        .unwrap();
    assert_eq!(bench.changes().0, ["+Namespace a"]);
    fs::rename(bench.path("x"), bench.path("z")).unwrap();
    bench.assert_quiet("moved");
    fs::remove_dir_all(bench.path("z")).unwrap();
    assert_eq!(bench.changes().0, ["-Namespace a"]);
}

#[test]
fn hidden_files_and_other_endings_say_nothing() {
    let (bench, first) =
        Bench::new(&[(".a.yaml", &namespace("a")), ("b.txt", &namespace("b")), ("c.yml", &namespace("c"))]);
    assert_eq!(words(&first), ["+Namespace c"]);
    fs::write(bench.path("d.yaml~"), namespace("d")).unwrap();
    bench.assert_quiet("end");
}

#[test]
fn a_volume_that_swaps_its_data_link_is_read_anew() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for (version, value) in [("..v1", "1"), ("..v2", "2")] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("a.yaml"), labelled("a", value)).unwrap();
    }
    std::os::unix::fs::symlink("..v1", at("..data")).unwrap();
    std::os::unix::fs::symlink("..data/a.yaml", at("a.yaml")).unwrap();
    let (mut folders, first) = Folders::open(&[dir.path().to_path_buf()]).unwrap();
    assert_eq!(words(&first), ["+Namespace a"]);
    std::os::unix::fs::symlink("..v2", at("..data_tmp")).unwrap();
    fs::rename(at("..data_tmp"), at("..data")).unwrap();
    let mut seen = Vec::new();
    while seen.is_empty() {
        seen = words(&folders.wait().unwrap());
    }
    assert_eq!(seen, ["+Namespace a"]);
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let error = Folders::open(&[PathBuf::from("/does/not/exist")]).err().unwrap();
    assert_eq!(error.to_string(), "folder /does/not/exist: cannot be read");
}
