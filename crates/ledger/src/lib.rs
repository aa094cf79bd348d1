//! The books: money, prices, budgets, and the entries that say what every call cost.
//!
//! Pure and synchronous: no socket, no file, no clock. Time comes with the call.
#![forbid(unsafe_code)]

mod book;
mod budget;
pub mod codec;
mod entry;
pub mod litellm;
mod money;
mod price;
mod rows;
mod spend;

pub use base::crc32c;
pub use book::{Found, Near, PriceBook};
pub use budget::{
    Account, Allowance, Away, Books, BudgetError, BudgetSpec, BudgetsSpec, Caller, Crossed, Enforce, Every, Exhausted,
    Fail, GIVE_BACK, Health, Hold, Holder, LEND, Lender, Moment, Offset, Scope, Standing, Totals, Used, View, Want,
    Why,
};
pub use codec::Record;
pub use entry::{Class, Entry, Outcome};
pub use money::{Money, MoneyRate, TokenPrice};
pub use price::{CacheUse, Demand, Price, Rates, Section, ServiceTier, Stated};
pub use rows::{RowError, Rows};
pub use spend::{By, Spend, Sums};
