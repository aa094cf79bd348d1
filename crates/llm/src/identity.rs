//! Whether two requests ask the same: a digest of all that their answers depend on, in whichever dialect they are written.
//!
//! A request is read into the neutral form and that is digested, so that neither white space, the order of keys, a field
//! that says what is so anyway, nor the dialect tells two requests apart. What the neutral form has no word for is digested
//! as the caller wrote it, with his dialect: such requests are the same only within it, and streams apart from whole answers,
//! since of their answers too something may have no word elsewhere. The model's name is left to whoever asks: what callers
//! name is not what providers do.
//!
//! What decides is on the safe side: a wish that may matter matters. The order of keys in schemas does, since models answer
//! in it.

use std::borrow::Cow;

use aws_lc_rs::digest::{Context, SHA256};

use crate::dialect::{Dialect, Operation};
use crate::format;
use crate::json::{Cursor, Tree, Value, paths_of};
use crate::neutral::{Content, Format, Losses, Media, Message, Part, Request, Role, Setting, Source, Tool, ToolChoice};

/// SHA-256.
pub type Digest = [u8; 32];

/// What a request asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Of all that the answer depends on, but for the model and the end user.
    pub digest: Digest,
    /// The last thing the user says, if that is text alone.
    pub said: Option<Said>,
    /// The end user as the caller names him.
    pub user: Option<String>,
    /// The temperature is one at which a model gives its likeliest answer: none.
    pub coldest: bool,
}

/// A request taken apart: what is said, and all around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Of all the rest: system prompt, tools, earlier turns, settings; and of the numbers in the text, since texts are
    /// alike that differ in nothing but a number, and their answers are not.
    pub around: Digest,
    pub text: String,
}

/// Why no other answer can stand for that of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apart {
    /// It is not for an answer, or cannot be understood.
    NoQuestion,
    /// The conversation lies with the provider, or is to be kept there.
    State,
    /// Several answers are wanted, which are to differ.
    Choices,
    /// The provider's own tools do something while it answers.
    Tools,
}

/// Fields in the caller's own words that change nothing about an answer.
const OF_NO_MATTER: [&str; 3] = ["metadata", "safety_identifier", "user"];
/// Those by which the conversation lies with the provider.
const STATE: [&str; 4] = ["previous_response_id", "conversation", "background", "cachedContent"];

/// What the body of a request asks. `stream`: whether its answer is to come as one.
pub fn identity(dialect: Dialect, operation: Operation, body: &[u8], stream: bool) -> Result<Identity, Apart> {
    match operation {
        Operation::Generate => {}
        Operation::Embed if dialect == Dialect::OpenAiEmbeddings => return embedding(body),
        Operation::Embed | Operation::EmbedOne | Operation::CountTokens | Operation::Models => {
            return Err(Apart::NoQuestion);
        }
    }
    let read = format::request_reader(dialect).ok_or(Apart::NoQuestion)?;
    let mut lost = Losses::default();
    let value = Value::parse(body).map_err(|_| Apart::NoQuestion)?;
    let mid = system_in_the_middle(&value);
    let request = read(value, &mut lost).map_err(|_| Apart::NoQuestion)?;
    let mut pen = Pen::new();
    let mut found = Found::default();
    write(&request, dialect, &mut pen, &mut found)?;

    let places = lost.places();
    let names = paths_of(body, &places);
    let mut fields: Vec<(String, Digest)> = Vec::new();
    for (name, at) in names.into_iter().zip(places) {
        if STATE.contains(&&*name) {
            return Err(Apart::State);
        }
        if name.starts_with("tools") || name.starts_with("toolConfig.tools") {
            return Err(Apart::Tools);
        }
        if OF_NO_MATTER.contains(&&*name) {
            continue;
        }
        let mut value = Pen::new();
        value.json(&lost_value(body, at).ok_or(Apart::NoQuestion)?, false);
        fields.push((name, value.finish().0));
    }
    // Their order says nothing, as little as that of all others; and a field may be called like the place of another.
    fields.sort();
    let mut own = !fields.is_empty();
    for (name, value) in &fields {
        pen.word(name);
        pen.bytes(value);
    }
    // The neutral form has what the model is told before the conversation, not what it is told in the middle of it.
    if let Some(messages) = mid {
        own = true;
        pen.word(messages);
    }
    if own {
        pen.word(dialect.name());
        pen.mark(u8::from(stream));
    }
    let (digest, around) = pen.finish();
    let said = found.said.map(|text| Said { around, text });
    Ok(Identity { digest, said, user: found.user, coldest: found.coldest })
}

