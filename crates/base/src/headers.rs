//! Header fields as the data plane keeps them: one arena of bytes, one list of spans.
//!
//! A head is read once, edited a little and written once. A map of owned strings pays an allocation
//! or a reference count for every field; here a head of any number of fields is two allocations.
//! Names are kept in lower case, as HTTP/2 demands and HTTP/1 allows (RFC 9110, 5.1).

use std::fmt;

#[derive(Clone, Default)]
pub struct Headers {
    arena: Vec<u8>,
    fields: Vec<Field>,
    /// Which names may be among them, a bit for many: most lookups are for what is not there.
    names: u64,
}

/// Where one field lies in the arena: its value follows its name.
#[derive(Clone, Copy)]
struct Field {
    start: u32,
    name: u16,
    value: u32,
}

impl Headers {
    /// The longest name that can be kept.
    pub const MAX_NAME: usize = u16::MAX as usize;

    pub fn new() -> Headers {
        Headers::default()
    }

    pub fn with_capacity(bytes: usize) -> Headers {
        Headers { arena: Vec::with_capacity(bytes), fields: Vec::with_capacity(16), names: 0 }
    }

    /// A copy with room for so many more bytes and a few more fields, so that adding them moves nothing.
    pub fn with_room(&self, bytes: usize) -> Headers {
        let mut arena = Vec::with_capacity(self.arena.len() + bytes);
        arena.extend_from_slice(&self.arena);
        let mut fields = Vec::with_capacity(self.fields.len() + 6);
        fields.extend_from_slice(&self.fields);
        Headers { arena, fields, names: self.names }
    }

    pub fn len(&self) -> usize {
        self.fields.len()
    }

    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Adds a field after those that are there, also when one of that name is among them.
    ///
    /// The caller vouches that name and value are a valid field; what comes from outside was parsed,
    /// what comes from a document was checked by [`Headers::is_name`] and [`Headers::is_value`].
    pub fn append(&mut self, name: &str, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        let start = self.arena.len();
        self.arena.extend_from_slice(name.as_bytes());
        self.arena[start..].make_ascii_lowercase();
        self.arena.extend_from_slice(value);
        self.names |= bit_of(name);
        self.fields.push(Field { start: start as u32, name: name.len() as u16, value: value.len() as u32 });
    }

    /// Replaces every field of that name by one.
    pub fn set(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.remove(name);
        self.append(name, value);
    }

    /// Removes every field of that name; true if there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        if !self.may_have(name) {
            return false;
        }
        let before = self.fields.len();
        let arena = &self.arena;
        self.fields.retain(|field| !field.is(arena, name));
        before != self.fields.len()
    }

    /// Keeps the fields for which `keep(name, value)` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &[u8]) -> bool) {
        let arena = &self.arena;
        self.fields.retain(|field| keep(field.name(arena), field.value(arena)));
    }

    /// The same, by the names as the bytes that they are.
    pub fn retain_bytes(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        let arena = &*self.arena;
        self.fields.retain(|field| keep(field.name_bytes(arena), field.value(arena)));
    }

    /// The value of the first field of that name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.candidates(name).iter().find(|field| field.is(&self.arena, name)).map(|field| field.value(&self.arena))
    }

    /// The value of the first field of that name, if it is visible ASCII or UTF-8.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.get(name)?).ok()
    }

    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        let named = self.candidates(name).iter().filter(move |field| field.is(&self.arena, name));
        named.map(|field| field.value(&self.arena))
    }

    pub fn contains(&self, name: &str) -> bool {
        self.candidates(name).iter().any(|field| field.is(&self.arena, name))
    }

    /// Fields that may have that name: none, or all.
    fn candidates(&self, name: &str) -> &[Field] {
        if self.may_have(name) { &self.fields } else { &[] }
    }

    fn may_have(&self, name: &str) -> bool {
        self.names & bit_of(name) != 0
    }

    /// True if a comma-separated list field, over all its lines, has `token` (RFC 9110, 5.6.1).
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.get_all(name).any(|value| {
            value.split(|b| *b == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
        })
    }

    /// Fields in the order they came, names in lower case.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields.iter().map(|field| (field.name(&self.arena), field.value(&self.arena)))
    }

    /// The same as bytes, as they go on the wire.
    pub fn iter_bytes(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|field| (field.name_bytes(&self.arena), field.value(&self.arena)))
    }

    /// Sum of the lengths of names and values, in bytes.
    pub fn bytes(&self) -> usize {
        self.fields.iter().map(|field| usize::from(field.name) + field.value as usize).sum()
    }

    /// True for a token of RFC 9110, 5.6.2.
    pub fn is_name(name: &str) -> bool {
        !name.is_empty()
            && name.len() <= Headers::MAX_NAME
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    }

    /// True for a field value of RFC 9110, 5.5: no control characters but tab, no space at either end.
    pub fn is_value(value: &[u8]) -> bool {
        value == value.trim_ascii() && value.iter().all(|b| *b == b'\t' || (*b >= b' ' && *b != 0x7f))
    }
}

