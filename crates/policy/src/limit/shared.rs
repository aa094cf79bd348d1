//! What nodes count together. The debt of each key lies in a store; a node holds credit, which is charged there already
//! and may be spent here without asking.
//!
//! Each core has credit of its own for each key, small against the limit and soon void, so what is let through over any
//! time is never more than what was charged in it and the little that was held before. When credit is used up one
//! question is asked for all calls that wait. What the store answers is mirrored here: while it is away a node goes on
//! from there with its part, and when a store comes back that has forgotten, it is told what was owed.
//!
//! What a call came to beyond its charge, or below it, is owed to the store and goes there with the next question about
//! the key; where none comes, [`report_corrections`] asks one. Each sum has a number that the store notes, so that it
//! counts once, however often it had to be told.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::task::{Poll, Waker};

use base::Time;

use super::cells::{Cells, KeyHash};
use super::gcra::{CENTURY, Gcra, SECOND, Wait};
use super::spec::WhenAway;
use crate::{Eval, Outside, StoreAway};

#[derive(Debug)]
pub(super) struct Shared {
    store: Arc<str>,
    pub(super) when_away: WhenAway,
    /// Tells its leases from those of other rules.
    number: u64,
    /// What its keys in the store begin with.
    prefix: [u8; 16],
    /// As many as there were lately.
    nodes: AtomicU32,
    /// Which of the store's lives it was when it was last heard of; zero before that.
    epoch: AtomicU64,
}

/// What may be done for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lent {
    /// There is credit for it.
    Credit,
    Refused(Wait),
    Away,
}

/// What a core holds for a key. All in nanoseconds of debt.
#[derive(Default)]
struct Lease {
    key: Vec<u8>,
    /// Where the store notes which sum it was told last.
    noted: Vec<u8>,
    credit: i64,
    granted: u64,
    /// Nothing is to be had until then, if none of it is given back; the store is not asked before `ask_again`.
    refused_until: u64,
    ask_again: u64,
    /// The store did not answer; it is asked again then.
    away_until: u64,
    away: bool,
    asking: bool,
    waiting: Vec<Waker>,
    /// What was wanted since it was asked last, and when that was.
    wanted: u64,
    asked: u64,
    /// What was charged too little, or if it is negative too much, and the store is not being told yet.
    owed: i64,
    telling: Option<Sum>,
    /// How many sums there were.
    sums: u64,
    /// It is among the accounts that have something to tell.
    queued: bool,
    /// What had been given back of the key's debt in all, and which of the store's lives it was, by its last answer.
    given: u64,
    epoch: u64,
}

/// What the store is told, until it has answered.
#[derive(Clone, Copy)]
struct Sum {
    number: u64,
    owed: i64,
    since: u64,
}

/// A key of a rule as this core deals with it.
struct Account {
    shared: Arc<Shared>,
    held: Held,
    gcra: Gcra,
    cells: Arc<Cells>,
    key: KeyHash,
}

type Held = Rc<RefCell<Lease>>;
/// Writes a call's key.
type WriteKey<'a> = &'a dyn Fn(&mut dyn FnMut(&[u8]));

thread_local! {
    static LEASES: RefCell<HashMap<(u64, u64), Held>> = RefCell::default();
    /// Those who have something to tell that no question of theirs has taken along.
    static OWING: RefCell<VecDeque<Account>> = RefCell::default();
}

/// Leases of a core; beyond, those that are void are forgotten.
const MOST: usize = 65_536;
/// How long credit may be spent.
const VALID: u64 = SECOND;
/// What is wanted ahead, as time at the rate of late.
const AHEAD: u64 = SECOND / 50;
/// The part of a burst that all nodes together may hold ahead.
const PART: u64 = 50;
/// Between one refusal, or failure, and the next question.
const PAUSE: u64 = SECOND / 200;
const PAUSE_AWAY: u64 = SECOND / 20;
/// After so long a refusal is old news: others may have given back what they did not need.
const NEWS: u64 = SECOND / 10;
/// How long a sum is told again and again to a store that is away; it notes for ten minutes which it was told last.
const TOLD_AGAIN: u64 = 590 * SECOND;
/// Questions that are asked at a time only to tell something.
const AT_ONCE: usize = 256;

