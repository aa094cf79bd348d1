//! The generic cell rate algorithm by virtual scheduling, in integers.
//!
//! All there is to know of a key is one number, the theoretical arrival time: how far it is ahead of
//! now is how much the key owes. Zero owes nothing at any time.
//!
//! What a call owes may be an estimate, and is then corrected when it is known. So a key may come to owe more than is
//! let through at once; those who come after wait for that too.

use base::Rate;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gcra {
    /// Nanoseconds in which so many units come back.
    nanos: u64,
    units: u64,
    /// The most that may be owed by a call that is let through.
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
    /// One that counts calls. `None` if the numbers are beyond all use: more than a century to come back.
    pub(super) fn new(rate: Rate, burst: u64) -> Option<Gcra> {
        // Rounded up to whole nanoseconds a unit, so that a burst holds as many calls as it says, and no more.
        let nanos = u64::try_from(rate.per.as_nanos().div_ceil(u128::from(rate.amount))).ok()?.max(1);
        Gcra::exact(nanos, 1, burst)
    }

    /// One of small units, of which a call has many.
    pub(super) fn exact(nanos: u64, units: u64, burst: u64) -> Option<Gcra> {
        let gcra = Gcra { nanos, units, tolerance: 0 };
        let tolerance = Some(gcra.cost(burst)).filter(|tolerance| *tolerance <= CENTURY)?;
        Some(Gcra { tolerance, ..gcra })
    }

    /// What so many units owe; rounded up, as all is here: never more than was allowed.
    pub(super) fn cost(self, units: u64) -> u64 {
        let nanos = (u128::from(units) * u128::from(self.nanos)).div_ceil(u128::from(self.units));
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }

    /// The same for a number that need not be whole; it is neither negative nor infinite.
    pub(super) fn cost_of_part(self, units: f64) -> u64 {
        (units * self.nanos as f64 / self.units as f64).ceil() as u64
    }

    /// The most that one call can be made to wait for.
    pub(super) fn tolerance(self) -> u64 {
        self.tolerance
    }

    /// A call that costs more than is let through at once waits until nothing is owed, and owes it all.
    pub(super) fn take(self, arrival: u64, now: u64, cost: u64) -> Result<Taken, Wait> {
        let before = arrival.max(now);
        let needed = cost.min(self.tolerance);
        // Where the clock ends nothing is admitted, rather than everything.
        let after = before.checked_add(cost).ok_or(Wait(needed))?;
        match (before - now).saturating_add(needed).checked_sub(self.tolerance) {
            None | Some(0) => Ok(Taken { before, after }),
            Some(over) => Err(Wait(over)),
        }
    }

    /// The debt's end once it is known that what was `taken` should have been `cost`; where that is less, never before
    /// where it was then.
    pub(super) fn correct(self, arrival: u64, taken: Taken, cost: u64, now: u64) -> u64 {
        let charged = taken.after - taken.before;
        if cost >= charged {
            let owed = arrival.max(now).saturating_add(cost - charged);
            return if cost == charged { arrival } else { owed.min(now.saturating_add(CENTURY)) };
        }
        match arrival.checked_sub(charged - cost) {
            Some(less) if arrival > taken.before => less.max(taken.before),
            // Forgotten in between: it owes nothing that could be given back.
            _ => arrival,
        }
    }

    pub(super) fn left(self, arrival: u64, now: u64) -> Left {
        let debt = arrival.saturating_sub(now);
        let left = u128::from(self.tolerance.saturating_sub(debt)) * u128::from(self.units) / u128::from(self.nanos);
        Left { units: u64::try_from(left).unwrap_or(u64::MAX), full_in: debt.div_ceil(SECOND) }
    }

    /// Seconds in which all of the burst comes back, rounded up; `None` if that is no whole second.
    pub(super) fn window(self) -> Option<u64> {
        (self.tolerance >= SECOND).then(|| self.tolerance.div_ceil(SECOND))
    }
}

