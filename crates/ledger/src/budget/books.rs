//! All budgets and the price book, shared by all cores.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

use base::Percent;

use super::accounts::{Accounts, Asked, Key, Taking};
use super::amount::{Allowance, Unit, Used};
use super::hold::{Exhausted, Hold, Part, Standing, Why};
use super::lease::{Away, PART, Want, grain};
use super::period::{Every, Moment, Offset};
use super::spec::{BudgetError, BudgetSpec, BudgetsSpec, Enforce, Fail, Scope};
use super::view::Counts;
use super::window::Window;
use crate::{Entry, PriceBook};

/// The budgets and the prices of a snapshot; without budgets, and with the prices in the binary, by default.
#[derive(Debug, Default)]
pub struct Books {
    pub prices: PriceBook,
    rules: Arc<Rules>,
    health: Arc<Health>,
}

/// Whether what is spent can be written down; whoever writes the journal says so, and budgets that fail closed ask.
#[derive(Debug, Default)]
pub struct Health {
    unbooked: AtomicBool,
}

/// Who stands above a call, as far as is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Caller<'a> {
    /// The trace id.
    pub task: Option<[u8; 16]>,
    pub key: Option<&'a str>,
    pub consumer: Option<&'a str>,
    pub team: Option<&'a str>,
    pub api: Option<&'a str>,
}

/// One account as it stands, for those who ask.
pub type Account = Standing;

#[derive(Debug, Default)]
pub(super) struct Rules {
    /// Those with the fewest callers first, so that what is taken and must be given back since a wider budget refuses
    /// was in the way of the fewest.
    rules: Box<[Rule]>,
    pub(super) lost: AtomicU64,
}

#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: Arc<str>,
    pub(super) scope: Scope,
    pub(super) only: Vec<String>,
    pub(super) allowance: Allowance,
    pub(super) unit: Unit,
    pub(super) limit: u64,
    pub(super) every: Every,
    pub(super) offset: Offset,
    pub(super) enforce: Enforce,
    /// The shares, and what they are in units.
    pub(super) warn: Vec<(Percent, u64)>,
    fail: Fail,
    keys: u64,
    /// The store that lends it, if other nodes spend of it, too.
    pub(super) shared: Option<Arc<str>>,
    pub(super) accounts: Arc<Accounts>,
    pub(super) counts: Arc<Counts>,
}

// === impl Books ===

