//! Answers of providers that come whole: counted, translated where need be, and booked.

use std::sync::Arc;

use base::{ResponseHead, Time};
use llm::translate::{self, Answer};
use llm::{Dialect, Malformed, Operation, Target};
use transport::{Body, Response};

use super::Place;
use super::books::Account;
use super::choose::Chosen;
use super::keep::Note;
use super::send::{Tried, read};
use super::state::CandidateState;
use super::understand::Asked;
use super::words::{self, Failure};
use crate::deadline;

/// A success, and the tokens of the prompt where its head tells them.
#[allow(clippy::too_many_arguments)]
pub async fn whole(
    place: &Place<'_>,
    asked: &Asked,
    chosen: &Chosen,
    mut head: ResponseHead,
    mut body: Body,
    tokens: Option<u64>,
    account: Account,
    state: &Arc<CandidateState>,
    began: Time,
    note: Note,
) -> Tried {
    let (caller, spoken) = (asked.target.dialect, chosen.speaks.dialect);
    let counting = asked.target.operation == Operation::CountTokens;
    let timers = &place.worker.timers;
    let (began_reading, idle) = (std::cell::Cell::new(Time::now()), chosen.candidate.forward.timeouts.idle);
    let read = deadline::answer(timers, read(&mut body, place.llm.answer), &began_reading, idle, None);
    let bytes = match read.await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(failure)) => return Tried::Failed { failure, account: account.garbled() },
        Err(_) => {
            let failure = Failure::Upstream(crate::refusal::Refusal::Timeout);
            return Tried::Failed { failure, account: account.garbled() };
        }
    };
    let came = bytes.clone();
    let understood = match caller == spoken {
        // What answers nothing goes on as it came all the same: the caller knows its provider's words.
        true => translate::glance(spoken, &came).map(|seen| (bytes, seen.usage, seen.answers || counting)),
        false => {
            translated(place, asked, spoken, &bytes, tokens).map(|answer| (answer.body.into(), answer.usage, true))
        }
    };
    let (bytes, usage, answers) = match understood {
        Ok(understood) => understood,
        Err(malformed) => {
            tracing::debug!(provider = %chosen.candidate.provider.name, %malformed, "an answer cannot be understood");
            state.failed(Time::now());
            return Tried::Failed { failure: Failure::Garbled, account: account.garbled() };
        }
    };
    // Whatever the provider called it.
    if !head.headers.media_type().is_some_and(|kind| kind.eq_ignore_ascii_case("application/json")) {
        head.headers.set("content-type", "application/json");
    }
    let ended = Time::now();
    let booked = match answers {
        true => {
            state.answered(ended.since(began), 1, std::time::Duration::ZERO);
            account.answered(usage, bytes.len(), ended)
        }
        false => account.answered_nothing(usage),
    };
    if let Some(booked) = booked {
        booked.await;
    }
    if let Some(keep) = asked.keep.take() {
        let mut status = keep.status(head.status);
        if let Some(for_others) = keep.for_others {
            status.stored = for_others.whole(note, &came);
        }
        status.write(&mut head.headers);
    }
    Tried::Served(Response::new(head, Body::from(bytes)))
}

/// A success in the caller's words.
fn translated(
    place: &Place<'_>,
    asked: &Asked,
    spoken: Dialect,
    bytes: &[u8],
    tokens: Option<u64>,
) -> Result<Answer, Malformed> {
    let Target { dialect: caller, operation, .. } = asked.target;
    if operation == Operation::CountTokens {
        let body = llm::count::write(caller, llm::count::read(spoken, bytes)?);
        return Ok(Answer { body, usage: None, stop: None, lost: Vec::new() });
    }
    let (id, now) = place.named();
    let options = translate::Options {
        model: &asked.name,
        id: &id,
        now,
        one: operation == Operation::EmbedOne,
        packed: asked.peek.packed,
        tokens,
        ..translate::Options::default()
    };
    translate::answer(caller, spoken, bytes, &options)
}

/// An answer that is no success, in the caller's words.
pub async fn refused(asked: &Asked, chosen: &Chosen, response: Response, most: usize) -> Failure {
    let Response { head, mut body, .. } = response;
    let status = head.status.as_u16();
    let retry_after = words::retry_after(&head.headers);
    // What cannot be read says as much as what cannot be understood.
    let bytes = read(&mut body, most.min(1 << 20)).await.unwrap_or_default();
    let failure = translate::error(asked.target.dialect, chosen.speaks.dialect, status, &bytes);
    Failure::Answered { status, body: failure.body, retry_after }
}
