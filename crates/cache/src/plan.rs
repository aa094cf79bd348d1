//! Whether an answer may be kept, and for how long: RFC 9111, sections 3 and 4.2.

use std::time::{Duration, SystemTime};

use base::{Headers, Method, RequestHead, ResponseHead, StatusCode, Time};

use crate::control::{Asks, Says, delta};
use crate::date::Date;
use crate::key::Query;

/// What the operator has to say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// For answers that do not say how long they are fresh.
    pub fresh: Option<Duration>,
    /// Whether an answer's last change tells how long it is fresh, where nothing else does.
    pub heuristic: bool,
    pub stale_while_revalidate: Duration,
    pub stale_if_error: Duration,
    /// Bytes of a body that is kept.
    pub entry: usize,
    /// What one consumer got may be given to another.
    pub shared: bool,
    /// Also answers that set cookies.
    pub set_cookie: bool,
    pub query: Query,
}

/// The exchange that an answer comes from.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// As it is told from others: before anything was added that speaks of the connection.
    pub request: &'a RequestHead,
    /// Whether we know who asked, by a credential that the upstream does not see.
    pub consumer: bool,
    pub asked: Time,
    pub told: Time,
    pub wall: SystemTime,
}

/// How an answer is to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// It is not kept for one consumer alone.
    pub everyones: bool,
    /// It may be given to anybody: also to those who say who they are, though it was not made for them.
    pub open: bool,
    pub lifetime: Duration,
    /// How old it was when it came.
    pub age: Duration,
    /// It must be asked about before every use.
    pub no_cache: bool,
    /// Once stale it must be asked about, whatever anybody says.
    pub strict: bool,
    pub stale_while_revalidate: Duration,
    /// Where the upstream answers with an error.
    pub stale_if_error: Duration,
    /// Where it cannot be reached.
    pub stale_if_unreachable: Duration,
    /// Fields that are not kept.
    pub(crate) withheld: Vec<String>,
    /// The request's fields that tell this answer from others to the same URL, with their values.
    pub(crate) vary: Vec<Varied>,
    pub tags: Vec<String>,
}

/// A field's name, and its value where there was one.
pub(crate) type Varied = (String, Option<Vec<u8>>);

/// Why an answer is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Method,
    Status,
    /// `no-store` of either side.
    NoStore,
    Private,
    /// It was given to somebody who had to say who he is (RFC 9111, 3.5).
    Authorization,
    Cookie,
    /// Nothing tells how long it may be used, nor how to ask about it.
    NoFreshness,
    /// It depends on what we cannot know of the next request.
    Vary,
    /// It has no end.
    Stream,
    TooLarge,
}

/// How long an upstream that cannot be reached is stood in for, where nobody says how long.
const UNREACHABLE: Duration = Duration::from_secs(60);
/// What the last change tells goes no further.
const HEURISTIC_MOST: Duration = Duration::from_secs(24 * 3600);
/// An answer that varies with more is rather not the same twice.
const VARY_MOST: usize = 16;
const TAGS_MOST: usize = 256;

impl Plan {
    /// Of an answer whose keeper knows by himself how long it is good, and for whom it is: that is in its key.
    pub fn plain(lifetime: Duration, tags: Vec<String>) -> Plan {
        Plan {
            everyones: false,
            open: true,
            lifetime,
            age: Duration::ZERO,
            no_cache: false,
            strict: true,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            stale_if_unreachable: Duration::ZERO,
            withheld: Vec::new(),
            vary: Vec::new(),
            tags,
        }
    }
}