/// The debt's end is kept in microseconds of the store's own clock, and beside it how much was given back. Whoever asks
/// gives the least that is of use to him, and more that he would like to have; a sum that he owes too little or too much
/// is put right, once. What he knows of the debt counts where the store may have forgotten: it begins another life then,
/// or was away from him. Of what two know that is more which had more charged; what was given back since stays so.
const TAKE: &str = "\
local t = redis.call('TIME')
local now = (tonumber(t[1]) - 1700000000) * 1000000 + tonumber(t[2])
local want, least, most, sum = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local number, known, known_given = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local known_epoch, doubted, node = ARGV[8], ARGV[9], ARGV[10]
local epoch = redis.call('GET', KEYS[3])
if not epoch then
  epoch = string.format('%.0f', now)
  redis.call('SET', KEYS[3], epoch)
end
local owed, given = string.match(redis.call('GET', KEYS[1]) or '', '^(%S+) ?(%S*)$')
owed, given = math.max(tonumber(owed) or now, now), tonumber(given) or 0
if doubted == '1' or epoch ~= known_epoch then
  local charged = math.max(owed + given, now + known + known_given)
  given = math.max(given, known_given)
  owed = charged - given
end
if number ~= '0' and redis.call('GET', KEYS[4]) ~= number then
  redis.call('SET', KEYS[4], number, 'PX', 600000)
  owed = owed + sum
  if sum < 0 then given = given - sum end
end
owed = math.max(owed, now)
local room = most - (owed - now)
local grant = 0
if room >= least then
  grant = want
  if grant > room and least < most then grant = room end
end
owed = owed + grant
local lasts = owed - now
if given > 0 then lasts = math.max(lasts, most) end
if lasts > 0 then
  redis.call('SET', KEYS[1], string.format('%.3f %.3f', owed, given), 'PX', math.ceil(lasts / 1000) + 1000)
end
redis.call('ZADD', KEYS[2], now, node)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - 10000000)
redis.call('PEXPIRE', KEYS[2], 20000)
local nodes = redis.call('ZCARD', KEYS[2])
local nanos = function(micros) return math.floor(micros * 1000) end
return { nanos(grant), nanos(owed - now), nanos(least - room), nodes, nanos(given), tonumber(epoch) }
";

impl Shared {
    /// `identity` is the same for the same rule on all nodes, and for no other.
    pub(super) fn new(store: Arc<str>, when_away: WhenAway, nodes: u32, identity: &str) -> Shared {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let number = NUMBERS.fetch_add(1, Relaxed);
        let nodes = AtomicU32::new(nodes.max(1));
        Shared { store, when_away, number, prefix: digest(&[identity.as_bytes()]), nodes, epoch: AtomicU64::new(0) }
    }

    pub(super) fn nodes(&self) -> u64 {
        u64::from(self.nodes.load(Relaxed))
    }

    /// Waits until it can be said what may be done for a call; not for long. `write` writes its key.
    pub(super) async fn lend(
        self: &Arc<Self>,
        (gcra, cells): (Gcra, &Arc<Cells>),
        (key, cost): (KeyHash, u64),
        write: WriteKey<'_>,
        now: u64,
        outside: &dyn Outside,
    ) -> Lent {
        let lease = self.lease(key, now, write, outside);
        lease.borrow_mut().wanted += cost;
        let signed = i64::try_from(cost).unwrap_or(i64::MAX);
        loop {
            {
                let lease = lease.borrow();
                if lease.credit >= signed && now.saturating_sub(lease.granted) < VALID {
                    return Lent::Credit;
                }
                if now < lease.away_until {
                    return Lent::Away;
                }
                if now < lease.ask_again {
                    return Lent::Refused(Wait(lease.refused_until - now));
                }
            }
            if !lease.borrow().asking {
                self.ask(&lease, (gcra, cells), (key, cost), now, outside);
            }
            poll_fn(|cx| {
                let mut lease = lease.borrow_mut();
                if !lease.asking {
                    return Poll::Ready(());
                }
                lease.waiting.push(cx.waker().clone());
                Poll::Pending
            })
            .await;
        }
    }

    /// Takes of the credit that [`Shared::lend`] has found; false if another was faster.
    pub(super) fn spend(&self, key: KeyHash, cost: u64) -> bool {
        let signed = i64::try_from(cost).unwrap_or(i64::MAX);
        self.with(key, |lease| {
            let mut lease = lease.borrow_mut();
            let enough = lease.credit >= signed;
            lease.credit -= if enough { signed } else { 0 };
            enough
        })
        .unwrap_or(false)
    }

    /// What was taken of the credit is not needed.
    pub(super) fn give_back(&self, key: KeyHash, cost: u64) {
        let signed = i64::try_from(cost).unwrap_or(i64::MAX);
        self.with(key, |lease| lease.borrow_mut().credit += signed);
    }

