//! YAML and JSON texts as documents: where each begins, what it says, and on which line each field stands. It must not know kinds.

use crate::{inventory::Kind, source::ObjectKey};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::{Spanned, options::DuplicateKeyPolicy};
use std::fmt;

/// One document of a text.
#[derive(Debug, PartialEq)]
pub(super) struct Document<'a> {
    /// Line of the text on which it begins, from 1.
    pub(super) line: u64,
    /// Its text, without the marker before it.
    pub(super) text: &'a str,
}

/// Why a document is none.
#[derive(Debug, PartialEq)]
pub(super) struct Syntax {
    /// Line within the document, from 1.
    pub(super) line: u64,
    /// What is wrong.
    pub(super) reason: String,
}

/// Splits at the lines that begin with `---` (YAML 1.2 §9.1.2: such a line ends a document wherever it stands), so that one broken
/// document does not spoil the next.
pub(super) fn documents(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut first_line, mut offset) = (0, 1, 0);
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        if let Some(rest) =
            line.strip_prefix("---").filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\n', '\r']))
        {
            documents.push(Document { line: first_line, text: &text[start..offset] });
            // What follows the marker on its line belongs to the document.
            start = offset + (line.len() - rest.len());
            first_line = number;
        }
        offset += line.len();
    }
    documents.push(Document { line: first_line, text: &text[start..] });
    documents.retain(|d| !says_nothing(d.text));
    documents
}

/// Whether there is nothing but space, comments and end markers.
pub(super) fn says_nothing(text: &str) -> bool {
    text.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with('#') || line == "...")
}

/// What a document says.
pub(super) fn parse(text: &str) -> Result<Value, Syntax> {
    serde_saphyr::from_str_with_options(text, options()).map_err(|e| syntax(&e))
}

/// Which object a document that cannot be parsed means, from the lines that would name it in the usual layout.
pub(super) fn guess(text: &str) -> Option<ObjectKey> {
    let value = |line: &str, key: &str| {
        let rest = line.strip_prefix(key)?.strip_prefix(':')?;
        let word = rest.split(" #").next()?.trim().trim_matches(['"', '\'']);
        (!word.is_empty()).then(|| word.to_owned())
    };
    let top = |key: &str| text.lines().find_map(|line| value(line, key));
    let metadata: Vec<&str> =
        text.lines().skip_while(|l| !l.starts_with("metadata:")).skip(1).take_while(|l| l.starts_with(' ')).collect();
    // Fields of the metadata itself stand at the first one's depth; deeper ones are labels and the like.
    let depth = metadata.first().map(|l| l.len() - l.trim_start().len())?;
    let field = |key: &str| {
        let at_depth = |l: &&&str| l.len() - l.trim_start().len() == depth;
        metadata.iter().filter(at_depth).find_map(|line| value(line.trim_start(), key))
    };
    let (api_version, kind, name) = (top("apiVersion")?, top("kind")?, field("name")?);
    let known = Kind::of(&api_version, &kind)?;
    let namespace = field("namespace").unwrap_or_else(|| "default".into());
    Some(ObjectKey {
        group: known.group().into(),
        kind: kind.into(),
        namespace: if known.namespaced() { namespace.into() } else { "".into() },
        name: name.into(),
    })
}

/// The line within a document on which a field (such as `spec.rules[0].name`) stands; of a missing one, the line of what should hold it.
pub(super) fn line_of(text: &str, field: &str) -> u64 {
    let Ok(root) = serde_saphyr::from_str_with_options::<Spanned<Node>>(text, options()) else { return 1 };
    let (mut node, mut line) = (&root.value, root.referenced.line());
    for step in field.split(['.', '[']) {
        let found = match node {
            Node::Map(entries) => {
                entries.iter().find(|(key, _)| key.value == step).map(|(k, v)| (k.referenced.line(), v))
            }
            Node::List(items) => step
                .strip_suffix(']')
                .and_then(|i| i.parse::<usize>().ok())
                .and_then(|i| items.get(i))
                .map(|item| (item.referenced.line(), item)),
            Node::Leaf => None,
        };
        let Some((at, value)) = found else { break };
        (node, line) = (&value.value, at);
    }
    line
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        // Of two equal keys one would be lost in silence.
        duplicate_keys: DuplicateKeyPolicy::Error,
        // YAML 1.2: `n`, `no` and `off` are names and values of users, not booleans.
        strict_booleans: true,
        with_snippet: false,
    }
}

