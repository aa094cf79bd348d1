//! What is known in memory of the answers on the disk: for each, where it is and which requests it may be for. A lookup
//! finds one candidate at most; whether it is the one is seen when its head has been read.
//!
//! The workers ask and offer here and wait for nothing; the threads of the crate `disk` take what is offered, and say what
//! came of it. Without a disk, all of it is one look at an atomic.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use base::Headers;
use foldhash::quality::RandomState;
use smallvec::SmallVec;

use super::bans::{ALWAYS, Ban, Bans};
use super::record::{Card, Spot};
use crate::entry::Entry;
use crate::key::Key;
use crate::plan::{Varied, normal};
use crate::store::{Purge, What};

type Map<V> = std::collections::HashMap<u64, V, foldhash::fast::FixedState>;

#[derive(Debug)]
pub struct Tier {
    state: AtomicU8,
    /// The same, for those who look at it all the time.
    on: AtomicBool,
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    bans: Mutex<Bans>,
    next: AtomicU64,
    /// Bytes of bodies that wait to be written.
    queued: AtomicUsize,
    /// The longest body that is written.
    most: AtomicUsize,
    bytes: AtomicU64,
    entries: AtomicUsize,
    counts: [AtomicU64; 6],
    jobs: Sender<Job>,
    taken: Mutex<Option<Receiver<Job>>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TierState {
    /// The document wants none.
    #[default]
    Off,
    /// Another process has the folder, or it is being read.
    Waiting,
    On,
    /// The disk does not take anything.
    Failed,
}

/// What happens on the disk, to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// An answer was found there.
    Hit,
    Written,
    /// An answer was not written, since too many wait.
    Dropped,
    /// A segment gave way to the next.
    Evicted,
    /// Reading or writing failed.
    Error,
    /// What was read is not what was written.
    Corrupt,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierUsage {
    pub state: TierState,
    pub bytes: u64,
    pub entries: usize,
    /// As [`Counted`].
    pub counts: [u64; 6],
}

/// What is to be done on the disk, in this order.
#[derive(Debug)]
pub enum Job {
    Write {
        entry: Arc<Entry>,
        sequence: u64,
    },
    /// It must be there after a restart. Who wants to know hears whether it is.
    Ban(Ban, Option<Sender<bool>>),
    /// There is something else to be done.
    Look,
}

/// What the index has for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDisk {
    At(Slot),
    /// Answers for other requests to the same URL.
    Others,
    Nothing,
}

/// An answer that is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The hash of its URL.
    pub url: u64,
    pub sequence: u64,
    pub spot: Spot,
}

#[derive(Debug, Default)]
struct Shard {
    /// By the hash of a URL.
    urls: Map<SmallVec<[Known; 1]>>,
    /// The lists of fields that answers here vary by: there are few, and many answers have the same.
    lists: Vec<Box<[String]>>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    sequence: u64,
    /// Nowhere while it waits to be written.
    spot: Option<Spot>,
    key: u32,
    values: u32,
    list: u16,
    open: bool,
    asked: bool,
}

const SHARDS: usize = 64;
/// Bytes of bodies that wait to be written, at most.
const QUEUE: usize = 32 << 20;
/// What else waits with them, each.
const AROUND: usize = 2048;
const LISTS: usize = 1024;
/// Answers to one URL, for whomever. The oldest goes where there are more.
const VARIANTS: usize = 64;

// === impl Tier ===

impl Tier {
    pub(crate) fn new() -> Arc<Tier> {
        let (jobs, taken) = mpsc::channel();
        Arc::new(Tier {
            state: AtomicU8::new(0),
            on: AtomicBool::new(false),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::default(),
            bans: Mutex::default(),
            next: AtomicU64::new(1),
            queued: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            entries: AtomicUsize::new(0),
            counts: Default::default(),
            jobs,
            taken: Mutex::new(Some(taken)),
        })
    }

    pub fn usage(&self) -> TierUsage {
        TierUsage {
            state: self.state(),
            bytes: self.bytes.load(Relaxed),
            entries: self.entries.load(Relaxed),
            counts: [0, 1, 2, 3, 4, 5].map(|at: usize| self.counts[at].load(Relaxed)),
        }
    }

    pub fn count(&self, counted: Counted) {
        self.counts[counted as usize].fetch_add(1, Relaxed);
    }

    // === For the workers ===

