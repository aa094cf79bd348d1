//! What was seen of calls since the last look, counted by all cores without a lock.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

/// Latencies in buckets, of which 32 make an octave: each is 2 to 3 % wide.
pub(super) struct Window {
    buckets: Box<[AtomicU32]>,
    count: AtomicU32,
    sum: AtomicU64,
}

/// What a window came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) count: u32,
    /// Seconds, as all here.
    pub(super) mean: f64,
    /// The mean of the three quarters that were fastest: few slow calls do not move it.
    pub(super) usual: f64,
}

const PARTS: u32 = 32;
const FASTEST: f64 = 0.75;
/// A microsecond and less.
const FIRST_OCTAVE: u32 = 10;
/// Up to 73 minutes.
const OCTAVES: u32 = 33;

impl Window {
    pub(super) fn new() -> Window {
        let buckets = (0..OCTAVES * PARTS).map(|_| AtomicU32::new(0)).collect();
        Window { buckets, count: AtomicU32::new(0), sum: AtomicU64::new(0) }
    }

    pub(super) fn add(&self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanos)].fetch_add(1, Relaxed);
        self.sum.fetch_add(nanos, Relaxed);
        self.count.fetch_add(1, Relaxed);
    }

    pub(super) fn count(&self) -> u32 {
        self.count.load(Relaxed)
    }

    /// What was seen, and then begins anew. What is added meanwhile may be lost or fall into the next window.
    pub(super) fn take(&self) -> Seen {
        let (count, sum) = (self.count.swap(0, Relaxed), self.sum.swap(0, Relaxed));
        let mean = sum as f64 / f64::from(count.max(1)) / 1e9;
        let mut left = f64::from(count) * FASTEST;
        let (mut taken, mut fast) = (0.0, 0.0);
        for (at, bucket) in self.buckets.iter().enumerate() {
            // Mostly empty, and read without taking the line from others.
            let here = if bucket.load(Relaxed) == 0 { 0 } else { bucket.swap(0, Relaxed) };
            // Of the last bucket those that are in its fast part.
            let of_it = f64::from(here).min(left);
            if of_it > 0.0 {
                let part = of_it / f64::from(here) / 2.0;
                fast += of_it * (bound(at) + (bound(at + 1) - bound(at)) * part);
                taken += of_it;
                left -= of_it;
            }
        }
        let usual = if taken > 0.0 { fast / taken } else { mean };
        Seen { count, mean, usual: usual.min(mean) }
    }
}

fn bucket(nanos: u64) -> usize {
    let octave = nanos.max(1).ilog2();
    if octave < FIRST_OCTAVE {
        return 0;
    }
    let part = (nanos >> (octave - PARTS.ilog2())) as u32 % PARTS;
    (((octave - FIRST_OCTAVE) * PARTS + part) as usize).min((OCTAVES * PARTS) as usize - 1)
}

/// Where a bucket begins, in seconds.
fn bound(bucket: usize) -> f64 {
    let (octave, part) = (bucket as u32 / PARTS, bucket as u32 % PARTS);
    f64::from(octave + FIRST_OCTAVE).exp2() * (1.0 + f64::from(part) / f64::from(PARTS)) / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_all_and_of_the_fast_are_found_to_a_few_percent() {
        for scale in [2_000, 1_000_000, 20_000_000, 60_000_000_000u64] {
            let window = Window::new();
            (1..=1000u64).for_each(|nth| window.add(Duration::from_nanos(scale + scale * nth / 1000)));
            let Seen { count, mean, usual } = window.take();
            assert_eq!(count, 1000);
            let near = |found: f64, part: f64| (found / (scale as f64 * part / 1e9) - 1.0).abs() < 0.02;
            assert!(near(mean, 1.5005) && near(usual, 1.375), "{scale}: {mean} {usual}");
            assert_eq!(window.take(), Seen { count: 0, mean: 0.0, usual: 0.0 });
        }
    }

    #[test]
    fn the_ends_of_the_scale_hold() {
        let window = Window::new();
        for latency in [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(100_000), Duration::MAX] {
            window.add(latency);
        }
        assert_eq!(window.take().count, 4);
    }
}
