//! The accounts of one budget: for each of those it is per, the window of the current period.
//!
//! A table of lists that is read and added to without a lock. It holds so many accounts and no more: when it is full,
//! those are forgotten of whom nothing is lost (their period is over, nothing is reserved), then, for tasks, those that
//! have been idle for an hour; if there are none, there is no new account.

use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicUsize};
use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};

use super::period::{Every, Moment, Offset};
use super::window::{Refused, Window};

/// Whose an account is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    All,
    Named(Arc<str>),
    Task([u8; 16]),
}

/// The same, where it is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Asked<'a> {
    All,
    Named(&'a str),
    Task([u8; 16]),
}

pub(super) struct Accounts {
    seed: foldhash::quality::RandomState,
    mask: u64,
    /// Made when the first of its keys comes.
    chunks: Box<[OnceLock<Box<[Bucket]>>]>,
    most: usize,
    count: AtomicUsize,
    /// Where the search for accounts to forget goes on.
    hand: AtomicUsize,
    every: Every,
    offset: Offset,
    /// Whether accounts are forgotten that were idle for long.
    forgets: bool,
    /// What is not lent of a new period: all of it, of a budget that is shared.
    unlent: u64,
}

/// Taken from an account, or not because there is only so much left, or because there is no room for the account.
pub(super) enum Taking {
    Taken(Arc<Window>),
    Short { left: u64, window: Arc<Window> },
    Crowded,
}

type Bucket = ArcSwapOption<Node>;

struct Node {
    hash: u64,
    account: Arc<Account>,
    next: Option<Arc<Node>>,
}

struct Account {
    window: ArcSwap<Window>,
    /// The minute of its last call.
    seen: AtomicU32,
}

const BUCKETS_PER_CHUNK: u64 = 64;
/// After this many minutes without a call a task is taken to be over.
const IDLE_MINUTES: u32 = 60;
/// How many buckets are searched for accounts to forget before one gives up.
const SEARCHED: usize = 64;

// === impl Accounts ===

impl Accounts {
    pub(super) fn new(most: u64, every: Every, offset: Offset, forgets: bool, unlent: u64) -> Accounts {
        let buckets = most.div_ceil(2).clamp(1, 1 << 22).next_power_of_two();
        Accounts {
            seed: foldhash::quality::RandomState::default(),
            mask: buckets - 1,
            chunks: (0..buckets.div_ceil(BUCKETS_PER_CHUNK)).map(|_| OnceLock::new()).collect(),
            most: usize::try_from(most).unwrap_or(usize::MAX),
            count: AtomicUsize::new(0),
            hand: AtomicUsize::new(0),
            every,
            offset,
            forgets,
            unlent,
        }
    }

    /// Takes `amount` from the window that `now` is in, or from a later one if there is one already.
    pub(super) fn take(&self, key: Asked<'_>, amount: u64, limit: Option<u64>, now: Moment) -> Taking {
        let start = self.every.start(now, self.offset);
        loop {
            let Some(account) = self.account(key, start, now) else { return Taking::Crowded };
            let Some(window) = account.at(start, self.unlent) else {
                self.unlink(key, &account);
                continue;
            };
            match window.take(amount, limit) {
                Ok(()) => return Taking::Taken(Guard::into_inner(window)),
                Err(Refused::Short { left }) => return Taking::Short { left, window: Guard::into_inner(window) },
                Err(Refused::Over) => {}
                Err(Refused::Gone) => self.unlink(key, &account),
            }
        }
    }

    /// Adds what was spent at that time, unless its period is over by what is known already.
    pub(super) fn add(&self, key: Asked<'_>, spent: u64, at: Moment) {
        let start = self.every.start(at, self.offset);
        loop {
            let Some(account) = self.account(key, start, at) else { return };
            let Some(window) = account.at(start, self.unlent) else {
                self.unlink(key, &account);
                continue;
            };
            if window.start == start {
                window.restore(spent);
            }
            return;
        }
    }

    /// The window of an account, if it is still that of the period that began then.
    pub(super) fn current(&self, key: &Key, start: u64) -> Option<Arc<Window>> {
        let asked = key.asked();
        let hash = self.seed.hash_one(asked);
        let head = self.bucket(hash & self.mask).load();
        let window = find(head.as_ref(), hash, asked)?.window.load_full();
        (window.start == start).then_some(window)
    }

    /// The windows that are current at `now`.
    pub(super) fn windows(&self, now: Moment) -> Vec<Arc<Window>> {
        let start = self.every.start(now, self.offset);
        let mut windows = Vec::new();
        for bucket in self.chunks.iter().filter_map(OnceLock::get).flatten() {
            let mut next = bucket.load_full();
            while let Some(node) = next {
                windows.push(node.account.window.load_full());
                next = node.next.clone();
            }
        }
        windows.retain(|window| window.start >= start);
        windows
    }

