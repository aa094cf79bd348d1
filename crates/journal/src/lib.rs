//! The journal: every entry of the ledger, in append-only files on the node.
//!
//! Whoever has an entry puts it, without waiting and without a system call, into memory that the kernel has: a killed process
//! has lost nothing that was handed over. One thread takes it from there, writes and syncs what has gathered, and only then
//! acknowledges: what was acknowledged outlives the machine, too. Nothing is counted twice.
//!
//! A crate of its own, since it does what `ledger` must not be able to do: files, threads, clocks.
#![deny(unsafe_code)]

mod folder;
mod handle;
mod memory;
mod open;
mod reader;
mod ring;
mod segment;
mod spool;
mod writer;

use std::time::Duration;

pub use handle::{Handle, Rejected, Ticket};
pub use open::{Journal, OpenError, Recovery, Torn};
pub use reader::{Id, Reader, read};
pub use writer::State;

/// How a journal is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long entries are gathered before they are written and synced together: that long ago the last one may have been
    /// handed over which a machine loses that stops. Many entries are written sooner.
    pub commit: Duration,
    /// How large a file becomes before the next is begun.
    pub segment: u64,
    /// Files all of whose entries are older are deleted; none if it is not given.
    pub keep: Option<Duration>,
    /// How many bytes wait for each handle, at most, while the disk does not take them: the size of its file, and of memory
    /// as far as they wait. Beyond, records are rejected. Never less than 256 KiB.
    pub spool: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { commit: Duration::from_millis(100), segment: 64 << 20, keep: None, spool: 4 << 20 }
    }
}

#[cfg(test)]
mod tests;
