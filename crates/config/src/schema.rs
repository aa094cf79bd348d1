//! The document described to editors (JSON Schema) and to readers (Markdown), both from its types.

use std::fmt::Write;

use serde_json::Value;

use crate::document::Document;

pub fn schema() -> Value {
    schemars::schema_for!(Document).to_value()
}

/// The reference of the document, in Markdown: a section for each map, the document's first.
pub fn reference() -> String {
    let schema = schema();
    let mut text = String::from("# The document\n");
    section(&mut text, &schema);
    for (name, definition) in schema["$defs"].as_object().into_iter().flatten() {
        let _ = write!(text, "\n## {name}\n");
        section(&mut text, definition);
    }
    text
}

/// What a schema says of itself, and its fields.
pub fn section(text: &mut String, schema: &Value) {
    if let Some(description) = schema["description"].as_str() {
        let _ = write!(text, "\n{description}\n");
    }
    let Some(fields) = schema["properties"].as_object() else { return };
    text.push_str("\n| field | type | meaning |\n|---|---|---|\n");
    for (name, field) in fields {
        let meaning = field["description"].as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|");
        let _ = writeln!(text, "| `{name}` | {} | {meaning} |", kind(field));
    }
}

fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|reference| reference.rsplit('/').next()) {
        return format!("[{name}](#{})", name.to_ascii_lowercase());
    }
    if let Some(word) = schema["const"].as_str() {
        return format!("`{word}`");
    }
    if let Some(variants) = schema["anyOf"].as_array() {
        let kinds: Vec<String> = variants.iter().map(kind).filter(|kind| kind != "null").collect();
        return kinds.join(" or ");
    }
    if schema["items"].is_object() {
        return format!("list of {}", kind(&schema["items"]));
    }
    if schema["additionalProperties"].is_object() {
        return format!("map of {}", kind(&schema["additionalProperties"]));
    }
    match &schema["type"] {
        Value::String(name) => name.clone(),
        Value::Array(names) => {
            names.iter().filter_map(Value::as_str).find(|name| *name != "null").unwrap_or_default().into()
        }
        _ => String::new(),
    }
}
