//! One client connection: request after request, answered in order, in one task.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Duration;

use awareness::Arrival;
use base::{Method, Peer, ResponseHead, Scheme, StatusCode, Time, Version};
use bytes::BytesMut;
use tokio::io::AsyncWriteExt;

use super::buffer::{self, Outgoing, Turn};
use super::framing::{Decoded, Decoder, Framing};
use super::head::{self, HeadError, HeadLimits, ParsedRequest, Persistence};
use crate::alarm::Alarm;
use crate::body::{Body, BodyError, Frame, Piece, Sink, Source};
use crate::boxed::boxed;
use crate::drain::{Drain, Watch};
use crate::message::{Handler, Io, Request, Response, Tunnel};
use crate::pace::{Pace, Waiting};

/// How a connection is treated.
#[derive(Clone, Debug)]
pub struct Settings {
    pub limits: HeadLimits,
    pub head_timeout: Duration,
    pub idle_timeout: Duration,
    /// How slowly a client may send a body, and read an answer.
    pub pace: Pace,
    /// Requests that one connection may bring.
    pub requests: u32,
}

impl HeadLimits {
    pub fn new(bytes: usize, fields: usize) -> HeadLimits {
        HeadLimits { bytes, fields }
    }
}

/// How a connection left its task.
pub enum Outcome<I> {
    Closed,
    /// Between two requests another core was found to be less busy.
    HandOver(I, BytesMut),
    /// The bytes are those of HTTP/2 (RFC 9113, 3.3): not for this file.
    Http2(I, BytesMut),
}

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection as it comes to be served.
pub struct Accepted<I> {
    pub io: I,
    /// Bytes that were read before.
    pub read: BytesMut,
    pub peer: Arc<Peer>,
    pub arrival: Arrival,
}

/// Serves a connection until it ends, is handed over, or turns out to be HTTP/2.
///
/// `moves` is asked between requests whether another core should go on.
pub async fn serve<I: Io + 'static, H: Handler>(
    accepted: Accepted<I>,
    handler: &H,
    settings: &Settings,
    drain: &Drain,
    moves: impl Fn() -> bool,
) -> Outcome<I> {
    let Accepted { io, read, peer, mut arrival } = accepted;
    let scheme = if peer.tls.is_some() { Scheme::Https } else { Scheme::Http };
    let wire = Rc::new(RefCell::new(Wire {
        io,
        read,
        decoder: Decoder::Done,
        owes_continue: false,
        out: Outgoing::default(),
        pace: settings.pace,
        answered: false,
        waiting: None,
    }));
    let mut alarm = Alarm::new(Time::last() + settings.idle_timeout);
    let mut orders = drain.watch();
    let mut requests = 0;
    loop {
        let mut request = {
            let waiting = wait_for_head(&wire, scheme, settings, &mut orders, &mut arrival, &mut alarm);
            match waiting.await {
                Ok(Waited::Head(request)) => request,
                Ok(Waited::Closed) => return Outcome::Closed,
                Ok(Waited::Http2) => return take_wire(wire, Outcome::Http2),
                Err(error) => {
                    refuse(&wire, handler, &peer, arrival, error, settings).await;
                    return Outcome::Closed;
                }
            }
        };
        requests += 1;
        request.keep_alive &= requests < settings.requests;
        match exchange(&wire, request, &peer, arrival, handler, settings, drain).await {
            Next::KeepAlive => {}
            Next::Close => {
                linger(&wire, settings).await;
                return Outcome::Closed;
            }
            Next::Abort => return Outcome::Closed,
        }
        arrival.first = false;
        if moves() && wire.borrow().read.is_empty() && Rc::strong_count(&wire) == 1 {
            return take_wire(wire, Outcome::HandOver);
        }
    }
}

/// The connection, shared between the task that writes answers and the body that is read on demand.
struct Wire<I> {
    io: I,
    read: BytesMut,
    decoder: Decoder,
    /// The client waits for `100 Continue` before it sends the body.
    owes_continue: bool,
    out: Outgoing,
    pace: Pace,
    /// The answer has begun: from then on the rest of the body may come as slowly as it likes, if only it comes.
    answered: bool,
    /// Only of those that were waited for.
    waiting: Option<Box<Waiting>>,
}

