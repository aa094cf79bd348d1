//! Why a call goes no further.

use std::time::Duration;

use base::Reply;

/// What a policy says instead of letting the call pass.
#[derive(Debug)]
pub enum Stop {
    /// The call is turned away. The path alone knows which status that is.
    Refuse(Refusal),
    /// The policy has the whole answer, head and body.
    Answer(Box<Reply>, Vec<u8>),
}

/// A refusal's meaning; its status and its words are the path's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No credential, or one that is not known.
    Unauthenticated {
        /// The value of `WWW-Authenticate` (RFC 9110, 11.6.1).
        challenge: String,
    },
    /// Whether the caller's token is valid cannot be said: its issuer's keys cannot be had.
    KeysUnavailable {
        retry_after: Duration,
    },
    /// Known, and not allowed.
    Forbidden,
    /// Who was to decide did not answer.
    Undecided,
    /// The request's body is larger than it may be.
    ContentTooLarge,
    /// The request's body is of a kind that cannot be taken here.
    MediaType,
    /// The request's body is not what it says it is.
    ContentUnusable,
    /// Path and query are longer than they may be.
    TargetTooLong,
    /// The fields of the request are more, or larger, than they may be.
    FieldsTooLarge,
    /// The upstream's answer is larger than it may be.
    AnswerTooLarge,
    /// The upstream's answer is not what it would have to be to be passed on.
    AnswerUnusable,
    RateLimited {
        retry_after: Duration,
    },
    /// Nodes count together what is used, and the store in which they do is away.
    LimiterUnavailable,
    /// The upstream has as many calls in flight as it does well with.
    Overloaded {
        retry_after: Duration,
    },
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Stop {
        Stop::Refuse(refusal)
    }
}
