//! Streams: answers, of which each has a little more.

use std::borrow::Cow;

use base::TokenUsage;
use memchr::memmem;

use super::answer::{read_logprobs, read_usage, stop, stop_word, write_logprobs, write_usage};
use super::request::{call_id, write_function_call};
use super::{fields, maybe_fields};
use crate::json::{self, Fields, Out, Value};
use crate::malformed::Malformed;
use crate::neutral::{Begin, Call, Delta, Event, Losses};
use crate::sse::{self, Frame};
use crate::stream::{Fault, Head, Seen, Stop};

/// Picks out of an event of a stream what is to be known of it.
pub(crate) fn watch(frame: &Frame<'_>, seen: &mut Seen) {
    let data = &*frame.data;
    if let Some(at) = memmem::find(data, b"\"parts\":") {
        let text = json::strings(&data[at + b"\"parts\":".len()..], &["text"]);
        seen.text += text as u64;
        seen.deltas += u64::from(text > 0);
    }
    // Every event may carry a count; the last one counts.
    let has = |needle: &str| memmem::find(data, needle.as_bytes()).is_some();
    if has("\"usageMetadata\":")
        && let Some(usage) = json::find(data, &["usageMetadata"]).and_then(read_usage)
    {
        seen.usage = Some(usage);
        seen.settled = seen.stop.is_some();
    }
    if let Some(at) = memmem::find(data, b"\"finishReason\":") {
        let word = data[at + b"\"finishReason\":".len()..].split(|byte| *byte == b'"').nth(1);
        seen.stop = word.map(stop);
        seen.settled = seen.usage.is_some();
        // There is no other end.
        seen.done = true;
    }
    if has("\"error\":")
        && let Some(error) = json::find(data, &["error"])
    {
        seen.fault = Some(Fault::of(Some(error)));
    }
}

/// Reads a stream. What a part is says whether it goes on with the one before; calls come whole.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    started: bool,
    id: String,
    calls: u32,
    candidates: Vec<Candidate>,
}

#[derive(Debug, Default)]
struct Candidate {
    /// The part that is under way, and whether it is a thought.
    open: Option<(u32, bool)>,
    next: u32,
    called: bool,
    stopped: bool,
}

impl Decoder {
    pub(crate) fn read(&mut self, frame: &Frame<'_>, event: &mut dyn FnMut(Event<'_>)) -> Result<(), Malformed> {
        const MOST: u64 = 128;
        let data = frame.data.trim_ascii();
        if data.is_empty() {
            return Ok(());
        }
        let mut body = fields(Value::parse(data)?)?;
        if let Some(error) = body.take("error") {
            if let Fault::Provider { kind, message } = Fault::of(Some(error)) {
                event(Event::Error { kind, message: message.into() });
            }
            return Ok(());
        }
        if !std::mem::replace(&mut self.started, true) {
            let (id, model) = (body.string("responseId")?, body.string("modelVersion")?);
            self.id = id.as_deref().unwrap_or_default().to_owned();
            event(Event::Start { id, model, created: None });
        }
        for candidate in body.array("candidates")?.unwrap_or_default() {
            let mut candidate = fields(candidate)?;
            let index = candidate.count("index")?.unwrap_or(0);
            let Some(choice) = u32::try_from(index).ok().filter(|_| index < MOST) else {
                return Err(Malformed::new("a candidate of a high number", candidate.at(), "at most 128 candidates"));
            };
            while self.candidates.len() <= choice as usize {
                self.candidates.push(Candidate::default());
            }
            let Decoder { id, calls, candidates, started: _ } = self;
            let mut new_id = || {
                *calls += 1;
                call_id(id, *calls)
            };
            candidates[choice as usize].read(choice, candidate, &mut new_id, event)?;
        }
        if let Some(mut feedback) = maybe_fields(&mut body, "promptFeedback")?
            && feedback.string("blockReason")?.is_some()
            && self.candidates.is_empty()
        {
            // The question was kept back, so there is no answer.
            self.candidates.push(Candidate { stopped: true, ..Candidate::default() });
            event(Event::Stop { choice: 0, stop: Stop::Filter, sequence: None });
        }
        let done = !self.candidates.is_empty() && self.candidates.iter().all(|candidate| candidate.stopped);
        if let Some(usage) = body.take("usageMetadata").and_then(read_usage) {
            event(Event::Usage { usage, last: done });
            // There is no other end.
            if done {
                event(Event::Done);
            }
        }
        Ok(())
    }
}

