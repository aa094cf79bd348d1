//! HTTP and what lies under it: listeners, TLS, HTTP/1 and HTTP/2 on both sides, pools of upstream connections.
//!
//! Knows heads, bodies and deadlines; knows nothing of consumers, policies or documents.
#![forbid(unsafe_code)]

pub mod dns;
pub mod listen;
pub mod proxy_protocol;
pub mod redis;
pub mod tls;

mod alarm;
mod body;
mod boxed;
mod client;
mod drain;
pub mod h1;
pub mod h2;
mod message;
mod pace;
mod pool;
mod prefixed;
mod ration;
mod slots;
mod trailers;

pub use alarm::Alarm;
pub use body::{Body, BodyError, Frame, Piece, Sink, Source};
pub use client::SendError;
pub use drain::{Drain, Drainer, drain};
pub use message::{Handler, Io, Request, Response, Tunnel};
pub use pace::Pace;
pub use pool::{ConnectError, Held, Lease, Place, Pool, Protocol, Target};
pub use prefixed::Prefixed;
pub use slots::{Slot, Slots};
