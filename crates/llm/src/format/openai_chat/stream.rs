//! Streams: chunks, each with a delta, and `[DONE]`.

use std::sync::LazyLock;

use base::TokenUsage;
use memchr::memmem::Finder;

use super::answer::{call_id, read_logprobs, read_usage, stop, stop_word, write_logprobs, write_usage};
use crate::json::{self, Fields, Out, Value};
use crate::malformed::Malformed;
use crate::neutral::{Begin, Delta, Event};
use crate::sse::{self, Frame};
use crate::stream::{Fault, Head, Seen, Stop};

static DELTA: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"delta\":"));
static FINISH: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"finish_reason\":"));
static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"usage\":"));

/// Picks out of an event of a stream what is to be known of it. Gives the text that it brings, if it brings one.
pub(crate) fn watch<'f>(frame: &'f Frame<'_>, seen: &mut Seen) -> Option<&'f str> {
    let data = &*frame.data;
    if data == b"[DONE]" {
        seen.done = true;
        return None;
    }
    // A chunk has one delta for each choice it is about, nearly always one.
    let mut rest = data;
    let (mut brought, mut last) = (0, "");
    while let Some(delta) = json::after(rest, &DELTA) {
        let (text, one) = json::texts(delta, &["content", "refusal", "reasoning_content", "reasoning", "arguments"]);
        seen.text += text as u64;
        seen.deltas += u64::from(text > 0);
        brought += text;
        last = one;
        rest = delta;
        // `null` until the last.
        if let Some(word) = json::after(rest, &FINISH).and_then(|finish| finish.strip_prefix(b"\"")) {
            seen.stop = stop(word.split(|byte| *byte == b'"').next().unwrap_or_default());
        }
    }
    if tells_usage(data) {
        let usage = json::find(data, &["usage"]).filter(Value::is_object);
        if let Some(usage) = usage.or_else(|| json::find(data, &["x_groq", "usage"])).and_then(read_usage) {
            seen.usage = Some(usage);
            seen.settled = true;
        }
    }
    if data.starts_with(b"{\"error\":") {
        seen.fault = Some(Fault::of(json::find(data, &["error"])));
    }
    (brought > 0 && brought == last.len()).then_some(last)
}

/// Whether an event is the one that comes for `include_usage` and brings nothing else.
pub(crate) fn is_usage_only(data: &[u8]) -> bool {
    tells_usage(data)
        && json::find(data, &["usage"]).is_some_and(|usage| usage.is_object())
        && json::find(data, &["choices"]).is_some_and(|choices| choices.is_empty_array())
}

/// Whether it may be worth reading. Most events have no usage, or `null`.
fn tells_usage(data: &[u8]) -> bool {
    json::after(data, &USAGE).is_some_and(|usage| usage.starts_with(b"{"))
}

/// Reads a stream. The dialect does not say where a part begins and ends: a delta of another kind says it.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    started: bool,
    choices: Vec<Parts>,
}

/// The parts of one choice so far.
#[derive(Debug, Default)]
struct Parts {
    next: u32,
    open: Option<Open>,
    calls: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Open {
    Text,
    Refusal,
    Thought,
    /// By its number, or its id where all have the same number.
    Call(u64, String),
}

impl Decoder {
    pub(crate) fn read(&mut self, frame: &Frame<'_>, event: &mut dyn FnMut(Event<'_>)) -> Result<(), Malformed> {
        let data = frame.data.trim_ascii();
        if data.is_empty() {
            return Ok(());
        }
        if data == b"[DONE]" {
            event(Event::Done);
            return Ok(());
        }
        let mut fields = Value::parse(data)?.fields("an object")?;
        if let Some(error) = fields.take("error") {
            let Fault::Provider { kind, message } = Fault::of(Some(error)) else { return Ok(()) };
            event(Event::Error { kind, message: message.into() });
            return Ok(());
        }
        if !self.started {
            self.started = true;
            let (id, model) = (fields.string("id")?, fields.string("model")?);
            event(Event::Start { id, model, created: fields.count("created")? });
        }
        for choice in fields.array("choices")?.unwrap_or_default() {
            self.read_choice(choice.fields("an object")?, event)?;
        }
        if let Some(usage) = fields.take("usage").and_then(read_usage) {
            event(Event::Usage { usage, last: true });
        }
        Ok(())
    }

