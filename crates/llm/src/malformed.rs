//! What is wrong with a body, where, and what would be right.

use std::borrow::Cow;
use std::fmt;

use crate::json;

/// A body that cannot be understood. Its text is meant for whoever wrote the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// What was found: `a number`, `the key "model" a second time`.
    pub what: Cow<'static, str>,
    pub at: At,
    /// What would be right: `a string`.
    pub expected: Cow<'static, str>,
}

/// A place in a body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct At {
    /// In bytes, from nought.
    pub offset: usize,
    /// `messages[0].content`; empty for the body itself.
    pub path: String,
}

// === impl Malformed ===

impl Malformed {
    /// The path is left to [`Malformed::in_body`]: whoever reads deep inside need not know where he is.
    pub(crate) fn new(
        what: impl Into<Cow<'static, str>>,
        offset: usize,
        expected: impl Into<Cow<'static, str>>,
    ) -> Malformed {
        Malformed { what: what.into(), at: At { offset, path: String::new() }, expected: expected.into() }
    }

    /// Finds out which place of the body the offset is.
    pub(crate) fn in_body(mut self, body: &[u8]) -> Malformed {
        self.at.path = json::path_of(body, self.at.offset);
        self
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Malformed { what, at: At { offset, path }, expected } = self;
        match path.is_empty() {
            true => write!(f, "byte {offset} of the body is {what}; expected {expected}"),
            false => write!(f, "`{path}` (byte {offset}) is {what}; expected {expected}"),
        }
    }
}

impl std::error::Error for Malformed {}
