//! The smallest value that a JSON schema admits, near enough.

use serde_json::{Map, Value, json};

pub(crate) fn instance(schema: &Value) -> Value {
    within(schema, schema, 0)
}

fn within(schema: &Value, root: &Value, depth: usize) -> Value {
    if depth > 16 {
        return Value::Null;
    }
    let go = |schema: &Value| within(schema, root, depth + 1);
    if let Some(target) = schema["$ref"].as_str().and_then(|target| root.pointer(target.trim_start_matches('#'))) {
        return go(target);
    }
    if let Some(value) = schema.get("const").or_else(|| schema["enum"].get(0)) {
        return value.clone();
    }
    if let Some(first) = ["anyOf", "oneOf", "allOf"].iter().find_map(|name| schema[*name].get(0)) {
        return go(first);
    }
    let kinds = schema["type"].as_array();
    let kind = kinds.map_or(&schema["type"], |kinds| kinds.iter().find(|kind| *kind != "null").unwrap_or(&Value::Null));
    // Gemini writes them in capitals.
    let kind = kind.as_str().unwrap_or_default().to_lowercase();
    match kind.as_str() {
        "object" | "" => {
            let properties = schema["properties"].as_object();
            let value: Map<_, _> =
                properties.into_iter().flatten().map(|(name, schema)| (name.clone(), go(schema))).collect();
            Value::Object(value)
        }
        "array" => json!([go(&schema["items"])]),
        "integer" => schema.get("minimum").cloned().unwrap_or(json!(1)),
        "number" => schema.get("minimum").cloned().unwrap_or(json!(1.5)),
        "boolean" => json!(true),
        "null" => Value::Null,
        _ => match schema["format"].as_str() {
            Some("date") => json!("2026-01-01"),
            Some("date-time") => json!("2026-01-01T00:00:00Z"),
            _ => json!("word"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances() {
        for (schema, expected) in [
            (json!({"type": "object", "properties": {"city": {"type": "string"}}}), json!({"city": "word"})),
            (json!({"type": ["null", "integer"]}), json!(1)),
            (json!({"anyOf": [{"enum": ["a", "b"]}]}), json!("a")),
            (
                json!({"$defs": {"x": {"type": "ARRAY", "items": {"type": "BOOLEAN"}}}, "$ref": "#/$defs/x"}),
                json!([true]),
            ),
        ] {
            assert_eq!(instance(&schema), expected);
        }
    }
}
