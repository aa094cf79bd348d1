//! Which endpoint takes the call. The decision is pure; what it weighs is known to all cores.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use base::{Percent, Time};
use foldhash::quality::FixedState;

/// How an endpoint has been doing, as all cores saw it.
///
/// One for the node and not for each core: with many cores each would see a small part, take an endpoint that it
/// has not met for quick, and not know what the others have under way there. It costs two atomic additions a call,
/// on a line of memory of its own, which cores contend for only as far as they call the same endpoint at once.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Load {
    in_flight: AtomicU32,
    /// Peak-sensitive moving average of the time to an answer, in nanoseconds: the bits of an `f64`. Two cores that
    /// write at once may lose one observation.
    latency: AtomicU64,
    updated: AtomicU64,
}

/// After this time an observation has lost two thirds of its weight.
const DECAY: Duration = Duration::from_secs(10);
/// What an endpoint is taken for that was never measured: quick, so that it is tried.
const UNMEASURED: f64 = 1e6;

impl Load {
    /// One call more, if there are fewer than `most` (zero for no bound).
    pub fn begin(&self, most: u32) -> bool {
        if most == 0 {
            self.in_flight.fetch_add(1, Relaxed);
            return true;
        }
        self.in_flight.fetch_update(Relaxed, Relaxed, |calls| (calls < most).then_some(calls + 1)).is_ok()
    }

