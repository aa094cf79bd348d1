//! A look at a request.

use crate::json::Cursor;
use crate::malformed::Malformed;
use crate::peek::Peek;

pub(crate) fn peek(cursor: &mut Cursor<'_>, peek: &mut Peek) -> Result<(), Malformed> {
    cursor.object("an object", |cursor, key, _| {
        match &**key {
            "messages" => messages(cursor, peek)?,
            "inferenceConfig" => maybe_object(cursor, |cursor, key| match key {
                "maxTokens" => {
                    peek.max_output = cursor.maybe_count()?;
                    Ok(())
                }
                _ => cursor.skip(),
            })?,
            "toolConfig" => maybe_object(cursor, |cursor, key| match key {
                "tools" => peek.tools(cursor),
                _ => cursor.skip(),
            })?,
            "outputConfig" => maybe_object(cursor, |cursor, key| match key {
                "textFormat" => {
                    peek.wants.json_schema |= cursor.maybe_range()?.is_some();
                    Ok(())
                }
                _ => cursor.skip(),
            })?,
            "requestMetadata" => peek.metadata = cursor.maybe_range()?,
            _ => cursor.skip()?,
        }
        Ok(())
    })
}

fn messages(cursor: &mut Cursor<'_>, peek: &mut Peek) -> Result<(), Malformed> {
    cursor.array("an array of messages", |cursor| {
        peek.messages += 1;
        cursor.object("a message, which is an object", |cursor, key, _| match &**key {
            // A block says by its one key what it is.
            "content" => cursor.array("an array of blocks", |cursor| {
                cursor.object("a block, which is an object", |cursor, key, _| {
                    peek.part(if key == "video" { "image" } else { key });
                    cursor.skip()
                })
            }),
            _ => cursor.skip(),
        })
    })
}

fn maybe_object<'a>(
    cursor: &mut Cursor<'a>,
    mut field: impl FnMut(&mut Cursor<'a>, &str) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    match cursor.null() {
        true => Ok(()),
        false => cursor.object("an object", |cursor, key, _| field(cursor, key)),
    }
}
