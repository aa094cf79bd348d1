//! A look at a request.

use crate::json::Cursor;
use crate::malformed::Malformed;
use crate::peek::Peek;

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
