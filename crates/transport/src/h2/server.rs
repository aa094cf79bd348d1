//! The side of the listener: one connection, its streams, a task for each.

use std::any::Any;
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use awareness::Arrival;
use base::{Peer, ResponseHead, StatusCode, Time};
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::Method;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::answering::{Answering, Place};
use super::convert::{request_in, response_out};
use super::cork::{Cork, Corked, corked};
use super::keepalive::{Keepalive, Verdict, Watch};
use super::sieve::Sieve;
use super::stream::{Bytestream, Incoming, Outgoing, Unsent};
use crate::body::Body;
use crate::message::{Handler, Io, Request, Response};
use crate::pace::Pace;

/// How many streams of a client may fail by its own fault, or be reset before they are looked at,
/// before the connection goes: what stands against rapid resets (CVE-2023-44487).
const FAULTS: usize = 200;
const PENDING_RESETS: usize = 20;
/// What waits to be written of each stream, should the client take windows and read nothing.
const SEND_BUFFER: usize = 64 << 10;
/// How long a client has to acknowledge the end of an idle connection.
const FAREWELL: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub struct Settings {
    pub max_streams: u32,
    /// Bytes of a head as HTTP/2 counts them, with 32 for each field; more is answered with 431.
    pub head_bytes: u32,
    pub head_fields: usize,
    /// How slow the client may be: with the request until the answer begins, with room for the answer after that.
    pub pace: Pace,
    /// Streams that one connection may bring.
    pub requests: u32,
    /// How long a connection may be without a stream.
    pub idle_timeout: Duration,
    /// Whether one that says nothing is asked if it is there.
    pub keepalive: Option<Keepalive>,
    pub connection_window: u32,
    pub stream_window: u32,
    /// What bookkeeping small, unread DATA frames may cost on a connection, at 256 bytes each less their length.
    pub data_frame_budget: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            max_streams: 250,
            head_bytes: 64 << 10,
            head_fields: 100,
            pace: Pace::new(Duration::from_secs(60), 0),
            requests: u32::MAX,
            idle_timeout: Duration::from_secs(120),
            keepalive: None,
            connection_window: 4 << 20,
            stream_window: 1 << 20,
            data_frame_budget: 4 << 20,
        }
    }
}

struct Shared<H> {
    handler: H,
    peer: Arc<Peer>,
    head_fields: usize,
    pace: Pace,
}

/// Serves a connection until it ends. Of `arrival`, only when the connection came is looked at.
pub async fn serve<I: Io + 'static, H: Handler>(
    io: I,
    peer: Arc<Peer>,
    arrival: Arrival,
    handler: H,
    settings: &Settings,
    drain: impl Future<Output = ()>,
) {
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(settings.max_streams)
        .max_header_list_size(settings.head_bytes)
        .initial_connection_window_size(settings.connection_window)
        .initial_window_size(settings.stream_window)
        .data_frame_budget(settings.data_frame_budget)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(Some(FAULTS))
        .max_send_buffer_size(SEND_BUFFER)
        .enable_connect_protocol();
    let (corked, cork) = corked(io, Sieve::of_client());
    let handshake =
        tokio::time::timeout(settings.idle_timeout, cork.drive(builder.handshake::<_, Bytes>(corked))).await;
    let Ok(Ok(connection)) = handshake else { return };

    cork.drive(streams(connection, &cork, peer, arrival, handler, settings, drain)).await;
}

/// Takes streams and ends them, until the connection ends.
async fn streams<I: Io + 'static, H: Handler>(
    mut connection: h2::server::Connection<Corked<I>, Bytes>,
    cork: &Cork<I>,
    peer: Arc<Peer>,
    arrival: Arrival,
    handler: H,
    settings: &Settings,
    drain: impl Future<Output = ()>,
) {
    let shared = Rc::new(Shared { handler, peer, head_fields: settings.head_fields, pace: settings.pace });
    // Dropped with the connection, it ends every handler that still runs.
    let answering = Answering::default();
    let mut drain = pin!(drain);
    let mut idle = pin!(tokio::time::sleep(settings.idle_timeout));
    let ping = settings.keepalive.and_then(|keepalive| Some((keepalive, connection.ping_pong()?)));
    let mut watch = ping.map(|(keepalive, ping)| Watch::new(keepalive, ping));
    let mut draining = false;
    let mut requests = 0;
    loop {
        tokio::select! {
            biased;
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    let now = Time::now();
                    let arrival = Arrival { first: requests == 0, head_began: now, head_read: now, ..arrival };
                    requests += 1;
                    if requests >= settings.requests && !draining {
                        draining = true;
                        connection.graceful_shutdown();
                    }
                    answering.begin(|place| exchange(shared.clone(), place, request, respond, arrival));
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "http/2 connection failed");
                    return;
                }
                None => return,
            },
            () = answering.emptied() => {
                if answering.is_empty() {
                    let limit = if draining { FAREWELL } else { settings.idle_timeout };
                    idle.as_mut().reset(Instant::now() + limit);
                }
            }
            () = &mut drain, if !draining => {
                draining = true;
                connection.graceful_shutdown();
                idle.as_mut().reset(Instant::now() + FAREWELL);
            }
            verdict = watched(&mut watch, cork), if watch.is_some() => {
                if verdict == Verdict::Gone {
                    tracing::debug!("a client says nothing any more and is given up");
                    return;
                }
            }
            () = &mut idle, if answering.is_empty() => {
                if draining {
                    return;
                }
                draining = true;
                connection.graceful_shutdown();
                idle.as_mut().reset(Instant::now() + FAREWELL);
            }
        }
    }
}

