//! Heads as nearly everybody writes them, read in one pass: one space where one is usual, CRLF at each end of a line,
//! visible ASCII. Whatever is written otherwise, rightly or wrongly, is none of these and left to `head.rs`, which
//! makes the same of those that are.

use base::{Headers, Version};
use smallvec::SmallVec;

/// What stands in a request's head, and how long that is.
pub(super) struct Request<'a> {
    pub(super) method: &'a [u8],
    pub(super) target: &'a str,
    pub(super) version: Version,
    pub(super) headers: Headers,
    pub(super) length: usize,
}

/// What stands in an answer's head, and how long that is.
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) version: Version,
    pub(super) headers: Headers,
    pub(super) length: usize,
}

pub(super) fn request(bytes: &[u8], most: usize) -> Option<Request<'_>> {
    let method = bytes.iter().position(|byte| !byte.is_ascii_uppercase())?;
    let target = method + 1;
    let end = target + bytes.get(target..)?.iter().position(|byte| !byte.is_ascii_graphic())?;
    let line_end = bytes.get(end..)?.strip_prefix(b" HTTP/1.1\r\n")?;
    if method == 0 || bytes[method] != b' ' || end == target {
        return None;
    }
    let (headers, length) = fields(bytes, bytes.len() - line_end.len(), most)?;
    let target = std::str::from_utf8(&bytes[target..end]).ok()?;
    Some(Request { method: &bytes[..method], target, version: Version::HTTP_11, headers, length })
}

pub(super) fn response(bytes: &[u8], most: usize) -> Option<Response> {
    let [a, b, c, b' ', reason @ ..] = bytes.strip_prefix(b"HTTP/1.1 ")? else { return None };
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u16::from(byte - b'0'));
    let status = digit(a)? * 100 + digit(b)? * 10 + digit(c)?;
    let start = bytes.len() - reason.len();
    let end = end_of_text(bytes, start)?;
    let (headers, length) = fields(bytes, after_line(bytes, end)?, most)?;
    Some(Response { status, version: Version::HTTP_11, headers, length })
}

/// The fields from `start` on, and where the head ends.
fn fields(bytes: &[u8], start: usize, most: usize) -> Option<(Headers, usize)> {
    let mut lengths: SmallVec<[(usize, usize); 32]> = SmallVec::new();
    let mut at = start;
    while *bytes.get(at)? != b'\r' {
        let name = end_of_name(bytes, at)? - at;
        let value = at + name + 2;
        let end = end_of_text(bytes, value)?;
        let as_usual = name > 0
            && name <= Headers::MAX_NAME
            && bytes[at + name..value] == *b": "
            && end > value
            && bytes[value] != b' '
            && bytes[end - 1] != b' '
            && lengths.len() < most;
        if !as_usual {
            return None;
        }
        lengths.push((name, end - value));
        at = after_line(bytes, end)?;
    }
    let length = after_line(bytes, at)?;
    // Room for the fields that the path adds.
    let mut headers = Headers::with_capacity(length + 256);
    headers.append_lines(&bytes[start..at], lengths.iter().copied());
    Some((headers, length))
}

/// Where the line behind the one begins that ends at `end`.
fn after_line(bytes: &[u8], end: usize) -> Option<usize> {
    bytes.get(end..)?.starts_with(b"\r\n").then_some(end + 2)
}

