//! A stream whose dialect stays the same: its bytes pass untouched, and what they say is picked out of them.
//!
//! No event is parsed for its own sake. A search finds the one field that matters; only what it finds is read.

use super::framing::Framing;
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
}

impl Meter {
    pub(super) fn new(dialect: Dialect, options: &Options<'_>) -> Meter {
        let hide_usage = options.hide_usage && dialect == Dialect::OpenAiChat;
        Meter { dialect, framing: Framing::new(dialect, options.max_event), hide_usage }
    }

    pub(super) fn push(&mut self, bytes: &[u8], seen: &mut Seen, to: &mut Vec<u8>) {
        let Meter { dialect, framing, hide_usage } = self;
        let parse = framing.parser();
        if !*hide_usage {
            to.extend_from_slice(bytes);
        }
        framing.push(bytes, |piece| match piece {
            Piece::Whole(event) => {
                let frame = parse(event);
                watch(*dialect, &frame, seen);
                if *hide_usage && !format::openai_chat::is_usage_only(&frame.data) {
                    to.extend_from_slice(event);
                }
            }
            Piece::Overlong(part) if *hide_usage => to.extend_from_slice(part),
            Piece::Overlong(_) => {}
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

fn watch(dialect: Dialect, frame: &Frame<'_>, seen: &mut Seen) {
    match dialect {
        Dialect::OpenAiChat => format::openai_chat::watch(frame, seen),
        Dialect::OpenAiResponses => format::openai_responses::watch(frame, seen),
        Dialect::Anthropic => format::anthropic::watch(frame, seen),
        Dialect::Gemini => format::gemini::watch(frame, seen),
        // They have no streams.
        Dialect::OpenAiEmbeddings | Dialect::GeminiEmbeddings => {}
        Dialect::Bedrock => format::bedrock::watch(frame, seen),
    }
}
