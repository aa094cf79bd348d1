//! What was purged, for answers that only the disk has: they are told when they are read. So a purge takes no longer for
//! what is on the disk, and is written down in a few bytes.

use std::collections::HashMap;

use base::crc32c;

use super::codec::{In, Out};
use super::record::Card;
use crate::store::{Purge, What};

/// All that was written before, and is named so, is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    pub sequence: u64,
    pub purge: Purge,
}

#[derive(Debug, Default)]
pub(crate) struct Bans {
    exact: HashMap<Purge, u64>,
    prefixes: HashMap<Purge, u64>,
    /// Bytes of what they name.
    bytes: usize,
}

/// Of all that is written, whenever: until it is known when.
pub(crate) const ALWAYS: u64 = u64::MAX;
/// Bytes of what bans name. Beyond, more is gone than was named.
const MOST: usize = 1 << 20;

// === impl Bans ===

impl Bans {
    /// One that was purged before: if it was once more since, that counts.
    pub(crate) fn add_older(&mut self, purge: Purge, sequence: u64) {
        let known = self.exact.get(&purge).or_else(|| self.prefixes.get(&purge));
        if known.is_none_or(|known| *known < sequence) {
            self.add(purge, sequence);
        }
    }

    /// In place of what was known of the same.
    pub(crate) fn add(&mut self, purge: Purge, sequence: u64) {
        let size = purge.size();
        let map = if matches!(purge.what, What::Prefix(_)) { &mut self.prefixes } else { &mut self.exact };
        if map.insert(purge, sequence).is_none() {
            self.bytes += size;
        }
        if self.bytes > MOST {
            self.condense();
        }
    }

    /// Gives a place in the order to all that have none.
    pub(crate) fn settle(&mut self, sequence: u64) {
        for at in self.exact.values_mut().chain(self.prefixes.values_mut()).filter(|at| **at == ALWAYS) {
            *at = sequence;
        }
    }

    /// Whether an answer that was written is gone.
    pub(crate) fn hit(&self, card: &Card) -> bool {
        let sequence = card.sequence;
        if self.bytes == 0 {
            return false;
        }
        let url = String::from_utf8_lossy(card.url());
        let tags = card.tags.iter().cloned().map(What::Tag);
        let names: Vec<What> = [What::All, What::Url(url.to_string())].into_iter().chain(tags).collect();
        for api in [None, Some(card.api.clone())] {
            for what in &names {
                let purge = Purge { api: api.clone(), what: what.clone() };
                if self.exact.get(&purge).is_some_and(|at| *at >= sequence) {
                    return true;
                }
            }
        }
        self.prefixes.iter().any(|(purge, at)| *at >= sequence && purge.names(&card.api, card.url(), &card.tags))
    }

    /// Lets go of those that nothing is older than.
    pub(crate) fn prune(&mut self, oldest: u64) {
        self.retain(|at| at >= oldest);
    }

    pub(crate) fn all(&self) -> Vec<Ban> {
        let all = self.exact.iter().chain(&self.prefixes);
        all.map(|(purge, sequence)| Ban { sequence: *sequence, purge: purge.clone() }).collect()
    }

    /// The older half becomes one that names everything.
    fn condense(&mut self) {
        let mut order: Vec<u64> = self.exact.values().chain(self.prefixes.values()).copied().collect();
        order.sort_unstable();
        let middle = order[order.len() / 2];
        self.retain(|at| at > middle);
        self.add_older(Purge { api: None, what: What::All }, middle);
    }

    fn retain(&mut self, keep: impl Fn(u64) -> bool) {
        let bytes = &mut self.bytes;
        for map in [&mut self.exact, &mut self.prefixes] {
            map.retain(|purge, at| {
                let stays = keep(*at);
                if !stays {
                    *bytes -= purge.size();
                }
                stays
            });
        }
    }
}

impl Purge {
    /// Whether it names an answer of such an api, URL and tags.
    pub(crate) fn names(&self, api: &str, url: &[u8], tags: &[String]) -> bool {
        self.api.as_ref().is_none_or(|it| **it == *api)
            && match &self.what {
                What::All => true,
                What::Url(it) => url == it.as_bytes(),
                What::Prefix(prefix) => url.starts_with(prefix.as_bytes()),
                What::Tag(tag) => tags.contains(tag),
            }
    }

    fn size(&self) -> usize {
        let text = match &self.what {
            What::All => 0,
            What::Url(text) | What::Prefix(text) | What::Tag(text) => text.len(),
        };
        64 + text + self.api.as_ref().map_or(0, String::len)
    }
}

// === impl Ban ===

impl Ban {
    /// Its length, a checksum, itself.
    pub fn encode(&self) -> Vec<u8> {
        let Ban { sequence, purge: Purge { api, what } } = self;
        let mut out = Out::default();
        out.long(*sequence);
        out.byte(u8::from(api.is_some()));
        out.text(api.as_deref().unwrap_or_default().as_bytes());
        let (kind, text) = match what {
            What::All => (0, ""),
            What::Url(text) => (1, &**text),
            What::Prefix(text) => (2, &**text),
            What::Tag(text) => (3, &**text),
        };
        out.byte(kind);
        out.text(text.as_bytes());
        let mut framed = Out::default();
        framed.short(crc32c(&out.0));
        framed.text(&out.0);
        framed.0
    }

    /// Stands before them all and says how many they are at least, so that it shows where their end was cut off. It is
    /// written after those it counts.
    pub fn heading(count: u64) -> Vec<u8> {
        let mut out = Out::default();
        out.long(count);
        let sum = crc32c(&out.0);
        out.short(sum);
        out.0
    }

    pub fn encode_all(bans: &[Ban]) -> Vec<u8> {
        Ban::heading(bans.len() as u64).into_iter().chain(bans.iter().flat_map(Ban::encode)).collect()
    }

    /// All that are whole, and whether that is all there is. What is torn is at the end, of a process that was killed.
    pub fn decode_all(bytes: &[u8]) -> (Vec<Ban>, bool) {
        let (mut input, mut bans) = (In(bytes), Vec::new());
        let count = Ban::decode_heading(&mut input);
        while !input.0.is_empty() {
            let Some(ban) = Ban::decode(&mut input) else { return (bans, false) };
            bans.push(ban);
        }
        let whole = count.is_some_and(|count| bans.len() as u64 >= count);
        (bans, whole)
    }

    fn decode_heading(input: &mut In<'_>) -> Option<u64> {
        let (count, sum) = (input.long()?, input.short()?);
        (crc32c(&count.to_le_bytes()) == sum).then_some(count)
    }

    fn decode(input: &mut In<'_>) -> Option<Ban> {
        let (sum, bytes) = (input.short()?, input.text()?);
        (sum == crc32c(bytes)).then_some(())?;
        let mut input = In(bytes);
        let sequence = input.long()?;
        let named = input.byte()? == 1;
        let api = input.string()?;
        let (kind, text) = (input.byte()?, input.string()?);
        let what = match kind {
            0 => What::All,
            1 => What::Url(text),
            2 => What::Prefix(text),
            3 => What::Tag(text),
            _ => return None,
        };
        Some(Ban { sequence, purge: Purge { api: named.then_some(api), what } })
    }
}
