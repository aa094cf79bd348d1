//! What Weir does to calls on their way: the trait, the order, and one file per policy.
//!
//! A policy knows the call and its own state, never the transport. Adding one is described in
//! CONTRIBUTING.md: its file, a field in [`Policies`] and in [`Specs`], a line in each half of [`Passage`].
#![forbid(unsafe_code)]

mod passage;
mod policies;
mod specs;
mod stop;

mod authenticate;
mod headers;
mod limit;

#[cfg(test)]
mod testing;

use base::{Call, Reply, StatusCode};

pub use authenticate::{ApiKeySpec, Authenticate, AuthenticateSpec, Key, Keys};
pub use headers::{EditsSpec, HeaderEdits, HeadersSpec};
pub use limit::{LimitSpec, Limits, Per, RuleSpec};
pub use passage::{Passage, Steps};
pub use policies::{CompileEnv, Policies};
pub use specs::{Setting, Spec, Specs};
pub use stop::{Refusal, Stop};

/// One thing done to calls on their way. Futures stay on the core that made them.
///
/// Nothing may be awaited between taking something and returning the memo for it: the client may
/// leave at any await, and only a memo is settled.
pub trait Policy {
    /// Its name in the document, in metrics and in traces.
    const NAME: &'static str;
    /// What the request half leaves for the response half.
    type Memo;

    fn request(&self, call: &mut Call) -> impl Future<Output = Result<Self::Memo, Stop>>;

    /// What the response half needs where the request half has just said stop; `None` if it has
    /// nothing to add to such an answer.
    fn refused(&self, _call: &Call) -> Option<Self::Memo> {
        None
    }

    fn response(&self, _memo: &mut Self::Memo, _reply: &mut Reply) {}

    /// Runs once: after the last byte, or when the client has gone, or when the call was refused.
    fn settle(&self, _memo: Self::Memo, _usage: Usage) {}
}

/// What a call came to in the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the response's body that were handed to the client.
    pub bytes_out: u64,
    /// What the client was told; `None` if it left before.
    pub status: Option<StatusCode>,
}
