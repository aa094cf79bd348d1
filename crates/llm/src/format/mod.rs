//! One file per dialect: how it is looked at, read and written.

pub(crate) mod anthropic;
pub(crate) mod bedrock;
pub(crate) mod bedrock_cohere;
pub(crate) mod bedrock_titan;
pub(crate) mod gemini;
pub(crate) mod gemini_embeddings;
pub(crate) mod openai_chat;
pub(crate) mod openai_embeddings;
pub(crate) mod openai_responses;

use std::borrow::Cow;

use base::TokenUsage;

use crate::dialect::Dialect;
use crate::json::{self, Value};
use crate::malformed::Malformed;
use crate::neutral::{Answer, Delta, Event, Losses, Request};
use crate::sse::Frame;
use crate::stream::{Head, Stop};
use crate::translate::{Glance, Options};

/// What a dialect can do. A new one has its line in each of the matches below.
type ReadRequest = for<'a> fn(Value<'a>, &mut Losses) -> Result<Request<'a>, Malformed>;
type WriteRequest = fn(&Request<'_>, &Options<'_>, &mut Losses, &mut Vec<u8>);
type ReadAnswer = for<'a> fn(Value<'a>, &mut Losses) -> Result<Answer<'a>, Malformed>;
type WriteAnswer = fn(&Answer<'_>, &Options<'_>, &mut Vec<u8>);

pub(crate) fn request_reader(dialect: Dialect) -> Option<ReadRequest> {
    match dialect {
        Dialect::OpenAiChat => Some(openai_chat::read_request),
        Dialect::OpenAiResponses => Some(openai_responses::read_request),
        Dialect::Anthropic => Some(anthropic::read_request),
        Dialect::Gemini => Some(gemini::read_request),
        Dialect::Bedrock => Some(bedrock::read_request),
        _ => None,
    }
}

pub(crate) fn request_writer(dialect: Dialect) -> Option<WriteRequest> {
    match dialect {
        Dialect::OpenAiChat => Some(openai_chat::write_request),
        Dialect::OpenAiResponses => Some(openai_responses::write_request),
        Dialect::Anthropic => Some(anthropic::write_request),
        Dialect::Gemini => Some(gemini::write_request),
        Dialect::Bedrock => Some(bedrock::write_request),
        _ => None,
    }
}

pub(crate) fn answer_reader(dialect: Dialect) -> Option<ReadAnswer> {
    match dialect {
        Dialect::OpenAiChat => Some(openai_chat::read_answer),
        Dialect::OpenAiResponses => Some(openai_responses::read_answer),
        Dialect::Anthropic => Some(anthropic::read_answer),
        Dialect::Gemini => Some(gemini::read_answer),
        Dialect::Bedrock => Some(bedrock::read_answer),
        _ => None,
    }
}

pub(crate) fn answer_writer(dialect: Dialect) -> Option<WriteAnswer> {
    match dialect {
        Dialect::OpenAiChat => Some(openai_chat::write_answer),
        Dialect::OpenAiResponses => Some(openai_responses::write_answer),
        Dialect::Anthropic => Some(anthropic::write_answer),
        Dialect::Gemini => Some(gemini::write_answer),
        Dialect::Bedrock => Some(bedrock::write_answer),
        _ => None,
    }
}

/// Reads a stream of a provider's.
#[derive(Debug)]
pub(crate) enum Decoder {
    OpenAiChat(openai_chat::Decoder),
    OpenAiResponses(openai_responses::Decoder),
    Anthropic(anthropic::Decoder),
    Gemini(gemini::Decoder),
    Bedrock(bedrock::Decoder),
}

