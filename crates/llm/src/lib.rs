//! The wire formats of model APIs, and the translations between them. Pure: no I/O, no clock, no runtime.
//!
//! A **caller** speaks one [`Dialect`], a **provider** one or several. Where they are the same, a body is looked at
//! ([`peek`]), changed in its few bytes that must differ ([`splice`]), and a stream is only metered ([`Stream`]): nothing
//! is taken apart that need not be. Where they differ, everything goes by way of a neutral form in the middle
//! (`neutral/`), which each dialect can be read into and written from: N + M files rather than N × M, see
//! ARCHITECTURE.md. What cannot be carried is named ([`Lost`]), never dropped in silence.
//!
//! In the order of a call: [`target`], [`peek`], [`splice`] or [`translate::request`], [`Stream`] or
//! [`translate::answer`] or [`translate::error`]; and [`error`] for what the gateway itself has to say. For answers that are
//! given again: [`identity`] tells which requests ask the same, [`again`] makes of a kept answer what is asked for.
#![forbid(unsafe_code)]

pub mod again;
pub mod catalogue;
pub mod count;
mod dialect;
pub mod error;
mod event_stream;
mod format;
pub mod identity;
mod json;
mod malformed;
mod neutral;
mod peek;
mod percent;
pub mod sigv4;
mod splice;
mod sse;
pub mod stream;
pub mod translate;

pub use base::TokenUsage as Usage;
pub use dialect::{Dialect, Operation, Target, target};
pub use malformed::{At, Malformed};
pub use peek::{Peek, Wants, peek};
pub use splice::{Splice, splice};
pub use stream::Stream;
pub use translate::Lost;
