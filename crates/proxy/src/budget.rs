//! The retry budget: repeats may be a share of the calls, so that a failing upstream is not failed harder.

use std::cell::Cell;

use base::{Percent, Time};

/// Tokens in millionths of a retry; each call brings its share, each retry takes one.
#[derive(Debug)]
pub struct RetryBudget {
    tokens: Cell<u64>,
    refilled: Cell<Time>,
}

const ONE: u64 = 1_000_000;
/// Unused permission is kept for this long.
const SECONDS: u64 = 10;

impl RetryBudget {
    pub fn new(now: Time, min_per_second: u32) -> RetryBudget {
        RetryBudget { tokens: Cell::new(u64::from(min_per_second) * ONE), refilled: Cell::new(now) }
    }

    /// A call was made that is not a repeat.
    pub fn deposit(&self, share: Percent) {
        let most = 1000 * ONE;
        self.tokens.set((self.tokens.get() + (share.fraction() * ONE as f64) as u64).min(most));
    }

    /// True if a repeat may be made; it is then paid for.
    pub fn withdraw(&self, now: Time, min_per_second: u32) -> bool {
        let floor = u64::from(min_per_second) * ONE;
        let elapsed = now.since(self.refilled.get()).as_nanos() as u64 / 1000;
        let refill = elapsed.min(SECONDS * ONE) * u64::from(min_per_second);
        if refill > 0 {
            self.refilled.set(now);
            if self.tokens.get() < floor * SECONDS {
                self.tokens.set((self.tokens.get() + refill).min(floor * SECONDS));
            }
        }
        let Some(left) = self.tokens.get().checked_sub(ONE) else { return false };
        self.tokens.set(left);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_a_share_of_calls_and_a_few_a_second() {
        let at = |millis: u64| Time::from_nanos(1 + millis * 1_000_000);
        let budget = RetryBudget::new(at(0), 2);
        assert_eq!((0..10).filter(|_| budget.withdraw(at(0), 2)).count(), 2);
        (0..100).for_each(|_| budget.deposit(Percent::whole(20)));
        assert_eq!((0..100).filter(|_| budget.withdraw(at(0), 2)).count(), 20);
        assert_eq!((0..10).filter(|_| budget.withdraw(at(1000), 2)).count(), 2);
        let never = RetryBudget::new(at(0), 0);
        assert!(!never.withdraw(at(100_000), 0));
    }
}
