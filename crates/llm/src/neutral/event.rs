//! What happens in a stream.

use std::borrow::Cow;

use base::TokenUsage;

use super::Logprob;
use crate::error;
use crate::stream::Stop;

/// A stream is a start, then parts, each begun, added to and ended, then why it stopped, what it used, and the end.
///
/// Parts of one choice are numbered from nought and come one after the other: a reader ends one before it begins the
/// next, as the stricter dialects want it.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    Start {
        id: Option<Cow<'a, str>>,
        model: Option<Cow<'a, str>>,
        created: Option<u64>,
    },
    Begin {
        choice: u32,
        part: u32,
        what: Begin<'a>,
    },
    Delta {
        choice: u32,
        part: u32,
        delta: Delta<'a>,
    },
    End {
        choice: u32,
        part: u32,
    },
    Logprobs {
        choice: u32,
        logprobs: Vec<Logprob<'a>>,
    },
    Stop {
        choice: u32,
        stop: Stop,
        sequence: Option<Cow<'a, str>>,
    },
    /// The counts so far, and whether they are final.
    Usage {
        usage: TokenUsage,
        last: bool,
    },
    /// Nothing comes after it.
    Error {
        kind: error::Kind,
        message: Cow<'a, str>,
    },
    /// Keeps the connection open.
    Ping,
    /// The proper end.
    Done,
}

#[derive(Debug)]
pub(crate) enum Begin<'a> {
    Text,
    Refusal,
    Thought,
    /// It comes whole.
    Redacted(Cow<'a, str>),
    Call {
        id: Cow<'a, str>,
        name: Cow<'a, str>,
    },
}

/// What is added to a part; it is of the part's own kind, but for a signature, which is a thought's or a call's.
#[derive(Debug)]
pub(crate) enum Delta<'a> {
    Text(Cow<'a, str>),
    Refusal(Cow<'a, str>),
    Thought(Cow<'a, str>),
    Arguments(Cow<'a, str>),
    Signature(Cow<'a, str>),
}
