//! Streams: a message begins, blocks begin, are added to and end, the message ends.

use std::sync::LazyLock;

use base::TokenUsage;
use memchr::memmem::Finder;

use super::answer::{read_usage, stop, stop_word, write_usage};
use crate::format;
use crate::json::{self, Fields, Out, Value};
use crate::malformed::Malformed;
use crate::neutral::{Begin, Delta, Event};
use crate::sse::{self, Frame};
use crate::stream::{Fault, Head, Seen, Stop};

static DELTA: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"delta\":"));

/// Picks out of an event of a stream what is to be known of it. Gives the text that it brings, if it brings one.
pub(crate) fn watch<'f>(frame: &'f Frame<'_>, seen: &mut Seen) -> Option<&'f str> {
    let data = &*frame.data;
    match &*format::kind(frame) {
        b"content_block_delta" => {
            let (text, one) = json::texts(json::after(data, &DELTA)?, &["text", "partial_json", "thinking"]);
            seen.text += text as u64;
            seen.deltas += u64::from(text > 0);
            return (text > 0 && text == one.len()).then_some(one);
        }
        b"message_start" => {
            if let Some(usage) = json::find(data, &["message", "usage"]) {
                read_usage(usage, seen.usage.get_or_insert_default());
            }
        }
        b"message_delta" => {
            if let Some(usage) = json::find(data, &["usage"]) {
                read_usage(usage, seen.usage.get_or_insert_default());
                seen.settled = true;
            }
            if let Some(word) = json::find(data, &["delta", "stop_reason"]) {
                seen.stop = word.as_str().map(stop);
            }
        }
        b"message_stop" => seen.done = true,
        b"error" => seen.fault = Some(Fault::of(json::find(data, &["error"]))),
        _ => {}
    }
    None
}

/// Reads a stream.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    usage: TokenUsage,
    /// The blocks begun, and what number a part has that stands for one: blocks without a word in the middle have none.
    parts: Vec<(u64, Option<u32>)>,
    next: u32,
}

impl Decoder {
    pub(crate) fn read(&mut self, frame: &Frame<'_>, event: &mut dyn FnMut(Event<'_>)) -> Result<(), Malformed> {
        let data = frame.data.trim_ascii();
        if data.is_empty() {
            return Ok(());
        }
        let mut fields = Value::parse(data)?.fields("an object")?;
        match &*fields.need_string("type")? {
            "message_start" => {
                let mut message = fields.need("message")?.fields("an object")?;
                let (id, model) = (message.string("id")?, message.string("model")?);
                event(Event::Start { id, model, created: None });
                if let Some(usage) = message.take("usage") {
                    read_usage(usage, &mut self.usage);
                    event(Event::Usage { usage: self.usage, last: false });
                }
            }
            "content_block_start" => {
                let index = fields.count("index")?.unwrap_or(0);
                self.begin(index, fields.need("content_block")?.fields("an object")?, event)?;
            }
            "content_block_delta" => {
                let index = fields.count("index")?.unwrap_or(0);
                if let Some(part) = self.part(index) {
                    read_delta(part, fields.need("delta")?.fields("an object")?, event)?;
                }
            }
            "content_block_stop" => {
                let index = fields.count("index")?.unwrap_or(0);
                if let Some(part) = self.part(index) {
                    event(Event::End { choice: 0, part });
                }
            }
            "message_delta" => {
                if let Some(mut delta) = fields.fields("delta")?
                    && let Some(word) = delta.string("stop_reason")?
                {
                    event(Event::Stop { choice: 0, stop: stop(&word), sequence: delta.string("stop_sequence")? });
                }
                if let Some(usage) = fields.take("usage") {
                    read_usage(usage, &mut self.usage);
                    event(Event::Usage { usage: self.usage, last: true });
                }
            }
            "message_stop" => event(Event::Done),
            "ping" => event(Event::Ping),
            "error" => {
                let Fault::Provider { kind, message } = Fault::of(fields.take("error")) else { return Ok(()) };
                event(Event::Error { kind, message: message.into() });
            }
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, index: u64, mut block: Fields<'_>, event: &mut dyn FnMut(Event<'_>)) -> Result<(), Malformed> {
        let mut first = None;
        let what = match &*block.need_string("type")? {
            "text" => {
                first = block.string("text")?.filter(|text| !text.is_empty()).map(Delta::Text);
                Some(Begin::Text)
            }
            "thinking" => {
                first = block.string("thinking")?.filter(|text| !text.is_empty()).map(Delta::Thought);
                Some(Begin::Thought)
            }
            "redacted_thinking" => Some(Begin::Redacted(block.need_string("data")?)),
            "tool_use" => {
                let call = Begin::Call { id: block.need_string("id")?, name: block.need_string("name")? };
                let input = block.object("input")?.filter(|input| *input != "{}");
                first = input.map(|input| Delta::Arguments(input.into()));
                Some(call)
            }
            // What the provider's own tools do has no word elsewhere.
            _ => None,
        };
        let Some(what) = what else {
            self.parts.push((index, None));
            return Ok(());
        };
        let part = self.next;
        self.next += 1;
        self.parts.push((index, Some(part)));
        event(Event::Begin { choice: 0, part, what });
        if let Some(delta) = first {
            event(Event::Delta { choice: 0, part, delta });
        }
        Ok(())
    }

    /// The part that a block is. The latest are asked for, so it is looked for from the end.
    fn part(&self, index: u64) -> Option<u32> {
        self.parts.iter().rev().find(|(block, _)| *block == index)?.1
    }
}

