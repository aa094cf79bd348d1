//! Whole answers, and the words they share with streams.

use std::borrow::Cow;

use base::TokenUsage;

use super::request::{read_call, read_content, read_thoughts, write_call};
use crate::json::{self, Fields, Out, Value, items_to};
use crate::malformed::Malformed;
use crate::neutral::{Answer, Choice, Content, Logprob, Losses, Part, Thought};
use crate::stream::Stop;
use crate::translate::{Glance, Options};

pub(crate) fn glance(body: &[u8]) -> Result<Glance, Malformed> {
    let (mut usage, mut word, mut answers) = (None, None, false);
    let error = json::unless_error(body, |cursor, key| {
        match key {
            "usage" => usage = read_usage(Value::read(cursor)?),
            "choices" => {
                answers = cursor.first(|choice| choice.string_of("finish_reason").map(|reason| word = reason))?;
            }
            _ => cursor.skip()?,
        }
        Ok(())
    })?;
    Ok(Glance { usage, stop: word.and_then(|word| stop(word.as_bytes())), answers: answers && !error })
}

pub(crate) fn read_answer<'a>(value: Value<'a>, lost: &mut Losses) -> Result<Answer<'a>, Malformed> {
    let mut fields = value.fields("an object")?;
    let mut answer = Answer {
        id: fields.string("id")?,
        model: fields.string("model")?,
        created: fields.count("created")?,
        usage: fields.take("usage").and_then(read_usage),
        choices: Vec::new(),
    };
    for choice in fields.need("choices")?.array("an array of choices")? {
        answer.choices.push(read_choice(choice, lost)?);
    }
    for of_no_matter in ["object", "system_fingerprint", "service_tier"] {
        fields.take(of_no_matter);
    }
    lost.rest(&fields);
    Ok(answer)
}

fn read_choice<'a>(value: Value<'a>, lost: &mut Losses) -> Result<Choice<'a>, Malformed> {
    let mut fields = value.fields("a choice, which is an object")?;
    fields.take("index");
    let word = fields.string("finish_reason")?;
    let mut choice = Choice { stop: word.and_then(|word| stop(word.as_bytes())), ..Choice::default() };
    if let Some(logprobs) = fields.take("logprobs") {
        choice.logprobs = read_logprobs(logprobs)?;
    }
    let mut message = fields.need("message")?.fields("a message, which is an object")?;
    message.take("role");
    choice.parts = read_thoughts(&mut message, lost)?;
    choice.parts.extend(read_content(message.take("content"), lost)?);
    if let Some(refusal) = message.take("refusal") {
        choice.parts.push(Part::new(refusal.at, Content::Refusal(refusal.string("a string")?)));
    }
    for call in message.array("tool_calls")?.unwrap_or_default() {
        let at = call.at;
        match read_call(call, lost)? {
            Some(call) => choice.parts.push(Part::new(at, Content::Call(call))),
            None => lost.add(at),
        }
    }
    // Some servers say that they stopped where they want a tool to be called.
    let calls = choice.parts.iter().any(|part| matches!(part.content, Content::Call(_)));
    if calls && choice.stop == Some(Stop::End) {
        choice.stop = Some(Stop::Tools);
    }
    if message.take("annotations").is_some_and(|annotations| !annotations.is_empty_array()) {
        lost.add(message.at());
    }
    lost.rest(&message);
    lost.rest(&fields);
    Ok(choice)
}

pub(super) fn read_logprobs<'a>(value: Value<'a>) -> Result<Option<Vec<Logprob<'a>>>, Malformed> {
    let content = value.fields("an object")?.array("content")?;
    content.map(|tokens| tokens.into_iter().map(read_logprob).collect()).transpose()
}

