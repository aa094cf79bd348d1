//! A strict reader that goes through a body once, from left to right, and builds nothing.
//!
//! It refuses what two readers may understand differently: keys that come twice in an object (wherever, also spelled
//! with escapes), data after the end, bytes that are not UTF-8, halves of surrogate pairs, more depth than anybody needs.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use crate::malformed::Malformed;

/// Deeper than any schema of a tool; shallow enough for the stack.
const DEPTH: u32 = 128;
/// Keys of one object that are compared one by one.
const FEW: usize = 16;

pub(crate) struct Cursor<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
    /// Keys may come twice: who wrote this is the one whose word counts.
    trusting: bool,
    /// The keys of the objects that are open, the innermost last.
    keys: Vec<Cow<'a, str>>,
    /// Bytes of strings that were passed over as values: the rough size of a prompt.
    pub(crate) passed: usize,
    /// Of those, what is no text but data in base64.
    pub(crate) data: usize,
}

/// What a value is, by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

/// A string as it stands in the body, without its quotes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text<'a> {
    pub(crate) raw: &'a str,
    pub(crate) at: usize,
    pub(crate) escaped: bool,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Result<Cursor<'a>, Malformed> {
        match std::str::from_utf8(body) {
            Ok(text) => Ok(Cursor { text, at: 0, depth: 0, trusting: false, keys: Vec::new(), passed: 0, data: 0 }),
            Err(error) => Err(Malformed::new("not UTF-8", error.valid_up_to(), "JSON in UTF-8")),
        }
    }

    /// For what a provider sent, of which little is looked for.
    pub(crate) fn trusting(body: &'a [u8]) -> Result<Cursor<'a>, Malformed> {
        Cursor::new(body).map(|cursor| Cursor { trusting: true, ..cursor })
    }

    /// Nothing but white space may follow.
    pub(crate) fn end(mut self) -> Result<(), Malformed> {
        self.blank();
        match self.at == self.text.len() {
            true => Ok(()),
            false => Err(Malformed::new("more data", self.at, "the end of the body after one JSON value")),
        }
    }

    /// What comes next, and where it begins.
    pub(crate) fn kind(&mut self) -> Result<Kind, Malformed> {
        self.blank();
        let kind = match self.byte() {
            Some(b'"') => Kind::String,
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b't' | b'f') => Kind::Bool,
            Some(b'n') => Kind::Null,
            Some(b'-' | b'0'..=b'9') => Kind::Number,
            _ => return Err(self.wrong("a JSON value")),
        };
        Ok(kind)
    }

    /// Where the next value begins, or the end if none comes.
    pub(crate) fn place(&mut self) -> usize {
        self.blank();
        self.at
    }

    /// Goes through an object; `field` must read or pass over each value.
    pub(crate) fn object(
        &mut self,
        expected: &'static str,
        mut field: impl FnMut(&mut Cursor<'a>, &Cow<'a, str>, usize) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.open(b'{', expected)?;
        let first = self.keys.len();
        let mut many = None;
        self.blank();
        if self.byte() == Some(b'}') {
            self.at += 1;
            self.depth -= 1;
            return Ok(());
        }
        loop {
            self.blank();
            let at = self.at;
            if self.byte() != Some(b'"') {
                return Err(self.wrong("a key in quotes"));
            }
            let key = self.string_here()?.decode();
            if !self.trusting {
                self.note(first, &mut many, key.clone(), at)?;
            }
            self.blank();
            if self.byte() != Some(b':') {
                return Err(self.wrong("`:` after a key"));
            }
            self.at += 1;
            field(self, &key, at)?;
            self.blank();
            match self.byte() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return Err(self.wrong("`,` or `}` after a value in an object")),
            }
        }
        self.at += 1;
        self.depth -= 1;
        self.keys.truncate(first);
        Ok(())
    }

    /// Goes through an array; `item` must read or pass over each value.
    pub(crate) fn array(
        &mut self,
        expected: &'static str,
        mut item: impl FnMut(&mut Cursor<'a>) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.open(b'[', expected)?;
        self.blank();
        if self.byte() == Some(b']') {
            self.at += 1;
            self.depth -= 1;
            return Ok(());
        }
        loop {
            item(self)?;
            self.blank();
            match self.byte() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return Err(self.wrong("`,` or `]` after a value in an array")),
            }
        }
        self.at += 1;
        self.depth -= 1;
        Ok(())
    }

    pub(crate) fn string(&mut self, expected: &'static str) -> Result<Text<'a>, Malformed> {
        self.blank();
        match self.byte() {
            Some(b'"') => self.string_here(),
            _ => Err(self.wrong(expected)),
        }
    }

    pub(crate) fn bool(&mut self, expected: &'static str) -> Result<bool, Malformed> {
        self.blank();
        if self.word("true") {
            return Ok(true);
        }
        if self.word("false") {
            return Ok(false);
        }
        Err(self.wrong(expected))
    }

    /// Whether a `null` came; it is passed over if so.
    pub(crate) fn null(&mut self) -> bool {
        self.blank();
        self.word("null")
    }

    /// A number as it is written.
    pub(crate) fn number(&mut self, expected: &'static str) -> Result<&'a str, Malformed> {
        self.blank();
        let start = self.at;
        let bytes = self.text.as_bytes();
        let digits = |mut at: usize| {
            while bytes.get(at).is_some_and(u8::is_ascii_digit) {
                at += 1;
            }
            at
        };
        let integer = start + usize::from(self.byte() == Some(b'-'));
        let mut end = digits(integer);
        if end == integer {
            return Err(self.wrong(expected));
        }
        if bytes[integer] == b'0' && end > integer + 1 {
            return Err(Malformed::new("a number with a leading zero", start, expected));
        }
        if bytes.get(end) == Some(&b'.') {
            let fraction = end + 1;
            end = digits(fraction);
            if end == fraction {
                return Err(Malformed::new("a number without digits after its point", start, expected));
            }
        }
        if matches!(bytes.get(end), Some(b'e' | b'E')) {
            let exponent = end + 1 + usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            end = digits(exponent);
            if end == exponent {
                return Err(Malformed::new("a number without digits in its exponent", start, expected));
            }
        }
        self.at = end;
        Ok(&self.text[start..end])
    }

    /// A whole number that is not negative, as `1`, `1.0` or `1e3`; saturates.
    pub(crate) fn count(&mut self, expected: &'static str) -> Result<u64, Malformed> {
        let at = self.place();
        let text = self.number(expected)?;
        count(text).ok_or_else(|| Malformed::new(text.to_owned(), at, expected))
    }

    /// A truth value; `null` says nothing.
    pub(crate) fn maybe_bool(&mut self) -> Result<Option<bool>, Malformed> {
        if self.null() { Ok(None) } else { self.bool("true or false").map(Some) }
    }

    /// A count; `null` says nothing.
    pub(crate) fn maybe_count(&mut self) -> Result<Option<u64>, Malformed> {
        if self.null() { Ok(None) } else { self.count("a whole number that is not negative").map(Some) }
    }

    /// A string; `null` says nothing.
    pub(crate) fn maybe_string(&mut self) -> Result<Option<Text<'a>>, Malformed> {
        if self.null() { Ok(None) } else { self.string("a string").map(Some) }
    }

    /// Passes over a value, whatever it is, and counts the strings in it.
    pub(crate) fn skip(&mut self) -> Result<(), Malformed> {
        self.skip_as(false)
    }

    /// The same for the value of a key, which may tell that it is data.
    pub(crate) fn skip_field(&mut self, key: &str) -> Result<(), Malformed> {
        self.skip_as(is_data(key))
    }

    /// Passes over a string, and counts it.
    pub(crate) fn skip_text(&mut self, expected: &'static str) -> Result<(), Malformed> {
        self.passed += self.string(expected)?.raw.len();
        Ok(())
    }

    /// Passes over a value, and whether it says anything: `null` does not, nor an empty array.
    pub(crate) fn something(&mut self) -> Result<bool, Malformed> {
        self.first(Cursor::skip)
    }

    /// The same, and of an array `first` must read or pass over the first value.
    pub(crate) fn first(
        &mut self,
        mut first: impl FnMut(&mut Cursor<'a>) -> Result<(), Malformed>,
    ) -> Result<bool, Malformed> {
        match self.kind()? {
            Kind::Array => {
                let mut any = false;
                self.array("an array", |cursor| match std::mem::replace(&mut any, true) {
                    false => first(cursor),
                    true => cursor.skip(),
                })?;
                Ok(any)
            }
            Kind::Null => self.skip().map(|()| false),
            _ => self.skip().map(|()| true),
        }
    }

    /// The string of a key of the object that comes; whatever else comes is passed over.
    pub(crate) fn string_of(&mut self, wanted: &str) -> Result<Option<Cow<'a, str>>, Malformed> {
        let mut found = None;
        match self.kind()? {
            Kind::Object => self.object("an object", |cursor, key, _| match cursor.kind()? {
                Kind::String if key == wanted => {
                    found = Some(cursor.string("a string")?.decode());
                    Ok(())
                }
                _ => cursor.skip(),
            })?,
            _ => self.skip()?,
        }
        Ok(found)
    }

    /// What a string says; whatever else comes is passed over.
    pub(crate) fn any_string(&mut self) -> Result<Option<Cow<'a, str>>, Malformed> {
        match self.kind()? {
            Kind::String => Ok(Some(self.string("a string")?.decode())),
            _ => self.skip().map(|()| None),
        }
    }

    /// Passes over a value, and tells where it stands; `null` says nothing.
    pub(crate) fn maybe_range(&mut self) -> Result<Option<Range<usize>>, Malformed> {
        if self.null() {
            return Ok(None);
        }
        let start = self.place();
        self.skip()?;
        Ok(Some(start..self.at))
    }

    fn skip_as(&mut self, data: bool) -> Result<(), Malformed> {
        match self.kind()? {
            Kind::Null if self.word("null") => Ok(()),
            Kind::Null => Err(self.wrong("null")),
            Kind::Bool => self.bool("true or false").map(drop),
            Kind::Number => self.number("a number").map(drop),
            Kind::String => {
                let text = self.string_here()?.raw;
                match data || text.starts_with("data:") {
                    true => self.data += text.len(),
                    false => self.passed += text.len(),
                }
                Ok(())
            }
            Kind::Array => self.array("an array", |cursor| cursor.skip_as(data)),
            Kind::Object => self.object("an object", |cursor, key, _| cursor.skip_as(data || is_data(key))),
        }
    }

    pub(crate) fn slice(&self, range: Range<usize>) -> &'a str {
        &self.text[range]
    }

    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// That something else was expected here.
    pub(crate) fn wrong(&self, expected: &'static str) -> Malformed {
        let what = match self.byte() {
            None => "the end of the body",
            Some(b'"') => "a string",
            Some(b'{') => "an object",
            Some(b'[') => "an array",
            Some(b't' | b'f') => "a truth value",
            Some(b'n') => "null",
            Some(b'-' | b'0'..=b'9') => "a number",
            Some(_) => {
                let found = self.text[self.at..].chars().next().unwrap_or_default();
                return Malformed::new(format!("{found:?}"), self.at, expected);
            }
        };
        Malformed::new(what, self.at, expected)
    }

    fn open(&mut self, bracket: u8, expected: &'static str) -> Result<(), Malformed> {
        self.blank();
        if self.byte() != Some(bracket) {
            return Err(self.wrong(expected));
        }
        if self.depth == DEPTH {
            return Err(Malformed::new("one level too deep", self.at, "at most 128 levels of arrays and objects"));
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    /// Refuses a key that this object has had.
    fn note(
        &mut self,
        first: usize,
        many: &mut Option<HashSet<Cow<'a, str>, foldhash::fast::RandomState>>,
        key: Cow<'a, str>,
        at: usize,
    ) -> Result<(), Malformed> {
        let known = &self.keys[first..];
        let twice = match many {
            Some(many) => !many.insert(key.clone()),
            None => known.contains(&key),
        };
        if twice {
            return Err(Malformed::new(format!("the key {key:?} a second time"), at, "each key once in an object"));
        }
        match many {
            None if known.len() >= FEW => {
                let mut set: HashSet<_, foldhash::fast::RandomState> = known.iter().cloned().collect();
                set.insert(key);
                *many = Some(set);
            }
            None => self.keys.push(key),
            Some(_) => {}
        }
        Ok(())
    }

    /// A string whose opening quote is here.
    fn string_here(&mut self) -> Result<Text<'a>, Malformed> {
        let start = self.at + 1;
        let bytes = self.text.as_bytes();
        let mut escaped = false;
        let mut at = start;
        loop {
            at = plain(bytes, at);
            match bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    at = self.escape(at)?;
                }
                Some(control) => {
                    let what = format!("the control character 0x{control:02x} in a string");
                    return Err(Malformed::new(what, at, "an escape such as \\n"));
                }
                None => return Err(Malformed::new("a string without an end", self.at, "a closing quote")),
            }
        }
        self.at = at + 1;
        Ok(Text { raw: &self.text[start..at], at: start, escaped })
    }

    /// Checks the escape at a backslash; gives what follows it.
    fn escape(&self, at: usize) -> Result<usize, Malformed> {
        let bytes = self.text.as_bytes();
        match bytes.get(at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
            Some(b'u') => match unit(bytes, at) {
                Some(0xD800..=0xDBFF) => match unit(bytes, at + 6) {
                    Some(0xDC00..=0xDFFF) => Ok(at + 12),
                    _ => Err(Malformed::new("the first half of a surrogate pair", at, "both halves of a pair")),
                },
                Some(0xDC00..=0xDFFF) => {
                    Err(Malformed::new("the second half of a surrogate pair", at, "both halves of a pair"))
                }
                Some(_) => Ok(at + 6),
                None => Err(Malformed::new("an incomplete escape", at, "four hexadecimal digits after \\u")),
            },
            _ => Err(Malformed::new("an unknown escape", at, "one of \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX")),
        }
    }

    fn word(&mut self, word: &str) -> bool {
        let found = self.text.as_bytes()[self.at..].starts_with(word.as_bytes());
        self.at += if found { word.len() } else { 0 };
        found
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blank(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.byte() {
            self.at += 1;
        }
    }
}