    pub(super) fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    fn account(&self, key: Asked<'_>, start: u64, now: Moment) -> Option<Arc<Account>> {
        let hash = self.seed.hash_one(key);
        let bucket = self.bucket(hash & self.mask);
        let minute = u32::try_from(now.secs() / 60).unwrap_or(u32::MAX);
        let mut made: Option<Arc<Account>> = None;
        let head = bucket.load();
        if let Some(found) = find(head.as_ref(), hash, key) {
            found.saw(minute);
            return Some(found);
        }
        drop(head);
        if self.count.load(Relaxed) >= self.most && !self.make_room(start, minute) {
            return None;
        }
        loop {
            let head = bucket.load_full();
            if let Some(found) = find(head.as_ref(), hash, key) {
                return Some(found);
            }
            let account = made.get_or_insert_with(|| {
                let window = ArcSwap::from_pointee(Window::new(key.into(), start, self.unlent));
                Arc::new(Account { window, seen: AtomicU32::new(minute) })
            });
            let node = Arc::new(Node { hash, account: account.clone(), next: head.clone() });
            let before = bucket.compare_and_swap(&head, Some(node));
            if same(before.as_ref(), head.as_ref()) {
                self.count.fetch_add(1, Relaxed);
                return made;
            }
        }
    }

    /// Forgets some account that can be; false if none was found.
    fn make_room(&self, start: u64, minute: u32) -> bool {
        for _ in 0..SEARCHED.min(self.mask as usize + 1) {
            let at = self.hand.fetch_add(1, Relaxed) as u64 & self.mask;
            let Some(chunk) = self.chunks[(at / BUCKETS_PER_CHUNK) as usize].get() else { continue };
            let bucket = &chunk[(at % BUCKETS_PER_CHUNK) as usize];
            let mut forgotten = 0;
            let mut next = bucket.load_full();
            while let Some(node) = next {
                let window = node.account.window.load();
                let idle = minute.saturating_sub(node.account.seen.load(Relaxed)) >= IDLE_MINUTES;
                if (window.start < start || (self.forgets && idle)) && window.forget() {
                    unlink(bucket, &node.account);
                    forgotten += 1;
                }
                next = node.next.clone();
            }
            if forgotten > 0 {
                self.count.fetch_sub(forgotten, Relaxed);
                return true;
            }
        }
        false
    }

    /// Whoever finds that an account was forgotten need not wait for the one who forgot it.
    fn unlink(&self, key: Asked<'_>, account: &Arc<Account>) {
        unlink(self.bucket(self.seed.hash_one(key) & self.mask), account);
    }

    fn bucket(&self, at: u64) -> &Bucket {
        let size = BUCKETS_PER_CHUNK.min(self.mask + 1);
        let chunk =
            self.chunks[(at / BUCKETS_PER_CHUNK) as usize].get_or_init(|| (0..size).map(|_| Bucket::empty()).collect());
        &chunk[(at % BUCKETS_PER_CHUNK) as usize]
    }
}

impl Account {
    /// The window that is current in the period that began then; `None` if the account was forgotten meanwhile.
    fn at(&self, start: u64, unlent: u64) -> Option<Guard<Arc<Window>>> {
        loop {
            let window = self.window.load();
            if window.start >= start {
                return Some(window);
            }
            if !window.end() {
                return None;
            }
            let next = Arc::new(Window::new(window.key.clone(), start, unlent));
            self.window.compare_and_swap(&window, next);
        }
    }

    fn saw(&self, minute: u32) {
        // Most of the time it is the same minute: then the line stays shared.
        if self.seen.load(Relaxed) != minute {
            self.seen.store(minute, Relaxed);
        }
    }
}

fn find(mut next: Option<&Arc<Node>>, hash: u64, key: Asked<'_>) -> Option<Arc<Account>> {
    while let Some(node) = next {
        if node.hash == hash && node.account.window.load().key.is(key) {
            return Some(node.account.clone());
        }
        next = node.next.as_ref();
    }
    None
}

fn same(a: Option<&Arc<Node>>, b: Option<&Arc<Node>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

/// Takes an account out of its list, by replacing those before it.
fn unlink(bucket: &Bucket, account: &Arc<Account>) {
    fn without(node: &Arc<Node>, account: &Arc<Account>) -> Option<Arc<Node>> {
        if Arc::ptr_eq(&node.account, account) {
            return node.next.clone();
        }
        let next = node.next.as_ref().and_then(|next| without(next, account));
        Some(Arc::new(Node { hash: node.hash, account: node.account.clone(), next }))
    }
    bucket.rcu(|head| head.as_ref().and_then(|head| without(head, account)));
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accounts").field("count", &self.count()).finish_non_exhaustive()
    }
}

impl Key {
    pub(super) fn asked(&self) -> Asked<'_> {
        match self {
            Key::All => Asked::All,
            Key::Named(name) => Asked::Named(name),
            Key::Task(id) => Asked::Task(*id),
        }
    }

    fn is(&self, asked: Asked<'_>) -> bool {
        match (self, asked) {
            (Key::All, Asked::All) => true,
            (Key::Named(name), Asked::Named(asked)) => **name == *asked,
            (Key::Task(id), Asked::Task(asked)) => *id == asked,
            _ => false,
        }
    }
}

impl From<Asked<'_>> for Key {
    fn from(asked: Asked<'_>) -> Key {
        match asked {
            Asked::All => Key::All,
            Asked::Named(name) => Key::Named(name.into()),
            Asked::Task(id) => Key::Task(id),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::All => f.write_str("*"),
            Key::Named(name) => f.write_str(name),
            Key::Task(id) => id.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}
