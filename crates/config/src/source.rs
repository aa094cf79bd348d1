//! A document's text and the tree in it, each node with its place.
//!
//! YAML is read by the core schema of YAML 1.2: `no` and `on` are strings, `0755` is refused because
//! readers disagree whether it is octal, a key stands once in a map. Anchors and aliases work, within a
//! budget; merge keys (`<<`) do not, they never were part of 1.2.

use std::collections::HashMap;
use std::fmt::Write;
use std::ops::Range;
use std::sync::Arc;

use granit_parser::{Event, Options, Parser, ScalarStyle};
use toml::de::{DeTable, DeValue};

use crate::diagnostic::{Diagnostic, Severity};

/// A document as it was given.
#[derive(Clone, Debug)]
pub struct Source {
    pub name: String,
    pub text: Arc<str>,
    pub format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Also JSON, which is a part of YAML.
    Yaml,
    Toml,
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) span: Range<usize>,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    /// With the place each had in the document: what is beyond repair is taken out.
    List(Vec<(usize, Node)>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_span: Range<usize>,
    pub(crate) value: Node,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

/// What a tree may grow to by its aliases.
const MAX_NODES: usize = 1_000_000;

// === impl Source ===

impl Source {
    /// TOML if the name ends so, else YAML, which JSON is a part of.
    pub fn new(name: &str, text: String) -> Source {
        let format = if name.to_ascii_lowercase().ends_with(".toml") { Format::Toml } else { Format::Yaml };
        Source::with_format(name, text, format)
    }

    pub fn with_format(name: &str, text: String, format: Format) -> Source {
        Source { name: name.to_owned(), text: text.into(), format }
    }

    /// An error found later, at a path of the document such as `listeners.web.address`.
    pub fn locate(&self, path: &str, message: impl Into<String>) -> Diagnostic {
        let span = self.parse().ok().map(|tree| tree.find(&steps(path)).0).unwrap_or(0..0);
        self.diagnostic(Severity::Error, span, path.to_owned(), message.into())
    }

    pub(crate) fn diagnostic(
        &self,
        severity: Severity,
        span: Range<usize>,
        path: String,
        message: String,
    ) -> Diagnostic {
        let floor = |at: usize| (0..=at.min(self.text.len())).rev().find(|at| self.text.is_char_boundary(*at));
        let start = floor(span.start).unwrap_or(0);
        let mut end = floor(span.end).unwrap_or(start).max(start);
        // A collection is told by its first line.
        if let Some(line) = self.text[start..end].find('\n') {
            end = start + line;
        }
        let before = &self.text[..start];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
        Diagnostic {
            severity,
            file: self.name.clone(),
            line,
            column,
            span: start..end,
            path,
            message,
            help: None,
            text: self.text.clone(),
        }
    }

    /// The tree of the text, if it has one.
    pub fn to_json(&self) -> Option<serde_json::Value> {
        self.tree().ok()
    }

    /// The tree of the text, whatever it is about, or why it has none.
    pub fn tree(&self) -> Result<serde_json::Value, Vec<Diagnostic>> {
        self.parse().map(|tree| tree.to_json())
    }

    pub(crate) fn parse(&self) -> Result<Node, Vec<Diagnostic>> {
        let errors = match self.format {
            Format::Yaml => match Yaml::read(&self.text) {
                Ok((tree, errors)) if errors.is_empty() => return Ok(tree),
                Ok((_, errors)) => errors,
                Err(error) => vec![error],
            },
            Format::Toml => match read_toml(&self.text) {
                Ok(tree) => return Ok(tree),
                Err(errors) => errors,
            },
        };
        Err(errors
            .into_iter()
            .map(|(span, message)| self.diagnostic(Severity::Error, span, String::new(), message))
            .collect())
    }
}

// === impl Node ===

impl Node {
    fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Int(value) => (*value).into(),
            Value::Float(value) => (*value).into(),
            Value::Str(value) => value.as_str().into(),
            Value::List(items) => items.iter().map(|(_, item)| item.to_json()).collect(),
            Value::Map(entries) => entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect(),
        }
    }

    /// The place of the node at a path, or of the nearest around it, and the path in the document's own
    /// numbers. A key belongs to what it names.
    pub(crate) fn find(&self, steps: &[Step]) -> (Range<usize>, String) {
        let mut node = self;
        let mut span = 0..0;
        let mut path = String::new();
        for step in steps {
            match (step, &node.value) {
                (Step::Key(key), Value::Map(entries)) => {
                    push_key(&mut path, key);
                    let Some(entry) = entries.iter().find(|entry| entry.key == *key) else { break };
                    node = &entry.value;
                    span = match node.value {
                        Value::List(_) | Value::Map(_) | Value::Null => entry.key_span.clone(),
                        _ => node.span.clone(),
                    };
                }
                (Step::Index(index), Value::List(items)) => {
                    let Some((original, item)) = items.get(*index) else { break };
                    let _ = write!(path, "[{original}]");
                    node = item;
                    span = node.span.clone();
                }
                _ => break,
            }
        }
        (span, path)
    }

    /// Where a key of the map at a path is written.
    pub(crate) fn key_span(&self, steps: &[Step], key: &str) -> Option<Range<usize>> {
        let mut node = self;
        for step in steps {
            node = match (step, &node.value) {
                (Step::Key(key), Value::Map(entries)) => &entries.iter().find(|entry| entry.key == *key)?.value,
                (Step::Index(index), Value::List(items)) => &items.get(*index)?.1,
                _ => return None,
            };
        }
        let Value::Map(entries) = &node.value else { return None };
        entries.iter().find(|entry| entry.key == key).map(|entry| entry.key_span.clone())
    }

    fn get_mut(&mut self, steps: &[Step]) -> Option<&mut Node> {
        let mut node = self;
        for step in steps {
            node = match (step, &mut node.value) {
                (Step::Key(key), Value::Map(entries)) => &mut entries.iter_mut().find(|entry| entry.key == *key)?.value,
                (Step::Index(index), Value::List(items)) => &mut items.get_mut(*index)?.1,
                _ => return None,
            };
        }
        Some(node)
    }

    /// Adds a text to the map at a path, in the map's own place.
    pub(crate) fn insert(&mut self, steps: &[Step], key: &str, text: &str) -> bool {
        let Some(Node { value: Value::Map(entries), span }) = self.get_mut(steps) else { return false };
        let value = Node { value: Value::Str(text.into()), span: span.clone() };
        entries.push(Entry { key: key.into(), key_span: span.clone(), value });
        true
    }

    /// Takes the node at a path out of what contains it.
    pub(crate) fn remove(&mut self, steps: &[Step]) -> bool {
        let Some((last, around)) = steps.split_last() else { return false };
        let Some(node) = self.get_mut(around) else { return false };
        match (last, &mut node.value) {
            (Step::Key(key), Value::Map(entries)) => {
                let before = entries.len();
                entries.retain(|entry| entry.key != *key);
                entries.len() < before
            }
            (Step::Index(index), Value::List(items)) if *index < items.len() => {
                items.remove(*index);
                true
            }
            _ => false,
        }
    }

    fn size(&self) -> usize {
        1 + match &self.value {
            Value::List(items) => items.iter().map(|(_, item)| item.size()).sum(),
            Value::Map(entries) => entries.iter().map(|entry| entry.value.size()).sum(),
            _ => 0,
        }
    }
}

