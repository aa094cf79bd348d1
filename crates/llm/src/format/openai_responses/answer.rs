//! Whole answers, and the items they share with streams.

use base::TokenUsage;

use super::REDACTED;
use super::request::{read_call, read_thought, write_call};
use crate::json::{self, Fields, Out, Value};
use crate::malformed::Malformed;
use crate::neutral::{Answer, Call, Choice, Content, Logprob, Losses, Part, Thought};
use crate::stream::Stop;
use crate::translate::{Glance, Options};

pub(crate) fn glance(body: &[u8]) -> Result<Glance, Malformed> {
    let (mut usage, mut reason, mut status) = (None, None, None);
    let error = json::unless_error(body, |cursor, key| {
        match key {
            "usage" => usage = read_usage(Value::read(cursor)?),
            "incomplete_details" => reason = cursor.string_of("reason")?,
            "status" => status = cursor.any_string()?,
            _ => cursor.skip()?,
        }
        Ok(())
    })?;
    let stop = status.map(|status| stop(&status, reason.as_deref(), false));
    // What has failed has an error.
    Ok(Glance { usage, answers: stop.is_some() && !error, stop })
}

pub(crate) fn read_answer<'a>(value: Value<'a>, lost: &mut Losses) -> Result<Answer<'a>, Malformed> {
    let mut fields = value.fields("an object")?;
    if let Some(mut error) = fields.fields("error")? {
        let what = error.string("message")?.unwrap_or_default().into_owned();
        return Err(Malformed::new(what, error.at(), "an answer that has not failed"));
    }
    let mut choice = Choice::default();
    for item in fields.need("output")?.array("an array of items")? {
        let at = item.at;
        read_item(item.fields("an item, which is an object")?, at, &mut choice, lost)?;
    }
    let calls = choice.parts.iter().any(|part| matches!(part.content, Content::Call(_)));
    let reason =
        fields.fields("incomplete_details")?.map(|mut details| details.string("reason")).transpose()?.flatten();
    choice.stop = fields.string("status")?.map(|status| stop(&status, reason.as_deref(), calls));
    Ok(Answer {
        id: fields.string("id")?,
        model: fields.string("model")?,
        created: created(&mut fields)?,
        usage: fields.take("usage").and_then(read_usage),
        choices: vec![choice],
        // What else stands there repeats the request.
    })
}

/// It has been a fraction.
pub(super) fn created(fields: &mut Fields<'_>) -> Result<Option<u64>, Malformed> {
    let Some(at) = fields.take("created_at") else { return Ok(None) };
    // The cast saturates.
    Ok(at.number()?.parse::<f64>().ok().map(|seconds| seconds as u64))
}

fn read_item<'a>(mut item: Fields<'a>, at: usize, choice: &mut Choice<'a>, lost: &mut Losses) -> Result<(), Malformed> {
    match &*item.need_string("type")? {
        "message" => {
            for part in item.need("content")?.array("an array of parts")? {
                let at = part.at;
                let mut part = part.fields("a part, which is an object")?;
                let content = match &*part.need_string("type")? {
                    "output_text" => Content::Text(part.need_string("text")?),
                    "refusal" => Content::Refusal(part.need_string("refusal")?),
                    _ => {
                        lost.add(at);
                        continue;
                    }
                };
                for logprob in part.array("logprobs")?.unwrap_or_default() {
                    choice.logprobs.get_or_insert_default().push(read_logprob(logprob)?);
                }
                part.take("annotations").filter(|all| !all.is_empty_array()).iter().for_each(|all| lost.add(all.at));
                lost.rest(&part);
                choice.parts.push(Part::new(at, content));
            }
        }
        "function_call" => choice.parts.push(Part::new(at, Content::Call(read_call(&mut item)?))),
        "reasoning" => {
            let mut thought = read_thought(&mut item)?;
            // OpenAI's own proof is worth nothing elsewhere.
            if !thought.redacted {
                thought.signature = None;
            }
            if !thought.text.is_empty() {
                choice.parts.push(Part::new(at, Content::Thought(thought)));
            }
        }
        // What the provider's own tools do has no word elsewhere.
        _ => lost.add(at),
    }
    Ok(())
}

