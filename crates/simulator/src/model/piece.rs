//! Pieces of an answer, rendered once and sent many times: what differs from call to call is a few bytes at known places.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::Value;

use crate::stream::now_ns;

/// Stands for the call's id.
pub(crate) const ID: &str = "SIMULATEDSIMULATEDCALLID";
/// Stands, as a number, for the second at which the answer was made.
pub(crate) const CREATED: u64 = 1_000_000_007;
/// Stands for the nanosecond at which it is sent, of the machine's monotonic clock, which all its processes share.
pub(crate) const STAMP: &str = "1000000000000000007";
/// Stands for the nanosecond at which the call came, of the same clock.
pub(crate) const CAME: &str = "1000000000000000009";

#[derive(Clone, Debug)]
pub(crate) struct Piece {
    bytes: Bytes,
    places: Vec<(usize, Place)>,
    /// How many tokens of output it brings.
    pub(crate) tokens: u32,
    /// Whether it tells what the call has cost.
    pub(crate) usage: bool,
    /// Whether it is what a stream ends with, in its dialect.
    pub(crate) end: bool,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Id,
    Created,
    Stamp,
    Came,
}

impl Piece {
    pub(crate) fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let mut places = Vec::new();
        let created = CREATED.to_string();
        for (text, place) in [(ID, Place::Id), (&created, Place::Created), (STAMP, Place::Stamp), (CAME, Place::Came)] {
            places.extend(memchr::memmem::find_iter(&bytes, text).map(|at| (at, place)));
        }
        Self { bytes, places, tokens: 0, usage: false, end: false }
    }

    /// A server-sent event.
    pub(crate) fn event(name: Option<&str>, data: &Value) -> Self {
        match name {
            Some(name) => Self::new(format!("event: {name}\ndata: {data}\n\n")),
            None => Self::new(format!("data: {data}\n\n")),
        }
    }

    pub(crate) fn tokens(self, tokens: usize) -> Self {
        Self { tokens: tokens as u32, ..self }
    }

    pub(crate) fn telling(self, usage: bool) -> Self {
        Self { usage, ..self }
    }

    pub(crate) fn ending(self) -> Self {
        Self { end: true, ..self }
    }

    pub(crate) fn half(&self) -> Self {
        let length = self.bytes.len() / 2;
        let mut places = self.places.clone();
        places.retain(|(at, _)| at + ID.len() <= length);
        Self { bytes: self.bytes.slice(..length), places, tokens: 0, usage: false, end: false }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn fill(&self, id: &str, created: u64, came: u64) -> Bytes {
        if self.places.is_empty() {
            return self.bytes.clone();
        }
        let mut bytes = self.bytes.to_vec();
        let mut put = |at: usize, text: &str| bytes[at..at + text.len()].copy_from_slice(text.as_bytes());
        for &(at, place) in &self.places {
            match place {
                Place::Id => put(at, id),
                Place::Created => put(at, &format!("{created:010}")),
                Place::Stamp => put(at, &format!("{:019}", monotonic_ns())),
                Place::Came => put(at, &format!("{came:019}")),
            }
        }
        bytes.into()
    }
}

/// 24 characters that no other call has.
pub(crate) fn fresh_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    static START: std::sync::LazyLock<u64> = std::sync::LazyLock::new(now_ns);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{:016x}{:08x}", *START, number as u32)
}

/// Of the clock that all processes of the machine share.
pub(crate) fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
