//! Budgets as people write them.

use std::collections::BTreeMap;

use base::Percent;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::amount::Allowance;
use super::period::{Every, Offset};

/// The budgets, by name; a call must fit into all that are above it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct BudgetsSpec(pub BTreeMap<String, BudgetSpec>);

/// So much over a period, for each of something.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BudgetSpec {
    /// Who has this amount each.
    pub per: Scope,
    /// Of those only the ones of these names; all of them if none is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
    /// How much: money, tokens or calls, such as `250 USD`, `2M tokens`, `1000 calls`.
    pub amount: Allowance,
    /// How often it renews, by the calendar. If it is not given, never.
    #[serde(default)]
    pub every: Every,
    /// By which clock days and months begin, as an offset from UTC; UTC if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<Offset>,
    /// Whether calls are refused that do not fit.
    #[serde(default)]
    pub enforce: Enforce,
    /// At which shares spent a warning is due; at 80% if none is given.
    #[serde(default = "default_warn")]
    pub warn: Vec<Percent>,
    /// What becomes of calls while what they cost cannot be booked, could not be counted, or cannot be lent since the
    /// store is away and what this node was lent is used up.
    #[serde(default)]
    pub fail: Fail,
    /// Spend it together with other nodes, by what a store of the document's `stores` lends each of them; each node counts
    /// alone if it is not given. Not for budgets that only warn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<String>,
    /// How many accounts are kept at a time, about 200 bytes each. Beyond, tasks without a call for an hour are
    /// forgotten; if there are none, a call that needs an account fails as `fail` says.
    #[serde(default = "default_keys")]
    pub keys: u64,
}

/// Who has a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Each task: all calls of one trace. Calls without a trace are in no task.
    Task,
    /// Each key or other credential, by the name it has.
    Key,
    /// Each consumer. Callers that are not known have none.
    Consumer,
    /// Each team, for all its consumers together.
    Team,
    /// Each api, for all its callers together.
    Api,
    /// All calls together.
    Organisation,
}

/// Whether a budget stops anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Enforce {
    /// A call that may not fit is refused.
    #[default]
    Hard,
    /// It only warns.
    Soft,
}

/// What becomes of a call that cannot be counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Fail {
    /// It passes, and is not counted.
    Open,
    /// It is refused.
    #[default]
    Closed,
}

/// What is wrong with a budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetError {
    pub budget: String,
    pub field: &'static str,
    pub message: String,
}

fn default_warn() -> Vec<Percent> {
    vec![Percent::whole(80)]
}

fn default_keys() -> u64 {
    100_000
}

impl BudgetSpec {
    /// All that is wrong with it.
    pub(super) fn check(&self, name: &str) -> Vec<BudgetError> {
        let mut errors = Vec::new();
        let mut wrong = |field, message: &str| {
            errors.push(BudgetError { budget: name.to_owned(), field, message: message.to_owned() });
        };
        if self.amount.counted().is_none() {
            wrong("amount", "a budget allows something, and at most 1 billion USD or 10^18 tokens or calls");
        }
        if self.keys == 0 {
            wrong("keys", "there is at least one account");
        }
        if !self.only.is_empty() && matches!(self.per, Scope::Task | Scope::Organisation) {
            wrong("only", "tasks and the organisation have no names; expected `per` to be key, consumer, team or api");
        }
        if self.offset.is_some() && matches!(self.every, Every::Minute | Every::Total) {
            wrong("offset", "minutes begin everywhere at once; expected `every` to be hour, day or month");
        }
        if self.shared.is_some() && self.enforce == Enforce::Soft {
            wrong("shared", "a budget that only warns is counted by each node alone; leave it out");
        }
        errors
    }
}

impl Enforce {
    pub fn as_str(self) -> &'static str {
        match self {
            Enforce::Hard => "hard",
            Enforce::Soft => "soft",
        }
    }
}

impl Scope {
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Task => "task",
            Scope::Key => "key",
            Scope::Consumer => "consumer",
            Scope::Team => "team",
            Scope::Api => "api",
            Scope::Organisation => "organisation",
        }
    }
}
