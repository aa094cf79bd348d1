//! What can go wrong with an exchange at an upstream, in the terms that decide whether it may be repeated.

use std::io;

use crate::body::BodyError;
use crate::h1::HeadError;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The connection broke, or was closed.
    #[error("the connection broke before an answer")]
    Broken {
        /// Some of the request may have reached the upstream.
        sent: bool,
        /// Some of an answer had come.
        answered: bool,
        #[source]
        source: io::Error,
    },
    /// HTTP/2: the upstream said that it has not looked at the request (GOAWAY, REFUSED_STREAM).
    #[error("the upstream refused the stream")]
    Refused(#[source] h2::Error),
    /// HTTP/2: the stream or its connection was reset after the request had been sent.
    #[error("the stream was reset")]
    Reset(#[source] h2::Error),
    #[error("the answer cannot be understood")]
    Malformed(#[source] HeadError),
    /// The body of the request failed: its sender is gone, or broke its framing.
    #[error("the request's body failed")]
    Body(#[source] BodyError),
    /// HTTP/2: the upstream takes no extended CONNECT (RFC 8441), which an upgrade is there.
    #[error("the upstream takes no upgrades over HTTP/2")]
    NoUpgrade,
    /// The request cannot be put in this version of HTTP.
    #[error("the request cannot be sent: {0}")]
    Unsendable(&'static str),
}

impl SendError {
    /// True if the upstream cannot have acted on the request, whatever its method.
    pub fn is_unsent(&self) -> bool {
        matches!(self, SendError::Broken { sent: false, .. } | SendError::Refused(_))
    }

    /// True if the request may be repeated when repeating it does no harm (RFC 9110, 9.2.2).
    pub fn is_repeatable(&self) -> bool {
        matches!(self, SendError::Broken { answered: false, .. } | SendError::Refused(_) | SendError::Reset(_))
    }
}
