//! The stage "already known": an answer that is kept is given again, or its upstream is asked whether it still holds.
//!
//! What may be kept and used is decided in the crate `cache`; here it is done. [`look`] is all that a hit needs and
//! waits for nothing. [`fetch`] is for the rest: one call asks the disk, or the upstream, for all that want the same.

mod along;
mod apart;
pub mod status;

use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use awareness::Cached;
use base::{Call, Headers, Method, RequestHead, ResponseHead, StatusCode, Time};
use bytes::Bytes;
use cache::disk::{OnDisk, Slot};
use cache::{Answer, Asks, Boarded, Entry, Fit, Found, Joined, Key, Plan, Revalidated, Seen, Ticket, Why};
use config::{Action, Route, Timeouts};
use policy::Cache;
use transport::{Body, Frame, Response};

use crate::attempt::{self, Way};
use crate::refusal::Refusal;
use crate::trip::Trip;
use along::{Along, Resumed};
use apart::Held;
use status::{Forwarded, Status};

/// What is known of a call before any upstream is asked.
pub enum Known {
    Answer(Response),
    Ask(Box<Wanted>),
}

/// What an upstream is to be asked for.
pub struct Wanted {
    /// Of answers that are everybody's.
    key: Key,
    /// Of those that are this consumer's.
    own: Option<Key>,
    asks: Asks,
    noted: Noted,
    why: Forwarded,
    /// There is an answer; it must be asked about.
    stale: Option<Arc<Entry>>,
    recall: Option<Recall>,
}

/// What the disk is to be asked for first.
enum Recall {
    /// An answer that is not in memory, and whether it is this consumer's own.
    Answer(Slot, bool),
    /// The body of one that is.
    Body(Arc<Entry>),
}

/// What in a request's head matters here, found in one pass.
#[derive(Clone, Copy, Default)]
struct Noted {
    asks: bool,
    conditional: bool,
    range: bool,
    authorization: bool,
    /// `If-Match` and its like: for the upstream to judge.
    precondition: bool,
}

/// An answer from memory, or the upstream's to ask.
pub fn look(
    cache: &Cache,
    route: &Route,
    way: &Way<'_>,
    call: &Call,
    body: &Body,
    trip: &mut Trip,
) -> Result<Known, Refusal> {
    let head = &call.head;
    let noted = Noted::of(&head.headers);
    let asks = if noted.asks { Asks::of(&head.headers) } else { Asks::default() };
    let rules = &cache.rules;
    let key = Key::new(&route.scope, None, head, &rules.query);
    let is_read = matches!(head.method, Method::GET | Method::HEAD);
    let passes = !is_read || !body.is_empty() || way.upgrade.is_some() || noted.precondition || asks.no_store;
    if passes {
        let why = if is_read { Forwarded::Request } else { Forwarded::Method };
        return Ok(Known::Ask(Box::new(Wanted { key, own: None, asks, noted, why, stale: None, recall: None })));
    }
    let consumer = call.consumer.as_ref().filter(|_| !rules.shared);
    let own = consumer.map(|consumer| Key::new(&route.scope, Some(&consumer.name), head, &rules.query));
    let openly = own.is_some() || noted.authorization;

    let (store, front) = (&way.worker.store, &mut *way.worker.front.borrow_mut());
    let mut found = store.find(front, &key, &head.headers, openly);
    if let (Found::Others | Found::Nothing, Some(own)) = (&found, &own) {
        found = match store.find(front, own, &head.headers, false) {
            Found::Nothing => found,
            found => found,
        };
    }
    let why = match &found {
        // Where its body is, one has to wait.
        Found::Entry(entry) if entry.apart.is_some() => {
            let recall = Some(Recall::Body(entry.clone()));
            let why = Forwarded::UriMiss;
            return Ok(Known::Ask(Box::new(Wanted { key, own, asks, noted, why, stale: None, recall })));
        }
        Found::Entry(entry) => {
            let fit = entry.fit(&asks, call.now);
            if matches!(fit, Fit::Fresh | Fit::Stale | Fit::WhileRevalidating) {
                let cached = if fit == Fit::Fresh { Cached::Hit } else { Cached::Stale };
                let response = respond(entry, None, head, noted, call.now, Status::hit(entry, call.now));
                trip.note(|exchange| exchange.cache = Some(cached));
                if fit == Fit::WhileRevalidating {
                    let stale = Some(entry.clone());
                    let why = Forwarded::Stale;
                    revalidate(Wanted { key, own, asks, noted, why, stale, recall: None }, way, route, call);
                }
                return Ok(Known::Answer(response));
            }
            let fresh = entry.age(call.now) < entry.plan.lifetime;
            if fresh && !entry.plan.no_cache { Forwarded::Request } else { Forwarded::Stale }
        }
        Found::Others => Forwarded::VaryMiss,
        Found::Nothing => Forwarded::UriMiss,
    };
    let stale = if let Found::Entry(entry) = found { Some(entry) } else { None };
    let mut wanted = Wanted { key, own, asks, noted, why, stale, recall: None };
    if wanted.stale.is_none() {
        wanted.look_on_disk(&store.tier, head, openly);
    }
    if asks.only_if_cached && wanted.recall.is_none() {
        return Err(Refusal::NotStored);
    }
    Ok(Known::Ask(Box::new(wanted)))
}

