//! A look at a request.

use crate::json::{Cursor, Kind};
use crate::malformed::Malformed;
use crate::peek::Peek;

pub(crate) fn peek(cursor: &mut Cursor<'_>, peek: &mut Peek) -> Result<(), Malformed> {
    cursor.object("an object", |cursor, key, _| {
        match &**key {
            "model" => peek.model = Some(cursor.string("the name of a model, which is a string")?.range()),
            "messages" => peek.messages(cursor)?,
            "stream" => peek.stream = cursor.maybe_bool()?.unwrap_or(false),
            "max_tokens" => peek.max_output = cursor.maybe_count()?,
            "tools" => peek.tools(cursor)?,
            "thinking" => {
                peek.wants.reasoning = match cursor.null() {
                    true => false,
                    false => !Peek::kind_is(cursor, "disabled")?,
                }
            }
            // The older and the newer place of a schema.
            "output_format" => peek.wants.json_schema |= Peek::kind_is(cursor, "json_schema")?,
            "output_config" => output_config(cursor, peek)?,
            "metadata" => metadata(cursor, peek)?,
            _ => cursor.skip()?,
        }
        Ok(())
    })
}

fn output_config(cursor: &mut Cursor<'_>, peek: &mut Peek) -> Result<(), Malformed> {
    if cursor.null() {
        return Ok(());
    }
    cursor.object("an object", |cursor, key, _| {
        match &**key {
            "format" => peek.wants.json_schema |= Peek::kind_is(cursor, "json_schema")?,
            _ => cursor.skip()?,
        }
        Ok(())
    })
}

fn metadata(cursor: &mut Cursor<'_>, peek: &mut Peek) -> Result<(), Malformed> {
    let start = cursor.place();
    if cursor.null() {
        return Ok(());
    }
    cursor.object("an object", |cursor, key, _| {
        match &**key {
            "user_id" if cursor.kind()? == Kind::String => peek.user = Some(cursor.string("a string")?.range()),
            _ => cursor.skip()?,
        }
        Ok(())
    })?;
    peek.metadata = Some(start..cursor.at());
    Ok(())
}
