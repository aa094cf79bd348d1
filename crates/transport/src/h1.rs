//! HTTP/1.1 (RFC 9112), written by hand on both sides.
//!
//! Heads that are written as usual are read in one pass ([`plain`]), all others line by line by `httparse`; framing,
//! persistence and timing are ours, since they are what a gateway is about: an idle connection holds no buffer, an upstream
//! exchange needs no task of its own, and every moment of it is seen. [`head`] and [`framing`] do no I/O.

mod buffer;
mod client;
mod framing;
mod head;
mod plain;
mod server;

pub use client::{Connection, Recycle};
pub use framing::{Decoded, Decoder, Framing};
pub use head::{HeadError, HeadLimits, ParsedRequest, ParsedResponse, parse_request, parse_response, write_request};
pub(crate) use head::{is_authority, is_target};
pub use server::{Accepted, Outcome, Settings, serve};
