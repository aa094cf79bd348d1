//! `Cache-Control` and its targeted relatives, as they are read: RFC 9111, 5.2; RFC 9213; RFC 5861.

use std::time::Duration;

use base::Headers;

/// What a request asks of caches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asks {
    pub no_cache: bool,
    pub no_store: bool,
    pub only_if_cached: bool,
    pub max_age: Option<Duration>,
    pub min_fresh: Option<Duration>,
    /// The longest if no time is given.
    pub max_stale: Option<Duration>,
}

/// What an answer tells caches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Says {
    /// It came in a field meant for caches like us, so neither `Cache-Control` nor `Expires` counts.
    pub(crate) targeted: bool,
    pub(crate) no_store: bool,
    pub(crate) no_cache: bool,
    pub(crate) private: bool,
    pub(crate) public: bool,
    pub(crate) must_revalidate: bool,
    pub(crate) proxy_revalidate: bool,
    pub(crate) must_understand: bool,
    pub(crate) max_age: Option<Duration>,
    pub(crate) s_maxage: Option<Duration>,
    pub(crate) stale_while_revalidate: Option<Duration>,
    pub(crate) stale_if_error: Option<Duration>,
    /// Fields that must not be given to others, or not without asking: `private="a"`, `no-cache="b"`.
    pub(crate) withheld: Vec<String>,
}

/// Beyond this nobody counts (RFC 9111, 1.2.2).
const LONGEST: u64 = 1 << 31;

// === impl Asks ===

impl Asks {
    pub fn of(headers: &Headers) -> Asks {
        let mut asks = Asks::default();
        for Directive { name, value, .. } in headers.get_all("cache-control").flat_map(directives) {
            // What cannot be read of a request's wish is no wish.
            let seconds = || value.and_then(delta);
            match () {
                () if is(name, "no-cache") => asks.no_cache = true,
                () if is(name, "no-store") => asks.no_store = true,
                () if is(name, "only-if-cached") => asks.only_if_cached = true,
                () if is(name, "max-age") => asks.max_age = asks.max_age.or_else(seconds),
                () if is(name, "min-fresh") => asks.min_fresh = asks.min_fresh.or_else(seconds),
                () if is(name, "max-stale") && value.is_none() => asks.max_stale = Some(Duration::MAX),
                () if is(name, "max-stale") => asks.max_stale = asks.max_stale.or_else(seconds),
                () => {}
            }
        }
        asks
    }
}

// === impl Says ===

impl Says {
    pub(crate) fn of(headers: &Headers) -> Says {
        for field in ["cdn-cache-control", "surrogate-control"] {
            if headers.contains(field) {
                let mut says = Says { targeted: true, ..Says::default() };
                if says.read(headers, field) {
                    return says;
                }
            }
        }
        let mut says = Says::default();
        says.read(headers, "cache-control");
        says
    }

    /// True if there was a directive that is known.
    fn read(&mut self, headers: &Headers, field: &str) -> bool {
        for Directive { name, value, target } in headers.get_all(field).flat_map(directives) {
            // `Surrogate-Control: max-age=60;weir` is for the surrogates of that name.
            if field == "surrogate-control" && !target.is_empty() && !is(target, "weir") {
                continue;
            }
            // A time that cannot be read is a time that has passed (RFC 9111, 4.2.1); of two the first counts.
            let seconds = |first: Option<Duration>| first.or(Some(value.and_then(delta).unwrap_or_default()));
            match () {
                () if is(name, "no-store") => self.no_store = true,
                () if is(name, "no-cache") => match value {
                    Some(fields) => self.withhold(fields),
                    None => self.no_cache = true,
                },
                () if is(name, "private") => match value {
                    Some(fields) => self.withhold(fields),
                    None => self.private = true,
                },
                () if is(name, "public") => self.public = true,
                () if is(name, "must-revalidate") => self.must_revalidate = true,
                () if is(name, "proxy-revalidate") => self.proxy_revalidate = true,
                () if is(name, "must-understand") => self.must_understand = true,
                () if is(name, "max-age") => self.max_age = seconds(self.max_age),
                () if is(name, "s-maxage") => self.s_maxage = seconds(self.s_maxage),
                () if is(name, "stale-while-revalidate") => {
                    self.stale_while_revalidate = seconds(self.stale_while_revalidate);
                }
                () if is(name, "stale-if-error") => self.stale_if_error = seconds(self.stale_if_error),
                () => {}
            }
        }
        self.is_anything()
    }

    fn is_anything(&self) -> bool {
        let targeted = self.targeted;
        *self != Says { targeted, ..Says::default() }
    }

    fn withhold(&mut self, fields: &[u8]) {
        let names = fields.split(|b| *b == b',').filter_map(|name| std::str::from_utf8(name.trim_ascii()).ok());
        self.withheld.extend(names.filter(|name| !name.is_empty()).map(str::to_ascii_lowercase));
    }
}