pub(super) fn read_logprob(value: Value<'_>) -> Result<Logprob<'_>, Malformed> {
    let mut fields = value.fields("an object")?;
    let top = fields.array("top_logprobs")?.unwrap_or_default();
    Ok(Logprob {
        token: fields.string("token")?.unwrap_or_default(),
        logprob: fields.need("logprob")?.number()?,
        bytes: fields.take("bytes").map(|bytes| bytes.raw),
        top: top.into_iter().map(read_logprob).collect::<Result<_, _>>()?,
    })
}

/// Of several choices the first; a caller of this dialect cannot have asked for more.
pub(crate) fn write_answer(answer: &Answer<'_>, options: &Options<'_>, to: &mut Vec<u8>) {
    let nothing = Choice::default();
    let choice = answer.choices.first().unwrap_or(&nothing);
    let id = answer.id.as_deref().unwrap_or(options.id);
    let mut items = Vec::new();
    // Texts that follow each other are one message.
    for parts in choice.parts.chunk_by(|one, other| is_said(&one.content) && is_said(&other.content)) {
        let own = item_id(&parts[0].content, id, items.len());
        let mut item = Vec::new();
        match &parts[0].content {
            Content::Text(_) | Content::Refusal(_) => {
                let logprobs = choice.logprobs.as_deref().unwrap_or_default();
                write_said(&own, "completed", parts.iter().map(|part| &part.content), logprobs, &mut item);
            }
            Content::Thought(thought) => write_thought(&own, thought, &mut item),
            Content::Call(call) => write_call_item(&own, "completed", call, &mut item),
            // No model that is read here says any.
            Content::Media(_) | Content::Outcome(_) => continue,
        }
        items.push(item);
    }
    Out::object(to, |out| {
        let told = Told {
            id,
            model: answer.model.as_deref().unwrap_or(options.model),
            created: answer.created.unwrap_or(options.now),
        };
        write_response(&told, Status::of(choice.stop.unwrap_or(Stop::End)), &items, answer.usage.as_ref(), out);
    });
}

fn is_said(content: &Content<'_>) -> bool {
    matches!(content, Content::Text(_) | Content::Refusal(_))
}

fn item_id(content: &Content<'_>, answer: &str, index: usize) -> String {
    let kind = match content {
        Content::Thought(_) => "rs",
        Content::Call(_) => "fc",
        _ => "msg",
    };
    format!("{kind}_{answer}_{index}")
}

/// What is told of a response throughout.
pub(super) struct Told<'t> {
    pub(super) id: &'t str,
    pub(super) model: &'t str,
    pub(super) created: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    InProgress,
    Completed,
    /// With the reason.
    Incomplete(&'static str),
}

impl Status {
    pub(super) fn of(stop: Stop) -> Status {
        match stop {
            Stop::End | Stop::Sequence | Stop::Tools | Stop::Pause => Status::Completed,
            Stop::Length => Status::Incomplete("max_output_tokens"),
            Stop::Filter | Stop::Refusal => Status::Incomplete("content_filter"),
        }
    }

    pub(super) const fn word(self) -> &'static str {
        match self {
            Status::InProgress => "in_progress",
            Status::Completed => "completed",
            Status::Incomplete(_) => "incomplete",
        }
    }
}

/// A response with all the fields that the SDKs count on; of what they repeat of the request, what is the same for all.
pub(super) fn write_response(
    told: &Told<'_>,
    status: Status,
    items: &[Vec<u8>],
    usage: Option<&TokenUsage>,
    out: &mut Out<'_>,
) {
    out.text("id", told.id);
    out.text("object", "response");
    out.number("created_at", told.created);
    out.text("status", status.word());
    out.null("error");
    match status {
        Status::Incomplete(reason) => out.fields("incomplete_details", |details| details.text("reason", reason)),
        Status::InProgress | Status::Completed => out.null("incomplete_details"),
    }
    out.null("instructions");
    out.fields("metadata", |_| {});
    out.text("model", told.model);
    out.items("output", items, |item, to| to.extend_from_slice(item));
    out.bool("parallel_tool_calls", true);
    out.null("temperature");
    out.text("tool_choice", "auto");
    out.items("tools", [(); 0], |(), _| {});
    out.null("top_p");
    match usage {
        Some(usage) => out.fields("usage", |out| write_usage(usage, out)),
        None => out.null("usage"),
    }
}

pub(super) fn write_said<'p, 'a: 'p>(
    id: &str,
    status: &str,
    parts: impl IntoIterator<Item = &'p Content<'a>>,
    logprobs: &[Logprob<'_>],
    to: &mut Vec<u8>,
) {
    Out::object(to, |out| {
        out.text("id", id);
        out.text("type", "message");
        out.text("status", status);
        out.text("role", "assistant");
        let mut logprobs = Some(logprobs);
        out.items("content", parts, |part, to| write_part(part, logprobs.take().unwrap_or_default(), to));
    });
}

