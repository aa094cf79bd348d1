//! The registry as OpenAPI 3.1, whose schemas are JSON Schema 2020-12, as schemars makes them.

use std::fmt::Write;

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::answer::{JSON, PROBLEM, Problem};
use super::registry::{Content, Resource};

pub fn describe(resources: &[Resource]) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let mut paths: Map<String, Value> = Map::new();
    for resource in resources {
        let operation = operation(resource, &mut generator);
        let path = paths.entry(resource.path).or_insert_with(|| json!({}));
        path[resource.method.as_str().to_ascii_lowercase()] = operation;
    }
    let schemas = generator.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Weir admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What a running node tells and does for whoever operates it.",
        },
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn operation(resource: &Resource, generator: &mut SchemaGenerator) -> Value {
    let Resource { method: _, path, id, summary, query, condition, takes, gives, run: _ } = resource;
    let mut parameters = Vec::new();
    for name in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
        let schema = json!({ "type": "string", "minLength": 1 });
        parameters.push(json!({ "name": name, "in": "path", "required": true, "schema": schema }));
    }
    for parameter in *query {
        let mut schema = json!({ "type": "string" });
        if !parameter.values.is_empty() {
            schema["enum"] = parameter.values.into();
        }
        parameters.push(json!({
            "name": parameter.name, "in": "query", "description": parameter.summary, "schema": schema,
        }));
    }
    if let Some(name) = condition {
        let description = "Revisions in quotes, as ETags are.";
        let schema = json!({ "type": "string" });
        parameters.push(json!({ "name": name, "in": "header", "description": description, "schema": schema }));
    }
    let mut good = json!({ "description": "As asked." });
    if let Some(content) = content(gives, generator) {
        good["content"] = content;
    }
    let problem = generator.subschema_for::<Problem>();
    let problem = |what: &str| json!({ "description": what, "content": { PROBLEM: { "schema": problem } } });
    let mut responses =
        json!({ "200": good, "4XX": problem("Not as it was asked."), "503": problem("It is stopping.") });
    if *condition == Some("if-none-match") {
        responses["304"] = json!({ "description": "It is the one you have." });
    }
    let mut operation = json!({
        "operationId": id,
        "summary": summary,
        "parameters": parameters,
        "responses": responses,
    });
    if let Some(content) = content(takes, generator) {
        operation["requestBody"] = json!({ "required": true, "content": content });
    }
    operation
}

fn content(content: &Content, generator: &mut SchemaGenerator) -> Option<Value> {
    match content {
        Content::Nothing => None,
        Content::Json(schema) => Some(json!({ JSON: { "schema": schema(generator) } })),
        Content::Object => Some(json!({ JSON: { "schema": { "type": "object" } } })),
        Content::Document => {
            let text = json!({ "schema": { "type": "string" } });
            Some(json!({ "application/yaml": text, "application/toml": text }))
        }
    }
}

pub fn markdown(resources: &[Resource]) -> String {
    let openapi = describe(resources);
    let mut text = String::from(HEAD);
    text.push_str("\n| | |\n|---|---|\n");
    for Resource { method, path, summary, .. } in resources {
        let _ = writeln!(text, "| `{method} {path}` | {summary} |");
    }
    for resource in resources {
        let Resource { method, path, summary, query, condition, takes, gives, .. } = resource;
        let _ = write!(text, "\n## {method} {path}\n\n{summary}\n");
        for parameter in *query {
            let values: Vec<_> = parameter.values.iter().map(|value| format!("`{value}`")).collect();
            let _ = write!(text, "\nQuery `{}`: {} {}\n", parameter.name, parameter.summary, values.join(", "));
        }
        if let Some(name) = condition {
            let _ = write!(text, "\nHeeds `{name}`.\n");
        }
        for (word, content) in [("Takes", takes), ("Gives", gives)] {
            match content {
                Content::Json(schema) => {
                    let mut generator = SchemaGenerator::default();
                    let schema = schema(&mut generator).to_value();
                    let name = schema["$ref"].as_str().and_then(|name| name.rsplit('/').next()).unwrap_or_default();
                    let _ = write!(text, "\n{word} [{name}](#{}).\n", name.to_ascii_lowercase());
                }
                Content::Document => {
                    let _ = write!(
                        text,
                        "\n{word} a document, `application/yaml` (also for JSON) or `application/toml`.\n"
                    );
                }
                Content::Object | Content::Nothing => {}
            }
        }
    }
    text.push_str("\n# Types\n");
    for (name, schema) in openapi["components"]["schemas"].as_object().into_iter().flatten() {
        let _ = write!(text, "\n## {name}\n");
        config::schema::section(&mut text, schema);
    }
    text
}

const HEAD: &str = "\
# The admin API

What a running node tells and does for whoever operates it. It is made for programs; `weir top`, `weir reload` and the
like are clients of it. [operations.md](operations.md#the-admin-api) says where it is and who may ask. This page is made
by `make docs` from the same table that the server runs on; a node describes itself at `/openapi.json`.

Answers are JSON. What cannot be done is a problem (RFC 9457, `application/problem+json`) whose `detail` says what would
be right; what is wrong with a document is in its `errors`, all of it at once.
";
