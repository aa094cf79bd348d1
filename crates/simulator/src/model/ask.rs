//! What a call asks of a model, in whichever dialect it was written.

use serde_json::Value;

pub(crate) struct Ask {
    pub(crate) model: String,
    pub(crate) form: Form,
    /// The text of the last message, and whether that is the result of a tool.
    pub(crate) prompt: String,
    pub(crate) answered: bool,
    pub(crate) tools: Vec<Tool>,
    pub(crate) choice: Choice,
    /// What the answer is to look like; null if any JSON will do.
    pub(crate) schema: Option<Value>,
    /// The most tokens it may have.
    pub(crate) limit: Option<u32>,
    /// What the prompt amounts to.
    pub(crate) input: u32,
    pub(crate) reasoning: bool,
    pub(crate) logprobs: bool,
    /// Whether a stream is to tell its usage; only one dialect has to be asked.
    pub(crate) usage: bool,
}

/// How the answer is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Whole,
    Events,
    /// A stream as one JSON array.
    Array,
}

pub(crate) struct Tool {
    pub(crate) name: String,
    pub(crate) schema: Value,
}

pub(crate) enum Choice {
    Auto,
    None,
    Any,
    Named(String),
}

/// A request that cannot be answered: which field, and what is the matter with it.
pub(crate) struct Wrong {
    pub(crate) field: &'static str,
    pub(crate) message: String,
}

pub(crate) fn wrong<T>(field: &'static str, message: &str) -> Result<T, Wrong> {
    Err(Wrong { field, message: message.to_owned() })
}

impl Ask {
    pub(crate) fn new(model: String, form: Form) -> Self {
        Self {
            model,
            form,
            prompt: String::new(),
            answered: false,
            tools: Vec::new(),
            choice: Choice::Auto,
            schema: None,
            limit: None,
            input: 0,
            reasoning: false,
            logprobs: false,
            usage: true,
        }
    }
}

pub(crate) fn text<'b>(body: &'b Value, field: &'static str) -> Result<&'b str, Wrong> {
    match &body[field] {
        Value::String(text) => Ok(text),
        Value::Null => wrong(field, &format!("you must provide a {field} parameter")),
        _ => wrong(field, &format!("invalid type for '{field}': expected a string")),
    }
}

pub(crate) fn flag(body: &Value, field: &'static str) -> Result<bool, Wrong> {
    match &body[field] {
        Value::Null => Ok(false),
        Value::Bool(flag) => Ok(*flag),
        _ => wrong(field, &format!("invalid type for '{field}': expected a boolean")),
    }
}

pub(crate) fn number(body: &Value, field: &'static str) -> Result<Option<u32>, Wrong> {
    match &body[field] {
        Value::Null => Ok(None),
        value => match value.as_u64().and_then(|number| u32::try_from(number).ok()) {
            Some(number) if number > 0 => Ok(Some(number)),
            _ => wrong(field, &format!("invalid '{field}': expected a whole number above 0")),
        },
    }
}

/// An array with something in it.
pub(crate) fn list<'b>(body: &'b Value, field: &'static str) -> Result<&'b [Value], Wrong> {
    match &body[field] {
        Value::Array(list) if list.is_empty() => wrong(field, &format!("{field}: at least one is required")),
        Value::Array(list) => Ok(list),
        Value::Null => wrong(field, &format!("missing required parameter: '{field}'")),
        _ => wrong(field, &format!("invalid type for '{field}': expected an array")),
    }
}

pub(crate) fn each(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The text of content that is a string or a list of parts.
pub(crate) fn content(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().map(content).collect::<Vec<_>>().join(" "),
        Value::Object(part) => ["text", "content", "output", "json", "response"]
            .iter()
            .find_map(|name| part.get(*name))
            .map(|value| if value.is_object() { value.to_string() } else { content(value) })
            .unwrap_or_default(),
        _ => String::new(),
    }
}

/// A provider would use its tokenizer; here four bytes of any text are a token, and each value with text in it costs one
/// more. The same prompt has the same count wherever it is asked for.
pub(crate) fn count(value: &Value) -> u32 {
    match value {
        Value::String(text) => 1 + text.len().div_ceil(4) as u32,
        Value::Array(list) => list.iter().map(count).sum(),
        Value::Object(map) => map.values().map(count).sum(),
        Value::Number(_) | Value::Bool(_) | Value::Null => 0,
    }
}

pub(crate) fn counted(body: &Value, fields: &[&str]) -> u32 {
    fields.iter().map(|field| count(&body[*field])).sum::<u32>().max(1)
}
