//! How budgets stand, for those who ask: people and metrics. It walks through all accounts, so nothing on the path of a
//! call asks.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use base::Percent;

use super::accounts::{Asked, Key};
use super::amount::Allowance;
use super::books::{Books, Rule};
use super::hold::Why;
use super::period::{Every, Moment};
use super::spec::{Enforce, Scope};
use super::window::Window;

/// One budget, and how those stand who have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    pub budget: Arc<str>,
    pub scope: Scope,
    /// What each of those may spend.
    pub allowance: Allowance,
    pub every: Every,
    pub enforce: Enforce,
    /// The store that lends it, if other nodes spend of it, too.
    pub shared: Option<Arc<str>>,
    /// How many have an account in the current period.
    pub accounts: usize,
    /// Those of them that have used most, the one first that has used most of all.
    pub holders: Vec<Holder>,
    /// What the others have used, together.
    pub others: Totals,
    /// Calls refused, by why; since the process began, as long as the name is in the document.
    pub refused: [(Why, u64); 6],
    /// How often a share was reached at which it warns.
    pub warned: u64,
}

/// One account in the current period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// A name, a trace id, `*` for the organisation's.
    pub whose: String,
    pub spent: Allowance,
    /// What calls under way may cost at worst.
    pub reserved: Allowance,
    /// What is neither spent nor reserved; of a shared budget also not what other nodes may have.
    pub left: Allowance,
    /// Of a shared budget: what this node was lent in all, and has not given back.
    pub lent: Option<Allowance>,
    pub renews: Option<Moment>,
    /// The highest share that is spent of those at which it warns.
    pub warns: Option<Percent>,
}

/// Sums over accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    pub spent: Allowance,
    pub reserved: Allowance,
}

/// What became of calls at one budget.
#[derive(Debug, Default)]
pub(super) struct Counts {
    refused: [AtomicU64; Why::ALL.len()],
    warned: AtomicU64,
}

// === impl Books ===

impl Books {
    /// How every budget stands at `now`, with at most so many of its accounts as `most` says for those who have it, or only
    /// with that of `whose`. The accounts that a document names, and the organisation's, are there before their first call;
    /// others are not.
    pub fn view(&self, now: Moment, most: impl Fn(Scope) -> usize, whose: Option<&str>) -> Vec<View> {
        self.rules().map(|rule| rule.view(now, most(rule.scope), whose)).collect()
    }
}

// === impl Rule ===

impl Rule {
    fn view(&self, now: Moment, most: usize, whose: Option<&str>) -> View {
        let mut windows = self.accounts.windows(now);
        let start = self.every.start(now, self.offset);
        let named = self.named().filter(|key| windows.iter().all(|window| window.key != *key));
        let untouched: Vec<_> = named.map(|key| Arc::new(Window::new(key, start, self.unlent()))).collect();
        windows.extend(untouched);
        if let Some(whose) = whose {
            windows.retain(|window| window.key.to_string() == whose);
        }
        let mut used: Vec<_> = windows.into_iter().map(|window| (window.taken(), window)).collect();
        // Of those that have used as much, always the same: the order of a table tells nothing.
        used.sort_by_cached_key(|((spent, reserved), window)| {
            (Reverse(spent.saturating_add(*reserved)), window.key.to_string())
        });
        let others = used.get(most..).unwrap_or_default().iter();
        let (spent, reserved) = others.fold((0u64, 0u64), |(spent, reserved), ((more, held), _)| {
            (spent.saturating_add(*more), reserved.saturating_add(*held))
        });
        View {
            budget: self.name.clone(),
            scope: self.scope,
            allowance: self.allowance,
            every: self.every,
            enforce: self.enforce,
            shared: self.shared.clone(),
            accounts: used.len(),
            holders: used.iter().take(most).map(|(taken, window)| self.holder(*taken, window)).collect(),
            others: Totals { spent: self.unit.name(spent), reserved: self.unit.name(reserved) },
            refused: Why::ALL.map(|why| (why, self.counts.refused[why as usize].load(Relaxed))),
            warned: self.counts.warned.load(Relaxed),
        }
    }

    /// Whose accounts there are whoever calls.
    fn named(&self) -> impl Iterator<Item = Key> {
        let all = (self.scope == Scope::Organisation).then_some(Key::All);
        all.into_iter().chain(self.only.iter().map(|name| Asked::Named(name).into()))
    }

    fn holder(&self, (spent, reserved): (u64, u64), window: &Window) -> Holder {
        Holder {
            whose: window.key.to_string(),
            spent: self.unit.name(spent),
            reserved: self.unit.name(reserved),
            left: self.unit.name(self.limit.saturating_sub(window.used())),
            lent: self.shared.as_ref().map(|_| self.unit.name(window.lent())),
            renews: self.every.end(window.start, self.offset).map(Moment::from_secs),
            warns: self.warns(spent),
        }
    }
}

// === impl Counts ===

impl Counts {
    pub(super) fn refused(&self, why: Why) {
        self.refused[why as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn warned(&self) {
        self.warned.fetch_add(1, Relaxed);
    }
}