/// Whether and how an answer is kept.
pub fn plan(rules: &Rules, seen: &Seen<'_>, reply: &ResponseHead) -> Result<Plan, Why> {
    let Seen { request, consumer, asked, told, wall } = *seen;
    let ResponseHead { status, headers } = reply;
    if request.method != Method::GET {
        return Err(Why::Method);
    }
    let says = Says::of(headers);
    // A part and a "not modified" are nothing by themselves here.
    let understood = is_understood(*status);
    if status.is_informational() || matches!(status.as_u16(), 206 | 304) || (says.must_understand && !understood) {
        return Err(Why::Status);
    }
    // Who sends both means `no-store` for caches that do not know the status (RFC 9111, 5.2.2.3).
    if (says.no_store && !(says.must_understand && understood)) || Asks::of(&request.headers).no_store {
        return Err(Why::NoStore);
    }
    if says.private {
        return Err(Why::Private);
    }
    if is_stream(headers) {
        return Err(Why::Stream);
    }
    let open = says.public || says.s_maxage.is_some();
    let identified = request.headers.contains("authorization");
    if identified && !(open || says.must_revalidate) {
        return Err(Why::Authorization);
    }
    let cookies = headers.contains("set-cookie") || headers.contains("set-cookie2");
    if cookies && !rules.set_cookie {
        return Err(Why::Cookie);
    }

    let now = Date::of(wall);
    let date = headers.get("date").and_then(|value| Date::parse(value, now)).unwrap_or(now);
    let explicit = explicit(&says, headers, date, now);
    let lifetime = match explicit {
        Some(lifetime) => lifetime,
        None if !(is_usually_kept(*status) || says.public) => return Err(Why::NoFreshness),
        // What nobody has called fresh is not given to others where a cookie may have made it.
        None if says.no_cache || cookies || request.headers.contains("cookie") => Duration::ZERO,
        None => rules.fresh.or_else(|| rules.heuristic.then(|| heuristic(headers, date, now))?).unwrap_or_default(),
    };
    if lifetime.is_zero() && !has_validator(headers) {
        return Err(Why::NoFreshness);
    }

    let strict = says.must_revalidate || says.proxy_revalidate || says.no_cache;
    // Whether what the operator says about stale answers counts: s-maxage speaks against it (RFC 9111, 5.2.2.10).
    let silent = !strict && says.s_maxage.is_none();
    let window = |said: Option<Duration>, ruled: Duration| match said {
        Some(said) if !strict => said,
        None if silent => ruled,
        _ => Duration::ZERO,
    };
    let stale_if_error = window(says.stale_if_error, rules.stale_if_error);
    Ok(Plan {
        everyones: open || rules.shared || !consumer,
        open: open || (rules.shared && !identified),
        lifetime,
        age: age(headers, date, now, told - asked),
        no_cache: says.no_cache,
        strict: strict || says.s_maxage.is_some(),
        stale_while_revalidate: window(says.stale_while_revalidate, rules.stale_while_revalidate),
        stale_if_error,
        stale_if_unreachable: stale_if_error.max(window(None, UNREACHABLE)),
        vary: vary(headers, &request.headers)?,
        tags: tags(headers),
        withheld: says.withheld,
    })
}

/// What the answer itself says, in the order in which it counts.
fn explicit(says: &Says, headers: &Headers, date: Date, now: Date) -> Option<Duration> {
    let expires = || {
        let mut lines = headers.get_all("expires");
        let first = lines.next()?;
        // What cannot be read, or is said twice in two ways, has passed.
        let at = Date::parse(first, now).filter(|_| lines.all(|other| other == first));
        Some(at.map_or(Duration::ZERO, |at| at.since(date)))
    };
    says.s_maxage.or(says.max_age).or_else(|| if says.targeted { None } else { expires() })
}

/// A tenth of the time since its last change (RFC 9111, 4.2.2).
fn heuristic(headers: &Headers, date: Date, now: Date) -> Option<Duration> {
    let modified = Date::parse(headers.get("last-modified")?, now)?;
    Some((date.since(modified) / 10).min(HEURISTIC_MOST))
}

/// RFC 9111, 4.2.3. An `Age` that cannot be read may be any age, so the answer is as good as stale.
fn age(headers: &Headers, date: Date, now: Date, delay: Duration) -> Duration {
    let mut lines = headers.get_all("age");
    let told = match (lines.next(), lines.next()) {
        (None, _) => Duration::ZERO,
        (Some(only), None) => delta(only).unwrap_or(Duration::MAX),
        (Some(_), Some(_)) => Duration::MAX,
    };
    now.since(date).max(told.saturating_add(delay))
}

fn vary(headers: &Headers, request: &Headers) -> Result<Vec<Varied>, Why> {
    let mut all = Vec::new();
    for name in headers.get_all("vary").flat_map(|line| line.split(|b| *b == b',')).map(<[u8]>::trim_ascii) {
        let Ok(name) = std::str::from_utf8(name) else { return Err(Why::Vary) };
        let name = name.to_ascii_lowercase();
        if name.is_empty() || all.iter().any(|(known, _)| *known == name) {
            continue;
        }
        // We are the one who writes who the caller is, so of each caller it is another.
        if matches!(&*name, "*" | "forwarded" | "x-forwarded-for") || all.len() >= VARY_MOST {
            return Err(Why::Vary);
        }
        let value = normal(&name, request);
        all.push((name, value));
    }
    Ok(all)
}

