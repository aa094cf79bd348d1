//! A shared HTTP cache as RFC 9111 has it, without any I/O: what may be kept and for how long, what answers a request,
//! and the memory that holds it. Who fetches what is not there is the path's business.
//!
//! Read [`plan`] for what is kept, [`Entry::fit`] for what is used, [`store`] for where it lies.
#![forbid(unsafe_code)]

mod control;
mod date;
mod entry;
mod flight;
mod key;
mod plan;
mod queue;
mod reuse;
mod store;

#[cfg(test)]
mod testing;

pub use control::Asks;
pub use date::Date;
pub use entry::{Entry, Fit};
pub use flight::{Flight, Joined, Reader, Ticket};
pub use key::{Key, Query, Scope};
pub use plan::{Plan, Rules, Seen, Why, plan};
pub use reuse::{Answer, answer, is_conditional, wants_part};
pub use store::{Boarded, Found, Front, Purge, Revalidated, Store, Usage, What};
