//! Picks one thing out of JSON that is trusted to be well-formed: what a provider sent.

use memchr::memmem::Finder;

use super::cursor::{Cursor, Kind};
use super::value::Value;
use crate::malformed::Malformed;

/// What follows a key, from the first byte that is no blank; the first time the key comes.
///
/// The needle is the key with its quotes and colon. Within a string its quotes would be escaped, so what is found is a
/// key, though perhaps of an object further inside.
pub(crate) fn after<'a>(body: &'a [u8], needle: &Finder<'_>) -> Option<&'a [u8]> {
    let at = needle.find(body)? + needle.needle().len();
    Some(body[at..].trim_ascii_start())
}

/// Whether it is one object and nothing else; keys may come twice.
pub(crate) fn check(body: &[u8]) -> Result<(), Malformed> {
    let mut cursor = Cursor::trusting(body)?;
    if cursor.kind()? != Kind::Object {
        return Err(cursor.wrong("an object"));
    }
    cursor.skip()?;
    cursor.end()
}

/// The value at a path of keys. `None` if it is not there or not to be understood.
pub(crate) fn find<'a>(body: &'a [u8], path: &[&str]) -> Option<Value<'a>> {
    let mut found = None;
    let mut cursor = Cursor::trusting(body).ok()?;
    // What comes after it may be broken, for all that matters here.
    let _ = descend(&mut cursor, path, &mut found);
    found
}

/// Goes once through what must be one object and nothing else; keys may come twice. `field` must read or pass over each
/// value but that of `error`. Tells whether there is one of that name which says anything.
pub(crate) fn unless_error<'a>(
    body: &'a [u8],
    mut field: impl FnMut(&mut Cursor<'a>, &str) -> Result<(), Malformed>,
) -> Result<bool, Malformed> {
    let mut cursor = Cursor::trusting(body)?;
    let mut error = false;
    cursor.object("an object", |cursor, key, _| match &**key {
        "error" => cursor.something().map(|something| error |= something),
        key => field(cursor, key),
    })?;
    cursor.end()?;
    Ok(error)
}

/// The bytes of the strings below the given keys, in the value at the beginning of `json`, at any depth.
pub(crate) fn strings(json: &[u8], keys: &[&str]) -> usize {
    texts(json, keys).0
}

/// The same, and the last of those strings that is not empty, as it stands there.
pub(crate) fn texts<'a>(json: &'a [u8], keys: &[&str]) -> (usize, &'a str) {
    let Ok(mut cursor) = Cursor::trusting(json) else { return (0, "") };
    let mut texts = (0, "");
    let _ = gather(&mut cursor, keys, &mut texts);
    texts
}

fn descend<'a>(cursor: &mut Cursor<'a>, path: &[&str], found: &mut Option<Value<'a>>) -> Result<(), Malformed> {
    let Some((step, rest)) = path.split_first() else {
        *found = Some(Value::read(cursor)?);
        return Ok(());
    };
    if cursor.kind()? != Kind::Object {
        return cursor.skip();
    }
    cursor.object("an object", |cursor, key, _| match key == step {
        true => descend(cursor, rest, found),
        false => cursor.skip(),
    })
}

fn gather<'a>(cursor: &mut Cursor<'a>, keys: &[&str], texts: &mut (usize, &'a str)) -> Result<(), Malformed> {
    match cursor.kind()? {
        Kind::Object => cursor.object("an object", |cursor, key, _| match cursor.kind()? {
            Kind::String if keys.contains(&&**key) => {
                let text = cursor.string("a string")?.raw;
                texts.0 += text.len();
                texts.1 = if text.is_empty() { texts.1 } else { text };
                Ok(())
            }
            _ => gather(cursor, keys, texts),
        }),
        Kind::Array => cursor.array("an array", |cursor| gather(cursor, keys, texts)),
        _ => cursor.skip(),
    }
}