    /// What may answer a request with these fields. `openly`: only if it was meant for everyone.
    pub fn find(&self, key: &Key, request: &Headers, openly: bool) -> OnDisk {
        if !self.is_on() {
            return OnDisk::Nothing;
        }
        let (url, key) = (self.hasher.hash_one(key.url()), self.hasher.hash_one(key.bytes()) as u32);
        let Some(mut shard) = self.lock(url) else { return OnDisk::Nothing };
        let Shard { urls, lists } = &mut *shard;
        let Some(all) = urls.get_mut(&url) else { return OnDisk::Nothing };
        let mut found = OnDisk::Nothing;
        for known in all.iter_mut().rev().filter(|known| known.key == key) {
            found = OnDisk::Others;
            let Some(spot) = known.spot.filter(|_| known.open || !openly) else { continue };
            let list = lists.get(usize::from(known.list)).map(|list| &**list).unwrap_or_default();
            let values = self.values(list.iter().map(|name| normal(name, request)));
            if known.values == values {
                known.asked = true;
                return OnDisk::At(Slot { url, sequence: known.sequence, spot });
            }
        }
        found
    }

    /// Lets it be written, in place of the one that answers the same. Called with the lock of its shard in memory, so
    /// that what is forgotten is forgotten in both.
    pub(crate) fn offer(&self, entry: &Arc<Entry>) {
        // What has a note is its keeper's, who looks for it in memory alone.
        if !self.is_on() || entry.note.is_some() {
            return;
        }
        let url = self.hasher.hash_one(entry.url());
        let mut shard = self.wait(url);
        let size = entry.body.len() + AROUND;
        let room = |queued: usize| queued.checked_add(size).filter(|sum| *sum <= QUEUE);
        let fits = entry.length() <= self.most.load(Relaxed);
        let taken = fits && self.queued.fetch_update(Relaxed, Relaxed, room).is_ok();
        let known = self.known(&mut shard, &entry.key, &entry.plan.vary, entry.plan.open, 0);
        let replaced = known.is_some_and(|known| self.supersede(&mut shard, url, &known));
        match known {
            Some(mut known) if taken => {
                known.sequence = self.sequence();
                let all = shard.urls.entry(url).or_default();
                if all.len() >= VARIANTS {
                    self.gone(&all.remove(0));
                }
                all.push(known);
                self.send(Job::Write { entry: entry.clone(), sequence: known.sequence });
            }
            _ => {
                if taken {
                    self.queued.fetch_sub(size, Relaxed);
                }
                self.count(Counted::Dropped);
                // The one before it must not come back.
                if replaced || known.is_none() {
                    self.ban_url(entry.url());
                }
            }
        }
    }

    /// Forgets all answers to a URL.
    pub(crate) fn forget(&self, url: &[u8]) {
        if !self.is_on() {
            let mut bans = self.bans();
            if !self.is_on() {
                if self.state() != TierState::Off {
                    bans.add(Purge { api: None, what: What::Url(String::from_utf8_lossy(url).into()) }, ALWAYS);
                }
                return;
            }
        }
        if self.remove_url(url) > 0 {
            self.ban_url(url);
        }
    }

    fn remove_url(&self, url: &[u8]) -> usize {
        let url = self.hasher.hash_one(url);
        let all = self.wait(url).urls.remove(&url).unwrap_or_default();
        all.iter().for_each(|known| self.gone(known));
        all.len()
    }

    fn ban_url(&self, url: &[u8]) {
        self.ban(Purge { api: None, what: What::Url(String::from_utf8_lossy(url).into()) }, None);
    }

    // === For those who purge ===

    /// From now on nothing is found that is named so. Before it is forgotten in memory: what is read meanwhile would stay.
    pub(crate) fn begin_purge(&self, purge: &Purge) {
        if self.state() != TierState::Off {
            self.bans().add(purge.clone(), ALWAYS);
        }
    }

    /// It names what was written until now. Waits until that is on the disk, or cannot be; says how many answers are
    /// known to be gone.
    pub(crate) fn end_purge(&self, purge: &Purge) -> usize {
        if self.state() == TierState::Off {
            return 0;
        }
        let (tell, told) = mpsc::channel();
        self.ban(purge.clone(), Some(tell));
        let count = match purge {
            Purge { api: None, what: What::All } => self.clear(),
            Purge { api: None, what: What::Url(url) } => self.remove_url(url.as_bytes()),
            _ => 0,
        };
        // Whoever does not answer has ended.
        let _ = told.recv_timeout(std::time::Duration::from_secs(10));
        count
    }