impl Candidate {
    fn read(
        &mut self,
        choice: u32,
        mut candidate: Fields<'_>,
        new_id: &mut dyn FnMut() -> Cow<'static, str>,
        event: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Malformed> {
        if let Some(mut content) = maybe_fields(&mut candidate, "content")? {
            for part in content.array("parts")?.unwrap_or_default() {
                self.read_part(choice, fields(part)?, new_id, event)?;
            }
        }
        if let Some(logprobs) = maybe_fields(&mut candidate, "logprobsResult")?
            && let Some(logprobs) = read_logprobs(logprobs)?.filter(|logprobs| !logprobs.is_empty())
        {
            event(Event::Logprobs { choice, logprobs });
        }
        if let Some(word) = candidate.string("finishReason")?
            && !std::mem::replace(&mut self.stopped, true)
        {
            self.end(choice, event);
            // It has no word for wanting a tool to be called.
            let stop = match stop(word.as_bytes()) {
                Stop::End if self.called => Stop::Tools,
                stop => stop,
            };
            event(Event::Stop { choice, stop, sequence: None });
        }
        Ok(())
    }

    fn read_part(
        &mut self,
        choice: u32,
        mut part: Fields<'_>,
        new_id: &mut dyn FnMut() -> Cow<'static, str>,
        event: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Malformed> {
        let signature = part.string("thoughtSignature")?;
        let thought = part.bool("thought")?.unwrap_or(false);
        if let Some(text) = part.string("text")? {
            let signature = signature.filter(|_| thought);
            if !text.is_empty() {
                let delta = if thought { Delta::Thought(text) } else { Delta::Text(text) };
                self.add(choice, thought, delta, event);
            }
            if let Some(signature) = signature {
                self.add(choice, true, Delta::Signature(signature), event);
                self.end(choice, event);
            }
        } else if let Some(mut call) = maybe_fields(&mut part, "functionCall")? {
            self.called = true;
            let id = match call.string("id")?.filter(|id| !id.is_empty()) {
                Some(id) => id,
                None => new_id(),
            };
            self.end(choice, event);
            let part = self.begin(choice, false, Begin::Call { id, name: call.need_string("name")? }, event);
            if let Some(arguments) = call.object("args")? {
                event(Event::Delta { choice, part, delta: Delta::Arguments(arguments.into()) });
            }
            if let Some(signature) = signature {
                event(Event::Delta { choice, part, delta: Delta::Signature(signature) });
            }
            self.end(choice, event);
        }
        Ok(())
    }

    fn add(&mut self, choice: u32, thought: bool, delta: Delta<'_>, event: &mut dyn FnMut(Event<'_>)) {
        let part = match self.open {
            Some((part, is)) if is == thought => part,
            _ => {
                self.end(choice, event);
                self.begin(choice, thought, if thought { Begin::Thought } else { Begin::Text }, event)
            }
        };
        event(Event::Delta { choice, part, delta });
    }

    fn begin(&mut self, choice: u32, thought: bool, what: Begin<'_>, event: &mut dyn FnMut(Event<'_>)) -> u32 {
        let part = self.next;
        self.next += 1;
        self.open = Some((part, thought));
        event(Event::Begin { choice, part, what });
        part
    }

    fn end(&mut self, choice: u32, event: &mut dyn FnMut(Event<'_>)) {
        if let Some((part, _)) = self.open.take() {
            event(Event::End { choice, part });
        }
    }
}

/// Writes a stream. Calls are written whole, so their arguments are gathered.
#[derive(Debug)]
pub(crate) struct Encoder {
    head: Head,
    /// The call that is under way.
    call: Option<Gathered>,
    usage: Option<TokenUsage>,
    /// Why each choice stopped.
    stops: Vec<(u32, Stop)>,
}

#[derive(Debug, Default)]
struct Gathered {
    id: String,
    name: String,
    arguments: String,
    signature: Option<String>,
}

impl Encoder {
    pub(crate) fn new(head: Head) -> Encoder {
        Encoder { head, call: None, usage: None, stops: Vec::new() }
    }

