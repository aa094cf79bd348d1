//! What an answer is found by: the route's scope, whose it is, and the URL it answers for.

use std::fmt::Write;

use base::{RequestHead, Scheme};
use smallvec::SmallVec;

/// Routes with other scopes never share an answer. The same over restarts.
pub type Scope = [u8; 16];

/// Which parameters of a query tell answers apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// None but these, where there are such.
    pub only: Option<Vec<String>>,
    pub ignore: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Scope, owner with its length, URL.
    bytes: SmallVec<[u8; 192]>,
    url: usize,
}

// === impl Key ===

impl Key {
    /// `owner` is the consumer whose answer it is; `None` for answers that are everybody's.
    pub fn new(scope: &Scope, owner: Option<&str>, head: &RequestHead, query: &Query) -> Key {
        let mut key = Key::of(scope, owner);
        let _ = key.write_str(head.scheme.as_str());
        let _ = key.write_str("://");
        let (host, port) = (head.host(), head.authority.get(head.host().len() + 1..));
        key.bytes.extend(host.bytes().map(|b| b.to_ascii_lowercase()));
        let usual = if head.scheme == Scheme::Https { "443" } else { "80" };
        if let Some(port) = port.filter(|port| !port.is_empty() && *port != usual) {
            key.bytes.push(b':');
            key.bytes.extend_from_slice(port.as_bytes());
        }
        query.write(&head.target, &mut key.bytes);
        key
    }

    fn of(scope: &Scope, owner: Option<&str>) -> Key {
        let mut key = Key { bytes: SmallVec::new(), url: 0 };
        key.bytes.extend_from_slice(scope);
        // A name and no name are told apart, even where the name is empty.
        let length = owner.map_or(0, |owner| owner.len() as u32 + 1);
        key.bytes.extend_from_slice(&length.to_le_bytes());
        key.bytes.extend_from_slice(owner.unwrap_or_default().as_bytes());
        key.url = key.bytes.len();
        key
    }

    /// Of what is known by a name rather than a URL.
    pub fn named(scope: &Scope, owner: Option<&str>, name: &str) -> Key {
        let mut key = Key::of(scope, owner);
        key.bytes.extend_from_slice(name.as_bytes());
        key
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// `https://host/path?query`, as the answer is known to those who purge it.
    pub fn url(&self) -> &[u8] {
        &self.bytes[self.url..]
    }

    /// Whose answer it is that has this key; nobody's alone if that is no key.
    pub(crate) fn owner(key: &[u8]) -> Option<&[u8]> {
        let (_, rest) = key.split_at_checked(size_of::<Scope>())?;
        let (length, rest) = rest.split_first_chunk()?;
        rest.get(..(u32::from_le_bytes(*length) as usize).checked_sub(1)?)
    }

    pub(crate) fn url_at(&self) -> usize {
        self.url
    }
}

impl Write for Key {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.bytes.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

// === impl Query ===

impl Query {
    fn keeps(&self, parameter: &str) -> bool {
        let name = parameter.split_once('=').map_or(parameter, |(name, _)| name);
        let named = |names: &Vec<String>| {
            names.iter().any(|wanted| match wanted.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => name == wanted,
            })
        };
        self.only.as_ref().is_none_or(named) && !named(&self.ignore)
    }

    fn write(&self, target: &str, out: &mut SmallVec<[u8; 192]>) {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) if self.only.is_some() || !self.ignore.is_empty() => (path, query),
            _ => return out.extend_from_slice(target.as_bytes()),
        };
        out.extend_from_slice(path.as_bytes());
        let mut joint = b'?';
        for parameter in query.split('&').filter(|parameter| self.keeps(parameter)) {
            out.push(joint);
            out.extend_from_slice(parameter.as_bytes());
            joint = b'&';
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::request;

    fn url(authority: &str, target: &str, query: &Query) -> String {
        let mut head = request("GET", target, &[]);
        head.authority = authority.into();
        String::from_utf8(Key::new(&[1; 16], None, &head, query).url().to_vec()).unwrap()
    }

    #[test]
    fn hosts_and_ports_that_are_the_same_are_one() {
        for (authority, expected) in [
            ("Example.COM", "http://example.com/"),
            ("example.com:80", "http://example.com/"),
            ("example.com:", "http://example.com/"),
            ("example.com:8080", "http://example.com:8080/"),
            ("[::1]:80", "http://[::1]/"),
        ] {
            assert_eq!(url(authority, "/", &Query::default()), expected, "{authority}");
        }
    }

    #[test]
    fn parameters_that_do_not_count_are_left_out() {
        let all = Query::default();
        let ignoring = Query { ignore: vec!["utm_*".into(), "t".into()], only: None };
        let only = Query { ignore: vec![], only: Some(vec!["id".into(), "page".into()]) };
        let none = Query { ignore: vec![], only: Some(vec![]) };
        for (query, target, expected) in [
            (&all, "/a?b=1&a=2", "/a?b=1&a=2"),
            (&all, "/a?", "/a?"),
            (&ignoring, "/a?utm_source=x&id=1&t=9&tt=1", "/a?id=1&tt=1"),
            (&ignoring, "/a?t", "/a"),
            (&only, "/a?page=2&x=1&id=1", "/a?page=2&id=1"),
            (&none, "/a?page=2", "/a"),
        ] {
            assert_eq!(url("h", target, query), format!("http://h{expected}"), "{target}");
        }
    }

    #[test]
    fn no_two_owners_or_scopes_share_a_key() {
        let head = request("GET", "/a", &[]);
        let key = |scope: u8, owner: Option<&str>| Key::new(&[scope; 16], owner, &head, &Query::default());
        let keys = [key(1, None), key(2, None), key(1, Some("")), key(1, Some("a")), key(1, Some("b"))];
        for (at, one) in keys.iter().enumerate() {
            for (other_at, other) in keys.iter().enumerate() {
                assert_eq!(one.bytes() == other.bytes(), at == other_at);
            }
        }
    }
}
