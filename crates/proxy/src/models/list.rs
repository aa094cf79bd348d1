//! Which models there are: `GET /v1/models` and `/v1/models/{model}`, as OpenAI has them; Anthropic's SDK reads the same
//! fields by other names, which are there too. Gemini's are at `/v1beta/models`.

use base::{ResponseHead, StatusCode};
use config::Llm;
use llm::{Dialect, Target};
use transport::{Body, Response};

use super::words::Failure;

pub fn answer(llm: &Llm, target: &Target) -> Result<Response, Failure> {
    let body = match &target.model {
        Some(name) => {
            llm.model(name).ok_or_else(|| Failure::UnknownModel(name.clone()))?;
            one(target.dialect, name)
        }
        None => {
            // A pattern stands for names that nobody here knows.
            let mut names: Vec<&str> = llm.models.keys().map(|name| &**name).collect();
            names.sort_unstable();
            let all: Vec<_> = names.iter().map(|name| one(target.dialect, name)).collect();
            match target.dialect {
                Dialect::Gemini => serde_json::json!({ "models": all }),
                _ => serde_json::json!({
                    "object": "list",
                    "data": all,
                    "has_more": false,
                    "first_id": names.first(),
                    "last_id": names.last(),
                }),
            }
        }
    };
    let mut head = ResponseHead::new(StatusCode::OK);
    head.headers.append("content-type", "application/json");
    Ok(Response::new(head, Body::from(body.to_string().into_bytes())))
}

fn one(dialect: Dialect, name: &str) -> serde_json::Value {
    if dialect == Dialect::Gemini {
        return serde_json::json!({
            "name": format!("models/{name}"),
            "version": "1",
            "displayName": name,
            "supportedGenerationMethods":
                ["generateContent", "streamGenerateContent", "countTokens", "embedContent", "batchEmbedContents"],
        });
    }
    serde_json::json!({
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "weir",
        "type": "model",
        "display_name": name,
        "created_at": "1970-01-01T00:00:00Z",
    })
}
