//! Whole answers, which are also what a stream is made of.

use base::TokenUsage;

use super::request::{Ids, read_parts, write_function_call};
use super::{fields, maybe_fields};
use crate::json::{self, Fields, Out, Value, items_to};
use crate::malformed::Malformed;
use crate::neutral::{Answer, Choice, Content, Logprob, Losses, Part, Thought};
use crate::stream::Stop;
use crate::translate::{Glance, Options};

pub(crate) fn glance(body: &[u8]) -> Result<Glance, Malformed> {
    let (mut usage, mut word, mut answers) = (None, None, false);
    let error = json::unless_error(body, |cursor, key| {
        match key {
            "usageMetadata" => usage = read_usage(Value::read(cursor)?),
            "candidates" => {
                answers |= cursor.first(|candidate| candidate.string_of("finishReason").map(|it| word = it))?;
            }
            // Of a prompt that is blocked there is no candidate.
            "promptFeedback" => answers |= cursor.something()?,
            _ => cursor.skip()?,
        }
        Ok(())
    })?;
    Ok(Glance { usage, stop: word.map(|word| stop(word.as_bytes())), answers: answers && !error })
}

pub(crate) fn read_answer<'a>(value: Value<'a>, lost: &mut Losses) -> Result<Answer<'a>, Malformed> {
    let mut body = fields(value)?;
    let mut answer = Answer {
        id: body.string("responseId")?,
        model: body.string("modelVersion")?,
        usage: body.take("usageMetadata").and_then(read_usage),
        ..Answer::default()
    };
    let mut ids = Ids::of(answer.id.as_deref().unwrap_or_default());
    for candidate in body.array("candidates")?.unwrap_or_default() {
        answer.choices.push(read_candidate(fields(candidate)?, &mut ids, lost)?);
    }
    if let Some(mut feedback) = maybe_fields(&mut body, "promptFeedback")?
        && feedback.string("blockReason")?.is_some()
        && answer.choices.is_empty()
    {
        // The question was kept back, so there is no answer.
        answer.choices.push(Choice { stop: Some(Stop::Filter), ..Choice::default() });
    }
    for of_no_matter in ["createTime", "modelStatus"] {
        body.take(of_no_matter);
    }
    lost.rest(&body);
    Ok(answer)
}

fn read_candidate<'a>(
    mut candidate: Fields<'a>,
    ids: &mut Ids<'a>,
    lost: &mut Losses,
) -> Result<Choice<'a>, Malformed> {
    let mut choice = Choice::default();
    if let Some(mut content) = maybe_fields(&mut candidate, "content")? {
        content.take("role");
        choice.parts = read_parts(content.take("parts"), ids, lost)?;
        lost.rest(&content);
    }
    choice.stop = candidate.string("finishReason")?.map(|word| stop(word.as_bytes()));
    // It has no word for wanting a tool to be called.
    let calls = choice.parts.iter().any(|part| matches!(part.content, Content::Call(_)));
    if calls && choice.stop == Some(Stop::End) {
        choice.stop = Some(Stop::Tools);
    }
    if let Some(logprobs) = maybe_fields(&mut candidate, "logprobsResult")? {
        choice.logprobs = read_logprobs(logprobs)?;
    }
    for of_no_matter in ["index", "tokenCount", "avgLogprobs", "safetyRatings", "finishMessage"] {
        candidate.take(of_no_matter);
    }
    lost.rest(&candidate);
    Ok(choice)
}

pub(super) fn read_logprobs<'a>(mut fields_of: Fields<'a>) -> Result<Option<Vec<Logprob<'a>>>, Malformed> {
    let Some(chosen) = fields_of.array("chosenCandidates")? else { return Ok(None) };
    let mut top = fields_of.array("topCandidates")?.unwrap_or_default().into_iter();
    let mut out = Vec::with_capacity(chosen.len());
    for token in chosen {
        let mut logprob = read_logprob(token)?;
        if let Some(others) = top.next() {
            let others = fields(others)?.array("candidates")?.unwrap_or_default();
            logprob.top = others.into_iter().map(read_logprob).collect::<Result<_, _>>()?;
        }
        out.push(logprob);
    }
    Ok(Some(out))
}

