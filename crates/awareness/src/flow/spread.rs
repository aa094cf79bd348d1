//! How unlike each other sizes and latencies are: quantiles, and deviation relative to the mean.

use std::time::Duration;

use super::RECENT;
use crate::{BOUNDS, Histogram};

/// Sizes of bodies in buckets, each bound four times the one before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sizes {
    pub buckets: [u64; Sizes::BUCKETS],
    /// Of bytes, added up.
    pub squares: f64,
}

/// What there is to say of many numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    /// Standard deviation over mean: 0 if all are the same, 1 for waiting times by chance.
    pub variation: f64,
}

/// Counts of which the old ones weigh ever less.
#[derive(Clone, Debug)]
pub(super) struct Faded<const N: usize> {
    buckets: [f64; N],
    sum: f64,
    squares: f64,
}

/// The last minute of durations that are counted since the process began.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    last: Histogram,
    faded: Faded<{ Histogram::BUCKETS }>,
}

// === impl Recent ===

impl Recent {
    /// Takes what was counted until now, `dt` after the last time.
    pub fn update(&mut self, dt: Duration, counted: Histogram) {
        let keep = (-dt.as_secs_f64() / RECENT.as_secs_f64()).exp();
        let sum = counted.sum_nanos.saturating_sub(self.last.sum_nanos) as f64 / 1e6;
        // Nobody counted the squares: each duration is taken to be as long as its bucket's middle.
        let squares = (0..Histogram::BUCKETS).map(|bucket| {
            let more = counted.buckets[bucket].saturating_sub(self.last.buckets[bucket]) as f64;
            let low = if bucket == 0 { 0.0 } else { millis(bucket - 1) };
            let high = if bucket < BOUNDS.len() { millis(bucket) } else { low * 2.0 };
            more * ((low + high) / 2.0).powi(2)
        });
        self.faded.add(keep, &counted.buckets, &self.last.buckets, sum, squares.sum());
        self.last = counted;
    }

    /// In milliseconds.
    pub fn spread(&self) -> Option<Spread> {
        self.faded.latencies()
    }

    /// Milliseconds in all: what share of the time this was, beside others.
    pub fn weight(&self) -> f64 {
        self.faded.sum
    }
}

fn millis(bucket: usize) -> f64 {
    BOUNDS.get(bucket).map_or(f64::INFINITY, |bound| bound.as_secs_f64() * 1e3)
}

// === impl Sizes ===

impl Sizes {
    /// Nothing, up to 64 bytes, up to 256, ... up to 1 GiB, more.
    pub const BUCKETS: usize = 15;

    pub fn bucket(bytes: u64) -> usize {
        match bytes {
            0 => 0,
            1..=64 => 1,
            // Bits above the sixth, two to a bucket.
            _ => (((bytes - 1).ilog2() as usize - 6) / 2 + 2).min(Sizes::BUCKETS - 1),
        }
    }

    fn bound(bucket: usize) -> f64 {
        if bucket == 0 { 0.0 } else { 64.0 * 4f64.powi(bucket as i32 - 1) }
    }

    pub fn add(&mut self, bytes: u64) {
        self.buckets[Sizes::bucket(bytes)] += 1;
        self.squares += (bytes as f64).powi(2);
    }

    pub fn merge(&mut self, other: &Sizes) {
        self.buckets.iter_mut().zip(other.buckets).for_each(|(mine, theirs)| *mine += theirs);
        self.squares += other.squares;
    }
}

// === impl Faded ===

impl<const N: usize> Faded<N> {
    pub(super) fn add(&mut self, keep: f64, new: &[u64; N], old: &[u64; N], sum: f64, squares: f64) {
        for (bucket, (new, old)) in self.buckets.iter_mut().zip(new.iter().zip(old)) {
            *bucket = *bucket * keep + new.saturating_sub(*old) as f64;
        }
        self.sum = self.sum * keep + sum;
        self.squares = self.squares * keep + squares.max(0.0);
    }

    fn spread(&self, bound: impl Fn(usize) -> f64) -> Option<Spread> {
        let count: f64 = self.buckets.iter().sum();
        // Less than one call, by now.
        if count < 0.5 {
            return None;
        }
        let mean = self.sum / count;
        let variance = (self.squares / count - mean * mean).max(0.0);
        let quantile = |share: f64| {
            let mut left = count * share;
            for (bucket, weight) in self.buckets.iter().enumerate() {
                if left <= *weight && *weight > 0.0 {
                    let low = if bucket == 0 { 0.0 } else { bound(bucket - 1) };
                    let high = if bucket == N - 1 { low * 2.0 } else { bound(bucket) };
                    return low + (high - low) * left / weight;
                }
                left -= weight;
            }
            bound(N - 2)
        };
        let (p50, p90, p99) = (quantile(0.5), quantile(0.9), quantile(0.99));
        Some(Spread { mean, p50, p90, p99, variation: if mean > 0.0 { variance.sqrt() / mean } else { 0.0 } })
    }
}

impl Faded<{ Histogram::BUCKETS }> {
    /// In milliseconds.
    pub(super) fn latencies(&self) -> Option<Spread> {
        self.spread(millis)
    }
}

impl Faded<{ Sizes::BUCKETS }> {
    pub(super) fn sizes(&self) -> Option<Spread> {
        self.spread(Sizes::bound)
    }
}

impl<const N: usize> Default for Faded<N> {
    fn default() -> Faded<N> {
        Faded { buckets: [0.0; N], sum: 0.0, squares: 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_lies_between_the_bounds_of_its_bucket() {
        assert_eq!((Sizes::bucket(0), Sizes::bucket(1), Sizes::bucket(64), Sizes::bucket(65)), (0, 1, 1, 2));
        assert_eq!(Sizes::bucket(u64::MAX), Sizes::BUCKETS - 1);
        for bytes in (0..40).flat_map(|bits| [(1u64 << bits) - 1, 1 << bits, (1 << bits) + 1]) {
            let bucket = Sizes::bucket(bytes);
            if bucket < Sizes::BUCKETS - 1 {
                assert!(bytes as f64 <= Sizes::bound(bucket), "{bytes}");
            }
            assert!(bucket == 0 || bytes as f64 > Sizes::bound(bucket - 1), "{bytes}");
        }
    }

    #[test]
    fn quantiles_lie_in_their_buckets_and_variation_is_exact() {
        let mut sizes = Sizes::default();
        let mut faded = Faded::<{ Sizes::BUCKETS }>::default();
        let bytes = [100u64, 100, 100, 100, 100, 100, 100, 100, 100, 1_100];
        bytes.into_iter().for_each(|bytes| sizes.add(bytes));
        let none = Sizes::default();
        faded.add(1.0, &sizes.buckets, &none.buckets, bytes.iter().sum::<u64>() as f64, sizes.squares);
        let Some(Spread { mean, p50, p90: _, p99, variation }) = faded.sizes() else { panic!() };
        assert_eq!(mean, 200.0);
        assert!((variation - 1.5).abs() < 1e-9, "{variation}");
        assert!((64.0..=256.0).contains(&p50), "{p50}");
        assert!((1024.0..=4096.0).contains(&p99), "{p99}");
        assert_eq!(Faded::<{ Sizes::BUCKETS }>::default().sizes(), None);
    }
}
