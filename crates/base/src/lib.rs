//! The words every part of Weir speaks: calls and replies, headers, time, units, secrets, usage.
//!
//! Everything depends on this crate, so it stays small: a type comes here when three crates need it.
//! It knows no runtime, no server and no storage.
#![forbid(unsafe_code)]

mod call;
mod crc;
mod date;
mod headers;
mod model_call;
mod network;
mod secret;
mod time;
mod units;
mod usage;

pub use call::{Call, Claims, Client, Consumer, Peer, Place, Reply, RequestHead, ResponseHead, Scheme, TlsInfo};
pub use crc::crc32c;
pub use date::Date;
pub use headers::Headers;
pub use http::{Method, StatusCode, Version};
pub use ipnet::IpNet;
pub use model_call::ModelCall;
pub use network::{Network, Srv};
pub use secret::{Secret, SecretRef};
pub use time::Time;
pub use units::{ByteRate, PerTime, Percent, Rate, Size, Span, UnitError};
pub use usage::TokenUsage;
