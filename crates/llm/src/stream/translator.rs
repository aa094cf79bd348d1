//! A stream of one dialect becomes a stream of another: events are read, learned from, and written.

use super::framing::{Framing, Parse};
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
            over: false,
        })
    }

    pub(super) fn push(&mut self, bytes: &[u8], seen: &mut Seen, to: &mut Vec<u8>) {
        let Translator { caller, framing, decoder, encoder, over } = self;
        let parse = framing.parser();
        framing.push(bytes, |piece| {
            if *over {
                return;
            }
            let fault = match piece {
                Piece::Whole(event) => translate(parse, event, decoder, encoder, seen, to),
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

fn translate(
    parse: Parse,
    event: &[u8],
    decoder: &mut Decoder,
    encoder: &mut Encoder,
    seen: &mut Seen,
    to: &mut Vec<u8>,
) -> Result<(), Fault> {
    let frame = parse(event);
    let mut failed = None;
    let read = decoder.read(&frame, &mut |event| {
        if let Event::Error { kind, message } = event {
            failed = Some(Fault::Provider { kind, message: message.into_owned() });
            return;
        }
        learn(&event, seen);
        encoder.write(event, to);
    });
    if let Some(fault) = failed {
        return Err(fault);
    }
    read.map_err(|error| Fault::Garbled(error.in_body(&frame.data).to_string()))
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
