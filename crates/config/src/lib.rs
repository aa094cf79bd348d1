//! The document a person wrote, checked and compiled into the [`Snapshot`] a node runs on.
//!
//! [`Source`] is the text with its places, [`document`] what may stand in it, [`compile`] the way to a
//! snapshot or to all that is wrong, as [`Diagnostic`]s. [`schema`] describes the document to editors
//! and readers. Nothing here knows a socket; files and the environment are read through [`Files`].
#![forbid(unsafe_code)]

pub mod document;
pub mod router;
pub mod schema;
mod snapshot;

mod compile;
mod de;
mod diagnostic;
mod discovery;
mod files;
mod source;

pub use compile::compile;
pub use diagnostic::{Diagnostic, Severity, to_json};
pub use discovery::Discovery;
pub use files::{Disk, Files};
pub use router::Router;
pub use snapshot::*;
pub use source::{Format, Source};