impl Decoder {
    pub(crate) fn new(dialect: Dialect) -> Option<Decoder> {
        match dialect {
            Dialect::OpenAiChat => Some(Decoder::OpenAiChat(openai_chat::Decoder::default())),
            Dialect::OpenAiResponses => Some(Decoder::OpenAiResponses(openai_responses::Decoder::default())),
            Dialect::Anthropic => Some(Decoder::Anthropic(anthropic::Decoder::default())),
            Dialect::Gemini => Some(Decoder::Gemini(gemini::Decoder::default())),
            Dialect::Bedrock => Some(Decoder::Bedrock(bedrock::Decoder::default())),
            _ => None,
        }
    }

    pub(crate) fn read(&mut self, frame: &Frame<'_>, event: &mut dyn FnMut(Event<'_>)) -> Result<(), Malformed> {
        match self {
            Decoder::OpenAiChat(decoder) => decoder.read(frame, event),
            Decoder::OpenAiResponses(decoder) => decoder.read(frame, event),
            Decoder::Anthropic(decoder) => decoder.read(frame, event),
            Decoder::Gemini(decoder) => decoder.read(frame, event),
            Decoder::Bedrock(decoder) => decoder.read(frame, event),
        }
    }

    /// Whether an event that brings nothing but text leaves the decoder as it was, so that the same of another text means
    /// the same of that.
    pub(crate) fn repeats(&self) -> bool {
        matches!(self, Decoder::OpenAiChat(_) | Decoder::Anthropic(_))
    }
}

/// Writes a stream for a caller.
#[derive(Debug)]
pub(crate) enum Encoder {
    OpenAiChat(openai_chat::Encoder),
    OpenAiResponses(openai_responses::Encoder),
    Anthropic(anthropic::Encoder),
    Gemini(gemini::Encoder),
    Bedrock(bedrock::Encoder),
}

impl Encoder {
    pub(crate) fn new(dialect: Dialect, head: Head) -> Option<Encoder> {
        match dialect {
            Dialect::OpenAiChat => Some(Encoder::OpenAiChat(openai_chat::Encoder::new(head))),
            Dialect::OpenAiResponses => Some(Encoder::OpenAiResponses(openai_responses::Encoder::new(head))),
            Dialect::Anthropic => Some(Encoder::Anthropic(anthropic::Encoder::new(head))),
            Dialect::Gemini => Some(Encoder::Gemini(gemini::Encoder::new(head))),
            Dialect::Bedrock => Some(Encoder::Bedrock(bedrock::Encoder::new(head))),
            _ => None,
        }
    }

    /// Writes what an event is in the caller's words, at once.
    pub(crate) fn write(&mut self, event: Event<'_>, to: &mut Vec<u8>) {
        match self {
            Encoder::OpenAiChat(encoder) => encoder.write(event, to),
            Encoder::OpenAiResponses(encoder) => encoder.write(event, to),
            Encoder::Anthropic(encoder) => encoder.write(event, to),
            Encoder::Gemini(encoder) => encoder.write(event, to),
            Encoder::Bedrock(encoder) => encoder.write(event, to),
        }
    }

    /// What is written round each piece of text of a part, where that is always the same and nothing is kept of it.
    pub(crate) fn round_text(&mut self, choice: u32, part: u32) -> Option<(Vec<u8>, usize)> {
        if !matches!(self, Encoder::OpenAiChat(_) | Encoder::Anthropic(_)) {
            return None;
        }
        let mut write = |text: &'static str| {
            let mut to = Vec::new();
            self.write(Event::Delta { choice, part, delta: Delta::Text(text.into()) }, &mut to);
            to
        };
        let (without, mut with) = (write(""), write("x"));
        // The closing quote differs from the text that comes before it.
        let at = without.iter().zip(&with).position(|(without, with)| without != with)?;
        with.remove(at);
        Some((with, at))
    }

    /// Events written, where the dialect counts them.
    pub(crate) fn events(&self) -> Option<u64> {
        match self {
            Encoder::OpenAiResponses(encoder) => Some(encoder.events()),
            _ => None,
        }
    }

    /// Writes the proper end.
    pub(crate) fn end(&mut self, to: &mut Vec<u8>) {
        match self {
            Encoder::OpenAiChat(encoder) => encoder.end(to),
            Encoder::OpenAiResponses(encoder) => encoder.end(to),
            Encoder::Anthropic(encoder) => encoder.end(to),
            Encoder::Gemini(encoder) => encoder.end(to),
            Encoder::Bedrock(encoder) => encoder.end(to),
        }
    }
}