/// Embeddings in OpenAI's words, which will do as they are.
fn embedding(body: &[u8]) -> Result<Identity, Apart> {
    let value = Value::parse(body).map_err(|_| Apart::NoQuestion)?;
    let mut fields = value.fields("an object").map_err(|_| Apart::NoQuestion)?;
    fields.take("model");
    let user = fields.string("user").ok().flatten().map(Cow::into_owned);
    let mut rest = fields.into_entries();
    // Those that say what is so anyway.
    rest.retain(|(key, value)| !(value.is_null() || (key == "encoding_format" && value.as_str() == Some("float"))));
    rest.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut pen = Pen::new();
    pen.word("embeddings");
    for (key, value) in &rest {
        pen.word(key);
        pen.json(value, false);
    }
    Ok(Identity { digest: pen.finish().0, said: None, user, coldest: true })
}

#[derive(Default)]
struct Found {
    said: Option<String>,
    user: Option<String>,
    coldest: bool,
}

fn write(request: &Request<'_>, dialect: Dialect, pen: &mut Pen, found: &mut Found) -> Result<(), Apart> {
    let Request { system, messages, tools, tool_choice, parallel, max_output, thinking, format, settings, stream: _ } =
        request;
    pen.list(b's', system, |pen, part| pen.part(part));
    pen.list(b't', tools, |pen, tool| pen.tool(tool));
    // A model may choose, and may call several at once, unless it is told otherwise.
    match tool_choice.as_ref().map(|it| &it.value) {
        None | Some(ToolChoice::Auto) => {}
        Some(ToolChoice::Any) => pen.mark(b'A'),
        Some(ToolChoice::None) => pen.mark(b'N'),
        Some(ToolChoice::One(name)) => {
            pen.mark(b'O');
            pen.word(name);
        }
    }
    if parallel.as_ref().is_some_and(|it| !it.value) {
        pen.mark(b'1');
    }
    if let Some(most) = max_output {
        pen.mark(b'm');
        pen.word(&most.to_string());
    }
    if let Some(thinking) = thinking {
        pen.mark(b'h');
        pen.word(thinking.value.effort.map_or("", |effort| effort.word()));
        pen.word(&thinking.value.budget.map(|budget| budget.to_string()).unwrap_or_default());
    }
    match format.as_ref().map(|it| &it.value) {
        None => {}
        Some(Format::Json) => pen.mark(b'j'),
        Some(Format::Schema { name, description, schema, strict }) => {
            pen.mark(b'J');
            pen.maybe(name.as_deref());
            pen.maybe(description.as_deref());
            pen.foreign(schema);
            pen.mark(u8::from(strict.unwrap_or(false)));
        }
    }
    pen.settings(settings.iter().map(|it| &it.value), dialect, found)?;
    let (last, before) = match messages.split_last() {
        Some((last, before)) => (Some(last), before),
        None => (None, &messages[..]),
    };
    pen.list(b'c', before, |pen, message| pen.message(message));
    if let Some(last) = last {
        pen.last(last, found);
    }
    Ok(())
}

/// The value of a field that nobody took, by the place of its key; or that at the place itself.
fn lost_value(body: &[u8], at: usize) -> Option<Value<'_>> {
    let rest = body.get(at..)?;
    let mut cursor = Cursor::trusting(rest).ok()?;
    let value = Value::read(&mut cursor).ok()?;
    match rest[cursor.at()..].trim_ascii_start().strip_prefix(b":") {
        Some(rest) if value.is_string() => Value::read(&mut Cursor::trusting(rest).ok()?).ok(),
        _ => Some(value),
    }
}

/// The messages as they stand, if one of the system comes after one of another.
fn system_in_the_middle<'a>(value: &Value<'a>) -> Option<&'a str> {
    let Tree::Object(_) = &value.tree else { return None };
    let mut fields = value.clone().fields("an object").ok()?;
    let messages = fields.take("messages").or_else(|| fields.take("input"))?;
    let raw = messages.raw;
    let is_system = messages.array("messages").ok()?.into_iter().map(|message| {
        let role = message.fields("a message").ok().and_then(|mut fields| fields.string("role").ok().flatten());
        matches!(role.as_deref(), Some("system" | "developer"))
    });
    let is_system: Vec<bool> = is_system.collect();
    is_system.windows(2).any(|two| !two[0] && two[1]).then_some(raw)
}

// === impl Pen ===

/// Writes into two digests: of all, and of all but what the user said last. What is written is framed, so that no two
/// requests give the same bytes.
struct Pen {
    all: Context,
    around: Context,
}

