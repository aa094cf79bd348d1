//! Whose answers take how much: by api, and by the consumer for whom alone they are kept. Each shard has a table of its own,
//! under the lock it has anyway.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;

use crate::key::Key;

/// What the answers of an api take, to one consumer or to all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    pub api: String,
    /// For whom alone they are kept.
    pub consumer: Option<String>,
    /// Bytes in memory, with what keeping them takes.
    pub memory: u64,
    /// Bytes of heads and bodies on the disk, of those that are still found there.
    pub disk: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Shares(HashMap<u64, Row, foldhash::fast::FixedState>);

#[derive(Debug)]
struct Row {
    api: Box<str>,
    /// As in keys.
    owner: Option<Box<[u8]>>,
    bytes: u64,
    answers: u32,
}

pub(crate) type Sums = BTreeMap<(String, Option<String>), [u64; 2]>;

// === impl Shares ===

impl Shares {
    /// One answer more, of an api and with such a key. Gives the number of the row where it is counted.
    pub(crate) fn enter(&mut self, hasher: &impl BuildHasher, api: &str, key: &[u8], bytes: u64) -> u64 {
        let (owner, number) = (Key::owner(key), Shares::number(hasher, api, key));
        let new = || Row { api: api.into(), owner: owner.map(Box::from), bytes: 0, answers: 0 };
        let row = self.0.entry(number).or_insert_with(new);
        row.answers += 1;
        row.bytes += bytes;
        number
    }

    pub(crate) fn number(hasher: &impl BuildHasher, api: &str, key: &[u8]) -> u64 {
        hasher.hash_one((api, Key::owner(key)))
    }

    /// One answer less, which took so many bytes.
    pub(crate) fn leave(&mut self, number: u64, bytes: u64) {
        let Some(row) = self.0.get_mut(&number) else { return };
        row.bytes = row.bytes.saturating_sub(bytes);
        row.answers -= 1;
        if row.answers == 0 {
            self.0.remove(&number);
        }
    }

    /// One that is counted takes more than it did.
    pub(crate) fn grow(&mut self, number: u64, bytes: u64) {
        if let Some(row) = self.0.get_mut(&number) {
            row.bytes += bytes;
        }
    }

    /// Of which api the answers are that are counted there.
    pub(crate) fn api(&self, number: u64) -> Option<&str> {
        self.0.get(&number).map(|row| &*row.api)
    }

    /// Adds what is here to the sums, which are by place.
    pub(crate) fn add_to(&self, sums: &mut Sums, place: usize) {
        for row in self.0.values().filter(|row| row.bytes > 0) {
            let consumer = row.owner.as_deref().map(|owner| String::from_utf8_lossy(owner).into_owned());
            sums.entry((row.api.to_string(), consumer)).or_default()[place] += row.bytes;
        }
    }
}
