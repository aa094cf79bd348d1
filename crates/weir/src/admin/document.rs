//! The document: what is in force, what would be, what becomes of a call.

use std::collections::BTreeMap;
use std::net::IpAddr;

use config::{Action, Diagnostic, Format, Source};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::answer::{Answer, Asked, Problem};
use crate::explain::{self, Question};
use crate::running::Unchanged;

/// The document in force.
#[derive(Debug, Serialize, JsonSchema)]
pub struct InForce {
    /// 12 hex digits of the SHA-256 of its text.
    revision: String,
    /// Its file; `-` for standard input.
    name: String,
    /// What was written, as JSON. What may be secret is `***`.
    document: Value,
}

/// What was found in a document.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Checked {
    /// It could be put in force.
    pub valid: bool,
    /// The revision it would have.
    pub revision: Option<String>,
    /// Errors, and warnings.
    pub diagnostics: Vec<Diagnostic>,
}

/// What came into force.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Reloaded {
    pub revision: String,
    /// The revision before.
    pub before: String,
    /// The text is another.
    pub changed: bool,
    pub took_seconds: f64,
    pub warnings: Vec<Diagnostic>,
}

/// A call to be explained.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Call {
    method: String,
    /// `http://localhost:8080/orders/7`, or just a path.
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// The caller's address. Default: 127.0.0.1.
    from: Option<IpAddr>,
    /// The listener it comes in by; the URL decides if left out.
    listener: Option<String>,
}

/// All routes.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Routes {
    routes: Vec<Route>,
}

/// One route.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Route {
    api: String,
    name: String,
    /// Where the document says so.
    at: String,
    /// What it takes, in one line.
    #[serde(rename = "match")]
    matches: String,
    /// `forward`, `redirect` or `respond`.
    action: &'static str,
    /// Where it goes, by weight.
    upstreams: BTreeMap<String, u32>,
}

pub fn in_force(asked: &Asked<'_>) -> Result<Answer, Problem> {
    let snapshot = asked.running.snapshot().ok_or_else(Problem::stopping)?;
    let revision = snapshot.revision.hash.clone();
    if tags(asked, "if-none-match").is_some_and(|tags| tags.contains(&revision)) {
        return Ok(Answer::not_modified(&revision));
    }
    let source = asked.running.source();
    let mut document = source.to_json().unwrap_or_default();
    redact(&mut document, false);
    Ok(Answer::json(&InForce { revision: revision.clone(), name: source.name, document }).tagged(&revision))
}

pub fn check(asked: &Asked<'_>) -> Result<Answer, Problem> {
    let kind = asked.headers.media_type().unwrap_or_default().to_ascii_lowercase();
    let format = match &*kind {
        "application/toml" => Format::Toml,
        "application/yaml" | "application/json" => Format::Yaml,
        _ => {
            let detail =
                format!("the body is `{kind}`; expected `application/yaml`, `application/json` or `application/toml`");
            return Err(Problem::new(415, detail));
        }
    };
    let text = String::from_utf8(asked.body.clone()).map_err(|_| Problem::new(400, "the body is not UTF-8"))?;
    let source = Source::with_format("-", text, format);
    let checked = match asked.running.check(source) {
        Ok(loaded) => {
            Checked { valid: true, revision: Some(loaded.snapshot.revision.hash), diagnostics: loaded.warnings }
        }
        Err(diagnostics) => Checked { valid: false, revision: None, diagnostics },
    };
    Ok(Answer::json(&checked))
}

pub fn reload(asked: &Asked<'_>) -> Result<Answer, Problem> {
    let expected = tags(asked, "if-match").filter(|tags| !tags.iter().any(|tag| tag == "*"));
    let now = asked.running.snapshot().ok_or_else(Problem::stopping)?.revision.hash.clone();
    let expected = match expected {
        Some(tags) if !tags.contains(&now) => return Err(other(&now)),
        Some(_) => Some(now),
        None => None,
    };
    match asked.running.reload(expected.as_deref()) {
        Ok(reloaded) => {
            let crate::running::Reloaded { before, revision, took, warnings } = reloaded;
            let changed = before != revision;
            let answer =
                Reloaded { revision: revision.clone(), before, changed, took_seconds: took.as_secs_f64(), warnings };
            Ok(Answer::json(&answer).tagged(&revision))
        }
        Err(Unchanged::Other(now)) => Err(other(&now)),
        Err(Unchanged::Stopping) => Err(Problem::stopping()),
        Err(Unchanged::HandingOver) => Err(Problem::new(409, "another process is about to take over; ask that one")),
        Err(Unchanged::Refused(errors)) => {
            Err(Problem { errors, ..Problem::new(422, "the document is refused; what was in force stays") })
        }
    }
}

