//! The second place where answers lie: on a disk, where they outlive the process. Nothing here reads or writes a file:
//! this is the format of what is written, and what is known of it in memory. The crate `disk` has the files.
//!
//! Answers are appended to segments, and the oldest segment is deleted for the next: files are few, the bytes are
//! bounded, nothing is written twice but what is asked for. A checksum tells what is whole, so a process may be killed
//! at any moment.

mod bans;
mod codec;
mod record;
mod segment;
mod survey;
mod tier;

pub use bans::Ban;
pub use record::{Card, FRAME, Place, Record, Spot, decode, encode, renumbered};
pub use segment::{HEAD, footer, write_head};
pub use survey::{Survey, survey};
pub use tier::{Counted, Job, OnDisk, Slot, Tier, TierState, TierUsage};

/// Bytes of a body that are read, and checked, together.
pub const CHUNK: usize = 128 << 10;
/// Longer bodies are sent from the disk as they are read; they are not taken back into memory.
pub const LARGE: usize = 256 << 10;