/// A field's value as far as it matters: lines joined, no space around commas, no case where it has no meaning.
pub(crate) fn normal(name: &str, headers: &Headers) -> Option<Vec<u8>> {
    let mut joined: Option<Vec<u8>> = None;
    for item in headers.get_all(name).flat_map(|line| line.split(|b| *b == b',')) {
        match &mut joined {
            Some(joined) => joined.push(b','),
            none => *none = Some(Vec::new()),
        }
        if let Some(joined) = &mut joined {
            joined.extend_from_slice(item.trim_ascii());
        }
    }
    if let Some(joined) = &mut joined
        && matches!(name, "accept" | "accept-language" | "accept-encoding" | "accept-charset")
    {
        joined.make_ascii_lowercase();
    }
    joined
}

/// What it can be purged by.
fn tags(headers: &Headers) -> Vec<String> {
    let spaced = headers.get_all("surrogate-key").flat_map(|line| line.split(u8::is_ascii_whitespace));
    let listed = headers.get_all("cache-tag").flat_map(|line| line.split(|b| *b == b','));
    let tags = spaced.chain(listed).map(<[u8]>::trim_ascii).filter(|tag| !tag.is_empty());
    tags.filter_map(|tag| std::str::from_utf8(tag).ok()).take(TAGS_MOST).map(str::to_owned).collect()
}

fn has_validator(headers: &Headers) -> bool {
    headers.contains("etag") || headers.contains("last-modified")
}

