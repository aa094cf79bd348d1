//! How a stored answer answers a request that asks for less: conditions (RFC 9110, 13) and ranges (14).

use std::ops::Range;

use base::{Headers, Method, RequestHead};

use crate::date::Date;
use crate::entry::Entry;

/// What of a stored answer is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Whole,
    NotModified,
    /// These bytes of the body.
    Part(Range<usize>),
    /// There are no such bytes.
    Unsatisfiable,
}

/// What a stored answer says to a request.
pub fn answer(entry: &Entry, request: &RequestHead) -> Answer {
    let headers = &request.headers;
    if entry.status != 200 {
        return Answer::Whole;
    }
    if is_conditional(headers) && !is_changed(entry, headers) {
        return Answer::NotModified;
    }
    if request.method == Method::GET && wants_part(headers) && is_in_range(entry, headers) {
        return part(headers, entry.length());
    }
    Answer::Whole
}

/// Whether a request wants an answer only if it is another than the one it knows.
pub fn is_conditional(headers: &Headers) -> bool {
    headers.contains("if-none-match") || headers.contains("if-modified-since")
}

pub fn wants_part(headers: &Headers) -> bool {
    headers.contains("range")
}

fn is_changed(entry: &Entry, headers: &Headers) -> bool {
    if headers.contains("if-none-match") {
        let etag = entry.headers.get("etag");
        return !headers.get_all("if-none-match").any(|line| names(line, etag));
    }
    let now = Date::of(entry.wall);
    let date = |headers: &Headers, field: &str| headers.get(field).and_then(|value| Date::parse(value, now));
    // What does not say when it changed has not since it was made.
    let modified = date(&entry.headers, "last-modified").or_else(|| date(&entry.headers, "date"));
    match (date(headers, "if-modified-since"), modified) {
        (Some(since), Some(modified)) => modified > since,
        _ => true,
    }
}

/// Whether a list of entity tags has this one, or is `*`. Weak ones are as good (RFC 9110, 13.1.2).
fn names(line: &[u8], etag: Option<&[u8]>) -> bool {
    if line.trim_ascii() == b"*" {
        return true;
    }
    let Some(etag) = etag else { return false };
    let opaque = |tag: &[u8]| tag.strip_prefix(b"W/").unwrap_or(tag).to_vec();
    let wanted = opaque(etag.trim_ascii());
    // A comma within a tag is no end of it.
    let (mut start, mut quoted) = (0, false);
    for at in 0..=line.len() {
        match line.get(at) {
            Some(b'"') => quoted = !quoted,
            Some(b',') if !quoted => {}
            Some(_) => continue,
            None => {}
        }
        if matches!(line.get(at), None | Some(b',')) {
            if opaque(line[start..at].trim_ascii()) == wanted {
                return true;
            }
            start = at + 1;
        }
    }
    false
}

/// `If-Range` by the very tag, or by the very date (RFC 9110, 13.1.5).
fn is_in_range(entry: &Entry, headers: &Headers) -> bool {
    let Some(wanted) = headers.get("if-range").map(<[u8]>::trim_ascii) else { return true };
    match wanted.first() {
        Some(b'"') => entry.headers.get("etag").is_some_and(|etag| etag.trim_ascii() == wanted),
        Some(b'W') if wanted.starts_with(b"W/") => false,
        _ => entry.headers.get("last-modified").is_some_and(|modified| modified.trim_ascii() == wanted),
    }
}

