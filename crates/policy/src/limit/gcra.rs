//! The generic cell rate algorithm by virtual scheduling, in integers.
//!
//! All there is to know of a key is one number, the theoretical arrival time: how far it is ahead of
//! now is how much the key owes. Zero owes nothing at any time.

use base::Rate;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gcra {
    /// Nanoseconds that one unit takes to come back.
    interval: u64,
    /// What one call owes.
    cost: u64,
    /// The most that may be owed.
    tolerance: u64,
}

/// What taking did: the debt's end before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) before: u64,
    pub(super) after: u64,
}

/// Refused; nanoseconds until it would not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wait(pub(super) u64);

/// What is left to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    pub(super) units: u64,
    /// Seconds until all of it is there again, rounded up.
    pub(super) full_in: u64,
}

impl Gcra {
    /// `None` if the numbers are beyond all use: more than a century to come back.
    pub(super) fn new(rate: Rate, burst: u64, weight: u64) -> Option<Gcra> {
        // Rounded up: never more than was allowed.
        let interval = u64::try_from(rate.per.as_nanos().div_ceil(u128::from(rate.amount))).ok()?.max(1);
        let cost = interval.checked_mul(weight)?;
        let tolerance = interval.checked_mul(burst).filter(|tolerance| *tolerance <= CENTURY)?;
        Some(Gcra { interval, cost, tolerance })
    }

    pub(super) fn take(self, arrival: u64, now: u64) -> Result<Taken, Wait> {
        let before = arrival.max(now);
        // Where the clock ends nothing is admitted, rather than everything.
        let after = before.checked_add(self.cost).ok_or(Wait(self.cost))?;
        match (after - now).checked_sub(self.tolerance) {
            None | Some(0) => Ok(Taken { before, after }),
            Some(over) => Err(Wait(over)),
        }
    }

    /// The debt's end without what `taken` had added to it; never before where it was then.
    pub(super) fn give_back(self, arrival: u64, taken: Taken) -> u64 {
        match arrival.checked_sub(self.cost) {
            Some(less) if arrival > taken.before => less.max(taken.before),
            // Forgotten in between: it owes nothing that could be given back.
            _ => arrival,
        }
    }

    pub(super) fn left(self, arrival: u64, now: u64) -> Left {
        let debt = arrival.saturating_sub(now);
        Left { units: self.tolerance.saturating_sub(debt) / self.interval, full_in: debt.div_ceil(SECOND) }
    }

    /// Seconds in which all of the burst comes back, rounded up; `None` if that is no whole second.
    pub(super) fn window(self) -> Option<u64> {
        (self.tolerance >= SECOND).then(|| self.tolerance.div_ceil(SECOND))
    }
}

const SECOND: u64 = 1_000_000_000;
const CENTURY: u64 = 100 * 366 * 86_400 * SECOND;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn gcra(rate: &str, burst: u64, weight: u64) -> Gcra {
        Gcra::new(rate.parse().unwrap(), burst, weight).unwrap()
    }

    #[test]
    fn takes_its_burst_and_then_its_rate() {
        let gcra = gcra("10/s", 3, 1);
        for start in [0, 1, SECOND, u64::MAX / 2] {
            let mut arrival = 0;
            for (millis, admitted) in
                [(0, true), (0, true), (0, true), (0, false), (99, false), (100, true), (100, false), (1000, true)]
            {
                let now = start + millis * 1_000_000;
                let taken = gcra.take(arrival, now);
                assert_eq!(taken.is_ok(), admitted, "{start} {millis}");
                arrival = taken.map_or(arrival, |taken| taken.after);
            }
        }
    }

    #[test]
    fn waiting_as_told_is_enough_and_needed() {
        let gcra = gcra("10/s", 1, 1);
        let taken = gcra.take(0, 5).unwrap();
        let Wait(wait) = gcra.take(taken.after, 7).unwrap_err();
        assert!(gcra.take(taken.after, 7 + wait - 1).is_err());
        assert!(gcra.take(taken.after, 7 + wait).is_ok());
    }

    #[test]
    fn the_end_of_the_clock_admits_nothing_and_breaks_nothing() {
        let gcra = gcra("1/s", 2, 1);
        for now in [u64::MAX, u64::MAX - 1, u64::MAX - SECOND + 1] {
            assert!(gcra.take(0, now).is_err());
            assert!(gcra.take(u64::MAX, now).is_err());
            gcra.left(u64::MAX, now);
            gcra.left(0, now);
        }
        assert!(Gcra::new("1/1000d".parse().unwrap(), u64::MAX, 1).is_none());
        assert!(Gcra::new(Rate { amount: u64::MAX, per: std::time::Duration::from_nanos(1) }, 1, 1).is_some());
    }

    #[test]
    fn left_and_window_are_in_units_and_seconds() {
        let gcra = gcra("100/s", 200, 1);
        assert_eq!(gcra.window(), Some(2));
        assert_eq!(gcra.left(0, 7), Left { units: 200, full_in: 0 });
        assert_eq!(gcra.left(7 + SECOND, 7), Left { units: 100, full_in: 1 });
        assert_eq!(gcra.left(7 + SECOND + 1, 7), Left { units: 99, full_in: 2 });
        assert_eq!(Gcra::new("1/ms".parse().unwrap(), 1, 1).and_then(Gcra::window), None);
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate_over_any_window(
            start in prop_oneof![Just(0), Just(1), 0..u64::MAX / 2],
            amount in 1..2000u64,
            burst in 1..50u64,
            weight in 1..5u64,
            gaps in proptest::collection::vec((0..3_000_000u64, any::<bool>()), 1..80),
        ) {
            let burst = burst.max(weight);
            let gcra = gcra(&format!("{amount}/s"), burst, weight);
            let (mut now, mut arrival) = (start, 0);
            let mut admitted: Vec<u64> = Vec::new();
            for (gap, refund) in gaps {
                now += gap;
                let Ok(taken) = gcra.take(arrival, now) else { continue };
                arrival = taken.after;
                if refund {
                    arrival = gcra.give_back(arrival, taken);
                } else {
                    admitted.push(now);
                }
            }
            for (first, from) in admitted.iter().enumerate() {
                for (last, to) in admitted.iter().enumerate().skip(first) {
                    let units = (last - first + 1) as u128 * u128::from(weight);
                    let allowed = u128::from(burst) * u128::from(SECOND) + u128::from(amount) * u128::from(to - from);
                    prop_assert!(units * u128::from(SECOND) <= allowed, "{units} units in {} ns", to - from);
                }
            }
        }

        #[test]
        fn what_is_given_back_leaves_no_trace(
            amount in 1..2000u64, arrival in 0..2 * SECOND, now in 0..2 * SECOND, other in any::<bool>(),
        ) {
            let gcra = gcra(&format!("{amount}/s"), 100, 1);
            let Ok(taken) = gcra.take(arrival, now) else { return Ok(()) };
            let between = if other { gcra.take(taken.after, now).map_or(taken.after, |it| it.after) } else { taken.after };
            let after = gcra.give_back(between, taken);
            prop_assert_eq!(after - arrival.max(now), between - taken.after);
        }
    }
}