fn is_stream(headers: &Headers) -> bool {
    headers.get("content-type").is_some_and(|value| {
        let kind = value.split(|b| *b == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
        kind == b"text/event-stream" || kind == b"multipart/x-mixed-replace" || kind.starts_with(b"application/grpc")
    })
}

/// Statuses that may be kept though nothing says so (RFC 9110, 15.1).
fn is_usually_kept(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// Statuses of which we know what they mean for a cache.
fn is_understood(status: StatusCode) -> bool {
    is_usually_kept(status)
        || matches!(status.as_u16(), 201 | 202 | 205 | 302 | 303 | 307 | 400..=403 | 406..=409 | 411..=413 | 415..=417)
        || matches!(status.as_u16(), 421 | 422 | 426 | 428 | 429 | 431 | 451 | 500 | 502..=505)
}

/// Of a head as it came, what is kept of it.
pub(crate) fn kept(headers: &Headers, plan: &Plan, wall: SystemTime) -> Headers {
    let mut kept = Headers::with_capacity(headers.bytes() + 64);
    let dated = headers.get("date").is_some_and(|value| Date::parse(value, Date::of(wall)).is_some());
    for (name, value) in headers.iter() {
        // Said to us alone, or said anew whenever it is used.
        let ours =
            name.starts_with("proxy-authenticat") || name == "proxy-authorization" || name == "surrogate-control";
        let made = name == "age" || name == "content-length" || (name == "date" && !dated);
        if !ours && !made && !plan.withheld.iter().any(|field| field == name) {
            kept.append(name, value);
        }
    }
    if !dated {
        kept.append("date", Date::of(wall).to_string());
    }
    kept
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::testing::{NOW, WALL, date, reply, request, rules};

    fn planned(rules: &Rules, ask: &[(&str, &str)], status: u16, told: &[(&str, &str)]) -> Result<Plan, Why> {
        let request = request("GET", "/", ask);
        let seen = Seen { request: &request, consumer: false, asked: NOW, told: NOW, wall: UNIX_EPOCH + WALL };
        plan(rules, &seen, &reply(status, told))
    }

    fn lifetime(status: u16, told: &[(&str, &str)]) -> Result<u64, Why> {
        planned(&rules(), &[], status, told).map(|plan| plan.lifetime.as_secs())
    }

    #[test]
    fn what_an_answer_says_comes_before_what_is_guessed() {
        let (now, later, before) = (date(0), date(100), date(-1000));
        for (status, told, expected) in [
            (200, vec![("cache-control", "s-maxage=3, max-age=2"), ("expires", &*later)], Ok(3)),
            (200, vec![("cache-control", "max-age=2"), ("expires", &later)], Ok(2)),
            (200, vec![("expires", &later), ("date", &now)], Ok(100)),
            (200, vec![("expires", &later), ("date", "foo")], Ok(100)),
            (200, vec![("expires", "0"), ("etag", "\"a\"")], Ok(0)),
            (200, vec![("expires", "0")], Err(Why::NoFreshness)),
            (200, vec![("expires", &later), ("expires", &now), ("etag", "\"a\"")], Ok(0)),
            (200, vec![("last-modified", &before), ("date", &now)], Ok(100)),
            (200, vec![("last-modified", "foo")], Ok(0)),
            (200, vec![], Err(Why::NoFreshness)),
            (201, vec![("last-modified", &before)], Err(Why::NoFreshness)),
            (599, vec![("last-modified", &before)], Err(Why::NoFreshness)),
            (599, vec![("last-modified", &before), ("cache-control", "public")], Ok(100)),
            (599, vec![("cache-control", "max-age=5")], Ok(5)),
            (599, vec![("cache-control", "max-age=5, must-understand")], Err(Why::Status)),
            (200, vec![("cache-control", "max-age=5, no-store, must-understand")], Ok(5)),
            (206, vec![("cache-control", "max-age=5")], Err(Why::Status)),
            (304, vec![("cache-control", "max-age=5")], Err(Why::Status)),
            (200, vec![("cache-control", "max-age=5, no-store")], Err(Why::NoStore)),
            (200, vec![("cache-control", "max-age=5, private")], Err(Why::Private)),
            (200, vec![("cache-control", "max-age=5, private=\"x-a\"")], Ok(5)),
            (200, vec![("cache-control", "max-age=5"), ("set-cookie", "a=b")], Err(Why::Cookie)),
            (200, vec![("cache-control", "max-age=5"), ("content-type", "Text/Event-Stream; x")], Err(Why::Stream)),
            (200, vec![("cache-control", "max-age=5"), ("vary", "accept, *")], Err(Why::Vary)),
            (200, vec![("cache-control", "max-age=5"), ("vary", "X-Forwarded-For")], Err(Why::Vary)),
            (200, vec![("cdn-cache-control", "max-age=9"), ("cache-control", "no-store")], Ok(9)),
            (200, vec![("surrogate-control", "no-store"), ("cache-control", "max-age=9")], Err(Why::NoStore)),
        ] {
            assert_eq!(lifetime(status, &told), expected, "{status} {told:?}");
        }
    }

    #[test]
    fn the_operator_speaks_where_nobody_else_does() {
        let ruled = Rules { fresh: Some(Duration::from_secs(30)), ..rules() };
        let check = |ask: &[(&str, &str)], status, told: &[(&str, &str)], expected| {
            let found = planned(&ruled, ask, status, told).map(|plan| plan.lifetime.as_secs());
            assert_eq!(found, expected, "{ask:?} {status} {told:?}");
        };
        check(&[], 200, &[], Ok(30));
        check(&[], 404, &[], Ok(30));
        check(&[], 500, &[], Err(Why::NoFreshness));
        check(&[], 200, &[("cache-control", "max-age=5")], Ok(5));
        check(&[], 200, &[("cache-control", "no-store")], Err(Why::NoStore));
        check(&[], 200, &[("cache-control", "no-cache")], Err(Why::NoFreshness));
        check(&[("cookie", "a=b")], 200, &[], Err(Why::NoFreshness));
        check(&[("cookie", "a=b")], 200, &[("cache-control", "max-age=5")], Ok(5));
        check(&[("authorization", "a")], 200, &[], Err(Why::Authorization));
        check(&[("cache-control", "no-store")], 200, &[], Err(Why::NoStore));
    }

    #[test]
    fn what_somebody_known_was_given_is_his_unless_it_is_called_open() {
        let check = |consumer, authorization: bool, shared, told: &str, expected: Result<bool, Why>| {
            let fields = [("authorization", "Basic x")];
            let request = request("GET", "/", if authorization { &fields } else { &[] });
            let seen = Seen { request: &request, consumer, asked: NOW, told: NOW, wall: UNIX_EPOCH + WALL };
            let found = plan(&Rules { shared, ..rules() }, &seen, &reply(200, &[("cache-control", told)]));
            assert_eq!(found.map(|plan| plan.everyones), expected, "{consumer} {authorization} {shared} {told}");
        };
        check(false, false, false, "max-age=5", Ok(true));
        check(true, false, false, "max-age=5", Ok(false));
        check(true, false, true, "max-age=5", Ok(true));
        check(true, false, false, "max-age=5, public", Ok(true));
        check(true, false, false, "s-maxage=5", Ok(true));
        // It may be kept at all; that it is not his alone is not said.
        check(true, false, false, "max-age=5, must-revalidate", Ok(false));
        for shared in [false, true] {
            check(true, true, shared, "max-age=5", Err(Why::Authorization));
            check(false, true, shared, "max-age=5", Err(Why::Authorization));
            check(false, true, shared, "max-age=5, must-revalidate", Ok(true));
            check(true, true, shared, "max-age=5, public", Ok(true));
            check(true, true, shared, "max-age=5, private", Err(Why::Private));
        }
    }

    #[test]
    fn age_is_what_is_told_or_what_is_apparent() {
        let check = |told: &[(&str, &str)], expected: Duration| {
            let told: Vec<_> = told.iter().copied().chain([("cache-control", "max-age=60")]).collect();
            assert_eq!(planned(&rules(), &[], 200, &told).unwrap().age, expected, "{told:?}");
        };
        let past = date(-7200);
        check(&[], Duration::ZERO);
        check(&[("age", "30")], Duration::from_secs(30));
        check(&[("age", "30"), ("date", &past)], Duration::from_secs(7200));
        for odd in ["abc", "-1", "7200.0", "0,7200", "0, 0", "5;a=b", ""] {
            check(&[("age", odd)], Duration::MAX);
        }
        check(&[("age", "0"), ("age", "0")], Duration::MAX);
    }

    #[test]
    fn stale_answers_are_used_where_both_sides_let_them() {
        let ruled =
            Rules { stale_while_revalidate: Duration::from_secs(1), stale_if_error: Duration::from_secs(2), ..rules() };
        let check = |told: &str, expected: [u64; 3]| {
            let plan = planned(&ruled, &[], 200, &[("cache-control", told)]).unwrap();
            let Plan { stale_while_revalidate, stale_if_error, stale_if_unreachable, .. } = plan;
            let found = [stale_while_revalidate, stale_if_error, stale_if_unreachable].map(|it| it.as_secs());
            assert_eq!(found, expected, "{told}");
        };
        check("max-age=9", [1, 2, 60]);
        check("max-age=9, stale-while-revalidate=5, stale-if-error=600", [5, 600, 600]);
        check("max-age=9, stale-if-error=0", [1, 0, 60]);
        check("max-age=9, must-revalidate, stale-if-error=600", [0, 0, 0]);
        check("max-age=9, proxy-revalidate", [0, 0, 0]);
        check("s-maxage=9", [0, 0, 0]);
        check("s-maxage=9, stale-if-error=5", [0, 5, 5]);
    }

    #[test]
    fn tags_are_read_of_both_fields() {
        let told = [("cache-control", "max-age=5"), ("surrogate-key", "a  b"), ("cache-tag", "c, d e,")];
        assert_eq!(planned(&rules(), &[], 200, &told).unwrap().tags, ["a", "b", "c", "d e"]);
    }

    #[test]
    fn values_are_compared_as_far_as_they_matter() {
        let check = |name: &str, one: &[(&str, &str)], other: &[(&str, &str)], same: bool| {
            let (one, other) = (Headers::from_iter(one.to_vec()), Headers::from_iter(other.to_vec()));
            assert_eq!(normal(name, &one) == normal(name, &other), same, "{one:?} {other:?}");
        };
        check("foo", &[("foo", "1, 2")], &[("foo", "1"), ("foo", "2")], true);
        check("foo", &[("foo", "1,2")], &[("foo", "1 ,  2")], true);
        check("foo", &[("foo", "a")], &[("foo", "A")], false);
        check("foo", &[("foo", "")], &[], false);
        check("accept-language", &[("accept-language", "en, DE")], &[("accept-language", "eN,de")], true);
    }
}