impl Books {
    /// Those of a document. A budget that is still there and counts the same goes on with what it has counted, in
    /// `previous`, whatever it allows now.
    pub fn new(specs: &BudgetsSpec, prices: PriceBook, previous: Option<&Books>) -> Result<Books, Vec<BudgetError>> {
        let mut errors = Vec::new();
        let mut rules = Vec::new();
        for (name, spec) in &specs.0 {
            let before = previous.and_then(|books| books.rules.rules.iter().find(|rule| *rule.name == **name));
            let wrong = spec.check(name);
            match spec.amount.counted() {
                Some(limit) if wrong.is_empty() => rules.push(Rule::new(name, spec, limit, before)),
                _ => errors.extend(wrong),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        rules.sort_by_key(|rule| rule.scope);
        let health = previous.map_or_else(Arc::default, |books| books.health.clone());
        let lost = previous.map_or(0, |books| books.rules.lost.load(Relaxed));
        Ok(Books { prices, rules: Arc::new(Rules { rules: rules.into(), lost: lost.into() }), health })
    }

    /// What was lent is free to be spent, and it may be asked for more. Nothing, if its period is over meanwhile.
    pub fn lend(&self, want: &Want, lent: u64) {
        if let Some(window) = self.window(want) {
            window.lend(lent.saturating_mul(want.grain));
        }
    }

    /// Nothing was lent, and who finds that there is little left may ask again.
    pub fn lent_nothing(&self, want: &Want) {
        if let Some(window) = self.window(want) {
            window.asked();
        }
    }

    /// The same, by what is held now; `None` if its period is over, or there is no such budget any more.
    pub fn renewed(&self, want: &Want) -> Option<Want> {
        let window = self.window(want)?;
        Some(Want { held: window.lent() / want.grain, before: window.restored() / want.grain, ..want.clone() })
    }

    fn window(&self, want: &Want) -> Option<Arc<Window>> {
        let rule = self.rules.rules.iter().find(|rule| rule.name == want.budget)?;
        rule.accounts.current(&want.whose, want.start)
    }

    /// What is free of what was lent, to be given back to the stores, as a node does that ends: it is no longer free here.
    /// `wish` says how much.
    pub fn give_back(&self, now: Moment) -> Vec<Want> {
        self.take_back(now, |rule, window| rule.limit.saturating_sub(window.used()))
    }

    /// The same of what nobody seems to need: all that is free where nothing has been taken since this was asked last, and
    /// elsewhere what is more than two shares.
    pub fn idle(&self, now: Moment) -> Vec<Want> {
        self.take_back(now, |rule, window| {
            let free = rule.limit.saturating_sub(window.used());
            let share = rule.limit / PART;
            match window.rests() {
                true => free,
                false if free > share.saturating_mul(2) => free - share,
                false => 0,
            }
        })
    }

    fn take_back(&self, now: Moment, much: impl Fn(&Rule, &Window) -> u64) -> Vec<Want> {
        let mut all = Vec::new();
        for rule in self.rules.rules.iter().filter(|rule| rule.shared.is_some()) {
            for window in rule.accounts.windows(now) {
                let given = window.give_back(much(rule, &window), rule.limit, grain(rule.limit));
                if given > 0
                    && let Some(want) = rule.want(&window, 0)
                {
                    all.push(Want { wish: given / want.grain, ..want });
                }
            }
        }
        all
    }

    /// What is free of budgets that do not go on as they are in these books, after which nobody will spend it.
    pub fn left_behind(&self, next: &Books, now: Moment) -> Vec<Want> {
        let goes_on = |rule: &Rule| next.rules.rules.iter().any(|it| Arc::ptr_eq(&it.accounts, &rule.accounts));
        self.take_back(now, |rule, window| if goes_on(rule) { 0 } else { rule.limit.saturating_sub(window.used()) })
    }

    /// Whether any budget is lent by stores.
    pub fn is_shared(&self) -> bool {
        self.rules.rules.iter().any(|rule| rule.shared.is_some())
    }

    /// The stores that lend, by the budgets that they lend.
    pub fn stores(&self) -> impl Iterator<Item = (&str, &Arc<str>)> {
        self.rules.rules.iter().filter_map(|rule| Some((&*rule.name, rule.shared.as_ref()?)))
    }

    /// Holds the worst case of a call on every budget above it, or on none: then the first that does not allow it is
    /// told. Never waits for anything.
    ///
    /// A call that a wider budget refuses has held its part of the narrower ones for a moment; another that came in that
    /// moment may have been refused by those. It is never the other way round: what is reserved and spent is at no time
    /// more than a hard budget allows.
    pub fn reserve(&self, caller: &Caller<'_>, worst: &Used, now: Moment) -> Result<Hold, Box<Exhausted>> {
        let result = self.reserve_while(caller, worst, now, None);
        // Who may borrow is not refused yet.
        result.inspect_err(|exhausted| {
            if exhausted.why != Why::Unlent {
                self.refused(exhausted);
            }
        })
    }

    /// A call goes no further, which its budget counts.
    pub(super) fn refused(&self, exhausted: &Exhausted) {
        if let Some(rule) = self.rules().find(|rule| rule.name == exhausted.budget) {
            rule.counts.refused(exhausted.why);
        }
    }

    /// [`reserve`](Books::reserve), where a store may be known to be away: of budgets that fail open more is spent then than
    /// was lent. Counts no refusals.
    pub(super) fn reserve_while(
        &self,
        caller: &Caller<'_>,
        worst: &Used,
        now: Moment,
        away: Option<Away>,
    ) -> Result<Hold, Box<Exhausted>> {
        let mut parts = Vec::new();
        let refused = self.rules.rules.iter().zip(0u32..).find_map(|(rule, at)| {
            let key = rule.key(caller)?;
            let taken = rule.unit.count(worst);
            match rule.take(key, taken, now, &self.health, away) {
                Ok(None) => None,
                Ok(Some(window)) => {
                    parts.push(Part { rule: at, taken, window });
                    None
                }
                Err(refused) => Some(refused),
            }
        });
        let hold = Hold::new(self.rules.clone(), parts);
        match refused {
            None => Ok(hold),
            Some(refused) => {
                hold.release();
                Err(refused)
            }
        }
    }

    /// Counts what an entry of the journal says was spent, as a node does that starts; in the period the call began in.
    pub fn restore(&self, entry: &Entry) {
        let used = entry.used();
        for rule in &self.rules.rules {
            let Some(key) = rule.key(&entry.caller()) else { continue };
            rule.accounts.add(key, rule.unit.count(&used), entry.time);
        }
    }

    /// From what moment on entries are needed to know what is spent of the budgets at `now`; `None` if none is.
    pub fn needed_since(&self, now: Moment) -> Option<Moment> {
        let starts = self.rules.rules.iter().map(|rule| rule.every.start(now, rule.offset));
        starts.min().map(Moment::from_secs)
    }

    /// How all accounts stand, for those who ask; walks through all of them.
    pub fn accounts(&self, now: Moment) -> Vec<Account> {
        let standings = |rule: &Rule| {
            let windows = rule.accounts.windows(now);
            windows.into_iter().map(|window| rule.standing(&window)).collect::<Vec<_>>()
        };
        self.rules.rules.iter().flat_map(standings).collect()
    }

    pub(super) fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.rules.iter()
    }

    /// Holds that were dropped, neither settled nor released, since the process began: faults.
    pub fn lost(&self) -> u64 {
        self.rules.lost.load(Relaxed)
    }

    /// To be told by whoever writes the journal. The same over all reloads.
    pub fn health(&self) -> Arc<Health> {
        self.health.clone()
    }

    /// How many budgets there are.
    pub fn budgets(&self) -> usize {
        self.rules.rules.len()
    }

    /// There are budgets.
    pub fn has_budgets(&self) -> bool {
        !self.rules.rules.is_empty()
    }
}

impl Health {
    /// What is spent cannot be written down, or can be again.
    pub fn set_unbooked(&self, unbooked: bool) {
        self.unbooked.store(unbooked, Relaxed);
    }

