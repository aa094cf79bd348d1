//! What nodes count together. The debt of each key lies in a store; a node holds credit, which is charged there already
//! and may be spent here without asking.
//!
//! Each core has credit of its own for each key, small against the limit and soon void, so what is let through over any
//! time is never more than what was charged in it and the little that was held before. When credit is used up one
//! question is asked for all calls that wait. What the store answers is mirrored here: while it is away a node goes on
//! from there with its part, and when a store comes back that has forgotten, it is told what was owed.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::task::{Poll, Waker};

use super::cells::{Cells, KeyHash};
use super::gcra::{Gcra, SECOND, Wait};
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
    credit: i64,
    granted: u64,
    /// Nothing is to be had until then.
    refused_until: u64,
    /// The store did not answer; it is asked again then.
    away_until: u64,
    away: bool,
    asking: bool,
    waiting: Vec<Waker>,
    /// What was wanted since it was asked last, and when that was.
    wanted: u64,
    asked: u64,
}

type Held = Rc<RefCell<Lease>>;
/// Writes a call's key.
type WriteKey<'a> = &'a dyn Fn(&mut dyn FnMut(&[u8]));

thread_local! {
    static LEASES: RefCell<HashMap<(u64, u64), Held>> = RefCell::default();
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

/// The debt's end is kept in microseconds of the store's own clock. Whoever asks gives the least that is of use to him,
/// and more that he would like to have; what he owes too little or too much is put right; and what he knows of the debt
/// counts where the store knows less: a key that is not there, or a store that may have forgotten.
const TAKE: &str = "\
local t = redis.call('TIME')
local now = (tonumber(t[1]) - 1700000000) * 1000000 + tonumber(t[2])
local want, least, most, back = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local known, doubted, node = tonumber(ARGV[5]), ARGV[6], ARGV[7]
local kept = redis.call('GET', KEYS[1])
local owed = kept and tonumber(kept) or now
if not kept or doubted == '1' then owed = math.max(owed, now + known) end
owed = math.max(owed - back, now)
local room = most - (owed - now)
local grant = 0
if room >= least then
  grant = want
  if grant > room and least < most then grant = room end
end
owed = owed + grant
if owed > now then
  redis.call('SET', KEYS[1], string.format('%.3f', owed), 'PX', math.ceil((owed - now) / 1000) + 1000)
end
redis.call('ZADD', KEYS[2], now, node)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - 10000000)
redis.call('PEXPIRE', KEYS[2], 20000)
local nodes = redis.call('ZCARD', KEYS[2])
return { math.floor(grant * 1000), math.floor((owed - now) * 1000), math.floor((least - room) * 1000), nodes }
";

