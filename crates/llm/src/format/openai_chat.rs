//! OpenAI's chat completions, the dialect that most providers speak beside their own.

use base::TokenUsage;
use memchr::memmem;

use crate::json::{self, Cursor, Fields, Value};
use crate::malformed::Malformed;
use crate::peek::Peek;
use crate::sse::Frame;
use crate::stream::{Fault, Seen, Stop};

pub(crate) fn peek(cursor: &mut Cursor<'_>, peek: &mut Peek) -> Result<(), Malformed> {
    let mut newer = None;
    cursor.object("an object", |cursor, key, _| {
        match &**key {
            "model" => peek.model = Some(cursor.string("the name of a model, which is a string")?.range()),
            "messages" => peek.messages(cursor)?,
            "stream" => peek.stream = cursor.maybe_bool()?.unwrap_or(false),
            "stream_options" => stream_options(cursor, peek)?,
            // The older name; who sends both means the newer.
            "max_completion_tokens" => newer = cursor.maybe_count()?,
            "max_tokens" => peek.max_output = cursor.maybe_count()?,
            "n" => peek.choices = cursor.maybe_count()?.unwrap_or(1),
            "tools" | "functions" => peek.tools(cursor)?,
            "response_format" => peek.wants.json_schema = Peek::kind_is(cursor, "json_schema")?,
            "reasoning_effort" => {
                peek.wants.reasoning = cursor.maybe_string()?.is_some_and(|effort| effort.decode() != "none");
            }
            "audio" => peek.wants.audio |= cursor.maybe_range()?.is_some(),
            "user" => peek.user = cursor.maybe_string()?.map(|text| text.range()),
            // What `user` is called by now.
            "safety_identifier" => {
                let user = cursor.maybe_string()?.map(|text| text.range());
                peek.user = peek.user.take().or(user);
            }
            "metadata" => peek.metadata = cursor.maybe_range()?,
            _ => cursor.skip()?,
        }
        Ok(())
    })?;
    peek.max_output = newer.or(peek.max_output);
    Ok(())
}

fn stream_options(cursor: &mut Cursor<'_>, peek: &mut Peek) -> Result<(), Malformed> {
    let start = cursor.place();
    if !cursor.null() {
        cursor.object("an object", |cursor, key, _| match &**key {
            "include_usage" => {
                let start = cursor.place();
                peek.usage_asked = cursor.maybe_bool()?.unwrap_or(false);
                peek.places.include_usage = Some(start..cursor.at());
                Ok(())
            }
            _ => cursor.skip(),
        })?;
    }
    peek.places.stream_options = Some(start..cursor.at());
    Ok(())
}

/// Picks out of an event of a stream what is to be known of it.
pub(crate) fn watch(frame: &Frame<'_>, seen: &mut Seen) {
    let data = &*frame.data;
    if data == b"[DONE]" {
        seen.done = true;
        return;
    }
    // A chunk has one delta for each choice it is about, nearly always one.
    let mut rest = data;
    while let Some(at) = memmem::find(rest, b"\"delta\":") {
        rest = &rest[at + b"\"delta\":".len()..];
        let text = json::strings(rest, &["content", "refusal", "reasoning_content", "reasoning", "arguments"]);
        seen.text += text as u64;
        seen.deltas += u64::from(text > 0);
        // `null` until the last.
        if let Some(at) = memmem::find(rest, b"\"finish_reason\":\"") {
            let word = &rest[at + b"\"finish_reason\":\"".len()..];
            seen.stop = stop(word.split(|byte| *byte == b'"').next().unwrap_or_default());
        }
    }
    if memmem::find(data, b"\"usage\":").is_some() {
        let usage =
            json::find(data, &["usage"]).filter(Value::is_object).or_else(|| json::find(data, &["x_groq", "usage"]));
        if let Some(usage) = usage.and_then(read_usage) {
            seen.usage = Some(usage);
            seen.settled = true;
        }
    }
    if data.starts_with(b"{\"error\":") {
        seen.fault = Some(Fault::of(json::find(data, &["error"])));
    }
}

/// Whether an event is the one that comes for `include_usage` and brings nothing else.
pub(crate) fn is_usage_only(data: &[u8]) -> bool {
    memmem::find(data, b"\"usage\":").is_some()
        && json::find(data, &["usage"]).is_some_and(|usage| usage.is_object())
        && json::find(data, &["choices"]).is_some_and(|choices| choices.is_empty_array())
}

pub(crate) fn stop(word: &[u8]) -> Option<Stop> {
    match word {
        b"stop" => Some(Stop::End),
        b"length" => Some(Stop::Length),
        b"tool_calls" | b"function_call" => Some(Stop::Tools),
        b"content_filter" => Some(Stop::Filter),
        b"" => None,
        // Others have words of their own; that it ended is what they share.
        _ => Some(Stop::End),
    }
}

/// Totals include what the details name, except where a server says otherwise by its own sum.
fn read_usage(value: Value<'_>) -> Option<TokenUsage> {
    let mut fields = value.fields("an object").ok()?;
    let mut count = |key: &str| fields.count(key).ok().flatten();
    let prompt = count("prompt_tokens")?;
    let completion = count("completion_tokens").unwrap_or(0);
    let total = count("total_tokens");
    // DeepSeek's word.
    let hits = count("prompt_cache_hit_tokens");
    let mut details = |key: &str| fields.fields(key).ok().flatten();
    let (mut input, mut output) = (details("prompt_tokens_details"), details("completion_tokens_details"));
    let part = |details: &mut Option<Fields<'_>>, key: &str| {
        details.as_mut().and_then(|details| details.count(key).ok().flatten())
    };
    let cached_read = part(&mut input, "cached_tokens").or(hits).unwrap_or(0);
    let cached_write_5m = part(&mut input, "cache_write_tokens").unwrap_or(0);
    let input_audio = part(&mut input, "audio_tokens").unwrap_or(0);
    let output_audio = part(&mut output, "audio_tokens").unwrap_or(0);
    let reasoning = part(&mut output, "reasoning_tokens").unwrap_or(0);
    // xAI reports thoughts beside the completion instead of in it.
    let beside = reasoning > 0 && total == Some(prompt.saturating_add(completion).saturating_add(reasoning));
    let inside = if beside { 0 } else { reasoning };
    Some(TokenUsage {
        input: prompt.saturating_sub(cached_read).saturating_sub(cached_write_5m).saturating_sub(input_audio),
        cached_read,
        cached_write_5m,
        input_audio,
        output: completion.saturating_sub(inside).saturating_sub(output_audio),
        reasoning,
        output_audio,
        ..TokenUsage::default()
    })
}

/// Usage and end of a whole answer.
pub(crate) fn glance(body: &[u8]) -> (Option<TokenUsage>, Option<Stop>) {
    let usage = json::find(body, &["usage"]).and_then(read_usage);
    let first = json::find(body, &["choices"]).and_then(|choices| choices.array("an array").ok()?.into_iter().next());
    let word = first.and_then(|choice| choice.fields("an object").ok()?.string("finish_reason").ok()?);
    (usage, word.and_then(|word| stop(word.as_bytes())))
}
