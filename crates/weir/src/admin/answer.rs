//! What is asked and what is answered.

use std::borrow::Cow;

use base::{Headers, StatusCode};
use config::Diagnostic;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::running::Running;

/// A request that was let in, with its body.
pub struct Asked<'a> {
    pub running: &'a Running,
    /// What stood for the `{...}` of the resource's path.
    pub params: Vec<String>,
    pub query: Vec<(String, String)>,
    pub headers: Headers,
    pub body: Vec<u8>,
}

pub struct Answer {
    pub status: StatusCode,
    pub kind: &'static str,
    pub body: Vec<u8>,
    pub etag: Option<String>,
}

/// Why there is no other answer (RFC 9457).
#[derive(Debug, Serialize, JsonSchema)]
pub struct Problem {
    #[serde(rename = "type")]
    pub kind: Cow<'static, str>,
    pub title: Cow<'static, str>,
    pub status: u16,
    /// What is wrong and what would be right.
    pub detail: String,
    /// What is wrong with a document.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub errors: Vec<Diagnostic>,
}

// === impl Asked ===

impl Asked<'_> {
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(it, _)| it == name).map(|(_, value)| &**value)
    }

    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let kind = self.headers.media_type().unwrap_or_default();
        if !kind.eq_ignore_ascii_case(JSON) {
            return Err(Problem::new(415, format!("the body is `{kind}`; expected `{JSON}`")));
        }
        serde_json::from_slice(&self.body).map_err(|error| Problem::new(400, format!("the body: {error}")))
    }
}

// === impl Answer ===

impl Answer {
    pub fn json(value: &impl Serialize) -> Answer {
        // Our own types have neither maps with odd keys nor anything else that JSON cannot say.
        let body = serde_json::to_vec(value).unwrap_or_default();
        Answer { status: StatusCode::OK, kind: JSON, body, etag: None }
    }

    pub fn tagged(mut self, revision: &str) -> Answer {
        self.etag = Some(format!("\"{revision}\""));
        self
    }

    pub fn not_modified(revision: &str) -> Answer {
        Answer { status: StatusCode::NOT_MODIFIED, kind: JSON, body: Vec::new(), etag: None }.tagged(revision)
    }
}

// === impl Problem ===

impl Problem {
    pub fn new(status: u16, detail: impl Into<String>) -> Problem {
        let title = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        Problem {
            kind: "about:blank".into(),
            title: title.unwrap_or("Error").into(),
            status,
            detail: detail.into(),
            errors: Vec::new(),
        }
    }

    pub fn stopping() -> Problem {
        Problem::new(503, "the node is stopping")
    }

    pub fn answer(&self) -> Answer {
        Answer {
            status: StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            kind: PROBLEM,
            ..Answer::json(self)
        }
    }
}

pub const JSON: &str = "application/json";
pub const PROBLEM: &str = "application/problem+json";
