//! Calls to models: the stages between the policies and the answer.
//!
//! understand → policies once more → already known → reserve → one candidate after another → stream or whole answer →
//! settle.
//!
//! A candidate is left for the next one as long as nothing of its answer has reached the caller. What goes wrong after
//! that ends the stream with an error in the caller's own words. Wherever it ends, the books are settled ([`books`]).

mod answer;
mod books;
mod choose;
mod count;
mod keep;
mod known;
mod list;
mod near;
mod replay;
mod send;
mod state;
mod stream;
mod understand;
mod words;

use std::rc::Rc;
use std::time::SystemTime;

use base::Call;
use config::router::Found;
use config::{Llm, Route};
use llm::{Operation, Target};
use transport::{Body, Response};

pub use state::{States, figures};
pub use words::in_dialect;

use crate::path::Halt;
use crate::trip::Trip;
use crate::worker::{Local, LocalListener, Worker};
use books::Account;
use known::Known;
use send::Tried;
use understand::Asked;
use words::Failure;

/// Where a call to a model is served.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub worker: &'a Rc<Worker>,
    pub local: &'a Rc<Local>,
    pub listener: &'a Rc<LocalListener>,
    pub route: &'a Route,
    pub llm: &'a Llm,
    pub found: &'a Found,
}

impl Place<'_> {
    /// An id for an answer whose provider gives none, and when it is given: seconds since 1970.
    fn named(&self) -> (String, u64) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |it| it.as_secs());
        (format!("weir-{:016x}", self.worker.random()), now)
    }
}

/// Serves a call to an api of kind `llm`, once the policies have let it pass.
pub async fn serve(
    place: Place<'_>,
    target: &Target,
    call: &mut Call,
    body: &mut Body,
    trip: &mut Trip,
) -> Result<Response, Halt> {
    if target.operation == Operation::Models {
        return list::answer(place.llm, target).map_err(|failure| failure.halt(target.dialect, trip));
    }
    let asked = understand::understand(place.llm, target, call, body).await;
    let asked = asked.map_err(|failure| failure.halt(target.dialect, trip))?;
    trip.understood(call).await?;
    let served = walk(place, asked, call, trip).await;
    served.map_err(|failure| failure.halt(target.dialect, trip))
}

async fn walk(place: Place<'_>, asked: Asked, call: &mut Call, trip: &mut Trip) -> Result<Response, Failure> {
    if let Some(cache) = &place.route.policies.answer_cache {
        match Box::pin(known::look(&place, cache, &asked, call, trip)).await? {
            Known::Given(response) => return Ok(response),
            Known::Ask(keep) => asked.keep.set(Some(keep)),
        }
    }
    let asking = ask(place, &asked, call, trip).await;
    if let (Err(_), Some(keep)) = (&asking, asked.keep.take()) {
        keep.give_up();
    }
    asking
}

/// A provider's answer.
async fn ask(place: Place<'_>, asked: &Asked, call: &mut Call, trip: &mut Trip) -> Result<Response, Failure> {
    let candidates = choose::order(&place, asked, call)?;
    if candidates.is_empty() {
        return Ok(count::estimated(asked, call));
    }
    let mut account = Account::open(&place, asked, &candidates, call, trip).await?;
    let mut last = None;
    for (at, candidate) in candidates.iter().enumerate() {
        let last_resort = at + 1 == candidates.len();
        match send::try_candidate(&place, asked, candidate, last_resort, call, trip, account).await {
            Tried::Served(response) => return Ok(response),
            Tried::Failed { failure, account: left } => {
                account = left;
                // Another would say the same.
                let is_the_callers = failure.is_the_callers();
                last = Some(failure);
                if is_the_callers {
                    break;
                }
            }
        }
    }
    if let Some(booked) = account.close() {
        booked.await;
    }
    // Where nobody counts, an estimate will do.
    if matches!(last, Some(Failure::Uncounted)) {
        return Ok(count::estimated(asked, call));
    }
    Err(last.unwrap_or(Failure::NoCandidate))
}