    fn ban(&self, purge: Purge, tell: Option<Sender<bool>>) {
        let mut bans = self.bans();
        if self.is_on() {
            let sequence = self.sequence();
            bans.add(purge.clone(), sequence);
            self.send(Job::Ban(Ban { sequence, purge }, tell));
        } else {
            bans.add(purge, ALWAYS);
        }
    }

    // === For the threads of the disk ===

    /// What is to be done there. Once.
    pub fn take_jobs(&self) -> Option<Receiver<Job>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub fn send(&self, job: Job) {
        let _ = self.jobs.send(job);
    }

    pub fn state(&self) -> TierState {
        match self.state.load(Relaxed) {
            0 => TierState::Off,
            1 => TierState::Waiting,
            2 => TierState::On,
            _ => TierState::Failed,
        }
    }

    /// Nothing is found or offered from now on; what is purged is remembered if there may be a disk again.
    pub fn close(&self, state: TierState) {
        {
            let mut bans = self.bans();
            self.on.store(false, Relaxed);
            self.state.store(state as u8, Relaxed);
            if state == TierState::Off {
                *bans = Bans::default();
            }
        }
        self.clear();
        self.bytes.store(0, Relaxed);
    }

    /// What was on the disk is known. All that is written gets numbers from `next` on; answers may have bodies as long as
    /// `most`. What was purged since before is given back, to be written down.
    pub fn open(&self, next: u64, most: usize, purged: Vec<Ban>) -> Vec<Ban> {
        let mut bans = self.bans();
        purged.into_iter().for_each(|ban| bans.add(ban.purge, ban.sequence));
        self.next.fetch_max(next, Relaxed);
        let sequence = self.sequence();
        bans.settle(sequence);
        self.most.store(most, Relaxed);
        self.state.store(TierState::On as u8, Relaxed);
        self.on.store(true, Relaxed);
        bans.all()
    }

    pub fn set_bytes(&self, bytes: u64) {
        self.bytes.store(bytes, Relaxed);
    }

    /// A number that is later than all before.
    pub fn sequence(&self) -> u64 {
        self.next.fetch_add(1, Relaxed)
    }

    /// An answer has left the queue.
    pub fn taken(&self, entry: &Entry) {
        self.queued.fetch_sub(entry.body.len() + AROUND, Relaxed);
    }

    /// An answer that was offered has been written.
    pub fn publish(&self, card: &Card) {
        let url = self.hasher.hash_one(card.url());
        let mut shard = self.wait(url);
        let all = shard.urls.get_mut(&url);
        if let Some(known) = all.and_then(|all| all.iter_mut().find(|it| it.sequence == card.sequence)) {
            self.entries.fetch_add(usize::from(known.spot.is_none()), Relaxed);
            known.spot = Some(card.spot);
        }
    }

    /// An answer was there before the process began; a later one to the same request is kept instead.
    pub fn load(&self, card: &Card) {
        let url = self.hasher.hash_one(card.url());
        let mut shard = self.wait(url);
        let Some(mut known) = self.known(&mut shard, &card.key, &card.vary, card.open, card.sequence) else { return };
        let same = |it: &Known| (it.key, it.list, it.values) == (known.key, known.list, known.values);
        let later = |it: &Known| same(it) && it.sequence > card.sequence;
        if shard.urls.get(&url).is_some_and(|all| all.iter().any(later)) {
            return;
        }
        self.supersede(&mut shard, url, &known);
        known.spot = Some(card.spot);
        let all = shard.urls.entry(url).or_default();
        if all.len() >= VARIANTS {
            self.gone(&all.remove(0));
        }
        all.push(known);
        self.entries.fetch_add(1, Relaxed);
    }

    /// Whether an answer is still wanted that was found.
    pub fn is_known(&self, slot: &Slot) -> bool {
        let shard = self.wait(slot.url);
        shard.urls.get(&slot.url).is_some_and(|all| all.iter().any(|it| it.sequence == slot.sequence))
    }

    /// Whether an answer was purged after it was written.
    pub fn is_banned(&self, entry: &Entry, sequence: u64) -> bool {
        self.bans().hit(entry, sequence)
    }

    /// All that was purged, to be written down anew; but for what is older than all that is there.
    pub fn bans_since(&self, oldest: u64) -> Vec<Ban> {
        let mut bans = self.bans();
        bans.prune(oldest);
        bans.all().into_iter().filter(|ban| ban.sequence != ALWAYS).collect()
    }

