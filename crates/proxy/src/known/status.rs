//! `Cache-Status` (RFC 9211): what the cache had to do with an answer.

use std::fmt::Write;

use base::{Headers, StatusCode, Time};
use cache::Entry;

/// Why the upstream was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    UriMiss,
    VaryMiss,
    Stale,
    Request,
    Method,
    /// Nothing that could be used.
    Miss,
    /// It is not for the cache.
    Bypass,
}

/// One member of the list.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    /// Seconds that are left to it; fewer than none if it is stale.
    hit: Option<i64>,
    forwarded: Option<Forwarded>,
    answered: Option<StatusCode>,
    collapsed: bool,
    pub stored: bool,
    detail: Option<&'static str>,
}

impl Status {
    const NOTHING: Status =
        Status { hit: None, forwarded: None, answered: None, collapsed: false, stored: false, detail: None };

    pub fn hit(entry: &Entry, now: Time) -> Status {
        let seconds = |time: std::time::Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let left = seconds(entry.plan.lifetime).saturating_sub(seconds(entry.age(now)));
        Status { hit: Some(left), ..Status::NOTHING }
    }

    /// It answers another question, which is near to the one that was asked.
    pub fn near(entry: &Entry, now: Time) -> Status {
        Status { detail: Some("near"), ..Status::hit(entry, now) }
    }

    /// It was not in memory.
    pub fn of_disk(self) -> Status {
        Status { detail: Some("disk"), ..self }
    }

    pub fn forwarded(why: Forwarded) -> Status {
        Status { forwarded: Some(why), ..Status::NOTHING }
    }

    pub fn answered(why: Forwarded, status: StatusCode) -> Status {
        Status { answered: Some(status), ..Status::forwarded(why) }
    }

    pub fn saying(self, detail: Option<&'static str>) -> Status {
        Status { detail, ..self }
    }

    pub fn collapsed(why: Forwarded) -> Status {
        Status { collapsed: true, ..Status::forwarded(why) }
    }

    pub fn revalidated(why: Forwarded) -> Status {
        Status::answered(why, StatusCode::NOT_MODIFIED)
    }

    /// A stale answer is given for an error of the upstream's.
    pub fn stands_in(error: Option<StatusCode>) -> Status {
        let detail = Some(if error.is_some() { "stale-if-error" } else { "unreachable" });
        Status { answered: error, detail, ..Status::forwarded(Forwarded::Stale) }
    }

    /// Behind what caches before us have said.
    pub fn write(self, headers: &mut Headers) {
        let Status { hit, forwarded, answered, collapsed, stored, detail } = self;
        let mut text = smallvec::SmallVec::<[u8; 96]>::new();
        text.extend_from_slice(b"weir");
        if let Some(left) = hit {
            text.extend_from_slice(b"; hit; ttl=");
            text.extend_from_slice(itoa::Buffer::new().format(left).as_bytes());
        }
        let mut words = Words(text);
        // Writing to memory cannot fail.
        let _ = forwarded.map(|why| write!(words, "; fwd={}", why.as_str()));
        let _ = answered.map(|status| write!(words, "; fwd-status={}", status.as_u16()));
        let _ = stored.then(|| write!(words, "; stored"));
        let _ = collapsed.then(|| write!(words, "; collapsed"));
        let _ = detail.map(|detail| write!(words, "; detail={detail}"));
        headers.append("cache-status", &words.0);
    }
}

impl Forwarded {
    fn as_str(self) -> &'static str {
        match self {
            Forwarded::UriMiss => "uri-miss",
            Forwarded::VaryMiss => "vary-miss",
            Forwarded::Stale => "stale",
            Forwarded::Request => "request",
            Forwarded::Method => "method",
            Forwarded::Miss => "miss",
            Forwarded::Bypass => "bypass",
        }
    }
}

struct Words(smallvec::SmallVec<[u8; 96]>);

impl Write for Words {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_in_the_words_of_the_standard() {
        let check = |status: Status, expected: &str| {
            let mut headers = Headers::from_iter([("cache-status", "origin; hit")]);
            status.write(&mut headers);
            assert_eq!(headers.get_all("cache-status").collect::<Vec<_>>(), [b"origin; hit", expected.as_bytes()]);
        };
        check(Status { hit: Some(-3), ..Status::NOTHING }, "weir; hit; ttl=-3");
        check(Status { hit: Some(3), ..Status::NOTHING }.of_disk(), "weir; hit; ttl=3; detail=disk");
        let stored = Status { stored: true, ..Status::answered(Forwarded::UriMiss, StatusCode::OK) };
        check(stored, "weir; fwd=uri-miss; fwd-status=200; stored");
        check(Status::collapsed(Forwarded::VaryMiss), "weir; fwd=vary-miss; collapsed");
        check(Status::stands_in(None), "weir; fwd=stale; detail=unreachable");
    }
}