/// What there is to say of a client that is watched.
async fn watched<I: Io>(watch: &mut Option<Watch>, cork: &Cork<I>) -> Verdict {
    match watch {
        Some(watch) => watch.verdict(|| cork.heard()).await,
        None => std::future::pending().await,
    }
}

/// One stream, from its head to its end. Whatever goes wrong here ends this stream only.
async fn exchange<H: Handler>(
    shared: Rc<Shared<H>>,
    _place: Place,
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    arrival: Arrival,
) {
    let (parts, recv) = request.into_parts();
    let method = parts.method.clone();
    let (head, upgrade) = match request_in(parts, shared.peer.tls.is_some(), shared.head_fields) {
        Ok(head) => head,
        Err((status, why)) => {
            let response = shared.handler.refuse(status, why, &shared.peer, arrival);
            return answer(&shared, response, &method, None, respond).await;
        }
    };
    let answered = Rc::new(Cell::new(false));
    let mut tunnel = None;
    let body = if upgrade.is_some() {
        tunnel = Some(recv);
        Body::Empty
    } else if recv.is_end_stream() {
        Body::Empty
    } else {
        let length = head.headers.get_str("content-length").and_then(|length| length.parse().ok());
        Body::source(Incoming::new(recv, length).with_pace(shared.pace, answered.clone()))
    };
    let request = Request { head, body, peer: shared.peer.clone(), arrival, upgrade };
    let response = {
        let mut handle = pin!(shared.handler.handle(request));
        let mut begun = false;
        poll_fn(|cx| {
            // If the client no longer wants it, the future is dropped with this block, and all it does with it. That is
            // asked before anything is done, as many may be taken back at once, and then only when there is to be waited.
            let before = !std::mem::replace(&mut begun, true);
            if before && respond.poll_reset(cx).is_ready() {
                return Poll::Ready(None);
            }
            match caught(handle.as_mut(), cx) {
                Poll::Pending if !before && respond.poll_reset(cx).is_ready() => Poll::Ready(None),
                answered => answered.map(Some),
            }
        })
        .await
    };
    let response = match response {
        Some(Ok(response)) => response,
        Some(Err(_)) => {
            tracing::error!("a handler panicked");
            Response::new(ResponseHead::new(StatusCode::INTERNAL_SERVER_ERROR), Body::Empty)
        }
        None => return,
    };
    answered.set(true);
    answer(&shared, response, &method, tunnel, respond).await;
}

/// Sends an answer. What is left of the request is refused by `h2` when its last handle goes: with NO_ERROR
/// behind a whole answer (RFC 9113, 8.1), with CANCEL else.
async fn answer<H>(
    shared: &Shared<H>,
    mut response: Response,
    method: &Method,
    tunnel: Option<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let through = tunnel.zip(response.tunnel.take());
    let status = &mut response.head.status;
    if through.is_some() {
        *status = StatusCode::OK;
        // They answer fields that an extended CONNECT does not have (RFC 8441, 5).
        response.head.headers.remove("sec-websocket-accept");
        response.head.headers.remove("content-length");
    } else if status.is_informational() {
        *status = StatusCode::BAD_GATEWAY;
        response.body = Body::Empty;
    }
    let status = *status;
    if status == StatusCode::NO_CONTENT {
        response.head.headers.remove("content-length");
    }
    let bodiless = *method == Method::HEAD
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
        || response.body.is_empty();
    let head = match response_out(&response.head) {
        Ok(head) => head,
        Err(why) => {
            tracing::warn!(why, "an answer cannot be sent");
            return respond.send_reset(Reason::INTERNAL_ERROR);
        }
    };
    let end = through.is_none() && bodiless;
    let Ok(send) = respond.send_response(head, end) else { return };
    if let Some((recv, mut upstream)) = through {
        let mut client = Bytestream::new(recv, send);
        if client.write_all(&upstream.read).await.is_ok() {
            let copied = tokio::io::copy_bidirectional(&mut client, &mut upstream.io).await;
            tracing::trace!(?copied, "a tunnel ended");
        }
        return;
    }
    if end {
        return;
    }
    let mut outgoing = Outgoing::new(response.body, send, Reason::INTERNAL_ERROR, Some(shared.pace));
    let mut sending = poll_fn(|cx| outgoing.poll(cx));
    match poll_fn(|cx| caught(Pin::new(&mut sending), cx)).await {
        Ok(Ok(()) | Err(Unsent::Gone)) => {}
        Ok(Err(Unsent::Body(error))) => tracing::debug!(%error, "the body of an answer failed"),
        Ok(Err(Unsent::Stalled)) => tracing::debug!("a client does not read its answer"),
        Err(_) => {
            tracing::error!("the body of an answer panicked");
            outgoing.reset(Reason::INTERNAL_ERROR);
        }
    }
}

/// Polls a future; a panic in it becomes an error here, and what was half done then is not looked at again.
fn caught<F: Future>(future: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<Result<F::Output, Box<dyn Any + Send>>> {
    match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
    }
}
