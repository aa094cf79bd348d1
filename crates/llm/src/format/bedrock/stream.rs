//! Streams: like Anthropic's, but that only calls are begun by an event of their own.

use base::TokenUsage;

use super::answer::{read_usage, stop, stop_word, write_usage};
use crate::error::Kind;
use crate::event_stream;
use crate::json::{self, Out, Value};
use crate::malformed::Malformed;
use crate::neutral::{Begin, Delta, Event};
use crate::sse::Frame;
use crate::stream::{Fault, Head, Seen, Stop};

/// Picks out of an event of a stream what is to be known of it.
pub(crate) fn watch(frame: &Frame<'_>, seen: &mut Seen) {
    let data = &*frame.data;
    match frame.name {
        b"contentBlockDelta" => {
            // `p` is padding, and `signature` no text.
            let text =
                json::find(data, &["delta"]).map_or(0, |delta| json::strings(delta.raw.as_bytes(), &["text", "input"]));
            seen.text += text as u64;
            seen.deltas += u64::from(text > 0);
        }
        b"messageStop" => seen.stop = crate::format::word(data, &["stopReason"], stop),
        b"metadata" => {
            seen.usage = json::find(data, &["usage"]).and_then(read_usage).or(seen.usage);
            seen.settled = seen.usage.is_some();
            // Nothing comes after it.
            seen.done = true;
        }
        b"messageStart" | b"contentBlockStart" | b"contentBlockStop" => {}
        name => {
            if let Some((kind, message)) = exception(name, data) {
                seen.fault = Some(Fault::Provider { kind, message });
            }
        }
    }
}

/// What is no event is an exception, which ends the stream.
fn exception(name: &[u8], data: &[u8]) -> Option<(Kind, String)> {
    let name = std::str::from_utf8(name).ok()?;
    let kind = match Kind::of_word(name) {
        Some(kind) => kind,
        None if name.ends_with("Exception") => Kind::Upstream,
        // An error that the service did not foresee, or an event that is not known yet.
        None => {
            json::find(data, &["message"])?;
            Kind::Upstream
        }
    };
    let message = crate::format::word(data, &["message"], str::to_owned);
    Some((kind, message.unwrap_or_else(|| format!("the provider reports {name}"))))
}

/// Reads a stream.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// The block that is under way, and the number of the part that stands for it.
    open: Option<(u64, u32, Is)>,
    next: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    Text,
    Thought,
    Call,
}

impl Decoder {
    pub(crate) fn read(&mut self, frame: &Frame<'_>, event: &mut dyn FnMut(Event<'_>)) -> Result<(), Malformed> {
        let data = &*frame.data;
        match frame.name {
            b"messageStart" => event(Event::Start { id: None, model: None, created: None }),
            b"contentBlockStart" => {
                let mut fields = Value::parse(data)?.fields("an object")?;
                let index = fields.count("contentBlockIndex")?.unwrap_or(0);
                self.end(event);
                let Some(mut start) = fields.fields("start")? else { return Ok(()) };
                if let Some(mut call) = start.fields("toolUse")?
                    && call.string("type")?.is_none()
                {
                    let what = Begin::Call { id: call.need_string("toolUseId")?, name: call.need_string("name")? };
                    self.begin(index, Is::Call, what, event);
                }
            }
            b"contentBlockDelta" => {
                let mut fields = Value::parse(data)?.fields("an object")?;
                let index = fields.count("contentBlockIndex")?.unwrap_or(0);
                let mut delta = fields.need("delta")?.fields("an object")?;
                if let Some(text) = delta.string("text")? {
                    self.add(index, Is::Text, Delta::Text(text), event);
                } else if let Some(mut call) = delta.fields("toolUse")? {
                    let open = matches!(self.open, Some((of, _, Is::Call)) if of == index);
                    if let (true, Some(input)) = (open, call.string("input")?) {
                        self.add(index, Is::Call, Delta::Arguments(input), event);
                    }
                } else if let Some(mut thought) = delta.fields("reasoningContent")? {
                    if let Some(data) = thought.string("redactedContent")? {
                        self.end(event);
                        self.begin(index, Is::Thought, Begin::Redacted(data), event);
                        self.end(event);
                    } else if let Some(text) = thought.string("text")? {
                        self.add(index, Is::Thought, Delta::Thought(text), event);
                    } else if let Some(signature) = thought.string("signature")? {
                        self.add(index, Is::Thought, Delta::Signature(signature), event);
                    }
                }
            }
            b"contentBlockStop" => self.end(event),
            b"messageStop" => {
                self.end(event);
                let mut fields = Value::parse(data)?.fields("an object")?;
                let stop = stop(&fields.need_string("stopReason")?);
                event(Event::Stop { choice: 0, stop, sequence: None });
            }
            b"metadata" => {
                if let Some(usage) = json::find(data, &["usage"]).and_then(read_usage) {
                    event(Event::Usage { usage, last: true });
                }
                event(Event::Done);
            }
            name => {
                if let Some((kind, message)) = exception(name, data) {
                    event(Event::Error { kind, message: message.into() });
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, index: u64, is: Is, delta: Delta<'_>, event: &mut dyn FnMut(Event<'_>)) {
        let (Delta::Text(text)
        | Delta::Thought(text)
        | Delta::Signature(text)
        | Delta::Arguments(text)
        | Delta::Refusal(text)) = &delta;
        if text.is_empty() {
            return;
        }
        let part = match self.open {
            Some((of, part, open)) if of == index && open == is => part,
            _ => {
                let what = if is == Is::Thought { Begin::Thought } else { Begin::Text };
                self.end(event);
                self.begin(index, is, what, event)
            }
        };
        event(Event::Delta { choice: 0, part, delta });
    }

    fn begin(&mut self, index: u64, is: Is, what: Begin<'_>, event: &mut dyn FnMut(Event<'_>)) -> u32 {
        let part = self.next;
        self.next += 1;
        self.open = Some((index, part, is));
        event(Event::Begin { choice: 0, part, what });
        part
    }

    fn end(&mut self, event: &mut dyn FnMut(Event<'_>)) {
        if let Some((_, part, _)) = self.open.take() {
            event(Event::End { choice: 0, part });
        }
    }
}

/// Writes a stream. Of several choices only the first can be; a caller of this dialect cannot have asked for more.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    started: bool,
    usage: Option<TokenUsage>,
    stop: Option<Stop>,
}