/// The disk's answer or the upstream's, or one that another call has got of them meanwhile.
pub async fn fetch(
    mut wanted: Box<Wanted>,
    cache: &Cache,
    route: &Route,
    way: Way<'_>,
    call: &mut Call,
    body: &mut Body,
    trip: &mut Trip,
) -> Result<Response, Refusal> {
    if let Some(recall) = wanted.recall.take() {
        if let Some(response) = recalled(recall, &mut wanted, route, &way, call, trip).await {
            return Ok(response);
        }
        if wanted.asks.only_if_cached {
            return Err(Refusal::NotStored);
        }
    }
    if matches!(wanted.why, Forwarded::Request | Forwarded::Method) && wanted.stale.is_none() {
        trip.note(|exchange| exchange.cache = Some(Cached::Bypass));
        return pass(*wanted, way, call, body, trip).await;
    }
    trip.note(|exchange| exchange.cache = Some(Cached::Miss));
    // Nobody keeps the head of an answer without its body, nor a part of one.
    if call.head.method == Method::HEAD || (wanted.noted.range && wanted.stale.is_none()) {
        let mut response = attempt::send(way, call, body, trip).await?;
        Status::forwarded(wanted.why).write(&mut response.head.headers);
        return Ok(response);
    }
    let openly = wanted.own.is_some() || wanted.noted.authorization;
    let flight = wanted.own.as_ref().unwrap_or(&wanted.key);
    let mut apart = wanted.asks.no_cache;
    let mut turns = 16;
    let ticket = loop {
        let flight = match way.worker.store.board(flight, apart, Time::now()) {
            Boarded::Lead(ticket) => break Some(ticket),
            // Another core is at it for a moment, as when all who waited hear that nobody asks any more. The upstream
            // is far enough to look again, after the other tasks of this core.
            Boarded::Alone if turns > 0 => {
                turns -= 1;
                tokio::task::yield_now().await;
                continue;
            }
            Boarded::Alone => break None,
            Boarded::Follow(flight) => flight,
        };
        // Whoever fetches has no longer than we would have.
        let patience = way.forward.timeouts.first_byte.unwrap_or(Duration::from_secs(60));
        let joined = tokio::time::timeout(patience, flight.join()).await.unwrap_or(Joined::Alone);
        let now = Time::now();
        let usable = |entry: &Entry| {
            (entry.plan.open || !noted_apart(&wanted, openly))
                && entry.varies_like(&call.head.headers)
                && matches!(entry.fit(&wanted.asks, now), Fit::Fresh | Fit::Stale)
        };
        match joined {
            Joined::Entry(entry) if usable(&entry) => match Held::of(&entry, &way) {
                Ok(held) => {
                    trip.note(|exchange| exchange.cache = Some(Cached::Collapsed));
                    let status = Status::collapsed(wanted.why);
                    return Ok(respond(&entry, held.as_ref(), &call.head, wanted.noted, now, status));
                }
                Err(apart::Gone) => apart = true,
            },
            Joined::Stream(head, reader) if usable(&head) && !wanted.noted.conditional && !wanted.noted.range => {
                trip.note(|exchange| exchange.cache = Some(Cached::Collapsed));
                let reply = reply(&head, now, Status::collapsed(wanted.why));
                return Ok(Response::new(reply, Body::source(Along(reader))));
            }
            // One of those who waited goes in its place.
            Joined::Again => {}
            // At once, and whatever the others do: waiting again would be waiting in a row.
            _ => apart = true,
        }
    };
    lead(ticket, *wanted, cache, route, way, call, body, trip).await
}

