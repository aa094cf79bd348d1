//! What Weir does to calls on their way: the trait, the order, and one file per policy.
//!
//! A policy knows the call and its own state, never the transport. Adding one is described in
//! CONTRIBUTING.md: its file, and its line in `order.rs`.
#![forbid(unsafe_code)]

mod decode;
mod expr;
mod filter;
mod order;
mod outside;
mod passage;
mod policies;
mod specs;
mod stop;

mod admit;
mod answer_cache;
mod authenticate;
mod authorize;
mod cache;
mod compress;
mod cors;
mod external;
mod headers;
mod ip;
mod limit;
mod size;
mod transform;

#[cfg(test)]
mod testing;

use std::sync::Arc;
use std::time::Duration;

use base::{Call, Reply, RequestHead, StatusCode, Time};
use ledger::Money;

pub use crate::cache::{Cache, CacheSpec, QuerySpec, StaleSpec};
pub use admit::{Admit, AdmitSpec};
pub use answer_cache::{AnswerCache, AnswerCacheSpec, Semantic, SemanticSpec, SharedBy};
pub use authenticate::{
    Algorithm, ApiKeySpec, Authenticate, AuthenticateSpec, CertificateSpec, Credentials, JwtSpec, Key, Keys, Unknown,
    certificate_name,
};
pub use authorize::{Authorize, AuthorizeSpec};
pub use compress::{Compress, CompressSpec, Encoding};
pub use cors::{Cors, CorsSpec, is_preflight};
pub use expr::{Expr, ExprError, Gives, Scope};
pub use external::{External, ExternalHttpSpec, ExternalSpec, Fail};
pub use filter::{Effort, Filter, Filters};
pub use headers::{EditsSpec, HeaderEdits, HeadersSpec};
pub use ip::{Ip, IpSpec};
pub use limit::{
    AmountSpec, LimitSpec, Limits, Per, PerSpec, RuleSpec, SharedSpec, WeightSpec, WhenAway, has_corrections,
    report_corrections,
};
pub use order::{Policies, Specs};
pub use outside::{Asked, Errand, Eval, Nowhere, Outside, OutsideError, StoreAway, Told};
pub use passage::{Passage, Steps};
pub use policies::CompileEnv;
pub use size::{SizeSpec, Sizes};
pub use specs::{Setting, Spec};
pub use stop::{Refusal, Stop};
pub use transform::{
    Transform, TransformBodySpec, TransformFieldsSpec, TransformRequestSpec, TransformResponseSpec, TransformSpec,
};

/// One thing done to calls on their way. Futures stay on the core that made them.
///
/// Nothing may be awaited between taking something and returning the memo for it: the client may
/// leave at any await, and only a memo is settled.
pub trait Policy: Sized {
    /// Its name in the document, in metrics and in traces.
    const NAME: &'static str;
    /// What a person writes.
    type Spec;
    /// What the request half leaves for the response half.
    type Memo;

    /// What is wrong is told to `env`.
    fn compile(spec: &Self::Spec, env: &mut CompileEnv<'_>) -> Option<Self>;

    /// The policy for a place inside the one where it is written.
    fn inherited(policy: &Arc<Self>, _scope: &str) -> Arc<Self> {
        policy.clone()
    }

    fn request(&self, call: &mut Call, outside: &dyn Outside) -> impl Future<Output = Result<Self::Memo, Stop>>;

    /// The second half of a request to a model (`call.to_model`), once it is known what it asks: `call.model` is there.
    /// Asked once, after [`Policy::request`] of all, and before anybody else is.
    ///
    /// Nothing may be awaited between taking something and noting it in the memo.
    fn understood(
        &self,
        _memo: &mut Self::Memo,
        _call: &mut Call,
        _outside: &dyn Outside,
    ) -> impl Future<Output = Result<(), Stop>> {
        std::future::ready(Ok(()))
    }

    /// Asked once, when all have let the call pass and it goes to its upstream; not if an answer is known already.
    fn forward(&self, _memo: &mut Self::Memo, _call: &Call, _outside: &dyn Outside) -> Result<(), Refusal> {
        Ok(())
    }

    /// What the response half needs where the request half has just said stop; `None` if it has
    /// nothing to add to such an answer.
    fn refused(&self, _call: &Call) -> Option<Self::Memo> {
        None
    }

    fn response(&self, _memo: &mut Self::Memo, _reply: &mut Reply) {}

    /// What the request's body passes through on its way to the upstream. Asked once, when the call goes there.
    fn request_body(&self, _memo: &mut Self::Memo, _head: &mut RequestHead) -> Option<Box<dyn Filter>> {
        None
    }

    /// What the answer's body passes through on its way to the client. Asked once, after [`Policy::response`] of
    /// all; who changes lengths takes `content-length` out.
    fn response_body(&self, _memo: &mut Self::Memo, _reply: &mut Reply) -> Option<Box<dyn Filter>> {
        None
    }

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
    /// When that was.
    pub finished: Time,
    /// How its upstream did; `None` if none was asked, or there was no connection to it.
    pub upstream: Option<Waited>,
    /// Of a call to a model; `None` if none was asked.
    pub model: Option<Spent>,
}

/// What a call to a model came to, with all its attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Tokens of prompts.
    pub prompt: u64,
    /// Tokens of answers.
    pub completion: u64,
    pub money: Money,
}

/// How long an upstream took to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waited {
    /// From when it was chosen, or from the end of the request's body, to the first byte of its answer; without an
    /// answer, until that was given up. Of several tries the last.
    pub time: Duration,
    pub answered: bool,
}
