//! Where the entries lie: in memory, bounded in bytes, shared by all cores.
//!
//! A hit takes no lock that another core may hold: each core has a [`Front`] of its own, through which it finds what it
//! found before; an entry that is gone says so itself. What is not in the front is looked up in a shard, whose lock is
//! tried for as long as a lookup takes; a core that does not get it goes on as if nothing were there. Only those who
//! purge wait.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::Duration;

use base::{Headers, Time};
use foldhash::quality::RandomState;
use smallvec::SmallVec;

use crate::control::Asks;
use crate::disk::Tier;
use crate::entry::{Entry, Fit};
use crate::flight::{Flight, Ticket};
use crate::key::Key;
use crate::queue::{Item, MAIN, Queues, SMALL};
use crate::shares::{Share, Shares, Sums};

type Map<V> = std::collections::HashMap<u64, V, foldhash::fast::FixedState>;

#[derive(Debug)]
pub struct Store {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    /// Bytes that may be used.
    memory: AtomicUsize,
    used: AtomicUsize,
    /// Bytes of bodies on their way.
    reserved: AtomicUsize,
    entries: AtomicUsize,
    evicted: AtomicU64,
    revalidated: [AtomicU64; 3],
    next: AtomicU64,
    /// What the disk has.
    pub tier: Arc<Tier>,
}

#[derive(Debug, Default)]
struct Shard {
    /// Variants by the hash of their key.
    slots: Map<SmallVec<[Arc<Entry>; 1]>>,
    /// By the hash of a URL, the hashes of the keys it is in.
    urls: Map<SmallVec<[u64; 2]>>,
    queues: Queues,
    flights: Map<SmallVec<[Flying; 1]>>,
    /// Keys whose last answer nobody else could use, until when nobody waits for the next.
    passes: Map<Time>,
    shares: Shares,
}

#[derive(Debug)]
struct Flying {
    key: Box<[u8]>,
    url_at: usize,
    flight: Arc<Flight>,
    /// Others may wait for it.
    shared: bool,
}

/// Where an entry comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    Upstream,
    /// It is there already.
    Disk,
}

/// What was found for a key.
#[derive(Debug)]
pub enum Found {
    Entry(Arc<Entry>),
    /// Answers for other requests to the same URL.
    Others,
    Nothing,
}

/// How a call goes to the upstream.
#[derive(Debug)]
pub enum Boarded {
    /// For all who want the same.
    Lead(Ticket),
    /// Somebody is on his way already.
    Follow(Arc<Flight>),
    /// For nobody else, and what it brings is not kept.
    Alone,
}

/// What is to be forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Purge {
    /// Of this api alone.
    pub api: Option<String>,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum What {
    All,
    /// `https://host/path?query`.
    Url(String),
    /// All URLs that begin so.
    Prefix(String),
    /// One of the words in the answer's `Surrogate-Key` or `Cache-Tag`.
    Tag(String),
}

/// How many answers were forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Each once, wherever it was.
    pub answers: usize,
    pub memory: usize,
    /// Nothing where there is no disk.
    pub disk: Option<usize>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub bytes: usize,
    pub entries: usize,
    pub evicted: u64,
    /// As [`Revalidated`].
    pub revalidated: [u64; 3],
}

/// What became of a question that no call waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revalidated {
    /// What was stored holds once more.
    Unchanged,
    /// There is another answer.
    Replaced,
    /// There was no answer of use; the stale one stays as long as it may.
    Failed,
}

/// What one core has found lately.
#[derive(Debug, Default)]
pub struct Front {
    slots: Vec<(u64, Weak<Entry>)>,
}

const SHARDS: usize = 64;
/// Of one core; 16 bytes each.
const FRONT: usize = 4096;
/// Answers to one key. The oldest goes where there are more.
const VARIANTS: usize = 32;
/// How long nobody waits for a key whose last answer nobody else could use.
const PASS: Duration = Duration::from_secs(10);
const PASSES: usize = 4096;

// === impl Store ===

