//! Header fields as the data plane keeps them: one arena of bytes, one list of spans.
//!
//! A head is read once, edited a little and written once. A map of owned strings pays an allocation
//! or a reference count for every field; here a head of any number of fields is two allocations.
//! Names are kept in lower case, as HTTP/2 demands and HTTP/1 allows (RFC 9110, 5.1). In the arena a field
//! is a line as HTTP/1 has it, so that fields which lie side by side are read and written in one piece.

use std::cell::RefCell;
use std::fmt;

#[derive(Clone, Default)]
pub struct Headers {
    arena: Vec<u8>,
    fields: Vec<Field>,
    /// Which names may be among them, a bit for many: most lookups are for what is not there.
    names: u64,
}

/// Where one field lies in the arena: `name: value` and the end of a line.
#[derive(Clone, Copy)]
struct Field {
    start: u32,
    name: u16,
    value: u32,
}

/// Between a name and its value.
const COLON: &[u8] = b": ";
const LINE_END: &[u8] = b"\r\n";

impl Headers {
    /// The longest name that can be kept.
    pub const MAX_NAME: usize = u16::MAX as usize;

    pub fn new() -> Headers {
        Headers::default()
    }

    /// With room for so many bytes, in memory that was used before if there is some.
    pub fn with_capacity(bytes: usize) -> Headers {
        let Some(mut headers) = SPARE.with_borrow_mut(Vec::pop) else {
            return Headers { arena: Vec::with_capacity(bytes), fields: Vec::with_capacity(16), names: 0 };
        };
        headers.arena.reserve(bytes);
        headers
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
        self.append_pieces(name, &[value.as_ref()]);
    }

    /// The same, of a value that comes in pieces.
    pub fn append_pieces(&mut self, name: &str, pieces: &[&[u8]]) {
        let value = pieces.iter().map(|piece| piece.len()).sum();
        let start = self.arena.len();
        self.arena.reserve(name.len() + value + COLON.len() + LINE_END.len());
        self.arena.extend_from_slice(name.as_bytes());
        self.arena.extend_from_slice(COLON);
        for piece in pieces {
            self.arena.extend_from_slice(piece);
        }
        self.arena.extend_from_slice(LINE_END);
        self.enter(start, name.len(), value);
    }

    /// Adds a field whose line is in the arena already, its name in either case.
    fn enter(&mut self, start: usize, name: usize, value: usize) {
        make_lowercase(&mut self.arena[start..start + name]);
        self.enter_lowercase(start, name, value);
    }

    /// The same of a name that is in lower case.
    fn enter_lowercase(&mut self, start: usize, name: usize, value: usize) {
        let own = &self.arena[start..start + name];
        debug_assert!(!own.iter().any(u8::is_ascii_uppercase));
        self.names |= bit_of(own);
        self.fields.push(Field { start: start as u32, name: name as u16, value: value as u32 });
    }

    /// Adds fields that lie one after the other in `lines`, each as `name: value` and the end of its line, by the
    /// lengths of their names and values; the caller vouches for them as for those of [`Headers::append`].
    pub fn append_lines(&mut self, lines: &[u8], lengths: impl Iterator<Item = (usize, usize)>) {
        let mut start = self.arena.len();
        self.arena.extend_from_slice(lines);
        for (name, value) in lengths {
            self.enter(start, name, value);
            start += name + value + COLON.len() + LINE_END.len();
        }
        debug_assert_eq!(start, self.arena.len());
    }

    /// The same of lines that `write` puts behind what it is given, the names in lower case; it tells the lengths.
    pub fn append_written<const N: usize>(
        &mut self,
        bytes: usize,
        write: impl FnOnce(&mut Vec<u8>) -> [(usize, usize); N],
    ) {
        let mut start = self.arena.len();
        self.arena.reserve(bytes);
        for (name, value) in write(&mut self.arena) {
            self.enter_lowercase(start, name, value);
            start += name + value + COLON.len() + LINE_END.len();
        }
        debug_assert_eq!(start, self.arena.len());
    }

    /// Replaces every field of that name by one.
    pub fn set(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.remove(name);
        self.append(name, value);
    }