// === impl Text ===

impl<'a> Text<'a> {
    /// What it says.
    pub(crate) fn decode(&self) -> Cow<'a, str> {
        match self.escaped {
            false => Cow::Borrowed(self.raw),
            true => Cow::Owned(unescape(self.raw)),
        }
    }

    /// Without its quotes.
    pub(crate) fn range(&self) -> Range<usize> {
        self.at..self.at + self.raw.len()
    }
}

/// The dialects' names for media in base64.
fn is_data(key: &str) -> bool {
    matches!(key, "data" | "bytes" | "file_data")
}

/// A number as a count: whole and not negative. Saturates, so that a limit that is absurdly high stays a limit.
pub(crate) fn count(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(text.parse().unwrap_or(u64::MAX));
    }
    let number: f64 = text.parse().ok()?;
    // The cast saturates.
    (number >= 0.0 && number.fract() == 0.0).then_some(number as u64)
}

/// Where the next byte stands that ends or interrupts a string: a quote, a backslash, a control character; or the end.
pub(super) fn plain(bytes: &[u8], mut at: usize) -> usize {
    // Most strings are keys and other short words.
    let mut words = 2;
    loop {
        for _ in 0..words {
            let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) else {
                let rest = &bytes[at.min(bytes.len())..];
                return at + rest.iter().position(|byte| is_special(*byte)).unwrap_or(rest.len());
            };
            match special(*chunk) {
                Some(within) => return at + within,
                None => at += 8,
            }
        }
        // Blocks that the compiler compares as vectors: long texts are mostly such.
        while let Some(block) = bytes.get(at..).and_then(|rest| rest.first_chunk::<64>()) {
            let hit = block.iter().fold(0, |hit, byte| hit | u8::from(is_special(*byte)));
            if hit != 0 {
                break;
            }
            at += 64;
        }
        words = 8;
    }
}

