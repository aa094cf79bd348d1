//! OpenAI's responses.

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
            "input" if cursor.kind()? == Kind::Array => peek.messages(cursor)?,
            "input" => {
                cursor.skip_text("a string or an array of items")?;
                peek.messages = 1;
            }
            "stream" => peek.stream = cursor.maybe_bool()?.unwrap_or(false),
            "max_output_tokens" => peek.max_output = cursor.maybe_count()?,
            "tools" => peek.tools(cursor)?,
            "text" => text(cursor, peek)?,
            "reasoning" => peek.wants.reasoning = cursor.maybe_range()?.is_some(),
            "previous_response_id" | "conversation" => peek.wants.state |= cursor.maybe_range()?.is_some(),
            "user" => peek.user = cursor.maybe_string()?.map(|text| text.range()),
            "safety_identifier" => {
                let user = cursor.maybe_string()?.map(|text| text.range());
                peek.user = peek.user.take().or(user);
            }
            "metadata" => peek.metadata = cursor.maybe_range()?,
            _ => cursor.skip()?,
        }
        Ok(())
    })
}

fn text(cursor: &mut Cursor<'_>, peek: &mut Peek) -> Result<(), Malformed> {
    if cursor.null() {
        return Ok(());
    }
    cursor.object("an object", |cursor, key, _| {
        match &**key {
            "format" => peek.wants.json_schema = Peek::kind_is(cursor, "json_schema")?,
            _ => cursor.skip()?,
        }
        Ok(())
    })
}

/// Picks out of an event of a stream what is to be known of it.
pub(crate) fn watch(frame: &Frame<'_>, seen: &mut Seen) {
    let data = &*frame.data;
    if frame.name.ends_with(b".delta") {
        if let Some(at) = memmem::find(data, b"\"delta\":\"") {
            let text = json::strings(&[b"{", &data[at..]].concat(), &["delta"]);
            seen.text += text as u64;
            seen.deltas += u64::from(text > 0);
        }
        return;
    }
    match frame.name {
        b"response.completed" | b"response.incomplete" | b"response.failed" => {
            seen.done = true;
            seen.stop = Some(match frame.name {
                b"response.incomplete" => Stop::Length,
                _ => Stop::End,
            });
            if let Some(usage) = json::find(data, &["response", "usage"]).and_then(read_usage) {
                seen.usage = Some(usage);
                seen.settled = true;
            }
            if frame.name == b"response.failed" {
                seen.fault = Some(Fault::of(json::find(data, &["response", "error"])));
            }
        }
        b"error" => seen.fault = Some(Fault::of(json::find(data, &[]))),
        _ => {}
    }
}

/// Totals include what the details name.
fn read_usage(value: Value<'_>) -> Option<TokenUsage> {
    let mut fields = value.fields("an object").ok()?;
    let mut count = |key: &str| fields.count(key).ok().flatten();
    let (input, output) = (count("input_tokens")?, count("output_tokens").unwrap_or(0));
    let mut part = |key: &str, part: &str| {
        fields.fields(key).ok().flatten().and_then(|mut details| details.count(part).ok().flatten()).unwrap_or(0)
    };
    let cached_read = part("input_tokens_details", "cached_tokens");
    let reasoning = part("output_tokens_details", "reasoning_tokens");
    Some(TokenUsage {
        input: input.saturating_sub(cached_read),
        cached_read,
        output: output.saturating_sub(reasoning),
        reasoning,
        ..TokenUsage::default()
    })
}

/// Usage and end of a whole answer.
pub(crate) fn glance(body: &[u8]) -> (Option<TokenUsage>, Option<Stop>) {
    let usage = json::find(body, &["usage"]).and_then(read_usage);
    let stop = super::word(body, &["status"], |word| match word {
        "incomplete" => Stop::Length,
        _ => Stop::End,
    });
    (usage, stop)
}