/// What the disk has, if that answers. What must be asked about is in `wanted` then.
async fn recalled(
    recall: Recall,
    wanted: &mut Wanted,
    route: &Route,
    way: &Way<'_>,
    call: &Call,
    trip: &mut Trip,
) -> Option<Response> {
    let entry = match recall {
        Recall::Body(entry) => entry,
        Recall::Answer(slot, own) => from_disk(slot, own, wanted, way, call).await?,
    };
    let now = Time::now();
    let fit = entry.fit(&wanted.asks, now);
    if fit == Fit::Validate {
        let fresh = entry.age(now) < entry.plan.lifetime;
        wanted.why = if fresh && !entry.plan.no_cache { Forwarded::Request } else { Forwarded::Stale };
        wanted.stale = Some(entry);
        return None;
    }
    let mut held = Held::of(&entry, way).ok()?;
    if let Some(held) = &mut held {
        // Before its head is sent: what cannot be read is not there.
        held.begin(&entry, &call.head).await.ok()?;
    }
    let status = Status::hit(&entry, now).of_disk();
    let response = respond(&entry, held.as_ref(), &call.head, wanted.noted, now, status);
    trip.note(|exchange| exchange.cache = Some(if fit == Fit::Fresh { Cached::Hit } else { Cached::Stale }));
    if fit == Fit::WhileRevalidating {
        let Wanted { key, own, asks, noted, .. } = wanted;
        let (key, own, stale, why) = (key.clone(), own.clone(), Some(entry), Forwarded::Stale);
        let wanted = Wanted { key, own, asks: *asks, noted: *noted, why, stale, recall: None };
        revalidate(wanted, way, route, call);
    }
    Some(response)
}

/// Reads an answer for all who want it, back into memory.
async fn from_disk(slot: Slot, own: bool, wanted: &Wanted, way: &Way<'_>, call: &Call) -> Option<Arc<Entry>> {
    let openly = !own && (wanted.own.is_some() || wanted.noted.authorization);
    let key = wanted.own.as_ref().filter(|_| own).unwrap_or(&wanted.key);
    let answers = |entry: &Entry| entry.answers(key.bytes(), &call.head.headers, openly);
    match way.worker.store.board(key, false, call.now) {
        // Those who wait for what is not there go on as if nobody had asked.
        Boarded::Lead(ticket) => {
            let entry = way.worker.disk.read(slot).await.filter(answers)?;
            ticket.recall(entry)
        }
        Boarded::Follow(flight) => {
            let patience = way.forward.timeouts.first_byte.unwrap_or(Duration::from_secs(60));
            match tokio::time::timeout(patience, flight.join()).await {
                Ok(Joined::Entry(entry)) => Some(entry).filter(|entry| answers(entry)),
                _ => None,
            }
        }
        Boarded::Alone => None,
    }
}

/// An answer to a request of somebody who is known by a credential that goes to the upstream is nobody else's, unless it
/// is said to be; that of a consumer waits under the consumer's own key.
fn noted_apart(wanted: &Wanted, openly: bool) -> bool {
    openly && wanted.own.is_none()
}

