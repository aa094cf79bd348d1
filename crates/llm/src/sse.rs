//! Server-sent events: where one ends and what its lines are. What they mean is the dialects' business.

use std::borrow::Cow;

use memchr::memchr;

/// Cuts a stream into events, however its bytes come.
#[derive(Debug)]
pub(crate) struct Frames {
    /// What has come of an event that is not complete.
    held: Vec<u8>,
    /// Nothing but line ends since the last one, and perhaps the first byte of another.
    at_line_start: bool,
    half_an_end: bool,
    most: usize,
    /// The event that is under way is larger than `most`: the rest of it is passed over.
    overlong: bool,
}

/// One event.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    /// The `event` field.
    pub(crate) name: &'a [u8],
    /// The `data` fields, put together.
    pub(crate) data: Cow<'a, [u8]>,
}

/// What was cut off a stream.
#[derive(Debug)]
pub(crate) enum Piece<'a> {
    /// An event with the blank line that ends it.
    Whole(&'a [u8]),
    /// The first bytes of one that is too large, and then of the same the rest.
    Overlong(&'a [u8]),
    /// What came is no event, and no other can be found after it.
    Broken(&'static str),
}

impl Frames {
    pub(crate) fn new(most: usize) -> Frames {
        Frames { held: Vec::new(), at_line_start: true, half_an_end: false, most, overlong: false }
    }

    /// Takes what came and gives each event that is complete with it.
    pub(crate) fn push(&mut self, mut bytes: &[u8], mut event: impl FnMut(Piece<'_>)) {
        while !bytes.is_empty() {
            let Some(end) = self.end(bytes) else {
                self.hold(bytes, &mut event);
                return;
            };
            let (last, rest) = bytes.split_at(end);
            if self.overlong {
                event(Piece::Overlong(last));
                self.overlong = false;
            } else if self.held.is_empty() {
                event(self.piece(last));
            } else {
                self.held.extend_from_slice(last);
                event(self.piece(&self.held));
                self.held.clear();
                // An idle stream keeps no large buffer.
                self.held.shrink_to(4096);
            }
            bytes = rest;
        }
    }

    /// What is left of an event whose end never came.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.held
    }

    /// Whether the stream is between two events.
    pub(crate) fn is_between(&self) -> bool {
        self.held.is_empty() && !self.overlong
    }

    /// Whether bytes may pass that are one event, without being cut: nothing is under way, and they are not too large.
    pub(crate) fn may_skip(&self, event: &[u8]) -> bool {
        self.is_between() && event.len() <= self.most
    }

    /// An event is too large by its size, not by how it came.
    fn piece<'e>(&self, event: &'e [u8]) -> Piece<'e> {
        if event.len() > self.most { Piece::Overlong(event) } else { Piece::Whole(event) }
    }

    fn hold(&mut self, bytes: &[u8], event: &mut impl FnMut(Piece<'_>)) {
        if self.overlong {
            return event(Piece::Overlong(bytes));
        }
        self.held.extend_from_slice(bytes);
        if self.held.len() > self.most {
            self.overlong = true;
            event(Piece::Overlong(&self.held));
            self.held = Vec::new();
        }
    }

    /// Where the event ends that is under way: after an empty line.
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut from = 0;
        while let Some(length) = memchr(b'\n', &bytes[from..]) {
            let blank = self.at_line_start && self.is_line_end(&bytes[from..from + length]);
            from += length + 1;
            (self.at_line_start, self.half_an_end) = (true, false);
            if blank {
                return Some(from);
            }
        }
        // The two bytes of a line end may come apart.
        let rest = &bytes[from..];
        self.at_line_start &= self.is_line_end(rest);
        self.half_an_end |= !rest.is_empty();
        None
    }

    /// Whether nothing but an end of a line has come at its start, or the first half of one.
    fn is_line_end(&self, bytes: &[u8]) -> bool {
        matches!((self.half_an_end, bytes), (_, []) | (false, [b'\r']))
    }
}

impl<'a> Frame<'a> {
    pub(crate) fn parse(event: &'a [u8]) -> Frame<'a> {
        let mut frame = Frame { name: b"", data: Cow::Borrowed(b"") };
        let mut first = true;
        let mut rest = event;
        while !rest.is_empty() {
            let end = memchr(b'\n', rest).unwrap_or(rest.len());
            let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
            rest = rest.get(end + 1..).unwrap_or_default();
            // No field that matters has a longer name.
            let colon = line.iter().take(8).position(|byte| *byte == b':').unwrap_or(line.len());
            let value = line.get(colon + 1..).unwrap_or_default();
            let value = value.strip_prefix(b" ").unwrap_or(value);
            match &line[..colon] {
                b"event" => frame.name = value,
                b"data" if first => {
                    frame.data = Cow::Borrowed(value);
                    first = false;
                }
                b"data" => {
                    let data = frame.data.to_mut();
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                _ => {}
            }
        }
        frame
    }
}

/// Writes an event, with a name where the dialect has names.
pub(crate) fn write(name: Option<&str>, to: &mut Vec<u8>, data: impl FnOnce(&mut Vec<u8>)) {
    if let Some(name) = name {
        to.extend_from_slice(b"event: ");
        to.extend_from_slice(name.as_bytes());
        to.push(b'\n');
    }
    to.extend_from_slice(b"data: ");
    data(to);
    to.extend_from_slice(b"\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(stream: &[u8], size: usize, most: usize) -> Vec<(bool, Vec<u8>)> {
        let mut frames = Frames::new(most);
        let mut out = Vec::new();
        for chunk in stream.chunks(size) {
            frames.push(chunk, |piece| match piece {
                Piece::Whole(event) => out.push((true, event.to_vec())),
                Piece::Overlong(part) => out.push((false, part.to_vec())),
                Piece::Broken(_) => unreachable!("lines can always be read"),
            });
        }
        out
    }

    #[test]
    fn events_are_cut_at_empty_lines_however_they_come() {
        let stream = b"data: a\n\nevent: x\r\ndata: b\r\n\r\n: c\n\n\ndata: d\n";
        let expected: Vec<(bool, Vec<u8>)> =
            [&b"data: a\n\n"[..], b"event: x\r\ndata: b\r\n\r\n", b": c\n\n", b"\n"].map(|e| (true, e.to_vec())).into();
        for size in 1..=stream.len() {
            assert_eq!(cut(stream, size, 100), expected, "{size}");
        }
        // More than one of the first half are no end of a line.
        let stream = b"data: a\n\r\r\n\n";
        for size in 1..=stream.len() {
            assert_eq!(cut(stream, size, 100), [(true, stream.to_vec())], "{size}");
        }
    }

    #[test]
    fn what_is_too_large_passes_and_the_next_is_whole_again() {
        let stream = b"data: 0123456789\n\ndata: a\n\n";
        for size in 1..=stream.len() {
            let pieces = cut(stream, size, 10);
            let all: Vec<u8> = pieces.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
            assert_eq!(all, stream, "{size}");
            assert_eq!(pieces.last(), Some(&(true, b"data: a\n\n".to_vec())), "{size}");
        }
    }

    #[test]
    fn the_lines_of_an_event() {
        let check = |event: &str, name: &str, data: &str| {
            let frame = Frame::parse(event.as_bytes());
            assert_eq!((frame.name, &*frame.data), (name.as_bytes(), data.as_bytes()), "{event:?}");
        };
        check("data: a\n\n", "", "a");
        check("event:x\ndata:a\r\ndata:  b\r\n\r\n", "x", "a\n b");
        check(": ping\n\n", "", "");
        check("data\nid: 1\nretry: 5\n\n", "", "");
    }
}