/// `a.b[0]["c.d"]` in steps.
pub(crate) fn steps(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix("[\"")
            && let Some((key, after)) = quoted.split_once("\"]")
        {
            steps.push(Step::Key(key.into()));
            rest = after;
        } else if let Some(index) = rest.strip_prefix('[')
            && let Some((index, after)) = index.split_once(']')
            && let Ok(index) = index.parse()
        {
            steps.push(Step::Index(index));
            rest = after;
        } else {
            rest = rest.strip_prefix('.').unwrap_or(rest);
            let end = rest.find(['.', '[']).filter(|end| *end > 0).unwrap_or(rest.len());
            steps.push(Step::Key(rest[..end].into()));
            rest = &rest[end..];
        }
    }
    steps
}

/// `path.key`, or `path["a key"]`.
pub(crate) fn push_key(path: &mut String, key: &str) {
    if key.is_empty() || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        let _ = write!(path, "[\"{key}\"]");
        return;
    }
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key);
}

// === YAML ===

type Wrong = (Range<usize>, String);

struct Yaml {
    anchors: HashMap<usize, (Node, usize)>,
    open: Vec<Open>,
    root: Option<Node>,
    errors: Vec<Wrong>,
    nodes: usize,
}

struct Open {
    anchor: usize,
    start: usize,
    what: Collection,
}