impl Store {
    pub fn new(memory: usize) -> Arc<Store> {
        Arc::new(Store {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::default(),
            memory: AtomicUsize::new(memory),
            used: AtomicUsize::new(0),
            reserved: AtomicUsize::new(0),
            entries: AtomicUsize::new(0),
            evicted: AtomicU64::new(0),
            revalidated: Default::default(),
            next: AtomicU64::new(1),
            tier: Tier::new(),
        })
    }

    pub fn usage(&self) -> Usage {
        let (bytes, entries) = (self.used.load(Relaxed), self.entries.load(Relaxed));
        let revalidated = [0, 1, 2].map(|at: usize| self.revalidated[at].load(Relaxed));
        Usage { bytes, entries, evicted: self.evicted.load(Relaxed), revalidated }
    }

    /// Whose answers take how much. For threads that may wait.
    pub fn shares(&self) -> Vec<Share> {
        let mut sums = Sums::new();
        (0..SHARDS).for_each(|at| self.wait(at).shares.add_to(&mut sums, 0));
        self.tier.add_shares(&mut sums, 1);
        sums.into_iter().map(|((api, consumer), [memory, disk])| Share { api, consumer, memory, disk }).collect()
    }

    /// Counts an answer that was looked after while the stale one was given.
    pub fn count(&self, revalidated: Revalidated) {
        self.revalidated[revalidated as usize].fetch_add(1, Relaxed);
    }

    /// Changes the bound. For the thread that reloads, not for the path.
    pub fn resize(&self, memory: usize) {
        self.memory.store(memory, Relaxed);
        for shard in 0..SHARDS {
            self.make_room(&mut self.wait(shard));
        }
    }

    /// What answers a request with these fields. `openly`: only if it was meant for everyone.
    pub fn find(&self, front: &mut Front, key: &Key, request: &Headers, openly: bool) -> Found {
        let hash = self.hash(key);
        if let Some(entry) = front.get(hash).filter(|entry| entry.answers(key.bytes(), request, openly)) {
            entry.touch();
            return Found::Entry(entry);
        }
        let Some(shard) = self.lock(self.shard(key)) else { return Found::Nothing };
        let Some(variants) = shard.slots.get(&hash) else { return Found::Nothing };
        let found = variants.iter().rev().find(|entry| entry.answers(key.bytes(), request, openly)).cloned();
        drop(shard);
        match found {
            Some(entry) => {
                entry.touch();
                front.put(hash, &entry);
                Found::Entry(entry)
            }
            None => Found::Others,
        }
    }

    /// Whether what answers a request is fresh as of now, whatever this core found a moment ago. `None` while another core
    /// is changing that.
    pub fn is_fresh(&self, key: &Key, request: &Headers, openly: bool, asks: &Asks, now: Time) -> Option<bool> {
        let shard = self.lock(self.shard(key))?;
        let mut variants = shard.slots.get(&self.hash(key)).into_iter().flatten().rev();
        let newest = variants.find(|entry| entry.answers(key.bytes(), request, openly));
        Some(newest.is_some_and(|entry| entry.fit(asks, now) == Fit::Fresh))
    }

    /// How to fetch what was not found: in place of all who want it, or after somebody else. `apart`: whatever others do.
    pub fn board(self: &Arc<Store>, key: &Key, apart: bool, now: Time) -> Boarded {
        let (at, hash) = (self.shard(key), self.hash(key));
        let Some(mut shard) = self.lock(at) else { return Boarded::Alone };
        let apart = apart || shard.passes.get(&hash).is_some_and(|until| now < *until);
        let flights = shard.flights.entry(hash).or_default();
        flights.retain(|flying| !flying.flight.is_over());
        let same = flights.iter().find(|it| it.shared && *it.key == *key.bytes() && it.flight.is_joinable());
        if let Some(same) = same.filter(|_| !apart) {
            return Boarded::Follow(same.flight.clone());
        }
        let flight = Arc::new(Flight::default());
        let (key, url_at) = (key.bytes().into(), key.url_at());
        flights.push(Flying { key, url_at, flight: flight.clone(), shared: !apart });
        drop(shard);
        Boarded::Lead(Ticket::new(flight, self.clone(), at, hash))
    }