    pub fn is_unbooked(&self) -> bool {
        self.unbooked.load(Relaxed)
    }
}

impl Rules {
    pub(super) fn rule(&self, at: u32) -> &Rule {
        &self.rules[at as usize]
    }
}

// === impl Rule ===

impl Rule {
    fn new(name: &str, spec: &BudgetSpec, limit: u64, before: Option<&Rule>) -> Rule {
        let BudgetSpec { per, only, amount, every, offset, enforce, warn, fail, shared, keys } = spec;
        let (unit, offset) = (amount.unit(), offset.unwrap_or_default());
        let keys = if *per == Scope::Organisation { 1 } else { *keys };
        let same = before.filter(|rule| {
            let counts = (rule.scope, rule.unit, rule.every, rule.offset, rule.keys);
            let lent = (rule.shared.as_deref(), rule.shared.is_none() || rule.limit == limit);
            counts == (*per, unit, *every, offset, keys) && lent == (shared.as_deref(), true)
        });
        let shares = warn.iter().map(|share| {
            let millionths = (share.fraction() * 1e6).round() as u128;
            // Not before: of three calls two are not 80%.
            let at = (u128::from(limit) * millionths).div_ceil(1_000_000);
            (*share, u64::try_from(at).unwrap_or(limit).max(1))
        });
        Rule {
            name: name.into(),
            scope: *per,
            only: only.clone(),
            allowance: *amount,
            unit,
            limit,
            every: *every,
            offset,
            enforce: *enforce,
            warn: shares.collect(),
            fail: *fail,
            keys,
            shared: shared.as_deref().map(Arc::from),
            counts: before.map_or_else(Arc::default, |rule| rule.counts.clone()),
            accounts: same.map_or_else(
                || {
                    let unlent = if shared.is_some() { limit } else { 0 };
                    Arc::new(Accounts::new(keys, *every, offset, *per == Scope::Task, unlent))
                },
                |rule| rule.accounts.clone(),
            ),
        }
    }

