//! The retry budget: repeats may be a share of the calls, so that a failing upstream is not failed harder.
//!
//! It is one for all cores: a share for each would let each core repeat the few a second that always may be, and
//! refuse on one core what another has saved. What calls bring is gathered on each core and handed over by the
//! token, so that most calls touch nothing shared.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use base::{Percent, Time};

/// Tokens in millionths of a retry; each call brings its share, each retry takes one.
#[derive(Debug)]
pub struct RetryBudget {
    tokens: AtomicU64,
    refilled: AtomicU64,
}

/// What one core's calls have brought and not yet handed over: less than a token.
#[derive(Debug, Default)]
pub struct Deposits(Cell<u64>);

const ONE: u64 = 1_000_000;
/// Unused permission is kept for this long.
const SECONDS: u64 = 10;
const MOST: u64 = 1000 * ONE;

impl RetryBudget {
    pub fn new(now: Time, min_per_second: u32) -> RetryBudget {
        RetryBudget { tokens: AtomicU64::new(u64::from(min_per_second) * ONE), refilled: AtomicU64::new(now.nanos()) }
    }

    /// A call was made that is not a repeat.
    pub fn deposit(&self, share: Percent, here: &Deposits) {
        let gathered = here.0.get() + (share.fraction() * ONE as f64) as u64;
        here.0.set(if gathered < ONE {
            gathered
        } else {
            self.add(gathered, MOST);
            0
        });
    }

    fn add(&self, more: u64, most: u64) {
        let tokens = self.tokens.load(Relaxed);
        if tokens < most {
            self.tokens.fetch_add(more.min(most - tokens), Relaxed);
        }
    }

    /// True if a repeat may be made; it is then paid for.
    pub fn withdraw(&self, now: Time, min_per_second: u32) -> bool {
        let floor = u64::from(min_per_second) * ONE * SECONDS;
        let refilled = self.refilled.load(Relaxed);
        let elapsed = now.since(Time::from_nanos(refilled)).as_micros() as u64;
        let refill = elapsed.min(SECONDS * ONE) * u64::from(min_per_second);
        // The core that moves the time on is the one that refills for it.
        if refill > 0 && self.refilled.compare_exchange(refilled, now.nanos(), Relaxed, Relaxed).is_ok() {
            self.add(refill, floor);
        }
        self.tokens.fetch_update(Relaxed, Relaxed, |tokens| tokens.checked_sub(ONE)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_a_share_of_calls_and_a_few_a_second() {
        let at = |millis: u64| Time::from_nanos(1 + millis * 1_000_000);
        let (budget, here) = (RetryBudget::new(at(0), 2), Deposits::default());
        assert_eq!((0..10).filter(|_| budget.withdraw(at(0), 2)).count(), 2);
        (0..100).for_each(|_| budget.deposit(Percent::whole(20), &here));
        assert_eq!((0..100).filter(|_| budget.withdraw(at(0), 2)).count(), 20);
        assert_eq!((0..10).filter(|_| budget.withdraw(at(1000), 2)).count(), 2);
        let never = RetryBudget::new(at(0), 0);
        assert!(!never.withdraw(at(100_000), 0));
    }

    #[test]
    fn all_cores_share_one_budget() {
        let now = Time::from_nanos(1);
        let budget = RetryBudget::new(now, 0);
        let repeats: usize = std::thread::scope(|scope| {
            let cores: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let here = Deposits::default();
                        let pay = |_: &u32| {
                            budget.deposit(Percent::whole(10), &here);
                            budget.withdraw(now, 0)
                        };
                        (0..1000).filter(pay).count()
                    })
                })
                .collect();
            cores.into_iter().map(|core| core.join().unwrap()).sum()
        });
        let left = (0..1000).filter(|_| budget.withdraw(now, 0)).count();
        assert_eq!(repeats + left, 400);
    }
}
