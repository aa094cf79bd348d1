//! Writes JSON, without blanks, straight into the bytes that are sent.

use std::fmt::Display;
use std::io::Write as _;

use super::cursor::plain;

/// An object that is being written.
pub(crate) struct Out<'o> {
    to: &'o mut Vec<u8>,
    first: bool,
}

impl<'o> Out<'o> {
    /// Writes an object: `{`, what `fields` writes, `}`.
    pub(crate) fn object(to: &'o mut Vec<u8>, fields: impl FnOnce(&mut Out<'_>)) {
        to.push(b'{');
        fields(&mut Out { to, first: true });
        to.push(b'}');
    }

    pub(crate) fn text(&mut self, key: &str, text: &str) {
        quote(text, self.key(key));
    }

    pub(crate) fn bool(&mut self, key: &str, value: bool) {
        self.raw(key, if value { "true" } else { "false" });
    }

    pub(crate) fn number(&mut self, key: &str, number: impl Display) {
        // Writing to memory cannot fail.
        let _ = write!(self.key(key), "{number}");
    }

    pub(crate) fn null(&mut self, key: &str) {
        self.raw(key, "null");
    }

    /// A value that is JSON already.
    pub(crate) fn raw(&mut self, key: &str, json: &str) {
        self.key(key).extend_from_slice(json.as_bytes());
    }

    pub(crate) fn fields(&mut self, key: &str, fields: impl FnOnce(&mut Out<'_>)) {
        Out::object(self.key(key), fields);
    }

    pub(crate) fn items<I: IntoIterator>(&mut self, key: &str, items: I, write: impl FnMut(I::Item, &mut Vec<u8>)) {
        items_to(self.key(key), items, write);
    }

    /// Writes the key; the value is the caller's.
    pub(crate) fn key(&mut self, key: &str) -> &mut Vec<u8> {
        if !self.first {
            self.to.push(b',');
        }
        self.first = false;
        quote(key, self.to);
        self.to.push(b':');
        self.to
    }
}

/// Writes an array.
pub(crate) fn items_to<I: IntoIterator>(to: &mut Vec<u8>, items: I, mut write: impl FnMut(I::Item, &mut Vec<u8>)) {
    to.push(b'[');
    for (at, item) in items.into_iter().enumerate() {
        if at > 0 {
            to.push(b',');
        }
        write(item, to);
    }
    to.push(b']');
}

/// Writes a string with its quotes. What need not be escaped is not, so that text stays as short as it came.
pub(crate) fn quote(text: &str, to: &mut Vec<u8>) {
    to.push(b'"');
    let bytes = text.as_bytes();
    let mut from = 0;
    loop {
        let at = plain(bytes, from);
        to.extend_from_slice(&bytes[from..at]);
        match bytes.get(at) {
            None => break,
            Some(b'"') => to.extend_from_slice(b"\\\""),
            Some(b'\\') => to.extend_from_slice(b"\\\\"),
            Some(b'\n') => to.extend_from_slice(b"\\n"),
            Some(b'\r') => to.extend_from_slice(b"\\r"),
            Some(b'\t') => to.extend_from_slice(b"\\t"),
            Some(control) => {
                // Writing to memory cannot fail.
                let _ = write!(to, "\\u{control:04x}");
            }
        }
        from = at + 1;
    }
    to.push(b'"');
}
