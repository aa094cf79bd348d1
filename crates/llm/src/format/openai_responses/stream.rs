//! Streams: each step of each item is an event, and the last one repeats it all.

use std::borrow::Cow;

use base::TokenUsage;
use memchr::memmem;

use super::REDACTED;
use super::answer::{
    Status, Told, created, read_logprob, read_usage, stop, write_call_item, write_logprob, write_part, write_response,
    write_said, write_thought,
};
use crate::format;
use crate::json::{self, Out, Value};
use crate::malformed::Malformed;
use crate::neutral::{Begin, Call, Content, Delta, Event, Thought};
use crate::sse::{self, Frame};
use crate::stream::{Fault, Head, Seen, Stop};

/// Picks out of an event of a stream what is to be known of it.
pub(crate) fn watch(frame: &Frame<'_>, seen: &mut Seen) {
    let (data, kind) = (&*frame.data, format::kind(frame));
    if kind.ends_with(b".delta") {
        if let Some(at) = memmem::find(data, b"\"delta\":\"") {
            let text = json::strings(&[b"{", &data[at..]].concat(), &["delta"]);
            seen.text += text as u64;
            seen.deltas += u64::from(text > 0);
        }
        return;
    }
    match &*kind {
        b"response.completed" | b"response.incomplete" | b"response.failed" => {
            seen.done = true;
            let reason = format::word(data, &["response", "incomplete_details", "reason"], str::to_owned);
            seen.stop = Some(match &*kind {
                b"response.incomplete" => stop("incomplete", reason.as_deref(), false),
                _ => Stop::End,
            });
            if let Some(usage) = json::find(data, &["response", "usage"]).and_then(read_usage) {
                seen.usage = Some(usage);
                seen.settled = true;
            }
            if *kind == *b"response.failed" {
                seen.fault = Some(Fault::of(json::find(data, &["response", "error"])));
            }
        }
        b"error" => seen.fault = Some(Fault::of(json::find(data, &[]))),
        _ => {}
    }
}

/// Reads a stream. Items come one after the other.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// What is under way: the number of its item, the number of its part, what it is, whether it has got anything.
    open: Option<(u64, u32, Is, bool)>,
    next: u32,
    calls: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    Text,
    Refusal,
    Thought,
    Call,
}

