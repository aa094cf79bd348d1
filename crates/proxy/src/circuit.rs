//! When something that fails is left alone, and how it comes back: closed, open for a while, then on trial.
//!
//! One circuit stands for an endpoint (open, it is ejected: calls go elsewhere) and one for an upstream with a
//! breaker (open, calls are refused). All cores share them: what one has learned the others need not learn.
//! Nothing here takes a lock. A race may cost a count, never a state that does not end.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use base::Time;
use config::Circuit as Rules;

#[derive(Debug, Default)]
pub struct Circuit {
    /// Zero while closed; else until when it is open. Behind that moment it is on trial.
    until: AtomicU64,
    /// When it was closed last.
    closed: AtomicU64,
    /// Failures in a row.
    streak: AtomicU32,
    /// How often it has opened in a row; a time well spent takes some away again.
    times: AtomicU32,
    /// How often ever.
    opened: AtomicU64,
    /// Trials under way, and those that went well.
    trials: AtomicU32,
    good: AtomicU32,
    window: Window,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Closed,
    Open { until: Time },
    OnTrial,
}

/// What one result has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Opened { pause: Duration },
    Closed,
}

impl Circuit {
    pub fn state(&self, now: Time) -> State {
        match self.until.load(Relaxed) {
            0 => State::Closed,
            until if now.nanos() < until => State::Open { until: Time::from_nanos(until) },
            _ => State::OnTrial,
        }
    }

    pub fn is_closed(&self) -> bool {
        self.until.load(Relaxed) == 0
    }

    /// When it was closed last; zero if it never was open.
    pub fn closed_at(&self) -> Time {
        Time::from_nanos(self.closed.load(Relaxed))
    }

    /// How often it has opened.
    pub fn opened(&self) -> u64 {
        self.opened.load(Relaxed)
    }

    /// Takes one of the calls that may try whether it is well; to be given back by [`Circuit::end_trial`].
    pub fn begin_trial(&self, most: u32) -> bool {
        if self.trials.fetch_add(1, Relaxed) < most {
            return true;
        }
        self.end_trial();
        false
    }

    pub fn end_trial(&self) {
        self.trials.fetch_sub(1, Relaxed);
    }

    pub fn has_trial(&self, most: u32) -> bool {
        self.trials.load(Relaxed) < most
    }

    /// Notes how a try ended. `trial` is one that was begun by [`Circuit::begin_trial`], `enough` such close it again.
    /// It opens only if `may_open` says so.
    pub fn note(
        &self,
        rules: &Rules,
        well: bool,
        trial: Option<u32>,
        now: Time,
        may_open: impl FnOnce() -> bool,
    ) -> Option<Change> {
        let until = self.until.load(Relaxed);
        if until != 0 {
            // What began before it opened tells nothing new.
            let enough = trial.filter(|_| now.nanos() >= until)?;
            if !well {
                return self.open(rules, until, now);
            }
            return (self.good.fetch_add(1, Relaxed) + 1 >= enough).then(|| self.close(until, now)).flatten();
        }
        if rules.share.is_some() {
            self.window.add(rules.window, well, now);
        }
        if well {
            // Mostly it is zero already: a line that is only read stays with all cores.
            if self.streak.load(Relaxed) != 0 {
                self.streak.store(0, Relaxed);
            }
            return None;
        }
        let streak = self.streak.fetch_add(1, Relaxed) + 1;
        let too_many = rules.failures.is_some_and(|most| streak >= most);
        let too_large = || {
            let Some(share) = rules.share else { return false };
            let (calls, failures) = self.window.sum(rules.window, now);
            calls >= u64::from(rules.min_calls) && failures as f64 >= share.fraction() * calls as f64
        };
        if (too_many || too_large()) && may_open() { self.open(rules, 0, now) } else { None }
    }

    /// Of all who see it fail at once, one opens it.
    fn open(&self, rules: &Rules, before: u64, now: Time) -> Option<Change> {
        let mut times = self.times.load(Relaxed);
        if before == 0 {
            let well = now.since(self.closed_at()).as_nanos() / rules.pause.as_nanos().max(1);
            times = times.saturating_sub(u32::try_from(well).unwrap_or(u32::MAX));
        }
        let pause = rules.pause.saturating_mul(1 << times.min(20)).min(rules.longest.max(rules.pause));
        let until = (now + pause).nanos().max(1);
        self.until.compare_exchange(before, until, Relaxed, Relaxed).ok()?;
        self.times.store(times.saturating_add(1), Relaxed);
        self.opened.fetch_add(1, Relaxed);
        self.good.store(0, Relaxed);
        self.streak.store(0, Relaxed);
        self.window.clear();
        Some(Change::Opened { pause })
    }

    fn close(&self, before: u64, now: Time) -> Option<Change> {
        self.closed.store(now.nanos(), Relaxed);
        self.until.compare_exchange(before, 0, Relaxed, Relaxed).ok()?;
        Some(Change::Closed)
    }

    /// Closes it whatever was known: its rules are gone.
    pub fn forget(&self) {
        self.until.store(0, Relaxed);
    }
}

/// Calls and failures of a moving window, in ten slots.
#[derive(Debug, Default)]
struct Window([AtomicU64; SLOTS as usize]);

const SLOTS: u64 = 10;

/// A slot: which tenth it stands for, its calls, its failures. A tenth with more calls than fit keeps their ratio.
const COUNT: u64 = (1 << 22) - 1;

impl Window {
    fn epoch(window: Duration, now: Time) -> u64 {
        // Never zero, which is a slot that was never used.
        now.nanos() / (window.as_nanos() as u64 / SLOTS).max(1) + 1
    }

