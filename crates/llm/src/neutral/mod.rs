//! The form in the middle: what all dialects mean, in the words of none.
//!
//! A dialect is read into it and written from it, so that a new one is one folder below `format/` and not one file for
//! each that is there. The price is that a pair cannot have words of its own; what only two dialects share goes through
//! here like everything else ([`Setting::OpenAi`] is that).
//!
//! Things borrow from the body they were read from, and know their place in it: what cannot be written is named as the
//! caller wrote it. JSON that belongs to somebody else (schemas, arguments) stays text, with its order of keys and its
//! numbers as they were.

mod answer;
mod embed;
mod event;
mod loss;
mod request;

pub(crate) use answer::{Answer, Choice, Logprob};
pub(crate) use embed::{Task, Texts, Vectors};
pub(crate) use event::{Begin, Delta, Event};
pub(crate) use loss::Losses;
pub(crate) use request::{
    Cache, Call, Content, Effort, Format, Media, MediaKind, Message, OfNumber, Outcome, Part, Placed, Request, Role,
    Setting, Source, Thinking, Thought, Tool, ToolChoice, plain_id,
};