impl Pen {
    fn new() -> Pen {
        Pen { all: Context::new(&SHA256), around: Context::new(&SHA256) }
    }

    fn finish(self) -> (Digest, Digest) {
        let finish = |context: Context| {
            let mut digest = [0; 32];
            digest.copy_from_slice(context.finish().as_ref());
            digest
        };
        (finish(self.all), finish(self.around))
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.all.update(bytes);
        self.around.update(bytes);
    }

    fn mark(&mut self, mark: u8) {
        self.bytes(&[mark]);
    }

    fn word(&mut self, word: &str) {
        self.bytes(&(word.len() as u64).to_le_bytes());
        self.bytes(word.as_bytes());
    }

    fn maybe(&mut self, word: Option<&str>) {
        self.mark(u8::from(word.is_some()));
        self.word(word.unwrap_or_default());
    }

    fn list<T>(&mut self, mark: u8, items: &[T], write: impl Fn(&mut Pen, &T)) {
        self.mark(mark);
        self.bytes(&(items.len() as u64).to_le_bytes());
        items.iter().for_each(|item| write(self, item));
    }

    fn message(&mut self, message: &Message<'_>) {
        let Message { role, parts } = message;
        self.mark(match role {
            Role::User => b'u',
            Role::Assistant => b'a',
        });
        let said = parts.iter().filter(|part| !matches!(&part.content, Content::Text(text) if text.is_empty()));
        let said: Vec<_> = said.collect();
        self.list(b'p', &said, |pen, part| pen.part(part));
    }

    /// The message that is to be answered.
    fn last(&mut self, message: &Message<'_>, found: &mut Found) {
        let texts = message.parts.iter().map(|part| match &part.content {
            Content::Text(text) => Some(&**text),
            _ => None,
        });
        let texts: Option<Vec<&str>> = texts.collect();
        match texts {
            Some(texts) if message.role == Role::User => {
                let text = texts.join("\n");
                // As `message` has it, but that the text is in one of the digests alone.
                let mut of_all =
                    Pen { all: std::mem::replace(&mut self.all, Context::new(&SHA256)), around: Context::new(&SHA256) };
                of_all.message(message);
                self.all = of_all.all;
                for number in numbers(&text) {
                    self.around.update(&(number.len() as u64).to_le_bytes());
                    self.around.update(number.as_bytes());
                }
                found.said = Some(text).filter(|text| !text.trim().is_empty());
            }
            _ => self.message(message),
        }
    }

    fn part(&mut self, part: &Part<'_>) {
        // Marks for the provider's cache change what it costs, not what is said.
        let Part { at: _, content, cache: _ } = part;
        match content {
            Content::Text(text) => {
                self.mark(b't');
                self.word(text);
            }
            Content::Refusal(text) => {
                self.mark(b'r');
                self.word(text);
            }
            Content::Media(Media { kind, source, name, detail }) => {
                self.mark(b'm');
                self.mark(*kind as u8);
                self.source(source);
                self.maybe(name.as_deref());
                self.maybe(detail.as_deref());
            }
            Content::Thought(thought) => {
                self.mark(b'h');
                self.word(&thought.text);
                self.maybe(thought.signature.as_deref());
                self.mark(u8::from(thought.redacted));
            }
            Content::Call(call) => {
                self.mark(b'c');
                self.word(&call.id);
                self.word(&call.name);
                self.foreign(&call.arguments);
                self.maybe(call.signature.as_deref());
            }
            Content::Outcome(outcome) => {
                self.mark(b'o');
                self.word(&outcome.id);
                self.list(b'p', &outcome.parts, |pen, part| pen.part(part));
                self.mark(u8::from(outcome.failed.is_some()));
            }
        }
    }

    fn source(&mut self, source: &Source<'_>) {
        match source {
            Source::Data { mime, base64 } => {
                self.mark(b'd');
                self.word(mime);
                self.word(base64);
            }
            Source::Url { mime, url } => {
                self.mark(b'u');
                self.maybe(mime.as_deref());
                self.word(url);
            }
            Source::File(id) => {
                self.mark(b'f');
                self.word(id);
            }
            Source::Text(text) => {
                self.mark(b't');
                self.word(text);
            }
        }
    }

    fn tool(&mut self, tool: &Tool<'_>) {
        let Tool { name, description, schema: _, strict, cache: _ } = tool;
        self.word(name);
        self.maybe(description.as_deref());
        self.foreign(tool.schema());
        self.mark(u8::from(strict.unwrap_or(false)));
    }

