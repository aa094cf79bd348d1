//! Texts to be made vectors, and the vectors.

use std::borrow::Cow;

#[derive(Clone, Debug, Default)]
pub(crate) struct Texts<'a> {
    pub(crate) texts: Vec<Cow<'a, str>>,
    pub(crate) dimensions: Option<u64>,
}

/// Numbers stay as they are written: nothing is gained by reading them, and digits may be lost.
#[derive(Clone, Debug, Default)]
pub(crate) struct Vectors<'a> {
    pub(crate) vectors: Vec<Vec<&'a str>>,
    /// Of all texts.
    pub(crate) tokens: Option<u64>,
}
