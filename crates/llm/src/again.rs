//! An answer given again: kept as its provider gave it, whole or as a stream, and wanted in any dialect, whole or as a
//! stream.
//!
//! What was a stream is one again by way of [`Stream`], what was whole by way of [`translate::answer`]; where the one is
//! wanted and the other is kept, it goes by way of the neutral form. What would lose something on that way is not given:
//! then there is no such answer.

use std::borrow::Cow;

use base::TokenUsage;

use crate::dialect::Dialect;
use crate::format::{self, Decoder, Encoder};
use crate::json::{self, Value};
use crate::neutral::{Answer, Begin, Call, Choice, Content, Delta, Event, Losses, Part, Thought};
use crate::sse::Piece;
use crate::stream::{self, Framing, Head, Seen, Stop, Stream};
use crate::translate;

/// An answer as its provider gave it.
#[derive(Clone, Copy, Debug)]
pub struct Kept<'k> {
    pub dialect: Dialect,
    pub stream: bool,
    pub body: &'k [u8],
}

/// An answer for a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    pub body: Vec<u8>,
    pub usage: Option<TokenUsage>,
}

/// What is to be known of an answer that may be given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worth {
    /// It wants tools to be called.
    pub calls: bool,
    pub usage: Option<TokenUsage>,
}

/// Whether an answer is worth keeping: one that is complete and says something. Not one that was cut short by a limit, kept
/// back or declined, that failed, or that cannot be understood.
pub fn worth_keeping(kept: &Kept<'_>) -> Option<Worth> {
    if kept.dialect == Dialect::OpenAiEmbeddings {
        let usage = format::glance(kept.dialect, kept.body).ok()?.usage;
        let data = json::find(kept.body, &["data"])?;
        return (data.is_array() && !data.is_empty_array()).then_some(Worth { calls: false, usage });
    }
    let gathered;
    let answer = match kept.stream {
        true => {
            gathered = gather(kept.dialect, kept.body)?;
            &gathered.answer
        }
        false => &read(kept.dialect, kept.body, &mut Losses::default())?,
    };
    let [choice] = &answer.choices[..] else { return None };
    if !matches!(choice.stop, Some(Stop::End | Stop::Sequence | Stop::Tools)) {
        return None;
    }
    let mut says = false;
    let mut calls = false;
    for part in &choice.parts {
        match &part.content {
            Content::Text(text) => says |= !text.is_empty(),
            Content::Call(_) => calls = true,
            Content::Refusal(_) => return None,
            Content::Media(_) => says = true,
            Content::Thought(_) | Content::Outcome(_) => {}
        }
    }
    (says || calls).then_some(Worth { calls, usage: answer.usage })
}

/// The answer as this caller wants it, if nothing of it is lost so.
pub fn give(kept: &Kept<'_>, caller: Dialect, stream: bool, options: &stream::Options<'_>) -> Option<Given> {
    let whole =
        translate::Options { model: options.model, id: options.id, now: options.now, ..translate::Options::default() };
    match (kept.stream, stream) {
        (false, false) => {
            let answer = translate::answer(caller, kept.dialect, kept.body, &whole).ok()?;
            Some(Given { body: answer.body, usage: answer.usage })
        }
        (true, true) => {
            let mut through = Stream::new(caller, kept.dialect, options)?;
            let mut body = Vec::with_capacity(kept.body.len());
            through.push(kept.body, &mut body);
            through.finish(&mut body);
            Some(Given { body, usage: through.seen().usage })
        }
        (true, false) => {
            let Gathered { answer, logprobs: false } = gather(kept.dialect, kept.body)? else { return None };
            let mut body = Vec::with_capacity(kept.body.len() / 4 + 256);
            format::answer_writer(caller)?(&answer, &whole, &mut body);
            Some(Given { body, usage: answer.usage })
        }
        (false, true) => {
            let mut lost = Losses::default();
            let answer = read(kept.dialect, kept.body, &mut lost)?;
            if !lost.places().is_empty() {
                return None;
            }
            let usage = answer.usage;
            let mut encoder = Encoder::new(caller, Head::new(options))?;
            let mut body = Vec::with_capacity(kept.body.len() + 2048);
            play(answer, &mut |event| encoder.write(event, &mut body))?;
            encoder.end(&mut body);
            Some(Given { body, usage })
        }
    }
}

/// The vector that an answer to a question for one brings.
pub fn vector(body: &[u8]) -> Option<Vec<f32>> {
    format::openai_embeddings::vector(body)
}

fn read<'a>(dialect: Dialect, body: &'a [u8], lost: &mut Losses) -> Option<Answer<'a>> {
    format::answer_reader(dialect)?(Value::parse(body).ok()?, lost).ok()
}

/// What would have happened if the answer had come as a stream; nothing of it if it has what no stream has.
fn play(answer: Answer<'_>, event: &mut dyn FnMut(Event<'_>)) -> Option<()> {
    let Answer { id, model, created, choices, usage } = answer;
    let is_sayable = |part: &Part<'_>| !matches!(part.content, Content::Media(_) | Content::Outcome(_));
    if !choices.iter().all(|choice| choice.parts.iter().all(is_sayable)) {
        return None;
    }
    event(Event::Start { id, model, created });
    for (number, Choice { parts, stop, sequence, logprobs }) in (0..).zip(choices) {
        for (part, Part { content, .. }) in (0..).zip(parts) {
            let (what, deltas) = told(content)?;
            event(Event::Begin { choice: number, part, what });
            for delta in deltas.into_iter().flatten() {
                event(Event::Delta { choice: number, part, delta });
            }
            event(Event::End { choice: number, part });
        }
        if let Some(logprobs) = logprobs {
            event(Event::Logprobs { choice: number, logprobs });
        }
        event(Event::Stop { choice: number, stop: stop.unwrap_or(Stop::End), sequence });
    }
    if let Some(usage) = usage {
        event(Event::Usage { usage, last: true });
    }
    event(Event::Done);
    Some(())
}