    /// Forgets all that is known of a URL, for whomever, and what is on its way of it.
    pub fn forget(&self, key: &Key) -> usize {
        let url = key.url();
        let Some(mut shard) = self.lock(self.shard(key)) else {
            // It must not be missed: to wait is better here than to go on.
            return self.forget_in(&mut self.wait(self.shard(key)), url);
        };
        self.forget_in(&mut shard, url)
    }

    fn forget_in(&self, shard: &mut Shard, url: &[u8]) -> usize {
        for flying in shard.flights.values().flatten().filter(|flying| flying.key[flying.url_at..] == *url) {
            flying.flight.void();
        }
        self.tier.forget(url);
        let hashes = shard.urls.get(&self.hasher.hash_one(url)).cloned().unwrap_or_default();
        hashes.into_iter().map(|hash| self.remove_where(shard, hash, |entry| entry.url() == url)).sum()
    }

    /// Forgets one whose body is no more where it was.
    pub fn let_go(&self, entry: &Entry) {
        let hash = self.hasher.hash_one(&*entry.key);
        if let Some(mut shard) = self.lock(shard_of(self.hasher.hash_one(entry.url()))) {
            self.remove_where(&mut shard, hash, |it| it.id == entry.id);
        }
    }

    /// Forgets one whose body turned out not to be what was written.
    pub fn lose(&self, entry: &Entry) {
        self.let_go(entry);
        self.tier.forget(entry.url());
    }

    /// Forgets what is named. For threads that may wait.
    pub fn purge(&self, purge: &Purge) -> Purged {
        let named = |entry: &Entry| purge.names(&entry.api, entry.url(), &entry.plan.tags);
        self.tier.begin_purge(purge);
        let (mut memory, mut both) = (0, 0);
        for shard in 0..SHARDS {
            let mut shard = self.wait(shard);
            // What is on its way may be named too.
            shard.flights.values().flatten().for_each(|flying| flying.flight.void());
            let found: Vec<Arc<Entry>> = shard.slots.values().flatten().filter(|it| named(it)).cloned().collect();
            for entry in found {
                memory += self.remove_where(&mut shard, self.hasher.hash_one(&*entry.key), |it| it.id == entry.id);
                both += usize::from(self.tier.forget_same(&entry));
            }
        }
        let alone = self.tier.end_purge(purge);
        Purged { answers: memory + alone.unwrap_or_default(), memory, disk: alone.map(|alone| both + alone) }
    }

    /// Lets go of what is over. Now and then, by anybody.
    pub fn sweep(&self, now: Time) {
        for shard in 0..SHARDS {
            let Some(mut shard) = self.lock(shard) else { continue };
            shard.passes.retain(|_, until| now < *until);
            shard.flights.retain(|_, flights| {
                flights.retain(|flying| !flying.flight.is_over());
                !flights.is_empty()
            });
        }
    }

    /// Bodies on their way may take as much again as a half of what is kept.
    pub(crate) fn reserve(&self, bytes: usize) -> bool {
        let most = self.memory.load(Relaxed) / 2;
        let take = |reserved: usize| reserved.checked_add(bytes).filter(|sum| *sum <= most);
        self.reserved.fetch_update(Relaxed, Relaxed, take).is_ok()
    }

    pub(crate) fn release(&self, bytes: usize) {
        self.reserved.fetch_sub(bytes, Relaxed);
    }

    pub(crate) fn numbered(&self, mut entry: Entry) -> Entry {
        entry.id = self.next.fetch_add(1, Relaxed);
        entry
    }

