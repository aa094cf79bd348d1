//! A stream of one dialect becomes a stream of another: events are read, learned from, and written.

use std::borrow::Cow;
use std::ops::Range;

use super::framing::{Framing, Parse};
use super::repeat::{self, Repeat};
use super::{Fault, Head, Options, Seen};
use crate::dialect::Dialect;
use crate::error;
use crate::format::{Decoder, Encoder};
use crate::neutral::{Begin, Delta, Event};
use crate::sse::Piece;

#[derive(Debug)]
pub(super) struct Translator {
    caller: Dialect,
    framing: Framing,
    decoder: Decoder,
    encoder: Encoder,
    repeat: Repeat,
    /// Of the event that may be repeated: the choice and the part that it is of.
    of: (u32, u32),
    /// And what is written round its text, and where that stands, once it was wanted.
    round: Option<(Vec<u8>, usize)>,
    /// The end has been written, proper or not.
    over: bool,
}

impl Translator {
    pub(super) fn new(caller: Dialect, provider: Dialect, options: &Options<'_>) -> Option<Translator> {
        Some(Translator {
            caller,
            framing: Framing::new(provider, options.max_event),
            decoder: Decoder::new(provider)?,
            encoder: Encoder::new(caller, Head::new(options))?,
            repeat: Repeat::default(),
            of: (0, 0),
            round: None,
            over: false,
        })
    }

    pub(super) fn push(&mut self, bytes: &[u8], seen: &mut Seen, to: &mut Vec<u8>) {
        let Translator { caller, framing, decoder, encoder, repeat, of, round, over } = self;
        // As nearly always: one event, which ends where the last did, so that it need not be cut.
        if !*over
            && framing.may_skip(bytes)
            && let Some(text) = repeat.text(bytes)
        {
            return repeated(text, *of, round, encoder, seen, to);
        }
        let parse = framing.parser();
        framing.push(bytes, |piece| {
            if *over {
                return;
            }
            let fault = match piece {
                Piece::Whole(event) => match repeat.text(event) {
                    Some(text) => {
                        repeated(text, *of, round, encoder, seen, to);
                        Ok(())
                    }
                    None => translate(parse, event, decoder, encoder, seen, to).map(|alone| {
                        let alone = alone.filter(|_| decoder.repeats());
                        *of = alone.as_ref().map_or((0, 0), |alone| alone.of);
                        *round = None;
                        repeat.learn(event, alone.map(|alone| alone.at));
                    }),
                },
                Piece::Overlong(_) => Err(Fault::Overlong),
                Piece::Broken(why) => Err(Fault::Garbled(why.to_owned())),
            };
            if let Err(fault) = fault {
                fail(*caller, encoder.events(), fault, seen, to);
                *over = true;
            } else if seen.done {
                encoder.end(to);
                *over = true;
            }
        });
    }

    pub(super) fn finish(&mut self, seen: &mut Seen, to: &mut Vec<u8>) {
        // The last event may lack its blank line, and servers the word that says that it was the last.
        if let Some(end) = self.framing.closing() {
            self.push(end, seen, to);
        }
        if !self.over && seen.stop.is_some() {
            self.encoder.end(to);
            self.over = true;
        }
    }

    /// Events that the caller has got, where its dialect counts them.
    pub(super) fn events(&self) -> Option<u64> {
        self.encoder.events()
    }

    pub(super) fn is_over(&self) -> bool {
        self.over
    }
}

/// A piece of text that was all that an event brought.
struct Alone {
    of: (u32, u32),
    /// Where it stands in the event.
    at: Range<usize>,
}

fn translate(
    parse: Parse,
    event: &[u8],
    decoder: &mut Decoder,
    encoder: &mut Encoder,
    seen: &mut Seen,
    to: &mut Vec<u8>,
) -> Result<Option<Alone>, Fault> {
    let frame = parse(event);
    let mut failed = None;
    let (mut alone, mut events) = (None, 0);
    let read = decoder.read(&frame, &mut |part_of_it| {
        events += 1;
        alone = match &part_of_it {
            Event::Delta { choice, part, delta: Delta::Text(Cow::Borrowed(text)) } => {
                repeat::place(event, text.as_bytes()).map(|at| Alone { of: (*choice, *part), at })
            }
            _ => None,
        };
        if let Event::Error { kind, message } = part_of_it {
            failed = Some(Fault::Provider { kind, message: message.into_owned() });
            return;
        }
        learn(&part_of_it, seen);
        encoder.write(part_of_it, to);
    });
    if let Some(fault) = failed {
        return Err(fault);
    }
    read.map_err(|error| Fault::Garbled(error.in_body(&frame.data).to_string()))?;
    Ok(alone.filter(|_| events == 1))
}

/// What [`translate`] makes of an event that is like the last, of another text.
fn repeated(
    text: &str,
    (choice, part): (u32, u32),
    round: &mut Option<(Vec<u8>, usize)>,
    encoder: &mut Encoder,
    seen: &mut Seen,
    to: &mut Vec<u8>,
) {
    if round.is_none() {
        *round = encoder.round_text(choice, part);
    }
    seen.text += text.len() as u64;
    seen.deltas += 1;
    match round {
        Some((round, at)) => {
            let (before, after) = round.split_at(*at);
            to.extend_from_slice(before);
            to.extend_from_slice(text.as_bytes());
            to.extend_from_slice(after);
        }
        None => encoder.write(Event::Delta { choice, part, delta: Delta::Text(text.into()) }, to),
    }
}

/// What an event says of the answer as a whole.
pub(crate) fn learn(event: &Event<'_>, seen: &mut Seen) {
    let mut text = 0;
    match event {
        Event::Delta { delta: Delta::Signature(_), .. } => {}
        Event::Delta { delta, .. } => {
            let (Delta::Text(said)
            | Delta::Refusal(said)
            | Delta::Thought(said)
            | Delta::Arguments(said)
            | Delta::Signature(said)) = delta;
            text = said.len() as u64;
        }
        Event::Begin { what: Begin::Call { name, .. }, .. } => text = name.len() as u64,
        Event::Stop { stop, .. } => seen.stop = Some(*stop),
        Event::Usage { usage, last } => {
            seen.usage = Some(*usage);
            seen.settled = *last;
        }
        Event::Done => seen.done = true,
        Event::Start { .. } | Event::Begin { .. } | Event::End { .. } | Event::Logprobs { .. } => {}
        Event::Error { .. } | Event::Ping => {}
    }
    seen.text += text;
    seen.deltas += u64::from(text > 0);
}

fn fail(caller: Dialect, events: Option<u64>, fault: Fault, seen: &mut Seen, to: &mut Vec<u8>) {
    let (status, kind, message) = match &fault {
        Fault::Provider { kind, message } => (kind.status(), *kind, message.as_str()),
        Fault::Garbled(why) => (502, error::Kind::Upstream, why.as_str()),
        Fault::Overlong => (502, error::Kind::Upstream, "the provider sent an event that is too large to translate"),
        Fault::Cut | Fault::Ended => (502, error::Kind::Upstream, "the stream ended"),
    };
    let message = match &fault {
        Fault::Garbled(_) => format!("the provider sent an event that cannot be understood: {message}"),
        _ => message.to_owned(),
    };
    error::event_after(caller, events, status, kind, &message, to);
    seen.fault.get_or_insert(fault);
}