enum Collection {
    List(Vec<(usize, Node)>),
    Map(Vec<Entry>, Option<(String, Range<usize>)>),
}

impl Yaml {
    fn read(text: &str) -> Result<(Node, Vec<Wrong>), Wrong> {
        let mut options = Options::default();
        options.set_emit_comments(false);
        let mut yaml = Yaml { anchors: HashMap::new(), open: Vec::new(), root: None, errors: Vec::new(), nodes: 0 };
        let mut documents = 0;
        for event in Parser::new_from_str_with_options(text, options) {
            let (event, span) = event.map_err(|error| {
                let at = error.marker().byte_offset().unwrap_or(0);
                (at..at + 1, error.info())
            })?;
            let span = span.byte_range().unwrap_or(0..0);
            match event {
                Event::DocumentStart(..) => {
                    documents += 1;
                    if documents > 1 {
                        return Err((span, "a second document in one text; expected one".into()));
                    }
                }
                Event::Scalar(value, style, anchor, tag) => {
                    if tag.is_some() {
                        yaml.errors.push((span.clone(), "tags have no meaning here".into()));
                    }
                    let value = if style == ScalarStyle::Plain && !yaml.wants_key() {
                        plain(&value).unwrap_or_else(|message| {
                            yaml.errors.push((span.clone(), message));
                            Value::Null
                        })
                    } else {
                        Value::Str(value.into_owned())
                    };
                    yaml.add(Node { value, span }, anchor)?;
                }
                Event::SequenceStart(_, anchor, _) => {
                    yaml.open(span, anchor, Collection::List(Vec::new()))?;
                }
                Event::MappingStart(_, anchor, _) => {
                    yaml.open(span, anchor, Collection::Map(Vec::new(), None))?;
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    let Some(Open { anchor, start, what }) = yaml.open.pop() else { continue };
                    let value = match what {
                        Collection::List(items) => Value::List(items),
                        Collection::Map(entries, _) => Value::Map(entries),
                    };
                    yaml.add(Node { value, span: start..span.end.max(start) }, anchor)?;
                }
                Event::Alias(id) => {
                    let Some((node, size)) = yaml.anchors.get(&id) else {
                        return Err((span, "this alias is part of what it stands for".into()));
                    };
                    // Counted before it is copied: this is what a bomb of aliases runs into.
                    yaml.nodes += size;
                    if yaml.nodes > MAX_NODES {
                        return Err((span, "the aliases of this document make it too large".into()));
                    }
                    let node = node.clone();
                    yaml.add(node, 0)?;
                }
                _ => {}
            }
        }
        let root = yaml.root.ok_or_else(|| (0..0, "the document is empty".to_owned()))?;
        Ok((root, yaml.errors))
    }

