//! Texts to be made vectors, and the vectors.

use std::borrow::Cow;

#[derive(Clone, Debug, Default)]
pub(crate) struct Texts<'a> {
    pub(crate) texts: Vec<Cow<'a, str>>,
    /// How long each vector is to be, and where that stands.
    pub(crate) dimensions: Option<(u64, usize)>,
    /// What the vectors are for, and where that stands.
    pub(crate) task: Option<(Task, usize)>,
}

/// What vectors are for, as far as several dialects have a word for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    Document,
    Query,
    Classification,
    Clustering,
}

/// Numbers stay as they are written: nothing is gained by reading them, and digits may be lost.
#[derive(Clone, Debug, Default)]
pub(crate) struct Vectors<'a> {
    pub(crate) vectors: Vec<Vec<&'a str>>,
    /// Of all texts.
    pub(crate) tokens: Option<u64>,
}