impl Decoder {
    pub(crate) fn read(&mut self, frame: &Frame<'_>, event: &mut dyn FnMut(Event<'_>)) -> Result<(), Malformed> {
        let data = frame.data.trim_ascii();
        // Some servers end like chat completions do.
        if data.is_empty() || data == b"[DONE]" {
            return Ok(());
        }
        let value = Value::parse(data)?;
        let mut fields = value.clone().fields("an object")?;
        let item = fields.count("output_index")?.unwrap_or(0);
        match &*fields.need_string("type")? {
            "response.created" => {
                let mut response = fields.need("response")?.fields("an object")?;
                let (id, model) = (response.string("id")?, response.string("model")?);
                event(Event::Start { id, model, created: created(&mut response)? });
            }
            "response.output_item.added" => {
                self.end(event);
                let mut added = fields.need("item")?.fields("an object")?;
                if &*added.need_string("type")? == "function_call" {
                    self.calls = true;
                    let (id, name) = (added.need_string("call_id")?, added.need_string("name")?);
                    self.begin(item, Is::Call, Begin::Call { id, name }, event);
                }
            }
            "response.output_text.delta" => {
                self.add(item, Is::Text, Delta::Text(fields.need_string("delta")?), event)?;
                let logprobs = fields.array("logprobs")?.unwrap_or_default();
                if !logprobs.is_empty() {
                    let logprobs = logprobs.into_iter().map(read_logprob).collect::<Result<_, _>>()?;
                    event(Event::Logprobs { choice: 0, logprobs });
                }
            }
            "response.refusal.delta" => {
                self.add(item, Is::Refusal, Delta::Refusal(fields.need_string("delta")?), event)?;
            }
            "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" => {
                self.add(item, Is::Thought, Delta::Thought(fields.need_string("delta")?), event)?;
            }
            "response.reasoning_summary_part.added" => {
                // Its parts are paragraphs of one thought.
                if let Some((of, _, Is::Thought, true)) = self.open
                    && of == item
                {
                    self.add(item, Is::Thought, Delta::Thought("\n".into()), event)?;
                }
            }
            "response.function_call_arguments.delta" => {
                self.add(item, Is::Call, Delta::Arguments(fields.need_string("delta")?), event)?;
            }
            "response.function_call_arguments.done" => {
                // Whoever has said nothing before says it all now.
                if let Some((of, _, Is::Call, false)) = self.open
                    && of == item
                {
                    self.add(item, Is::Call, Delta::Arguments(fields.need_string("arguments")?), event)?;
                }
            }
            "response.output_item.done" => self.end(event),
            "response.completed" | "response.incomplete" => {
                self.end(event);
                let mut response = fields.need("response")?.fields("an object")?;
                let status = response.string("status")?.unwrap_or_default();
                let reason =
                    response.fields("incomplete_details")?.map(|mut why| why.string("reason")).transpose()?.flatten();
                let stop = stop(&status, reason.as_deref(), self.calls);
                event(Event::Stop { choice: 0, stop, sequence: None });
                if let Some(usage) = response.take("usage").and_then(read_usage) {
                    event(Event::Usage { usage, last: true });
                }
                event(Event::Done);
            }
            "response.failed" => {
                let mut response = fields.need("response")?.fields("an object")?;
                if let Some(usage) = response.take("usage").and_then(read_usage) {
                    event(Event::Usage { usage, last: true });
                }
                fail(response.take("error"), event);
            }
            "error" => {
                let nested = fields.take("error").filter(Value::is_object);
                fail(Some(nested.unwrap_or(value)), event);
            }
            _ => {}
        }
        Ok(())
    }

    fn add(&mut self, item: u64, is: Is, delta: Delta<'_>, event: &mut dyn FnMut(Event<'_>)) -> Result<(), Malformed> {
        let (Delta::Text(text)
        | Delta::Thought(text)
        | Delta::Signature(text)
        | Delta::Arguments(text)
        | Delta::Refusal(text)) = &delta;
        if text.is_empty() {
            return Ok(());
        }
        let part = match &mut self.open {
            Some((of, part, open, got)) if *of == item && *open == is => {
                *got = true;
                *part
            }
            _ => {
                let what = match is {
                    Is::Text => Begin::Text,
                    Is::Refusal => Begin::Refusal,
                    Is::Thought => Begin::Thought,
                    Is::Call => {
                        let what = "more of a call that is not under way";
                        return Err(Malformed::new(what, 0, "calls that come one after the other"));
                    }
                };
                self.end(event);
                let part = self.begin(item, is, what, event);
                self.open = Some((item, part, is, true));
                part
            }
        };
        event(Event::Delta { choice: 0, part, delta });
        Ok(())
    }

    fn begin(&mut self, item: u64, is: Is, what: Begin<'_>, event: &mut dyn FnMut(Event<'_>)) -> u32 {
        let part = self.next;
        self.next += 1;
        self.open = Some((item, part, is, false));
        event(Event::Begin { choice: 0, part, what });
        part
    }

    fn end(&mut self, event: &mut dyn FnMut(Event<'_>)) {
        if let Some((_, part, ..)) = self.open.take() {
            event(Event::End { choice: 0, part });
        }
    }
}

fn fail(error: Option<Value<'_>>, event: &mut dyn FnMut(Event<'_>)) {
    if let Fault::Provider { kind, message } = Fault::of(error) {
        event(Event::Error { kind, message: message.into() });
    }
}

/// Writes a stream. The last event repeats all items, so they are kept. Of several choices only the first can be; a caller
/// of this dialect cannot have asked for more.
#[derive(Debug)]
pub(crate) struct Encoder {
    head: Head,
    started: bool,
    /// Of the next event.
    number: u64,
    /// Those that are done.
    items: Vec<Vec<u8>>,
    open: Option<Open>,
    usage: Option<TokenUsage>,
    stop: Option<Stop>,
}

/// The item that is under way.
#[derive(Debug)]
struct Open {
    id: String,
    what: What,
    text: String,
    signature: Option<String>,
}

#[derive(Debug)]
enum What {
    Text,
    Refusal,
    Thought,
    Call { id: String, name: String },
}

impl Encoder {
    pub(crate) fn new(head: Head) -> Encoder {
        Encoder { head, started: false, number: 0, items: Vec::new(), open: None, usage: None, stop: None }
    }

    pub(crate) fn events(&self) -> u64 {
        self.number
    }

