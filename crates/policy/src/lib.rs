//! What Weir does to calls on their way: the trait, the order, and one file per policy.
//!
//! A policy knows the call and its own state, never the transport. Adding one is described in
//! CONTRIBUTING.md: its file, a field in [`Policies`] and in [`Specs`], a line in each half of [`Passage`].
#![forbid(unsafe_code)]

mod stop;

pub use stop::{Refusal, Stop};
