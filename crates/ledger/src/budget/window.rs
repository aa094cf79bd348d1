//! One period of one account: what was taken of it, and what of that is spent.
//!
//! A hold keeps the window it was taken from and settles against that one, whatever period it is by then: nothing has to
//! be carried over, and nothing can be counted twice. What cores share is two numbers; they agree by compare-and-swap.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64};

use super::accounts::Key;

#[derive(Debug)]
pub(super) struct Window {
    /// Whose it is.
    pub(super) key: Key,
    /// When the period began, in seconds since 1970.
    pub(super) start: u64,
    /// Spent, reserved and unlent, and two bits above, `OVER` and `GONE`.
    used: AtomicU64,
    /// Settled. Never more than is used: what is settled comes off `used` before it is added here.
    spent: AtomicU64,
    /// Of a shared budget: what this node was not lent. What is used may for a moment be more than this and what is spent
    /// and reserved, never less.
    unlent: AtomicU64,
    /// What it was, and has not given back.
    lent: AtomicU64,
    /// What was spent before the process began.
    restored: AtomicU64,
    /// Somebody has asked for more to be lent.
    asked: AtomicBool,
    /// What was used when it was last seen whether it rests.
    seen: AtomicU64,
}

/// Why nothing could be taken from a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// There is only so much left.
    Short { left: u64 },
    /// Another window has taken its place: look again.
    Over,
    /// Its account was forgotten: look for the account again.
    Gone,
}

/// The next period has begun; what is still reserved here will settle here.
const OVER: u64 = 1 << 62;
/// Nobody will ever find this window again.
const GONE: u64 = 1 << 63;
const COUNT: u64 = OVER - 1;

impl Window {
    /// Of which so much is not lent; nothing, if the budget is not shared.
    pub(super) fn new(key: Key, start: u64, unlent: u64) -> Window {
        Window {
            key,
            start,
            used: unlent.into(),
            spent: 0.into(),
            unlent: unlent.into(),
            lent: 0.into(),
            restored: 0.into(),
            asked: false.into(),
            seen: unlent.into(),
        }
    }

    /// Takes so much if it leaves no more than `limit` used; without a limit always.
    pub(super) fn take(&self, amount: u64, limit: Option<u64>) -> Result<(), Refused> {
        let mut seen = self.used.load(SeqCst);
        loop {
            if seen & GONE != 0 {
                return Err(Refused::Gone);
            }
            if seen & OVER != 0 {
                return Err(Refused::Over);
            }
            let after = seen.saturating_add(amount).min(COUNT);
            if let Some(limit) = limit.filter(|limit| after > *limit) {
                return Err(Refused::Short { left: limit.saturating_sub(seen) });
            }
            match self.used.compare_exchange_weak(seen, after, SeqCst, SeqCst) {
                Ok(_) => return Ok(()),
                Err(now) => seen = now,
            }
        }
    }

    /// Exchanges what was taken for what was spent. Says how much is spent, before and after.
    pub(super) fn settle(&self, taken: u64, spent: u64) -> (u64, u64) {
        let change = |used: u64| {
            let count = (used & COUNT).saturating_sub(taken).saturating_add(spent).min(COUNT);
            Some((used & !COUNT) | count)
        };
        let _ = self.used.fetch_update(SeqCst, SeqCst, change);
        let before = self.spent.fetch_update(SeqCst, SeqCst, |before| Some(before.saturating_add(spent).min(COUNT)));
        let before = before.unwrap_or_default();
        (before, before.saturating_add(spent).min(COUNT))
    }

    /// Counts what was spent before the process began. Of a shared budget it had been lent to another process.
    pub(super) fn restore(&self, spent: u64) {
        self.restored.fetch_add(spent, SeqCst);
        let had = self.unlent.fetch_update(SeqCst, SeqCst, |unlent| Some(unlent.saturating_sub(spent)));
        self.settle(had.unwrap_or_default().min(spent), spent);
    }

    /// What is lent is free to be taken.
    pub(super) fn lend(&self, amount: u64) {
        self.lent.fetch_add(amount, SeqCst);
        self.asked();
        let had = self.unlent.fetch_update(SeqCst, SeqCst, |unlent| Some(unlent.saturating_sub(amount)));
        let amount = had.unwrap_or_default().min(amount);
        let _ = self
            .used
            .fetch_update(SeqCst, SeqCst, |used| Some((used & !COUNT) | (used & COUNT).saturating_sub(amount)));
    }

    /// True for one of those who find that more should be lent.
    pub(super) fn asks(&self) -> bool {
        !self.asked.load(Relaxed) && !self.asked.swap(true, SeqCst)
    }

    pub(super) fn asked(&self) {
        self.asked.store(false, SeqCst);
    }

    /// Nothing has been taken or settled since this was asked last, and nothing is reserved.
    pub(super) fn rests(&self) -> bool {
        let used = self.used();
        let before = self.seen.swap(used, SeqCst);
        used == before && used == self.spent().saturating_add(self.unlent())
    }

    /// Takes back so much of what is free, in multiples of `grain`; says how much that was.
    pub(super) fn give_back(&self, amount: u64, limit: u64, grain: u64) -> u64 {
        let free = amount.min(self.lent()) / grain * grain;
        if free == 0 || self.take(free, Some(limit)).is_err() {
            return 0;
        }
        self.unlent.fetch_add(free, SeqCst);
        self.lent.fetch_sub(free, SeqCst);
        free
    }

    pub(super) fn lent(&self) -> u64 {
        self.lent.load(SeqCst)
    }

    pub(super) fn restored(&self) -> u64 {
        self.restored.load(SeqCst)
    }

    pub(super) fn unlent(&self) -> u64 {
        self.unlent.load(SeqCst)
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(SeqCst) & COUNT
    }

    pub(super) fn spent(&self) -> u64 {
        self.spent.load(SeqCst)
    }

    /// What is spent, and what is reserved, for those who look on: while calls settle it may be a moment old.
    pub(super) fn taken(&self) -> (u64, u64) {
        let (unlent, spent) = (self.unlent(), self.spent());
        (spent, self.used().saturating_sub(spent).saturating_sub(unlent))
    }

    /// So that only one of those who find the period over and those who forget the account gets its way. False if it is
    /// gone.
    pub(super) fn end(&self) -> bool {
        self.used.fetch_or(OVER, SeqCst) & GONE == 0
    }

    /// Forgets it, unless something is reserved, or the next window has taken its place.
    pub(super) fn forget(&self) -> bool {
        // In this order: `spent` only grows, and is never more than `used`. If the two are equal now, nothing was
        // reserved when `used` was read, and the exchange fails if anything was since.
        let unlent = self.unlent.load(SeqCst);
        let spent = self.spent.load(SeqCst);
        let used = self.used.load(SeqCst);
        used == spent + unlent && self.used.compare_exchange(used, used | GONE, SeqCst, SeqCst).is_ok()
    }
}
