//! Anthropic's messages.

use base::TokenUsage;
use memchr::memmem;

use crate::json::{self, Cursor, Kind, Value};
use crate::malformed::Malformed;
use crate::peek::Peek;
use crate::sse::Frame;
use crate::stream::{Fault, Seen, Stop};

pub(crate) fn peek(cursor: &mut Cursor<'_>, peek: &mut Peek) -> Result<(), Malformed> {
    cursor.object("an object", |cursor, key, _| {
        match &**key {
            "model" => peek.model = Some(cursor.string("the name of a model, which is a string")?.range()),
            "messages" => peek.messages(cursor)?,
            "stream" => peek.stream = cursor.maybe_bool()?.unwrap_or(false),
            "max_tokens" => peek.max_output = cursor.maybe_count()?,
            "tools" => peek.tools(cursor)?,
            "thinking" => {
                peek.wants.reasoning = match cursor.null() {
                    true => false,
                    false => !Peek::kind_is(cursor, "disabled")?,
                }
            }
            // The older and the newer place of a schema.
            "output_format" => peek.wants.json_schema |= Peek::kind_is(cursor, "json_schema")?,
            "output_config" => output_config(cursor, peek)?,
            "metadata" => metadata(cursor, peek)?,
            _ => cursor.skip()?,
        }
        Ok(())
    })
}

fn output_config(cursor: &mut Cursor<'_>, peek: &mut Peek) -> Result<(), Malformed> {
    if cursor.null() {
        return Ok(());
    }
    cursor.object("an object", |cursor, key, _| {
        match &**key {
            "format" => peek.wants.json_schema |= Peek::kind_is(cursor, "json_schema")?,
            _ => cursor.skip()?,
        }
        Ok(())
    })
}

fn metadata(cursor: &mut Cursor<'_>, peek: &mut Peek) -> Result<(), Malformed> {
    let start = cursor.place();
    if cursor.null() {
        return Ok(());
    }
    cursor.object("an object", |cursor, key, _| {
        match &**key {
            "user_id" if cursor.kind()? == Kind::String => peek.user = Some(cursor.string("a string")?.range()),
            _ => cursor.skip()?,
        }
        Ok(())
    })?;
    peek.metadata = Some(start..cursor.at());
    Ok(())
}

/// Picks out of an event of a stream what is to be known of it.
pub(crate) fn watch(frame: &Frame<'_>, seen: &mut Seen) {
    let data = &*frame.data;
    match frame.name {
        b"content_block_delta" => {
            let Some(at) = memmem::find(data, b"\"delta\":") else { return };
            let delta = &data[at + b"\"delta\":".len()..];
            let text = json::strings(delta, &["text", "partial_json", "thinking"]);
            seen.text += text as u64;
            seen.deltas += u64::from(text > 0);
        }
        b"message_start" => {
            if let Some(usage) = json::find(data, &["message", "usage"]) {
                read_usage(usage, seen.usage.get_or_insert_default());
            }
        }
        b"message_delta" => {
            if let Some(usage) = json::find(data, &["usage"]) {
                read_usage(usage, seen.usage.get_or_insert_default());
                seen.settled = true;
            }
            if let Some(word) = json::find(data, &["delta", "stop_reason"]) {
                seen.stop = word.as_str().map(stop);
            }
        }
        b"message_stop" => seen.done = true,
        b"error" => seen.fault = Some(Fault::of(json::find(data, &["error"]))),
        _ => {}
    }
}

pub(crate) fn stop(word: &str) -> Stop {
    match word {
        "max_tokens" | "model_context_window_exceeded" => Stop::Length,
        "stop_sequence" => Stop::Sequence,
        "tool_use" => Stop::Tools,
        "refusal" => Stop::Refusal,
        "pause_turn" => Stop::Pause,
        _ => Stop::End,
    }
}

/// The counts stand beside each other; those of a later report replace those of an earlier. Thoughts are part of the
/// output and not told apart.
fn read_usage(value: Value<'_>, usage: &mut TokenUsage) {
    let Ok(mut fields) = value.fields("an object") else { return };
    let mut set = |key: &str, field: &mut u64| *field = fields.count(key).ok().flatten().unwrap_or(*field);
    set("input_tokens", &mut usage.input);
    set("output_tokens", &mut usage.output);
    set("cache_read_input_tokens", &mut usage.cached_read);
    let mut written = usage.cached_write();
    set("cache_creation_input_tokens", &mut written);
    if let Ok(Some(mut creation)) = fields.fields("cache_creation") {
        let hour = creation.count("ephemeral_1h_input_tokens").ok().flatten();
        usage.cached_write_1h = hour.unwrap_or(usage.cached_write_1h);
    }
    usage.cached_write_5m = written.saturating_sub(usage.cached_write_1h);
    if let Ok(Some(mut tools)) = fields.fields("server_tool_use") {
        let searches = tools.count("web_search_requests").ok().flatten();
        usage.searches = searches.and_then(|count| count.try_into().ok()).unwrap_or(usage.searches);
    }
}

/// Usage and end of a whole answer.
pub(crate) fn glance(body: &[u8]) -> (Option<TokenUsage>, Option<Stop>) {
    let usage = json::find(body, &["usage"]).map(|value| {
        let mut usage = TokenUsage::default();
        read_usage(value, &mut usage);
        usage
    });
    (usage, super::word(body, &["stop_reason"], stop))
}
