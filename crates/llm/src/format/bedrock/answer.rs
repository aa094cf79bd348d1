//! Whole answers, and the words they share with streams.

use base::TokenUsage;

use super::request::{read_blocks, write_call, write_thought};
use crate::json::{self, Out, Value};
use crate::malformed::Malformed;
use crate::neutral::{Answer, Choice, Content, Losses, Part};
use crate::stream::Stop;
use crate::translate::{Glance, Options};

pub(crate) fn glance(body: &[u8]) -> Result<Glance, Malformed> {
    let (mut usage, mut word, mut answers) = (None, None, false);
    let error = json::unless_error(body, |cursor, key| {
        match key {
            "usage" => usage = read_usage(Value::read(cursor)?),
            "stopReason" => word = cursor.any_string()?,
            "output" => answers = cursor.something()?,
            _ => cursor.skip()?,
        }
        Ok(())
    })?;
    Ok(Glance { usage, stop: word.as_deref().map(stop), answers: answers && !error })
}

pub(crate) fn read_answer<'a>(value: Value<'a>, lost: &mut Losses) -> Result<Answer<'a>, Malformed> {
    let mut fields = value.fields("an object")?;
    let mut message = fields.need("output")?.fields("an object")?.need("message")?.fields("an object")?;
    message.take("role");
    let choice = Choice {
        parts: read_blocks(Some(message.need("content")?), lost)?,
        stop: fields.string("stopReason")?.map(|word| stop(&word)),
        ..Choice::default()
    };
    lost.rest(&message);
    let usage = fields.take("usage").and_then(read_usage);
    for of_no_matter in ["metrics", "performanceConfig", "serviceTier"] {
        fields.take(of_no_matter);
    }
    lost.rest(&fields);
    Ok(Answer { choices: vec![choice], usage, ..Answer::default() })
}

/// Only the first of several choices can be told; a caller of this dialect cannot have asked for more. Id and model have
/// no place, nor is there a latency of this provider's to be told.
pub(crate) fn write_answer(answer: &Answer<'_>, _: &Options<'_>, to: &mut Vec<u8>) {
    let nothing = Choice::default();
    let choice = answer.choices.first().unwrap_or(&nothing);
    Out::object(to, |out| {
        out.fields("output", |output| {
            output.fields("message", |message| {
                message.text("role", "assistant");
                let said =
                    choice.parts.iter().filter(|part| !matches!(part.content, Content::Media(_) | Content::Outcome(_)));
                message.items("content", said, |part, to| Out::object(to, |out| write_block(part, out)));
            });
        });
        out.text("stopReason", stop_word(choice.stop.unwrap_or(Stop::End)));
        out.fields("usage", |out| write_usage(&answer.usage.unwrap_or_default(), out));
    });
}

fn write_block(part: &Part<'_>, out: &mut Out<'_>) {
    match &part.content {
        Content::Text(text) | Content::Refusal(text) => out.text("text", text),
        Content::Thought(thought) => write_thought(thought, out),
        Content::Call(call) => {
            out.fields("toolUse", |out| write_call(call, part.at, &mut Losses::default(), out));
        }
        Content::Media(_) | Content::Outcome(_) => {}
    }
}

pub(super) fn stop(word: &str) -> Stop {
    match word {
        "max_tokens" | "model_context_window_exceeded" => Stop::Length,
        "stop_sequence" => Stop::Sequence,
        "tool_use" => Stop::Tools,
        "guardrail_intervened" | "content_filtered" => Stop::Filter,
        "refusal" => Stop::Refusal,
        _ => Stop::End,
    }
}

pub(super) fn stop_word(stop: Stop) -> &'static str {
    match stop {
        Stop::End | Stop::Pause => "end_turn",
        Stop::Sequence => "stop_sequence",
        Stop::Length => "max_tokens",
        Stop::Tools => "tool_use",
        Stop::Filter | Stop::Refusal => "content_filtered",
    }
}

/// The counts stand beside each other. Thoughts are not told from the rest.
pub(super) fn read_usage(value: Value<'_>) -> Option<TokenUsage> {
    let mut fields = value.fields("an object").ok()?;
    let mut count = |key: &str| fields.count(key).ok().flatten();
    let (input, output) = (count("inputTokens")?, count("outputTokens").unwrap_or(0));
    let (cached_read, written) = (count("cacheReadInputTokens"), count("cacheWriteInputTokens").unwrap_or(0));
    let mut cached_write_1h = 0;
    for detail in fields.array("cacheDetails").ok().flatten().unwrap_or_default() {
        let Ok(mut detail) = detail.fields("an object") else { continue };
        if detail.string("ttl").ok().flatten().is_some_and(|ttl| ttl == "1h") {
            cached_write_1h += detail.count("inputTokens").ok().flatten().unwrap_or(0);
        }
    }
    let cached_write_1h = cached_write_1h.min(written);
    Some(TokenUsage {
        input,
        output,
        cached_read: cached_read.unwrap_or(0),
        cached_write_5m: written - cached_write_1h,
        cached_write_1h,
        ..TokenUsage::default()
    })
}

pub(super) fn write_usage(usage: &TokenUsage, out: &mut Out<'_>) {
    let written = usage.cached_write();
    out.number("inputTokens", usage.prompt().saturating_sub(usage.cached_read).saturating_sub(written));
    out.number("outputTokens", usage.completion());
    out.number("totalTokens", usage.total());
    out.number("cacheReadInputTokens", usage.cached_read);
    out.number("cacheWriteInputTokens", written);
    if written > 0 {
        let details = [("5m", usage.cached_write_5m), ("1h", usage.cached_write_1h)];
        let details = details.into_iter().filter(|(_, count)| *count > 0);
        out.items("cacheDetails", details, |(ttl, count), to| {
            Out::object(to, |out| {
                out.text("ttl", ttl);
                out.number("inputTokens", count);
            });
        });
    }
}
