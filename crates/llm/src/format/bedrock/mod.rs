//! Amazon Bedrock's Converse. Model and stream stand in the path.
//!
//! A block says by its one key what it is. What only some models have stands in `additionalModelRequestFields`, in the words
//! of whoever made the model.

mod answer;
mod media;
mod peek;
mod request;
mod stream;

pub(crate) use answer::{glance, read_answer, write_answer};
pub(crate) use peek::peek;
pub(crate) use request::{read_request, write_request};
pub(crate) use stream::{Decoder, Encoder, watch};