    /// Forgets one that cannot be read.
    pub fn drop_slot(&self, url: u64, sequence: u64) {
        self.remove_where(url, |known| known.sequence == sequence);
    }

    /// Those of a URL in a segment that were asked for since they were written there, whole.
    pub fn asked(&self, url: u64, segment: u32) -> SmallVec<[Slot; 1]> {
        let shard = self.wait(url);
        let all = shard.urls.get(&url).into_iter().flatten().filter(|known| known.asked);
        let slots = all.filter_map(|known| Some(Slot { url, sequence: known.sequence, spot: known.spot? }));
        slots.filter(|slot| slot.spot.segment == segment && slot.spot.body_segment == segment).collect()
    }

    /// An answer has been copied to another place.
    pub fn moved(&self, from: &Slot, card: &Card) {
        let mut shard = self.wait(from.url);
        let all = shard.urls.get_mut(&from.url);
        if let Some(known) = all.and_then(|all| all.iter_mut().find(|it| it.sequence == from.sequence)) {
            (known.sequence, known.spot, known.asked) = (card.sequence, Some(card.spot), false);
        }
    }

    /// Forgets what a URL has in a segment that goes.
    pub fn evict(&self, url: u64, segment: u32) {
        let within = |spot: Spot| spot.segment == segment || spot.body_segment == segment;
        self.remove_where(url, |known| known.spot.is_some_and(within));
    }

    /// For the list of what is in a segment.
    pub fn url_of(&self, card: &Card) -> u64 {
        self.hasher.hash_one(card.url())
    }

    // === Within ===

    fn is_on(&self) -> bool {
        self.on.load(Relaxed)
    }

    /// What is known of an answer; nothing if it varies by more than can be told apart.
    fn known(&self, shard: &mut Shard, key: &[u8], vary: &[Varied], open: bool, sequence: u64) -> Option<Known> {
        let names = || vary.iter().map(|(name, _)| name);
        let list = match shard.lists.iter().position(|list| list.iter().eq(names())) {
            Some(list) => list,
            None if shard.lists.len() < LISTS => {
                shard.lists.push(names().cloned().collect());
                shard.lists.len() - 1
            }
            None => return None,
        };
        let values = self.values(vary.iter().map(|(_, value)| value.clone()));
        let key = self.hasher.hash_one(key) as u32;
        Some(Known { sequence, spot: None, key, values, list: u16::try_from(list).ok()?, open, asked: false })
    }

    fn values(&self, values: impl Iterator<Item = Option<Vec<u8>>>) -> u32 {
        let values: SmallVec<[Option<Vec<u8>>; 4]> = values.collect();
        self.hasher.hash_one(&*values) as u32
    }

    /// Takes out the one that answers the same.
    fn supersede(&self, shard: &mut Shard, url: u64, by: &Known) -> bool {
        let Some(all) = shard.urls.get_mut(&url) else { return false };
        let same = |it: &Known| (it.key, it.list, it.values) == (by.key, by.list, by.values);
        let Some(at) = all.iter().position(same) else { return false };
        self.gone(&all.remove(at));
        true
    }

    fn remove_where(&self, url: u64, goes: impl Fn(&Known) -> bool) {
        let mut shard = self.wait(url);
        let Some(all) = shard.urls.get_mut(&url) else { return };
        all.retain(|known| {
            let goes = goes(known);
            if goes {
                self.gone(known);
            }
            !goes
        });
        if all.is_empty() {
            shard.urls.remove(&url);
        }
    }

    fn clear(&self) -> usize {
        let mut count = 0;
        for at in 0..SHARDS {
            for known in std::mem::take(&mut self.wait(at as u64).urls).values().flatten() {
                self.gone(known);
                count += 1;
            }
        }
        count
    }

    fn gone(&self, known: &Known) {
        self.entries.fetch_sub(usize::from(known.spot.is_some()), Relaxed);
    }

    fn bans(&self) -> MutexGuard<'_, Bans> {
        self.bans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As the store's: if it can be had at once or nearly so.
    fn lock(&self, url: u64) -> Option<MutexGuard<'_, Shard>> {
        for _ in 0..64 {
            match self.shards[url as usize % SHARDS].try_lock() {
                Ok(shard) => return Some(shard),
                Err(TryLockError::Poisoned(shard)) => return Some(shard.into_inner()),
                Err(TryLockError::WouldBlock) => std::hint::spin_loop(),
            }
        }
        None
    }

    fn wait(&self, url: u64) -> MutexGuard<'_, Shard> {
        self.shards[url as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