    fn read_choice(&mut self, mut fields: Fields<'_>, event: &mut dyn FnMut(Event<'_>)) -> Result<(), Malformed> {
        const MOST: u64 = 128;
        let choice = fields.count("index")?.unwrap_or(0);
        let Some(choice) = u32::try_from(choice).ok().filter(|_| choice < MOST) else {
            return Err(Malformed::new("a choice of a high number", fields.at(), "at most 128 choices"));
        };
        while self.choices.len() <= choice as usize {
            self.choices.push(Parts::default());
        }
        let parts = &mut self.choices[choice as usize];
        if let Some(mut delta) = fields.fields("delta")? {
            let thought = delta.string("reasoning_content")?.or(delta.string("reasoning")?);
            if let Some(text) = thought.filter(|text| !text.is_empty()) {
                parts.add(choice, Open::Thought, || Begin::Thought, Delta::Thought(text), event);
            }
            for block in delta.array("thinking_blocks")?.unwrap_or_default() {
                parts.read_block(choice, block.fields("an object")?, event)?;
            }
            if let Some(text) = delta.string("content")?.filter(|text| !text.is_empty()) {
                parts.add(choice, Open::Text, || Begin::Text, Delta::Text(text), event);
            }
            if let Some(text) = delta.string("refusal")?.filter(|text| !text.is_empty()) {
                parts.add(choice, Open::Refusal, || Begin::Refusal, Delta::Refusal(text), event);
            }
            for call in delta.array("tool_calls")?.unwrap_or_default() {
                parts.read_call(choice, call.fields("an object")?, event)?;
            }
        }
        if let Some(logprobs) = fields.take("logprobs")
            && let Some(logprobs) = read_logprobs(logprobs)?.filter(|logprobs| !logprobs.is_empty())
        {
            event(Event::Logprobs { choice, logprobs });
        }
        if let Some(stop) = fields.string("finish_reason")?.and_then(|word| stop(word.as_bytes())) {
            parts.end(choice, event);
            // Some servers say that they stopped where they want a tool to be called.
            let stop = if stop == Stop::End && parts.calls > 0 { Stop::Tools } else { stop };
            event(Event::Stop { choice, stop, sequence: None });
        }
        Ok(())
    }
}

impl Parts {
    fn add<'a>(
        &mut self,
        choice: u32,
        open: Open,
        begin: impl FnOnce() -> Begin<'a>,
        delta: Delta<'_>,
        event: &mut dyn FnMut(Event<'_>),
    ) {
        if self.open.as_ref() != Some(&open) {
            self.begin(choice, open, begin(), event);
        }
        event(Event::Delta { choice, part: self.next - 1, delta });
    }

