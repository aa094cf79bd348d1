//! Google's Gemini, also as Vertex serves it. Model and stream stand in the path.
//!
//! Its JSON is protobuf's, which reads every name in two spellings (`generationConfig`, `generation_config`). Calls of tools
//! need not have an id: answers belong to them by name and order.

mod answer;
mod peek;
mod request;
mod schema;
mod stream;

pub(crate) use answer::{glance, read_answer, write_answer};
pub(crate) use peek::peek;
pub(crate) use request::{read_request, write_request};
pub(crate) use stream::{Decoder, Encoder, watch};

use crate::json::{Fields, Value};
use crate::malformed::Malformed;

/// The fields of an object, spelled as the specification spells them.
fn fields<'a>(value: Value<'a>) -> Result<Fields<'a>, Malformed> {
    Ok(value.fields("an object")?.spelled(peek::camel))
}

fn maybe_fields<'a>(of: &mut Fields<'a>, key: &str) -> Result<Option<Fields<'a>>, Malformed> {
    of.take(key).map(fields).transpose()
}
