//! What each key owes, in memory of fixed size, shared by all cores without a lock.
//!
//! A table of sets of eight slots. A key has one set, by its hash under a seed that nobody outside
//! knows, and any slot in it. When its set is full the slot that owes least is forgotten: an expired
//! one if there is any, and then nothing is lost. With more keys in debt than slots, those that owe
//! least start afresh; the memory does not grow, whoever calls.
//!
//! Two threads that work on one key agree by compare-and-swap on its arrival time. While a key is
//! being forgotten a charge may be lost with it, or fall on the key that takes its place: by one call.

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

pub(super) struct Cells {
    seed: foldhash::quality::RandomState,
    mask: u64,
    /// Made when the first of its keys comes, so that a large table that few use costs little.
    chunks: Box<[OnceLock<Box<[Set]>>]>,
}

/// Hashes in one cache line, arrival times in the next.
#[derive(Default)]
#[repr(align(64))]
struct Set {
    hashes: [AtomicU64; WAYS],
    arrivals: [AtomicU64; WAYS],
}

/// A key's hash: neither [`EMPTY`] nor [`RELEASED`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyHash(u64);

const WAYS: usize = 8;
const SETS_PER_CHUNK: usize = 64;
/// Never used. Slots are filled in order and never emptied, so that two threads that bring one new key meet.
const EMPTY: u64 = 0;
/// Was claimed twice at once and let go; owes next to nothing, so it is soon claimed again.
const RELEASED: u64 = 1;

impl Cells {
    /// Room for about `keys`, rounded up to a power of two of sets.
    pub(super) fn new(keys: u64) -> Cells {
        let sets = keys.div_ceil(WAYS as u64).next_power_of_two();
        let chunks = sets.div_ceil(SETS_PER_CHUNK as u64);
        Cells {
            seed: foldhash::quality::RandomState::default(),
            mask: sets - 1,
            chunks: (0..chunks).map(|_| OnceLock::new()).collect(),
        }
    }

    /// Of what `key` writes.
    pub(super) fn hash(&self, key: impl FnOnce(&mut dyn FnMut(&[u8]))) -> KeyHash {
        KeyHash::new(&self.seed, key)
    }

    /// The arrival time of a key; zero if it is not known.
    pub(super) fn read(&self, key: KeyHash) -> u64 {
        let (chunk, at) = self.place(key);
        let Some(set) = chunk.get().map(|chunk| &chunk[at]) else { return 0 };
        set.find(key).map_or(0, |slot| set.arrivals[slot].load(Relaxed))
    }

    /// Replaces the arrival time of a key by what `change` makes of it, unless that is an error.
    /// `change` may run several times.
    pub(super) fn update<T, E>(
        &self,
        key: KeyHash,
        mut change: impl FnMut(u64) -> Result<(u64, T), E>,
    ) -> Result<T, E> {
        let (chunk, at) = self.place(key);
        let set = &chunk.get_or_init(|| {
            let sets = SETS_PER_CHUNK.min(self.mask as usize + 1);
            (0..sets).map(|_| Set::default()).collect()
        })[at];
        loop {
            let Some(slot) = set.find(key).or_else(|| set.claim(key)) else { continue };
            let arrival = set.arrivals[slot].load(Relaxed);
            let (new, out) = change(arrival)?;
            // If it fails, another has changed it or the slot is another key's: look again.
            if set.arrivals[slot].compare_exchange(arrival, new, Relaxed, Relaxed).is_ok() {
                return Ok(out);
            }
        }
    }

    fn place(&self, KeyHash(hash): KeyHash) -> (&OnceLock<Box<[Set]>>, usize) {
        let set = (hash & self.mask) as usize;
        (&self.chunks[set / SETS_PER_CHUNK], set % SETS_PER_CHUNK)
    }
}

impl KeyHash {
    pub(super) fn new(seed: &foldhash::quality::RandomState, key: impl FnOnce(&mut dyn FnMut(&[u8]))) -> KeyHash {
        let mut hasher = seed.build_hasher();
        key(&mut |bytes| hasher.write(bytes));
        KeyHash(hasher.finish().max(RELEASED + 1))
    }

    pub(super) fn bits(self) -> u64 {
        self.0
    }

    #[cfg(test)]
    pub(super) fn from_bits(bits: u64) -> KeyHash {
        KeyHash(bits)
    }
}

impl Set {
    fn find(&self, KeyHash(key): KeyHash) -> Option<usize> {
        self.hashes.iter().position(|hash| hash.load(SeqCst) == key)
    }