    fn begin(&mut self, choice: u32, open: Open, what: Begin<'_>, event: &mut dyn FnMut(Event<'_>)) {
        self.end(choice, event);
        event(Event::Begin { choice, part: self.next, what });
        self.open = Some(open);
        self.next += 1;
    }

    fn end(&mut self, choice: u32, event: &mut dyn FnMut(Event<'_>)) {
        if self.open.take().is_some() {
            event(Event::End { choice, part: self.next - 1 });
        }
    }

    /// A thought as Anthropic has it, whose text came as `reasoning_content`: what is new is its signature.
    fn read_block(
        &mut self,
        choice: u32,
        mut block: Fields<'_>,
        event: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Malformed> {
        if let Some(data) = block.string("data")? {
            self.begin(choice, Open::Thought, Begin::Redacted(data), event);
            self.end(choice, event);
            return Ok(());
        }
        if let Some(signature) = block.string("signature")? {
            self.add(choice, Open::Thought, || Begin::Thought, Delta::Signature(signature), event);
            self.end(choice, event);
        }
        Ok(())
    }

    fn read_call(
        &mut self,
        choice: u32,
        mut call: Fields<'_>,
        event: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Malformed> {
        let at = call.at();
        let index = call.count("index")?.unwrap_or(0);
        let id = call.string("id")?.filter(|id| !id.is_empty());
        let mut function = call.fields("function")?;
        let mut word =
            |key: &str| function.as_mut().map(|function| function.string(key)).transpose().map(Option::flatten);
        let (name, arguments) = (word("name")?.filter(|name| !name.is_empty()), word("arguments")?);
        let goes_on = match (&self.open, &id) {
            (Some(Open::Call(open, known)), Some(id)) => *open == index && **known == **id,
            (Some(Open::Call(open, _)), None) => *open == index,
            _ => false,
        };
        if !goes_on {
            let Some(name) = name else {
                return Err(Malformed::new(
                    "more of a call that is not under way",
                    at,
                    "calls that come one after the other",
                ));
            };
            let id = id.unwrap_or_else(|| call_id("", self.calls));
            self.calls += 1;
            self.begin(choice, Open::Call(index, id.clone().into_owned()), Begin::Call { id, name }, event);
        }
        if let Some(arguments) = arguments.filter(|arguments| !arguments.is_empty()) {
            event(Event::Delta { choice, part: self.next - 1, delta: Delta::Arguments(arguments) });
        }
        Ok(())
    }
}

/// Writes a stream.
#[derive(Debug)]
pub(crate) struct Encoder {
    head: Head,
    started: bool,
    /// Of the call that is under way: its number in its choice, and whether it has got arguments.
    call: u32,
    empty: bool,
    /// Calls begun in each choice.
    calls: Vec<u32>,
    /// The thought that is under way, which its signature is given with.
    thought: Option<String>,
    /// Signed thoughts so far: the SDK puts pieces of lists together by their `index`.
    thoughts: u32,
    usage: Option<TokenUsage>,
}

impl Encoder {
    pub(crate) fn new(head: Head) -> Encoder {
        Encoder {
            head,
            started: false,
            call: 0,
            empty: false,
            calls: Vec::new(),
            thought: None,
            thoughts: 0,
            usage: None,
        }
    }

    pub(crate) fn write(&mut self, event: Event<'_>, to: &mut Vec<u8>) {
        match event {
            Event::Start { id, model, created } => {
                self.head.learn(id, model, created);
                self.start(to);
            }
            Event::Begin { choice, what, .. } => self.begin(choice, &what, to),
            Event::Delta { choice, delta, .. } => self.delta(choice, &delta, to),
            Event::End { choice, .. } => {
                // No arguments are an empty object, which is not an empty text.
                if std::mem::take(&mut self.empty) {
                    self.arguments(choice, "{}", to);
                }
                self.thought = None;
            }
            Event::Logprobs { choice, logprobs } => {
                self.chunk(to, |out| {
                    out.items("choices", [choice], |choice, to| {
                        Out::object(to, |out| {
                            out.number("index", choice);
                            out.fields("delta", |_| {});
                            write_logprobs(&logprobs, out);
                            out.null("finish_reason");
                        });
                    });
                });
            }
            Event::Stop { choice, stop, .. } => {
                self.start(to);
                self.choice(choice, Some(stop), to, |_| {});
            }
            Event::Usage { usage, .. } => self.usage = Some(usage),
            Event::Ping => to.extend_from_slice(b": ping\n\n"),
            Event::Error { .. } | Event::Done => {}
        }
    }

    /// What stands at the end: the usage, if it is wanted, and that it is the end.
    pub(crate) fn end(&mut self, to: &mut Vec<u8>) {
        if let (false, Some(usage)) = (self.head.hide_usage, self.usage) {
            self.chunk(to, |out| {
                out.items("choices", [(); 0], |(), _| {});
                out.fields("usage", |out| write_usage(&usage, out));
            });
        }
        to.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn start(&mut self, to: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.started, true) {
            self.choice(0, None, to, |delta| {
                delta.text("role", "assistant");
                delta.text("content", "");
            });
        }
    }

    fn begin(&mut self, choice: u32, what: &Begin<'_>, to: &mut Vec<u8>) {
        self.start(to);
        match what {
            Begin::Call { id, name } => {
                let at = choice as usize;
                self.calls.resize(self.calls.len().max(at + 1), 0);
                self.call = self.calls[at];
                self.calls[at] += 1;
                self.empty = true;
                let index = self.call;
                self.choice(choice, None, to, |delta| {
                    delta.items("tool_calls", [()], |(), to| {
                        Out::object(to, |call| {
                            call.number("index", index);
                            call.text("id", id);
                            call.text("type", "function");
                            call.fields("function", |function| {
                                function.text("name", name);
                                function.text("arguments", "");
                            });
                        });
                    });
                });
            }
            Begin::Redacted(data) => self.block(choice, to, |block| {
                block.text("type", "redacted_thinking");
                block.text("data", data);
            }),
            Begin::Thought => self.thought = Some(String::new()),
            Begin::Text | Begin::Refusal => {}
        }
    }

    fn delta(&mut self, choice: u32, delta: &Delta<'_>, to: &mut Vec<u8>) {
        match delta {
            Delta::Text(text) => self.choice(choice, None, to, |delta| delta.text("content", text)),
            Delta::Refusal(text) => self.choice(choice, None, to, |delta| delta.text("refusal", text)),
            Delta::Thought(text) => {
                self.thought.get_or_insert_default().push_str(text);
                self.choice(choice, None, to, |delta| delta.text("reasoning_content", text));
            }
            Delta::Arguments(json) => {
                self.empty = false;
                self.arguments(choice, json, to);
            }
            Delta::Signature(signature) => {
                // That of a call has no place here.
                let Some(thought) = self.thought.take() else { return };
                self.block(choice, to, |block| {
                    block.text("type", "thinking");
                    block.text("thinking", &thought);
                    block.text("signature", signature);
                });
            }
        }
    }

    fn arguments(&mut self, choice: u32, json: &str, to: &mut Vec<u8>) {
        let index = self.call;
        self.choice(choice, None, to, |delta| {
            delta.items("tool_calls", [()], |(), to| {
                Out::object(to, |call| {
                    call.number("index", index);
                    call.fields("function", |function| function.text("arguments", json));
                });
            });
        });
    }

    fn block(&mut self, choice: u32, to: &mut Vec<u8>, fields: impl FnOnce(&mut Out<'_>)) {
        let index = self.thoughts;
        self.thoughts += 1;
        self.choice(choice, None, to, |delta| {
            let to = delta.key("thinking_blocks");
            to.push(b'[');
            Out::object(to, |block| {
                block.number("index", index);
                fields(block);
            });
            to.push(b']');
        });
    }

    fn choice(&mut self, choice: u32, stop: Option<Stop>, to: &mut Vec<u8>, delta: impl FnOnce(&mut Out<'_>)) {
        self.chunk(to, |out| {
            let to = out.key("choices");
            to.push(b'[');
            Out::object(to, |out| {
                out.number("index", choice);
                out.fields("delta", delta);
                match stop {
                    Some(stop) => out.text("finish_reason", stop_word(stop)),
                    None => out.null("finish_reason"),
                }
            });
            to.push(b']');
        });
    }

    fn chunk(&self, to: &mut Vec<u8>, fields: impl FnOnce(&mut Out<'_>)) {
        sse::write(None, to, |to| {
            Out::object(to, |out| {
                out.text("id", &self.head.id);
                out.text("object", "chat.completion.chunk");
                out.number("created", self.head.created);
                out.text("model", &self.head.model);
                fields(out);
            });
        });
    }
}