/// What the cache has no part in, but that what is changed must not be given any more (RFC 9111, 4.4).
async fn pass(
    wanted: Wanted,
    way: Way<'_>,
    call: &mut Call,
    body: &mut Body,
    trip: &mut Trip,
) -> Result<Response, Refusal> {
    let changes = !matches!(call.head.method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE);
    let named = changes.then(|| call.head.clone());
    let mut response = attempt::send(way, call, body, trip).await?;
    if let Some(named) = named
        && response.head.status.as_u16() < 400
    {
        let store = &way.worker.store;
        store.forget(&wanted.key);
        for field in ["location", "content-location"] {
            if let Some(also) = response.head.headers.get_str(field).and_then(|value| same_origin(&named, value)) {
                store.forget(&Key::new(&[0; 16], None, &also, &cache::Query::default()));
            }
        }
    }
    if response.tunnel.is_none() {
        Status::forwarded(wanted.why).write(&mut response.head.headers);
    }
    Ok(response)
}

/// Asks the upstream, keeps what may be kept, and gives it to those who wait.
#[expect(clippy::too_many_arguments, reason = "the stage where all that is known of a call meets its answer")]
async fn lead(
    ticket: Option<Ticket>,
    wanted: Wanted,
    cache: &Cache,
    route: &Route,
    way: Way<'_>,
    call: &mut Call,
    body: &mut Body,
    trip: &mut Trip,
) -> Result<Response, Refusal> {
    let Wanted { key, own, asks, noted, why, stale, recall: _ } = wanted;
    // Its file stays as long as it may be needed.
    let (stale, held) = match stale.map(|entry| (Held::of(&entry, &way), entry)) {
        Some((Ok(held), entry)) => (Some(entry), held),
        Some((Err(apart::Gone), _)) | None => (None, None),
    };
    let seen = call.head.clone();
    let asks_about = stale.as_ref().filter(|entry| entry.ask_about(&mut call.head));
    call.head.headers.set("surrogate-capability", "weir=\"Surrogate/1.0\"");
    let asked = Time::now();
    let result = attempt::send(way, call, body, trip).await;
    let (told, wall) = (Time::now(), SystemTime::now());

    let stands_in = |error: Option<StatusCode>| {
        let entry = stale.as_ref()?;
        let Plan { stale_if_error, stale_if_unreachable, no_cache, .. } = entry.plan;
        let most = if error.is_some() { stale_if_error } else { stale_if_unreachable };
        (!no_cache && !asks.no_cache && entry.stale_for(told) < most)
            .then(|| respond(entry, held.as_ref(), &seen, noted, told, Status::stands_in(error)))
    };
    let mut response = match result {
        Ok(response) => response,
        Err(refusal) => {
            if let Some(ticket) = ticket {
                ticket.pass(None);
            }
            let Some(response) = stands_in(None) else { return Err(refusal) };
            trip.note(|exchange| (exchange.cache, exchange.error) = (Some(Cached::Stale), None));
            return Ok(response);
        }
    };
    let status = response.head.status;
    if matches!(status.as_u16(), 500 | 502 | 503 | 504)
        && let Some(instead) = stands_in(Some(status))
    {
        if let Some(ticket) = ticket {
            ticket.pass(None);
        }
        trip.cached(Cached::Stale);
        return Ok(instead);
    }

    let of = Seen { request: &seen, consumer: own.is_some(), asked, told, wall };
    let kept_under = |plan: &Plan| if plan.everyones { &key } else { own.as_ref().unwrap_or(&key) };
    if status == StatusCode::NOT_MODIFIED
        && let Some(old) = asks_about
    {
        let head = old.freshened(&response.head.headers);
        let entry = match cache::plan(&cache.rules, &of, &head) {
            Ok(plan) => {
                let key = kept_under(&plan);
                let entry = Entry::new(key, route.api.name.clone(), &head, Bytes::new(), plan, (told, wall));
                let entry = entry.with_body_of(old);
                match ticket {
                    Some(ticket) => ticket.renew(old, entry),
                    None => Arc::new(entry),
                }
            }
            // It holds once more, for this call.
            Err(_) => {
                way.worker.store.forget(&key);
                old.clone()
            }
        };
        trip.cached(Cached::Revalidated);
        return Ok(respond(&entry, held.as_ref(), &seen, noted, told, Status::revalidated(why)));
    }

    let plan = match cache::plan(&cache.rules, &of, &response.head) {
        Ok(_) if response.tunnel.is_some() || response.head.headers.contains("trailer") => Err(Why::Stream),
        Ok(_) if response.body.length().is_some_and(|length| length > cache.rules.entry as u64) => Err(Why::TooLarge),
        plan => plan,
    };
    let mut noting = Status::answered(why, status);
    let (plan, ticket) = match (plan, ticket) {
        (Ok(plan), Some(ticket)) => (plan, ticket),
        (plan, ticket) => {
            if plan.is_err() && stale.is_some() && !status.is_server_error() {
                // There is a newer one, which is not to be kept; the old one must not come back.
                way.worker.store.forget(&key);
            }
            if let Some(ticket) = ticket {
                let again = !status.is_server_error() && status != StatusCode::NOT_MODIFIED;
                ticket.pass(again.then_some(told));
            }
            response.head.headers.remove("surrogate-control");
            if response.tunnel.is_none() {
                noting.write(&mut response.head.headers);
            }
            return Ok(response);
        }
    };
    noting.stored = true;
    let key = kept_under(&plan);
    let head = Entry::new(key, route.api.name.clone(), &response.head, Bytes::new(), plan, (told, wall));
    response.head.headers.remove("surrogate-control");
    noting.write(&mut response.head.headers);
    response.body = keep(ticket, head, response.body, cache.rules.entry, &way).await;
    Ok(response)
}

