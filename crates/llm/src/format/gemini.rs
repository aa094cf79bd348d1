//! Google's Gemini, also as Vertex serves it. Model and stream stand in the path.
//!
//! Its JSON is protobuf's, which reads every name in two spellings (`generationConfig`, `generation_config`).

use std::borrow::Cow;

use base::TokenUsage;
use memchr::memmem;

use crate::json::{self, Cursor, Value};
use crate::malformed::Malformed;
use crate::peek::Peek;
use crate::sse::Frame;
use crate::stream::{Fault, Seen, Stop};

pub(crate) fn peek(cursor: &mut Cursor<'_>, peek: &mut Peek) -> Result<(), Malformed> {
    let mut seen = Spellings::default();
    cursor.object("an object", |cursor, key, at| {
        match &*seen.camel(key, at)? {
            "contents" => contents(cursor, peek)?,
            "generationConfig" => generation_config(cursor, peek)?,
            "tools" => peek.tools(cursor)?,
            "cachedContent" => peek.wants.state |= cursor.maybe_range()?.is_some(),
            "labels" => peek.metadata = cursor.maybe_range()?,
            _ => cursor.skip()?,
        }
        Ok(())
    })
}

fn contents(cursor: &mut Cursor<'_>, peek: &mut Peek) -> Result<(), Malformed> {
    cursor.array("an array of contents", |cursor| {
        peek.messages += 1;
        cursor.object("a content, which is an object", |cursor, key, _| match &**key {
            "parts" => cursor.array("an array of parts", |cursor| part(cursor, peek)),
            _ => cursor.skip(),
        })
    })
}

fn part(cursor: &mut Cursor<'_>, peek: &mut Peek) -> Result<(), Malformed> {
    let mut seen = Spellings::default();
    cursor.object("a part, which is an object", |cursor, key, at| match &*seen.camel(key, at)? {
        "inlineData" | "fileData" => media(cursor, peek),
        _ => cursor.skip(),
    })
}

fn media(cursor: &mut Cursor<'_>, peek: &mut Peek) -> Result<(), Malformed> {
    let mut seen = Spellings::default();
    cursor.object("an object", |cursor, key, at| match &*seen.camel(key, at)? {
        "mimeType" => {
            let kind = cursor.string("a string")?.decode();
            peek.part(match kind.split('/').next() {
                Some("image" | "video") => "image",
                Some("audio") => "audio",
                _ => "file",
            });
            Ok(())
        }
        _ => cursor.skip_field(key),
    })
}

fn generation_config(cursor: &mut Cursor<'_>, peek: &mut Peek) -> Result<(), Malformed> {
    if cursor.null() {
        return Ok(());
    }
    let mut seen = Spellings::default();
    cursor.object("an object", |cursor, key, at| {
        match &*seen.camel(key, at)? {
            "maxOutputTokens" => peek.max_output = cursor.maybe_count()?,
            "candidateCount" => peek.choices = cursor.maybe_count()?.unwrap_or(1),
            "responseSchema" | "responseJsonSchema" => peek.wants.json_schema |= cursor.maybe_range()?.is_some(),
            "thinkingConfig" => peek.wants.reasoning |= cursor.maybe_range()?.is_some(),
            _ => cursor.skip()?,
        }
        Ok(())
    })
}

/// The names of one object that were spelled with underscores, or could have been.
#[derive(Default)]
pub(crate) struct Spellings<'a> {
    seen: Vec<Cow<'a, str>>,
}

impl<'a> Spellings<'a> {
    /// The name as the specification spells it. Both spellings in one object are a key that comes twice.
    pub(crate) fn camel(&mut self, key: &Cow<'a, str>, at: usize) -> Result<Cow<'a, str>, Malformed> {
        let camel = camel(key);
        // A word without a seam has one spelling, and the cursor has seen to it that it comes once.
        if camel.bytes().any(|byte| byte.is_ascii_uppercase()) {
            if self.seen.contains(&camel) {
                let what = format!("the key {camel:?} a second time, spelled otherwise");
                return Err(Malformed::new(what, at, "each key once in an object"));
            }
            self.seen.push(camel.clone());
        }
        Ok(camel)
    }
}

/// `generation_config` as `generationConfig`.
fn camel<'a>(key: &Cow<'a, str>) -> Cow<'a, str> {
    if !key.contains('_') {
        return key.clone();
    }
    let mut up = false;
    let mut out = String::with_capacity(key.len());
    for letter in key.chars() {
        match letter {
            '_' => up = true,
            _ if up => {
                out.push(letter.to_ascii_uppercase());
                up = false;
            }
            _ => out.push(letter),
        }
    }
    Cow::Owned(out)
}

/// Picks out of an event of a stream what is to be known of it.
pub(crate) fn watch(frame: &Frame<'_>, seen: &mut Seen) {
    let data = &*frame.data;
    if let Some(at) = memmem::find(data, b"\"parts\":") {
        let text = json::strings(&data[at + b"\"parts\":".len()..], &["text"]);
        seen.text += text as u64;
        seen.deltas += u64::from(text > 0);
    }
    // Every event may carry a count; the last one counts.
    let has = |needle: &str| memmem::find(data, needle.as_bytes()).is_some();
    if has("\"usageMetadata\":")
        && let Some(usage) = json::find(data, &["usageMetadata"]).and_then(read_usage)
    {
        seen.usage = Some(usage);
        seen.settled = seen.stop.is_some();
    }
    if let Some(at) = memmem::find(data, b"\"finishReason\":") {
        let word = data[at + b"\"finishReason\":".len()..].split(|byte| *byte == b'"').nth(1);
        seen.stop = word.map(stop);
        seen.settled = seen.usage.is_some();
        // There is no other end.
        seen.done = true;
    }
    if has("\"error\":")
        && let Some(error) = json::find(data, &["error"])
    {
        seen.fault = Some(Fault::of(Some(error)));
    }
}

pub(crate) fn stop(word: &[u8]) -> Stop {
    match word {
        b"MAX_TOKENS" => Stop::Length,
        b"SAFETY" | b"RECITATION" | b"BLOCKLIST" | b"PROHIBITED_CONTENT" | b"SPII" | b"IMAGE_SAFETY" | b"LANGUAGE" => {
            Stop::Filter
        }
        _ => Stop::End,
    }
}

/// The prompt includes what was cached; thoughts stand beside the candidates.
fn read_usage(value: Value<'_>) -> Option<TokenUsage> {
    let mut fields = value.fields("an object").ok()?;
    let mut count = |key: &str| fields.count(key).ok().flatten();
    let prompt = count("promptTokenCount")?.saturating_add(count("toolUsePromptTokenCount").unwrap_or(0));
    let cached_read = count("cachedContentTokenCount").unwrap_or(0);
    Some(TokenUsage {
        input: prompt.saturating_sub(cached_read),
        cached_read,
        output: count("candidatesTokenCount").unwrap_or(0),
        reasoning: count("thoughtsTokenCount").unwrap_or(0),
        ..TokenUsage::default()
    })
}

/// Usage and end of a whole answer.
pub(crate) fn glance(body: &[u8]) -> (Option<TokenUsage>, Option<Stop>) {
    let usage = json::find(body, &["usageMetadata"]).and_then(read_usage);
    let first = json::find(body, &["candidates"]).and_then(|all| all.array("an array").ok()?.into_iter().next());
    let word = first.and_then(|candidate| candidate.fields("an object").ok()?.string("finishReason").ok()?);
    (usage, word.map(|word| stop(word.as_bytes())))
}
