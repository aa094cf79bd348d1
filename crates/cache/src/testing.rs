//! What the tests of this crate share.

use std::time::Duration;

use base::{Headers, Method, RequestHead, ResponseHead, Scheme, StatusCode, Time, Version};

use crate::{Date, Query, Rules};

pub(crate) const NOW: Time = Time::from_nanos(5_000_000_000);
/// On the wall, since 1970.
pub(crate) const WALL: Duration = Duration::from_secs(1_793_000_000);

pub(crate) fn rules() -> Rules {
    Rules {
        fresh: None,
        heuristic: true,
        stale_while_revalidate: Duration::ZERO,
        stale_if_error: Duration::ZERO,
        entry: 1 << 20,
        shared: false,
        set_cookie: false,
        query: Query::default(),
    }
}

pub(crate) fn date(delta: i64) -> String {
    Date(WALL.as_secs().saturating_add_signed(delta)).to_string()
}

pub(crate) fn request(method: &str, target: &str, headers: &[(&str, &str)]) -> RequestHead {
    RequestHead {
        method: Method::from_bytes(method.as_bytes()).unwrap(),
        scheme: Scheme::Http,
        authority: "h".into(),
        target: target.into(),
        version: Version::HTTP_11,
        headers: Headers::from_iter(headers.iter().copied()),
    }
}

pub(crate) fn reply(status: u16, headers: &[(&str, &str)]) -> ResponseHead {
    let headers = Headers::from_iter(headers.iter().copied());
    ResponseHead { status: StatusCode::from_u16(status).unwrap(), headers }
}
