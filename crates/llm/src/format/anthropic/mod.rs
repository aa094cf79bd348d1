//! Anthropic's messages.

mod answer;
mod peek;
mod request;
mod stream;

pub(crate) use answer::{glance, read_answer, write_answer};
pub(crate) use peek::peek;
pub(crate) use request::{Think, read_request, write_request};
pub(crate) use stream::{Decoder, Encoder, watch};