enum Waited {
    Head(Box<ParsedRequest>),
    Closed,
    Http2,
}

#[derive(PartialEq)]
enum Client {
    Gone,
    /// Whatever it does next wakes who asked.
    Quiet,
    /// To be asked again.
    Unheard,
}

enum Next {
    KeepAlive,
    Close,
    Abort,
}

fn take_wire<I>(wire: Rc<RefCell<Wire<I>>>, outcome: impl FnOnce(I, BytesMut) -> Outcome<I>) -> Outcome<I> {
    match Rc::try_unwrap(wire) {
        Ok(wire) => {
            let Wire { io, read, .. } = wire.into_inner();
            outcome(io, read)
        }
        Err(_) => Outcome::Closed,
    }
}

/// The whole of a head, or the reason that there is none. An idle connection stays here.
async fn wait_for_head<I: Io>(
    wire: &Rc<RefCell<Wire<I>>>,
    scheme: Scheme,
    settings: &Settings,
    orders: &mut Watch,
    arrival: &mut Arrival,
    alarm: &mut Alarm,
) -> Result<Waited, HeadFailure> {
    let mut began = false;
    // What has begun has the time of a head, and what could become the preface of HTTP/2 too.
    let mut until = Time::last() + settings.idle_timeout;
    let (mut partial, mut waited) = (false, false);
    let fresh = arrival.first;
    poll_fn(|cx| {
        let wire = &mut *wire.borrow_mut();
        loop {
            if !wire.read.is_empty() {
                if !began {
                    began = true;
                    arrival.head_began = Time::now();
                }
                if fresh && is_preface(&wire.read) {
                    if wire.read.len() >= HTTP2_PREFACE.len() {
                        return Poll::Ready(Ok(Waited::Http2));
                    }
                } else {
                    match head::parse_request(&mut wire.read, scheme, settings.limits) {
                        Ok(Some(request)) => {
                            arrival.head_read = if partial { Time::now() } else { arrival.head_began };
                            if wire.read.is_empty() {
                                wire.read = BytesMut::new();
                            }
                            return Poll::Ready(Ok(Waited::Head(request)));
                        }
                        Ok(None) => {}
                        Err(error) => return Poll::Ready(Err(HeadFailure::Head(error))),
                    }
                }
                if !partial {
                    partial = true;
                    until = arrival.head_began + settings.head_timeout;
                }
                match buffer::poll_read(&mut wire.io, cx, &mut wire.read) {
                    Poll::Ready(Ok(0)) | Poll::Ready(Err(_)) => return Poll::Ready(Ok(Waited::Closed)),
                    Poll::Ready(Ok(_)) => continue,
                    Poll::Pending => {}
                }
            } else {
                // Most heads come whole, and are read from where they came in.
                let taken = buffer::poll_take(&mut wire.io, cx, &mut wire.read, |bytes| {
                    match head::read_request(bytes, scheme, settings.limits) {
                        Ok(Some((request, length))) if !(fresh && is_preface(bytes)) => (Some(request), length),
                        _ => (None, 0),
                    }
                });
                match taken {
                    Poll::Ready(Ok(Some(Some(request)))) => {
                        arrival.head_began = Time::now();
                        arrival.head_read = arrival.head_began;
                        return Poll::Ready(Ok(Waited::Head(request)));
                    }
                    Poll::Ready(Ok(Some(None))) => continue,
                    Poll::Ready(Ok(None)) | Poll::Ready(Err(_)) => return Poll::Ready(Ok(Waited::Closed)),
                    Poll::Pending => {}
                }
            }
            if alarm.poll(until, cx).is_ready() {
                // Whoever answered did not look at the clock for long: the wait has only begun.
                if !began && !std::mem::replace(&mut waited, true) {
                    until = Time::now() + settings.idle_timeout;
                    continue;
                }
                return Poll::Ready(if began { Err(HeadFailure::Slow) } else { Ok(Waited::Closed) });
            }
            if !began && orders.is_closing(cx) {
                return Poll::Ready(Ok(Waited::Closed));
            }
            waited = true;
            return Poll::Pending;
        }
    })
    .await
}