    fn wants_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { what: Collection::Map(_, None), .. }))
    }

    fn open(&mut self, span: Range<usize>, anchor: usize, what: Collection) -> Result<(), Wrong> {
        if self.wants_key() {
            return Err((span, "a key must be a word, not a collection".into()));
        }
        if self.open.len() > 64 {
            return Err((span, "nested too deeply".into()));
        }
        self.open.push(Open { anchor, start: span.start, what });
        Ok(())
    }

    fn add(&mut self, node: Node, anchor: usize) -> Result<(), Wrong> {
        self.nodes += 1;
        if anchor != 0 {
            let size = node.size();
            self.anchors.insert(anchor, (node.clone(), size));
        }
        match self.open.last_mut().map(|open| &mut open.what) {
            None => self.root = Some(node),
            Some(Collection::List(items)) => items.push((items.len(), node)),
            Some(Collection::Map(_, key @ None)) => {
                let Value::Str(name) = node.value else {
                    return Err((node.span, "a key must be a word, not a collection".into()));
                };
                *key = Some((name, node.span));
            }
            Some(Collection::Map(entries, key)) => {
                let Some((key, key_span)) = key.take() else { return Ok(()) };
                if key == "<<" {
                    let message = "merge keys (`<<`) are not supported; repeat the entries or use an alias";
                    self.errors.push((key_span, message.into()));
                } else if entries.iter().any(|entry| entry.key == key) {
                    self.errors.push((key_span, format!("`{key}` stands twice in this map")));
                } else {
                    entries.push(Entry { key, key_span, value: node });
                }
            }
        }
        Ok(())
    }
}

/// A plain scalar by the core schema of YAML 1.2.
fn plain(text: &str) -> Result<Value, String> {
    let digits = text.trim_start_matches(['+', '-']);
    let numeric = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ if numeric && digits.len() > 1 && digits.starts_with('0') => {
            return Err(format!(
                "`{text}` is octal to some readers and decimal to others; quote it, or leave the zero out"
            ));
        }
        _ if numeric => text.parse().map_or_else(|_| Value::Str(text.into()), Value::Int),
        _ if text.starts_with("0x") => i64::from_str_radix(&text[2..], 16).map_or(Value::Str(text.into()), Value::Int),
        _ if text.starts_with("0o") => i64::from_str_radix(&text[2..], 8).map_or(Value::Str(text.into()), Value::Int),
        _ if digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
            && digits.bytes().all(|b| b.is_ascii_digit() || b".eE+-".contains(&b)) =>
        {
            text.parse().map_or_else(|_| Value::Str(text.into()), Value::Float)
        }
        _ => Value::Str(text.into()),
    })
}

// === TOML ===

fn read_toml(text: &str) -> Result<Node, Vec<Wrong>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(errors.iter().map(|error| (error.span().unwrap_or(0..0), error.message().to_owned())).collect());
    }
    let span = table.span();
    Ok(Node { value: toml_table(table.into_inner()), span })
}

fn toml_table(table: DeTable<'_>) -> Value {
    let mut entries: Vec<Entry> = table
        .into_iter()
        .map(|(key, value)| Entry {
            key_span: key.span(),
            key: key.into_inner().into_owned(),
            value: Node { span: value.span(), value: toml_value(value.into_inner()) },
        })
        .collect();
    // In the order they were written.
    entries.sort_by_key(|entry| entry.key_span.start);
    Value::Map(entries)
}

fn toml_value(value: DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Str(text.into_owned()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::Str(number.as_str().into()), Value::Int),
        DeValue::Float(number) => {
            number.as_str().parse().map_or_else(|_| Value::Str(number.as_str().into()), Value::Float)
        }
        DeValue::Boolean(value) => Value::Bool(value),
        DeValue::Datetime(time) => Value::Str(time.to_string()),
        DeValue::Array(items) => {
            let node =
                |item: toml::Spanned<DeValue<'_>>| Node { span: item.span(), value: toml_value(item.into_inner()) };
            Value::List(items.into_iter().map(node).enumerate().collect())
        }
        DeValue::Table(table) => toml_table(table),
    }
}