impl Shared {
    /// `identity` is the same for the same rule on all nodes, and for no other.
    pub(super) fn new(store: Arc<str>, when_away: WhenAway, nodes: u32, identity: &str) -> Shared {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let number = NUMBERS.fetch_add(1, Relaxed);
        Shared { store, when_away, number, prefix: digest(&[identity.as_bytes()]), nodes: AtomicU32::new(nodes.max(1)) }
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
        let lease = self.lease(key, now, write);
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
                if now < lease.refused_until {
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
            let enough = lease.credit >= signed;
            lease.credit -= if enough { signed } else { 0 };
            enough
        })
        .unwrap_or(false)
    }

    /// A call was charged so much too little, or if it is negative too much.
    pub(super) fn correct(&self, key: KeyHash, more: i64) {
        self.with(key, |lease| lease.credit = lease.credit.saturating_sub(more));
    }

    fn with<T>(&self, key: KeyHash, change: impl FnOnce(&mut Lease) -> T) -> Option<T> {
        let lease = LEASES.with_borrow(|leases| leases.get(&(self.number, key.bits())).cloned());
        lease.map(|lease| change(&mut lease.borrow_mut()))
    }

    fn lease(&self, key: KeyHash, now: u64, write: WriteKey<'_>) -> Held {
        LEASES.with_borrow_mut(|leases| {
            if leases.len() >= MOST {
                let in_use = |lease: &Held| {
                    let it = lease.borrow();
                    it.asking || it.credit < 0 || now.saturating_sub(it.asked) < 10 * VALID
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
                Rc::new(RefCell::new(Lease { key: format!("weir:limit:{hex}").into_bytes(), ..Lease::default() }))
            });
            lease.clone()
        })
    }

    fn ask(
        self: &Arc<Self>,
        held: &Held,
        (gcra, cells): (Gcra, &Arc<Cells>),
        (key, cost): (KeyHash, u64),
        now: u64,
        outside: &dyn Outside,
    ) {
        let mut lease = held.borrow_mut();
        let since = now.saturating_sub(lease.asked).clamp(SECOND / 1000, SECOND);
        let ahead = u128::from(lease.wanted) * u128::from(AHEAD) / u128::from(since);
        let ahead = u64::try_from(ahead).unwrap_or(u64::MAX).min(gcra.tolerance() / PART / self.nodes());
        // What is held is void, or too little: it goes back, and what is owed is asked for too.
        let void = lease.credit > 0 && now.saturating_sub(lease.granted) >= VALID;
        let back = if void { lease.credit.unsigned_abs() } else { 0 };
        let held_now = if void { 0 } else { lease.credit };
        let lacking = i64::try_from(cost).unwrap_or(i64::MAX).saturating_sub(held_now).max(0).unsigned_abs();
        let (want, least) = (lacking.max(ahead), lacking.min(gcra.tolerance()));
        let known = cells.read(key).saturating_sub(now);
        let micros = |nanos: u64| format!("{:.3}", nanos as f64 / 1000.0).into_bytes();
        let args = vec![
            micros(want),
            micros(least),
            micros(gcra.tolerance()),
            micros(back),
            micros(known),
            if lease.away { b"1".to_vec() } else { b"0".to_vec() },
            format!("{:016x}", outside.node()).into_bytes(),
        ];
        let keys = vec![lease.key.clone(), b"weir:nodes".to_vec()];
        (lease.asking, lease.wanted, lease.asked) = (true, 0, now);
        drop(lease);
        let eval = Eval { store: self.store.clone(), script: TAKE, keys, args };
        let answered = Answered {
            shared: self.clone(),
            held: held.clone(),
            cells: cells.clone(),
            key,
            now,
            void,
            answered: false,
        };
        outside.eval(eval, Box::new(move |told| answered.take(told)));
    }
}

/// What is done with the store's answer; dropped without one, it is away.
struct Answered {
    shared: Arc<Shared>,
    held: Held,
    cells: Arc<Cells>,
    key: KeyHash,
    now: u64,
    /// What was held when it was asked went back.
    void: bool,
    answered: bool,
}

impl Answered {
    fn take(mut self, told: Result<Vec<i64>, StoreAway>) {
        let Ok(told) = told else { return };
        let [grant, owed, wait, nodes] = told[..] else { return };
        self.answered = true;
        let mut lease = self.held.borrow_mut();
        (lease.away, lease.away_until) = (false, 0);
        lease.credit = grant.saturating_add(if self.void { 0 } else { lease.credit });
        if grant > 0 {
            lease.granted = self.now;
        } else {
            lease.refused_until = self.now + wait.max(0).unsigned_abs().max(PAUSE);
        }
        self.shared.nodes.store(u32::try_from(nodes).unwrap_or(1).max(1), Relaxed);
        let end = self.now + owed.max(0).unsigned_abs();
        let Ok(()) = self.cells.update(self.key, |_| Ok::<_, std::convert::Infallible>((end, ())));
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        let mut lease = self.held.borrow_mut();
        lease.asking = false;
        if !self.answered {
            (lease.away, lease.away_until) = (true, self.now + PAUSE_AWAY);
        }
        lease.waiting.drain(..).for_each(Waker::wake);
    }
}

fn digest(parts: &[&[u8]]) -> [u8; 16] {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut short = [0; 16];
    short.copy_from_slice(&context.finish().as_ref()[..16]);
    short
}
