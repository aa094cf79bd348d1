//! A whole answer.

use std::borrow::Cow;

use base::TokenUsage;

use super::Part;
use crate::stream::Stop;

#[derive(Debug, Default)]
pub(crate) struct Answer<'a> {
    pub(crate) id: Option<Cow<'a, str>>,
    pub(crate) model: Option<Cow<'a, str>>,
    /// Seconds since 1970.
    pub(crate) created: Option<u64>,
    pub(crate) choices: Vec<Choice<'a>>,
    pub(crate) usage: Option<TokenUsage>,
}

#[derive(Debug, Default)]
pub(crate) struct Choice<'a> {
    pub(crate) parts: Vec<Part<'a>>,
    pub(crate) stop: Option<Stop>,
    /// The word it stopped at.
    pub(crate) sequence: Option<Cow<'a, str>>,
    pub(crate) logprobs: Option<Vec<Logprob<'a>>>,
}

/// How likely a token was.
#[derive(Debug)]
pub(crate) struct Logprob<'a> {
    pub(crate) token: Cow<'a, str>,
    /// As it was written.
    pub(crate) logprob: &'a str,
    /// JSON: the token's bytes as numbers.
    pub(crate) bytes: Option<&'a str>,
    /// What else it might have been.
    pub(crate) top: Vec<Logprob<'a>>,
}