/// One range of bytes. Several, or what cannot be read, are answered by the whole.
fn part(headers: &Headers, length: usize) -> Answer {
    let mut lines = headers.get_all("range");
    let line = match (lines.next(), lines.next()) {
        (Some(line), None) => std::str::from_utf8(line).unwrap_or_default(),
        _ => return Answer::Whole,
    };
    let Some((unit, range)) = line.split_once('=') else { return Answer::Whole };
    let Some((first, last)) = range.trim().split_once('-') else { return Answer::Whole };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        // More digits than fit are more bytes than there are.
        digits.then(|| text.parse::<usize>().unwrap_or(usize::MAX))
    };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Answer::Whole;
    }
    match (number(first), number(last)) {
        (Some(first), last) if last.is_some() || range.trim().ends_with('-') => {
            let last = last.unwrap_or(usize::MAX);
            match () {
                () if last < first => Answer::Whole,
                () if first >= length => Answer::Unsatisfiable,
                () => Answer::Part(first..last.saturating_add(1).min(length)),
            }
        }
        (None, Some(suffix)) if first.is_empty() => match suffix {
            0 => Answer::Unsatisfiable,
            _ if length == 0 => Answer::Unsatisfiable,
            _ => Answer::Part(length.saturating_sub(suffix)..length),
        },
        _ => Answer::Whole,
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use bytes::Bytes;

    use super::*;
    use crate::key::{Key, Query};
    use crate::plan::{Seen, plan};
    use crate::testing::{NOW, WALL, date, reply, request, rules};

    fn check(told: &[(&str, &str)], ask: &[(&str, &str)], expected: Answer) {
        let told: Vec<_> = told.iter().copied().chain([("cache-control", "max-age=60")]).collect();
        let (head, reply, wall) = (request("GET", "/", ask), reply(200, &told), UNIX_EPOCH + WALL);
        let seen = Seen { request: &head, consumer: false, asked: NOW, told: NOW, wall };
        let key = Key::new(&[0; 16], None, &head, &Query::default());
        let plan = plan(&rules(), &seen, &reply).unwrap();
        let entry = Entry::new(&key, "a".into(), &reply, Bytes::from_static(b"0123456789"), plan, (NOW, wall));
        assert_eq!(answer(&entry, &head), expected, "{told:?} {ask:?}");
    }

    #[test]
    fn conditions_are_answered_from_what_is_known() {
        let etag = [("etag", "\"abc\"")];
        let weak = [("etag", "W/\"abc\"")];
        for tags in ["\"abc\"", "W/\"abc\"", "\"x\", \"abc\"", "\"abc\",\"x\"", "*", "\"a,b\" , \"abc\""] {
            check(&etag, &[("if-none-match", tags)], Answer::NotModified);
            check(&weak, &[("if-none-match", tags)], Answer::NotModified);
        }
        for tags in ["\"ab\"", "abc", "\"x,\"abc\"", "", "\"ABC\""] {
            check(&etag, &[("if-none-match", tags)], Answer::Whole);
        }
        let (older, changed, newer) = (date(-100), date(-50), date(-10));
        let modified = [("last-modified", &*changed)];
        check(&modified, &[("if-modified-since", &changed)], Answer::NotModified);
        check(&modified, &[("if-modified-since", &newer)], Answer::NotModified);
        check(&modified, &[("if-modified-since", &older)], Answer::Whole);
        check(&modified, &[("if-modified-since", "never")], Answer::Whole);
        // The tag counts where there are both.
        let both = [("etag", "\"abc\""), ("last-modified", &*changed)];
        check(&both, &[("if-none-match", "\"x\""), ("if-modified-since", &newer)], Answer::Whole);
        check(&[], &[("if-modified-since", &newer)], Answer::Whole);
    }

    #[test]
    fn one_range_is_a_part_and_anything_else_the_whole() {
        for (range, expected) in [
            ("bytes=0-1", Answer::Part(0..2)),
            ("bytes=1-", Answer::Part(1..10)),
            ("bytes=-1", Answer::Part(9..10)),
            ("bytes=-100", Answer::Part(0..10)),
            ("bytes=8-100", Answer::Part(8..10)),
            ("Bytes = 8-99999999999999999999", Answer::Part(8..10)),
            ("bytes=10-", Answer::Unsatisfiable),
            ("bytes=-0", Answer::Unsatisfiable),
            ("bytes=0-1,3-4", Answer::Whole),
            ("bytes=5-4", Answer::Whole),
            ("bytes=-", Answer::Whole),
            ("bytes=a-b", Answer::Whole),
            ("bytes=1-b", Answer::Whole),
            ("lines=0-1", Answer::Whole),
            ("bytes", Answer::Whole),
        ] {
            check(&[], &[("range", range)], expected);
        }
        let (now, before) = (date(0), date(-10));
        let known = [("etag", "\"a\""), ("last-modified", &*now)];
        for (if_range, whole) in
            [("\"a\"", false), (&*now, false), ("\"b\"", true), ("W/\"a\"", true), (&*before, true)]
        {
            let expected = if whole { Answer::Whole } else { Answer::Part(0..2) };
            check(&known, &[("range", "bytes=0-1"), ("if-range", if_range)], expected);
        }
    }
}
