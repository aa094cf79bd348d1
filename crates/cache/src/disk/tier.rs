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
use crate::shares::{Shares, Sums};
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
    /// It must be there after a restart. Who wants to know hears when it is, and how many answers the lists of the
    /// segments had that it names: of prefixes, of which the index knows nothing.
    Ban(Ban, Option<Sender<usize>>),
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
    /// Of what has been written.
    shares: Shares,
}

#[derive(Debug)]
struct Known {
    sequence: u64,
    /// Nowhere while it waits to be written.
    spot: Option<Spot>,
    /// Where it is counted.
    share: u64,
    /// The hashes of its tags.
    tags: Box<[u64]>,
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

    /// Adds what each takes on the disk.
    pub(crate) fn add_shares(&self, sums: &mut Sums, place: usize) {
        (0..SHARDS).for_each(|at| self.wait(at as u64).shares.add_to(sums, place));
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
        let Shard { urls, lists, .. } = &mut *shard;
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
        let replaced = known.as_ref().is_some_and(|known| self.supersede(&mut shard, url, known));
        let is_known = known.is_some();
        match known {
            Some(mut known) if taken => {
                let sequence = self.sequence();
                (known.sequence, known.tags) = (sequence, self.tags(&entry.plan.tags));
                self.insert(&mut shard, url, known, &entry.api, &entry.key);
                self.send(Job::Write { entry: entry.clone(), sequence });
            }
            _ => {
                if taken {
                    self.queued.fetch_sub(size, Relaxed);
                }
                self.count(Counted::Dropped);
                // The one before it must not come back.
                if replaced || !is_known {
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
        if self.remove_where(self.hasher.hash_one(url), |_| true) > 0 {
            self.ban_url(url);
        }
    }

    /// Forgets the answer that would be given in place of one in memory. False if there was none.
    pub(crate) fn forget_same(&self, entry: &Entry) -> bool {
        if !self.is_on() || entry.note.is_some() {
            return false;
        }
        let url = self.hasher.hash_one(entry.url());
        let mut shard = self.wait(url);
        let known = self.known(&mut shard, &entry.key, &entry.plan.vary, entry.plan.open, 0);
        known.is_some_and(|known| self.supersede(&mut shard, url, &known))
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

    /// It names what was written until now. Waits until that is on the disk, or cannot be; says how many answers are gone
    /// by it. Nothing where the document wants no disk.
    pub(crate) fn end_purge(&self, purge: &Purge) -> Option<usize> {
        if self.state() == TierState::Off {
            return None;
        }
        let (tell, told) = mpsc::channel();
        let Some(sequence) = self.ban(purge.clone(), Some(tell)) else { return Some(0) };
        let count = self.remove_named(purge, sequence);
        // Whoever does not answer has ended.
        Some(count + told.recv_timeout(std::time::Duration::from_secs(10)).unwrap_or_default())
    }

    /// Forgets what is named and was offered before. Prefixes name nothing that is known here.
    fn remove_named(&self, purge: &Purge, until: u64) -> usize {
        let Purge { api, what } = purge;
        let (url, tag) = match what {
            What::All => (None, None),
            What::Url(url) => (Some(self.hasher.hash_one(url.as_bytes())), None),
            What::Tag(tag) => (None, Some(self.hasher.hash_one(&**tag))),
            What::Prefix(_) => return 0,
        };
        let named = |shares: &Shares, known: &Known| {
            let of_api = |api: &String| shares.api(known.share) == Some(&**api);
            known.sequence <= until
                && api.as_ref().is_none_or(of_api)
                && tag.is_none_or(|tag| known.tags.contains(&tag))
        };
        if let Some(url) = url {
            return self.remove_in(&mut self.wait(url), url, named);
        }
        let mut count = 0;
        for at in 0..SHARDS {
            let mut shard = self.wait(at as u64);
            let Shard { urls, shares, .. } = &mut *shard;
            let of_url = |all: &SmallVec<[Known; 1]>| all.iter().any(|known| named(shares, known));
            let urls: Vec<u64> = urls.iter().filter(|(_, all)| of_url(all)).map(|(url, _)| *url).collect();
            count += urls.into_iter().map(|url| self.remove_in(&mut shard, url, named)).sum::<usize>();
        }
        count
    }

    /// Gives it a place in the order, if there is a disk.
    fn ban(&self, purge: Purge, tell: Option<Sender<usize>>) -> Option<u64> {
        let mut bans = self.bans();
        if self.is_on() {
            let sequence = self.sequence();
            bans.add(purge.clone(), sequence);
            self.send(Job::Ban(Ban { sequence, purge }, tell));
            Some(sequence)
        } else {
            bans.add(purge, ALWAYS);
            None
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

    /// What was purged before the process began; before what was there is loaded.
    pub fn remember(&self, purged: Vec<Ban>) {
        let mut bans = self.bans();
        purged.into_iter().for_each(|ban| bans.add_older(ban.purge, ban.sequence));
    }

    /// What was on the disk is known. All that is written gets numbers from `next` on; answers may have bodies as long as
    /// `most`. What was purged since before is given back, to be written down.
    pub fn open(&self, next: u64, most: usize) -> Vec<Ban> {
        let mut bans = self.bans();
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

    /// It is not written.
    pub fn drop_offer(&self, entry: &Entry, sequence: u64) {
        self.drop_slot(self.hasher.hash_one(entry.url()), sequence);
    }

    /// An answer that was offered has been written.
    pub fn publish(&self, card: &Card) {
        let url = self.hasher.hash_one(card.url());
        let mut shard = self.wait(url);
        let Shard { urls, shares, .. } = &mut *shard;
        let all = urls.get_mut(&url);
        let waiting = |it: &&mut Known| it.sequence == card.sequence && it.spot.is_none();
        if let Some(known) = all.and_then(|all| all.iter_mut().find(waiting)) {
            known.spot = Some(card.spot);
            self.entries.fetch_add(1, Relaxed);
            shares.grow(known.share, known.bytes());
        }
    }

    /// An answer was there before the process began; a later one to the same request is kept instead. Nothing if it was
    /// purged.
    pub fn load(&self, card: &Card) {
        if self.is_banned(card) {
            return;
        }
        let url = self.hasher.hash_one(card.url());
        let mut shard = self.wait(url);
        let Some(mut known) = self.known(&mut shard, &card.key, &card.vary, card.open, card.sequence) else { return };
        let later = |it: &Known| it.is_like(&known) && it.sequence > card.sequence;
        if shard.urls.get(&url).is_some_and(|all| all.iter().any(later)) {
            return;
        }
        self.supersede(&mut shard, url, &known);
        (known.spot, known.tags) = (Some(card.spot), self.tags(&card.tags));
        self.insert(&mut shard, url, known, &card.api, &card.key);
        self.entries.fetch_add(1, Relaxed);
    }

    /// Whether an answer is still wanted that was found.
    pub fn is_known(&self, slot: &Slot) -> bool {
        let shard = self.wait(slot.url);
        shard.urls.get(&slot.url).is_some_and(|all| all.iter().any(|it| it.sequence == slot.sequence))
    }

    /// Whether an answer was purged after it was written.
    pub fn is_banned(&self, card: &Card) -> bool {
        self.bans().hit(card)
    }

    /// Forgets those that a ban names. Says how many there were.
    pub fn drop_named<'a>(&self, ban: &Ban, cards: impl IntoIterator<Item = &'a Card>) -> usize {
        let Ban { sequence, purge } = ban;
        let named = |card: &&Card| card.sequence <= *sequence && purge.names(&card.api, card.url(), &card.tags);
        cards.into_iter().filter(named).map(|card| self.drop_card(card)).sum()
    }

    /// Forgets one by its card. Says how many that was: none or one.
    pub fn drop_card(&self, card: &Card) -> usize {
        self.remove_where(self.url_of(card), |known| known.sequence == card.sequence)
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
        let (list, tags) = (u16::try_from(list).ok()?, Box::default());
        Some(Known { sequence, spot: None, share: 0, tags, key, values, list, open, asked: false })
    }

    fn tags(&self, tags: &[String]) -> Box<[u64]> {
        tags.iter().map(|tag| self.hasher.hash_one(&**tag)).collect()
    }

    fn insert(&self, shard: &mut Shard, url: u64, mut known: Known, api: &str, key: &[u8]) {
        let Shard { urls, shares, .. } = shard;
        known.share = shares.enter(&self.hasher, api, key, known.bytes());
        let all = urls.entry(url).or_default();
        if all.len() >= VARIANTS {
            self.gone(shares, &all.remove(0));
        }
        all.push(known);
    }

    fn values(&self, values: impl Iterator<Item = Option<Vec<u8>>>) -> u32 {
        let values: SmallVec<[Option<Vec<u8>>; 4]> = values.collect();
        self.hasher.hash_one(&*values) as u32
    }

    /// Takes out the one that answers the same.
    fn supersede(&self, shard: &mut Shard, url: u64, by: &Known) -> bool {
        let Shard { urls, shares, .. } = shard;
        let Some(all) = urls.get_mut(&url) else { return false };
        let Some(at) = all.iter().position(|it| it.is_like(by)) else { return false };
        self.gone(shares, &all.remove(at));
        if all.is_empty() {
            urls.remove(&url);
        }
        true
    }

    fn remove_where(&self, url: u64, goes: impl Fn(&Known) -> bool) -> usize {
        self.remove_in(&mut self.wait(url), url, |_, known| goes(known))
    }

    fn remove_in(&self, shard: &mut Shard, url: u64, goes: impl Fn(&Shares, &Known) -> bool) -> usize {
        let Shard { urls, shares, .. } = shard;
        let Some(all) = urls.get_mut(&url) else { return 0 };
        let before = all.len();
        all.retain(|known| {
            let goes = goes(shares, known);
            if goes {
                self.gone(shares, known);
            }
            !goes
        });
        let removed = before - all.len();
        if all.is_empty() {
            urls.remove(&url);
        }
        removed
    }

    fn clear(&self) {
        for at in 0..SHARDS {
            let mut shard = self.wait(at as u64);
            let Shard { urls, shares, .. } = &mut *shard;
            std::mem::take(urls).values().flatten().for_each(|known| self.gone(shares, known));
        }
    }

    fn gone(&self, shares: &mut Shares, known: &Known) {
        self.entries.fetch_sub(usize::from(known.spot.is_some()), Relaxed);
        shares.leave(known.share, known.bytes());
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

// === impl Known ===

impl Known {
    /// Whether it answers the same.
    fn is_like(&self, other: &Known) -> bool {
        (self.key, self.list, self.values) == (other.key, other.list, other.values)
    }

    /// Of its head and its body, wherever that is.
    fn bytes(&self) -> u64 {
        self.spot.map_or(0, |spot| u64::from(spot.head) + u64::from(spot.body))
    }
}