fn read_delta(part: u32, mut delta: Fields<'_>, event: &mut dyn FnMut(Event<'_>)) -> Result<(), Malformed> {
    let delta = match &*delta.need_string("type")? {
        "text_delta" => Delta::Text(delta.need_string("text")?),
        "thinking_delta" => Delta::Thought(delta.need_string("thinking")?),
        "signature_delta" => Delta::Signature(delta.need_string("signature")?),
        "input_json_delta" => Delta::Arguments(delta.need_string("partial_json")?),
        _ => return Ok(()),
    };
    let (Delta::Text(text)
    | Delta::Thought(text)
    | Delta::Signature(text)
    | Delta::Arguments(text)
    | Delta::Refusal(text)) = &delta;
    if !text.is_empty() {
        event(Event::Delta { choice: 0, part, delta });
    }
    Ok(())
}

/// Writes a stream. Of several choices only the first can be; a caller of this dialect cannot have asked for more.
#[derive(Debug)]
pub(crate) struct Encoder {
    head: Head,
    started: bool,
    /// A thought is under way.
    thought: bool,
    usage: TokenUsage,
    stop: Option<Stop>,
    sequence: Option<String>,
}

impl Encoder {
    pub(crate) fn new(head: Head) -> Encoder {
        Encoder { head, started: false, thought: false, usage: TokenUsage::default(), stop: None, sequence: None }
    }

    pub(crate) fn write(&mut self, event: Event<'_>, to: &mut Vec<u8>) {
        match event {
            Event::Start { id, model, created } => {
                self.head.learn(id, model, created);
                self.start(to);
            }
            Event::Begin { choice: 0, part, what } => {
                self.start(to);
                self.thought = matches!(what, Begin::Thought);
                write_event("content_block_start", to, |out| {
                    out.number("index", part);
                    out.fields("content_block", |block| write_begin(&what, block));
                });
            }
            // The proof of a call, which only Gemini has, is not taken here.
            Event::Delta { delta: Delta::Signature(_), .. } if !self.thought => {}
            Event::Delta { choice: 0, part, delta } => write_event("content_block_delta", to, |out| {
                out.number("index", part);
                out.fields("delta", |out| write_delta(&delta, out));
            }),
            Event::End { choice: 0, part } => {
                write_event("content_block_stop", to, |out| out.number("index", part));
            }
            Event::Stop { choice: 0, stop, sequence } => {
                self.stop = Some(stop);
                self.sequence = sequence.map(|sequence| sequence.into_owned());
            }
            Event::Usage { usage, .. } => self.usage = usage,
            Event::Ping => write_event("ping", to, |_| {}),
            Event::Begin { .. } | Event::Delta { .. } | Event::End { .. } | Event::Stop { .. } => {}
            Event::Logprobs { .. } | Event::Error { .. } | Event::Done => {}
        }
    }

    /// What stands at the end: why it stopped and what it used, which others tell one after the other.
    pub(crate) fn end(&mut self, to: &mut Vec<u8>) {
        self.start(to);
        write_event("message_delta", to, |out| {
            out.fields("delta", |delta| {
                delta.text("stop_reason", stop_word(self.stop.unwrap_or(Stop::End)));
                match &self.sequence {
                    Some(sequence) => delta.text("stop_sequence", sequence),
                    None => delta.null("stop_sequence"),
                }
            });
            out.fields("usage", |out| write_usage(&self.usage, out));
        });
        write_event("message_stop", to, |_| {});
    }

    fn start(&mut self, to: &mut Vec<u8>) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        write_event("message_start", to, |out| {
            out.fields("message", |message| {
                message.text("id", &self.head.id);
                message.text("type", "message");
                message.text("role", "assistant");
                message.text("model", &self.head.model);
                message.items("content", [(); 0], |(), _| {});
                message.null("stop_reason");
                message.null("stop_sequence");
                message.fields("usage", |out| write_usage(&self.usage, out));
            });
        });
    }
}

fn write_begin(what: &Begin<'_>, out: &mut Out<'_>) {
    match what {
        Begin::Text | Begin::Refusal => {
            out.text("type", "text");
            out.text("text", "");
        }
        Begin::Thought => {
            out.text("type", "thinking");
            out.text("thinking", "");
            out.text("signature", "");
        }
        Begin::Redacted(data) => {
            out.text("type", "redacted_thinking");
            out.text("data", data);
        }
        Begin::Call { id, name } => {
            out.text("type", "tool_use");
            out.text("id", id);
            out.text("name", name);
            out.fields("input", |_| {});
        }
    }
}

fn write_delta(delta: &Delta<'_>, out: &mut Out<'_>) {
    match delta {
        Delta::Text(text) | Delta::Refusal(text) => {
            out.text("type", "text_delta");
            out.text("text", text);
        }
        Delta::Thought(text) => {
            out.text("type", "thinking_delta");
            out.text("thinking", text);
        }
        Delta::Signature(signature) => {
            out.text("type", "signature_delta");
            out.text("signature", signature);
        }
        Delta::Arguments(json) => {
            out.text("type", "input_json_delta");
            out.text("partial_json", json);
        }
    }
}

fn write_event(name: &str, to: &mut Vec<u8>, fields: impl FnOnce(&mut Out<'_>)) {
    sse::write(Some(name), to, |to| {
        Out::object(to, |out| {
            out.text("type", name);
            fields(out);
        });
    });
}
