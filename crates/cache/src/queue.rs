//! In which order entries are dropped: S3-FIFO. New ones wait in a small queue, where most are asked for never again;
//! those that are, and those that come back soon after they were dropped, go to the main one.
//!
//! Unlike a list by last use, a hit moves nothing: it is a number in the entry that grows, so a hit takes no lock.

use std::collections::{HashSet, VecDeque};

pub(crate) const SMALL: u8 = 1;
pub(crate) const MAIN: u8 = 2;

#[derive(Debug, Default)]
pub(crate) struct Queues {
    small: VecDeque<Item>,
    main: VecDeque<Item>,
    small_bytes: usize,
    main_bytes: usize,
    /// Hashes of keys that were dropped lately.
    ghosts: VecDeque<u64>,
    ghost_set: HashSet<u64, foldhash::fast::FixedState>,
}

/// An entry by its key's hash and its own number: it may be gone by the time its turn comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) hash: u64,
    pub(crate) id: u64,
}

impl Queues {
    /// Where a new entry waits.
    pub(crate) fn admit(&mut self, item: Item, size: usize) -> u8 {
        let place = if self.ghost_set.remove(&item.hash) { MAIN } else { SMALL };
        self.push(place, item, size);
        place
    }

    pub(crate) fn push(&mut self, place: u8, item: Item, size: usize) {
        if place == MAIN {
            self.main.push_back(item);
            self.main_bytes += size;
        } else {
            self.small.push_back(item);
            self.small_bytes += size;
        }
    }

    /// Whose turn it is. A tenth of the bytes is for those that are new.
    pub(crate) fn pop(&mut self) -> Option<(u8, Item)> {
        let small_first = self.small_bytes * 9 >= self.main_bytes;
        let small = |queues: &mut Queues| queues.small.pop_front().map(|item| (SMALL, item));
        let main = |queues: &mut Queues| queues.main.pop_front().map(|item| (MAIN, item));
        if small_first { small(self).or_else(|| main(self)) } else { main(self).or_else(|| small(self)) }
    }

    /// An entry is no more in its queue, or not of that size.
    pub(crate) fn leave(&mut self, place: u8, size: usize) {
        let bytes = if place == MAIN { &mut self.main_bytes } else { &mut self.small_bytes };
        *bytes = bytes.saturating_sub(size);
    }

    /// Remembers that it was dropped, as many as there are entries.
    pub(crate) fn haunt(&mut self, hash: u64, most: usize) {
        if self.ghost_set.insert(hash) {
            self.ghosts.push_back(hash);
        }
        while self.ghosts.len() > most.max(16) {
            if let Some(old) = self.ghosts.pop_front() {
                self.ghost_set.remove(&old);
            }
        }
    }

    /// Items of entries that are gone pile up where the same keys are replaced again and again.
    pub(crate) fn compact(&mut self, entries: usize, lives: impl Fn(&Item) -> bool) {
        if self.small.len() + self.main.len() > 2 * entries + 64 {
            self.small.retain(&lives);
            self.main.retain(&lives);
        }
    }
}
