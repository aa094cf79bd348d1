//! A ring of records in memory: one thread puts them in, one takes them out, neither waits for the other. No system call and
//! no lock; all of it works on any words, so on those of a file, too, where whoever comes after a crash finds what nobody took.
//!
//! ```text
//! word 0    what this is
//! word 8    tail: where the first record is that is not yet safe elsewhere
//! word 16   head: where the next record will be
//! word 17   jump: the place from which it goes on with the next lap, since there was nothing in it
//! word 512  items, each: length in bytes u32, records u32 | first sequence | bytes, filled up to a word
//! ```
//!
//! Tail and head count words since the beginning, and never go back. An item is never split: if the rest of a lap is too short
//! for it, a length of 0 stands there, and it begins the next lap. While nothing is in it, the same words are used again and
//! again: they are in the caches, and the others take no memory. An item is there when the head is behind it, which is
//! stored last, so it is there whole or not at all.

use std::cell::Cell;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::memory::Memory;

pub(crate) const MAGIC: u64 = u64::from_ne_bytes(*b"WEIRSPL1");
const TAIL: usize = 8;
const HEAD: usize = 16;
const JUMP: usize = 17;
/// What comes before the items: a page, so that they begin with one.
pub(crate) const BEFORE: usize = 512;
/// Words of an item before its bytes.
const ITEM: u64 = 2;

/// Puts in. Belongs to one thread at a time.
pub(crate) struct Producer {
    memory: Arc<Memory>,
    head: Cell<u64>,
    /// As it was when last looked, beyond a jump.
    tail: Cell<u64>,
}

/// Takes out.
pub(crate) struct Consumer {
    memory: Arc<Memory>,
    /// What is before it was taken, and is not safe until [`release`](Consumer::release).
    read: u64,
    /// As it was when last looked.
    head: u64,
}

/// Records that were put in together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    /// Of the first record; the others follow.
    pub(crate) sequence: u64,
    pub(crate) records: u32,
    bytes: u32,
    /// Where it begins.
    at: u64,
}

/// A new ring in memory that is all zeros.
pub(crate) fn new(memory: Memory) -> (Producer, Consumer) {
    let memory = Arc::new(memory);
    memory[JUMP].store(u64::MAX, Relaxed);
    memory[0].store(MAGIC, Release);
    let producer = Producer { memory: memory.clone(), head: Cell::new(0), tail: Cell::new(0) };
    (producer, Consumer { memory, read: 0, head: 0 })
}

// === impl Producer ===

impl Producer {
    /// Whether so many bytes can be put in now.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.place(ITEM + (bytes as u64).div_ceil(8)).is_some()
    }

    /// So much waits in it that whoever takes it out should not wait for more.
    pub(crate) fn is_filling(&self) -> bool {
        let much = capacity(&self.memory) / 4;
        // What is free by now is looked at only when it seems to be little.
        self.head.get() - self.tail.get() > much && self.head.get() - self.look() > much
    }

    /// Puts records in. Only after there was room for as many bytes.
    pub(crate) fn push(&self, sequence: u64, records: u32, bytes: &[u8]) {
        let words = ITEM + (bytes.len() as u64).div_ceil(8);
        let Some(at) = self.place(words) else { return };
        let head = self.head.get();
        if at > head {
            match self.tail.get() >= head {
                // Nothing need be kept free until this was read, as behind a length of 0.
                true => self.memory[JUMP].store(head, Relaxed),
                false => word(&self.memory, head).store(0, Relaxed),
            }
        }
        let length = bytes.len() as u64;
        word(&self.memory, at).store(length | u64::from(records) << 32, Relaxed);
        word(&self.memory, at + 1).store(sequence, Relaxed);
        let (whole, rest) = bytes.as_chunks::<8>();
        for (to, chunk) in (at + ITEM..).zip(whole) {
            word(&self.memory, to).store(u64::from_ne_bytes(*chunk), Relaxed);
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            word(&self.memory, at + words - 1).store(u64::from_ne_bytes(last), Relaxed);
        }
        self.memory[HEAD].store(at + words, Release);
        self.head.set(at + words);
    }

    /// Where an item of so many words goes.
    fn place(&self, words: u64) -> Option<u64> {
        let capacity = capacity(&self.memory);
        let head = self.head.get();
        let into = head % capacity;
        let fits = into + words <= capacity;
        // What is longer than half might find no place even if there is nothing in it.
        if words > capacity / 2 {
            return None;
        }
        if fits && into <= capacity / 16 && head + words - self.tail.get() <= capacity {
            return Some(head);
        }
        let tail = self.look();
        if tail >= head && (into > capacity / 16 || !fits) {
            return Some(next_lap(&self.memory, head));
        }
        let at = if fits { head } else { next_lap(&self.memory, head) };
        (at + words - tail <= capacity).then_some(at)
    }

    fn look(&self) -> u64 {
        let tail = self.memory[TAIL].load(Acquire);
        let jumped = tail == self.memory[JUMP].load(Relaxed) && tail < self.head.get();
        self.tail.set(if jumped { next_lap(&self.memory, tail) } else { tail });
        self.tail.get()
    }
}

