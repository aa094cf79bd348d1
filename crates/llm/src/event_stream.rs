//! `application/vnd.amazon.eventstream`: AWS's frames, which are to Bedrock what server-sent events are to the others.
//!
//! A message is twelve bytes (its length, that of its headers, and a checksum of these two), headers, a payload, and a
//! checksum of it all. There is no way to find the next message after one whose first twelve bytes are not right.

use std::borrow::Cow;

use flate2::Crc;

use crate::json::Out;
use crate::sse::{Frame, Piece};

/// What every message begins with.
const PRELUDE: usize = 12;
/// The least a message can be: nothing between prelude and checksum.
const LEAST: usize = PRELUDE + 4;

/// Cuts a stream into messages, however its bytes come.
#[derive(Debug)]
pub(crate) struct Frames {
    /// What has come of a message that is not complete.
    held: Vec<u8>,
    most: usize,
    /// Bytes that are still to come of a message that is larger than `most`.
    overlong: usize,
    broken: bool,
}

impl Frames {
    pub(crate) fn new(most: usize) -> Frames {
        Frames { held: Vec::new(), most, overlong: 0, broken: false }
    }

    /// Takes what came and gives each message that is complete with it. Nothing comes after [`Piece::Broken`].
    pub(crate) fn push(&mut self, mut bytes: &[u8], mut message: impl FnMut(Piece<'_>)) {
        while !bytes.is_empty() && !self.broken {
            if self.overlong > 0 {
                let (part, rest) = bytes.split_at(self.overlong.min(bytes.len()));
                self.overlong -= part.len();
                bytes = rest;
                message(Piece::Overlong(part));
                continue;
            }
            let need = match self.need(bytes) {
                Ok(need) => need,
                Err(why) => return self.fail(why, &mut message),
            };
            if need > self.most.max(PRELUDE) {
                self.overlong = need - self.held.len();
                if !self.held.is_empty() {
                    message(Piece::Overlong(&self.held));
                    self.held = Vec::new();
                }
                continue;
            }
            let (part, rest) = bytes.split_at((need - self.held.len()).min(bytes.len()));
            bytes = rest;
            let whole = match (self.held.is_empty(), part.len() == need) {
                (true, true) => part,
                _ => {
                    self.held.extend_from_slice(part);
                    &self.held
                }
            };
            // After the prelude the rest of the length is known.
            if whole.len() < need || need == PRELUDE {
                continue;
            }
            match check(whole) {
                Ok(()) => message(Piece::Whole(whole)),
                Err(why) => return self.fail(why, &mut message),
            }
            self.held.clear();
            // An idle stream keeps no large buffer.
            self.held.shrink_to(4096);
        }
    }

    /// Whether the stream is between two messages.
    pub(crate) fn is_between(&self) -> bool {
        self.held.is_empty() && self.overlong == 0 && !self.broken
    }

    /// How many bytes there must be to get on: the prelude, then the message.
    fn need(&self, bytes: &[u8]) -> Result<usize, &'static str> {
        let mut prelude = [0; PRELUDE];
        let known = self.held.iter().chain(bytes).take(PRELUDE);
        let mut come = 0;
        for (to, byte) in prelude.iter_mut().zip(known) {
            *to = *byte;
            come += 1;
        }
        if come < PRELUDE {
            return Ok(PRELUDE);
        }
        let (length, headers) = (number(&prelude, 0), number(&prelude, 4));
        if crc(&prelude[..8]) != u32::from_be_bytes([prelude[8], prelude[9], prelude[10], prelude[11]]) {
            return Err("the checksum of a message's first bytes is wrong");
        }
        if length < LEAST || headers > length - LEAST {
            return Err("a message's lengths contradict each other");
        }
        Ok(length)
    }

    fn fail(&mut self, why: &'static str, message: &mut impl FnMut(Piece<'_>)) {
        self.broken = true;
        self.held = Vec::new();
        message(Piece::Broken(why));
    }
}

