//! Durations counted in buckets of fixed, roughly logarithmic bounds: plain integers, one writer.

use std::time::Duration;

/// Upper bounds of the buckets, inclusive; one more bucket takes what is longer.
pub const BOUNDS: [Duration; 18] = [
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
];

/// The same as numbers. Most of what is measured lies in the first few.
const NANOS: [u64; BOUNDS.len()] = {
    let mut nanos = [0; BOUNDS.len()];
    let mut at = 0;
    while at < nanos.len() {
        nanos[at] = BOUNDS[at].as_nanos() as u64;
        at += 1;
    }
    nanos
};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    pub buckets: [u64; Histogram::BUCKETS],
    pub sum_nanos: u64,
}

impl Histogram {
    pub const BUCKETS: usize = BOUNDS.len() + 1;

    /// The bucket a duration is counted in.
    pub fn bucket(length: Duration) -> usize {
        let nanos = length.as_nanos() as u64;
        NANOS.iter().position(|bound| nanos <= *bound).unwrap_or(BOUNDS.len())
    }

    pub fn add(&mut self, length: Duration) {
        self.buckets[Histogram::bucket(length)] += 1;
        self.sum_nanos = self.sum_nanos.saturating_add(length.as_nanos() as u64);
    }

    pub fn merge(&mut self, other: &Histogram) {
        for (mine, theirs) in self.buckets.iter_mut().zip(other.buckets) {
            *mine += theirs;
        }
        self.sum_nanos = self.sum_nanos.saturating_add(other.sum_nanos);
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The bound below which that share of the durations lies; `None` if it is beyond the last, or of nothing.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let wanted = (self.count() as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        let bucket = self.buckets.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        BOUNDS.get(bucket).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_rise_and_are_inclusive() {
        assert!(BOUNDS.is_sorted());
        for (micros, bucket) in [(0, 0), (100, 0), (101, 1), (1_000, 3), (60_000_000, 17), (60_000_001, 18)] {
            assert_eq!(Histogram::bucket(Duration::from_micros(micros)), bucket, "{micros}us");
        }
    }

    #[test]
    fn quantiles_come_from_merged_buckets() {
        let (mut a, mut b) = (Histogram::default(), Histogram::default());
        (0..99).for_each(|_| a.add(Duration::from_millis(1)));
        b.add(Duration::from_secs(4));
        a.merge(&b);
        assert_eq!(a.count(), 100);
        assert_eq!(a.quantile(0.5), Some(Duration::from_millis(1)));
        assert_eq!(a.quantile(1.0), Some(Duration::from_secs(5)));
        assert_eq!(Histogram::default().quantile(0.5), None);
    }
}