/// The body on its way to the client and into memory: at once if it is all there, in a task of its own else, so that it
/// is read at its own pace by all who want it, whoever of them is slow or leaves.
async fn keep(mut ticket: Ticket, head: Entry, mut body: Body, most: usize, way: &Way<'_>) -> Body {
    let (length, mut pieces, mut size) = (body.length(), Vec::new(), 0);
    loop {
        let ready = std::future::poll_fn(|cx| Poll::Ready(body.poll_frame(cx))).await;
        match ready {
            Poll::Ready(Some(Ok(Frame::Data(data)))) if size + data.len() <= most => {
                size += data.len();
                pieces.push(data);
            }
            // Without its trailers, of which the head said nothing.
            Poll::Ready(None | Some(Ok(Frame::Trailers(_)))) => {
                let whole: Bytes = pieces.concat().into();
                let entry = ticket.land(head.with_body(whole));
                return Body::from(entry.body.clone());
            }
            Poll::Ready(Some(other)) => {
                ticket.pass(other.is_ok().then(Time::now));
                return Resumed::body(pieces, Some(other), body);
            }
            Poll::Pending => break,
        }
    }
    let held = length.map_or(most, |length| usize::try_from(length).unwrap_or(most));
    if !way.worker.outside.has_room() || !ticket.reserve(held) {
        ticket.pass(None);
        return Resumed::body(pieces, None, body);
    }
    let reader = ticket.stream(Arc::new(head), length);
    for piece in pieces {
        ticket.push(piece, most);
    }
    way.worker.outside.aside(pump(ticket, body, most, length.is_some(), way.forward.timeouts.clone()));
    Body::source(Along(reader))
}

/// Reads a body for all who want it. One whose end is known is read to its end though nobody is left: it is kept.
async fn pump(ticket: Ticket, mut body: Body, most: usize, ends: bool, timeouts: Timeouts) {
    let deadline = tokio::time::Instant::now() + timeouts.call.unwrap_or(Duration::from_secs(24 * 3600));
    loop {
        if !std::future::poll_fn(|cx| ticket.poll_room(cx)).await || (!ends && !ticket.is_read()) {
            return;
        }
        let idle = timeouts.idle.map_or(deadline, |idle| deadline.min(tokio::time::Instant::now() + idle));
        match tokio::time::timeout_at(idle, body.frame()).await {
            Ok(Some(Ok(Frame::Data(data)))) => ticket.push(data, most),
            Ok(None | Some(Ok(Frame::Trailers(_)))) => {
                ticket.finish();
                return;
            }
            // Dropped, the ticket tells all who read along.
            Ok(Some(Err(_))) | Err(_) => return,
        }
    }
}

