//! A stream whose dialect stays the same: its bytes pass untouched, and what they say is picked out of them.
//!
//! No event is parsed for its own sake. A search finds the one field that matters; only what it finds is read.

use super::framing::Framing;
use super::repeat::{self, Repeat};
use super::{Fault, Options, Seen};
use crate::dialect::Dialect;
use crate::format;
use crate::json;
use crate::sse::{Frame, Piece};

#[derive(Debug)]
pub(super) struct Meter {
    dialect: Dialect,
    framing: Framing,
    hide_usage: bool,
    repeat: Repeat,
}

impl Meter {
    pub(super) fn new(dialect: Dialect, options: &Options<'_>) -> Meter {
        let hide_usage = options.hide_usage && dialect == Dialect::OpenAiChat;
        let framing = Framing::new(dialect, options.max_event);
        Meter { dialect, framing, hide_usage, repeat: Repeat::default() }
    }

    /// Whether all bytes pass as they are.
    pub(super) fn passes(&self) -> bool {
        !self.hide_usage
    }

    /// Looks at bytes that pass as they are; false if something may have to be kept from the caller.
    pub(super) fn watch(&mut self, bytes: &[u8], seen: &mut Seen) -> bool {
        let Meter { dialect, framing, hide_usage, repeat } = self;
        // As nearly always: one event, which ends where the last did, so that it need not be cut.
        if framing.may_skip(bytes) && repeated(repeat, bytes, seen) {
            return true;
        }
        if *hide_usage {
            return false;
        }
        let parse = framing.parser();
        framing.push(bytes, |piece| match piece {
            Piece::Whole(event) => {
                if !repeated(repeat, event, seen) {
                    let frame = parse(event);
                    let text = watch(*dialect, &frame, seen);
                    repeat.learn(event, text.and_then(|text| repeat::place(event, text.as_bytes())));
                }
            }
            Piece::Overlong(_) => {}
            Piece::Broken(why) => seen.fault = Some(Fault::Garbled(why.to_owned())),
        });
        true
    }

    pub(super) fn push(&mut self, bytes: &[u8], seen: &mut Seen, to: &mut Vec<u8>) {
        if self.watch(bytes, seen) {
            to.extend_from_slice(bytes);
            return;
        }
        let Meter { dialect, framing, repeat, .. } = self;
        let parse = framing.parser();
        framing.push(bytes, |piece| match piece {
            // Only what brings text is repeated, and that passes.
            Piece::Whole(event) if repeated(repeat, event, seen) => to.extend_from_slice(event),
            Piece::Whole(event) => {
                let frame = parse(event);
                let text = watch(*dialect, &frame, seen);
                let passes = !format::openai_chat::is_usage_only(&frame.data);
                let text = text.filter(|_| passes).and_then(|text| repeat::place(event, text.as_bytes()));
                repeat.learn(event, text);
                if passes {
                    to.extend_from_slice(event);
                }
            }
            Piece::Overlong(part) => to.extend_from_slice(part),
            Piece::Broken(why) => seen.fault = Some(Fault::Garbled(why.to_owned())),
        });
    }

    pub(super) fn finish(&mut self, seen: &mut Seen, to: &mut Vec<u8>) {
        let rest = self.framing.rest();
        if rest.is_empty() {
            return;
        }
        // The last event may lack its blank line. One that was cut in the middle has brought nobody anything.
        let frame = self.framing.parser()(rest);
        if &*frame.data == b"[DONE]" || json::check(&frame.data).is_ok() {
            watch(self.dialect, &frame, seen);
        }
        if self.hide_usage {
            to.extend_from_slice(rest);
        }
    }

    pub(super) fn closing(&self) -> Option<&'static [u8]> {
        self.framing.closing()
    }
}

/// An event that is like the last, of another text; what else the last one said has been learned of it.
fn repeated(repeat: &Repeat, event: &[u8], seen: &mut Seen) -> bool {
    let Some(text) = repeat.text(event) else { return false };
    seen.text += text.len() as u64;
    seen.deltas += 1;
    true
}

/// Gives the text that an event brings, where the dialect's next event may be like it.
fn watch<'f>(dialect: Dialect, frame: &'f Frame<'_>, seen: &mut Seen) -> Option<&'f str> {
    match dialect {
        Dialect::OpenAiChat => return format::openai_chat::watch(frame, seen),
        Dialect::Anthropic => return format::anthropic::watch(frame, seen),
        Dialect::OpenAiResponses => format::openai_responses::watch(frame, seen),
        Dialect::Gemini => format::gemini::watch(frame, seen),
        // They have no streams.
        Dialect::OpenAiEmbeddings | Dialect::GeminiEmbeddings | Dialect::BedrockTitan | Dialect::BedrockCohere => {}
        Dialect::Bedrock => format::bedrock::watch(frame, seen),
    }
    None
}