    /// In whichever order they came.
    fn settings<'s>(
        &mut self,
        settings: impl Iterator<Item = &'s Setting<'s>>,
        dialect: Dialect,
        found: &mut Found,
    ) -> Result<(), Apart> {
        let mut words: Vec<(&str, String)> = Vec::new();
        let is_nothing = |number: &str| number.parse::<f64>().is_ok_and(|number| number == 0.0);
        for setting in settings {
            match setting {
                Setting::Temperature(number) => {
                    found.coldest = is_nothing(number);
                    words.push(("temperature", plain(number)));
                }
                Setting::TopP(number) => words.push(("top_p", plain(number))),
                Setting::TopK(number) => words.push(("top_k", plain(number))),
                Setting::PresencePenalty(number) | Setting::FrequencyPenalty(number) if is_nothing(number) => {}
                Setting::PresencePenalty(number) => words.push(("presence_penalty", plain(number))),
                Setting::FrequencyPenalty(number) => words.push(("frequency_penalty", plain(number))),
                Setting::Seed(number) => words.push(("seed", plain(number))),
                Setting::Stop(at) if at.is_empty() => {}
                Setting::Stop(at) => words.push(("stop", format!("{at:?}"))),
                Setting::Choices(0 | 1) | Setting::Logprobs(false) | Setting::TopLogprobs(0) => {}
                Setting::Choices(_) => return Err(Apart::Choices),
                Setting::Logprobs(true) => words.push(("logprobs", String::new())),
                Setting::TopLogprobs(count) => words.push(("top_logprobs", count.to_string())),
                Setting::User(user) => found.user = Some(user.clone().into_owned()),
                Setting::Metadata(_) => {}
                // That the provider keeps it is a wish in one dialect, and what is so anyway in the other.
                Setting::OpenAi { name: "store", json: "true" } if dialect == Dialect::OpenAiChat => {
                    return Err(Apart::State);
                }
                Setting::OpenAi { name: "store" | "prompt_cache_key" | "prompt_cache_retention", .. } => {}
                Setting::OpenAi { name, json } => {
                    let mut value = Pen::new();
                    value.foreign(json);
                    words.push((name, format!("{:?}", value.finish().0)));
                }
            }
        }
        words.sort_unstable();
        self.list(b'w', &words, |pen, (name, value)| {
            pen.word(name);
            pen.word(value);
        });
        Ok(())
    }

    /// JSON that is somebody else's: with its keys in their order, without the blanks between them.
    fn foreign(&mut self, json: &str) {
        match Value::parse(json.as_bytes()) {
            Ok(value) => {
                self.mark(b'J');
                self.json(&value, true);
            }
            Err(_) => {
                self.mark(b'T');
                self.word(json);
            }
        }
    }

    fn json(&mut self, value: &Value<'_>, ordered: bool) {
        match &value.tree {
            Tree::Null => self.mark(b'n'),
            Tree::Bool(value) => self.mark(if *value { b'+' } else { b'-' }),
            Tree::Number => {
                self.mark(b'#');
                self.word(&plain(value.raw));
            }
            Tree::String(text) => {
                self.mark(b'"');
                self.word(text);
            }
            Tree::Array(items) => self.list(b'[', items, |pen, item| pen.json(item, ordered)),
            Tree::Object(_) => {
                let mut fields = match value.clone().fields("an object") {
                    Ok(fields) => fields.into_entries(),
                    Err(_) => Vec::new(),
                };
                if !ordered {
                    fields.sort_by(|(a, _), (b, _)| a.cmp(b));
                }
                self.list(b'{', &fields, |pen, (key, value)| {
                    pen.word(key);
                    pen.json(value, ordered);
                });
            }
        }
    }
}

/// A number as everybody would write it: `1.0` and `1e0` are 1.
fn plain(number: &str) -> String {
    // Beyond this a float does not tell whole numbers apart.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let is_whole = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    match number.parse::<f64>() {
        Ok(0.0) => "0".to_owned(),
        Ok(value) if value.abs() < EXACT || (value.is_finite() && !is_whole) => value.to_string(),
        _ => number.to_owned(),
    }
}

/// The numbers in a text, in their order.
fn numbers(text: &str) -> impl Iterator<Item = &str> {
    let number = |character: char| character.is_ascii_digit() || matches!(character, '.' | ',');
    let words = text.split(move |character| !number(character)).map(|word| word.trim_matches(['.', ',']));
    words.filter(|word| word.bytes().any(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests;