/// What a message says: the name of the event or exception, and the payload. `message` is whole and right.
pub(crate) fn parse(message: &[u8]) -> Frame<'_> {
    let mut frame = Frame { name: b"", data: Cow::Borrowed(b"") };
    let headers = number(message, 4);
    let Some((headers, payload)) =
        message.get(PRELUDE..message.len() - 4).and_then(|inner| inner.split_at_checked(headers))
    else {
        return frame;
    };
    frame.data = Cow::Borrowed(payload);
    for (name, value) in Headers(headers) {
        match (name, value) {
            (b":event-type" | b":exception-type" | b":error-code", Some(value)) => frame.name = value,
            // An error that the service did not foresee has no payload.
            (b":error-message", Some(value)) if payload.is_empty() => {
                Out::object(frame.data.to_mut(), |out| out.text("message", &String::from_utf8_lossy(value)));
            }
            _ => {}
        }
    }
    frame
}

/// Writes an event or an exception.
pub(crate) fn write(is_exception: bool, name: &str, to: &mut Vec<u8>, payload: impl FnOnce(&mut Vec<u8>)) {
    let (kind, message_type) = match is_exception {
        true => (":exception-type", "exception"),
        false => (":event-type", "event"),
    };
    let start = to.len();
    to.extend_from_slice(&[0; PRELUDE]);
    for (name, value) in [(kind, name), (":content-type", "application/json"), (":message-type", message_type)] {
        // The names and values that are written are short.
        to.push(name.len() as u8);
        to.extend_from_slice(name.as_bytes());
        to.push(STRING);
        to.extend_from_slice(&(value.len() as u16).to_be_bytes());
        to.extend_from_slice(value.as_bytes());
    }
    let headers = to.len() - start - PRELUDE;
    payload(to);
    let length = to.len() - start + 4;
    to[start..start + 4].copy_from_slice(&(length as u32).to_be_bytes());
    to[start + 4..start + 8].copy_from_slice(&(headers as u32).to_be_bytes());
    let sum = crc(&to[start..start + 8]);
    to[start + 8..start + PRELUDE].copy_from_slice(&sum.to_be_bytes());
    let sum = crc(&to[start..]);
    to.extend_from_slice(&sum.to_be_bytes());
}

/// That the checksum is right and the headers can be read. The prelude has been looked at.
fn check(message: &[u8]) -> Result<(), &'static str> {
    let (inner, sum) = message.split_at(message.len() - 4);
    if crc(inner).to_be_bytes() != sum {
        return Err("the checksum of a message is wrong");
    }
    let mut headers = Headers(&inner[PRELUDE..PRELUDE + number(message, 4)]);
    let mut names: Vec<&[u8]> = Vec::new();
    for (name, _) in headers.by_ref() {
        if names.contains(&name) {
            return Err("a message has a header twice");
        }
        names.push(name);
    }
    match headers.0 {
        [] => Ok(()),
        _ => Err("a message has a header that cannot be read"),
    }
}

const BYTES: u8 = 6;
const STRING: u8 = 7;

/// The headers one after the other, with the value if it is a string. What cannot be read ends them, and stays.
struct Headers<'a>(&'a [u8]);

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let (length, rest) = self.0.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*length))?;
        let (kind, rest) = rest.split_first()?;
        let (length, rest) = match *kind {
            // Truth values have no more than their type.
            0 | 1 => (0, rest),
            2 => (1, rest),
            3 => (2, rest),
            4 => (4, rest),
            // A number, a time.
            5 | 8 => (8, rest),
            BYTES | STRING => {
                let (length, rest) = rest.split_first_chunk::<2>()?;
                (usize::from(u16::from_be_bytes(*length)), rest)
            }
            // A UUID.
            9 => (16, rest),
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        if name.is_empty() {
            return None;
        }
        self.0 = rest;
        Some((name, Some(value).filter(|_| *kind == STRING)))
    }
}

