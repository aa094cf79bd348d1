//! From one dialect into another: requests on their way out, answers and errors on their way back.
//!
//! `from` is always the caller's dialect and `to` the provider's, also for what comes back.

use std::fmt;

use base::TokenUsage;

use crate::dialect::Dialect;
use crate::error;
use crate::format::{self, bedrock_cohere, bedrock_titan, gemini_embeddings, openai_embeddings};
use crate::json::{self, Value};
use crate::malformed::Malformed;
use crate::neutral::{Losses, Texts, Vectors};
use crate::peek::peek;
use crate::splice::{Splice, splice};
use crate::stream::Stop;

#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'o> {
    /// The provider's name for the model, to be put where its dialect has it.
    pub model: &'o str,
    /// A request of which something would be lost is refused.
    pub strict: bool,
    /// Whether the answer is to be a stream, where the caller's dialect says that by the path.
    pub stream: bool,
    /// Ask for the usage of a stream of chat completions even if the caller does not.
    pub include_usage: bool,
    /// The most tokens of an answer, where the provider's dialect must have it and the caller does not say.
    pub max_output: Option<u64>,
    /// An id for an answer, where the provider gives none.
    pub id: &'o str,
    /// Seconds since 1970, where the provider does not say when.
    pub now: u64,
    /// The request is for counting its tokens, not for an answer; what comes back is read by [`crate::count`].
    pub count: bool,
    /// Of embeddings, one vector is wanted, by itself.
    pub one: bool,
    /// Of embeddings, vectors are wanted in base64.
    pub packed: bool,
    /// Of embeddings, tokens of the texts as the answer's head tells them ([`Dialect::tokens_field`]).
    pub tokens: Option<u64>,
    pub quirks: Quirks,
}

/// How a provider's words differ from those of the dialect it speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quirks {
    /// It knows `max_tokens`, the older name of `max_completion_tokens`, only.
    pub max_tokens: bool,
    /// It takes thoughts back as `reasoning_content`.
    pub reasoning_content: bool,
}

/// A request in the provider's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translated {
    pub body: Vec<u8>,
    /// Whether the answer is to be a stream: where the dialect says that by the path, this is how to know.
    pub stream: bool,
    /// What could not be carried.
    pub lost: Vec<Lost>,
}

/// Something that the provider's dialect has no words for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Where it stands in the caller's body: `messages[2].content[0]`, `logit_bias`.
    pub path: String,
}

/// Why a request was not translated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    Malformed(Malformed),
    /// With [`Options::strict`].
    Lost(Vec<Lost>),
    /// Nothing translates this dialect into that.
    Pair(Dialect, Dialect),
}

/// An answer in the caller's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub body: Vec<u8>,
    pub usage: Option<TokenUsage>,
    pub stop: Option<Stop>,
    /// What could not be carried, by its place in the provider's body.
    pub lost: Vec<Lost>,
}

/// A provider's error in the caller's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub body: Vec<u8>,
    pub kind: error::Kind,
    /// What the provider said, or that it said nothing that can be understood.
    pub message: String,
}

/// A request of the caller's, for the provider. Of one dialect on both sides only the model changes.
pub fn request(from: Dialect, to: Dialect, body: &[u8], options: &Options<'_>) -> Result<Translated, Refused> {
    if from == to {
        let found = peek(from, body).map_err(Refused::Malformed)?;
        let change = Splice { model: Some(options.model), include_usage: options.include_usage };
        let stream = options.stream || found.stream;
        return Ok(Translated { body: splice(body, &found, &change).into_owned(), stream, lost: Vec::new() });
    }
    let malformed = |error: Malformed| Refused::Malformed(error.in_body(body));
    let mut lost = Losses::default();
    let mut translated = Vec::with_capacity(body.len() + body.len() / 8 + 64);
    let stream = match (format::request_reader(from), format::request_writer(to)) {
        (Some(read), Some(write)) => {
            let mut request = read(Value::parse(body).map_err(malformed)?, &mut lost).map_err(malformed)?;
            request.stream |= options.stream;
            write(&request, options, &mut lost, &mut translated);
            request.stream
        }
        _ => {
            let write = match to {
                Dialect::OpenAiEmbeddings => openai_embeddings::write_request,
                Dialect::GeminiEmbeddings => gemini_embeddings::write_request,
                Dialect::BedrockTitan => bedrock_titan::write_request,
                Dialect::BedrockCohere => bedrock_cohere::write_request,
                _ => return Err(Refused::Pair(from, to)),
            };
            let texts = texts(from, body, &mut lost).ok_or(Refused::Pair(from, to))?.map_err(malformed)?;
            if to == Dialect::BedrockTitan && texts.texts.len() != 1 {
                let came = format!("{} texts", texts.texts.len());
                return Err(malformed(Malformed::new(
                    came,
                    0,
                    "one text: of more its provider makes no vectors in a call",
                )));
            }
            write(&texts, options, &mut lost, &mut translated);
            false
        }
    };
    let lost = lost.named(body);
    match options.strict && !lost.is_empty() {
        true => Err(Refused::Lost(lost)),
        false => Ok(Translated { body: translated, stream, lost }),
    }
}