fn syntax(error: &serde_saphyr::Error) -> Syntax {
    let text = error.without_snippet().to_string();
    // The place is said in front; the crate says it again at the end.
    let reason = text.split(" at line ").next().unwrap_or(&text).lines().next().unwrap_or_default().trim();
    Syntax { line: error.location().map_or(1, |l| l.line().max(1)), reason: format!("is not YAML: {reason}") }
}

/// The shape of a document with its lines. Read only when something is wrong with a document.
enum Node {
    Leaf,
    List(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = Node;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any YAML")
            }
            fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
                Ok(Node::Leaf)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
                Ok(Node::Leaf)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
                Ok(Node::Leaf)
            }
            fn visit_i128<E>(self, _: i128) -> Result<Node, E> {
                Ok(Node::Leaf)
            }
            fn visit_u128<E>(self, _: u128) -> Result<Node, E> {
                Ok(Node::Leaf)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
                Ok(Node::Leaf)
            }
            fn visit_str<E>(self, _: &str) -> Result<Node, E> {
                Ok(Node::Leaf)
            }
            fn visit_bytes<E>(self, _: &[u8]) -> Result<Node, E> {
                Ok(Node::Leaf)
            }
            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Leaf)
            }
            fn visit_none<E>(self) -> Result<Node, E> {
                Ok(Node::Leaf)
            }
            fn visit_some<D: Deserializer<'de>>(self, input: D) -> Result<Node, D::Error> {
                Node::deserialize(input)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Node::List(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Node::Map(entries))
            }
        }
        input.deserialize_any(Shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_split_where_yaml_splits_them() {
        let text =
            "# only a comment\n---\na: 1\n---   # c\nb: |\n  --- not a marker\n---\n---\n...\n--- {c: 3}\n----: no\n";
        let found: Vec<(u64, &str)> = documents(text).iter().map(|d| (d.line, d.text)).collect();
        assert_eq!(found, [(2, "\na: 1\n"), (4, "   # c\nb: |\n  --- not a marker\n"), (10, " {c: 3}\n----: no\n")]);
        assert!(documents("").is_empty() && documents("\n# x\n---\n").is_empty());
        assert_eq!(documents("a: 1").len(), 1);
        assert_eq!(documents("---").len(), 0);
    }

    #[test]
    fn a_field_is_found_by_its_path_and_a_missing_one_by_its_holder() {
        let text = "\nkind: X\nspec:\n  rules:\n  - name: a\n  - name: b\n    matches:\n      - path: {type: Exact,\n          value: x}\n";
        for (field, line) in [
            ("kind", 2),
            ("spec", 3),
            ("spec.rules[0].name", 5),
            ("spec.rules[1]", 6),
            ("spec.rules[1].matches[0].path.value", 9),
            ("spec.rules[1].matches[0].path.nothing", 8),
            ("spec.rules[9].name", 4),
            ("nothing.at.all", 2),
        ] {
            assert_eq!(line_of(text, field), line, "{field}");
        }
    }

    #[test]
    fn json_is_yaml_too() {
        assert_eq!(parse("{\"a\": [1, true, null, \"x\"]}").unwrap(), serde_json::json!({"a": [1, true, null, "x"]}));
        assert_eq!(line_of("{\n  \"a\": [\n    1\n  ]\n}", "a[0]"), 3);
    }

    #[test]
    fn arbitrary_texts_never_panic() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            for document in documents(&text) {
                let _ = parse(document.text);
                line_of(document.text, "spec.rules[0].name");
            }
        });
    }
}