impl Encoder {
    /// What a head says has no place here.
    pub(crate) fn new(_: Head) -> Encoder {
        Encoder::default()
    }

    pub(crate) fn write(&mut self, event: Event<'_>, to: &mut Vec<u8>) {
        match event {
            Event::Start { .. } => self.start(to),
            Event::Begin { choice: 0, part, what } => {
                self.start(to);
                match what {
                    Begin::Call { id, name } => write_event("contentBlockStart", to, |out| {
                        out.number("contentBlockIndex", part);
                        out.fields("start", |start| {
                            start.fields("toolUse", |call| {
                                call.text("toolUseId", &id);
                                call.text("name", &name);
                            });
                        });
                    }),
                    Begin::Redacted(data) => write_delta(part, to, |delta| {
                        delta.fields("reasoningContent", |thought| thought.text("redactedContent", &data));
                    }),
                    Begin::Text | Begin::Refusal | Begin::Thought => {}
                }
            }
            Event::Delta { choice: 0, part, delta } => write_delta(part, to, |out| match &delta {
                Delta::Text(text) | Delta::Refusal(text) => out.text("text", text),
                Delta::Thought(text) => out.fields("reasoningContent", |thought| thought.text("text", text)),
                Delta::Signature(text) => out.fields("reasoningContent", |thought| thought.text("signature", text)),
                Delta::Arguments(json) => out.fields("toolUse", |call| call.text("input", json)),
            }),
            Event::End { choice: 0, part } => {
                write_event("contentBlockStop", to, |out| out.number("contentBlockIndex", part));
            }
            Event::Stop { choice: 0, stop, .. } => self.stop = Some(stop),
            Event::Usage { usage, .. } => self.usage = Some(usage),
            Event::Begin { .. } | Event::Delta { .. } | Event::End { .. } | Event::Stop { .. } => {}
            Event::Logprobs { .. } | Event::Error { .. } | Event::Ping | Event::Done => {}
        }
    }

    /// Why it stopped, and what it used, if anybody has said.
    pub(crate) fn end(&mut self, to: &mut Vec<u8>) {
        self.start(to);
        write_event("messageStop", to, |out| out.text("stopReason", stop_word(self.stop.unwrap_or(Stop::End))));
        if let Some(usage) = &self.usage {
            write_event("metadata", to, |out| out.fields("usage", |out| write_usage(usage, out)));
        }
    }

    fn start(&mut self, to: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.started, true) {
            write_event("messageStart", to, |out| out.text("role", "assistant"));
        }
    }
}

fn write_delta(part: u32, to: &mut Vec<u8>, delta: impl FnOnce(&mut Out<'_>)) {
    write_event("contentBlockDelta", to, |out| {
        out.number("contentBlockIndex", part);
        out.fields("delta", delta);
    });
}

fn write_event(name: &str, to: &mut Vec<u8>, fields: impl FnOnce(&mut Out<'_>)) {
    event_stream::write(false, name, to, |to| Out::object(to, fields));
}