/// The first byte from `at` on that is neither a space nor visible.
fn end_of_text(bytes: &[u8], mut at: usize) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    while let Some(eight) = bytes.get(at..)?.first_chunk::<8>() {
        let eight = u64::from_le_bytes(*eight);
        // The highest bit of each byte; that of the first which is not text is right, since those before it neither
        // borrow nor carry.
        let before_space = eight.wrapping_sub(ONES * 0x20) & !eight;
        let behind_tilde = eight.wrapping_add(ONES) | eight;
        let others = (before_space | behind_tilde) & (ONES * 0x80);
        if others != 0 {
            return Some(at + others.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    let rest = bytes[at..].iter().position(|byte| !matches!(byte, b' '..=b'~'))?;
    Some(at + rest)
}

/// The first byte from `at` on that cannot be in a name.
fn end_of_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHEST: u64 = ONES * 0x80;
    // Most names are letters and dashes alone, of which eight are told at once.
    while let Some(eight) = bytes.get(at..)?.first_chunk::<8>() {
        let eight = u64::from_le_bytes(*eight);
        let lower = (eight | (ONES * 0x20)) & !HIGHEST;
        // The highest bit of each byte: it is not before `a`, it is behind `z`, it is no dash.
        let from_a = lower + ONES * (0x80 - b'a' as u64);
        let behind_z = lower + ONES * (0x7f - b'z' as u64);
        let no_dash = ((eight ^ (ONES * b'-' as u64)) & !HIGHEST) + ONES * 0x7f;
        let others = ((!(from_a ^ behind_z) & no_dash) | eight) & HIGHEST;
        if others != 0 {
            at += others.trailing_zeros() as usize / 8;
            break;
        }
        at += 8;
    }
    let rest = bytes[at..].iter().position(|byte| !IN_NAMES[usize::from(*byte)])?;
    Some(at + rest)
}

/// RFC 9110, 5.6.2.
const IN_NAMES: [bool; 256] = {
    let (mut may_be, others, mut byte) = ([false; 256], b"!#$%&'*+-.^_`|~", 0);
    while byte < 128 {
        may_be[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut at = 0;
    while at < others.len() {
        may_be[others[at] as usize] = true;
        at += 1;
    }
    may_be
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_ends_at_the_first_byte_that_is_none() {
        for before in 0..20 {
            for other in (0..=255u8).filter(|byte| !matches!(byte, b' '..=b'~')) {
                for behind in [0, b'a', 0x7f, 0xff] {
                    let mut bytes = vec![b'~'; before];
                    bytes.push(other);
                    bytes.extend_from_slice(&[behind; 9]);
                    assert_eq!(end_of_text(&bytes, 0), Some(before), "{bytes:?}");
                }
            }
            assert_eq!(end_of_text(&vec![b' '; before], 0), None);
        }
    }

    #[test]
    fn names_end_at_the_first_byte_that_cannot_be_in_one() {
        for before in 0..20 {
            for byte in 0..=255u8 {
                for (around, behind) in [(b'a', b'-'), (b'Z', b':'), (b'-', 0xff), (b'_', 0)] {
                    let mut bytes = vec![around; before];
                    bytes.push(byte);
                    bytes.extend_from_slice(&[behind; 9]);
                    let end = bytes.iter().position(|byte| !IN_NAMES[usize::from(*byte)]);
                    assert_eq!(end_of_name(&bytes, 0), end, "{bytes:?}");
                }
            }
            assert_eq!(end_of_name(&vec![b'a'; before], 0), None);
        }
    }

    #[test]
    fn what_is_usual_is_taken_and_what_is_not_is_left() {
        for (head, taken) in [
            ("GET /a?b HTTP/1.1\r\nHost: h\r\nX-A: b c\r\n\r\n", true),
            ("GET / HTTP/1.1\r\n\r\n", true),
            ("GET / HTTP/1.0\r\nHost: h\r\n\r\n", false),
            ("GET  / HTTP/1.1\r\nHost: h\r\n\r\n", false),
            ("GET / HTTP/1.1\nHost: h\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nHost:h\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nHost:  h\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nHost: h \r\n\r\n", false),
            ("GET / HTTP/1.1\r\nHost : h\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nHost: \r\n\r\n", false),
            ("GET / HTTP/1.1\r\nHost: h\n\r\n", false),
            ("GET / HTTP/1.1\r\nHost: h\r\n b\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nHost: h\r\n\n", false),
            ("GET / HTTP/1.1\r\nHost: h\r\n\r", false),
            ("\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", false),
            ("get / HTTP/1.1\r\nHost: h\r\n\r\n", false),
            ("GET / HTTP/1.1\r\na: b\r\nc: d\r\ne: f\r\ng: h\r\n\r\n", false),
        ] {
            assert_eq!(request(head.as_bytes(), 3).is_some(), taken, "{head:?}");
        }
        for (head, taken) in [
            ("HTTP/1.1 200 OK\r\nA: b\r\n\r\n", true),
            ("HTTP/1.1 200 \r\n\r\n", true),
            ("HTTP/1.1 200\r\n\r\n", false),
            ("HTTP/1.1 20 OK\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\n\r\n", false),
        ] {
            assert_eq!(response(head.as_bytes(), 3).is_some(), taken, "{head:?}");
        }
    }
}
