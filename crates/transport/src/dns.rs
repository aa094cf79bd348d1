//! Names of upstreams, resolved in the background and read without a lock.
//!
//! A call never waits for a name server: [`Names`] keeps every name that is in use fresh, on the control runtime,
//! and publishes its addresses in a cell that any core reads. While name servers fail the last answer stays.

mod names;
mod resolver;
#[cfg(test)]
mod tests;

pub use names::{Name, Names};
pub use resolver::{Answer, DnsError, Resolver};
