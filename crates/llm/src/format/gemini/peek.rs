//! A look at a request.

use std::borrow::Cow;

use crate::json::Cursor;
use crate::malformed::Malformed;
use crate::peek::Peek;

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
struct Spellings<'a> {
    seen: Vec<Cow<'a, str>>,
}

impl<'a> Spellings<'a> {
    /// The name as the specification spells it. Both spellings in one object are a key that comes twice.
    fn camel(&mut self, key: &Cow<'a, str>, at: usize) -> Result<Cow<'a, str>, Malformed> {
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
pub(super) fn camel<'a>(key: &Cow<'a, str>) -> Cow<'a, str> {
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
