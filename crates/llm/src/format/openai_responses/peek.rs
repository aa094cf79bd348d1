//! A look at a request.

use crate::json::{Cursor, Kind};
use crate::malformed::Malformed;
use crate::peek::Peek;

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
