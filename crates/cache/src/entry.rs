//! An answer that is kept.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use base::{Headers, RequestHead, ResponseHead, StatusCode, Time};
use bytes::Bytes;

use crate::control::Asks;
use crate::disk::Place;
use crate::key::Key;
use crate::plan::{Plan, kept, normal};

/// Something of the keeper's own.
pub type Note = Arc<dyn Any + Send + Sync>;

/// Immutable, and shared by all that read it; what changes is only whether it is still wanted.
#[derive(Debug)]
pub struct Entry {
    pub(crate) key: Box<[u8]>,
    pub(crate) url_at: usize,
    /// Of which API, for who purges.
    pub api: Arc<str>,
    pub status: StatusCode,
    pub headers: Headers,
    /// Empty where it is [`apart`](Entry::apart).
    pub body: Bytes,
    /// Where the body is, if that is not here.
    pub apart: Option<Box<Place>>,
    pub plan: Plan,
    /// What else its keeper has to know of it.
    pub note: Option<Note>,
    /// When it came.
    pub told: Time,
    pub wall: SystemTime,
    /// How often it was asked for lately; not every time counts.
    pub(crate) asked: AtomicU8,
    /// In which queue it waits to be dropped, and under which number; the store's business.
    pub(crate) place: AtomicU8,
    pub(crate) id: u64,
    /// Replaced, purged or evicted.
    pub(crate) gone: AtomicBool,
}

/// Whether a stored answer may be used for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    Fresh,
    /// The client takes it though it is stale.
    Stale,
    /// It may be used once more, while somebody asks for a newer one.
    WhileRevalidating,
    /// Only after asking.
    Validate,
}

impl Entry {
    pub fn new(
        key: &Key,
        api: Arc<str>,
        reply: &ResponseHead,
        body: Bytes,
        plan: Plan,
        (told, wall): (Time, SystemTime),
    ) -> Entry {
        Entry {
            key: key.bytes().into(),
            url_at: key.url_at(),
            api,
            status: reply.status,
            headers: kept(&reply.headers, &plan, wall),
            body,
            apart: None,
            plan,
            note: None,
            told,
            wall,
            asked: AtomicU8::new(0),
            place: AtomicU8::new(0),
            id: 0,
            gone: AtomicBool::new(false),
        }
    }

    /// As it was written down.
    pub(crate) fn read(
        key: Box<[u8]>,
        url_at: usize,
        api: Arc<str>,
        (status, headers): (StatusCode, Headers),
        plan: Plan,
        (told, wall): (Time, SystemTime),
    ) -> Entry {
        Entry {
            key,
            url_at,
            api,
            status,
            headers,
            body: Bytes::new(),
            apart: None,
            note: None,
            plan,
            told,
            wall,
            asked: AtomicU8::new(0),
            place: AtomicU8::new(0),
            id: 0,
            gone: AtomicBool::new(false),
        }
    }

    /// With the body that the other one has, wherever that is.
    #[must_use]
    pub fn with_body_of(mut self, other: &Entry) -> Entry {
        self.body = other.body.clone();
        self.apart.clone_from(&other.apart);
        self
    }

    /// Bytes of its body.
    pub fn length(&self) -> usize {
        self.apart.as_ref().map_or(self.body.len(), |place| place.length as usize)
    }

    /// The same head with its body, which had been on its way.
    pub fn with_body(&self, body: Bytes) -> Entry {
        Entry {
            key: self.key.clone(),
            url_at: self.url_at,
            api: self.api.clone(),
            status: self.status,
            headers: self.headers.clone(),
            body,
            apart: None,
            plan: self.plan.clone(),
            note: self.note.clone(),
            told: self.told,
            wall: self.wall,
            asked: AtomicU8::new(0),
            place: AtomicU8::new(0),
            id: 0,
            gone: AtomicBool::new(false),
        }
    }

    /// The same for another key, with another note.
    pub fn under(&self, key: &Key, note: Note) -> Entry {
        let mut entry = self.with_body(self.body.clone());
        (entry.key, entry.url_at, entry.note) = (key.bytes().into(), key.url_at(), Some(note));
        entry
    }

