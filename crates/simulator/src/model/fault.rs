//! What the words make of an answer.

use http::StatusCode;

use crate::model::ask::Form;
use crate::model::frames;
use crate::model::piece::{ID, Piece};
use crate::model::play::{Plan, Then};
use crate::model::script::Usage;
use crate::model::target::Target;
use crate::model::vendor::{Vendor, error};
use crate::model::words::Words;

pub(crate) fn plan(
    target: &Target,
    words: &Words,
    (model, form): (String, Form),
    mut pieces: Vec<Piece>,
    usage: Usage,
) -> Plan {
    let stream = form != Form::Whole;
    let mut then = Then::End;
    if words.undone {
        pieces.retain(|piece| !piece.end);
    }
    if stream {
        let upto = |pieces: &mut Vec<Piece>, after: usize| {
            let next = pieces.get(after).cloned();
            pieces.truncate(after);
            next
        };
        if let Some(after) = words.cut {
            upto(&mut pieces, after);
            then = Then::Cut;
        } else if let Some(after) = words.hang {
            upto(&mut pieces, after);
            then = Then::Hang;
        } else if let Some(after) = words.half {
            let next = upto(&mut pieces, after);
            pieces.extend(next.map(|next| next.half()));
        } else if let Some(after) = words.error {
            upto(&mut pieces, after);
            pieces.push(failing(target.vendor));
        } else if let Some(after) = words.garbage {
            let rubbish = match target.vendor {
                Vendor::Bedrock => Piece::new(&b"\0\0\0\x20\0\0\0\x10no such frame as this here"[..]),
                _ => Piece::new("data: {\"choices\": [{\"delta\": {\n\n"),
            };
            pieces.insert(after.min(pieces.len()), rubbish);
        }
    } else if words.cut.is_some() || words.half.is_some() || words.garbage.is_some() {
        // All of it was made, and what has gone out is half of it.
        let whole = pieces.remove(0);
        pieces.push(whole.half().tokens(whole.tokens as usize));
        if words.cut.is_some() {
            then = Then::Cut;
        }
    } else if words.hang.is_some() {
        then = Then::Hang;
    }
    let content_type = match (form, target.vendor) {
        (Form::Events, Vendor::Bedrock) => "application/vnd.amazon.eventstream",
        (Form::Events, _) => "text/event-stream; charset=utf-8",
        _ => "application/json",
    };
    let mut plan = Plan {
        pieces,
        then,
        stream,
        content_type,
        first: words.first.or(words.every).unwrap_or_default(),
        every: words.every.unwrap_or_default(),
        usage,
        model,
        tag: words.tag.clone(),
        remaining_tokens: words.remaining_tokens,
        remaining_requests: words.remaining_requests,
    };
    if words.html {
        plan.pieces = vec![Piece::new("<html><body><h1>502 Bad Gateway</h1></body></html>\n")];
        plan.content_type = "text/html; charset=utf-8";
        plan.usage = Usage::default();
    }
    plan
}

/// An error where an event was to be.
fn failing(vendor: Vendor) -> Piece {
    let status = StatusCode::from_u16(529).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let body = error(vendor, status, "Overloaded", (None, None), ID);
    match vendor {
        Vendor::Anthropic => Piece::event(Some("error"), &body),
        Vendor::OpenAi | Vendor::Gemini => Piece::event(None, &body),
        Vendor::Bedrock => Piece::new(frames::exception("serviceUnavailableException", &body)),
    }
}