pub fn explain(asked: &Asked<'_>) -> Result<Answer, Problem> {
    let Call { method, url, headers, from, listener } = asked.json()?;
    let snapshot = asked.running.rehearse().map_err(|errors| Problem {
        errors,
        ..Problem::new(409, "what the document refers to is no longer there, so nothing can be said of it")
    })?;
    let fields: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let from = from.unwrap_or(IpAddr::from([127, 0, 0, 1]));
    let question = Question::new(&method, &url, &fields, from, listener.as_deref(), &snapshot)
        .map_err(|wrong| Problem::new(400, format!("{}; {}", wrong.message, wrong.help)))?;
    Ok(Answer::json(&explain::explain(&snapshot.revision.source, &snapshot, &question)))
}

pub fn routes(asked: &Asked<'_>) -> Result<Answer, Problem> {
    let snapshot = asked.running.snapshot().ok_or_else(Problem::stopping)?;
    let routes = snapshot.routes.iter().map(|route| {
        let (action, split) = match &route.action {
            Action::Forward(forward) => ("forward", &forward.split[..]),
            Action::Models(_) => ("models", &[][..]),
            Action::Redirect(_) => ("redirect", &[][..]),
            Action::Respond(_) => ("respond", &[][..]),
        };
        Route {
            api: route.api.name.to_string(),
            name: route.name.to_string(),
            at: route.at.clone(),
            matches: route.summary.clone(),
            action,
            upstreams: split.iter().map(|it| (it.upstream.name.to_string(), it.weight)).collect(),
        }
    });
    Ok(Answer::json(&Routes { routes: routes.collect() }))
}

fn other(now: &str) -> Problem {
    Problem::new(412, format!("the document in force is \"{now}\""))
}

/// The revisions of a condition; `None` where there is none.
fn tags(asked: &Asked<'_>, name: &str) -> Option<Vec<String>> {
    let value = asked.headers.get(name)?;
    let tags = String::from_utf8_lossy(value)
        .split(',')
        .map(|tag| {
            let tag = tag.trim();
            tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"').to_owned()
        })
        .collect();
    Some(tags)
}

/// References to secrets may be shown; what might be one itself, written where it does not belong, may not.
fn redact(value: &mut Value, hidden: bool) {
    match value {
        Value::Object(map) => map.iter_mut().for_each(|(key, value)| {
            let key = key.to_ascii_lowercase();
            let secret = ["authorization", "cookie", "key", "token", "secret", "password", "hash"]
                .iter()
                .any(|word| key == *word || key.ends_with(&format!("-{word}")));
            redact(value, hidden || secret);
        }),
        Value::Array(items) => items.iter_mut().for_each(|item| redact(item, hidden)),
        Value::String(text) if hidden && !text.starts_with("file:") && !text.starts_with("env:") => {
            *text = HIDDEN.into();
        }
        Value::String(text) => {
            // `http://user:password@host`.
            if let Some((scheme, rest)) = text.split_once("://")
                && let Some(at) = rest.split(['/', '?', '#']).next().and_then(|authority| authority.rfind('@'))
            {
                *text = format!("{scheme}://{HIDDEN}{}", &rest[at..]);
            }
        }
        Value::Number(_) if hidden => *value = HIDDEN.into(),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

const HIDDEN: &str = "***";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_may_be_secret_is_not_shown() {
        let mut value = json!({
            "upstreams": { "a": { "endpoints": ["https://user:pass@a.example:1/x@y", { "url": "http://b@c" }, "http://d/e@f"] } },
            "consumers": { "c": { "keys": [{ "id": "k1", "hash": "sha256:12" }] } },
            "admin": { "token": "file:admin.token" },
            "policies": { "headers": { "request": { "set": { "x-api-key": "abc", "Authorization": "Bearer x", "x-team": "t" } } } },
            "telemetry": { "otlp": { "headers": { "api-key": "env:KEY" } } },
        });
        redact(&mut value, false);
        assert_eq!(
            value,
            json!({
                "upstreams": { "a": { "endpoints": ["https://***@a.example:1/x@y", { "url": "http://***@c" }, "http://d/e@f"] } },
                "consumers": { "c": { "keys": [{ "id": "k1", "hash": "***" }] } },
                "admin": { "token": "file:admin.token" },
                "policies": { "headers": { "request": { "set": { "x-api-key": "***", "Authorization": "***", "x-team": "t" } } } },
                "telemetry": { "otlp": { "headers": { "api-key": "env:KEY" } } },
            })
        );
    }
}