    fn add(&self, window: Duration, well: bool, now: Time) {
        let epoch = Window::epoch(window, now);
        let slot = &self.0[(epoch % SLOTS) as usize];
        let tag = epoch & 0xf_ffff;
        // Two cores at the same moment: one tries again.
        let _ = slot.fetch_update(Relaxed, Relaxed, |old| {
            let (mut calls, mut failures) = if old >> 44 == tag { (old >> 22 & COUNT, old & COUNT) } else { (0, 0) };
            if calls >= COUNT {
                (calls, failures) = (calls / 2, failures / 2);
            }
            Some(tag << 44 | (calls + 1) << 22 | (failures + u64::from(!well)))
        });
    }

    fn sum(&self, window: Duration, now: Time) -> (u64, u64) {
        let epoch = Window::epoch(window, now);
        (0..SLOTS).fold((0, 0), |(calls, failures), back| {
            let Some(then) = epoch.checked_sub(back) else { return (calls, failures) };
            let slot = self.0[(then % SLOTS) as usize].load(Relaxed);
            if slot >> 44 != then & 0xf_ffff {
                return (calls, failures);
            }
            (calls + (slot >> 22 & COUNT), failures + (slot & COUNT))
        })
    }

    fn clear(&self) {
        self.0.iter().for_each(|slot| slot.store(0, Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use base::Percent;
    use config::FaultKinds;

    use super::*;

    fn rules(failures: Option<u32>, share: Option<u32>) -> Rules {
        Rules {
            failures,
            share: share.map(Percent::whole),
            window: Duration::from_secs(10),
            min_calls: 20,
            on: FaultKinds::default(),
            pause: Duration::from_secs(10),
            longest: Duration::from_secs(60),
        }
    }

    fn at(seconds: u64) -> Time {
        Time::from_nanos(1 + seconds * 1_000_000_000)
    }

    fn opened(seconds: u64) -> Option<Change> {
        Some(Change::Opened { pause: Duration::from_secs(seconds) })
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_good_trial_closes_it() {
        let (circuit, rules) = (Circuit::default(), rules(Some(3), None));
        let note = |well, now| circuit.note(&rules, well, None, at(now), || true);
        // A success in between begins the row anew.
        for well in [false, false, true, false, false] {
            assert_eq!(note(well, 1), None);
        }
        assert_eq!(note(false, 1), opened(10));
        assert_eq!(circuit.state(at(2)), State::Open { until: at(11) });
        // Calls that began before change nothing, however they end.
        assert_eq!((note(true, 2), note(false, 2)), (None, None));
        assert_eq!(circuit.state(at(11)), State::OnTrial);
        assert!(circuit.begin_trial(1) && !circuit.begin_trial(1));
        assert_eq!(note(true, 12), None, "not a trial");
        assert_eq!(circuit.note(&rules, true, Some(1), at(12), || true), Some(Change::Closed));
        circuit.end_trial();
        assert_eq!((circuit.state(at(12)), circuit.closed_at(), circuit.opened()), (State::Closed, at(12), 1));
    }

    #[test]
    fn it_stays_open_for_longer_each_time_and_good_times_make_up_for_it() {
        let (circuit, rules) = (Circuit::default(), rules(Some(1), None));
        let fail = |trial, now| circuit.note(&rules, false, trial, at(now), || true);
        assert_eq!(fail(None, 0), opened(10));
        assert_eq!(fail(Some(1), 10), opened(20));
        assert_eq!(fail(Some(1), 30), opened(40));
        assert_eq!(fail(Some(1), 70), opened(60), "the longest");
        assert_eq!(circuit.note(&rules, true, Some(1), at(130), || true), Some(Change::Closed));
        // Twenty seconds well take away two of four.
        assert_eq!(fail(None, 150), opened(40));
        circuit.note(&rules, true, Some(1), at(190), || true);
        assert_eq!(fail(None, 500), opened(10));
    }

    #[test]
    fn a_share_counts_over_a_window_and_only_of_enough_calls() {
        let (circuit, rules) = (Circuit::default(), rules(None, Some(50)));
        let note = |well, now| circuit.note(&rules, well, None, at(now), || true);
        (0..19).for_each(|n| assert_eq!(note(n % 2 == 0, 1), None));
        // Those are too old by now to count.
        (0..10).for_each(|_| assert_eq!(note(false, 15), None));
        (0..9).for_each(|_| assert_eq!(note(true, 16), None));
        assert_eq!(note(false, 17), opened(10));
    }

    #[test]
    fn it_opens_only_where_it_may_and_all_trials_must_go_well() {
        let (circuit, rules) = (Circuit::default(), rules(Some(1), None));
        assert_eq!(circuit.note(&rules, false, None, at(0), || false), None);
        assert_eq!(circuit.note(&rules, false, None, at(0), || true), opened(10));
        assert_eq!(circuit.note(&rules, true, Some(2), at(10), || true), None);
        assert_eq!(circuit.note(&rules, false, Some(2), at(10), || true), opened(20));
        assert_eq!(circuit.note(&rules, true, Some(2), at(30), || true), None);
        assert_eq!(circuit.note(&rules, true, Some(2), at(30), || true), Some(Change::Closed));
    }

    #[test]
    fn cores_that_count_together_lose_nothing() {
        let window = Window::default();
        let length = Duration::from_secs(10);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|n| window.add(length, n % 4 != 0, at(5))));
            }
        });
        assert_eq!(window.sum(length, at(6)), (4000, 1000));
    }
}