    pub fn end(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// `None` if it was never measured, or not since it was forgotten.
    pub fn latency(&self) -> Option<Duration> {
        let latency = f64::from_bits(self.latency.load(Relaxed));
        (latency > 0.0).then(|| Duration::from_nanos(latency as u64))
    }

    /// A slow answer counts at once; quick ones must come for a while to be believed (peak-EWMA).
    pub fn observe(&self, latency: Duration, now: Time) {
        let observed = latency.as_nanos() as f64;
        let old = f64::from_bits(self.latency.load(Relaxed));
        let average = if observed > old {
            observed
        } else {
            let weight = (-self.age(now) / DECAY.as_secs_f64()).exp();
            old * weight + observed * (1.0 - weight)
        };
        self.latency.store(average.to_bits(), Relaxed);
        self.updated.store(now.nanos(), Relaxed);
    }

    /// A failure is as bad as an answer that took this long.
    pub fn observe_failure(&self, now: Time) {
        self.observe(Duration::from_secs(1), now);
    }

    /// It is well again: what it was like before says nothing.
    pub fn forget(&self) {
        self.latency.store(0, Relaxed);
    }

    /// What one more call would wait, more or less.
    pub fn cost(&self, weight: u32, now: Time) -> f64 {
        let latency = f64::from_bits(self.latency.load(Relaxed)) * (-self.age(now) / DECAY.as_secs_f64()).exp();
        latency.max(UNMEASURED) * f64::from(self.in_flight() + 1) / f64::from(weight.max(1))
    }

    fn age(&self, now: Time) -> f64 {
        now.since(Time::from_nanos(self.updated.load(Relaxed))).as_secs_f64()
    }
}

/// The group of endpoints for a call, of groups in order given as (weight that is well, weight in all).
///
/// A group bears all calls while at least `enough` of it is well, and in proportion less below that; the rest goes to
/// the next. If all together do not bear all calls, each gets its part of what they bear.
pub fn level(groups: &[(u32, u32)], enough: Percent, random: u64) -> usize {
    let bears = |(well, all): (u32, u32)| {
        if all == 0 { 0.0 } else { (f64::from(well) / f64::from(all) / enough.fraction().max(1e-6)).min(1.0) }
    };
    let total = groups.iter().map(|group| bears(*group)).sum::<f64>().min(1.0);
    let mut place = (random >> 11) as f64 / (1u64 << 53) as f64 * total;
    for (at, group) in groups.iter().enumerate() {
        let share = bears(*group);
        if place < share {
            return at;
        }
        place -= share;
    }
    0
}

/// The part of its share that an endpoint gets which began `since`: from a tenth to all of it over `slow_start`.
pub fn ramp(since: Time, slow_start: Duration, now: Time) -> f64 {
    if slow_start.is_zero() || since == Time::default() {
        return 1.0;
    }
    (now.since(since).as_secs_f64() / slow_start.as_secs_f64()).clamp(0.1, 1.0)
}

/// A number from 0 to 1 for one of several who draw by the same random number.
pub fn draw(random: u64, one: u64) -> f64 {
    let mixed = (random ^ one.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((mixed ^ (mixed >> 29)) >> 11) as f64 / (1u64 << 53) as f64
}

/// Of two at random the one with the lower cost: nearly as good as asking all, and never a herd.
///
/// `candidates` are (place, weight); `random` is any evenly spread number.
pub fn least_load(candidates: &[(usize, u32)], random: u64, cost: impl Fn(usize, u32) -> f64) -> usize {
    match candidates {
        [] => 0,
        [(only, _)] => *only,
        _ => {
            let first = random as u32 as usize % candidates.len();
            let step = 1 + (random >> 32) as usize % (candidates.len() - 1);
            let second = (first + step) % candidates.len();
            let (a, b) = (candidates[first], candidates[second]);
            if cost(b.0, b.1) < cost(a.0, a.1) { b.0 } else { a.0 }
        }
    }
}

/// Turn `turn` of a weighted round: each is met as often as it weighs, spread over the round.
pub fn round_robin(candidates: &[(usize, u32)], turn: u64) -> usize {
    let total: u64 = candidates.iter().map(|(_, weight)| u64::from((*weight).max(1))).sum();
    if total == 0 {
        return 0;
    }
    // A step near the golden section visits every place of the round once and neighbours late.
    let mut step = ((total as f64 * 0.618) as u64).max(1);
    while gcd(step, total) != 1 {
        step += 1;
    }
    let mut place = turn.wrapping_mul(step) % total;
    for (candidate, weight) in candidates {
        let weight = u64::from((*weight).max(1));
        if place < weight {
            return *candidate;
        }
        place -= weight;
    }
    candidates[0].0
}

/// The candidate whose own draw for this key is highest (weighted rendezvous): when one comes or goes,
/// only its own keys move.
pub fn consistent(candidates: &[(usize, u32, u64)], key: &[u8]) -> usize {
    let draw = |id: u64, weight: u32| {
        let mut hasher = FixedState::with_seed(0x5765_6972).build_hasher();
        id.hash(&mut hasher);
        key.hash(&mut hasher);
        let share = (hasher.finish() >> 11) as f64 / (1u64 << 53) as f64;
        -f64::from(weight.max(1)) / share.max(f64::MIN_POSITIVE).ln()
    };
    let best = candidates.iter().max_by(|a, b| draw(a.2, a.1).total_cmp(&draw(b.2, b.1)));
    best.map_or(0, |(candidate, ..)| *candidate)
}

/// One of several by weight.
pub fn weighted(weights: impl Iterator<Item = u32> + Clone, random: u64) -> usize {
    let total: u64 = weights.clone().map(u64::from).sum();
    let mut place = if total == 0 { 0 } else { random % total };
    for (at, weight) in weights.enumerate() {
        if place < u64::from(weight) {
            return at;
        }
        place -= u64::from(weight);
    }
    0
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_and_the_fuller_are_avoided() {
        let now = Time::from_nanos(1_000_000_000);
        let loads = [Load::default(), Load::default()];
        loads[0].observe(Duration::from_millis(100), now);
        loads[1].observe(Duration::from_millis(10), now);
        let pick = |random| least_load(&[(0, 1), (1, 1)], random, |at, weight| loads[at].cost(weight, now));
        assert!((0..50).all(|random| pick(random * 7919) == 1));
        for _ in 0..20 {
            assert!(loads[1].begin(0));
        }
        assert!((0..50).all(|random| pick(random * 7919) == 0));
    }

    #[test]
    fn a_bound_holds_and_what_has_ended_makes_room() {
        let load = Load::default();
        assert!(load.begin(2) && load.begin(2) && !load.begin(2));
        load.end();
        assert!(load.begin(2));
        assert_eq!(load.in_flight(), 2);
    }

    #[test]
    fn a_group_bears_all_calls_until_too_little_of_it_is_well() {
        let enough = Percent::whole(70);
        for (groups, expected) in [
            (&[(10, 10), (10, 10)][..], [100, 0, 0]),
            (&[(7, 10), (10, 10)], [100, 0, 0]),
            (&[(35, 100), (10, 10)], [50, 50, 0]),
            (&[(0, 10), (10, 10)], [0, 100, 0]),
            (&[(35, 100), (35, 100), (1, 1)], [50, 50, 0]),
            // None bears its part: what is left is shared as they can.
            (&[(14, 100), (0, 10), (42, 100)], [25, 0, 75]),
            (&[(0, 10), (0, 10)], [100, 0, 0]),
            (&[(0, 0), (1, 1)], [0, 100, 0]),
        ] {
            let mut counts = [0; 3];
            let randoms = (0..1000u64).map(|n| n * (u64::MAX / 1000));
            randoms.for_each(|random| counts[level(groups, enough, random)] += 1);
            for (count, expected) in counts.iter().zip(expected) {
                assert!((expected * 10i32).abs_diff(*count) <= 2, "{groups:?}: {counts:?}");
            }
        }
    }

    #[test]
    fn a_new_endpoint_begins_with_a_tenth() {
        let at = |seconds: u64| Time::from_nanos(1 + seconds * 1_000_000_000);
        let ramp = |now| ramp(at(100), Duration::from_secs(30), now);
        assert_eq!([ramp(at(100)), ramp(at(115)), ramp(at(130)), ramp(at(900))], [0.1, 0.5, 1.0, 1.0]);
        assert_eq!(super::ramp(Time::default(), Duration::from_secs(30), at(5)), 1.0);
        let taken = (0..10_000u64).filter(|n| draw(n.wrapping_mul(0x2545_f491_4f6c_dd1d), 3) < 0.3).count();
        assert!((2_700..3_300).contains(&taken), "{taken}");
    }

    #[test]
    fn a_peak_is_believed_at_once_and_forgotten_slowly() {
        let at = |seconds: u64| Time::from_nanos(seconds * 1_000_000_000);
        let load = Load::default();
        load.observe(Duration::from_millis(10), at(1));
        load.observe(Duration::from_millis(500), at(2));
        let peak = load.cost(1, at(2));
        load.observe(Duration::from_millis(10), at(3));
        assert!(load.cost(1, at(3)) > peak * 0.5);
        assert!(load.cost(1, at(60)) < peak * 0.05);
    }

    #[test]
    fn a_round_gives_each_its_weight() {
        let candidates = [(0, 5), (1, 1), (2, 2)];
        let mut counts = [0; 3];
        (0..80).for_each(|turn| counts[round_robin(&candidates, turn)] += 1);
        assert_eq!(counts, [50, 10, 20]);
    }

    #[test]
    fn keys_stay_when_another_endpoint_goes() {
        let all: Vec<(usize, u32, u64)> = (0..5).map(|id| (id as usize, 1 + (id as u32 % 2), id)).collect();
        let without: Vec<_> = all.iter().copied().filter(|it| it.0 != 3).collect();
        let mut counts = [0u32; 5];
        for key in 0..10_000u32 {
            let before = consistent(&all, &key.to_le_bytes());
            counts[before] += 1;
            if before != 3 {
                assert_eq!(consistent(&without, &key.to_le_bytes()), before);
            }
        }
        // Weights 1, 2, 1, 2, 1 of 7.
        assert!((2600..3100).contains(&counts[1]) && (1200..1650).contains(&counts[0]), "{counts:?}");
    }

    #[test]
    fn weights_are_kept() {
        let taken = (0..1000u64).filter(|random| weighted([95, 5].into_iter(), *random) == 1).count();
        assert_eq!(taken, 50);
    }
}
