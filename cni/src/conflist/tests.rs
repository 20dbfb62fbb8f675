//! Every state in which a folder of network configurations may be found, and what comes of it.

use super::*;
use serde_json::json;

fn entry() -> Map<String, Value> {
    json!({"type": "mesh-cni", "socket": "/run/cni.sock"}).as_object().unwrap().clone()
}

const OURS: &str = r#"{"socket":"/run/cni.sock","type":"mesh-cni"}"#;

fn files(files: &[(&str, &str)]) -> Vec<File> {
    files.iter().map(|(name, text)| File { name: (*name).into(), content: text.as_bytes().into() }).collect()
}

/// What the folder holds after the changes.
fn after(files: &[File], changes: &[Change]) -> Vec<File> {
    let mut folder = files.to_vec();
    for change in changes {
        match change {
            Change::Write { name, like, text } => {
                assert!(folder.iter().any(|f| f.name == *like), "no {like} to take the mode from");
                folder.retain(|f| f.name != *name);
                folder.push(File { name: name.clone(), content: text.clone().into_bytes() });
            }
            Change::Rename { from, to } => {
                let mut file = folder.iter().find(|f| f.name == *from).expect("it is there").clone();
                folder.retain(|f| f.name != *from && f.name != *to);
                file.name.clone_from(to);
                folder.push(file);
            }
            Change::Remove { name } => folder.retain(|f| f.name != *name),
        }
        assert!(!taken(&folder).is_empty(), "a moment without any configuration after {change:?}");
    }
    folder.sort_by(|a, b| a.name.cmp(&b.name));
    folder
}

fn text<'a>(folder: &'a [File], name: &str) -> &'a str {
    let file = folder.iter().find(|f| f.name == name).unwrap_or_else(|| panic!("no {name}"));
    std::str::from_utf8(&file.content).unwrap()
}

fn installed(folder: &[File]) -> Vec<File> {
    match install(folder, &entry()).unwrap() {
        Decision::Change(changes) => after(folder, &changes),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_entry_becomes_the_last_and_every_other_byte_stays() {
    let cases = [
        (
            r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"a"}]}"#,
            format!(r#"{{"cniVersion":"1.0.0","name":"n","plugins":[{{"type":"a"}},{OURS}]}}"#),
        ),
        // As people write it: odd spaces, an escape, brackets in strings, a key of the same name deeper down.
        (
            "{ \"name\": \"n\\\"]\", \"cniVersion\": \"0.3.1\",\n  \"x\": {\"plugins\": [1]},\n  \"plugins\": [\n    {\n      \"type\": \"a\", \"b\": [\"]}\"]\n    },\n    { \"type\": \"b\" }\n  ]\n}\n",
            format!(
                "{{ \"name\": \"n\\\"]\", \"cniVersion\": \"0.3.1\",\n  \"x\": {{\"plugins\": [1]}},\n  \"plugins\": [\n    {{\n      \"type\": \"a\", \"b\": [\"]}}\"]\n    }},\n    {{ \"type\": \"b\" }},\n    {OURS}\n  ]\n}}\n"
            ),
        ),
    ];
    for (before, expected) in cases {
        let folder = files(&[("10-net.conflist", before)]);
        let done = installed(&folder);
        assert_eq!(text(&done, "10-net.conflist"), expected);
        assert_eq!(install(&done, &entry()), Ok(Decision::Nothing));
        assert_eq!(after(&done, &uninstall(&done)), folder, "and back");
    }
}

