//! From an offset to the place a person would name.
//!
//! Only errors need it, so nobody keeps track of where he is: the body is walked again up to the offset.

use memchr::memchr2;

/// `messages[0].content` for an offset within it; empty for the body itself. The body may be broken from there on.
pub(crate) fn path_of(body: &[u8], offset: usize) -> String {
    paths_of(body, &[offset]).pop().unwrap_or_default()
}

/// The same for several offsets, which ascend, in one walk.
pub(crate) fn paths_of(body: &[u8], offsets: &[usize]) -> Vec<String> {
    let mut open: Vec<Step> = Vec::new();
    let mut at = 0;
    let mut paths = Vec::with_capacity(offsets.len());
    for offset in offsets {
        while at < body.len() && at < *offset {
            at = step(body, at, &mut open);
        }
        // A key that begins here is part of the path, a bracket that opens here is not.
        let mut here = None;
        if let (Some(b'"'), Some(Step::Key(None))) = (body.get(at), open.last()) {
            here = Some(key(body, at + 1, close(body, at + 1)));
        }
        paths.push(render(&open, here));
    }
    paths
}

/// Goes over one byte, or one string.
fn step(body: &[u8], at: usize, open: &mut Vec<Step>) -> usize {
    match body[at] {
        b'{' => open.push(Step::Key(None)),
        b'[' => open.push(Step::Index(0)),
        b'}' | b']' => drop(open.pop()),
        b',' => match open.last_mut() {
            Some(Step::Index(index)) => *index += 1,
            Some(Step::Key(key)) => *key = None,
            None => {}
        },
        b'"' => {
            let end = close(body, at + 1);
            if let Some(Step::Key(name @ None)) = open.last_mut() {
                *name = Some(key(body, at + 1, end));
            }
            return end + 1;
        }
        _ => {}
    }
    at + 1
}

fn key(body: &[u8], start: usize, end: usize) -> String {
    String::from_utf8_lossy(&body[start..end]).into_owned()
}

enum Step {
    /// `None` until the key has been read.
    Key(Option<String>),
    Index(usize),
}

/// Where the string that begins at `at` has its closing quote.
fn close(body: &[u8], mut at: usize) -> usize {
    while let Some(found) = body.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += found;
        if body[at] == b'"' {
            return at;
        }
        at += 2;
    }
    body.len()
}

fn render(steps: &[Step], last: Option<String>) -> String {
    let mut out = String::new();
    let name = |out: &mut String, key: &str| {
        out.push_str(if out.is_empty() { "" } else { "." });
        out.push_str(key);
    };
    for step in steps {
        match step {
            Step::Key(Some(key)) => name(&mut out, key),
            Step::Key(None) => {}
            Step::Index(index) => out.push_str(&format!("[{index}]")),
        }
    }
    last.iter().for_each(|key| name(&mut out, key));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_place_of_an_offset() {
        let body = br#"{"a": [1, {"b\"c": "x,y", "d": [[], 22]}], "e": tru"#;
        let check = |needle: &str, expected: &str| {
            let text = std::str::from_utf8(body).unwrap();
            assert_eq!(path_of(body, text.find(needle).unwrap()), expected, "{needle}");
        };
        check("{\"a", "");
        check("[1", "a");
        check("1,", "a[0]");
        check("{\"b", "a[1]");
        check("x,y", "a[1].b\\\"c");
        check("22", "a[1].d[1]");
        check("tru", "e");
        assert_eq!(path_of(b"", 10), "");
        assert_eq!(path_of(b"[[[\"", 3), "[0][0][0]");
    }
}