    /// Keeps an entry in place of the one that answers the same, unless what `flight` brings is out of date. `from` is
    /// the key it was fetched for.
    pub(crate) fn put(&self, from: u64, flight: &Flight, entry: &Arc<Entry>, of: Of) {
        let hash = self.hasher.hash_one(&*entry.key);
        let url = self.hasher.hash_one(entry.url());
        let Some(mut shard) = self.lock_to_keep(shard_of(url)) else { return };
        // With the lock, as whoever forgets has it.
        if flight.is_void() {
            return;
        }
        if of == Of::Upstream {
            self.tier.offer(entry);
        }
        shard.passes.remove(&from);
        if entry.size() > self.memory.load(Relaxed) / 2 {
            // What it replaces is older.
            self.remove_where(&mut shard, hash, |old| *old.key == *entry.key && old.plan.vary == entry.plan.vary);
            return;
        }
        self.remove_where(&mut shard, hash, |old| *old.key == *entry.key && old.plan.vary == entry.plan.vary);
        let variants = shard.slots.get(&hash).map_or(0, SmallVec::len);
        if variants >= VARIANTS
            && let Some(oldest) = shard.slots.get(&hash).and_then(|it| it.first()).map(|it| it.id)
        {
            self.remove_where(&mut shard, hash, |old| old.id == oldest);
        }
        let size = entry.size();
        self.enter(&mut shard.shares, entry);
        let place = shard.queues.admit(Item { hash, id: entry.id }, size);
        entry.place.store(place, Relaxed);
        shard.slots.entry(hash).or_default().push(entry.clone());
        let keys = shard.urls.entry(url).or_default();
        if !keys.contains(&hash) {
            keys.push(hash);
        }
        self.used.fetch_add(size, Relaxed);
        self.entries.fetch_add(1, Relaxed);
        self.make_room(&mut shard);
        drop(shard);
        // This shard may have had nothing to give.
        for other in 1..SHARDS {
            if self.used.load(Relaxed) <= self.memory.load(Relaxed) {
                return;
            }
            if let Some(mut shard) = self.lock((shard_of(url) + other) % SHARDS) {
                self.make_room(&mut shard);
            }
        }
    }

    /// Puts an entry where the old one was, if that is still there.
    pub(crate) fn replace(&self, from: u64, flight: &Flight, old: &Arc<Entry>, entry: &Arc<Entry>) {
        if old.is_gone() || old.key != entry.key {
            return self.put(from, flight, entry, Of::Upstream);
        }
        let hash = self.hasher.hash_one(&*entry.key);
        let Some(mut locked) = self.lock_to_keep(shard_of(self.hasher.hash_one(entry.url()))) else { return };
        if flight.is_void() {
            return;
        }
        let shard = &mut *locked;
        let found = shard.slots.get_mut(&hash).and_then(|it| it.iter_mut().find(|it| Arc::ptr_eq(it, old)));
        let Some(there) = found else {
            // Memory has had no room for it: it is on the disk alone.
            drop(locked);
            return self.put(from, flight, entry, Of::Upstream);
        };
        self.tier.offer(entry);
        let (before, after, place) = (old.size(), entry.size(), old.place.load(Relaxed));
        self.leave(&mut shard.shares, old);
        self.enter(&mut shard.shares, entry);
        entry.place.store(place, Relaxed);
        entry.asked.store(old.asked.load(Relaxed), Relaxed);
        old.gone.store(true, Relaxed);
        *there = entry.clone();
        shard.queues.leave(place, before);
        shard.queues.push(place, Item { hash, id: entry.id }, after);
        self.used.fetch_add(after, Relaxed);
        self.used.fetch_sub(before, Relaxed);
        self.make_room(shard);
    }

    pub(crate) fn note_pass(&self, shard: usize, hash: u64, now: Time) {
        if let Some(mut shard) = self.lock(shard)
            && shard.passes.len() < PASSES
        {
            shard.passes.insert(hash, now + PASS);
        }
    }

