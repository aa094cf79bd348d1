//! Its own kind of schema, which is OpenAPI's: types in capitals, `nullable` instead of a type.

use crate::json::{Out, Tree, Value, items_to};

/// The same as a JSON schema.
pub(super) fn to_json(schema: Value<'_>, to: &mut Vec<u8>) {
    let raw = schema.raw;
    let Ok(fields) = super::fields(schema) else {
        // `true` is a schema too, elsewhere.
        to.extend_from_slice(raw.as_bytes());
        return;
    };
    let entries = fields.into_entries();
    let nullable = entries.iter().any(|(key, value)| key == "nullable" && value.bool() == Ok(true));
    Out::object(to, |out| {
        for (key, value) in entries {
            match &*key {
                // Said by the order itself, or to people only.
                "nullable" | "propertyOrdering" | "example" => {}
                "type" => match value.as_str().map(str::to_ascii_lowercase) {
                    Some(kind) if nullable => out.items("type", [kind.as_str(), "null"], crate::json::quote),
                    Some(kind) => out.text("type", &kind),
                    None => out.raw("type", value.raw),
                },
                // Numbers stand as texts, since protobuf has them as such.
                "maxItems" | "minItems" | "maxLength" | "minLength" | "maxProperties" | "minProperties" => {
                    out.raw(&key, value.as_str().unwrap_or(value.raw));
                }
                "properties" | "defs" | "$defs" => {
                    let Ok(properties) = value.fields("an object") else { continue };
                    out.fields(if key == "defs" { "$defs" } else { &key }, |out| {
                        for (name, schema) in properties.into_entries() {
                            to_json(schema, out.key(&name));
                        }
                    });
                }
                "items" | "additionalProperties" => to_json(value, out.key(&key)),
                "anyOf" => match value.tree {
                    Tree::Array(schemas) => items_to(out.key("anyOf"), schemas, to_json),
                    _ => out.raw("anyOf", value.raw),
                },
                "ref" => out.raw("$ref", value.raw),
                _ => out.raw(&key, value.raw),
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_in_capitals_and_nothing_else_changes() {
        let check = |schema: &str, expected: &str| {
            let mut out = Vec::new();
            to_json(Value::parse(schema.as_bytes()).unwrap(), &mut out);
            assert_eq!(String::from_utf8_lossy(&out), expected);
        };
        check(
            r#"{"type":"OBJECT","properties":{"type":{"type":"STRING","nullable":true,"enum":["A"]},"b_c":{"type":"ARRAY","items":{"type":"INTEGER"},"min_items":"1"}},"propertyOrdering":["type"],"required":["type"]}"#,
            r#"{"type":"object","properties":{"type":{"type":["string","null"],"enum":["A"]},"b_c":{"type":"array","items":{"type":"integer"},"minItems":1}},"required":["type"]}"#,
        );
        check(
            r#"{"anyOf":[{"type":"NUMBER","minimum":1.50},true]}"#,
            r#"{"anyOf":[{"type":"number","minimum":1.50},true]}"#,
        );
    }
}
