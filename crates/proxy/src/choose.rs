//! Which endpoint takes the call. The decision is pure; what it weighs is kept by each core for itself.

use std::cell::Cell;
use std::hash::{BuildHasher, Hash, Hasher};
use std::time::Duration;

use base::Time;
use foldhash::quality::FixedState;

/// How an endpoint has been doing, as this core saw it.
#[derive(Debug, Default)]
pub struct Load {
    in_flight: Cell<u32>,
    /// Peak-sensitive moving average of the time to an answer, in nanoseconds.
    latency: Cell<f64>,
    updated: Cell<Time>,
}

/// After this time an observation has lost two thirds of its weight.
const DECAY: Duration = Duration::from_secs(10);
/// What an endpoint is taken for that was never measured: quick, so that it is tried.
const UNMEASURED: f64 = 1e6;

impl Load {
    pub fn begin(&self) {
        self.in_flight.set(self.in_flight.get() + 1);
    }

    pub fn end(&self) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
    }

    /// A slow answer counts at once; quick ones must come for a while to be believed (peak-EWMA).
    pub fn observe(&self, latency: Duration, now: Time) {
        let observed = latency.as_nanos() as f64;
        let old = self.latency.get();
        if observed > old {
            self.latency.set(observed);
        } else {
            let weight = (-(now.since(self.updated.get()).as_secs_f64()) / DECAY.as_secs_f64()).exp();
            self.latency.set(old * weight + observed * (1.0 - weight));
        }
        self.updated.set(now);
    }

    /// A failure is as bad as an answer that took this long.
    pub fn observe_failure(&self, now: Time) {
        self.observe(Duration::from_secs(1), now);
    }

    /// What one more call would wait, more or less.
    pub fn cost(&self, weight: u32, now: Time) -> f64 {
        let age = now.since(self.updated.get()).as_secs_f64();
        let latency = self.latency.get() * (-age / DECAY.as_secs_f64()).exp();
        latency.max(UNMEASURED) * f64::from(self.in_flight.get() + 1) / f64::from(weight.max(1))
    }
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
            loads[1].begin();
        }
        assert!((0..50).all(|random| pick(random * 7919) == 0));
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