// === impl Consumer ===

impl Consumer {
    /// What would be taken next.
    pub(crate) fn peek(&mut self) -> Option<Item> {
        if self.read == self.head {
            self.head = self.memory[HEAD].load(Acquire);
        }
        let (item, at) = item(&self.memory, self.read, self.head)?;
        self.read = at;
        Some(item)
    }

    /// Takes what was peeked at.
    pub(crate) fn take(&mut self, item: Item, out: &mut Vec<u8>) {
        bytes(&self.memory, item, out);
        self.read = item.end();
    }

    /// Nothing is in it that was not taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.memory[HEAD].load(Acquire) == self.read
    }

    /// What was taken is safe, and its words may be used again.
    pub(crate) fn release(&self) {
        self.memory[TAIL].store(self.read, Release);
    }
}

impl Item {
    fn end(self) -> u64 {
        self.at + ITEM + u64::from(self.bytes).div_ceil(8)
    }
}

// === What is left ===

/// All that is in words which somebody left so, or is changing: the bytes of one item after the other, as far as they make
/// sense. Whoever reads them must recognise records that are not whole.
pub(crate) fn left(words: &[AtomicU64]) -> Vec<u8> {
    let mut out = Vec::new();
    if words.len() <= BEFORE || words[0].load(Acquire) != MAGIC {
        return out;
    }
    let (mut at, head) = (words[TAIL].load(Acquire), words[HEAD].load(Acquire));
    while let Some((item, _)) = item(words, at, head) {
        bytes(words, item, &mut out);
        at = item.end();
    }
    out
}

/// The item at a position or, if the lap ends there, at the beginning of the next, and where that is.
fn item(words: &[AtomicU64], mut at: u64, head: u64) -> Option<(Item, u64)> {
    let capacity = capacity(words);
    if head > 1 << 62 || at > head {
        return None;
    }
    if at == words[JUMP].load(Relaxed) && at < head {
        at = next_lap(words, at);
    }
    if head.checked_sub(at)? > capacity {
        return None;
    }
    loop {
        if at >= head {
            return None;
        }
        let into = at % capacity;
        let first = word(words, at).load(Relaxed);
        let (length, records) = (first as u32, (first >> 32) as u32);
        if length > 0 {
            let item = Item { sequence: word(words, at + 1).load(Relaxed), records, bytes: length, at };
            // Nothing but damage is otherwise.
            let whole = into + (item.end() - at) <= capacity && item.end() <= head;
            return whole.then_some((item, at));
        }
        at = next_lap(words, at);
    }
}

fn bytes(words: &[AtomicU64], item: Item, out: &mut Vec<u8>) {
    let begin = out.len();
    for at in item.at + ITEM..item.end() {
        out.extend_from_slice(&word(words, at).load(Relaxed).to_ne_bytes());
    }
    out.truncate(begin + item.bytes as usize);
}

fn next_lap(words: &[AtomicU64], at: u64) -> u64 {
    at - at % capacity(words) + capacity(words)
}

fn capacity(words: &[AtomicU64]) -> u64 {
    (words.len() - BEFORE) as u64
}

fn word(words: &[AtomicU64], at: u64) -> &AtomicU64 {
    &words[BEFORE + (at % capacity(words)) as usize]
}

