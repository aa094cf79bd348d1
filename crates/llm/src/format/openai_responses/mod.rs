//! OpenAI's responses: a conversation is a list of items, of which messages are one kind.
//!
//! Thoughts of other providers are `reasoning` items, whose `encrypted_content` is the signature by which their provider
//! takes them back.

mod answer;
mod peek;
mod request;
mod stream;

pub(crate) use answer::{glance, read_answer, write_answer};
pub(crate) use peek::peek;
pub(crate) use request::{read_request, write_request};
pub(crate) use stream::{Decoder, Encoder, watch};

/// What the `encrypted_content` of a thought begins with that is not to be read.
const REDACTED: &str = "redacted:";
