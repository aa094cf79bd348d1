//! One file per dialect: how it is looked at, read and written.

pub(crate) mod anthropic;
pub(crate) mod bedrock;
pub(crate) mod gemini;
pub(crate) mod openai_chat;
pub(crate) mod openai_embeddings;
pub(crate) mod openai_responses;

use base::TokenUsage;

use crate::dialect::Dialect;
use crate::json::{self, Value};
use crate::stream::Stop;

/// Usage and end of a whole answer, without reading the rest of it.
pub(crate) fn glance(dialect: Dialect, body: &[u8]) -> (Option<TokenUsage>, Option<Stop>) {
    match dialect {
        Dialect::OpenAiChat => openai_chat::glance(body),
        Dialect::OpenAiResponses => openai_responses::glance(body),
        Dialect::OpenAiEmbeddings => openai_embeddings::glance(body),
        Dialect::Anthropic => anthropic::glance(body),
        Dialect::Gemini => gemini::glance(body),
        Dialect::Bedrock => bedrock::glance(body),
    }
}

/// The word and the message of an error, in whichever of the usual shapes: an object `error`, a string `error`, a
/// `message`, or the first of an array of those.
pub(crate) fn read_error(body: &[u8]) -> Option<(Option<String>, String)> {
    let mut value = Value::parse(body).ok()?;
    if value.is_array() {
        value = value.array("an array").ok()?.into_iter().next()?;
    }
    let mut fields = value.fields("an object").ok()?;
    let nested = fields.take("error");
    if let Some(text) = nested.as_ref().and_then(Value::as_str) {
        return Some((None, text.to_owned()));
    }
    let mut fields = match nested {
        Some(error) => error.fields("an object").ok()?,
        None => fields,
    };
    let message =
        ["message", "Message", "detail"].iter().find_map(|key| Some(fields.take(key)?.as_str()?.to_owned()))?;
    // The most telling first: of OpenAI's words `code` says more than `type` where it says anything.
    let known = |key: &&str| {
        let word = fields.take(key)?.as_str()?.to_owned();
        crate::error::Kind::of_word(&word).map(|_| word)
    };
    Some((["code", "status", "type", "__type"].iter().find_map(known), message))
}

/// A word at a path of keys.
pub(crate) fn word<T>(body: &[u8], path: &[&str], read: impl FnOnce(&str) -> T) -> Option<T> {
    json::find(body, path)?.as_str().map(read)
}