/// A part as it begins, and what is added to it.
fn told(content: Content<'_>) -> Option<(Begin<'_>, [Option<Delta<'_>>; 2])> {
    let told = match content {
        Content::Text(text) => (Begin::Text, [Some(Delta::Text(text)), None]),
        Content::Refusal(text) => (Begin::Refusal, [Some(Delta::Refusal(text)), None]),
        Content::Thought(Thought { text, redacted: true, .. }) => (Begin::Redacted(text), [None, None]),
        Content::Thought(Thought { text, signature, .. }) => {
            (Begin::Thought, [Some(Delta::Thought(text)), signature.map(Delta::Signature)])
        }
        Content::Call(Call { id, name, arguments, signature }) => {
            let arguments = Some(arguments).filter(|it| !it.is_empty()).map(Delta::Arguments);
            (Begin::Call { id, name }, [arguments, signature.map(Delta::Signature)])
        }
        Content::Media(_) | Content::Outcome(_) => return None,
    };
    Some(told)
}

/// A stream put together.
struct Gathered {
    answer: Answer<'static>,
    /// It told how likely its tokens were, which is not kept here.
    logprobs: bool,
}

/// Puts together what came in pieces; `None` if it did not come to a proper end.
fn gather(dialect: Dialect, body: &[u8]) -> Option<Gathered> {
    let mut framing = Framing::new(dialect, body.len() + 1);
    let mut decoder = Decoder::new(dialect)?;
    let mut gathering = Gathering::default();
    let mut broken = false;
    let parse = framing.parser();
    let mut take = |piece: Piece<'_>| match piece {
        Piece::Whole(event) => {
            let frame = parse(event);
            broken |= decoder.read(&frame, &mut |event| gathering.take(event)).is_err();
        }
        Piece::Overlong(_) | Piece::Broken(_) => broken = true,
    };
    framing.push(body, &mut take);
    // The last event may lack its blank line.
    if let Some(end) = framing.closing() {
        framing.push(end, &mut take);
    }
    let Gathering { answer, seen, failed, logprobs } = gathering;
    let ended = seen.done || seen.stop.is_some();
    (ended && !broken && !failed).then_some(Gathered { answer, logprobs })
}

#[derive(Default)]
struct Gathering {
    answer: Answer<'static>,
    seen: Seen,
    failed: bool,
    logprobs: bool,
}

impl Gathering {
    fn take(&mut self, event: Event<'_>) {
        // What says more after its end has not ended there for everybody.
        self.failed |= self.seen.done && !matches!(event, Event::Done | Event::Ping | Event::Usage { .. });
        stream::learn(&event, &mut self.seen);
        match event {
            Event::Start { id, model, created } => {
                self.answer.id = id.map(owned);
                self.answer.model = model.map(owned);
                self.answer.created = created;
            }
            Event::Begin { choice, what, .. } => {
                let content = match what {
                    Begin::Text => Content::Text("".into()),
                    Begin::Refusal => Content::Refusal("".into()),
                    Begin::Thought => Content::Thought(Thought { text: "".into(), signature: None, redacted: false }),
                    Begin::Redacted(data) => {
                        Content::Thought(Thought { text: owned(data), signature: None, redacted: true })
                    }
                    Begin::Call { id, name } => {
                        let (id, name, arguments) = (owned(id), owned(name), "".into());
                        Content::Call(Call { id, name, arguments, signature: None })
                    }
                };
                self.choice(choice).parts.push(Part::new(0, content));
            }
            Event::Delta { choice, part, delta } => {
                let Some(part) = self.choice(choice).parts.get_mut(part as usize) else { return };
                match (&mut part.content, delta) {
                    (Content::Text(text), Delta::Text(more))
                    | (Content::Refusal(text), Delta::Refusal(more))
                    | (Content::Thought(Thought { text, .. }), Delta::Thought(more))
                    | (Content::Call(Call { arguments: text, .. }), Delta::Arguments(more)) => {
                        text.to_mut().push_str(&more);
                    }
                    (Content::Thought(Thought { signature, .. }), Delta::Signature(more))
                    | (Content::Call(Call { signature, .. }), Delta::Signature(more)) => {
                        signature.get_or_insert_default().to_mut().push_str(&more);
                    }
                    // A part is added to by what is of its kind.
                    _ => self.failed = true,
                }
            }
            Event::Stop { choice, stop, sequence } => {
                let choice = self.choice(choice);
                choice.stop = Some(stop);
                choice.sequence = sequence.map(owned);
            }
            Event::Usage { usage, .. } => self.answer.usage = Some(usage),
            Event::Logprobs { .. } => self.logprobs = true,
            Event::Error { .. } => self.failed = true,
            Event::End { .. } | Event::Ping | Event::Done => {}
        }
    }

    /// Decoders bound how many there are.
    fn choice(&mut self, number: u32) -> &mut Choice<'static> {
        let choices = &mut self.answer.choices;
        while choices.len() <= number as usize {
            choices.push(Choice::default());
        }
        &mut choices[number as usize]
    }
}

fn owned(text: Cow<'_, str>) -> Cow<'static, str> {
    Cow::Owned(text.into_owned())
}