/// True if the bytes are, or could become, the beginning of a connection of HTTP/2.
fn is_preface(bytes: &[u8]) -> bool {
    HTTP2_PREFACE.starts_with(&bytes[..bytes.len().min(HTTP2_PREFACE.len())])
}

enum HeadFailure {
    Head(HeadError),
    Slow,
}

/// Answers a request that could not be read; the connection ends with it.
async fn refuse<I: Io + 'static, H: Handler>(
    wire: &Rc<RefCell<Wire<I>>>,
    handler: &H,
    peer: &Arc<Peer>,
    arrival: Arrival,
    failure: HeadFailure,
    settings: &Settings,
) {
    let (status, why) = match failure {
        HeadFailure::Slow => (StatusCode::REQUEST_TIMEOUT, "the head took too long"),
        HeadFailure::Head(HeadError::TooLarge) => {
            (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the head is too large")
        }
        HeadFailure::Head(HeadError::TooManyFields) => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too many fields"),
        HeadFailure::Head(HeadError::TargetTooLong) => (StatusCode::URI_TOO_LONG, "the target is too long"),
        HeadFailure::Head(HeadError::Version) => (StatusCode::HTTP_VERSION_NOT_SUPPORTED, "not a version of HTTP/1"),
        HeadFailure::Head(HeadError::TransferCoding) => (StatusCode::NOT_IMPLEMENTED, "an unknown transfer coding"),
        HeadFailure::Head(HeadError::Malformed(why)) => (StatusCode::BAD_REQUEST, why),
    };
    let response = handler.refuse(status, why, peer, arrival);
    // Nothing more is read as requests: what follows a head that is wrong has no meaning.
    wire.borrow_mut().decoder = Decoder::UntilClose;
    let _ = write_response(wire, response, &Method::GET, Version::HTTP_11, Persistence::Close, true, settings).await;
    linger(wire, settings).await;
}

async fn exchange<I: Io + 'static, H: Handler>(
    wire: &Rc<RefCell<Wire<I>>>,
    request: Box<ParsedRequest>,
    peer: &Arc<Peer>,
    arrival: Arrival,
    handler: &H,
    settings: &Settings,
    drain: &Drain,
) -> Next {
    let ParsedRequest { head, body: decoder, keep_alive, expects_continue, upgrade } = *request;
    let method = head.method.clone();
    let version = head.version;
    let wants_trailers = head.headers.has_token("te", "trailers");
    let body = if decoder.is_done() {
        Body::Empty
    } else {
        let mut shared = wire.borrow_mut();
        shared.decoder = decoder;
        shared.owes_continue = expects_continue;
        (shared.answered, shared.waiting) = (false, None);
        drop(shared);
        Body::source(Incoming(wire.clone()))
    };
    let request = Request { head, body, peer: peer.clone(), arrival, upgrade };

    let response = {
        // Apart, so that a connection between two calls, as most are, does not hold the room that a call needs.
        let mut answering = boxed(|| handler.handle(request));
        poll_fn(|cx| {
            if let Poll::Ready(response) = answering.as_mut().poll(cx) {
                return Poll::Ready(Some(response));
            }
            if wire.borrow_mut().is_deserted(cx) { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    };
    // The client is gone: what was under way was dropped, and with it cancelled upstream.
    let Some(mut response) = response else { return Next::Abort };
    wire.borrow_mut().answered = true;

    if let Some(tunnel) = response.tunnel.take() {
        return tunnel_through(wire, response.head, tunnel).await;
    }
    let unread = !wire.borrow().decoder.is_done();
    let persistence = match () {
        // A body that nobody wanted, and that the client may never send, cannot be skipped.
        () if !keep_alive || drain.is_draining() => Persistence::Close,
        () if unread && wire.borrow().owes_continue => Persistence::Close,
        // Nor can one whose framing is broken.
        () if matches!(wire.borrow().decoder, Decoder::UntilClose) => Persistence::Close,
        () if version == Version::HTTP_10 => Persistence::KeepAlive,
        () => Persistence::Default,
    };
    match write_response(wire, response, &method, version, persistence, wants_trailers, settings).await {
        Ok(Persistence::Close) => Next::Close,
        Ok(_) if skip_rest(wire, settings).await => Next::KeepAlive,
        Ok(_) => Next::Close,
        Err(_) => Next::Abort,
    }
}

/// Writes an answer while its body is pulled; gives the persistence that came out of it.
async fn write_response<I: Io>(
    wire: &Rc<RefCell<Wire<I>>>,
    response: Response,
    method: &Method,
    version: Version,
    persistence: Persistence,
    wants_trailers: bool,
    settings: &Settings,
) -> Result<Persistence, BodyError> {
    let Response { mut head, mut body, .. } = response;
    let bodiless = *method == Method::HEAD || matches!(head.status.as_u16(), 204 | 304);
    let (framing, persistence) = match body.length() {
        // What it would be is said by the upstream's own Content-Length (RFC 9110, 8.6).
        _ if bodiless => (Framing::None, persistence),
        Some(length) => (Framing::Length(length), persistence),
        None if version == Version::HTTP_11 => (Framing::Chunked, persistence),
        None => (Framing::UntilClose, Persistence::Close),
    };
    let is_said = match framing {
        Framing::Length(length) => head::says_length(&head.headers, length),
        _ => bodiless && head.status != StatusCode::NO_CONTENT,
    };
    if !is_said {
        head.headers.remove("content-length");
    }
    if bodiless {
        body = Body::Empty;
    }
    let mut promised = if let Framing::Length(length) = framing { Some(length) } else { None };
    let mut out = Outgoing::default();
    let room = 128 + head.headers.bytes() + head.headers.len() * 4;
    // Of a large body nothing is gathered: its pieces are written from where they lie.
    out.reserve(room + promised.filter(|length| *length <= 8192).unwrap_or(0) as usize);
    head::write_response(&mut out.head, &head, framing, is_said, persistence);
    drop(head);
    let mut taken = false;
    // What came before an answer broke off belongs to the caller, its head above all.
    let mut broke = None;
    let mut turn = Turn::default();
    let mut pace = Waiting::default();
    let mut client = Listening::default();
    let written: Result<(), BodyError> = poll_fn(|cx| {
        loop {
            // All that is ready goes out in one write; nothing that is ready waits for what is not.
            let mut waiting = false;
            out.reserve(0);
            while !taken && out.has_room() {
                let passed = match body.poll_into(cx, &mut Sink::new(&mut out.head, framing)) {
                    Poll::Ready(Some(Ok(Piece::Put(bytes)))) => bytes,
                    Poll::Ready(Some(Ok(Piece::Frame(Frame::Data(data))))) => {
                        let bytes = data.len();
                        out.body(framing, data);
                        bytes
                    }
                    Poll::Ready(Some(Ok(Piece::Frame(Frame::Trailers(trailers))))) => {
                        let trailers = wants_trailers.then_some(trailers);
                        framing.finish(&mut out.head, trailers.as_deref());
                        taken = true;
                        0
                    }
                    Poll::Ready(None) => {
                        match promised.is_some_and(|left| left > 0) {
                            true => broke = Some(BodyError::Incomplete),
                            false => framing.finish(&mut out.head, None),
                        }
                        taken = true;
                        0
                    }
                    Poll::Ready(Some(Err(error))) => {
                        broke = Some(error);
                        taken = true;
                        0
                    }
                    Poll::Pending => {
                        waiting = true;
                        break;
                    }
                };
                if let Some(left) = &mut promised {
                    let Some(rest) = left.checked_sub(passed as u64) else {
                        return Poll::Ready(Err(BodyError::Malformed("longer than its Content-Length")));
                    };
                    *left = rest;
                }
            }
            let wire = &mut *wire.borrow_mut();
            let bytes = out.len();
            match out.poll_write(&mut wire.io, cx) {
                Poll::Ready(Ok(())) => pace.done(),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(BodyError::Io(error))),
                Poll::Pending => {
                    pace.moved(settings.pace, bytes - out.len());
                    ready!(pace.poll_late(settings.pace, cx));
                    return Poll::Ready(Err(BodyError::Idle));
                }
            }
            if taken {
                return Poll::Ready(broke.take().map_or(Ok(()), Err));
            }
            if waiting {
                out.rest();
                if client.is_gone(wire, cx) {
                    return Poll::Ready(Err(BodyError::Incomplete));
                }
                return Poll::Pending;
            }
            ready!(turn.poll_moved(bytes, cx));
        }
    })
    .await;
    // Of an answer that broke off, only the end of the connection tells in HTTP/1: nothing more is written.
    written.map(|()| persistence)
}

/// Listens for a client that leaves while its answer is written, without asking the socket again for each piece.
#[derive(Default)]
struct Listening {
    ear: Option<(Arc<Ear>, Waker)>,
}

/// What the socket wakes: the task that writes, which hereby knows why.
struct Ear {
    stirred: AtomicBool,
    task: Waker,
}

impl Listening {
    fn is_gone<I: Io>(&mut self, wire: &mut Wire<I>, cx: &mut Context<'_>) -> bool {
        let (ear, waker) = match &mut self.ear {
            Some(it) if it.0.task.will_wake(cx.waker()) => it,
            none => {
                let ear = Arc::new(Ear { stirred: AtomicBool::new(true), task: cx.waker().clone() });
                let waker = Waker::from(ear.clone());
                none.insert((ear, waker))
            }
        };
        if !ear.stirred.swap(false, Ordering::Relaxed) {
            return false;
        }
        let found = wire.poll_client(&mut Context::from_waker(waker));
        ear.stirred.fetch_or(found == Client::Unheard, Ordering::Relaxed);
        found == Client::Gone
    }
}

impl Wake for Ear {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.stirred.store(true, Ordering::Relaxed);
        self.task.wake_by_ref();
    }
}

/// Reads the rest of a request that was answered early, if it is little; true if the connection can go on.
async fn skip_rest<I: Io>(wire: &Rc<RefCell<Wire<I>>>, settings: &Settings) -> bool {
    const MOST: usize = 64 * 1024;
    if wire.borrow().decoder.is_done() {
        return true;
    }
    let mut skipped = 0;
    let mut rest = Incoming(wire.clone());
    let skipping = async {
        while let Some(frame) = poll_fn(|cx| rest.poll_frame(cx)).await {
            match frame {
                Ok(Frame::Data(data)) => skipped += data.len(),
                Ok(Frame::Trailers(_)) => break,
                Err(_) => return false,
            }
            if skipped > MOST {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(settings.pace.patience.min(Duration::from_secs(1)), skipping).await.unwrap_or(false)
}

/// Ends a connection so that the last answer arrives: a close with unread bytes would reset it (RFC 9112, 9.6).
async fn linger<I: Io>(wire: &Rc<RefCell<Wire<I>>>, settings: &Settings) {
    let unread = {
        let wire = wire.borrow();
        !wire.decoder.is_done() || !wire.read.is_empty()
    };
    let _ = poll_fn(|cx| Pin::new(&mut wire.borrow_mut().io).poll_shutdown(cx)).await;
    if !unread {
        return;
    }
    let discarding = poll_fn(|cx| {
        let wire = &mut *wire.borrow_mut();
        loop {
            wire.read.clear();
            match ready!(buffer::poll_read(&mut wire.io, cx, &mut wire.read)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
    });
    let _ = tokio::time::timeout(settings.pace.patience.min(Duration::from_secs(2)), discarding).await;
}

/// Says `101` and then carries bytes both ways until either side has no more.
async fn tunnel_through<I: Io>(wire: &Rc<RefCell<Wire<I>>>, mut head: ResponseHead, tunnel: Box<Tunnel>) -> Next {
    let Tunnel { mut io, read, guard } = *tunnel;
    head.status = StatusCode::SWITCHING_PROTOCOLS;
    let early = {
        let mut wire = wire.borrow_mut();
        head::write_response(&mut wire.out.head, &head, Framing::None, true, Persistence::Upgrade);
        wire.out.head.extend_from_slice(&read);
        std::mem::take(&mut wire.read)
    };
    let opened = poll_fn(|cx| {
        let wire = &mut *wire.borrow_mut();
        wire.out.poll_write(&mut wire.io, cx)
    });
    if opened.await.is_err() || io.write_all(&early).await.is_err() {
        return Next::Abort;
    }
    let mut client = Through(wire.clone());
    let _ = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut io, 16 * 1024, 16 * 1024).await;
    drop(guard);
    Next::Abort
}

// === impl Wire ===

impl<I: Io> Wire<I> {
    /// True if the client closed while it is owed an answer.
    fn is_deserted(&mut self, cx: &mut Context<'_>) -> bool {
        self.poll_client(cx) == Client::Gone
    }

    /// What the client does that is owed an answer. Bytes it sends ahead are kept, up to a bound.
    fn poll_client(&mut self, cx: &mut Context<'_>) -> Client {
        const AHEAD: usize = 64 * 1024;
        // While the body is unread, its end is for the body's reader to find.
        if !self.decoder.is_done() || self.read.len() >= AHEAD {
            return Client::Unheard;
        }
        match buffer::poll_read(&mut self.io, cx, &mut self.read) {
            Poll::Ready(Ok(0) | Err(_)) => Client::Gone,
            Poll::Ready(Ok(_)) => Client::Unheard,
            Poll::Pending => Client::Quiet,
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if std::mem::take(&mut self.owes_continue) && self.read.is_empty() && !self.answered {
            self.out.head.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        if !self.out.is_empty() {
            // `100 Continue`; an answer has its own.
            if let Poll::Ready(Err(error)) = self.out.poll_write(&mut self.io, cx) {
                return Poll::Ready(Some(Err(BodyError::Io(error))));
            }
        }
        loop {
            match self.decoder.decode(&mut self.read) {
                Ok(Decoded::Frame(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(Decoded::End) => return Poll::Ready(None),
                Ok(Decoded::More) => {}
                Err(error) => {
                    // What follows a broken chunk cannot be told from the next request.
                    self.decoder = Decoder::UntilClose;
                    return Poll::Ready(Some(Err(error)));
                }
            }
            match buffer::poll_read(&mut self.io, cx, &mut self.read) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Some(Err(BodyError::Incomplete))),
                Poll::Ready(Ok(bytes)) => {
                    if let Some(waiting) = &mut self.waiting {
                        let pace = if self.answered { Pace { least: 0, ..self.pace } } else { self.pace };
                        waiting.moved(pace, bytes);
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(BodyError::Io(error)))),
                Poll::Pending => {
                    ready!(self.waiting.get_or_insert_default().poll_late(self.pace, cx));
                    self.waiting = None;
                    return Poll::Ready(Some(Err(BodyError::Idle)));
                }
            }
        }
    }
}

/// The body of the request that is being answered.
struct Incoming<I>(Rc<RefCell<Wire<I>>>);

impl<I: Io> Source for Incoming<I> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        self.0.borrow_mut().poll_body(cx)
    }

    fn length(&self) -> Option<u64> {
        self.0.borrow().decoder.length()
    }
}

/// The client's side of a tunnel.
struct Through<I>(Rc<RefCell<Wire<I>>>);

impl<I: Io> tokio::io::AsyncRead for Through<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut tokio::io::ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().io).poll_read(cx, buf)
    }
}

impl<I: Io> tokio::io::AsyncWrite for Through<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0.borrow_mut().io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().io).poll_shutdown(cx)
    }
}
