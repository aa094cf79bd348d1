//! How long tries take, for those who would try elsewhere when one takes longer than most.

use std::cell::Cell;
use std::time::Duration;

use base::Percent;

/// The recent tries of one core at one upstream, by how long they took: buckets that grow by a tenth, from 50 µs to
/// over a minute. Kept only where a document asks for a part of them (`p95`). Each core knows its own: it needs a
/// hundred tries to have an opinion, and what it learns is the same.
#[derive(Debug)]
pub struct Times {
    buckets: Box<[Cell<u32>; BUCKETS]>,
    count: Cell<u32>,
}

const BUCKETS: usize = 150;
const FIRST: f64 = 50_000.0;
const STEP: f64 = 1.1;
/// Fewer tell nothing.
const ENOUGH: u32 = 100;
/// With so many, all are halved: old ones fade.
const MANY: u32 = 2000;

impl Default for Times {
    fn default() -> Times {
        Times { buckets: Box::new([const { Cell::new(0) }; BUCKETS]), count: Cell::new(0) }
    }
}

impl Times {
    pub fn note(&self, took: Duration) {
        let at = ((took.as_nanos() as f64 / FIRST).max(1.0).ln() / STEP.ln()) as usize;
        let bucket = &self.buckets[at.min(BUCKETS - 1)];
        bucket.set(bucket.get() + 1);
        self.count.set(self.count.get() + 1);
        if self.count.get() >= MANY {
            self.buckets.iter().for_each(|bucket| bucket.set(bucket.get() / 2));
            self.count.set(self.buckets.iter().map(Cell::get).sum());
        }
    }

    /// What this part of them took at most; `None` while there are too few.
    pub fn part(&self, part: Percent) -> Option<Duration> {
        if self.count.get() < ENOUGH {
            return None;
        }
        let wanted = part.fraction() * f64::from(self.count.get());
        let mut met = 0.0;
        for (at, bucket) in self.buckets.iter().enumerate() {
            met += f64::from(bucket.get());
            if met >= wanted {
                return Some(Duration::from_nanos((FIRST * STEP.powi(at as i32 + 1)) as u64));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_recent_tries_took_at_most_this() {
        let times = Times::default();
        (0..99).for_each(|_| times.note(Duration::from_millis(10)));
        assert_eq!(times.part(Percent::whole(95)), None);
        (0..801).for_each(|_| times.note(Duration::from_millis(10)));
        (0..100).for_each(|_| times.note(Duration::from_millis(200)));
        let near = |part, millis: f64| {
            let found = times.part(Percent::whole(part)).unwrap().as_secs_f64() * 1e3;
            assert!((millis..millis * 1.1 + 0.1).contains(&found), "p{part} is {found} ms, not {millis}");
        };
        near(50, 10.0);
        near(89, 10.0);
        near(95, 200.0);
        // What was is forgotten.
        (0..10_000).for_each(|_| times.note(Duration::from_millis(50)));
        near(95, 50.0);
    }
}