fn number(bytes: &[u8], at: usize) -> usize {
    let number = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
    // Four bytes fit everywhere we run.
    number.map_or(0, |number| u32::from_be_bytes(*number) as usize)
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    enum Out {
        Whole(Vec<u8>),
        Overlong(usize),
        Broken(&'static str),
    }

    fn cut(stream: &[u8], size: usize, most: usize) -> Vec<Out> {
        let mut frames = Frames::new(most);
        let mut out = Vec::new();
        for chunk in stream.chunks(size) {
            frames.push(chunk, |piece| match piece {
                Piece::Whole(message) => out.push(Out::Whole(message.to_vec())),
                Piece::Overlong(part) => match out.last_mut() {
                    Some(Out::Overlong(sum)) => *sum += part.len(),
                    _ => out.push(Out::Overlong(part.len())),
                },
                Piece::Broken(why) => out.push(Out::Broken(why)),
            });
        }
        out
    }

    // The vectors of AWS's SDKs.
    const EMPTY: &[u8] = b"\x00\x00\x00\x10\x00\x00\x00\x00\x05\xc2H\xeb}\x98\xc8\xff";
    const INT8: &[u8] = b"\x00\x00\x00\x17\x00\x00\x00\x07)\x86\x01X\x04byte\x02\xff\xc2\xf8i\xdc";
    const INT16: &[u8] = b"\x00\x00\x00\x19\x00\x00\x00\tq\x0e\x92>\x05short\x03\xff\xff\xb2|\xb6\xcc";
    const INT32: &[u8] =
        b"\x00\x00\x00\x1d\x00\x00\x00\r\x83\xe3\xf0\xe7\x07integer\x04\xff\xff\xff\xff\x8b\x8e\x12\xeb";
    const INT64: &[u8] =
        b"\x00\x00\x00\x1e\x00\x00\x00\x0e]J\xdb\x8d\x04long\x05\xff\xff\xff\xff\xff\xff\xff\xffK\xc22\xda";
    const PAYLOAD: &[u8] = b"\x00\x00\x00\x1d\x00\x00\x00\x00\xfdR\x8cZ{'foo':'bar'}\xc3e96";
    const ONE_STRING: &[u8] = b"\x00\x00\x00=\x00\x00\x00 \x07\xfd\x83\x96\x0ccontent-type\x07\x00\x10application/json{'foo':'bar'}\x8d\x9c\x08\xb1";
    const ALL_KINDS: &[u8] = b"\x00\x00\x00\x62\x00\x00\x00\x52\x03\xb5\xcb\x9c\x010\x00\x011\x01\x012\x02\x02\x013\x03\x00\x03\x014\x04\x00\x00\x00\x04\x015\x05\x00\x00\x00\x00\x00\x00\x00\x05\x016\x06\x00\x05bytes\x017\x07\x00\x04utf8\x018\x08\x00\x00\x00\x00\x00\x00\x00\x08\x019\x090123456789abcdef\x63\x35\x36\x71";
    const ERROR: &[u8] = b"\x00\x00\x00\x52\x00\x00\x00\x42\xbf\x23\x63\x7e\x0d:message-type\x07\x00\x05error\x0b:error-code\x07\x00\x04code\x0e:error-message\x07\x00\x07message\x6b\x6c\xea\x3d";
    const GOOD: [&[u8]; 9] = [EMPTY, INT8, INT16, INT32, INT64, PAYLOAD, ONE_STRING, ALL_KINDS, ERROR];

    #[test]
    fn the_published_messages_however_they_come() {
        let stream = GOOD.concat();
        let expected: Vec<Out> = GOOD.iter().map(|message| Out::Whole(message.to_vec())).collect();
        for size in 1..=stream.len() {
            assert_eq!(cut(&stream, size, 1000), expected, "{size}");
        }
        let kinds: Vec<_> = Headers(&ALL_KINDS[PRELUDE..PRELUDE + 0x52]).collect();
        assert_eq!(kinds.len(), 10);
        assert_eq!(kinds[7], (&b"7"[..], Some(&b"utf8"[..])));
        assert_eq!(kinds[9], (&b"9"[..], None));
        let frame = parse(ONE_STRING);
        assert_eq!((frame.name, &*frame.data), (&b""[..], &b"{'foo':'bar'}"[..]));
        let frame = parse(ERROR);
        assert_eq!((frame.name, &*frame.data), (&b"code"[..], &br#"{"message":"message"}"#[..]));
    }

    #[test]
    fn the_published_messages_that_are_wrong() {
        let check = |message: &[u8], expected| {
            for size in 1..=message.len() {
                assert_eq!(cut(message, size, usize::MAX), [Out::Broken(expected)], "{message:?}");
            }
        };
        let prelude = "the checksum of a message's first bytes is wrong";
        let whole = "the checksum of a message is wrong";
        check(b"\x01\x00\x00\x1d\x00\x00\x00\x00\xfdR\x8cZ{'foo':'bar'}\xc3e96", prelude);
        check(b"\x00\x00\x00\x1d\x00\x00\x00\x00\xfdR\x8cZ{'foo':'bar'\x8d\xc3e96", whole);
        check(b"\x00\x00\x00=\x00\x00\x00 \x07\xfd\x83\x96\x0ccontent+type\x07\x00\x10application/json{'foo':'bar'}\x8d\x9c\x08\xb1", whole);
        check(b"\x00\x00\x00=\xFF\x00\x01\x02\x07\xfd\x83\x96\x0ccontent-type\x07\x00\x10application/json{'foo':'bar'}\x8d\x9c\x08\xb1", prelude);
        check(
            b"\x00\x00\x00\x24\x00\x00\x00\x14\x4b\xb9\x82\xd0\x04test\x04asdf\x04test\x04asdf\xf3\xf4\x75\x63",
            "a message has a header twice",
        );
    }

    /// A message of which only the checksums are right.
    fn lie(length: u32, headers: u32, inner: &[u8]) -> Vec<u8> {
        let mut message = [length.to_be_bytes(), headers.to_be_bytes()].concat();
        message.extend_from_slice(&crc(&message).to_be_bytes());
        message.extend_from_slice(inner);
        message.extend_from_slice(&crc(&message).to_be_bytes());
        message
    }

    #[test]
    fn lengths_that_lie() {
        let lengths = "a message's lengths contradict each other";
        let unread = "a message has a header that cannot be read";
        let check = |message: Vec<u8>, expected| {
            for size in 1..=message.len() {
                assert_eq!(cut(&message, size, 1000), [Out::Broken(expected)], "{message:?}");
            }
        };
        check(lie(0, 0, b""), lengths);
        check(lie(15, 0, b""), lengths);
        check(lie(16, 1, b""), lengths);
        check(lie(20, u32::MAX, b"1234"), lengths);
        check(lie(17, 1, b"\x05"), unread);
        check(lie(18, 2, b"\x00\x00"), unread);
        check(lie(19, 3, b"\x01a\x0a"), unread);
        check(lie(22, 6, b"\x01a\x07\xff\xffb"), unread);
        check(lie(19, 3, b"\x01a\x07"), unread);
    }

    #[test]
    fn what_is_too_large_is_not_held_and_the_next_is_whole_again() {
        let mut stream = Vec::new();
        write(false, "metadata", &mut stream, |to| to.resize(to.len() + 5000, b' '));
        let large = stream.len();
        stream.extend_from_slice(EMPTY);
        for size in 1..=stream.len() {
            assert_eq!(cut(&stream, size, 1000), [Out::Overlong(large), Out::Whole(EMPTY.to_vec())], "{size}");
        }
        // One that promises four gigabytes.
        let mut frames = Frames::new(1000);
        frames.push(&lie(u32::MAX, 0, b""), |piece| assert!(matches!(piece, Piece::Overlong(_))));
        assert!(frames.held.is_empty() && !frames.is_between());
    }

    #[test]
    fn what_is_written_is_read() {
        let mut stream = Vec::new();
        write(false, "messageStart", &mut stream, |to| to.extend_from_slice(b"{\"role\":\"assistant\"}"));
        let event = stream.len();
        write(true, "throttlingException", &mut stream, |to| to.extend_from_slice(b"{}"));
        let expected = [Out::Whole(stream[..event].to_vec()), Out::Whole(stream[event..].to_vec())];
        assert_eq!(cut(&stream, 7, 1000), expected);
        let frame = parse(&stream[..event]);
        assert_eq!((frame.name, &*frame.data), (&b"messageStart"[..], &b"{\"role\":\"assistant\"}"[..]));
        assert_eq!(parse(&stream[event..]).name, b"throttlingException");
    }
}
