//! What could not be carried.

use crate::json::{Fields, paths_of};
use crate::translate::Lost;

/// The places of a body that have been lost.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    at: Vec<usize>,
}

/// A header has its limits.
const NAMED: usize = 16;

impl Losses {
    pub(crate) fn add(&mut self, at: usize) {
        self.at.push(at);
    }

    /// All that nobody took.
    pub(crate) fn rest(&mut self, fields: &Fields<'_>) {
        self.at.extend(fields.rest());
    }

    /// Where they are, in their order.
    pub(crate) fn places(mut self) -> Vec<usize> {
        self.at.sort_unstable();
        self.at.dedup();
        self.at
    }

    /// Names the places, as far as there are not too many.
    pub(crate) fn named(mut self, body: &[u8]) -> Vec<Lost> {
        self.at.sort_unstable();
        self.at.dedup();
        let more = self.at.len().saturating_sub(NAMED);
        self.at.truncate(NAMED);
        let mut lost: Vec<Lost> = paths_of(body, &self.at).into_iter().map(|path| Lost { path }).collect();
        if more > 0 {
            lost.push(Lost { path: format!("{more} more") });
        }
        lost
    }
}
