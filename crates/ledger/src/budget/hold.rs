//! What a call holds of the budgets above it, until it is known what it cost.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use base::Percent;
use smallvec::SmallVec;

use super::amount::{Allowance, Used};
use super::books::{Rule, Rules};
use super::lease::Want;
use super::period::Moment;
use super::spec::Scope;
use super::window::Window;

/// The worst case of one call, reserved on every budget above it. Ends in exactly one way: [`settle`](Hold::settle) or
/// [`release`](Hold::release). One that is dropped is a fault of whoever dropped it: nobody knows what the call cost, so
/// **all of it is taken to be spent**, and [`Books::lost`](super::Books::lost) counts it.
#[must_use = "what is reserved must be settled or released; dropped, all of it counts as spent"]
#[derive(Debug)]
pub struct Hold {
    rules: Arc<Rules>,
    parts: Vec<Part>,
}

#[derive(Debug)]
pub(super) struct Part {
    pub(super) rule: u32,
    pub(super) taken: u64,
    pub(super) window: Arc<Window>,
}

/// Which budget does not allow a call, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exhausted {
    pub budget: Arc<str>,
    pub scope: Scope,
    /// Whose it is: a name, a trace id, `*` for the organisation's.
    pub whose: String,
    pub why: Why,
    pub allowance: Allowance,
    /// What is neither spent nor reserved.
    pub left: Allowance,
    /// What the call may take at worst.
    pub asked: Allowance,
    /// When the next period begins; `None` if never.
    pub renews: Option<Moment>,
    /// What to borrow, if it is [`Why::Unlent`].
    pub want: Option<Want>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The call may cost more than is left.
    Spent,
    /// It may cost more than the whole budget, so waiting does not help.
    TooLarge,
    /// What is spent cannot be written down.
    Unbooked,
    /// There are as many accounts as may be.
    Crowded,
    /// This node was not lent enough of a budget that is shared: it may borrow.
    Unlent,
    /// It could not borrow, since the store does not answer.
    Away,
}

/// How one of the budgets above a call stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub budget: Arc<str>,
    pub scope: Scope,
    pub whose: String,
    pub allowance: Allowance,
    pub spent: Allowance,
    /// What is neither spent nor reserved.
    pub left: Allowance,
    pub renews: Option<Moment>,
    /// The highest share that is spent of those at which it warns.
    pub warns: Option<Percent>,
}

/// A budget of which a share is spent now at which it warns. Of all calls only one is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crossed {
    pub share: Percent,
    pub standing: Standing,
}

// === impl Why ===

impl Why {
    /// In the order of the variants.
    pub const ALL: [Why; 6] = [Why::Spent, Why::TooLarge, Why::Unbooked, Why::Crowded, Why::Unlent, Why::Away];

    pub fn as_str(self) -> &'static str {
        match self {
            Why::Spent => "spent",
            Why::TooLarge => "too-large",
            Why::Unbooked => "unbooked",
            Why::Crowded => "crowded",
            Why::Unlent => "unlent",
            Why::Away => "store-away",
        }
    }
}

// === impl Hold ===

impl Hold {
    pub(super) fn new(rules: Arc<Rules>, parts: Vec<Part>) -> Hold {
        Hold { rules, parts }
    }

    /// Books what the call really took, against the periods it was reserved in, and frees the rest. It may be more than
    /// was reserved, if the worst case was none: what is spent is spent, and the budget is then overdrawn.
    pub fn settle(mut self, used: &Used) -> SmallVec<[Crossed; 1]> {
        let mut crossed = SmallVec::new();
        for Part { rule, taken, window } in mem::take(&mut self.parts) {
            let rule = self.rules.rule(rule);
            let (before, after) = window.settle(taken, rule.unit.count(used));
            let passed = rule.warn.iter().filter(|(_, at)| before < *at && *at <= after);
            let passed = passed.inspect(|_| rule.counts.warned());
            crossed.extend(passed.map(|(share, _)| Crossed { share: *share, standing: rule.standing(&window) }));
        }
        crossed
    }

    /// Frees all of it: nothing was spent.
    pub fn release(self) {
        let _ = self.settle(&Used::NOTHING);
    }

    /// How the budgets above the call stand, the call itself taken as reserved.
    pub fn standings(&self) -> impl Iterator<Item = Standing> {
        self.parts.iter().map(|part| self.rules.rule(part.rule).standing(&part.window))
    }

    /// What to borrow before it is needed, of the budgets above the call that are shared.
    pub fn wants(&self) -> impl Iterator<Item = Want> {
        self.parts.iter().filter_map(|part| self.rules.rule(part.rule).refill(&part.window))
    }

    /// No budget stands above the call.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.parts.is_empty() {
            return;
        }
        self.rules.lost.fetch_add(1, Relaxed);
        for Part { rule: _, taken, window } in &self.parts {
            window.settle(*taken, *taken);
        }
    }
}

// === impl Rule ===

impl Rule {
    pub(super) fn standing(&self, window: &Window) -> Standing {
        let spent = window.spent();
        Standing {
            budget: self.name.clone(),
            scope: self.scope,
            whose: window.key.to_string(),
            allowance: self.allowance,
            spent: self.unit.name(spent),
            left: self.unit.name(self.limit.saturating_sub(window.used())),
            renews: self.every.end(window.start, self.offset).map(Moment::from_secs),
            warns: self.warns(spent),
        }
    }

    /// The highest share at which it warns, of those that are reached by so much.
    pub(super) fn warns(&self, spent: u64) -> Option<Percent> {
        self.warn.iter().filter(|(_, at)| *at <= spent).map(|(share, _)| *share).max()
    }
}

impl std::fmt::Display for Exhausted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Exhausted { budget, scope, whose, why, allowance, left, asked, renews, want: _ } = self;
        write!(f, "budget `{budget}` of {} `{whose}`: ", scope.as_str())?;
        match why {
            Why::Spent => write!(f, "{left} of {allowance} left, the call may take {asked}")?,
            Why::TooLarge => write!(f, "the call may take {asked}, which is more than all of {allowance}")?,
            Why::Unbooked => f.write_str("what is spent cannot be written down")?,
            Why::Crowded => f.write_str("there are as many accounts as it may have")?,
            Why::Unlent => f.write_str("this node was not lent enough of it")?,
            Why::Away => f.write_str("the store that lends it does not answer")?,
        }
        match renews {
            Some(at) if *why == Why::Spent => write!(f, "; it renews at {at}"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Exhausted {}
