//! Who gets what there is when more is wanted: the more important classes first, and within a class each consumer the
//! same, as far as he wants it.
//!
//! Counted over a window is what each consumer of each class wants. What there is goes to the first class, then to the
//! next; in the class where it ends a level is found, as water finds it, so that all who want less get it and those who
//! want more get as much as the level. In the next window a call that is within the level is in its right. One beyond
//! is let in by chance, as often as it would get its consumer to the level, and only while there is some room to spare:
//! so those in their right find room when they come.

use std::hash::BuildHasher;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};

pub(super) struct Shares {
    seed: foldhash::quality::RandomState,
    classes: Box<[Class]>,
    /// Calls that were in their right, and those of them that found no room.
    right: AtomicU32,
    wronged: AtomicU32,
    /// How much more than there is, in thousandths, is given out; some of it is not taken.
    generosity: AtomicU32,
    /// How often more than that, in thousandths, who wants more may try: where few calls are served at a time, a place is
    /// easily idle by chance.
    tries: AtomicU32,
}

struct Class {
    consumers: Box<[Wants]>,
    /// Calls of one consumer in a window that are in their right; as the bits of a float.
    level: AtomicU64,
}

/// What consumers of one hash want. Two that share it share what one gets.
#[derive(Default)]
struct Wants {
    now: AtomicU32,
    before: AtomicU32,
}

/// Whose a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who {
    class: u8,
    consumer: u16,
}

/// What a call may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Right,
    /// While there is room to spare.
    Spare,
    None,
}

const CONSUMERS: usize = 1024;
const GENEROUS: u32 = 1500;
const STINGY: u32 = 300;

impl Shares {
    /// Of at most 256 classes.
    pub(super) fn new(classes: usize) -> Shares {
        let class = |_| Class {
            consumers: (0..CONSUMERS).map(|_| Wants::default()).collect(),
            level: AtomicU64::new(f64::INFINITY.to_bits()),
        };
        Shares {
            seed: Default::default(),
            classes: (0..classes).map(class).collect(),
            right: AtomicU32::new(0),
            wronged: AtomicU32::new(0),
            generosity: AtomicU32::new(GENEROUS),
            tries: AtomicU32::new(1000),
        }
    }

    pub(super) fn who(&self, class: usize, consumer: &[u8]) -> Who {
        Who { class: class as u8, consumer: (self.seed.hash_one(consumer) % CONSUMERS as u64) as u16 }
    }

    /// A call comes.
    pub(super) fn ask(&self, who: Who, random: u64) -> Standing {
        let class = &self.classes[usize::from(who.class)];
        let wants = &class.consumers[usize::from(who.consumer)];
        let now = wants.now.fetch_add(1, Relaxed) + 1;
        let level = f64::from_bits(class.level.load(Relaxed));
        let wanted = f64::from(now.max(wants.before.load(Relaxed)));
        if wanted <= level {
            return Standing::Right;
        }
        let chance = random as f64 / u64::MAX as f64;
        let tries = f64::from(self.tries.load(Relaxed)) / 1000.0;
        if chance * wanted < level * tries { Standing::Spare } else { Standing::None }
    }

    /// A call that was in its right found room, or not.
    pub(super) fn tell(&self, found: bool) {
        self.right.fetch_add(1, Relaxed);
        if !found {
            self.wronged.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn classes(&self) -> usize {
        self.classes.len()
    }

    /// Of one who looks: there is room for so many calls in a window like the last, and for `limit` of them at a time.
    pub(super) fn divide(&self, room: f64, limit: u32) {
        let (right, wronged) = (self.right.swap(0, Relaxed), self.wronged.swap(0, Relaxed));
        let generosity = self.generosity.load(Relaxed);
        // And all places are often taken by chance.
        let borne = (25 / limit.max(1)).max(1);
        self.tries.store(1000 + 4000 / limit.max(1), Relaxed);
        let generosity = match wronged * 100 > right * borne {
            true => (generosity * 9 / 10).max(STINGY),
            false => (generosity + generosity / 20).min(GENEROUS),
        };
        self.generosity.store(generosity, Relaxed);
        let mut room = room * f64::from(generosity) / 1000.0;
        let mut wanted = [0u32; CONSUMERS];
        for class in &self.classes {
            for (wants, wanted) in class.consumers.iter().zip(&mut wanted) {
                *wanted = wants.now.swap(0, Relaxed);
                wants.before.store(*wanted, Relaxed);
            }
            let level = level(&mut wanted, room);
            class.level.store(level.to_bits(), Relaxed);
            room = (room - wanted.iter().map(|it| f64::from(*it)).sum::<f64>()).max(0.0);
        }
    }
}

/// The level up to which `room` fills what is wanted; infinite if there is enough for all.
fn level(wanted: &mut [u32], room: f64) -> f64 {
    wanted.sort_unstable();
    let mut left = room;
    let asking = wanted.iter().position(|it| *it > 0).unwrap_or(wanted.len());
    for (nth, one) in wanted[asking..].iter().enumerate() {
        let share = left / (wanted.len() - asking - nth) as f64;
        if f64::from(*one) > share {
            return share;
        }
        left -= f64::from(*one);
    }
    f64::INFINITY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_gives_the_small_what_they_want_and_the_large_the_same() {
        let check = |wanted: &[u32], room: f64, expected: f64| {
            assert_eq!(level(&mut wanted.to_vec(), room), expected, "{wanted:?} {room}");
        };
        check(&[0, 10, 0, 20], 30.0, f64::INFINITY);
        check(&[0, 10, 0, 20], 25.0, 15.0);
        check(&[100, 1, 100], 21.0, 10.0);
        check(&[5, 5, 5, 5], 10.0, 2.5);
        check(&[5], 0.0, 0.0);
        check(&[], 0.0, f64::INFINITY);
        check(&[0, 0], 0.0, f64::INFINITY);
    }

    #[test]
    fn classes_come_one_after_another() {
        let shares = Shares::new(2);
        let (first, second) = (shares.who(0, b"a"), shares.who(1, b"a"));
        let ask = |who: Who, times: u32| {
            (0..times).for_each(|_| {
                shares.ask(who, 0);
            });
        };
        ask(first, 80);
        ask(second, 80);
        shares.divide(100.0 / 1.5, 5000);
        assert_eq!(shares.ask(first, u64::MAX), Standing::Right);
        assert_eq!((shares.ask(second, u64::MAX), shares.ask(second, 0)), (Standing::None, Standing::Spare));
        ask(first, 199);
        ask(second, 200);
        shares.divide(100.0 / 1.5, 5000);
        assert_eq!((shares.ask(first, u64::MAX), shares.ask(first, 0)), (Standing::None, Standing::Spare));
        assert_eq!(shares.ask(second, 0), Standing::None, "nothing is left");
        shares.divide(100.0, 5000);
        assert_eq!(shares.ask(second, u64::MAX), Standing::Right, "all is well again");
    }
}