    /// The head as it would be after this answer said that nothing has changed (RFC 9111, 3.2).
    pub fn freshened(&self, not_modified: &Headers) -> ResponseHead {
        // They speak of the body, which did not come; or of the answer that was asked about.
        let stays = |name: &str| {
            matches!(
                name,
                "content-length" | "content-encoding" | "content-range" | "content-md5" | "etag" | "transfer-encoding"
            )
        };
        let mut headers = self.headers.clone();
        headers.retain(|name, _| stays(name) || !not_modified.contains(name));
        for (name, value) in not_modified.iter().filter(|(name, _)| !stays(name)) {
            headers.append(name, value);
        }
        ResponseHead { status: self.status, headers }
    }

    pub fn age(&self, now: Time) -> Duration {
        self.plan.age.saturating_add(now.since(self.told))
    }

    /// How long it has been stale.
    pub fn stale_for(&self, now: Time) -> Duration {
        self.age(now).saturating_sub(self.plan.lifetime)
    }

    pub fn fit(&self, asks: &Asks, now: Time) -> Fit {
        let Plan { lifetime, no_cache, strict, stale_while_revalidate, .. } = self.plan;
        let age = self.age(now);
        let too_old = asks.max_age.is_some_and(|most| age > most);
        if no_cache || asks.no_cache || too_old {
            return Fit::Validate;
        }
        if age.saturating_add(asks.min_fresh.unwrap_or_default()) < lifetime {
            return Fit::Fresh;
        }
        if age < lifetime {
            return Fit::Validate;
        }
        let stale = age - lifetime;
        if !strict && asks.max_stale.is_some_and(|most| stale <= most) {
            return Fit::Stale;
        }
        if stale < stale_while_revalidate && asks.min_fresh.is_none() {
            return Fit::WhileRevalidating;
        }
        Fit::Validate
    }

    /// Whether it is kept for this key and answers a request with these fields. Somebody who says who he is gets
    /// what is kept for everyone only if it was meant for everyone.
    pub fn answers(&self, key: &[u8], request: &Headers, openly: bool) -> bool {
        *self.key == *key && (self.plan.open || !openly) && self.varies_like(request)
    }

    pub fn varies_like(&self, request: &Headers) -> bool {
        self.plan.vary.iter().all(|(name, value)| normal(name, request) == *value)
    }

    /// Puts the questions that tell whether it has changed in place of those the client has.
    pub fn ask_about(&self, request: &mut RequestHead) -> bool {
        for field in ["if-none-match", "if-modified-since", "if-range", "range"] {
            request.headers.remove(field);
        }
        let (etag, modified) = (self.headers.get("etag"), self.headers.get("last-modified"));
        if let Some(etag) = etag {
            request.headers.append("if-none-match", etag);
        }
        if let Some(modified) = modified {
            request.headers.append("if-modified-since", modified);
        }
        etag.is_some() || modified.is_some()
    }

    pub fn url(&self) -> &[u8] {
        &self.key[self.url_at..]
    }

    pub fn is_gone(&self) -> bool {
        self.gone.load(Relaxed)
    }

    /// Bytes it takes, with what keeping it takes.
    pub fn size(&self) -> usize {
        const AROUND: usize = size_of::<Entry>() + 192;
        let Plan { vary, tags, withheld, .. } = &self.plan;
        let vary = vary.iter().map(|(name, value)| 48 + name.len() + value.as_ref().map_or(0, Vec::len));
        let words = tags.iter().chain(withheld).map(|word| 24 + word.len());
        // A field's place in the list of fields takes 12 bytes.
        let headers = self.headers.bytes() + 12 * self.headers.len();
        let apart = self.apart.as_ref().map_or(0, |place| 32 + 4 * place.sums.len());
        AROUND + self.key.len() + headers + self.body.len() + apart + vary.sum::<usize>() + words.sum::<usize>()
    }

