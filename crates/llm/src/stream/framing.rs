//! What a stream's events are wrapped in: lines, or AWS's messages.

use crate::dialect::Dialect;
use crate::event_stream;
use crate::sse::{self, Frame, Piece};

#[derive(Debug)]
pub(crate) enum Framing {
    Lines(sse::Frames),
    Messages(event_stream::Frames),
}

/// How an event is read that was cut off.
pub(crate) type Parse = for<'a> fn(&'a [u8]) -> Frame<'a>;

impl Framing {
    /// `most`: bytes of one event.
    pub(crate) fn new(dialect: Dialect, most: usize) -> Framing {
        match dialect {
            Dialect::Bedrock => Framing::Messages(event_stream::Frames::new(most)),
            _ => Framing::Lines(sse::Frames::new(most)),
        }
    }

    pub(crate) fn parser(&self) -> Parse {
        match self {
            // By a closure, since the method is of one lifetime.
            Framing::Lines(_) => |event| Frame::parse(event),
            Framing::Messages(_) => event_stream::parse,
        }
    }

    /// Whether bytes that are one event need not be pushed.
    pub(super) fn may_skip(&self, event: &[u8]) -> bool {
        match self {
            Framing::Lines(frames) => frames.may_skip(event),
            Framing::Messages(_) => false,
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8], event: impl FnMut(Piece<'_>)) {
        match self {
            Framing::Lines(frames) => frames.push(bytes, event),
            Framing::Messages(frames) => frames.push(bytes, event),
        }
    }

    /// An event at the end that lacks nothing but what ends it.
    pub(super) fn rest(&self) -> &[u8] {
        match self {
            Framing::Lines(frames) => frames.rest(),
            Framing::Messages(_) => b"",
        }
    }

    /// What must come before another event can be understood; `None` if nothing can make it so.
    pub(crate) fn closing(&self) -> Option<&'static [u8]> {
        match self {
            Framing::Lines(frames) if frames.is_between() => Some(b""),
            Framing::Lines(_) => Some(b"\n\n"),
            Framing::Messages(frames) => frames.is_between().then_some(b""),
        }
    }
}
