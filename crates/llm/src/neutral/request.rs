//! A request.

use std::borrow::Cow;

use super::Losses;
use crate::json::{Fields, Out, Value};
use crate::malformed::Malformed;

#[derive(Debug, Default)]
pub(crate) struct Request<'a> {
    /// What the model is told before the conversation.
    pub(crate) system: Vec<Part<'a>>,
    pub(crate) messages: Vec<Message<'a>>,
    pub(crate) tools: Vec<Tool<'a>>,
    pub(crate) tool_choice: Option<Placed<ToolChoice<'a>>>,
    /// Whether several tools may be called at once.
    pub(crate) parallel: Option<Placed<bool>>,
    pub(crate) max_output: Option<u64>,
    pub(crate) thinking: Option<Placed<Thinking>>,
    pub(crate) format: Option<Placed<Format<'a>>>,
    /// What a writer either has a word for or loses. It is a list so that each must be thought of.
    pub(crate) settings: Vec<Placed<Setting<'a>>>,
    pub(crate) stream: bool,
}

/// Something, and where it stands in the body.
#[derive(Debug)]
pub(crate) struct Placed<T> {
    pub(crate) at: usize,
    pub(crate) value: T,
}

#[derive(Debug)]
pub(crate) struct Message<'a> {
    pub(crate) role: Role,
    pub(crate) parts: Vec<Part<'a>>,
}

/// Who says something. What a tool gave back is said by the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    User,
    Assistant,
}

#[derive(Debug)]
pub(crate) struct Part<'a> {
    pub(crate) at: usize,
    pub(crate) content: Content<'a>,
    /// The prompt up to here is to be kept in the provider's cache.
    pub(crate) cache: Option<Placed<Cache>>,
}

#[derive(Debug)]
pub(crate) enum Content<'a> {
    Text(Cow<'a, str>),
    /// The model's words for not wanting to.
    Refusal(Cow<'a, str>),
    Media(Media<'a>),
    Thought(Thought<'a>),
    Call(Call<'a>),
    Outcome(Outcome<'a>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cache {
    Minutes,
    Hour,
}

#[derive(Debug)]
pub(crate) struct Media<'a> {
    pub(crate) kind: MediaKind,
    pub(crate) source: Source<'a>,
    pub(crate) name: Option<Cow<'a, str>>,
    /// OpenAI's `detail` of an image.
    pub(crate) detail: Option<Cow<'a, str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MediaKind {
    Image,
    Audio,
    Video,
    Document,
}

#[derive(Debug)]
pub(crate) enum Source<'a> {
    /// In base64.
    Data {
        mime: Cow<'a, str>,
        base64: Cow<'a, str>,
    },
    Url {
        mime: Option<Cow<'a, str>>,
        url: Cow<'a, str>,
    },
    /// A file that lies with the provider.
    File(Cow<'a, str>),
    /// A document that is plain text.
    Text(Cow<'a, str>),
}

/// What the model thought before it spoke.
#[derive(Debug)]
pub(crate) struct Thought<'a> {
    pub(crate) text: Cow<'a, str>,
    /// The provider's proof that it is unchanged. It takes thoughts back only with it.
    pub(crate) signature: Option<Cow<'a, str>>,
    /// `text` is not to be read: the provider has enciphered it.
    pub(crate) redacted: bool,
}

/// A tool is to be called.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) id: Cow<'a, str>,
    pub(crate) name: Cow<'a, str>,
    /// JSON, if the model made no mistake.
    pub(crate) arguments: Cow<'a, str>,
    /// Gemini has the proof of a thought at the call that follows it.
    pub(crate) signature: Option<Cow<'a, str>>,
}

/// What came of a call.
#[derive(Debug)]
pub(crate) struct Outcome<'a> {
    /// That of the call.
    pub(crate) id: Cow<'a, str>,
    pub(crate) parts: Vec<Part<'a>>,
    /// It failed; where that is said.
    pub(crate) failed: Option<usize>,
}

#[derive(Debug)]
pub(crate) struct Tool<'a> {
    pub(crate) name: Cow<'a, str>,
    pub(crate) description: Option<Cow<'a, str>>,
    /// JSON schema; without one the tool takes nothing.
    pub(crate) schema: Option<Cow<'a, str>>,
    /// The model must keep to the schema.
    pub(crate) strict: Option<bool>,
    pub(crate) cache: Option<Placed<Cache>>,
}

#[derive(Debug)]
pub(crate) enum ToolChoice<'a> {
    Auto,
    /// Some tool must be called.
    Any,
    None,
    One(Cow<'a, str>),
}

/// How much thought is wanted. All `None`: some.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Thinking {
    pub(crate) effort: Option<Effort>,
    /// In tokens.
    pub(crate) budget: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Effort {
    None,
    Minimal,
    Low,
    Medium,
    High,
    XHigh,
    Max,
}

/// What the answer is to look like, if not like text.
#[derive(Debug)]
pub(crate) enum Format<'a> {
    /// Some JSON object.
    Json,
    Schema {
        name: Option<Cow<'a, str>>,
        description: Option<Cow<'a, str>>,
        schema: Cow<'a, str>,
        strict: Option<bool>,
    },
}