    /// Somebody asked for it. Written only while it matters, so that a popular entry is not a place all cores write to.
    pub(crate) fn touch(&self) {
        let asked = self.asked.load(Relaxed);
        if asked < 3 {
            self.asked.store(asked + 1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::key::Query;
    use crate::plan::{Seen, plan};
    use crate::testing::{NOW, WALL, reply, request, rules};

    fn entry(told: &[(&str, &str)], ask: &[(&str, &str)]) -> Entry {
        let request = request("GET", "/", ask);
        let wall = UNIX_EPOCH + WALL;
        let reply = reply(200, told);
        let seen = Seen { request: &request, consumer: false, asked: NOW, told: NOW, wall };
        let plan = plan(&rules(), &seen, &reply).unwrap();
        let key = Key::new(&[0; 16], None, &request, &Query::default());
        Entry::new(&key, "a".into(), &reply, Bytes::from_static(b"12345"), plan, (NOW, wall))
    }

    #[test]
    fn both_sides_say_when_it_may_be_used() {
        let check = |told: &str, ask: &str, after: u64, expected: Fit| {
            let entry = entry(&[("cache-control", told), ("etag", "\"a\"")], &[]);
            let asks = Asks::of(&Headers::from_iter([("cache-control", ask)]));
            let now = NOW + Duration::from_secs(after);
            assert_eq!(entry.fit(&asks, now), expected, "{told} / {ask} / {after}");
        };
        check("max-age=10", "", 9, Fit::Fresh);
        check("max-age=10", "", 10, Fit::Validate);
        check("max-age=10, no-cache", "", 0, Fit::Validate);
        check("max-age=10", "no-cache", 0, Fit::Validate);
        check("max-age=10", "max-age=5", 5, Fit::Fresh);
        check("max-age=10", "max-age=5", 6, Fit::Validate);
        check("max-age=10", "min-fresh=5", 4, Fit::Fresh);
        check("max-age=10", "min-fresh=5", 5, Fit::Validate);
        check("max-age=10", "max-stale", 1000, Fit::Stale);
        check("max-age=10", "max-stale=5", 15, Fit::Stale);
        check("max-age=10", "max-stale=5", 16, Fit::Validate);
        check("max-age=10", "max-stale=5, max-age=3", 12, Fit::Validate);
        check("max-age=10, must-revalidate", "max-stale", 11, Fit::Validate);
        check("s-maxage=10", "max-stale", 11, Fit::Validate);
        check("max-age=10, stale-while-revalidate=5", "", 14, Fit::WhileRevalidating);
        check("max-age=10, stale-while-revalidate=5", "", 15, Fit::Validate);
        check("max-age=10, stale-while-revalidate=5", "max-age=12", 14, Fit::Validate);
    }

    #[test]
    fn what_has_not_changed_is_told_anew_but_for_what_speaks_of_the_body() {
        let fresh = [("cache-control", "max-age=1"), ("etag", "\"a\""), ("x-a", "1"), ("content-type", "a/b")];
        let old = entry(&fresh, &[]);
        let told = [("cache-control", "max-age=9"), ("etag", "\"b\""), ("x-b", "2"), ("content-length", "0")];
        let new = old.freshened(&Headers::from_iter(told)).headers;
        for (name, expected) in [
            ("cache-control", Some("max-age=9")),
            ("etag", Some("\"a\"")),
            ("x-a", Some("1")),
            ("x-b", Some("2")),
            ("content-type", Some("a/b")),
            ("content-length", None),
        ] {
            assert_eq!(new.get_str(name), expected, "{name}");
        }
    }

    #[test]
    fn what_is_not_for_others_is_not_kept() {
        let told = [
            ("cache-control", "max-age=1, private=\"x-a\", no-cache=\"x-b\""),
            ("x-a", "1"),
            ("x-b", "2"),
            ("x-c", "3"),
            ("age", "0"),
            ("proxy-authenticate", "x"),
            ("proxy-authentication-info", "x"),
        ];
        let entry = entry(&told, &[]);
        let names: Vec<&str> = entry.headers.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["cache-control", "x-c", "date"]);
    }

    #[test]
    fn it_answers_whom_it_would_have_answered() {
        let entry = entry(&[("cache-control", "max-age=1"), ("vary", "foo, Bar")], &[("foo", "1")]);
        let answers = |fields: &[(&str, &str)]| entry.varies_like(&Headers::from_iter(fields.iter().copied()));
        assert!(answers(&[("foo", "1"), ("other", "2")]));
        assert!(!answers(&[]) && !answers(&[("foo", "2")]) && !answers(&[("foo", "1"), ("bar", "")]));
    }

    #[test]
    fn questions_replace_the_clients_own() {
        let entry = entry(&[("cache-control", "max-age=1"), ("etag", "W/\"a\"")], &[]);
        let mut head = request("GET", "/", &[("if-none-match", "\"x\""), ("range", "bytes=0-1"), ("x-a", "1")]);
        assert!(entry.ask_about(&mut head));
        assert_eq!(head.headers, Headers::from_iter([("x-a", "1"), ("if-none-match", "W/\"a\"")]));
    }
}
