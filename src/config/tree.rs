//! The YAML as a tree in which every key and value knows its position.
//!
//! Typed deserialisation stops at the first mistake; walking a tree finds them all.

use super::diagnostic::{Diagnostic, Path, Position};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Spanned, budget::BudgetBreach, options::DuplicateKeyPolicy};
use std::fmt;

/// The largest file that is read, bytes.
pub(super) const FILE_BYTES_MAX: usize = 1 << 20;
/// Levels of a file.
const DEPTH_MAX: usize = 32;
/// Keys and values of a file.
const NODES_MAX: usize = 50_000;
/// A real file shares a block a few times; an alias bomb multiplies it.
const ALIAS_EVENTS_MAX: usize = 20_000;

/// The limit that a file exceeds.
fn over_budget(breach: &BudgetBreach) -> String {
    match breach {
        BudgetBreach::Documents { .. } => "it has more than one document: `---` begins another".to_owned(),
        BudgetBreach::Depth { .. } => format!("values are nested deeper than {DEPTH_MAX} levels"),
        BudgetBreach::Nodes { .. } => format!("it has more than {NODES_MAX} values"),
        _ => "it is longer, or repeats more by aliases, than a configuration may".to_owned(),
    }
}

/// A value with its position.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) position: Position,
    pub(super) value: Value,
}

/// The value of a node.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Scalar(Scalar),
    List(Vec<Node>),
    /// In the order of the file; keys may repeat until [`super::check`] has refused that.
    Map(Vec<(Key, Node)>),
}

/// Text or a number, kept as text.
#[derive(Clone, Debug)]
pub(super) struct Scalar {
    /// After substitution of environment variables.
    pub(super) text: String,
    /// As written in the file: messages show this, so that no secret reaches a log.
    pub(super) written: String,
}

/// A key with its position.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) position: Position,
    pub(super) name: String,
}

impl Node {
    /// The value under `key`; `None` if this is no mapping or has no such key.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(k, _)| k.name == key).map(|(_, node)| node),
            _ => None,
        }
    }

    /// The item at `index`; `None` if this is no list or is shorter.
    pub(super) fn at(&self, index: usize) -> Option<&Self> {
        match &self.value {
            Value::List(items) => items.get(index),
            _ => None,
        }
    }

    /// The name of this value in `expected …, found …`.
    pub(super) fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(b) => format!("`{b}`"),
            Value::Scalar(Scalar { text, written }) if text != written => {
                format!("`{written}` as the environment fills it in")
            }
            Value::Scalar(scalar) => format!("`{}`", scalar.written),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
        }
    }

    /// The same tree for serde: scalars as strings, nulls left out so that defaults apply.
    pub(super) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(b) => serde_json::Value::Bool(*b),
            Value::Scalar(scalar) => serde_json::Value::String(scalar.text.clone()),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => entries
                .iter()
                .filter(|(_, node)| !matches!(node.value, Value::Null))
                .map(|(key, node)| (key.name.clone(), node.to_json()))
                .collect(),
        }
    }
}

/// Parses one YAML document. An empty one is an empty mapping.
pub(super) fn parse(text: &str) -> Result<Node, Diagnostic> {
    let refuse = |message: String| Diagnostic::new(Position::default(), &Path::default(), message);
    if text.len() > FILE_BYTES_MAX {
        return Err(refuse(format!("{} bytes; the most that is read is {FILE_BYTES_MAX}", text.len())));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            max_nodes: NODES_MAX,
            max_documents: 1,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: ALIAS_EVENTS_MAX },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        strict_booleans: true,
    };
    let parsed = serde_saphyr::from_str_with_options::<Spanned<Value>>(text, options);
    let node = parsed.map(Node::from).map_err(|error| {
        let position =
            error.location().map(|l| Position { line: l.line(), column: l.column() }).unwrap_or_default();
        let why = match error.without_snippet() {
            serde_saphyr::Error::Budget { breach, .. } => over_budget(breach),
            other => {
                // The position is shown in front; the parser repeats it behind.
                let whole = other.to_string();
                let first = whole.lines().next().unwrap_or_default();
                if first.starts_with("alias replay limit") {
                    format!("aliases repeat more than {ALIAS_EVENTS_MAX} values")
                } else {
                    first.split(" at line ").next().unwrap_or_default().to_owned()
                }
            }
        };
        Diagnostic::new(position, &Path::default(), format!("not YAML that Weir reads: {why}"))
    })?;
    Ok(match node.value {
        Value::Null => Node { value: Value::Map(Vec::new()), ..node },
        _ => node,
    })
}

impl From<Spanned<Value>> for Node {
    fn from(spanned: Spanned<Value>) -> Self {
        let position = Position { line: spanned.referenced.line(), column: spanned.referenced.column() };
        Self { position, value: spanned.value }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl Value {
    fn text(text: impl ToString) -> Self {
        let text = text.to_string();
        Self::Scalar(Scalar { written: text.clone(), text })
    }
}

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, b: bool) -> Result<Value, E> {
        Ok(Value::Bool(b))
    }

    fn visit_u64<E>(self, n: u64) -> Result<Value, E> {
        Ok(Value::text(n))
    }

    fn visit_i64<E>(self, n: i64) -> Result<Value, E> {
        Ok(Value::text(n))
    }

    fn visit_f64<E>(self, n: f64) -> Result<Value, E> {
        Ok(Value::text(n))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<Spanned<Value>>()? {
            items.push(Node::from(item));
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = map.next_entry::<Spanned<Value>, Spanned<Value>>()? {
            let key = Node::from(key);
            let name = match key.value {
                Value::Scalar(scalar) => scalar.text,
                Value::Bool(b) => b.to_string(),
                Value::Null | Value::List(_) | Value::Map(_) => {
                    return Err(A::Error::custom("a key must be plain text"));
                }
            };
            entries.push((Key { position: key.position, name }, Node::from(value)));
        }
        Ok(Value::Map(entries))
    }
}