fn read_logprob(value: Value<'_>) -> Result<Logprob<'_>, Malformed> {
    let mut fields = value.fields("an object")?;
    let top = fields.array("top_logprobs")?.unwrap_or_default();
    Ok(Logprob {
        token: fields.need_string("token")?,
        logprob: fields.need("logprob")?.number()?,
        bytes: fields.take("bytes").map(|bytes| bytes.raw),
        top: top.into_iter().map(read_logprob).collect::<Result<_, _>>()?,
    })
}

pub(crate) fn write_answer(answer: &Answer<'_>, options: &Options<'_>, to: &mut Vec<u8>) {
    Out::object(to, |out| {
        out.text("id", answer.id.as_deref().unwrap_or(options.id));
        out.text("object", "chat.completion");
        out.number("created", answer.created.unwrap_or(options.now));
        out.text("model", answer.model.as_deref().unwrap_or(options.model));
        out.items("choices", answer.choices.iter().enumerate(), |(index, choice), to| {
            Out::object(to, |out| {
                out.number("index", index);
                out.fields("message", |message| write_message(choice, message));
                match &choice.logprobs {
                    Some(logprobs) => write_logprobs(logprobs, out),
                    None => out.null("logprobs"),
                }
                out.text("finish_reason", stop_word(choice.stop.unwrap_or(Stop::End)));
            });
        });
        if let Some(usage) = &answer.usage {
            out.fields("usage", |out| write_usage(usage, out));
        }
    });
}

fn write_message(choice: &Choice<'_>, out: &mut Out<'_>) {
    out.text("role", "assistant");
    let mut said = String::new();
    let mut refusal: Option<&str> = None;
    let mut thoughts = Vec::new();
    let mut calls = Vec::new();
    for part in &choice.parts {
        match &part.content {
            Content::Text(text) => said.push_str(text),
            Content::Refusal(text) => refusal = Some(text),
            Content::Thought(thought) => thoughts.push(thought),
            Content::Call(call) => calls.push(call),
            // No model that is read here says any.
            Content::Media(_) | Content::Outcome(_) => {}
        }
    }
    match said.is_empty() && (refusal.is_some() || !calls.is_empty()) {
        true => out.null("content"),
        false => out.text("content", &said),
    }
    match refusal {
        Some(refusal) => out.text("refusal", refusal),
        None => out.null("refusal"),
    }
    if !thoughts.is_empty() {
        let plain: Vec<&str> =
            thoughts.iter().filter(|thought| !thought.redacted).map(|thought| &*thought.text).collect();
        out.text("reasoning_content", &plain.join("\n"));
        if thoughts.iter().any(|thought| thought.redacted || thought.signature.is_some()) {
            out.items("thinking_blocks", thoughts, |thought, to| Out::object(to, |out| write_thought(thought, out)));
        }
    }
    if !calls.is_empty() {
        out.items("tool_calls", calls, |call, to| Out::object(to, |out| write_call(call, out)));
    }
}

fn write_thought(thought: &Thought<'_>, out: &mut Out<'_>) {
    if thought.redacted {
        out.text("type", "redacted_thinking");
        return out.text("data", &thought.text);
    }
    out.text("type", "thinking");
    out.text("thinking", &thought.text);
    if let Some(signature) = &thought.signature {
        out.text("signature", signature);
    }
}

pub(super) fn write_logprobs(logprobs: &[Logprob<'_>], out: &mut Out<'_>) {
    out.fields("logprobs", |out| {
        let to = out.key("content");
        items_to(to, logprobs, |logprob, to| write_logprob(logprob, true, to));
        out.null("refusal");
    });
}

fn write_logprob(logprob: &Logprob<'_>, outer: bool, to: &mut Vec<u8>) {
    Out::object(to, |out| {
        out.text("token", &logprob.token);
        out.raw("logprob", logprob.logprob);
        match logprob.bytes {
            Some(bytes) => out.raw("bytes", bytes),
            None => items_to(out.key("bytes"), logprob.token.bytes(), |byte, to| {
                to.extend_from_slice(byte.to_string().as_bytes());
            }),
        }
        if outer {
            out.items("top_logprobs", &logprob.top, |logprob, to| write_logprob(logprob, false, to));
        }
    });
}

/// Why it stopped, in this dialect's words. It has none for stopping at a word, for pausing, or for declining.
pub(super) fn stop_word(stop: Stop) -> &'static str {
    match stop {
        Stop::End | Stop::Sequence | Stop::Pause => "stop",
        Stop::Length => "length",
        Stop::Tools => "tool_calls",
        Stop::Filter | Stop::Refusal => "content_filter",
    }
}

pub(super) fn stop(word: &[u8]) -> Option<Stop> {
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

/// Totals include what the details name.
pub(super) fn write_usage(usage: &TokenUsage, out: &mut Out<'_>) {
    out.number("prompt_tokens", usage.prompt());
    out.number("completion_tokens", usage.completion());
    out.number("total_tokens", usage.total());
    out.fields("prompt_tokens_details", |details| {
        details.number("cached_tokens", usage.cached_read);
        details.number("audio_tokens", usage.input_audio);
        if usage.cached_write() > 0 {
            details.number("cache_write_tokens", usage.cached_write());
        }
    });
    out.fields("completion_tokens_details", |details| {
        details.number("reasoning_tokens", usage.reasoning);
        details.number("audio_tokens", usage.output_audio);
    });
}

/// Totals include what the details name, except where a server says otherwise by its own sum.
pub(super) fn read_usage(value: Value<'_>) -> Option<TokenUsage> {
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
    let input_image = part(&mut input, "image_tokens").unwrap_or(0);
    let output_audio = part(&mut output, "audio_tokens").unwrap_or(0);
    let reasoning = part(&mut output, "reasoning_tokens").unwrap_or(0);
    // xAI reports thoughts beside the completion instead of in it.
    let beside = reasoning > 0 && total == Some(prompt.saturating_add(completion).saturating_add(reasoning));
    let inside = if beside { 0 } else { reasoning };
    Some(TokenUsage {
        input: less(prompt, &[cached_read, cached_write_5m, input_audio, input_image]),
        cached_read,
        cached_write_5m,
        input_audio,
        input_image,
        output: less(completion, &[inside, output_audio]),
        reasoning,
        output_audio,
        ..TokenUsage::default()
    })
}

fn less(total: u64, parts: &[u64]) -> u64 {
    parts.iter().fold(total, |rest, part| rest.saturating_sub(*part))
}

/// An id for a call that came without one.
pub(super) fn call_id(answer: &str, number: u32) -> Cow<'static, str> {
    Cow::Owned(format!("call_{answer}_{number}"))
}