    /// Removes every field of that name; true if there was one.
    #[inline]
    pub fn remove(&mut self, name: &str) -> bool {
        self.may_have(name) && self.remove_found(name)
    }

    fn remove_found(&mut self, name: &str) -> bool {
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
    #[inline]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        if self.may_have(name) { self.find(name) } else { None }
    }

    fn find(&self, name: &str) -> Option<&[u8]> {
        self.fields.iter().find(|field| field.is(&self.arena, name)).map(|field| field.value(&self.arena))
    }

    /// The value of the first field of that name, if it is visible ASCII or UTF-8.
    #[inline]
    pub fn get_str(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.get(name)?).ok()
    }

    /// What a message's content is, without parameters (RFC 9110, 8.3.1). To be compared without case.
    pub fn media_type(&self) -> Option<&str> {
        self.get_str("content-type")?.split(';').next().map(str::trim)
    }

    #[inline]
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        let candidates = if self.may_have(name) { &*self.fields } else { &[] };
        let named = candidates.iter().filter(move |field| field.is(&self.arena, name));
        named.map(|field| field.value(&self.arena))
    }

    #[inline]
    pub fn contains(&self, name: &str) -> bool {
        self.may_have(name) && self.find(name).is_some()
    }

    /// A mark for names, to be asked about many times. Names of one length with the same first and last byte, in
    /// either case, have the same.
    pub const fn mark(names: &[&str]) -> u64 {
        let (mut mark, mut at) = (0, 0);
        while at < names.len() {
            mark |= bit_of(names[at].as_bytes());
            at += 1;
        }
        mark
    }

    /// False if no field has one of the names of that mark; true does not say that one has.
    #[inline]
    pub fn may_have_any(&self, mark: u64) -> bool {
        self.names & mark != 0
    }

    /// False if no field has that name, at the cost of nothing where the name is known to the compiler.
    #[inline]
    fn may_have(&self, name: &str) -> bool {
        self.names & bit_of(name.as_bytes()) != 0
    }

    /// True if a comma-separated list field, over all its lines, has `token` (RFC 9110, 5.6.1).
    #[inline]
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.may_have(name) && self.has_token_found(name, token)
    }

    fn has_token_found(&self, name: &str, token: &str) -> bool {
        self.get_all(name).any(|value| {
            value.split(|b| *b == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
        })
    }

    /// Fields in the order they came, names in lower case.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields.iter().map(|field| (field.name(&self.arena), field.value(&self.arena)))
    }

    /// The same as bytes.
    pub fn iter_bytes(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|field| (field.name_bytes(&self.arena), field.value(&self.arena)))
    }

    /// As HTTP/1 writes them: each piece some lines.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let mut fields = self.fields.iter().peekable();
        std::iter::from_fn(move || {
            let first = fields.next()?;
            let mut end = first.end();
            while let Some(beside) = fields.next_if(|next| next.start as usize == end) {
                end = beside.end();
            }
            Some(&self.arena[first.start as usize..end])
        })
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

/// Names are short: eight bytes at a time are fewer steps than what is made for long texts. What has lower case
/// already does not change, so the last ones may be looked at twice.
fn make_lowercase(name: &mut [u8]) {
    if let Some(last) = name.last_chunk_mut::<8>() {
        *last = lowercase(u64::from_ne_bytes(*last)).to_ne_bytes();
        for eight in name.as_chunks_mut::<8>().0 {
            *eight = lowercase(u64::from_ne_bytes(*eight)).to_ne_bytes();
        }
        return;
    }
    let lowercase_four = |four: [u8; 4]| (lowercase(u64::from(u32::from_ne_bytes(four))) as u32).to_ne_bytes();
    if let Some(last) = name.last_chunk_mut::<4>() {
        *last = lowercase_four(*last);
        for four in name.as_chunks_mut::<4>().0 {
            *four = lowercase_four(*four);
        }
        return;
    }
    name.make_ascii_lowercase();
}

/// Of eight bytes at once.
fn lowercase(bytes: u64) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let low = bytes & (ONES * 0x7f);
    // The highest bit of each byte: it is not before `A`, it is behind `Z`.
    let from_a = low + ONES * (0x80 - b'A' as u64);
    let behind_z = low + ONES * (0x7f - b'Z' as u64);
    let upper = (from_a ^ behind_z) & !bytes & (ONES * 0x80);
    bytes | (upper >> 2)
}