    fn make_room(&self, shard: &mut Shard) {
        let entries = shard.slots.len();
        let Shard { slots, queues, .. } = shard;
        queues.compact(entries, |item| slots.get(&item.hash).is_some_and(|all| all.iter().any(|it| it.id == item.id)));
        while self.used.load(Relaxed) > self.memory.load(Relaxed) {
            let Some((from, item)) = shard.queues.pop() else { return };
            let all = shard.slots.get(&item.hash);
            let Some(entry) = all.and_then(|all| all.iter().find(|it| it.id == item.id)).cloned() else { continue };
            let (size, asked) = (entry.size(), entry.asked.load(Relaxed));
            let stays = if from == SMALL { asked > 1 } else { asked > 0 };
            if stays {
                entry.asked.store(if from == SMALL { 0 } else { asked - 1 }, Relaxed);
                entry.place.store(MAIN, Relaxed);
                shard.queues.leave(from, size);
                shard.queues.push(MAIN, item, size);
                continue;
            }
            self.remove_where(shard, item.hash, |it| it.id == item.id);
            self.evicted.fetch_add(1, Relaxed);
            if from == SMALL {
                let most = shard.slots.len();
                shard.queues.haunt(item.hash, most);
            }
        }
    }

    /// Takes out the entries of a key for which it is said so.
    fn remove_where(&self, shard: &mut Shard, hash: u64, gone: impl Fn(&Entry) -> bool) -> usize {
        let Shard { slots, urls, queues, shares, .. } = shard;
        let Some(variants) = slots.get_mut(&hash) else { return 0 };
        let before = variants.len();
        let mut url = None;
        variants.retain(|entry| {
            let goes = gone(entry);
            if goes {
                let size = entry.size();
                entry.gone.store(true, Relaxed);
                queues.leave(entry.place.load(Relaxed), size);
                self.used.fetch_sub(size, Relaxed);
                self.entries.fetch_sub(1, Relaxed);
                self.leave(shares, entry);
                url = Some(self.hasher.hash_one(entry.url()));
            }
            !goes
        });
        let removed = before - variants.len();
        if variants.is_empty() {
            slots.remove(&hash);
            if let Some(url) = url
                && let Some(keys) = urls.get_mut(&url)
            {
                keys.retain(|key| *key != hash);
                if keys.is_empty() {
                    urls.remove(&url);
                }
            }
        }
        removed
    }

    fn enter(&self, shares: &mut Shares, entry: &Entry) {
        shares.enter(&self.hasher, &entry.api, &entry.key, entry.size() as u64);
    }

    fn leave(&self, shares: &mut Shares, entry: &Entry) {
        shares.leave(Shares::number(&self.hasher, &entry.api, &entry.key), entry.size() as u64);
    }

    fn hash(&self, key: &Key) -> u64 {
        self.hasher.hash_one(key.bytes())
    }

    fn shard(&self, key: &Key) -> usize {
        shard_of(self.hasher.hash_one(key.url()))
    }

    /// A shard, if it can be had at once or nearly so.
    fn lock(&self, shard: usize) -> Option<MutexGuard<'_, Shard>> {
        for _ in 0..64 {
            match self.shards[shard].try_lock() {
                Ok(shard) => return Some(shard),
                // A panic within left nothing that the next lookup could not bear.
                Err(TryLockError::Poisoned(shard)) => return Some(shard.into_inner()),
                Err(TryLockError::WouldBlock) => std::hint::spin_loop(),
            }
        }
        None
    }

    /// What was fetched is worth a few turns of the core: whoever holds the lock may wait for one.
    fn lock_to_keep(&self, shard: usize) -> Option<MutexGuard<'_, Shard>> {
        (0..32).find_map(|_| {
            let locked = self.lock(shard);
            if locked.is_none() {
                std::thread::yield_now();
            }
            locked
        })
    }

    fn wait(&self, shard: usize) -> MutexGuard<'_, Shard> {
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shard_of(url: u64) -> usize {
    (url >> 32) as usize % SHARDS
}

// === impl Front ===

impl Front {
    fn get(&self, hash: u64) -> Option<Arc<Entry>> {
        let (known, entry) = self.slots.get(hash as usize % FRONT)?;
        if *known != hash {
            return None;
        }
        entry.upgrade().filter(|entry| !entry.is_gone())
    }

    fn put(&mut self, hash: u64, entry: &Arc<Entry>) {
        if self.slots.is_empty() {
            self.slots.resize(FRONT, (0, Weak::new()));
        }
        self.slots[hash as usize % FRONT] = (hash, Arc::downgrade(entry));
    }
}

#[cfg(test)]
mod tests;
