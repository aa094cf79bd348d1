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
    /// Known, and not allowed.
    Forbidden,
    RateLimited {
        retry_after: Duration,
    },
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Stop {
        Stop::Refuse(refusal)
    }
}
