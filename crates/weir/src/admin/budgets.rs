//! Budgets: who has how much, what is spent of it, and what calls under way may cost.

use std::time::SystemTime;

use config::Snapshot;
use ledger::{Allowance, Enforce, Every, Moment, Scope, View};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::answer::{Answer, Asked, Problem};

/// All budgets.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Budgets {
    pub budgets: Vec<Budget>,
}

/// One budget. Amounts are decimals in its unit, exact, and so texts.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Budget {
    pub name: String,
    /// Who has it.
    pub per: Scope,
    /// `USD`, `tokens` or `calls`.
    pub unit: String,
    /// What each that has it may spend in a period.
    pub limit: String,
    /// How long a period is.
    pub every: Every,
    /// Whether calls are refused that do not fit.
    pub enforce: Enforce,
    /// The store that lends it to the nodes that spend it together; absent if this node counts alone.
    pub shared: Option<String>,
    /// Calls it has refused since the node started.
    pub refused: u64,
    /// How often a share was spent at which it warns.
    pub warned: u64,
    /// How many have spent of it in this period.
    pub accounts: u64,
    /// Those of them that have used most, at most 100, the one first that has used most of all.
    pub holders: Vec<Holder>,
}

/// One that has a budget, in this period. Of a budget that nodes share all of it is as this node sees it.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Holder {
    /// Its name; of a task the trace id, of the organisation `*`.
    pub of: String,
    pub spent: String,
    /// What calls under way may cost at worst.
    pub reserved: String,
    /// What is neither spent nor reserved; of a budget that nodes share, of what this node was lent.
    pub left: String,
    /// Of a budget that nodes share: what this node was lent in all, and has not given back.
    pub lent: Option<String>,
    /// When the next period begins, such as `2026-12-01T00:00:00Z`; absent if never.
    pub renews: Option<String>,
    /// The highest share that is spent of those at which it warns, such as `80%`.
    pub warns: Option<String>,
}

pub fn all(asked: &Asked<'_>) -> Result<Answer, Problem> {
    let snapshot = asked.running.snapshot().ok_or_else(Problem::stopping)?;
    let of = asked.query("of");
    let views = snapshot.books.view(Moment::from(SystemTime::now()), |_| HOLDERS, of);
    if let Some(of) = of
        && views.iter().all(|view| view.holders.is_empty())
        && !may_have_one(of, &snapshot)
    {
        return Err(Problem::new(404, stranger(of, &snapshot)));
    }
    let mut budgets: Vec<_> = views.into_iter().map(Budget::from).collect();
    budgets.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Answer::json(&Budgets { budgets }))
}

/// Whether calls of it may come to be counted: who is in the document, and tasks, which are in none.
fn may_have_one(of: &str, snapshot: &Snapshot) -> bool {
    let is_trace = of.len() == 32 && of.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_trace || of == "*" || snapshot.is_named(of)
}

fn stranger(of: &str, snapshot: &Snapshot) -> String {
    let nobody = format!(
        "nobody is called `{of}`: no consumer, team, key or api of the document, and none that has spent of a budget"
    );
    let consumers = &snapshot.consumers;
    if consumers.is_empty() {
        return nobody;
    }
    let named: Vec<_> = consumers.iter().take(NAMED).map(|it| format!("`{}`", it.name)).collect();
    let more = match consumers.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{nobody}; the document's consumers are {}{more}", named.join(", "))
}

impl From<View> for Budget {
    fn from(view: View) -> Budget {
        let View { budget, scope, allowance, every, enforce, shared, accounts, holders, others: _, refused, warned } =
            view;
        Budget {
            name: budget.to_string(),
            per: scope,
            unit: allowance.unit_name().into(),
            limit: allowance.plain(),
            every,
            enforce,
            shared: shared.map(|store| store.to_string()),
            refused: refused.iter().map(|(_, count)| count).sum(),
            warned,
            accounts: accounts as u64,
            holders: holders.into_iter().map(Holder::from).collect(),
        }
    }
}

impl From<ledger::Holder> for Holder {
    fn from(holder: ledger::Holder) -> Holder {
        let ledger::Holder { whose, spent, reserved, left, lent, renews, warns } = holder;
        Holder {
            of: whose,
            spent: spent.plain(),
            reserved: reserved.plain(),
            left: left.plain(),
            lent: lent.map(Allowance::plain),
            renews: renews.map(|at| at.to_string()),
            warns: warns.map(|share| share.to_string()),
        }
    }
}

/// So many of a budget are shown; who looks for another names it.
const HOLDERS: usize = 100;
/// So many consumers are named to who asks for nobody.
const NAMED: usize = 10;
