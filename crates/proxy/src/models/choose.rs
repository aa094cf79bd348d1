//! Which candidates may serve a call, and in which order they are tried.

use std::sync::Arc;

use base::{Call, ModelCall, Time};
use config::{Candidate, Choose};
use ledger::Money;
use llm::Operation;
use llm::catalogue::Speaks;
use policy::Scope;
use smallvec::SmallVec;

use super::Place;
use super::books;
use super::understand::Asked;
use super::words::Failure;

/// One to be tried, with the words it will be spoken to in.
pub struct Chosen {
    pub candidate: Arc<Candidate>,
    pub speaks: &'static Speaks,
}

pub type Order = SmallVec<[Chosen; 4]>;

/// Those that may serve the call, the best first. Those that have failed lately come last. There are none only where
/// nobody counts tokens, of which an estimate will do.
pub fn order(place: &Place<'_>, asked: &Asked, call: &Call) -> Result<Order, Failure> {
    let wanted = call.model.as_deref();
    let mut order = Order::new();
    let is_embedding = matches!(asked.target.operation, Operation::Embed | Operation::EmbedOne);
    let mut spoken = false;
    let mut texts = None;
    for candidate in &asked.model.candidates {
        let (row, model) = (candidate.provider.row, candidate.model_for(&asked.rest));
        let Some(speaks) = row.speaks_to(asked.target.dialect, asked.target.operation, &model) else { continue };
        // Some are asked for an answer and not for a count.
        let counts =
            asked.target.operation != Operation::CountTokens || speaks.target(&asked.target, &model, false).is_some();
        if !counts {
            continue;
        }
        if is_embedding && asked.peek.messages > speaks.texts {
            texts = texts.max(Some(speaks.texts));
            continue;
        }
        spoken = true;
        if may(candidate, wanted, call) {
            order.push(Chosen { candidate: candidate.clone(), speaks });
        }
    }
    if order.is_empty() {
        return match (spoken, asked.target.operation) {
            (true, _) => Err(Failure::NothingFits),
            (false, _) if let Some(most) = texts => Err(Failure::TooManyTexts { most, came: asked.peek.messages }),
            (false, Operation::CountTokens) => Ok(order),
            (false, Operation::Embed | Operation::EmbedOne) => Err(Failure::NoVectors),
            (false, _) => Err(Failure::NotSpoken),
        };
    }
    if order.len() > 1 {
        sort(place, asked, wanted, call.now, &mut order);
    }
    Ok(order)
}

fn may(candidate: &Candidate, wanted: Option<&ModelCall>, call: &Call) -> bool {
    let fits = match (candidate.context, wanted) {
        (Some(context), Some(wanted)) => wanted.prompt <= context,
        _ => true,
    };
    // What cannot be decided is not true: a claim that is missing, for one.
    fits && candidate.when.as_ref().is_none_or(|when| when.truth(&Scope::of(call)).unwrap_or(false))
}

fn sort(place: &Place<'_>, asked: &Asked, wanted: Option<&ModelCall>, now: Time, order: &mut Order) {
    let states = &place.local.generation.models;
    match asked.model.choose {
        Choose::Fallback => {}
        Choose::Weighted => shuffle(order, || place.worker.random()),
        Choose::Cheapest => {
            let cost = |it: &Chosen| books::worst_case(&it.candidate, asked).unwrap_or(Money::from_units(i128::MAX));
            order.sort_by_cached_key(cost);
        }
        Choose::Fastest => {
            // What is known of no answer yet is thought to be as long as the longest allowed, within reason.
            let tokens = wanted.map_or(256, |it| it.output.clamp(1, 512));
            order.sort_by_cached_key(|it| states.candidates[it.candidate.index].expected(tokens));
        }
        Choose::LeastLoaded => order.sort_by_cached_key(|it| {
            // The most room first.
            std::cmp::Reverse((states.providers[it.candidate.provider.index].room(now) * 1000.0) as u32)
        }),
    }
    order.sort_by_key(|it| {
        let provider = &states.providers[it.candidate.provider.index];
        states.candidates[it.candidate.index].rests(now) || !provider.can_be_asked(now)
    });
}

/// In an order by chance in which each comes first as often as its weight says.
fn shuffle(order: &mut Order, mut random: impl FnMut() -> u64) {
    for at in 0..order.len() {
        let sum: u64 = order[at..].iter().map(|it| u64::from(it.candidate.weight)).sum();
        if sum == 0 {
            return;
        }
        let mut ticket = random() % sum;
        let taken = order[at..].iter().position(|it| match ticket.checked_sub(u64::from(it.candidate.weight)) {
            Some(left) => {
                ticket = left;
                false
            }
            None => true,
        });
        if let Some(taken) = taken {
            order[at..=at + taken].rotate_right(1);
        }
    }
}
