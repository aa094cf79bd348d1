//! TLS on both sides: what a document says becomes a configuration of rustls, and a socket becomes a stream.
//!
//! The provider of cryptography is always passed in: the binary installs one, and nothing here picks another.
//! Building a configuration does no I/O, save that the system's authorities are read once.

mod client;
mod live;
mod pem;
mod server;
mod stream;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

pub use client::{Alpn, ClientTls, connect, server_name};
pub use live::{Live, Validity};
pub use pem::covers;
pub use server::{AcceptError, ClientCertificates, ServerTls, accept};
pub use stream::TlsStream;

/// A certificate chain, its own certificate first, and its key; both in PEM.
#[derive(Clone, Copy)]
pub struct Identity<'a> {
    pub chain: &'a [u8],
    pub key: &'a [u8],
}

/// A configuration, and what its owner should know although it works.
pub struct Built<C> {
    pub config: Arc<C>,
    pub warnings: Vec<TlsError>,
}

/// What is wrong with one of the inputs, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{which}: {message}")]
pub struct TlsError {
    pub which: Which,
    pub message: String,
}

/// The input that an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The chain of the certificate of that index; a client has only the first.
    Certificate(usize),
    Key(usize),
    Authorities,
    Revoked,
    Protocols,
    Name,
}

impl TlsError {
    fn new(which: Which, message: impl Into<String>) -> TlsError {
        TlsError { which, message: message.into() }
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Which::Certificate(index) => write!(f, "certificate {}", index + 1),
            Which::Key(index) => write!(f, "key of certificate {}", index + 1),
            Which::Authorities => f.write_str("authorities"),
            Which::Revoked => f.write_str("revocation lists"),
            Which::Protocols => f.write_str("protocols"),
            Which::Name => f.write_str("server name"),
        }
    }
}
