//! Names of upstreams, resolved in the background and read without a lock.
//!
//! A call never waits for a name server: [`Names`] keeps every name that is in use fresh, on the control runtime,
//! and publishes what it stands for in a cell that any core reads. While name servers fail the last answer stays, for
//! as long as [`Patience`] lets it.

mod kept;
mod names;
mod resolver;
#[cfg(test)]
mod tests;

pub use kept::{Kept, Name, Patience, Service};
pub use names::{Asked, NameStatus, Names};
pub use resolver::{Answer, DnsError, Resolver};