    pub(crate) fn write(&mut self, event: Event<'_>, to: &mut Vec<u8>) {
        match event {
            Event::Start { id, model, created } => {
                self.head.learn(id, model, created);
                self.start(to);
            }
            Event::Begin { choice: 0, what, .. } => {
                self.start(to);
                self.begin(what, to);
            }
            Event::Delta { choice: 0, delta, .. } => self.delta(&delta, to),
            Event::End { choice: 0, .. } => self.end_item(to),
            Event::Stop { choice: 0, stop, .. } => self.stop = Some(stop),
            Event::Usage { usage, .. } => self.usage = Some(usage),
            Event::Logprobs { choice: 0, logprobs } => {
                let Some(Open { id, what: What::Text, .. }) = &self.open else { return };
                let id = id.clone();
                self.event("response.output_text.delta", to, |out| {
                    out.text("item_id", &id);
                    out.number("content_index", 0);
                    out.text("delta", "");
                    out.items("logprobs", &logprobs, |logprob, to| write_logprob(logprob, true, to));
                });
            }
            Event::Ping => to.extend_from_slice(b": ping\n\n"),
            Event::Begin { .. } | Event::Delta { .. } | Event::End { .. } | Event::Stop { .. } => {}
            Event::Logprobs { .. } | Event::Error { .. } | Event::Done => {}
        }
    }

    /// Why it stopped, what it used, and all items once more.
    pub(crate) fn end(&mut self, to: &mut Vec<u8>) {
        self.start(to);
        self.end_item(to);
        let status = Status::of(self.stop.unwrap_or(Stop::End));
        let name = if status == Status::Completed { "response.completed" } else { "response.incomplete" };
        self.response(name, status, to);
    }