/// Asks the upstream while the stale answer is on its way to the client. Nobody waits for it.
fn revalidate(wanted: Wanted, way: &Way<'_>, route: &Route, call: &Call) {
    let flight = wanted.own.as_ref().unwrap_or(&wanted.key);
    let Boarded::Lead(ticket) = way.worker.store.board(flight, false, call.now) else { return };
    let (worker, local, listener) = (way.worker.clone(), way.local.clone(), way.listener.clone());
    let Some(route) = way.local.generation.snapshot.routes.get(route.index as usize).cloned() else { return };
    let found = way.found.clone();
    let mut call = {
        let mut again = Call::new(call.head.clone(), call.client.clone(), call.now, call.wall);
        again.consumer.clone_from(&call.consumer);
        again.place.clone_from(&call.place);
        again.head.method = Method::GET;
        again
    };
    let outside = &way.worker.outside;
    outside.aside(async move {
        let (Action::Forward(forward), Some(cache)) = (&route.action, &route.policies.cache) else { return };
        let way = Way { worker: &worker, local: &local, listener: &listener, forward, found: &found, upgrade: None };
        // Between the look and the ticket another core may have landed what this one would fetch, or be about to: then the
        // next call will tell.
        let is_stale = |key: &Key, openly| {
            let fresh = worker.store.is_fresh(key, &call.head.headers, openly, &wanted.asks, call.now);
            fresh == Some(false)
        };
        let openly = wanted.own.is_some() || wanted.noted.authorization;
        if !is_stale(&wanted.key, openly) || !wanted.own.as_ref().is_none_or(|own| is_stale(own, false)) {
            return;
        }
        let mut trip = Trip::unseen(&worker);
        let (cache, mut body) = (cache.clone(), Body::Empty);
        let leading = lead(Some(ticket), wanted, &cache, &route, way, &mut call, &mut body, &mut trip);
        let answered = Box::pin(leading).await;
        let outcome = match (&answered, trip.cached) {
            (Ok(_), Some(Cached::Revalidated)) => Revalidated::Unchanged,
            (Ok(response), None) if !response.head.status.is_server_error() => Revalidated::Replaced,
            (Ok(_) | Err(_), _) => Revalidated::Failed,
        };
        worker.store.count(outcome);
        if let Ok(mut response) = answered
            && trip.cached.is_none()
        {
            while let Some(Ok(_)) = response.body.frame().await {}
        }
    });
}

/// What is stored, as the answer to this request.
fn respond(
    entry: &Arc<Entry>,
    held: Option<&Held>,
    request: &RequestHead,
    noted: Noted,
    now: Time,
    status: Status,
) -> Response {
    let mut reply = reply(entry, now, status);
    let answer = if noted.conditional || noted.range { cache::answer(entry, request) } else { Answer::Whole };
    let body = match answer {
        Answer::Whole if request.method == Method::HEAD => {
            reply.headers.append("content-length", entry.length().to_string());
            Body::Empty
        }
        Answer::Whole => held.map_or_else(|| Body::from(entry.body.clone()), |held| held.body(0..entry.length())),
        Answer::Part(range) => {
            reply.status = StatusCode::PARTIAL_CONTENT;
            let (first, last, length) = (range.start, range.end - 1, entry.length());
            reply.headers.set("content-range", format!("bytes {first}-{last}/{length}"));
            held.map_or_else(|| Body::from(entry.body.slice(range.clone())), |held| held.body(range.clone()))
        }
        Answer::NotModified => {
            reply.status = StatusCode::NOT_MODIFIED;
            reply.headers.retain(|name, _| !name.starts_with("content-") || name == "content-location");
            Body::Empty
        }
        Answer::Unsatisfiable => {
            reply.status = StatusCode::RANGE_NOT_SATISFIABLE;
            reply.headers.retain(|name, _| !matches!(name, "content-type" | "content-encoding" | "etag"));
            reply.headers.set("content-range", format!("bytes */{}", entry.length()));
            Body::Empty
        }
    };
    Response::new(reply, body)
}

fn reply(entry: &Entry, now: Time, status: Status) -> ResponseHead {
    const ROOM: usize = 96;
    let mut headers = entry.headers.with_room(ROOM);
    headers.append("age", itoa::Buffer::new().format(entry.age(now).as_secs()));
    status.write(&mut headers);
    ResponseHead { status: entry.status, headers }
}