    /// A slot for a key that has none; `None` if another thread was faster, and one must look again.
    fn claim(&self, KeyHash(key): KeyHash) -> Option<usize> {
        // Looking for the key and for an empty slot is one walk. Were it two, another thread could bring
        // the key between them, and one would go past it to the next empty slot.
        for (slot, hash) in self.hashes.iter().enumerate() {
            match hash.compare_exchange(EMPTY, key, SeqCst, SeqCst) {
                Ok(_) => return Some(slot),
                Err(other) if other == key => return Some(slot),
                Err(_) => {}
            }
        }
        let owes = |slot: usize| self.arrivals[slot].load(Relaxed);
        let (slot, arrival) = (0..WAYS).map(|slot| (slot, owes(slot))).min_by_key(|(_, arrival)| *arrival)?;
        let old = self.hashes[slot].load(SeqCst);
        // The debt goes first: the new key must not be seen with it.
        self.arrivals[slot].compare_exchange(arrival, 0, SeqCst, SeqCst).ok()?;
        self.hashes[slot].compare_exchange(old, key, SeqCst, SeqCst).ok()?;
        // Two threads may have chosen different slots for one key, since debts change meanwhile.
        let twice = (0..WAYS).any(|other| other != slot && self.hashes[other].load(SeqCst) == key);
        if twice {
            // Unless it is another key's already.
            let _ = self.hashes[slot].compare_exchange(key, RELEASED, SeqCst, SeqCst);
            return None;
        }
        Some(slot)
    }
}

impl fmt::Debug for Cells {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cells").field("keys", &((self.mask + 1) * WAYS as u64)).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(cells: &Cells, key: u64) -> KeyHash {
        cells.hash(|write| write(&key.to_le_bytes()))
    }

    fn add(cells: &Cells, key: u64, more: u64) {
        let key = hash(cells, key);
        cells.update(key, |arrival| Ok::<_, ()>((arrival + more, ()))).unwrap();
    }

    #[test]
    fn keys_keep_their_own() {
        let cells = Cells::new(65536);
        for key in 0..2000 {
            assert_eq!(cells.read(hash(&cells, key)), 0);
            add(&cells, key, key + 1);
            add(&cells, key, 1);
        }
        for key in 0..2000u64 {
            assert_eq!(cells.read(hash(&cells, key)), key + 2);
        }
    }

    #[test]
    fn an_error_changes_nothing() {
        let cells = Cells::new(1);
        add(&cells, 1, 5);
        assert_eq!(cells.update(hash(&cells, 1), |_| Err::<(u64, ()), _>("no")), Err("no"));
        assert_eq!(cells.read(hash(&cells, 1)), 5);
    }

    #[test]
    fn the_one_that_owes_least_is_forgotten() {
        let cells = Cells::new(8);
        for key in 0..8 {
            add(&cells, key, 100 + (key + 3) % 8);
        }
        add(&cells, 8, 1);
        let forgotten: Vec<u64> = (0..8).filter(|key| cells.read(hash(&cells, *key)) == 0).collect();
        assert_eq!(forgotten, [5]);
        assert_eq!(cells.read(hash(&cells, 8)), 1);
    }

    #[test]
    fn untouched_chunks_are_not_made() {
        let cells = Cells::new(1 << 24);
        add(&cells, 1, 1);
        cells.read(hash(&cells, 2));
        assert_eq!(cells.chunks.iter().filter(|chunk| chunk.get().is_some()).count(), 1);
    }

    #[test]
    fn nothing_is_lost_between_threads_while_there_is_room() {
        // New keys are where threads could miss each other, so there are many tables and few rounds.
        for _ in 0..200 {
            let cells = Cells::new(4096);
            let start = std::sync::Barrier::new(4);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        start.wait();
                        (0..100u64).for_each(|round| add(&cells, round % 20, 1));
                    });
                }
            });
            for key in 0..20u64 {
                assert_eq!(cells.read(hash(&cells, key)), 4 * 100 / 20, "{key}");
            }
        }
    }

    #[test]
    fn threads_that_push_each_other_out_come_to_an_end_and_leave_no_key_twice() {
        let cells = Cells::new(8);
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let cells = &cells;
                scope.spawn(move || (0..20_000u64).for_each(|round| add(cells, (round * 7 + thread) % 12, 1)));
            }
        });
        let set = &cells.chunks[0].get().unwrap()[0];
        let mut hashes: Vec<u64> = set.hashes.iter().map(|hash| hash.load(SeqCst)).filter(|it| *it > 1).collect();
        let all = hashes.len();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), all);
    }

    #[test]
    fn a_million_keys_take_no_more_memory_than_was_set_aside() {
        let cells = Cells::new(65536);
        for key in 0..1_000_000 {
            add(&cells, key, 1_000_000 + key);
        }
        let bytes: usize = cells.chunks.iter().filter_map(OnceLock::get).map(|chunk| size_of_val(&**chunk)).sum();
        assert_eq!(bytes, 65536 * 16);
        // Those that owe most are remembered: the last ones here.
        let known = (0..1_000_000).filter(|key| cells.read(hash(&cells, *key)) != 0).count();
        assert!(known <= 65536 && known > 60_000, "{known}");
        assert_eq!(cells.read(hash(&cells, 999_999)), 1_999_999);
    }
}
