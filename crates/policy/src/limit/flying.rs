//! How many calls each key has in flight, in memory of fixed size, shared by all cores without a lock.
//!
//! A table of sets of eight slots, as that of the arrival times. Here a slot is one word, of a key's tag and its
//! count, so that neither changes without the other: a count that fell on another key would never be given back.
//! A slot whose count is zero is free. Where all slots of a set are taken by other keys, a call is not counted.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::cells::KeyHash;

pub(super) struct Flying {
    seed: foldhash::quality::RandomState,
    mask: u64,
    /// Made when the first of its keys comes.
    chunks: Box<[OnceLock<Box<[Set]>>]>,
}

/// One cache line.
#[derive(Default)]
#[repr(align(64))]
struct Set([AtomicU64; WAYS]);

/// What became of a call that wants to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Took {
    /// It is the so many-th.
    Counted(u64),
    /// There is no slot for its key.
    Uncounted,
    Full,
}

pub(super) const MOST: u64 = COUNT;

const WAYS: usize = 8;
const SETS_PER_CHUNK: usize = 64;
/// The bits of a slot that are the count; the others are the upper ones of the key's hash, of which the lower choose
/// the set.
const COUNT: u64 = (1 << 24) - 1;

impl Flying {
    /// Room for about `keys`, rounded up to a power of two of sets.
    pub(super) fn new(keys: u64) -> Flying {
        let sets = keys.div_ceil(WAYS as u64).next_power_of_two();
        let chunks = sets.div_ceil(SETS_PER_CHUNK as u64);
        let chunks = (0..chunks).map(|_| OnceLock::new()).collect();
        Flying { seed: foldhash::quality::RandomState::default(), mask: sets - 1, chunks }
    }

    /// Of what `key` writes.
    pub(super) fn hash(&self, key: impl FnOnce(&mut dyn FnMut(&[u8]))) -> KeyHash {
        KeyHash::new(&self.seed, key)
    }

    pub(super) fn read(&self, key: KeyHash) -> u64 {
        let (chunk, at) = self.place(key);
        let Some(Set(slots)) = chunk.get().map(|chunk| &chunk[at]) else { return 0 };
        let found = slots.iter().map(|slot| slot.load(Relaxed)).find(|value| is_of(*value, key));
        found.map_or(0, |value| value & COUNT)
    }

    /// Counts a call, unless its key has `most` in flight.
    pub(super) fn take(&self, key: KeyHash, most: u64) -> Took {
        let (chunk, at) = self.place(key);
        let Set(slots) = &chunk.get_or_init(|| {
            let sets = SETS_PER_CHUNK.min(self.mask as usize + 1);
            (0..sets).map(|_| Set::default()).collect()
        })[at];
        loop {
            let (mut own, mut free) = (None, None);
            for slot in slots {
                let value = slot.load(Relaxed);
                if is_of(value, key) {
                    own = Some((slot, value));
                    break;
                }
                if value & COUNT == 0 && free.is_none() {
                    free = Some((slot, value));
                }
            }
            let (slot, old, new) = match (own, free) {
                (Some((_, value)), _) if value & COUNT >= most.min(COUNT) => return Took::Full,
                (Some((slot, value)), _) => (slot, value, value + 1),
                (None, Some((slot, value))) => (slot, value, tag(key) | 1),
                (None, None) => return Took::Uncounted,
            };
            if slot.compare_exchange(old, new, Relaxed, Relaxed).is_ok() {
                return Took::Counted(new & COUNT);
            }
        }
    }

    /// One that was counted is over.
    pub(super) fn give_back(&self, key: KeyHash) {
        let (chunk, at) = self.place(key);
        let Some(Set(slots)) = chunk.get().map(|chunk| &chunk[at]) else { return };
        // Two calls that brought a key at once may have counted it in two slots; any of them will do.
        loop {
            let Some((slot, value)) =
                slots.iter().map(|slot| (slot, slot.load(Relaxed))).find(|(_, value)| is_of(*value, key))
            else {
                return;
            };
            if slot.compare_exchange(value, value - 1, Relaxed, Relaxed).is_ok() {
                return;
            }
        }
    }

    fn place(&self, key: KeyHash) -> (&OnceLock<Box<[Set]>>, usize) {
        let set = (key.bits() & self.mask) as usize;
        (&self.chunks[set / SETS_PER_CHUNK], set % SETS_PER_CHUNK)
    }
}

fn tag(key: KeyHash) -> u64 {
    key.bits() & !COUNT
}

fn is_of(value: u64, key: KeyHash) -> bool {
    value & COUNT > 0 && value & !COUNT == tag(key)
}

impl fmt::Debug for Flying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flying").field("keys", &((self.mask + 1) * WAYS as u64)).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(of: u64) -> KeyHash {
        // In one set each, with tags of their own.
        KeyHash::from_bits((of + 1) << 24)
    }

    #[test]
    fn as_many_as_there_may_be_and_again_what_is_given_back() {
        let flying = Flying::new(1);
        assert_eq!([1, 2].map(|_| flying.take(key(1), 2)), [Took::Counted(1), Took::Counted(2)]);
        assert_eq!(flying.take(key(1), 2), Took::Full);
        assert_eq!(flying.take(key(2), 2), Took::Counted(1));
        flying.give_back(key(1));
        assert_eq!((flying.read(key(1)), flying.read(key(2)), flying.read(key(3))), (1, 1, 0));
        assert_eq!(flying.take(key(1), 2), Took::Counted(2));
    }

    #[test]
    fn more_keys_than_room_are_not_counted_and_harm_nobody() {
        let flying = Flying::new(1);
        assert!((0..8).all(|of| flying.take(key(of), 1) == Took::Counted(1)));
        assert_eq!(flying.take(key(8), 1), Took::Uncounted);
        assert_eq!(flying.take(key(7), 1), Took::Full);
        // What was not counted is not given back; were it, it would find nothing.
        flying.give_back(key(8));
        assert!((0..8).all(|of| flying.read(key(of)) == 1));
        flying.give_back(key(3));
        assert_eq!(flying.take(key(8), 1), Took::Counted(1));
    }

    #[test]
    fn nothing_stays_behind_between_threads() {
        let flying = Flying::new(8);
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let flying = &flying;
                scope.spawn(move || {
                    for round in 0..20_000u64 {
                        let key = key((round * 7 + thread) % 12);
                        if let Took::Counted(_) = flying.take(key, 3) {
                            flying.give_back(key);
                        }
                    }
                });
            }
        });
        assert!((0..12).all(|of| flying.read(key(of)) == 0));
    }
}