#[test]
fn an_entry_that_is_outdated_doubled_or_not_last_is_put_right() {
    let wrong = [
        r#"[{"type":"a"},{"type":"mesh-cni","socket":"/old"}]"#.to_owned(),
        format!(r#"[{{"type":"a"}},{OURS},{OURS}]"#),
        format!(r#"[{OURS},{{"type":"a"}}]"#),
        format!(r#"[{{"type":"mesh-cni"}},{{"type":"a"}},{OURS}]"#),
        r#"[{"type":"a"}]"#.to_owned(),
    ];
    let list = |plugins: &str| format!(r#"{{"cniVersion":"1.1.0","name":"n","plugins":{plugins}}}"#);
    for plugins in wrong {
        let done = installed(&files(&[("a.conflist", &list(&plugins))]));
        assert_eq!(text(&done, "a.conflist"), list(&format!(r#"[{{"type":"a"}},{OURS}]"#)), "from {plugins}");
    }
}

#[test]
fn the_first_file_in_the_order_of_runtimes_is_ours_and_no_other() {
    let plain = r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"a"}]}"#;
    let with = format!(r#"{{"cniVersion":"1.0.0","name":"n","plugins":[{{"type":"a"}},{OURS}]}}"#);
    // Capitals before small letters, 10 before 9: bytes, not numbers. Other endings are nobody's.
    let folder =
        files(&[("9-b.conflist", &with), ("10-a.conflist", plain), ("00-x.conflist.bak", plain), ("a.yaml", "")]);
    let done = installed(&folder);
    assert_eq!((text(&done, "10-a.conflist"), text(&done, "9-b.conflist")), (&*with, plain));
    assert_eq!(install(&done, &entry()), Ok(Decision::Nothing));
    // A file that is not the first may be as broken as it likes.
    let folder = files(&[("a.conflist", &with), ("b.conflist", "{"), ("c.conf", "")]);
    assert_eq!(install(&folder, &entry()), Ok(Decision::Nothing));
}

#[test]
fn a_single_plugin_becomes_a_chain_and_is_put_back_at_the_end() {
    for name in ["10-net.conf", "10-net.json"] {
        let single = "{\n  \"cniVersion\": \"0.4.0\", \"name\": \"n\",\n  \"type\": \"bridge\" }\n";
        let folder = files(&[(name, single)]);
        let done = installed(&folder);
        let chain: Value = serde_json::from_str(text(&done, "10-net.conflist")).unwrap();
        assert_eq!((&chain["cniVersion"], &chain["name"]), (&json!("0.4.0"), &json!("n")));
        assert_eq!(chain["plugins"], json!([serde_json::from_str::<Value>(single).unwrap(), entry()]));
        assert!(text(&done, "10-net.conflist").contains(single.trim()), "as it was written");
        assert_eq!(taken(&done).len(), 1, "the single plugin is out of the runtimes' sight: {done:?}");
        assert_eq!(install(&done, &entry()), Ok(Decision::Nothing));
        assert_eq!(after(&done, &uninstall(&done)), folder, "and back");

        // Its writer writes it again: the newest is what the chain is made of.
        let mut rewritten = done.clone();
        rewritten.extend(files(&[(name, &single.replace("bridge", "ptp"))]));
        let again = installed(&rewritten);
        assert!(text(&again, "10-net.conflist").contains("ptp"));
        assert_eq!(taken(&again).len(), 1);
    }
}

#[test]
fn an_empty_folder_is_waited_for() {
    assert_eq!(install(&[], &entry()), Ok(Decision::Wait));
    assert_eq!(install(&files(&[("README", ""), ("x.conflist.heddle-new", "")]), &entry()), Ok(Decision::Wait));
}

#[test]
fn a_file_that_cannot_take_the_entry_is_named_with_its_field() {
    let list = |plugins: &str| format!(r#"{{"cniVersion":"1.0.0","name":"n","plugins":{plugins}}}"#);
    let cases = [
        (
            "a.conflist",
            String::new(),
            "a.conflist: (the file): is not JSON: EOF while parsing a value at line 1 column 0",
        ),
        (
            "a.conflist",
            "{\"name\"".into(),
            "a.conflist: (the file): is not JSON: EOF while parsing an object at line 1 column 7",
        ),
        ("a.conflist", "[]".into(), "a.conflist: (the file): is not a JSON object"),
        ("a.conflist", r#"{"cniVersion":"1.0.0"}"#.into(), "a.conflist: name: is missing"),
        ("a.conflist", r#"{"name":"n"}"#.into(), "a.conflist: cniVersion: is missing"),
        (
            "a.conflist",
            r#"{"name":"n","cniVersion":"0.2.0"}"#.into(),
            "a.conflist: cniVersion: is 0.2.0; mesh-cni speaks 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0",
        ),
        ("a.conflist", r#"{"name":"n","cniVersion":"1.0.0"}"#.into(), "a.conflist: plugins: is missing"),
        ("a.conflist", list("{}"), "a.conflist: plugins: is not a list"),
        ("a.conflist", list("[]"), "a.conflist: plugins: is empty"),
        ("a.conflist", list(r#"[{"type":"a"},{}]"#), "a.conflist: plugins[1].type: is missing"),
        ("a.conflist", list(&format!("[{OURS}]")), "a.conflist: plugins: nobody in it makes an interface"),
        ("a.conf", list("[]"), "a.conf: plugins: a chain must be in a file that ends in .conflist"),
        (
            "a.json",
            r#"{"cniVersion":"1.0.0","name":"n"}"#.into(),
            "a.json: type: must name the plugin that makes the interface",
        ),
    ];
    for (name, text, said) in cases {
        let fault =
            install(&files(&[(name, &text), ("b.conflist", &list(r#"[{"type":"a"}]"#))]), &entry()).unwrap_err();
        assert_eq!(fault.to_string(), said);
        assert_eq!(uninstall(&files(&[(name, &text)])).len(), usize::from(text.contains("mesh-cni")), "{text}");
    }
    let folder = files(&[
        ("a.conf", r#"{"cniVersion":"1.0.0","name":"n","type":"b"}"#),
        ("a.conflist", &list(r#"[{"type":"a"}]"#)),
    ]);
    let fault = install(&folder, &entry()).unwrap_err();
    assert_eq!(fault.to_string(), "a.conflist: (the file): is in the way: a.conf must become a chain of this name");
}

#[test]
fn uninstall_leaves_what_others_made_of_it() {
    // Somebody added a plugin to the chain that stands in for a single one.
    let chain = format!(r#"{{"cniVersion":"1.0.0","name":"n","plugins":[{{"type":"a"}},{{"type":"tuning"}},{OURS}]}}"#);
    let folder =
        files(&[("a.conf.heddle-aside", r#"{"cniVersion":"1.0.0","name":"n","type":"a"}"#), ("a.conflist", &chain)]);
    let done = after(&folder, &uninstall(&folder));
    assert_eq!(done, files(&[("a.conflist", &chain.replace(&format!(",{OURS}"), ""))]));
    assert_eq!(uninstall(&done), []);
}
