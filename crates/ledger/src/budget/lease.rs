//! Budgets that several nodes share, by leases: a node spends only what it was lent, so that all of them together never
//! spend more than there is, whatever becomes of the store that lends.
//!
//! In a shared account everything is unlent at first. What the store lends becomes free, is reserved and spent like any
//! other; what a node does not need it gives back. If a node is killed, what it was lent and had not spent stays lent until
//! the period is over: less is spent then, never more. While the store is away a node goes on with what it has.
//!
//! The store may forget nothing it has answered: Valkey or Redis with `appendonly yes` and `appendfsync always`. If a node
//! finds that it did, nothing more is lent of that account in that period.

use std::sync::Arc;

use super::accounts::Key;
use super::amount::Used;
use super::books::{Books, Caller};
use super::hold::{Exhausted, Hold, Why};
use super::period::Moment;

/// What a store does to lend: one atomic step on one hash.
///
/// Key: the account and its period, see [`Want::key`]. Arguments: the node, which is another one whenever it starts; a number
/// for the request (the same when it is asked again since the answer was lost, and else always greater); `limit`, `held`,
/// `before`, `least`, `wish`, seconds until the key may be forgotten. Answers how much is lent, or 0; and how much is left.
pub const LEND: &str = include_str!("lend.lua");

/// The other way: the node, a number for the request, how much it gives back.
pub const GIVE_BACK: &str = include_str!("give_back.lua");

/// Lends to nodes what they may spend.
pub trait Lender {
    /// Lends `least` or more; or nothing, if there is less. It is free by [`Books::lend`] before anybody is told: one question
    /// may be for many who wait.
    fn lend(&self, want: &Want) -> impl Future<Output = Result<u64, Away>>;
}

/// The store does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Away;

/// What a node needs to be lent. Numbers are such that a store may count them in floats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// Who lends.
    pub store: Arc<str>,
    pub budget: Arc<str>,
    pub(super) whose: Key,
    /// When the period began, in seconds since 1970.
    pub start: u64,
    pub renews: Option<Moment>,
    pub limit: u64,
    /// What this node was lent and has not given back.
    pub held: u64,
    /// What it had spent before it started.
    pub before: u64,
    pub least: u64,
    pub wish: u64,
    pub(super) grain: u64,
}

impl Want {
    /// The arguments of [`LEND`] behind the node and the number of the request, where it is so late.
    pub fn arguments(&self, now: Moment) -> [u64; 6] {
        let Want { limit, held, before, least, wish, .. } = *self;
        // Clocks differ; a key that stays longer than it is of use does no harm.
        let keep = self.renews.map_or(0, |at| now.until(at).as_secs() + KEEP);
        [limit, held, before, least, wish, keep]
    }

    /// Of the same account: enough for either of the two at least, and for both if there is so much.
    pub fn and(self, other: &Want) -> Want {
        Want { least: self.least.min(other.least), wish: self.wish + other.least, ..self }
    }

    /// The account and the period, as a store may name it.
    pub fn key(&self) -> String {
        format!("weir:budget:{}:{}:{}", self.budget, self.whose, self.start)
    }
}

impl Books {
    /// As [`reserve`](Books::reserve), of budgets that are shared: what is not lent yet is borrowed first.
    pub async fn reserve_shared(
        &self,
        lender: &impl Lender,
        caller: &Caller<'_>,
        worst: &Used,
        now: Moment,
    ) -> Result<Hold, Box<Exhausted>> {
        let result = self.borrow_and_reserve(lender, caller, worst, now).await;
        result.inspect_err(|exhausted| self.refused(exhausted))
    }

    async fn borrow_and_reserve(
        &self,
        lender: &impl Lender,
        caller: &Caller<'_>,
        worst: &Used,
        now: Moment,
    ) -> Result<Hold, Box<Exhausted>> {
        // Each turn borrows for one budget. Others may take what was lent meanwhile, but not for ever.
        for _ in 0..TURNS {
            let mut exhausted = match self.reserve_while(caller, worst, now, None) {
                Err(exhausted) if exhausted.why == Why::Unlent => exhausted,
                other => return other,
            };
            let Some(want) = exhausted.want.take() else { return Err(exhausted) };
            match lender.lend(&want).await {
                Ok(0) => {
                    exhausted.why = Why::Spent;
                    return Err(exhausted);
                }
                Ok(_) => {}
                Err(away) => {
                    return self.reserve_while(caller, worst, now, Some(away)).map_err(|mut exhausted| {
                        if exhausted.why == Why::Unlent {
                            exhausted.why = Why::Away;
                        }
                        exhausted
                    });
                }
            }
        }
        self.reserve_while(caller, worst, now, None)
    }
}

const TURNS: u32 = 32;
/// Seconds for which a key is kept when its period is over.
const KEEP: u64 = 86_400;
/// A node asks for such a part of a budget at a time, if it needs no more: so often it has to ask, and so much may lie about
/// on nodes that do not need it.
pub(super) const PART: u64 = 64;

/// Of what a store counts one: a power of two, so large that all of `limit` is less than 2^50 of it.
pub(super) fn grain(limit: u64) -> u64 {
    (limit >> 50).max(1).next_power_of_two()
}
