//! A shared HTTP cache as RFC 9111 has it, without any I/O: what may be kept and for how long, what answers a request,
//! and the memory that holds it. Who fetches what is not there is the path's business.
//!
//! It also keeps what is known by a name rather than a URL ([`Key::named`]), and finds what is near to something
//! ([`Near`]).
//!
//! Read [`plan`] for what is kept, [`Entry::fit`] for what is used, [`store`] for where it lies, [`disk`] for where it
//! lies when the process ends.
#![forbid(unsafe_code)]

mod control;
mod date;
pub mod disk;
mod entry;
mod flight;
mod key;
mod near;
mod plan;
mod queue;
mod reuse;
mod shares;
mod store;

#[cfg(test)]
mod testing;

pub use control::Asks;
pub use date::Date;
pub use entry::{Entry, Fit, Note};
pub use flight::{Flight, Joined, Reader, Ticket};
pub use key::{Key, Query, Scope};
pub use near::{Near, Partition, Search, Vector};
pub use plan::{Plan, Rules, Seen, Why, plan};
pub use reuse::{Answer, answer, is_conditional, wants_part};
pub use shares::Share;
pub use store::{Boarded, Found, Front, Purge, Purged, Revalidated, Store, Usage, What};