    fn start(&mut self, to: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.started, true) {
            self.response("response.created", Status::InProgress, to);
            self.response("response.in_progress", Status::InProgress, to);
        }
    }

    fn begin(&mut self, what: Begin<'_>, to: &mut Vec<u8>) {
        let index = self.items.len();
        let (kind, what) = match what {
            Begin::Text => ("msg", What::Text),
            Begin::Refusal => ("msg", What::Refusal),
            Begin::Thought | Begin::Redacted(_) => {
                let id = format!("rs_{}_{index}", self.head.id);
                let redacted = match what {
                    Begin::Redacted(data) => Some(format!("{REDACTED}{data}")),
                    _ => None,
                };
                let open = Open { id, what: What::Thought, text: String::new(), signature: redacted };
                return self.open(open, to);
            }
            Begin::Call { id, name } => ("fc", What::Call { id: id.into_owned(), name: name.into_owned() }),
        };
        let id = format!("{kind}_{}_{index}", self.head.id);
        self.open(Open { id, what, text: String::new(), signature: None }, to);
    }

    fn open(&mut self, open: Open, to: &mut Vec<u8>) {
        let mut item = Vec::new();
        open.write("in_progress", &mut item);
        let id = open.id.clone();
        let part = open.part("");
        self.open = Some(open);
        self.item("response.output_item.added", &item, to);
        if let Some(part) = part {
            self.event("response.content_part.added", to, |out| {
                out.text("item_id", &id);
                out.number("content_index", 0);
                write_part(&part, &[], out.key("part"));
            });
        }
    }

    fn delta(&mut self, delta: &Delta<'_>, to: &mut Vec<u8>) {
        let Some(open) = &mut self.open else { return };
        let first = open.text.is_empty();
        let (name, text) = match (delta, &open.what) {
            (Delta::Text(text), What::Text) => ("response.output_text.delta", text),
            (Delta::Refusal(text), What::Refusal) => ("response.refusal.delta", text),
            (Delta::Thought(text), What::Thought) => ("response.reasoning_summary_text.delta", text),
            (Delta::Arguments(text), What::Call { .. }) => ("response.function_call_arguments.delta", text),
            (Delta::Signature(signature), What::Thought) => {
                open.signature = Some(signature.clone().into_owned());
                return;
            }
            // The proof of a call has no place here.
            _ => return,
        };
        open.text.push_str(text);
        let id = open.id.clone();
        if first && name == "response.reasoning_summary_text.delta" {
            self.event("response.reasoning_summary_part.added", to, |out| {
                out.text("item_id", &id);
                out.number("summary_index", 0);
                write_summary("", out);
            });
        }
        self.event(name, to, |out| {
            out.text("item_id", &id);
            match name {
                "response.output_text.delta" | "response.refusal.delta" => out.number("content_index", 0),
                "response.reasoning_summary_text.delta" => out.number("summary_index", 0),
                _ => {}
            }
            out.text("delta", text);
            if name == "response.output_text.delta" {
                out.items("logprobs", [(); 0], |(), _| {});
            }
        });
    }

    fn end_item(&mut self, to: &mut Vec<u8>) {
        let Some(mut open) = self.open.take() else { return };
        // No arguments are an empty object, which is not an empty text.
        if matches!(open.what, What::Call { .. }) && open.text.is_empty() {
            open.text.push_str("{}");
        }
        let (id, text) = (&open.id, &open.text);
        match &open.what {
            What::Text => self.event("response.output_text.done", to, |out| {
                out.text("item_id", id);
                out.number("content_index", 0);
                out.text("text", text);
                out.items("logprobs", [(); 0], |(), _| {});
            }),
            What::Refusal => self.event("response.refusal.done", to, |out| {
                out.text("item_id", id);
                out.number("content_index", 0);
                out.text("refusal", text);
            }),
            What::Call { name, .. } => self.event("response.function_call_arguments.done", to, |out| {
                out.text("item_id", id);
                out.text("name", name);
                out.text("arguments", text);
            }),
            What::Thought if !text.is_empty() => {
                self.event("response.reasoning_summary_text.done", to, |out| {
                    out.text("item_id", id);
                    out.number("summary_index", 0);
                    out.text("text", text);
                });
                self.event("response.reasoning_summary_part.done", to, |out| {
                    out.text("item_id", id);
                    out.number("summary_index", 0);
                    write_summary(text, out);
                });
            }
            What::Thought => {}
        }
        if let Some(part) = open.part(text) {
            self.event("response.content_part.done", to, |out| {
                out.text("item_id", id);
                out.number("content_index", 0);
                write_part(&part, &[], out.key("part"));
            });
        }
        let mut item = Vec::new();
        open.write("completed", &mut item);
        self.item("response.output_item.done", &item, to);
        self.items.push(item);
    }

    fn item(&mut self, name: &'static str, item: &[u8], to: &mut Vec<u8>) {
        self.event(name, to, |out| out.key("item").extend_from_slice(item));
    }

    /// An event about the item that is under way.
    fn event(&mut self, name: &str, to: &mut Vec<u8>, fields: impl FnOnce(&mut Out<'_>)) {
        let index = self.items.len();
        write_event(name, &mut self.number, to, |out| {
            out.number("output_index", index);
            fields(out);
        });
    }

    fn response(&mut self, name: &str, status: Status, to: &mut Vec<u8>) {
        let Encoder { head, number, items, usage, .. } = self;
        let told = Told { id: &head.id, model: &head.model, created: head.created };
        let usage = usage.as_ref().filter(|_| status != Status::InProgress);
        write_event(name, number, to, |out| {
            out.fields("response", |out| write_response(&told, status, items, usage, out));
        });
    }
}

impl Open {
    /// What a message has in it.
    fn part<'t>(&self, text: &'t str) -> Option<Content<'t>> {
        match self.what {
            What::Text => Some(Content::Text(text.into())),
            What::Refusal => Some(Content::Refusal(text.into())),
            What::Thought | What::Call { .. } => None,
        }
    }

    fn write(&self, status: &str, to: &mut Vec<u8>) {
        let text = Cow::Borrowed(self.text.as_str());
        match &self.what {
            What::Text | What::Refusal => {
                let part = self.part(&self.text).filter(|_| status == "completed");
                write_said(&self.id, status, &part, &[], to);
            }
            What::Thought => {
                let signature = self.signature.as_deref().map(Cow::Borrowed);
                write_thought(&self.id, &Thought { text, signature, redacted: false }, to);
            }
            What::Call { id, name } => {
                let (id, name) = (id.as_str().into(), name.as_str().into());
                write_call_item(&self.id, status, &Call { id, name, arguments: text, signature: None }, to);
            }
        }
    }
}

fn write_summary(text: &str, out: &mut Out<'_>) {
    out.fields("part", |part| {
        part.text("type", "summary_text");
        part.text("text", text);
    });
}

fn write_event(name: &str, number: &mut u64, to: &mut Vec<u8>, fields: impl FnOnce(&mut Out<'_>)) {
    sse::write(Some(name), to, |to| {
        Out::object(to, |out| {
            out.text("type", name);
            out.number("sequence_number", *number);
            fields(out);
        });
    });
    *number += 1;
}