/// The first of eight bytes that is special.
fn special(bytes: [u8; 8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let word = u64::from_le_bytes(bytes);
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & HIGHS;
    let quote = below(word ^ (ONES * u64::from(b'"')), 1);
    let slash = below(word ^ (ONES * u64::from(b'\\')), 1);
    let hit = below(word, 0x20) | quote | slash;
    // Borrows only spoil bytes above the first hit.
    (hit != 0).then(|| (hit.trailing_zeros() / 8) as usize)
}

/// Whether nothing in it ends or interrupts a string.
pub(crate) fn is_plain(bytes: &[u8]) -> bool {
    plain(bytes, 0) == bytes.len()
}

const fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// The code unit of `\uXXXX`.
fn unit(bytes: &[u8], at: usize) -> Option<u32> {
    let escape = bytes.get(at..at + 6)?;
    if !escape.starts_with(b"\\u") {
        return None;
    }
    escape[2..].iter().try_fold(0, |sum, digit| Some(sum * 16 + char::from(*digit).to_digit(16)?))
}

/// What a string says that was checked.
fn unescape(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(slash) = memchr::memchr(b'\\', rest.as_bytes()) {
        out.push_str(&rest[..slash]);
        let bytes = rest.as_bytes();
        let mut length = 2;
        match bytes.get(slash + 1) {
            Some(b'b') => out.push('\u{8}'),
            Some(b'f') => out.push('\u{c}'),
            Some(b'n') => out.push('\n'),
            Some(b'r') => out.push('\r'),
            Some(b't') => out.push('\t'),
            Some(b'u') => {
                length = 6;
                let mut code = unit(bytes, slash).unwrap_or(0xFFFD);
                if let (0xD800..=0xDBFF, Some(low @ 0xDC00..=0xDFFF)) = (code, unit(bytes, slash + 6)) {
                    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
                    length = 12;
                }
                out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            Some(other) => out.push(char::from(*other)),
            None => length = 1,
        }
        rest = &rest[slash + length..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_ends_where_it_ends_however_long_it_is() {
        for length in 0..200 {
            let text = vec![0xe4; length];
            assert_eq!(plain(&text, 0), length);
            for special in [b'"', b'\\', 0, 0x1f] {
                let text = [&text[..], &[special], b"words \"\\\n", &[b'w'; 80]].concat();
                for from in 0..=length {
                    assert_eq!(plain(&text, from), length, "{special} at {length}, from {from}");
                }
            }
        }
    }
}