pub(super) const SECOND: u64 = 1_000_000_000;
pub(super) const CENTURY: u64 = 100 * 366 * 86_400 * SECOND;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn gcra(rate: &str, burst: u64) -> Gcra {
        Gcra::new(rate.parse().unwrap(), burst).unwrap()
    }

    fn take(gcra: Gcra, arrival: u64, now: u64, units: u64) -> Result<Taken, Wait> {
        gcra.take(arrival, now, gcra.cost(units))
    }

    #[test]
    fn takes_its_burst_and_then_its_rate() {
        let gcra = gcra("10/s", 3);
        for start in [0, 1, SECOND, u64::MAX / 2] {
            let mut arrival = 0;
            for (millis, admitted) in
                [(0, true), (0, true), (0, true), (0, false), (99, false), (100, true), (100, false), (1000, true)]
            {
                let now = start + millis * 1_000_000;
                let taken = take(gcra, arrival, now, 1);
                assert_eq!(taken.is_ok(), admitted, "{start} {millis}");
                arrival = taken.map_or(arrival, |taken| taken.after);
            }
        }
    }

    #[test]
    fn waiting_as_told_is_enough_and_needed() {
        let gcra = gcra("10/s", 1);
        let taken = take(gcra, 0, 5, 1).unwrap();
        let Wait(wait) = take(gcra, taken.after, 7, 1).unwrap_err();
        assert!(take(gcra, taken.after, 7 + wait - 1, 1).is_err());
        assert!(take(gcra, taken.after, 7 + wait, 1).is_ok());
    }

    #[test]
    fn the_end_of_the_clock_admits_nothing_and_breaks_nothing() {
        let gcra = gcra("1/s", 2);
        for now in [u64::MAX, u64::MAX - 1, u64::MAX - SECOND + 1] {
            assert!(take(gcra, 0, now, 1).is_err());
            assert!(take(gcra, u64::MAX, now, 1).is_err());
            gcra.left(u64::MAX, now);
            gcra.left(0, now);
        }
        assert!(Gcra::new("1/1000d".parse().unwrap(), u64::MAX).is_none());
        assert!(Gcra::new(Rate { amount: u64::MAX, per: std::time::Duration::from_nanos(1) }, 1).is_some());
    }

    #[test]
    fn left_and_window_are_in_units_and_seconds() {
        let gcra = gcra("100/s", 200);
        assert_eq!(gcra.window(), Some(2));
        assert_eq!(gcra.left(0, 7), Left { units: 200, full_in: 0 });
        assert_eq!(gcra.left(7 + SECOND, 7), Left { units: 100, full_in: 1 });
        assert_eq!(gcra.left(7 + SECOND + 1, 7), Left { units: 99, full_in: 2 });
        assert_eq!(Gcra::new("1/ms".parse().unwrap(), 1).and_then(Gcra::window), None);
    }

    #[test]
    fn what_is_more_than_the_burst_waits_for_all_of_it_and_owes_the_rest() {
        // A byte a nanosecond, a thousand at once.
        let gcra = Gcra::exact(SECOND, SECOND, 1000).unwrap();
        let Taken { after, .. } = take(gcra, 0, 5, 3000).unwrap();
        assert_eq!(after, 3005);
        assert_eq!(take(gcra, after, 5, 1), Err(Wait(2001)));
        assert_eq!(take(gcra, after, 5, 3000), Err(Wait(3000)));
        assert!(take(gcra, after, 3005, 3000).is_ok());
    }

    #[test]
    fn estimates_are_corrected_both_ways() {
        let gcra = Gcra::exact(SECOND, SECOND, 1000).unwrap();
        let taken = take(gcra, 0, 100, 500).unwrap();
        let correct = |arrival, units, now| gcra.correct(arrival, taken, gcra.cost(units), now);
        assert_eq!(correct(600, 500, 200), 600);
        assert_eq!(correct(600, 200, 200), 300);
        assert_eq!(correct(600, 0, 200), 100);
        assert_eq!(correct(600, 700, 200), 800);
        // What was owed has been paid meanwhile: only the rest is, from now on.
        assert_eq!(correct(600, 700, 10_000), 10_200);
        assert_eq!(correct(600, 200, 10_000), 300);
        // It was forgotten.
        assert_eq!(correct(0, 200, 300), 0);
        assert_eq!(correct(0, 700, 300), 500);
        assert!(correct(600, u64::MAX, 300) <= 300 + CENTURY);
    }

    #[test]
    fn parts_of_units_are_rounded_up() {
        let gcra = gcra("1000/s", 1);
        assert_eq!([0.5, 1e-9, 0.0, f64::MAX].map(|it| gcra.cost_of_part(it)), [500_000, 1, 0, u64::MAX]);
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
            let gcra = gcra(&format!("{amount}/s"), burst);
            let (mut now, mut arrival) = (start, 0);
            let mut admitted: Vec<u64> = Vec::new();
            for (gap, refund) in gaps {
                now += gap;
                let Ok(taken) = take(gcra, arrival, now, weight) else { continue };
                arrival = taken.after;
                if refund {
                    arrival = gcra.correct(arrival, taken, 0, now);
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
            let gcra = gcra(&format!("{amount}/s"), 100);
            let Ok(taken) = take(gcra, arrival, now, 1) else { return Ok(()) };
            let between = if other { take(gcra, taken.after, now, 1).map_or(taken.after, |it| it.after) } else { taken.after };
            let after = gcra.correct(between, taken, 0, now);
            prop_assert_eq!(after - arrival.max(now), between - taken.after);
        }
    }
}
