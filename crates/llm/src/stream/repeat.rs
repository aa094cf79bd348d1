//! Most events of a stream are like the one before but for a piece of text. Such a one need not be understood again.

use std::ops::Range;

use crate::json;

/// What stood round the text in the last event, if it brought that and nothing else.
#[derive(Debug, Default)]
pub(super) struct Repeat {
    /// Both sides of it, in one piece: of many streams, what is to be looked at is seldom at hand.
    round: Vec<u8>,
    /// Where the text stood.
    at: usize,
}

/// Larger events are rare, and not worth keeping what stood round their text.
const MOST: usize = 4096;

impl Repeat {
    /// The text of an event that is otherwise like the last: whatever that one meant, this one means of another text.
    /// Nothing in it is escaped, so it is as long as it stands there, and goes into any other string as it is.
    pub(super) fn text<'e>(&self, event: &'e [u8]) -> Option<&'e str> {
        if self.round.is_empty() {
            return None;
        }
        let (before, after) = self.round.split_at(self.at);
        let text = event.strip_prefix(before)?.strip_suffix(after)?;
        if text.is_empty() || !json::is_plain(text) {
            return None;
        }
        std::str::from_utf8(text).ok()
    }

    /// Notes an event, and where its text stands, if it brought one and nothing else that the next might not repeat.
    pub(super) fn learn(&mut self, event: &[u8], text: Option<Range<usize>>) {
        self.round.clear();
        let Some(Range { start, end }) = text.filter(|_| event.len() <= MOST) else { return };
        if let (Some(before), Some(after)) = (event.get(..start), event.get(end..))
            && before.ends_with(b"\"")
            && after.starts_with(b"\"")
        {
            self.round.extend_from_slice(before);
            self.round.extend_from_slice(after);
            self.at = start;
        }
    }
}

/// Where a text stands in an event; `None` if it was put together elsewhere.
pub(super) fn place(event: &[u8], text: &[u8]) -> Option<Range<usize>> {
    let (all, part) = (event.as_ptr_range(), text.as_ptr_range());
    let is_within = all.start <= part.start && part.end <= all.end;
    let start = (part.start as usize).wrapping_sub(all.start as usize);
    (is_within && !text.is_empty()).then(|| start..start + text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(event: &[u8], text: &str) -> Repeat {
        let at = memchr::memmem::rfind(event, text.as_bytes()).unwrap();
        let mut repeat = Repeat::default();
        repeat.learn(event, place(event, &event[at..at + text.len()]));
        repeat
    }

    #[test]
    fn only_another_text_is_a_repetition() {
        let repeat = learned(b"data: {\"text\":\"a\"}\n\n", "a");
        let check = |event: &[u8], text: Option<&str>| assert_eq!(repeat.text(event), text, "{event:?}");
        check(b"data: {\"text\":\"a\"}\n\n", Some("a"));
        check("data: {\"text\":\" möglich\"}\n\n".as_bytes(), Some(" möglich"));
        check(b"data: {\"text\":\"\"}\n\n", None);
        check(b"data: {\"text\":\"a\\n\"}\n\n", None);
        check(b"data: {\"text\":\"a\",\"b\":\"c\"}\n\n", None);
        check(b"data: {\"text\":\"a\n\"}\n\n", None);
        check(b"data: {\"text\":\"\xff\"}\n\n", None);
        check(b"data: {\"text\":\"a\"}\r\n\r\n", None);
        check(b"data: {\"text\":\"\n\n", None);
    }

    #[test]
    fn a_text_that_stands_elsewhere_or_not_in_quotes_is_not_learned() {
        let event = b"data: {\"text\":\"abc\"}\n\n";
        let mut repeat = Repeat::default();
        repeat.learn(event, place(event, b"abc"));
        assert_eq!(repeat.text(event), None);
        assert_eq!(learned(event, "b").text(event), None);
        assert_eq!(learned(&[event, &vec![b' '; MOST][..]].concat(), "abc").text(event), None);
    }
}