/// For whoever has the words only to look at.
pub(crate) fn words(bytes: &[u8]) -> impl Deref<Target = [AtomicU64]> {
    let words: Vec<AtomicU64> =
        bytes.as_chunks::<8>().0.iter().map(|it| AtomicU64::new(u64::from_ne_bytes(*it))).collect();
    words
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// A ring of so many words.
    fn ring(capacity: usize) -> (Producer, Consumer) {
        new(Memory::heap(BEFORE + capacity))
    }

    fn push(producer: &Producer, sequence: u64, bytes: &[u8]) -> bool {
        let room = producer.has_room(bytes.len());
        if room {
            producer.push(sequence, 1, bytes);
        }
        room
    }

    fn take(consumer: &mut Consumer) -> Option<(u64, Vec<u8>)> {
        let item = consumer.peek()?;
        let mut out = Vec::new();
        consumer.take(item, &mut out);
        Some((item.sequence, out))
    }

    #[test]
    fn what_is_put_in_comes_out_in_order_whatever_its_length() {
        let (producer, mut consumer) = ring(32);
        for (number, length) in (0..1000).zip((1..=112).cycle()) {
            let bytes = vec![number as u8; length];
            assert!(push(&producer, number, &bytes), "{number}: {length}");
            assert_eq!(left(&consumer.memory), bytes);
            assert_eq!(take(&mut consumer), Some((number, bytes)));
            assert!(take(&mut consumer).is_none() && consumer.is_empty());
            consumer.release();
        }
        assert!(!producer.has_room(113), "longer than half of the ring");
    }

    #[test]
    fn there_is_room_again_only_when_what_was_taken_is_safe() {
        let (producer, mut consumer) = ring(32);
        // Each takes four words.
        let count = (0..).take_while(|number| push(&producer, *number, &[7; 16])).count();
        assert_eq!(count, 8);
        assert_eq!(take(&mut consumer), Some((0, vec![7; 16])));
        assert!(!push(&producer, 8, &[7; 16]));
        assert_eq!(left(&consumer.memory).len(), 8 * 16, "what was taken is not safe");
        consumer.release();
        assert_eq!(left(&consumer.memory).len(), 7 * 16);
        assert!(push(&producer, 8, &[7; 16]) && !push(&producer, 9, &[7; 16]));
        let rest: Vec<u64> = std::iter::from_fn(|| take(&mut consumer)).map(|it| it.0).collect();
        assert_eq!(rest, (1..=8).collect::<Vec<_>>());
    }

    #[test]
    fn while_it_is_empty_its_beginning_is_used() {
        for before in 1..40 {
            let (producer, mut consumer) = ring(1600);
            for number in 0..before {
                assert!(push(&producer, number, &[1; 80]));
                assert!(take(&mut consumer).is_some());
                consumer.release();
            }
            let used = consumer.memory[BEFORE..].iter().filter(|word| word.load(Relaxed) != 0).count();
            assert!(used <= 112, "{used} words");
            // However far it is filled before anybody looks, all of it is there, but for what is left of a lap.
            let count = (0..).take_while(|number| push(&producer, *number, &[2; 80])).count();
            assert!(count >= 1600 / 12 - 1, "{count}");
            assert_eq!(left(&consumer.memory), vec![2; count * 80]);
            assert_eq!(std::iter::from_fn(|| take(&mut consumer)).count(), count);
        }
    }

    #[test]
    fn one_thread_puts_in_while_another_takes_out() {
        let count = if cfg!(miri) { 200 } else { 100_000 };
        let (producer, mut consumer) = ring(256);
        thread::scope(|scope| {
            scope.spawn(move || {
                for number in 0..count {
                    let bytes = number.to_string().repeat(1 + number as usize % 9);
                    while !push(&producer, number, bytes.as_bytes()) {
                        thread::yield_now();
                    }
                }
            });
            for number in 0..count {
                let (sequence, bytes) = loop {
                    match take(&mut consumer) {
                        Some(it) => break it,
                        None => thread::yield_now(),
                    }
                };
                assert_eq!(
                    (sequence, bytes),
                    (number, number.to_string().repeat(1 + number as usize % 9).into_bytes())
                );
                if number % 3 == 0 {
                    consumer.release();
                }
            }
        });
    }

    #[test]
    fn no_words_make_it_fall_over() {
        let mut state = 9_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        for round in 0..if cfg!(miri) { 20 } else { 5000 } {
            let memory = Memory::heap(BEFORE + 1 + round % 40);
            for word in &memory[..] {
                word.store(random() >> (random() % 40) | random() << (random() % 40), Relaxed);
            }
            memory[0].store(MAGIC, Relaxed);
            if round % 2 == 0 {
                memory[HEAD].store(memory[TAIL].load(Relaxed).wrapping_add(random() % 40), Relaxed);
            }
            let _ = left(&memory);
        }
        assert!(left(&words(&[0; 4096])).is_empty() && left(&words(b"short")).is_empty());
    }
}