pub(super) fn write_part(content: &Content<'_>, logprobs: &[Logprob<'_>], to: &mut Vec<u8>) {
    Out::object(to, |out| match content {
        Content::Refusal(text) => {
            out.text("type", "refusal");
            out.text("refusal", text);
        }
        Content::Text(text) => {
            out.text("type", "output_text");
            out.text("text", text);
            out.items("annotations", [(); 0], |(), _| {});
            out.items("logprobs", logprobs, |logprob, to| write_logprob(logprob, true, to));
        }
        _ => {}
    });
}

pub(super) fn write_logprob(logprob: &Logprob<'_>, outer: bool, to: &mut Vec<u8>) {
    Out::object(to, |out| {
        out.text("token", &logprob.token);
        match logprob.bytes {
            Some(bytes) => out.raw("bytes", bytes),
            None => out.items("bytes", logprob.token.bytes(), |byte, to| {
                to.extend_from_slice(byte.to_string().as_bytes());
            }),
        }
        out.raw("logprob", logprob.logprob);
        if outer {
            out.items("top_logprobs", &logprob.top, |logprob, to| write_logprob(logprob, false, to));
        }
    });
}

pub(super) fn write_thought(id: &str, thought: &Thought<'_>, to: &mut Vec<u8>) {
    Out::object(to, |out| {
        out.text("id", id);
        out.text("type", "reasoning");
        let shown = Some(&thought.text).filter(|text| !thought.redacted && !text.is_empty());
        out.items("summary", shown, |text, to| {
            Out::object(to, |part| {
                part.text("type", "summary_text");
                part.text("text", text);
            });
        });
        match (&thought.signature, thought.redacted) {
            (_, true) => out.text("encrypted_content", &format!("{REDACTED}{}", thought.text)),
            (Some(signature), false) => out.text("encrypted_content", signature),
            (None, false) => {}
        }
    });
}

pub(super) fn write_call_item(id: &str, status: &str, call: &Call<'_>, to: &mut Vec<u8>) {
    Out::object(to, |out| {
        out.text("id", id);
        out.text("type", "function_call");
        out.text("status", status);
        match status {
            "in_progress" => {
                out.text("call_id", &call.id);
                out.text("name", &call.name);
                out.text("arguments", "");
            }
            _ => write_call(call, out),
        }
    });
}

pub(super) fn stop(status: &str, reason: Option<&str>, calls: bool) -> Stop {
    match (status, reason) {
        ("incomplete", Some("content_filter")) => Stop::Filter,
        ("incomplete", _) => Stop::Length,
        _ if calls => Stop::Tools,
        _ => Stop::End,
    }
}

/// Totals include what the details name.
pub(super) fn read_usage(value: Value<'_>) -> Option<TokenUsage> {
    let mut fields = value.fields("an object").ok()?;
    let mut count = |key: &str| fields.count(key).ok().flatten();
    let (input, output) = (count("input_tokens")?, count("output_tokens").unwrap_or(0));
    let mut details = fields.fields("input_tokens_details").ok().flatten();
    let mut part = |key: &str| details.as_mut().and_then(|details| details.count(key).ok().flatten()).unwrap_or(0);
    let (cached_read, cached_write_5m) = (part("cached_tokens"), part("cache_write_tokens"));
    let reasoning = fields
        .fields("output_tokens_details")
        .ok()
        .flatten()
        .and_then(|mut details| details.count("reasoning_tokens").ok().flatten())
        .unwrap_or(0);
    Some(TokenUsage {
        input: input.saturating_sub(cached_read).saturating_sub(cached_write_5m),
        cached_read,
        cached_write_5m,
        output: output.saturating_sub(reasoning),
        reasoning,
        ..TokenUsage::default()
    })
}

pub(super) fn write_usage(usage: &TokenUsage, out: &mut Out<'_>) {
    out.number("input_tokens", usage.prompt());
    out.fields("input_tokens_details", |details| {
        details.number("cached_tokens", usage.cached_read);
        details.number("cache_write_tokens", usage.cached_write());
    });
    out.number("output_tokens", usage.completion());
    out.fields("output_tokens_details", |details| details.number("reasoning_tokens", usage.reasoning));
    out.number("total_tokens", usage.total());
}
