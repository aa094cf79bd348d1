//! OpenAI's chat completions, the dialect that most providers speak beside their own.
//!
//! Two customs of others are kept since callers know them: thoughts are `reasoning_content` of a message (DeepSeek's and
//! vLLM's name), and, where they are signed, also `thinking_blocks` in Anthropic's shape (LiteLLM's name), which come back
//! with the next request.

mod answer;
mod peek;
mod request;
mod stream;

pub(crate) use answer::{glance, read_answer, write_answer};
pub(crate) use peek::peek;
pub(crate) use request::{read_request, write_request};
pub(crate) use stream::{Decoder, Encoder, is_usage_only, watch};
