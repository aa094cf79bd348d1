//! One line of the ledger: what a call cost, who pays, and what came of it.

use std::sync::Arc;

use base::TokenUsage;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::budget::{Caller, Moment, Used};
use crate::{Money, ServiceTier};

/// What one attempt at a model cost. Its id, the writer and the sequence, is given by the journal that holds it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// When the call began: in whose period it is counted.
    pub time: Moment,
    pub api: Arc<str>,
    pub route: Arc<str>,
    pub consumer: Option<Arc<str>>,
    /// What people call the key that was presented.
    pub credential: Option<Arc<str>>,
    pub team: Option<Arc<str>>,
    /// The trace id.
    pub task: Option<[u8; 16]>,
    pub provider: Arc<str>,
    /// What the caller asked for, and what served it.
    pub model_asked: Arc<str>,
    pub model_served: Arc<str>,
    pub class: Class,
    pub outcome: Outcome,
    pub usage: TokenUsage,
    pub tier: ServiceTier,
    /// The row of the price book it was priced by: `openai/gpt-4o@2026-11-24`; empty if there is no price.
    pub price: Arc<str>,
    pub cost: Money,
    /// What a cache spared.
    pub saved: Money,
    /// The usage was counted here, since the provider did not tell all of it.
    pub estimated: bool,
    /// Microseconds from the call's beginning to the first token; 0 if there was none.
    pub first_token: u64,
    /// Microseconds from the call's beginning to its end.
    pub total: u64,
    /// What was reserved for the call: any number that no other open reservation of this process has, the same in what was
    /// [written down before it](crate::Record::Opened) and in its last entry, which settles it. 0 in all others.
    pub hold: u64,
}

/// What the money went for, so that hidden cost can be seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// The caller got its answer.
    #[default]
    Useful,
    /// An attempt after which there was another.
    Retry,
    /// It failed, and the provider charges for what it did before.
    FailedBilled,
    /// The caller left.
    Abandoned,
    /// One of two attempts made at once, whose answer nobody needed.
    Duplicate,
    /// Answered without a provider.
    Cached,
    /// Spent on looking whether a call is safe.
    Guard,
    /// It failed, and nobody charges for it.
    Failed,
    /// Spent on looking whether an answer is known.
    Lookup,
}

/// How the attempt ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// A whole answer.
    #[default]
    Answered,
    /// The provider said no, or could not be reached.
    Failed,
    /// The answer broke off.
    Cut,
    /// The caller left before its end.
    Cancelled,
    /// The node ended before the call did; what it cost is taken to be what was reserved.
    Crashed,
}

// === impl Entry ===

impl Entry {
    /// What it takes of budgets: nothing, if no provider was asked. An attempt that another followed is no call of its own.
    /// A hold is settled with the sum over the entries of its call.
    pub fn used(&self) -> Used {
        let calls = match self.class {
            Class::Retry | Class::Duplicate | Class::Guard | Class::Cached | Class::Lookup => 0,
            Class::Useful | Class::FailedBilled | Class::Failed | Class::Abandoned => 1,
        };
        let tokens = if self.class == Class::Cached { 0 } else { self.usage.total() };
        Used { money: self.cost, tokens, calls }
    }

    pub fn caller(&self) -> Caller<'_> {
        Caller {
            task: self.task,
            key: self.credential.as_deref(),
            consumer: self.consumer.as_deref(),
            team: self.team.as_deref(),
            api: Some(&self.api),
        }
    }
}

impl Class {
    pub const ALL: [Class; 9] = [
        Class::Useful,
        Class::Retry,
        Class::FailedBilled,
        Class::Abandoned,
        Class::Duplicate,
        Class::Cached,
        Class::Guard,
        Class::Failed,
        Class::Lookup,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Class::Useful => "useful",
            Class::Retry => "retry",
            Class::FailedBilled => "failed-billed",
            Class::Abandoned => "abandoned",
            Class::Duplicate => "duplicate",
            Class::Cached => "cached",
            Class::Guard => "guard",
            Class::Failed => "failed",
            Class::Lookup => "lookup",
        }
    }
}

impl Outcome {
    pub const ALL: [Outcome; 5] =
        [Outcome::Answered, Outcome::Failed, Outcome::Cut, Outcome::Cancelled, Outcome::Crashed];

    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Answered => "answered",
            Outcome::Failed => "failed",
            Outcome::Cut => "cut",
            Outcome::Cancelled => "cancelled",
            Outcome::Crashed => "crashed",
        }
    }
}