    /// A call was charged so much too little, or if it is negative too much.
    pub(super) fn correct(self: &Arc<Self>, (gcra, cells): (Gcra, &Arc<Cells>), key: KeyHash, more: i64) {
        self.with(key, |held| {
            let mut lease = held.borrow_mut();
            // What is held has been charged already.
            let paid = more.clamp(0, lease.credit.max(0));
            lease.credit -= paid;
            lease.owe(more - paid);
            drop(lease);
            Account { shared: self.clone(), held: held.clone(), gcra, cells: cells.clone(), key }.remember();
        });
    }

    fn with<T>(&self, key: KeyHash, change: impl FnOnce(&Held) -> T) -> Option<T> {
        let lease = LEASES.with_borrow(|leases| leases.get(&(self.number, key.bits())).cloned());
        lease.map(|lease| change(&lease))
    }

    fn lease(&self, key: KeyHash, now: u64, write: WriteKey<'_>, outside: &dyn Outside) -> Held {
        LEASES.with_borrow_mut(|leases| {
            if leases.len() >= MOST {
                let in_use = |lease: &Held| {
                    let it = lease.borrow();
                    it.asking || it.has_to_tell() || now.saturating_sub(it.asked) < 10 * VALID
                };
                leases.retain(|_, lease| in_use(lease));
                // All in use: others begin anew, which loses them what they hold.
                if leases.len() >= MOST {
                    leases.clear();
                }
            }
            let lease = leases.entry((self.number, key.bits())).or_insert_with(|| {
                let mut text = self.prefix.to_vec();
                write(&mut |part| text.extend_from_slice(part));
                let hex: String = digest(&[&text]).iter().map(|byte| format!("{byte:02x}")).collect();
                Rc::new(RefCell::new(Lease {
                    key: format!("weir:limit:{hex}").into_bytes(),
                    noted: format!("weir:told:{:016x}", outside.random()).into_bytes(),
                    epoch: self.epoch.load(Relaxed),
                    ..Lease::default()
                }))
            });
            lease.clone()
        })
    }

    /// Asks for what a call costs, and tells what there is to tell; only that if it costs nothing.
    fn ask(
        self: &Arc<Self>,
        held: &Held,
        (gcra, cells): (Gcra, &Arc<Cells>),
        (key, cost): (KeyHash, u64),
        now: u64,
        outside: &dyn Outside,
    ) {
        let mut lease = held.borrow_mut();
        // What is held too long is void, and goes back.
        if lease.credit > 0 && now.saturating_sub(lease.granted) >= VALID {
            let void = std::mem::take(&mut lease.credit);
            lease.owe(-void);
        }
        let sum = lease.tell(now);
        let lacking = i64::try_from(cost).unwrap_or(i64::MAX).saturating_sub(lease.credit).max(0).unsigned_abs();
        let (mut want, mut least) = (0, 0);
        if cost > 0 {
            let since = now.saturating_sub(lease.asked).clamp(SECOND / 1000, SECOND);
            let ahead = u128::from(lease.wanted) * u128::from(AHEAD) / u128::from(since);
            let ahead = u64::try_from(ahead).unwrap_or(u64::MAX).min(gcra.tolerance() / PART / self.nodes());
            (want, least) = (lacking.max(ahead), lacking.min(gcra.tolerance()));
            (lease.wanted, lease.asked) = (0, now);
        }
        let known = cells.read(key).saturating_sub(now);
        let micros = |nanos: u64| format!("{:.3}", nanos as f64 / 1000.0).into_bytes();
        let args = vec![
            micros(want),
            micros(least),
            micros(gcra.tolerance()),
            format!("{:.3}", sum.map_or(0, |sum| sum.owed) as f64 / 1000.0).into_bytes(),
            sum.map_or(0, |sum| sum.number).to_string().into_bytes(),
            micros(known),
            micros(lease.given),
            lease.epoch.to_string().into_bytes(),
            if lease.away { b"1".to_vec() } else { b"0".to_vec() },
            format!("{:016x}", outside.node()).into_bytes(),
        ];
        let keys = vec![lease.key.clone(), b"weir:nodes".to_vec(), b"weir:epoch".to_vec(), lease.noted.clone()];
        lease.asking = true;
        drop(lease);
        let eval = Eval { store: self.store.clone(), script: TAKE, keys, args };
        let account = Account { shared: self.clone(), held: held.clone(), gcra, cells: cells.clone(), key };
        let answered = Answered { account: Some(account), now, wants: cost > 0, answered: false };
        outside.eval(eval, Box::new(move |told| answered.take(told)));
    }
}