// === Directives ===

#[derive(Debug, PartialEq, Eq)]
struct Directive<'a> {
    name: &'a [u8],
    /// Without its quotes.
    value: Option<&'a [u8]>,
    /// What follows a semicolon.
    target: &'a [u8],
}

/// The members of one line, quoted strings being no place to look for others.
fn directives(line: &[u8]) -> impl Iterator<Item = Directive<'_>> {
    let mut rest = line;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let item = rest.get(..end(rest, b",")).unwrap_or(rest);
            rest = rest.get(item.len() + 1..).unwrap_or_default();
            let item = item.trim_ascii();
            if item.is_empty() {
                continue;
            }
            let (item, target) = item.split_at(end(item, b";"));
            let target = target.get(1..).unwrap_or_default().trim_ascii();
            let item = item.trim_ascii_end();
            let (name, value) = match item.iter().position(|b| *b == b'=') {
                Some(at) => (&item[..at], Some(&item[at + 1..])),
                None => (item, None),
            };
            let value = value.map(|value| match value {
                [b'"', inner @ .., b'"'] => inner,
                other => other,
            });
            return Some(Directive { name, value, target });
        }
        None
    })
}

/// Where the first of these stands outside of a quoted string, or the end.
fn end(text: &[u8], stops: &[u8]) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            byte if !quoted && stops.contains(byte) => return at,
            _ => {}
        }
    }
    text.len()
}

fn is(name: &[u8], known: &str) -> bool {
    name.eq_ignore_ascii_case(known.as_bytes())
}

/// Seconds as digits and nothing else; what is longer than anybody counts is that long.
pub(crate) fn delta(text: &[u8]) -> Option<Duration> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = text.iter().fold(0u64, |sum, digit| (sum * 10 + u64::from(digit - b'0')).min(LONGEST));
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(fields: &[(&str, &str)]) -> Says {
        Says::of(&Headers::from_iter(fields.iter().copied()))
    }

    const fn seconds(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn times_are_digits_the_first_counts_and_what_cannot_be_read_has_passed() {
        for (line, expected) in [
            ("max-age=3600", seconds(3600)),
            ("MaX-aGe=3600", seconds(3600)),
            ("foobar, max-age=3600", seconds(3600)),
            ("max-age=\"3600\"", seconds(3600)),
            ("max-age=003600", seconds(3600)),
            ("max-age=99999999999", seconds(LONGEST)),
            ("max-age=1, max-age=1800", seconds(1)),
            ("extension=\"max-age=3600\", max-age=1", seconds(1)),
            ("max-age=1, extension=\"a\\\", max-age=3600\"", seconds(1)),
            ("max-age='3600'", seconds(0)),
            ("max-age=-3600", seconds(0)),
            ("max-age=3600.5", seconds(0)),
            ("max-age= 3600", seconds(0)),
            ("max-age", seconds(0)),
            ("max-age =3600", None),
            ("", None),
            (",,", None),
        ] {
            assert_eq!(says(&[("cache-control", line)]).max_age, expected, "{line}");
        }
    }

    #[test]
    fn directives_with_fields_withhold_those_and_no_more() {
        let found = says(&[("cache-control", "no-cache=\"a, B\", private=\"c\", public")]);
        assert_eq!(found.withheld, ["a", "b", "c"]);
        assert!(found.public && !found.no_cache && !found.private);
        assert!(says(&[("cache-control", "no-cache"), ("cache-control", "private")]).no_cache);
    }

    #[test]
    fn fields_for_caches_like_us_come_before_those_for_all() {
        let general = ("cache-control", "no-store, max-age=1");
        for (field, value, targeted, max_age) in [
            ("cdn-cache-control", "max-age=60", true, seconds(60)),
            ("cdn-cache-control", "unknown", false, seconds(1)),
            ("surrogate-control", "max-age=60", true, seconds(60)),
            ("surrogate-control", "max-age=60;weir", true, seconds(60)),
            ("surrogate-control", "max-age=60;other", false, seconds(1)),
            ("surrogate-control", "foobar, max-age=60", true, seconds(60)),
        ] {
            let found = says(&[general, (field, value)]);
            assert_eq!((found.targeted, found.max_age, found.no_store), (targeted, max_age, !targeted), "{value}");
        }
    }

    #[test]
    fn requests_ask() {
        let asks = |line: &str| Asks::of(&Headers::from_iter([("cache-control", line)]));
        assert_eq!(asks("max-age=0, no-cache"), Asks { no_cache: true, max_age: seconds(0), ..Asks::default() });
        assert_eq!(asks("max-stale"), Asks { max_stale: Some(Duration::MAX), ..Asks::default() });
        assert_eq!(asks("max-stale=5, min-fresh=x").max_stale, seconds(5));
        assert_eq!(asks("min-fresh=x"), Asks::default());
        assert!(asks("only-if-cached, no-store").only_if_cached && asks("no-store").no_store);
    }
}