fn texts<'a>(from: Dialect, body: &'a [u8], lost: &mut Losses) -> Option<Result<Texts<'a>, Malformed>> {
    match from {
        Dialect::OpenAiEmbeddings => {
            Some(Value::parse(body).and_then(|value| openai_embeddings::read_request(value, lost)))
        }
        Dialect::GeminiEmbeddings => {
            Some(Value::parse(body).and_then(|value| gemini_embeddings::read_request(value, lost)))
        }
        _ => None,
    }
}

/// An answer of the provider's (a success, whole), for the caller.
pub fn answer(from: Dialect, to: Dialect, body: &[u8], options: &Options<'_>) -> Result<Answer, Malformed> {
    if from == to {
        let (usage, stop) = format::glance(to, body);
        return Ok(Answer { body: body.to_vec(), usage, stop, lost: Vec::new() });
    }
    let (Some(read), Some(write)) = (format::answer_reader(to), format::answer_writer(from)) else {
        return vectors(from, to, body, options);
    };
    let mut lost = Losses::default();
    let answer = Value::parse(body).and_then(|value| read(value, &mut lost)).map_err(|error| error.in_body(body))?;
    let mut translated = Vec::with_capacity(body.len() + body.len() / 8 + 64);
    write(&answer, options, &mut translated);
    let stop = answer.choices.first().and_then(|choice| choice.stop);
    Ok(Answer { body: translated, usage: answer.usage, stop, lost: lost.named(body) })
}

fn vectors(from: Dialect, to: Dialect, body: &[u8], options: &Options<'_>) -> Result<Answer, Malformed> {
    let mut lost = Losses::default();
    let foreign = || Malformed::new("an answer of another dialect", 0, "one that can be translated");
    let write = match from {
        Dialect::OpenAiEmbeddings => openai_embeddings::write_answer,
        Dialect::GeminiEmbeddings => gemini_embeddings::write_answer,
        _ => return Err(foreign()),
    };
    let read = |value| match to {
        Dialect::OpenAiEmbeddings => openai_embeddings::read_answer(value, &mut lost),
        Dialect::GeminiEmbeddings => gemini_embeddings::read_answer(value, &mut lost),
        Dialect::BedrockTitan => bedrock_titan::read_answer(value, &mut lost),
        Dialect::BedrockCohere => bedrock_cohere::read_answer(value, &mut lost),
        _ => Err(foreign()),
    };
    let mut vectors: Vectors<'_> = Value::parse(body).and_then(read).map_err(|error| error.in_body(body))?;
    vectors.tokens = vectors.tokens.or(options.tokens);
    let mut translated = Vec::with_capacity(body.len() + 128);
    write(&vectors, options, &mut translated);
    let usage = vectors.tokens.map(|input| TokenUsage { input, ..TokenUsage::default() });
    Ok(Answer { body: translated, usage, stop: Some(Stop::End), lost: lost.named(body) })
}

/// Usage and end of an answer whose body goes on as it is.
pub fn glance(dialect: Dialect, body: &[u8]) -> (Option<TokenUsage>, Option<Stop>) {
    format::glance(dialect, body)
}

/// Whether such a body answers anything; an error that was sent with the status of a success does not, nor does `{}`.
pub fn answers(dialect: Dialect, body: &[u8]) -> bool {
    format::answers(dialect, body)
}

/// Whether an answer that goes on as it is can be read by a caller at all: one object of JSON, and nothing after it.
pub fn check(body: &[u8]) -> Result<(), Malformed> {
    json::check(body).map_err(|malformed| malformed.in_body(body))
}

/// A provider's error, for the caller: also where the provider answers with a page of HTML, or nothing.
pub fn error(from: Dialect, to: Dialect, status: u16, body: &[u8]) -> Failure {
    let read = format::read_error(body);
    let understood = read.is_some();
    let (word, message) = read.unwrap_or_default();
    let kind = word.as_deref().and_then(error::Kind::of_word).unwrap_or(error::Kind::of_status(status));
    let message = match message.is_empty() {
        true => format!("the provider answered with status {status} and nothing that can be understood"),
        false => message,
    };
    let body = match from == to && understood {
        true => body.to_vec(),
        false => error::body(from, status, kind, &message),
    };
    Failure { body, kind, message }
}

// === impl Lost ===

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

// === impl Refused ===

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Malformed(malformed) => malformed.fmt(f),
            Refused::Lost(lost) => {
                let all: Vec<&str> = lost.iter().map(|lost| lost.path.as_str()).collect();
                write!(f, "the provider's dialect has no words for {}", all.join(", "))
            }
            Refused::Pair(from, to) => write!(f, "{from} cannot be translated into {to}"),
        }
    }
}

impl std::error::Error for Refused {}
