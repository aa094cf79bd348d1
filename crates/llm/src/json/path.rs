//! From an offset to the place a person would name.
//!
//! Only errors need it, so nobody keeps track of where he is: the body is walked again up to the offset.

use memchr::memchr2;

/// `messages[0].content` for an offset within it; empty for the body itself. The body may be broken from there on.
pub(crate) fn path_of(body: &[u8], offset: usize) -> String {
    let mut open: Vec<Step> = Vec::new();
    let mut at = 0;
    while at < body.len() && at <= offset {
        match body[at] {
            b'{' if at < offset => open.push(Step::Key(None)),
            b'[' if at < offset => open.push(Step::Index(0)),
            b'}' | b']' if at < offset => drop(open.pop()),
            b',' if at < offset => match open.last_mut() {
                Some(Step::Index(index)) => *index += 1,
                Some(Step::Key(key)) => *key = None,
                None => {}
            },
            b'"' => {
                let start = at + 1;
                at = close(body, start);
                if let Some(Step::Key(key @ None)) = open.last_mut() {
                    *key = Some(String::from_utf8_lossy(&body[start..at.min(body.len())]).into_owned());
                }
            }
            _ => {}
        }
        at += 1;
    }
    render(&open)
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

fn render(steps: &[Step]) -> String {
    let mut out = String::new();
    for step in steps {
        match step {
            Step::Key(Some(key)) => {
                out.push_str(if out.is_empty() { "" } else { "." });
                out.push_str(key);
            }
            Step::Key(None) => {}
            Step::Index(index) => out.push_str(&format!("[{index}]")),
        }
    }
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