/// The request that would ask for what a field names, if it is on the same host.
fn same_origin(of: &RequestHead, location: &str) -> Option<RequestHead> {
    let mut named = of.clone();
    named.headers = Headers::new();
    let location = location.split('#').next().unwrap_or_default();
    if let Some((scheme, rest)) = location.split_once("://").filter(|(scheme, _)| !scheme.contains(['/', '?'])) {
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        named.authority = rest[..at].to_owned();
        named.target = if rest[at..].starts_with('/') { rest[at..].to_owned() } else { format!("/{}", &rest[at..]) };
        let plain = cache::Query::default();
        let origin = |head: &RequestHead| {
            let root = RequestHead { target: "/".into(), headers: Headers::new(), ..head.clone() };
            Key::new(&[0; 16], None, &root, &plain).url().to_vec()
        };
        return (scheme.eq_ignore_ascii_case(of.scheme.as_str()) && origin(&named) == origin(of)).then_some(named);
    }
    named.target = match location {
        "" => return None,
        elsewhere if elsewhere.starts_with("//") => return None,
        path if path.starts_with('/') => path.to_owned(),
        query if query.starts_with('?') => format!("{}{query}", of.path()),
        relative => {
            let folder = of.path().rfind('/').map_or("/", |at| &of.path()[..=at]);
            format!("{folder}{}", relative.strip_prefix("./").unwrap_or(relative))
        }
    };
    Some(named)
}

// === impl Wanted ===

impl Wanted {
    /// Whether the disk may have an answer, as it was looked for in memory.
    fn look_on_disk(&mut self, tier: &cache::disk::Tier, head: &RequestHead, openly: bool) {
        let mut found = tier.find(&self.key, &head.headers, openly);
        let mut own = false;
        if let (OnDisk::Others | OnDisk::Nothing, Some(key)) = (found, &self.own) {
            match tier.find(key, &head.headers, false) {
                OnDisk::Nothing => {}
                other => (found, own) = (other, true),
            }
        }
        match found {
            OnDisk::At(slot) => self.recall = Some(Recall::Answer(slot, own)),
            OnDisk::Others => self.why = Forwarded::VaryMiss,
            OnDisk::Nothing => {}
        }
    }
}

// === impl Noted ===

impl Noted {
    fn of(headers: &Headers) -> Noted {
        let mut noted = Noted::default();
        for (name, _) in headers.iter_bytes() {
            match name.len() {
                5 if name == b"range" => noted.range = true,
                8 if name == b"if-match" => noted.precondition = true,
                13 if name == b"cache-control" => noted.asks = true,
                13 if name == b"if-none-match" => noted.conditional = true,
                13 if name == b"authorization" => noted.authorization = true,
                17 if name == b"if-modified-since" => noted.conditional = true,
                19 if name == b"if-unmodified-since" => noted.precondition = true,
                _ => {}
            }
        }
        noted
    }
}

#[cfg(test)]
mod tests {
    use base::{Scheme, Version};

    use super::*;

    #[test]
    fn what_else_has_changed_is_found_on_the_same_host_alone() {
        let head = RequestHead {
            method: Method::POST,
            scheme: Scheme::Http,
            authority: "h".into(),
            target: "/a/b?c".into(),
            version: Version::HTTP_11,
            headers: Headers::new(),
        };
        for (location, expected) in [
            ("/x?y", Some("/x?y")),
            ("/x#y", Some("/x")),
            ("x", Some("/a/x")),
            ("./x", Some("/a/x")),
            ("?x", Some("/a/b?x")),
            ("http://h/x", Some("/x")),
            ("http://H:80", Some("/")),
            ("http://h?x", Some("/?x")),
            ("https://h/x", None),
            ("http://other/x", None),
            ("http://h:81/x", None),
            ("//other/x", None),
            ("", None),
        ] {
            let found = same_origin(&head, location).map(|head| head.target);
            assert_eq!(found.as_deref(), expected, "{location}");
        }
    }
}
