//! Answers that need no upstream: redirects, fixed responses, and to requests that could not be read.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use awareness::{Arrival, Exchange};
use base::{Call, Date, Headers, Method, Peer, RequestHead, ResponseHead, Scheme, StatusCode, Time, Version};
use config::router::Found;
use config::{Redirect, Respond};
use transport::{Body, Response};

use crate::forward;
use crate::refusal::{self, Refusal};
use crate::tap;
use crate::trip::Trip;
use crate::worker::Worker;

pub fn redirect(redirect: &Redirect, call: &Call, found: &Found) -> Response {
    let head = &call.head;
    let scheme = redirect.scheme.unwrap_or(head.scheme);
    let host = redirect.host.as_deref().unwrap_or_else(|| head.host());
    let port = redirect.port.or_else(|| {
        // The port of the listener goes with its scheme.
        let kept = redirect.scheme.is_none().then(|| head.authority.rsplit_once(':')?.1.parse().ok()).flatten();
        kept.filter(|_| redirect.host.is_none())
    });
    let mut location = format!("{}://{host}", scheme.as_str());
    let usual = if scheme == Scheme::Https { 443 } else { 80 };
    if let Some(port) = port.filter(|port| *port != usual) {
        location.push_str(&format!(":{port}"));
    }
    match &redirect.path {
        Some(path) => location.push_str(&forward::rewritten(path, head.path(), found.prefix_len, &found.params)),
        None => location.push_str(head.path()),
    }
    if let Some(query) = head.query() {
        location.push('?');
        location.push_str(query);
    }
    let mut head = ResponseHead::new(redirect.status);
    head.headers.append("location", location);
    Response::new(head, Body::Empty)
}

pub fn respond(respond: &Respond) -> Response {
    let head = ResponseHead { status: respond.status, headers: respond.headers.clone() };
    Response::new(head, Body::from(respond.body.clone()))
}

/// Says when an answer was made, where nobody has said so yet (RFC 9110, 6.6.1): our own, and those of upstreams
/// that have no clock.
pub fn date(response: &mut Response, now: SystemTime) {
    thread_local! {
        /// The text of one second.
        static TEXT: Cell<(u64, [u8; 29])> = const { Cell::new((u64::MAX, [0; 29])) };
    }
    if response.head.headers.contains("date") || response.head.status.is_informational() {
        return;
    }
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (second, mut text) = TEXT.get();
    if second != now {
        text = Date::of_seconds(now).to_http();
        TEXT.set((now, text));
    }
    response.head.headers.append("date", text);
}

/// A request that was no HTTP, or not for us to guess at.
pub fn unreadable(
    worker: &Rc<Worker>,
    status: StatusCode,
    why: &'static str,
    peer: &Arc<Peer>,
    arrival: Arrival,
) -> Response {
    let now = Time::now();
    let head = RequestHead {
        method: Method::GET,
        scheme: Scheme::Http,
        authority: String::new(),
        target: String::new(),
        version: Version::HTTP_11,
        headers: Headers::new(),
    };
    let client = forward::client_of(peer, &head.headers, &[]);
    let exchange = Box::new(Exchange {
        started: now,
        wall: SystemTime::now(),
        finished: now,
        arrival,
        client: client.addr,
        status: Some(status),
        error: Some("bad-request"),
        ..Exchange::default()
    });
    let mut response = refusal::render(&Refusal::BadRequest(why), &head);
    if status != StatusCode::BAD_REQUEST {
        response = refusal::render_status(status, why);
    }
    date(&mut response, SystemTime::now());
    tap::attach(response, Trip::begin(worker, exchange))
}