/// A smaller wish. Numbers stand as they were written.
#[derive(Debug)]
pub(crate) enum Setting<'a> {
    Temperature(&'a str),
    TopP(&'a str),
    TopK(&'a str),
    PresencePenalty(&'a str),
    FrequencyPenalty(&'a str),
    Seed(&'a str),
    Stop(Vec<Cow<'a, str>>),
    /// How many answers.
    Choices(u64),
    Logprobs(bool),
    TopLogprobs(u64),
    /// The end user.
    User(Cow<'a, str>),
    /// JSON; the caller's notes.
    Metadata(&'a str),
    /// One that has the same name and meaning in both of OpenAI's dialects.
    OpenAi {
        name: &'static str,
        json: &'a str,
    },
}

/// What a number as it was written is a setting of.
pub(crate) type OfNumber<'a> = fn(&'a str) -> Setting<'a>;

// === impl Call ===

impl Call<'_> {
    /// Writes the arguments as the object they should be. A model may have written what is not JSON; it is carried as a
    /// text then, so that the conversation can go on about it.
    pub(crate) fn write_arguments(&self, key: &str, at: usize, lost: &mut Losses, out: &mut Out<'_>) {
        if self.arguments.trim().is_empty() {
            return out.raw(key, "{}");
        }
        match Value::parse(self.arguments.as_bytes()) {
            Ok(value) if value.is_object() => out.raw(key, value.raw),
            _ => {
                lost.add(at);
                out.fields(key, |input| input.text("arguments", &self.arguments));
            }
        }
    }
}

/// The id of a call for those who take only letters, digits, `_` and `-`.
pub(crate) fn plain_id(id: &str) -> Cow<'_, str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    match id.bytes().all(allowed) {
        true => Cow::Borrowed(id),
        false => id.bytes().map(|byte| if allowed(byte) { char::from(byte) } else { '_' }).collect::<String>().into(),
    }
}

// === impl Tool ===

impl Tool<'_> {
    /// Its schema, for those who must have one.
    pub(crate) fn schema(&self) -> &str {
        self.schema.as_deref().unwrap_or(r#"{"type":"object","properties":{}}"#)
    }
}

// === impl Setting ===

impl<'a> Setting<'a> {
    /// Takes those of some fields that are numbers.
    pub(crate) fn read_numbers(
        fields: &mut Fields<'a>,
        words: &[(&str, OfNumber<'a>)],
        to: &mut Vec<Placed<Setting<'a>>>,
    ) -> Result<(), Malformed> {
        for (key, setting) in words {
            if let Some(number) = fields.take(key) {
                to.push(Placed { at: number.at, value: setting(number.number()?) });
            }
        }
        Ok(())
    }
}

// === impl Part ===

impl<'a> Part<'a> {
    pub(crate) fn new(at: usize, content: Content<'a>) -> Part<'a> {
        Part { at, content, cache: None }
    }
}

// === impl Effort ===

impl Effort {
    pub(crate) fn parse(word: &str) -> Option<Effort> {
        let effort = match word {
            "none" => Effort::None,
            "minimal" => Effort::Minimal,
            "low" => Effort::Low,
            "medium" => Effort::Medium,
            "high" => Effort::High,
            "xhigh" => Effort::XHigh,
            "max" => Effort::Max,
            _ => return None,
        };
        Some(effort)
    }

    /// As OpenAI and Anthropic write it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Effort::None => "none",
            Effort::Minimal => "minimal",
            Effort::Low => "low",
            Effort::Medium => "medium",
            Effort::High => "high",
            Effort::XHigh => "xhigh",
            Effort::Max => "max",
        }
    }

    /// In tokens, for models that are told so: the steps Google gives for its own models.
    pub(crate) const fn budget(self) -> u64 {
        match self {
            Effort::None => 0,
            Effort::Minimal | Effort::Low => 1024,
            Effort::Medium => 8192,
            Effort::High => 24_576,
            Effort::XHigh | Effort::Max => 32_768,
        }
    }

    /// The step a budget comes nearest to.
    pub(crate) const fn of_budget(budget: u64) -> Effort {
        match budget {
            0 => Effort::None,
            1..4096 => Effort::Low,
            4096..16_384 => Effort::Medium,
            _ => Effort::High,
        }
    }
}

// === impl Source ===

impl<'a> Source<'a> {
    /// A URL, which may itself be the data: `data:image/png;base64,…`.
    pub(crate) fn of_url(url: Cow<'a, str>) -> Source<'a> {
        let Some((head, _)) = url.strip_prefix("data:").and_then(|data| data.split_once(";base64,")) else {
            return Source::Url { mime: None, url };
        };
        // Parameters may stand between type and encoding.
        let mime = head.split(';').next().unwrap_or_default();
        let (mime, start) = ((5, 5 + mime.len()), 5 + head.len() + ";base64,".len());
        match url {
            Cow::Borrowed(url) => Source::Data { mime: url[mime.0..mime.1].into(), base64: url[start..].into() },
            Cow::Owned(url) => {
                Source::Data { mime: url[mime.0..mime.1].to_owned().into(), base64: url[start..].to_owned().into() }
            }
        }
    }
}