fn read_logprob(value: Value<'_>) -> Result<Logprob<'_>, Malformed> {
    let mut fields = fields(value)?;
    // What is nought is left out.
    let logprob = fields.take("logProbability").map(|number| number.number()).transpose()?.unwrap_or("0");
    Ok(Logprob { token: fields.string("token")?.unwrap_or_default(), logprob, bytes: None, top: Vec::new() })
}

pub(crate) fn write_answer(answer: &Answer<'_>, options: &Options<'_>, to: &mut Vec<u8>) {
    Out::object(to, |out| {
        out.items("candidates", answer.choices.iter().enumerate(), |(index, choice), to| {
            Out::object(to, |out| {
                out.fields("content", |content| {
                    let parts = choice.parts.iter().filter(|part| has_word(&part.content));
                    content.items("parts", parts, |part, to| Out::object(to, |out| write_part(part, out)));
                    content.text("role", "model");
                });
                out.text("finishReason", stop_word(choice.stop.unwrap_or(Stop::End)));
                out.number("index", index);
                if let Some(logprobs) = &choice.logprobs {
                    write_logprobs(logprobs, out);
                }
            });
        });
        if let Some(usage) = &answer.usage {
            out.fields("usageMetadata", |out| write_usage(usage, out));
        }
        out.text("modelVersion", answer.model.as_deref().unwrap_or(options.model));
        out.text("responseId", answer.id.as_deref().unwrap_or(options.id));
    });
}

fn has_word(content: &Content<'_>) -> bool {
    match content {
        // Enciphered thoughts are for their own provider.
        Content::Thought(thought) => !thought.redacted,
        Content::Text(_) | Content::Refusal(_) | Content::Call(_) => true,
        // No model that is read here says any.
        Content::Media(_) | Content::Outcome(_) => false,
    }
}

fn write_part(part: &Part<'_>, out: &mut Out<'_>) {
    match &part.content {
        Content::Text(text) | Content::Refusal(text) => out.text("text", text),
        Content::Thought(Thought { text, signature, .. }) => {
            out.text("text", text);
            out.bool("thought", true);
            if let Some(signature) = signature {
                out.text("thoughtSignature", signature);
            }
        }
        Content::Call(call) => write_function_call(call, part.at, &mut Losses::default(), out),
        Content::Media(_) | Content::Outcome(_) => {}
    }
}

pub(super) fn write_logprobs(logprobs: &[Logprob<'_>], out: &mut Out<'_>) {
    let one = |logprob: &Logprob<'_>, to: &mut Vec<u8>| {
        Out::object(to, |out| {
            out.text("token", &logprob.token);
            out.raw("logProbability", logprob.logprob);
        });
    };
    out.fields("logprobsResult", |out| {
        out.items("topCandidates", logprobs, |logprob, to| {
            Out::object(to, |out| items_to(out.key("candidates"), &logprob.top, one));
        });
        out.items("chosenCandidates", logprobs, one);
    });
}

pub(super) fn stop(word: &[u8]) -> Stop {
    match word {
        b"MAX_TOKENS" => Stop::Length,
        b"SAFETY" | b"RECITATION" | b"BLOCKLIST" | b"PROHIBITED_CONTENT" | b"SPII" | b"LANGUAGE" | b"MODEL_ARMOR" => {
            Stop::Filter
        }
        b"IMAGE_SAFETY" | b"IMAGE_PROHIBITED_CONTENT" | b"IMAGE_RECITATION" => Stop::Filter,
        _ => Stop::End,
    }
}

pub(super) fn stop_word(stop: Stop) -> &'static str {
    match stop {
        Stop::End | Stop::Sequence | Stop::Tools | Stop::Pause => "STOP",
        Stop::Length => "MAX_TOKENS",
        Stop::Filter | Stop::Refusal => "SAFETY",
    }
}

/// The prompt includes what was cached; thoughts, and what tools of the provider's own brought, stand beside.
pub(super) fn read_usage(value: Value<'_>) -> Option<TokenUsage> {
    let mut fields = fields(value).ok()?;
    let (sound, pictures) = modalities(&mut fields, "promptTokensDetails");
    let (cached_sound, cached_pictures) = modalities(&mut fields, "cacheTokensDetails");
    let (said_sound, said_pictures) = modalities(&mut fields, "candidatesTokensDetails");
    let mut count = |key: &str| fields.count(key).ok().flatten();
    let prompt = count("promptTokenCount")?.saturating_add(count("toolUsePromptTokenCount").unwrap_or(0));
    let cached_read = count("cachedContentTokenCount").unwrap_or(0);
    let fresh = prompt.saturating_sub(cached_read);
    let input_audio = sound.saturating_sub(cached_sound).min(fresh);
    let input_image = pictures.saturating_sub(cached_pictures).min(fresh - input_audio);
    let said = count("candidatesTokenCount").unwrap_or(0);
    let output_audio = said_sound.min(said);
    let output_image = said_pictures.min(said - output_audio);
    Some(TokenUsage {
        input: fresh - input_audio - input_image,
        cached_read,
        input_audio,
        input_image,
        output: said - output_audio - output_image,
        reasoning: count("thoughtsTokenCount").unwrap_or(0),
        output_audio,
        output_image,
        ..TokenUsage::default()
    })
}

/// Sound and pictures, moving ones too, of some details.
fn modalities(of: &mut Fields<'_>, key: &str) -> (u64, u64) {
    let mut sums = (0u64, 0u64);
    for detail in of.array(key).ok().flatten().unwrap_or_default() {
        let Ok(mut detail) = fields(detail) else { continue };
        let count = detail.count("tokenCount").ok().flatten().unwrap_or(0);
        match detail.string("modality").ok().flatten().as_deref() {
            Some("AUDIO") => sums.0 = sums.0.saturating_add(count),
            Some("IMAGE" | "VIDEO") => sums.1 = sums.1.saturating_add(count),
            _ => {}
        }
    }
    sums
}

pub(super) fn write_usage(usage: &TokenUsage, out: &mut Out<'_>) {
    out.number("promptTokenCount", usage.prompt());
    out.number("candidatesTokenCount", usage.completion().saturating_sub(usage.reasoning));
    out.number("totalTokenCount", usage.total());
    if usage.cached_read > 0 {
        out.number("cachedContentTokenCount", usage.cached_read);
    }
    if usage.reasoning > 0 {
        out.number("thoughtsTokenCount", usage.reasoning);
    }
}
