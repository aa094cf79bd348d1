//! Budgets: an amount over a period, for each of something. Reserved before a call, settled after it.

mod accounts;
mod amount;
mod books;
mod hold;
mod lease;
mod period;
mod spec;
mod view;
mod window;

pub use amount::{Allowance, Used};
pub use books::{Account, Books, Caller, Health};
pub use hold::{Crossed, Exhausted, Hold, Standing, Why};
pub use lease::{Away, GIVE_BACK, LEND, Lender, Want};
pub use period::{Every, Moment, Offset};
pub use spec::{BudgetError, BudgetSpec, BudgetsSpec, Enforce, Fail, Scope};
pub use view::{Holder, Totals, View};
