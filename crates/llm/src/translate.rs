//! From one dialect into another: requests on their way out, answers and errors on their way back.
//!
//! `from` is always the caller's dialect and `to` the provider's, also for what comes back.

use std::fmt;

use base::TokenUsage;

use crate::dialect::Dialect;
use crate::error;
use crate::format::{self, bedrock_cohere, bedrock_titan, gemini_embeddings, openai_embeddings};
use crate::json::Value;
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

/// What matters of a whole answer to the books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glance {
    pub usage: Option<TokenUsage>,
    pub stop: Option<Stop>,
    /// It is no error and has what answers of its dialect have; an error that was sent with the status of a success does
    /// not answer anything, nor does `{}`.
    pub answers: bool,
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
        let Glance { usage, stop, .. } = glance(to, body)?;
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

/// An answer whose body goes on as it is, unless no caller could read it: one object of JSON, and nothing after it.
pub fn glance(dialect: Dialect, body: &[u8]) -> Result<Glance, Malformed> {
    format::glance(dialect, body).map_err(|malformed| malformed.in_body(body))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glance_tells_what_answers_and_what_does_not() {
        use Dialect::*;
        let usage = |input, output| Some(TokenUsage { input, output, ..TokenUsage::default() });
        let check = |dialect, body: &str, expected: (Option<TokenUsage>, Option<Stop>, bool)| {
            let (usage, stop, answers) = expected;
            let seen = glance(dialect, body.as_bytes());
            assert_eq!(seen, Ok(Glance { usage, stop, answers }), "{dialect}: {body}");
        };
        let choice = r#"{"message":{"content":"a \"b\" [c"},"finish_reason":"stop"}"#;
        let told = r#""usage":{"prompt_tokens":2,"completion_tokens":1}"#;
        check(OpenAiChat, &format!(r#"{{"choices":[{choice}],{told}}}"#), (usage(2, 1), Some(Stop::End), true));
        // Whatever stands before and after it, twice even: the last one counts.
        check(
            OpenAiChat,
            &format!(r#" {{"usage":null,"x":[{{"choices":[]}}],"choices":[{choice},7,"x"],{told}}} "#),
            (usage(2, 1), Some(Stop::End), true),
        );
        check(OpenAiChat, r#"{"choices":[7],"error":null}"#, (None, None, true));
        check(OpenAiChat, r#"{"choices":[],"error":[]}"#, (None, None, false));
        check(OpenAiChat, r#"{"choices":null}"#, (None, None, false));
        check(OpenAiChat, "{}", (None, None, false));
        // An answer and an error: it failed, but what it used is told.
        for error in [r#"{"message":"m"}"#, r#""m""#, "false"] {
            let body = format!(r#"{{"error":{error},"choices":[{choice}],{told}}}"#);
            check(OpenAiChat, &body, (usage(2, 1), Some(Stop::End), false));
        }
        check(OpenAiChat, r#"{"usage":"none","choices":[{"error":1}]}"#, (None, None, true));

        let cut = r#"{"status":"incomplete","usage":{"input_tokens":2,"output_tokens":1},
            "incomplete_details":{"reason":"max_output_tokens"},"output":[]}"#;
        check(OpenAiResponses, cut, (usage(2, 1), Some(Stop::Length), true));
        let failed = r#"{"status":"failed","error":{"code":"x"}}"#;
        assert!(!glance(OpenAiResponses, failed.as_bytes()).unwrap().answers);
        check(OpenAiResponses, r#"{"output":[{}],"status":1}"#, (None, None, false));

        let said = r#"{"content":[{"type":"text","text":"x"}],"usage":{"input_tokens":2,"output_tokens":1}}"#;
        check(Anthropic, said, (usage(2, 1), None, true));
        check(Anthropic, r#"{"content":[],"stop_reason":"end_turn"}"#, (None, Some(Stop::End), true));
        check(Anthropic, r#"{"content":[],"stop_reason":null}"#, (None, None, false));
        check(Anthropic, r#"{"type":"error","error":{"type":"overloaded_error"}}"#, (None, None, false));

        let blocked = r#"{"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"promptTokenCount":2}}"#;
        check(Gemini, blocked, (usage(2, 0), None, true));
        let candidates = r#"{"candidates":[{"finishReason":"MAX_TOKENS","content":{}},{"finishReason":"STOP"}]}"#;
        check(Gemini, candidates, (None, Some(Stop::Length), true));
        check(Gemini, r#"{"candidates":[]}"#, (None, None, false));

        let output = r#"{"output":{"message":{}},"stopReason":"end_turn","usage":{"inputTokens":2,"outputTokens":1}}"#;
        check(Bedrock, output, (usage(2, 1), Some(Stop::End), true));
        check(Bedrock, r#"{"message":"no"}"#, (None, None, false));

        let vectors = r#"{"data":[{"embedding":[1,2]}],"usage":{"prompt_tokens":2}}"#;
        check(OpenAiEmbeddings, vectors, (usage(2, 0), Some(Stop::End), true));
        check(OpenAiEmbeddings, r#"{"data":[]}"#, (None, Some(Stop::End), false));
        check(GeminiEmbeddings, r#"{"embedding":{"values":[1]}}"#, (None, Some(Stop::End), true));
        check(BedrockTitan, r#"{"embedding":[1],"inputTextTokenCount":2}"#, (usage(2, 0), Some(Stop::End), true));
        check(BedrockCohere, r#"{"embeddings":[[1]]}"#, (None, Some(Stop::End), true));
        check(BedrockCohere, r#"{"embeddings":[]}"#, (None, Some(Stop::End), false));
    }

    #[test]
    fn what_no_caller_can_read_is_no_answer() {
        for dialect in Dialect::ALL {
            for body in ["", "null", "[{}]", "{} {}", "{}x", r#"{"a":"\q"}"#, r#"{"choices":[{]}"#, "{\"a\":\"\u{1}\"}"]
            {
                assert!(glance(dialect, body.as_bytes()).is_err(), "{dialect}: {body}");
            }
            assert!(glance(dialect, b"{\"a\":\"\xff\"}").is_err());
        }
    }
}
