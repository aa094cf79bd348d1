//! The journal: every entry of the ledger, in append-only files on the node.
//!
//! One thread writes; whoever has an entry hands it over without waiting and without a system call, unless the writer
//! sleeps. What was handed over is written and synced together, and only then acknowledged: the process may be killed at
//! any moment, and no entry that was acknowledged is lost or counted twice.
//!
//! A crate of its own, since it does what `ledger` must not be able to do: files, threads, clocks.
#![forbid(unsafe_code)]

mod folder;
mod open;
mod reader;
mod segment;
mod writer;

use std::time::Duration;

pub use open::{Journal, OpenError, Recovery, Torn};
pub use reader::{Id, Reader, read};
pub use writer::{Handle, Rejected, State, Ticket};

/// How a journal is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long entries are gathered before they are written and synced together.
    pub commit: Duration,
    /// How large a file becomes before the next is begun.
    pub segment: u64,
    /// Files all of whose entries are older are deleted; none if it is not given.
    pub keep: Option<Duration>,
    /// How many records wait in memory, at most, while the disk does not take them. Beyond, they are rejected.
    pub backlog: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { commit: Duration::from_millis(5), segment: 64 << 20, keep: None, backlog: 65_536 }
    }
}

#[cfg(test)]
mod tests;