/// A bit for a name, the same in either case: of its length and both its ends.
#[inline]
const fn bit_of(name: &[u8]) -> u64 {
    let [first, .., last] = name else { return 1 };
    let mixed = name.len() * 5 + (*first | 0x20) as usize + (*last | 0x20) as usize * 3;
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
        let start = self.start as usize + usize::from(self.name) + COLON.len();
        &arena[start..start + self.value as usize]
    }

    /// Where its line ends.
    fn end(self) -> usize {
        self.start as usize + usize::from(self.name) + self.value as usize + COLON.len() + LINE_END.len()
    }

    fn is(self, arena: &[u8], name: &str) -> bool {
        // Who asks mostly asks in lower case.
        let (own, name) = (self.name_bytes(arena), name.as_bytes());
        own == name || (own.len() == name.len() && own.eq_ignore_ascii_case(name))
    }
}

thread_local! {
    /// Heads of this thread that are done with: what carries calls drops as many as it makes.
    static SPARE: RefCell<Vec<Headers>> = const { RefCell::new(Vec::new()) };
}

/// How many of them are kept, and of what size.
const SPARES: usize = 32;
const SPARE_BYTES: std::ops::RangeInclusive<usize> = 256..=4096;
const SPARE_FIELDS: std::ops::RangeInclusive<usize> = 8..=64;

impl Drop for Headers {
    fn drop(&mut self) {
        if !SPARE_BYTES.contains(&self.arena.capacity()) || !SPARE_FIELDS.contains(&self.fields.capacity()) {
            return;
        }
        // At the end of the thread there is no place for it any more; and what is dropped in there, stays dropped.
        let _ = SPARE.try_with(|spare| {
            let Ok(mut spare) = spare.try_borrow_mut() else { return };
            if spare.len() < SPARES {
                let (mut arena, mut fields) = (std::mem::take(&mut self.arena), std::mem::take(&mut self.fields));
                arena.clear();
                fields.clear();
                spare.push(Headers { arena, fields, names: 0 });
            }
        });
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
    fn a_media_type_has_no_parameters() {
        let of = |kind: &str| Headers::from_iter([("content-type", kind)]).media_type().map(str::to_owned);
        assert_eq!(of("text/html; charset=utf-8").as_deref(), Some("text/html"));
        assert_eq!(of(" Application/JSON ;").as_deref(), Some("Application/JSON"));
        assert_eq!(Headers::default().media_type(), None);
    }

    #[test]
    fn names_of_any_length_get_lower_case() {
        let all: Vec<u8> = (0..=255).collect();
        for length in 0..40 {
            for start in (0..=255 - length).step_by(7) {
                let mut mine = all[start..start + length].to_vec();
                make_lowercase(&mut mine);
                assert_eq!(mine, all[start..start + length].to_ascii_lowercase());
            }
        }
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
    fn lines_are_written_as_they_lie() {
        let mut headers = Headers::new();
        headers.append_lines(b"Host: h\r\nA: \r\nX-b: 1 2\r\n", [(4, 1), (1, 0), (3, 3)].into_iter());
        headers.append("C", "3");
        let lines = |headers: &Headers| headers.lines().map(<[u8]>::to_vec).collect::<Vec<_>>();
        assert_eq!(lines(&headers), [b"host: h\r\na: \r\nx-b: 1 2\r\nc: 3\r\n"]);
        assert_eq!(headers.get("a"), Some(&b""[..]));
        assert!(headers.remove("A"));
        assert_eq!(lines(&headers), [&b"host: h\r\n"[..], b"x-b: 1 2\r\nc: 3\r\n"]);
        headers.set("host", "i");
        assert_eq!(lines(&headers), [b"x-b: 1 2\r\nc: 3\r\nhost: i\r\n"]);
        assert_eq!(headers.bytes(), 13);
        assert!(lines(&Headers::new()).is_empty());
        headers.append_pieces("d", &[b"4", b"", b"5"]);
        assert_eq!(headers.get("d"), Some(&b"45"[..]));
        assert!(headers.may_have_any(Headers::mark(&["nobody", "X-B"])));
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