/// What matters of a whole answer to the books, by going through it once.
pub(crate) fn glance(dialect: Dialect, body: &[u8]) -> Result<Glance, Malformed> {
    match dialect {
        Dialect::OpenAiChat => openai_chat::glance(body),
        Dialect::OpenAiResponses => openai_responses::glance(body),
        Dialect::OpenAiEmbeddings => openai_embeddings::glance(body),
        Dialect::Anthropic => anthropic::glance(body),
        Dialect::Gemini => gemini::glance(body),
        Dialect::GeminiEmbeddings => gemini_embeddings::glance(body),
        Dialect::Bedrock => bedrock::glance(body),
        Dialect::BedrockTitan => bedrock_titan::glance(body),
        Dialect::BedrockCohere => bedrock_cohere::glance(body),
    }
}

/// The same of vectors: what they used is the tokens of the texts, in an object in the answer.
fn glance_at_vectors(body: &[u8], [object, tokens]: [&str; 2], vectors: &[&str]) -> Result<Glance, Malformed> {
    let (mut input, mut answers) = (None, false);
    let error = json::unless_error(body, |cursor, key| {
        match key {
            _ if key == object => {
                let usage = Value::read(cursor)?.fields("an object");
                input = usage.ok().and_then(|mut usage| usage.count(tokens).ok()?);
            }
            _ if vectors.contains(&key) => answers |= cursor.something()?,
            _ => cursor.skip()?,
        }
        Ok(())
    })?;
    let usage = input.map(|input| TokenUsage { input, ..TokenUsage::default() });
    Ok(Glance { usage, stop: Some(Stop::End), answers: answers && !error })
}

/// The word and the message of an error, in whichever of the usual shapes: an object `error`, a string `error`, a
/// `message`, or the first of an array of those.
pub(crate) fn read_error(body: &[u8]) -> Option<(Option<String>, String)> {
    let mut value = Value::parse(body).ok()?;
    if value.is_array() {
        value = value.array("an array").ok()?.into_iter().next()?;
    }
    let mut fields = value.fields("an object").ok()?;
    let nested = fields.take("error");
    if let Some(text) = nested.as_ref().and_then(Value::as_str) {
        return Some((None, text.to_owned()));
    }
    let mut fields = match nested {
        Some(error) => error.fields("an object").ok()?,
        None => fields,
    };
    let message =
        ["message", "Message", "detail"].iter().find_map(|key| Some(fields.take(key)?.as_str()?.to_owned()))?;
    // The most telling first: of OpenAI's words `code` says more than `type` where it says anything.
    let known = |key: &&str| {
        let word = fields.take(key)?.as_str()?.to_owned();
        crate::error::Kind::of_word(&word).map(|_| word)
    };
    Some((["code", "status", "type", "__type"].iter().find_map(known), message))
}

/// A word at a path of keys.
pub(crate) fn word<T>(body: &[u8], path: &[&str], read: impl FnOnce(&str) -> T) -> Option<T> {
    json::find(body, path)?.as_str().map(read)
}

/// What an event of a stream is. Its data says so, and readers go by that; some servers send no name beside it.
pub(crate) fn kind<'f>(frame: &'f Frame<'_>) -> Cow<'f, [u8]> {
    let rest = frame.data.strip_prefix(b"{\"type\":\"");
    if let Some(rest) = rest
        && let Some(end) = memchr::memchr2(b'"', b'\\', rest)
        && rest[end] == b'"'
    {
        return rest[..end].into();
    }
    match word(&frame.data, &["type"], |kind| kind.as_bytes().to_vec()) {
        Some(kind) => kind.into(),
        None => frame.name.into(),
    }
}