/// A bit for a name, the same in either case.
fn bit_of(name: &str) -> u64 {
    let (Some(first), Some(last)) = (name.as_bytes().first(), name.as_bytes().last()) else { return 1 };
    let mixed = name.len() * 5 + usize::from(first | 0x20) + usize::from(last | 0x20) * 3;
    1 << (mixed % 64)
}

impl Field {
    fn name(self, arena: &[u8]) -> &str {
        // Names are ASCII by construction; were they not, an empty name would match nothing.
        std::str::from_utf8(self.name_bytes(arena)).unwrap_or_default()
    }

    fn name_bytes(self, arena: &[u8]) -> &[u8] {
        let start = self.start as usize;
        &arena[start..start + usize::from(self.name)]
    }

    fn value(self, arena: &[u8]) -> &[u8] {
        let start = self.start as usize + usize::from(self.name);
        &arena[start..start + self.value as usize]
    }

    fn is(self, arena: &[u8], name: &str) -> bool {
        // Most names differ in length or at the end: they begin alike.
        usize::from(self.name) == name.len() && {
            let own = self.name_bytes(arena);
            own.last().map(u8::to_ascii_lowercase) == name.as_bytes().last().map(u8::to_ascii_lowercase)
                && own.eq_ignore_ascii_case(name.as_bytes())
        }
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(name, value)| (name, String::from_utf8_lossy(value)))).finish()
    }
}

impl PartialEq for Headers {
    fn eq(&self, other: &Headers) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(fields: I) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in fields {
            headers.append(name.as_ref(), value);
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_matched_without_case_and_kept_in_lower_case() {
        let headers = Headers::from_iter([("Content-Type", "text/plain"), ("X-A", "1"), ("x-a", "2")]);
        assert_eq!(headers.get("content-type"), Some(&b"text/plain"[..]));
        assert_eq!(headers.get_all("X-A").collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!(headers.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["content-type", "x-a", "x-a"]);
    }

    #[test]
    fn set_replaces_all_and_remove_says_whether() {
        let mut headers = Headers::from_iter([("x-a", "1"), ("host", "h"), ("X-a", "2")]);
        headers.set("x-A", "3");
        assert_eq!(headers, Headers::from_iter([("host", "h"), ("x-a", "3")]));
        assert!(headers.remove("Host"));
        assert!(!headers.remove("host"));
    }

    #[test]
    fn tokens_are_found_over_all_lines() {
        let headers = Headers::from_iter([("connection", "keep-alive"), ("connection", "foo, Close ,bar")]);
        assert!(headers.has_token("connection", "close"));
        assert!(headers.has_token("connection", "keep-alive"));
        assert!(!headers.has_token("connection", "clos"));
    }

    #[test]
    fn names_and_values_are_checked() {
        for (name, good) in [("x-a", true), ("", false), ("a b", false), ("a:", false), ("ä", false)] {
            assert_eq!(Headers::is_name(name), good, "{name:?}");
        }
        for (value, good) in [("", true), ("a b", true), (" a", false), ("a\r\nb", false), ("a\0", false), ("ä", true)]
        {
            assert_eq!(Headers::is_value(value.as_bytes()), good, "{value:?}");
        }
    }
}