    pub(crate) fn write(&mut self, event: Event<'_>, to: &mut Vec<u8>) {
        match event {
            Event::Start { id, model, created } => self.head.learn(id, model, created),
            Event::Begin { what: Begin::Call { id, name }, .. } => {
                self.call = Some(Gathered { id: id.into_owned(), name: name.into_owned(), ..Gathered::default() });
            }
            Event::Delta { choice, delta, .. } => self.delta(choice, &delta, to),
            Event::End { choice, .. } => {
                let Some(Gathered { id, name, arguments, signature }) = self.call.take() else { return };
                let call = Call {
                    id: id.into(),
                    name: name.into(),
                    arguments: arguments.into(),
                    signature: signature.map(Cow::Owned),
                };
                self.part(choice, to, |part| write_function_call(&call, 0, &mut Losses::default(), part));
            }
            Event::Logprobs { choice, logprobs } => {
                self.candidate(choice, to, |candidate| write_logprobs(&logprobs, candidate));
            }
            Event::Stop { choice, stop, .. } => self.stops.push((choice, stop)),
            Event::Usage { usage, .. } => self.usage = Some(usage),
            // Enciphered thoughts are for their own provider.
            Event::Begin { .. } | Event::Error { .. } | Event::Done => {}
            // Google's SDK takes every line for data, comments too.
            Event::Ping => {}
        }
    }

    /// Why each choice stopped, and what all used.
    pub(crate) fn end(&mut self, to: &mut Vec<u8>) {
        let stops = std::mem::take(&mut self.stops);
        self.answer(to, |out| {
            out.items("candidates", &stops, |(choice, stop), to| {
                Out::object(to, |out| {
                    out.fields("content", |content| {
                        content.items("parts", [()], |(), to| Out::object(to, |part| part.text("text", "")));
                        content.text("role", "model");
                    });
                    out.text("finishReason", stop_word(*stop));
                    out.number("index", choice);
                });
            });
            if let Some(usage) = &self.usage {
                out.fields("usageMetadata", |out| write_usage(usage, out));
            }
        });
    }

    fn delta(&mut self, choice: u32, delta: &Delta<'_>, to: &mut Vec<u8>) {
        match (delta, &mut self.call) {
            (Delta::Arguments(json), Some(call)) => call.arguments.push_str(json),
            (Delta::Signature(signature), Some(call)) => call.signature = Some(signature.clone().into_owned()),
            (Delta::Text(text) | Delta::Refusal(text), _) => self.part(choice, to, |part| part.text("text", text)),
            (Delta::Thought(text), _) => self.part(choice, to, |part| {
                part.text("text", text);
                part.bool("thought", true);
            }),
            (Delta::Signature(signature), None) => self.part(choice, to, |part| {
                part.text("text", "");
                part.bool("thought", true);
                part.text("thoughtSignature", signature);
            }),
            (Delta::Arguments(_), None) => {}
        }
    }

    fn part(&self, choice: u32, to: &mut Vec<u8>, fields: impl FnOnce(&mut Out<'_>)) {
        self.candidate(choice, to, |candidate| {
            candidate.fields("content", |content| {
                let to = content.key("parts");
                to.push(b'[');
                Out::object(to, fields);
                to.push(b']');
                content.text("role", "model");
            });
        });
    }

    fn candidate(&self, choice: u32, to: &mut Vec<u8>, fields: impl FnOnce(&mut Out<'_>)) {
        self.answer(to, |out| {
            let to = out.key("candidates");
            to.push(b'[');
            Out::object(to, |candidate| {
                fields(candidate);
                candidate.number("index", choice);
            });
            to.push(b']');
        });
    }

    fn answer(&self, to: &mut Vec<u8>, fields: impl FnOnce(&mut Out<'_>)) {
        sse::write(None, to, |to| {
            Out::object(to, |out| {
                fields(out);
                out.text("modelVersion", &self.head.model);
                out.text("responseId", &self.head.id);
            });
        });
    }
}
