//! One place of a JSON text set or taken out, and all else left as it was written: the order of members and the
//! digits of numbers too.

use std::fmt;

use serde::de::{Deserializer as _, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// A JSON pointer (RFC 6901), taken apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Pointer(Vec<String>);

/// Deeper places are none that somebody means.
const DEEPEST: usize = 32;

impl Pointer {
    /// `/a/b~1c/0`.
    pub fn parse(text: &str) -> Option<Pointer> {
        let parts = text.strip_prefix('/')?.split('/');
        let parts: Vec<String> = parts.map(|part| part.replace("~1", "/").replace("~0", "~")).collect();
        let tildes = text.match_indices('~').all(|(at, _)| matches!(text.as_bytes().get(at + 1), Some(b'0' | b'1')));
        (tildes && parts.len() <= DEEPEST).then_some(Pointer(parts))
    }
}

/// The text with this value at this place, or without it. Objects that are missing on the way are made; what is no
/// object or list on the way is left, as is a list that is too short. `None` if the text is not JSON.
pub fn edited(text: &str, pointer: &Pointer, value: Option<&str>) -> Option<String> {
    let mut out = String::with_capacity(text.len() + value.map_or(0, str::len) + 16);
    edit(text, &pointer.0, value, &mut out).ok()?;
    Some(out)
}

fn edit(text: &str, pointer: &[String], value: Option<&str>, out: &mut String) -> serde_json::Result<()> {
    let Some((next, rest)) = pointer.split_first() else {
        out.push_str(value.unwrap_or("null"));
        return Ok(());
    };
    match text.trim_ascii_start().as_bytes().first() {
        Some(b'{') => edit_object(text, next, rest, value, out),
        Some(b'[') => edit_list(text, next, rest, value, out),
        _ => {
            out.push_str(text);
            Ok(())
        }
    }
}

fn edit_object(
    text: &str,
    next: &str,
    rest: &[String],
    value: Option<&str>,
    out: &mut String,
) -> serde_json::Result<()> {
    let members = members(text)?;
    let mut found = false;
    out.push('{');
    let mut first = true;
    for (name, member) in &members {
        // A name that is there twice would be read by one as the first and by another as the last.
        if name == next && (found || (rest.is_empty() && value.is_none())) {
            continue;
        }
        separate(&mut first, out);
        out.push_str(&serde_json::to_string(name)?);
        out.push(':');
        if name == next {
            found = true;
            edit(member.get(), rest, value, out)?;
        } else {
            out.push_str(member.get());
        }
    }
    if let (false, Some(value)) = (found, value) {
        separate(&mut first, out);
        out.push_str(&serde_json::to_string(next)?);
        out.push(':');
        for name in rest {
            out.push('{');
            out.push_str(&serde_json::to_string(name)?);
            out.push(':');
        }
        out.push_str(value);
        out.extend(std::iter::repeat_n('}', rest.len()));
    }
    out.push('}');
    Ok(())
}

fn edit_list(text: &str, next: &str, rest: &[String], value: Option<&str>, out: &mut String) -> serde_json::Result<()> {
    let items = items(text)?;
    let index = next.parse::<usize>().ok().filter(|_| next == "0" || !next.starts_with(['0', '+']));
    let mut first = true;
    out.push('[');
    for (at, item) in items.iter().enumerate() {
        let here = index == Some(at);
        if here && rest.is_empty() && value.is_none() {
            continue;
        }
        separate(&mut first, out);
        if here {
            edit(item.get(), rest, value, out)?;
        } else {
            out.push_str(item.get());
        }
    }
    if let ("-", true, Some(value)) = (next, rest.is_empty(), value) {
        separate(&mut first, out);
        out.push_str(value);
    }
    out.push(']');
    Ok(())
}

fn separate(first: &mut bool, out: &mut String) {
    if !std::mem::take(first) {
        out.push(',');
    }
}

fn members(text: &str) -> serde_json::Result<Vec<(String, &RawValue)>> {
    struct Members;

    impl<'de> Visitor<'de> for Members {
        type Value = Vec<(String, &'de RawValue)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some(member) = map.next_entry()? {
                members.push(member);
            }
            Ok(members)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
            Err(A::Error::custom("an object"))
        }
    }

    serde_json::Deserializer::from_str(text).deserialize_map(Members)
}

fn items(text: &str) -> serde_json::Result<Vec<&RawValue>> {
    serde_json::from_str(text)
}

/// The text, if it is JSON and nothing else.
pub fn checked(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    serde_json::from_str::<&RawValue>(text).ok().map(RawValue::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_changes_and_all_else_stays_as_it_was_written() {
        let check = |text: &str, pointer: &str, value: Option<&str>, expected: &str| {
            let found = edited(text, &Pointer::parse(pointer).unwrap(), value).unwrap();
            assert_eq!(found, expected, "{text} {pointer} {value:?}");
            assert!(checked(found.as_bytes()).is_some());
        };
        let text = r#"{"z": 1.00, "a":{"b":12345678901234567890123}, "l":[1, {"c":2}]}"#;
        check(text, "/z", Some("2"), r#"{"z":2,"a":{"b":12345678901234567890123},"l":[1, {"c":2}]}"#);
        check(text, "/a/b", None, r#"{"z":1.00,"a":{},"l":[1, {"c":2}]}"#);
        check(text, "/l/1/c", Some("\"x\""), r#"{"z":1.00,"a":{"b":12345678901234567890123},"l":[1,{"c":"x"}]}"#);
        check(text, "/l/0", None, r#"{"z":1.00,"a":{"b":12345678901234567890123},"l":[{"c":2}]}"#);
        check(r#"{"l":[1]}"#, "/l/-", Some("2"), r#"{"l":[1,2]}"#);
        check(r#"{"l":[1]}"#, "/l/7", Some("2"), r#"{"l":[1]}"#);
        check(r#"{"l":[1]}"#, "/l/01", Some("2"), r#"{"l":[1]}"#);
        check("{}", "/a", Some("1"), r#"{"a":1}"#);
        check("{}", "/a/b/c", Some("1"), r#"{"a":{"b":{"c":1}}}"#);
        check(r#"{"x":0}"#, "/a/a", Some("1"), r#"{"x":0,"a":{"a":1}}"#);
        check("{}", "/a/b", None, "{}");
        check(r#"{"a":1}"#, "/a/b", Some("2"), r#"{"a":1}"#);
        check("3", "/a", Some("2"), "3");
        check(r#"{"a/b~c":1}"#, "/a~1b~0c", Some("2"), r#"{"a/b~c":2}"#);
        check(r#"{"":1}"#, "/", None, "{}");
        // Twice the same name, once in disguise.
        check(r#"{"a":1,"b":2,"\u0061":3}"#, "/a", Some("4"), r#"{"a":4,"b":2}"#);
        check(r#"{"a":1,"b":2,"\u0061":3}"#, "/a", None, r#"{"b":2}"#);
        check(r#"{"a":{"x":1},"a":{"x":2}}"#, "/a/x", None, r#"{"a":{}}"#);
    }

    #[test]
    fn what_is_no_pointer_or_no_json_is_none() {
        for text in ["", "a", "/~", "/~2", &"/a".repeat(33)] {
            assert_eq!(Pointer::parse(text), None, "{text}");
        }
        for text in ["", "{", "{} {}", "{a:1}", "[1,]", "\"\u{1}\"", "nul"] {
            assert_eq!(checked(text.as_bytes()), None, "{text}");
        }
        assert_eq!(checked(b"\"\xff\""), None);
        assert_eq!(checked(b" [1] "), Some("[1]"));
    }
}
