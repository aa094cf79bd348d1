//! Whole answers, and the words they share with streams.

use base::TokenUsage;

use super::request::read_content;
use crate::json::{self, Out, Value};
use crate::malformed::Malformed;
use crate::neutral::{Answer, Choice, Content, Losses, Part, Thought};
use crate::stream::Stop;
use crate::translate::{Glance, Options};

pub(crate) fn glance(body: &[u8]) -> Result<Glance, Malformed> {
    let (mut usage, mut word, mut content) = (None, None, false);
    let error = json::unless_error(body, |cursor, key| {
        match key {
            "usage" => read_usage(Value::read(cursor)?, usage.insert(TokenUsage::default())),
            "stop_reason" => word = cursor.any_string()?,
            "content" => content = cursor.something()?,
            _ => cursor.skip()?,
        }
        Ok(())
    })?;
    // A model may have nothing to say, and that is an answer, too.
    let answers = (content || word.is_some()) && !error;
    Ok(Glance { usage, stop: word.as_deref().map(stop), answers })
}

pub(crate) fn read_answer<'a>(value: Value<'a>, lost: &mut Losses) -> Result<Answer<'a>, Malformed> {
    let mut fields = value.fields("an object")?;
    let word = fields.string("stop_reason")?;
    let choice = Choice {
        parts: read_content(Some(fields.need("content")?), lost)?,
        stop: word.as_deref().map(stop),
        sequence: fields.string("stop_sequence")?,
        logprobs: None,
    };
    let mut usage = None;
    if let Some(report) = fields.take("usage") {
        read_usage(report, usage.get_or_insert_default());
    }
    let answer = Answer {
        id: fields.string("id")?,
        model: fields.string("model")?,
        created: None,
        choices: vec![choice],
        usage,
    };
    for of_no_matter in ["type", "role", "container", "stop_details", "context_management"] {
        fields.take(of_no_matter);
    }
    lost.rest(&fields);
    Ok(answer)
}

/// Of several choices only the first can be written; a caller of this dialect cannot have asked for more.
pub(crate) fn write_answer(answer: &Answer<'_>, options: &Options<'_>, to: &mut Vec<u8>) {
    let none = Choice::default();
    let choice = answer.choices.first().unwrap_or(&none);
    Out::object(to, |out| {
        out.text("id", answer.id.as_deref().unwrap_or(options.id));
        out.text("type", "message");
        out.text("role", "assistant");
        out.text("model", answer.model.as_deref().unwrap_or(options.model));
        let said = choice.parts.iter().filter(|part| !matches!(&part.content, Content::Text(text) if text.is_empty()));
        out.items("content", said, |part, to| Out::object(to, |out| write_block(part, out)));
        out.text("stop_reason", stop_word(choice.stop.unwrap_or(Stop::End)));
        match &choice.sequence {
            Some(sequence) => out.text("stop_sequence", sequence),
            None => out.null("stop_sequence"),
        }
        out.fields("usage", |out| write_usage(&answer.usage.unwrap_or_default(), out));
    });
}

fn write_block(part: &Part<'_>, out: &mut Out<'_>) {
    match &part.content {
        Content::Text(text) | Content::Refusal(text) => {
            out.text("type", "text");
            out.text("text", text);
        }
        Content::Thought(Thought { text, redacted: true, .. }) => {
            out.text("type", "redacted_thinking");
            out.text("data", text);
        }
        Content::Thought(Thought { text, signature, .. }) => {
            out.text("type", "thinking");
            out.text("thinking", text);
            out.text("signature", signature.as_deref().unwrap_or_default());
        }
        Content::Call(call) => {
            out.text("type", "tool_use");
            out.text("id", &call.id);
            out.text("name", &call.name);
            call.write_arguments("input", part.at, &mut Losses::default(), out);
        }
        // No model that is read here says any.
        Content::Media(_) | Content::Outcome(_) => {
            out.text("type", "text");
            out.text("text", "");
        }
    }
}

pub(super) fn stop(word: &str) -> Stop {
    match word {
        "max_tokens" | "model_context_window_exceeded" => Stop::Length,
        "stop_sequence" => Stop::Sequence,
        "tool_use" => Stop::Tools,
        "refusal" => Stop::Refusal,
        "pause_turn" => Stop::Pause,
        _ => Stop::End,
    }
}

pub(super) fn stop_word(stop: Stop) -> &'static str {
    match stop {
        Stop::End => "end_turn",
        Stop::Sequence => "stop_sequence",
        Stop::Length => "max_tokens",
        Stop::Tools => "tool_use",
        Stop::Filter | Stop::Refusal => "refusal",
        Stop::Pause => "pause_turn",
    }
}

/// The counts of the prompt stand beside each other; the output includes its thoughts. What a later report says replaces
/// what an earlier one said.
pub(super) fn read_usage(value: Value<'_>, usage: &mut TokenUsage) {
    let Ok(mut fields) = value.fields("an object") else { return };
    let mut count = |key: &str| fields.count(key).ok().flatten();
    usage.input = count("input_tokens").unwrap_or(usage.input);
    usage.cached_read = count("cache_read_input_tokens").unwrap_or(usage.cached_read);
    let written = count("cache_creation_input_tokens").unwrap_or(usage.cached_write());
    let output = count("output_tokens").unwrap_or(usage.completion());
    let mut part = |key: &str, part: &str| {
        fields.fields(key).ok().flatten().and_then(|mut details| details.count(part).ok().flatten())
    };
    usage.cached_write_1h = part("cache_creation", "ephemeral_1h_input_tokens").unwrap_or(usage.cached_write_1h);
    usage.cached_write_5m = written.saturating_sub(usage.cached_write_1h);
    usage.reasoning = part("output_tokens_details", "thinking_tokens").unwrap_or(usage.reasoning).min(output);
    usage.output = output - usage.reasoning;
    let searches = part("server_tool_use", "web_search_requests");
    usage.searches = searches.and_then(|count| count.try_into().ok()).unwrap_or(usage.searches);
}

/// Sound and pictures are not told from text.
pub(super) fn write_usage(usage: &TokenUsage, out: &mut Out<'_>) {
    out.number("input_tokens", usage.prompt().saturating_sub(usage.cached_read).saturating_sub(usage.cached_write()));
    out.number("cache_creation_input_tokens", usage.cached_write());
    out.number("cache_read_input_tokens", usage.cached_read);
    out.number("output_tokens", usage.completion());
    if usage.reasoning > 0 {
        out.fields("output_tokens_details", |details| details.number("thinking_tokens", usage.reasoning));
    }
}