/// Tells stores what calls came to where that is not what was charged, as far as no question has taken it along. For
/// each core to do now and then; nobody waits for it.
pub fn report_corrections(now: Time, outside: &dyn Outside) {
    let now = now.nanos();
    let due = OWING.with_borrow(|owing| owing.len().min(AT_ONCE));
    for _ in 0..due {
        let Some(account) = OWING.with_borrow_mut(VecDeque::pop_front) else { return };
        let Account { shared, held, gcra, cells, key } = &account;
        if now < held.borrow().away_until {
            OWING.with_borrow_mut(|owing| owing.push_back(account));
            continue;
        }
        held.borrow_mut().queued = false;
        // What is asked already takes it along, or remembers it.
        let due = held.borrow().has_to_tell() && !held.borrow().asking;
        if due {
            shared.ask(held, (*gcra, cells), (*key, 0), now, outside);
        }
    }
}

/// True while there is something that a store has not said it was told. For a core that ends, which goes on reporting until
/// there is nothing, or for as long as it can wait.
pub fn has_corrections() -> bool {
    let owing = OWING.with_borrow(|owing| !owing.is_empty());
    owing || LEASES.with_borrow(|leases| leases.values().any(|lease| lease.borrow().has_to_tell()))
}

impl Account {
    /// If there is something to tell, that it be told.
    fn remember(self) {
        let due = |lease: &Lease| !lease.queued && lease.has_to_tell();
        OWING.with_borrow_mut(|owing| {
            if owing.len() < MOST && due(&self.held.borrow()) {
                self.held.borrow_mut().queued = true;
                owing.push_back(self);
            }
        });
    }
}

impl Lease {
    fn has_to_tell(&self) -> bool {
        self.owed != 0 || self.telling.is_some()
    }

    fn owe(&mut self, more: i64) {
        let most = i64::try_from(CENTURY).unwrap_or(i64::MAX);
        self.owed = self.owed.saturating_add(more).clamp(-most, most);
    }

    /// The sum that the store is told next: the last one until it has answered.
    fn tell(&mut self, now: u64) -> Option<Sum> {
        // Whether it was heard is known for so long; then it is given up.
        self.telling = self.telling.filter(|sum| now.saturating_sub(sum.since) < TOLD_AGAIN);
        if self.telling.is_none() && self.owed != 0 {
            self.sums += 1;
            self.telling = Some(Sum { number: self.sums, owed: std::mem::take(&mut self.owed), since: now });
        }
        self.telling
    }
}

/// What is done with the store's answer; dropped without one, it is away.
struct Answered {
    /// There until it is dropped.
    account: Option<Account>,
    now: u64,
    /// It was asked for something.
    wants: bool,
    answered: bool,
}

impl Answered {
    fn take(mut self, told: Result<Vec<i64>, StoreAway>) {
        let Ok(told) = told else { return };
        let [grant, owed, wait, nodes, given, epoch] = told[..] else { return };
        let Some(Account { shared, held, cells, key, .. }) = &self.account else { return };
        self.answered = true;
        let mut lease = held.borrow_mut();
        (lease.away, lease.away_until, lease.telling) = (false, 0, None);
        (lease.given, lease.epoch) = (given.max(0).unsigned_abs(), epoch.max(0).unsigned_abs());
        shared.epoch.store(lease.epoch, Relaxed);
        lease.credit = lease.credit.saturating_add(grant);
        let wait = wait.max(0).unsigned_abs().max(PAUSE);
        (lease.refused_until, lease.ask_again) = match self.wants && grant == 0 {
            true => (self.now + wait, self.now + wait.min(NEWS)),
            false => (0, 0),
        };
        if grant > 0 {
            lease.granted = self.now;
        }
        shared.nodes.store(u32::try_from(nodes).unwrap_or(1).max(1), Relaxed);
        let end = self.now + owed.max(0).unsigned_abs();
        let Ok(()) = cells.update(*key, |_| Ok::<_, std::convert::Infallible>((end, ())));
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        let Some(account) = self.account.take() else { return };
        let mut lease = account.held.borrow_mut();
        lease.asking = false;
        if !self.answered {
            (lease.away, lease.away_until) = (true, self.now + PAUSE_AWAY);
        }
        lease.waiting.drain(..).for_each(Waker::wake);
        drop(lease);
        account.remember();
    }
}

fn digest(parts: &[&[u8]]) -> [u8; 16] {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut short = [0; 16];
    short.copy_from_slice(&context.finish().as_ref()[..16]);
    short
}

#[cfg(test)]
mod tests;
