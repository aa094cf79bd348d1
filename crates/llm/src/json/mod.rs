//! JSON as a gateway needs it: read strictly, without losing anything, and written.
//!
//! serde_json is not used on bodies of models. What it offers without its global features loses the order of keys, which
//! matters in a schema (models answer in its order) and in a cached prompt, rounds numbers, and lets the last of two equal
//! keys win, so that what was looked at is not what is sent. And it knows no places: for splicing and for good errors one
//! needs offsets.

mod cursor;
mod find;
mod path;
mod value;
mod write;

pub(crate) use cursor::{Cursor, Kind, Text, is_plain};
pub(crate) use find::{after, check, find, strings, texts, unless_error};
pub(crate) use path::{path_of, paths_of};
pub(crate) use value::{Fields, Tree, Value};
pub(crate) use write::{Out, items_to, quote};