    /// What a new period has that nobody was lent.
    pub(super) fn unlent(&self) -> u64 {
        if self.shared.is_some() { self.limit } else { 0 }
    }

    /// What to borrow to take so much more than is free; `None` if it is not shared.
    pub(super) fn want(&self, window: &Window, amount: u64) -> Option<Want> {
        let grain = grain(self.limit);
        let least = amount.div_ceil(grain).max(1);
        Some(Want {
            store: self.shared.clone()?,
            budget: self.name.clone(),
            whose: window.key.clone(),
            start: window.start,
            renews: self.every.end(window.start, self.offset).map(Moment::from_secs),
            limit: self.limit / grain,
            held: window.lent() / grain,
            before: window.restored() / grain,
            least,
            wish: least.max(self.limit / grain / PART),
            grain,
        })
    }

    /// What to borrow before it is needed: where less than half a share is free, and nobody has asked yet.
    pub(super) fn refill(&self, window: &Window) -> Option<Want> {
        self.shared.as_ref()?;
        let free = self.limit.saturating_sub(window.used());
        let low = free < self.limit / PART / 2 && window.unlent() > 0;
        (low && window.asks()).then(|| self.want(window, 0)).flatten()
    }

    /// Whose account a call goes to; `None` if it goes to none.
    fn key<'a>(&self, caller: &Caller<'a>) -> Option<Asked<'a>> {
        let name = match self.scope {
            Scope::Organisation => return Some(Asked::All),
            Scope::Task => return caller.task.map(Asked::Task),
            Scope::Key => caller.key,
            Scope::Consumer => caller.consumer,
            Scope::Team => caller.team,
            Scope::Api => caller.api,
        }?;
        (self.only.is_empty() || self.only.iter().any(|only| only == name)).then_some(Asked::Named(name))
    }

    /// `None` if the call passes uncounted.
    fn take(
        &self,
        key: Asked<'_>,
        amount: u64,
        now: Moment,
        health: &Health,
        away: Option<Away>,
    ) -> Result<Option<Arc<Window>>, Box<Exhausted>> {
        let hard = self.enforce == Enforce::Hard;
        let exhausted = |why, left: u64, renews: Option<u64>| Exhausted {
            budget: self.name.clone(),
            scope: self.scope,
            whose: Key::from(key).to_string(),
            why,
            allowance: self.allowance,
            left: self.unit.name(left),
            asked: self.unit.name(amount),
            renews: renews.map(Moment::from_secs),
            want: None,
        };
        let refuse = |why, left, renews| Box::new(exhausted(why, left, renews));
        if health.is_unbooked() && hard && self.fail == Fail::Closed {
            return Err(refuse(Why::Unbooked, 0, None));
        }
        let open = away.is_some() && self.shared.is_some() && self.fail == Fail::Open;
        match self.accounts.take(key, amount, (hard && !open).then_some(self.limit), now) {
            Taking::Taken(window) => Ok(Some(window)),
            Taking::Short { left, window } => {
                let renews = self.every.end(window.start, self.offset);
                if amount > self.limit {
                    return Err(refuse(Why::TooLarge, left, renews));
                }
                if self.shared.is_none() || window.unlent() == 0 {
                    return Err(refuse(Why::Spent, left, renews));
                }
                let mut refused = refuse(Why::Unlent, left, renews);
                refused.want = self.want(&window, amount - left);
                Err(refused)
            }
            Taking::Crowded if hard && self.fail == Fail::Closed => Err(refuse(Why::Crowded, 0, None)),
            Taking::Crowded => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests;
