//! The side of the upstream: one connection, many exchanges.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use std::{fmt, io};

use base::{RequestHead, Time};
use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Ping, Reason};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

use super::convert::{request_out, response_in};
use super::cork::corked;
use super::sieve::Sieve;
use super::stream::{Bytestream, Incoming, Outgoing, Unsent};
use crate::body::{Body, BodyError, Frame, Source};
use crate::client::SendError;
use crate::message::{Io, Response, Tunnel};
use crate::pool::Held;

/// What is agreed on, or kept to, for a connection to an upstream.
///
/// `h2` gives up a connection, and every stream on it, when small DATA frames that nobody has read yet cost
/// more than its budget: 256 bytes each, less their length. By default that is half the connection's window,
/// and a model that streams tokens to one slow client spends it. So the windows are large and fixed (one that
/// adapts begins at 64 KiB, room for 167 such frames), and the budget is far above what open streams can leave
/// unread in practice. It stays finite since it bounds memory.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many streams at once, whatever the upstream would allow.
    pub max_streams: usize,
    pub connection_window: u32,
    pub stream_window: u32,
    pub data_frame_budget: usize,
    /// Bytes of the head of an answer.
    pub head_bytes: u32,
    /// A connection with open streams that says nothing for so long is asked whether it is there, and given up
    /// if it is silent for as long again. What is counted are whole periods, so it may take three of them.
    pub ping: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            max_streams: 250,
            connection_window: 16 << 20,
            stream_window: 1 << 20,
            data_frame_budget: 64 << 20,
            head_bytes: 64 << 10,
            ping: Some(Duration::from_secs(10)),
        }
    }
}

/// Servers of gRPC send those away who ask too often while nothing else is said: with the third needless question
/// within five minutes.
const QUESTIONS: u32 = 3;
const RESPITE: Duration = Duration::from_secs(300);

/// A connection to an upstream. Clones share it; it closes when they and its streams are gone.
#[derive(Clone)]
pub struct Connection {
    sender: SendRequest<Bytes>,
    shared: Rc<Shared>,
}

struct Shared {
    max_streams: usize,
    open: Cell<usize>,
    closed: Cell<bool>,
    /// The upstream's settings have come.
    settled: Cell<bool>,
    /// Streams that were ever opened.
    opened: Cell<u64>,
    /// Bytes came since this was looked at.
    spoke: Cell<bool>,
    /// Some of an answer came since a question was asked.
    answered: Cell<bool>,
    /// It was asked whether it is there, and has not said so.
    asked: Cell<bool>,
    changed: Notify,
}

impl Connection {
    /// Begins HTTP/2 on a stream, and drives it in a task of its own, which gives back at its end what is held.
    pub async fn handshake<I: Io + 'static>(io: I, settings: &Settings, held: Held) -> Result<Connection, SendError> {
        let shared = Rc::new(Shared {
            max_streams: settings.max_streams,
            open: Cell::new(0),
            closed: Cell::new(false),
            settled: Cell::new(false),
            opened: Cell::new(0),
            spoke: Cell::new(false),
            answered: Cell::new(false),
            asked: Cell::new(true),
            changed: Notify::new(),
        });
        let (corked, cork) = corked(Overheard { io, shared: shared.clone() }, Sieve::of_server());
        let (sender, mut connection) = h2::client::Builder::new()
            .enable_push(false)
            .initial_connection_window_size(settings.connection_window)
            .initial_window_size(settings.stream_window)
            .data_frame_budget(settings.data_frame_budget)
            .max_header_list_size(settings.head_bytes)
            .handshake::<_, Bytes>(corked)
            .await
            .map_err(unsent)?;
        let driven = shared.clone();
        let mut silence = settings.ping.map(Silence::new);
        tokio::task::spawn_local(async move {
            let _held = held;
            // Settings are the first thing an upstream says: they are here when it answers anything.
            let mut ping = connection.ping_pong();
            if let Some(ping) = &mut ping {
                let _ = ping.send_ping(Ping::opaque());
            }
            let driving = poll_fn(|cx| {
                if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
                    return Poll::Ready(ended);
                }
                let Some(ping) = &mut ping else { return Poll::Pending };
                if ping.poll_pong(cx).is_ready() {
                    driven.asked.set(false);
                    if !driven.settled.replace(true) {
                        driven.changed.notify_waiters();
                    }
                }
                match silence.as_mut().and_then(|silence| silence.poll(&driven, cx)) {
                    Some(Verdict::Ask) if ping.send_ping(Ping::opaque()).is_ok() => {
                        driven.asked.set(true);
                        // It is written by the connection.
                        cx.waker().wake_by_ref();
                        Poll::Pending
                    }
                    Some(Verdict::Dead) => {
                        tracing::warn!("an http/2 connection to an upstream says nothing any more and is given up");
                        Poll::Ready(Ok(()))
                    }
                    Some(Verdict::Ask) | None => Poll::Pending,
                }
            });
            let ended = cork.drive(driving).await;
            if let Err(error) = ended {
                tracing::debug!(%error, "http/2 connection to an upstream failed");
            }
            // Whoever waits for an answer of it hears now that there will be none.
            drop(connection);
            driven.closed.set(true);
            driven.settled.set(true);
            driven.changed.notify_waiters();
        });
        Ok(Connection { sender, shared })
    }

    /// How many exchanges are on their way.
    pub fn streams_open(&self) -> usize {
        self.shared.open.get()
    }

    /// How many ever were.
    pub fn streams_opened(&self) -> u64 {
        self.shared.opened.get()
    }

    /// How many more can begin now. None while it is asked whether it is there, and until it has said how many it
    /// takes: more than that would wait in it, though another connection had room.
    pub fn capacity(&self) -> usize {
        if self.shared.asked.get() || self.is_going_away() {
            return 0;
        }
        self.sender.current_max_send_streams().min(self.shared.max_streams).saturating_sub(self.streams_open())
    }

    /// The connection has ended.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.get()
    }

    /// It takes no new streams: it has ended, or the upstream has said GOAWAY. What is on its way may finish.
    pub fn is_going_away(&self) -> bool {
        self.is_closed()
            || matches!(self.sender.clone().poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Err(_)))
    }

    /// The upstream has said how many streams it takes.
    pub fn is_settled(&self) -> bool {
        self.shared.settled.get()
    }

    /// Completes when it has, or when the connection has ended.
    pub async fn settled(&self) {
        self.until(|shared| shared.settled.get()).await;
    }

    /// Completes when the connection has ended.
    pub async fn closed(&self) {
        self.until(|shared| shared.closed.get()).await;
    }

    /// Sends a request, and waits for the head of its answer.
    ///
    /// The request's body goes on while the answer's is read, driven by it. `sent` is told when the whole
    /// request had been handed over. With `protocol` the request is an extended CONNECT (RFC 8441), its body
    /// is not looked at, and a good answer brings a tunnel. Dropping this future, or the body it led to,
    /// resets the stream.
    pub async fn send(
        &self,
        head: &RequestHead,
        protocol: Option<&str>,
        body: Body,
        sent: Rc<Cell<Time>>,
    ) -> Result<Response, SendError> {
        let mut request = request_out(head, protocol).map_err(SendError::Unsendable)?;
        // As in HTTP/1: what the client said of the length is of use to the upstream too.
        if protocol.is_none()
            && let Some(length) = body.length().filter(|length| *length > 0)
        {
            request.headers_mut().insert(http::header::CONTENT_LENGTH, length.into());
        }
        let slot = Slot::new(&self.shared);
        let mut sender = self.sender.clone();
        if protocol.is_some() {
            self.until(|shared| shared.settled.get()).await;
        }
        poll_fn(|cx| sender.poll_ready(cx)).await.map_err(unsent)?;
        if protocol.is_some() && !sender.is_extended_connect_protocol_enabled() {
            return Err(SendError::NoUpgrade);
        }
        let length_of = |headers: &http::HeaderMap| {
            headers.get(http::header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok())
        };
        let bodiless = protocol.is_none() && body.is_empty();
        let (mut response, stream) = sender.send_request(request, bodiless).map_err(unsent)?;
        // It would hold a reference to the connection for as long as the body lasts.
        drop(sender);
        let mut tunnel = None;
        let mut upload = None;
        if protocol.is_some() {
            tunnel = Some(stream);
            sent.set(Time::now());
        } else if bodiless {
            sent.set(Time::now());
        } else {
            upload = Some(Upload { outgoing: Outgoing::new(body, stream, Reason::CANCEL, None), sent });
        }
        let answer = poll_fn(|cx| {
            if let Err(error) = poll_upload(&mut upload, cx) {
                return Poll::Ready(Err(SendError::Body(error)));
            }
            Pin::new(&mut response).poll(cx).map_err(failed)
        })
        .await?;
        self.shared.answered.set(true);
        let (parts, recv) = answer.into_parts();
        let length = length_of(&parts.headers);
        let head = response_in(parts);
        if let Some(stream) = tunnel
            && head.status.is_success()
        {
            let io = Box::new(Bytestream::new(recv, stream));
            let tunnel = Tunnel { io, read: Vec::new(), guard: Box::new(slot) };
            return Ok(Response { head, body: Body::Empty, tunnel: Some(Box::new(tunnel)) });
        }
        let body = if recv.is_end_stream() {
            Body::Empty
        } else {
            Body::source(Answer { incoming: Incoming::new(recv, length), upload, slot })
        };
        Ok(Response::new(head, body))
    }

    async fn until(&self, condition: impl Fn(&Shared) -> bool) {
        while !condition(&self.shared) {
            // Nothing runs between the look and the first poll: there is one thread.
            self.shared.changed.notified().await;
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("open", &self.shared.open).field("closed", &self.shared.closed).finish()
    }
}

/// Notes that something came.
struct Overheard<I> {
    io: I,
    shared: Rc<Shared>,
}

impl<I: AsyncRead + Unpin> AsyncRead for Overheard<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if read.is_ready() {
            self.shared.spoke.set(true);
        }
        read
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Overheard<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Watches a connection, period by period.
struct Silence {
    period: Duration,
    timer: Pin<Box<Sleep>>,
    /// Questions that may be asked before something else is said.
    questions: u32,
    last: Instant,
    /// Streams that had been opened by then.
    opened: u64,
}

enum Verdict {
    Ask,
    Dead,
}

impl Silence {
    fn new(period: Duration) -> Silence {
        // The first was asked with the beginning.
        let timer = Box::pin(tokio::time::sleep(period));
        Silence { period, timer, questions: QUESTIONS - 1, last: Instant::now(), opened: 0 }
    }

    fn poll(&mut self, shared: &Shared, cx: &mut Context<'_>) -> Option<Verdict> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            self.timer.as_mut().reset(now + self.period);
            let spoke = shared.spoke.replace(false);
            if shared.answered.replace(false) {
                self.questions = QUESTIONS;
            }
            if spoke || shared.open.get() == 0 {
                continue;
            }
            if shared.asked.get() {
                return Some(Verdict::Dead);
            }
            let opened = shared.opened.get();
            let wanted = self.questions == QUESTIONS || (self.questions > 0 && opened > self.opened);
            if wanted || now.duration_since(self.last) >= RESPITE {
                self.questions = self.questions.saturating_sub(1);
                self.last = now;
                self.opened = opened;
                return Some(Verdict::Ask);
            }
        }
        None
    }
}

/// A place among the streams of a connection.
struct Slot(Rc<Shared>);

impl Slot {
    fn new(shared: &Rc<Shared>) -> Slot {
        shared.open.set(shared.open.get() + 1);
        shared.opened.set(shared.opened.get() + 1);
        Slot(shared.clone())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}

struct Upload {
    outgoing: Outgoing,
    sent: Rc<Cell<Time>>,
}

/// Sends more of the request. An upstream that wants no more of it is no failure: the answer tells.
fn poll_upload(upload: &mut Option<Upload>, cx: &mut Context<'_>) -> Result<(), BodyError> {
    let Some(running) = upload else { return Ok(()) };
    let Poll::Ready(done) = running.outgoing.poll(cx) else { return Ok(()) };
    if done.is_ok() {
        running.sent.set(Time::now());
    }
    *upload = None;
    match done {
        Err(Unsent::Body(error)) => Err(error),
        Ok(()) | Err(Unsent::Gone | Unsent::Stalled) => Ok(()),
    }
}

/// The body of an answer, with what is left of the request's.
struct Answer {
    incoming: Incoming,
    upload: Option<Upload>,
    slot: Slot,
}

impl Source for Answer {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if let Err(error) = poll_upload(&mut self.upload, cx) {
            return Poll::Ready(Some(Err(error)));
        }
        let frame = self.incoming.poll_frame(cx);
        if matches!(frame, Poll::Ready(Some(Ok(_)))) {
            self.slot.0.answered.set(true);
        }
        frame
    }

    fn length(&self) -> Option<u64> {
        self.incoming.length()
    }
}

/// An error from before anything was sent.
fn unsent(error: h2::Error) -> SendError {
    if error.is_io() {
        SendError::Broken { sent: false, answered: false, source: io_error(error) }
    } else if error.is_go_away() || error.is_reset() || error.reason().is_some() {
        SendError::Refused(error)
    } else {
        SendError::Unsendable("HTTP/2 does not allow it")
    }
}

/// An error in place of an answer.
fn failed(error: h2::Error) -> SendError {
    if error.is_io() {
        return SendError::Broken { sent: true, answered: false, source: io_error(error) };
    }
    // A stream hears of a GOAWAY only if its number is above the last one the upstream has looked at.
    let refused = error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM));
    if refused { SendError::Refused(error) } else { SendError::Reset(error) }
}

fn io_error(error: h2::Error) -> io::Error {
    error.into_io().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_questions_are_asked_while_nothing_else_is_said() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let shared = Shared {
                max_streams: 1,
                open: Cell::new(1),
                closed: Cell::new(false),
                settled: Cell::new(true),
                opened: Cell::new(1),
                spoke: Cell::new(false),
                answered: Cell::new(false),
                asked: Cell::new(false),
                changed: Notify::new(),
            };
            let mut silence = Silence::new(Duration::from_millis(2));
            // Every question is answered, and within ten periods there are so many of them.
            let mut asked = async || {
                let (mut count, end) = (0, Instant::now() + Duration::from_millis(40));
                while Instant::now() < end {
                    let verdict = poll_fn(|cx| Poll::Ready(silence.poll(&shared, cx))).await;
                    count += u32::from(matches!(verdict, Some(Verdict::Ask)));
                    assert!(!matches!(verdict, Some(Verdict::Dead)));
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                count
            };
            assert_eq!(asked().await, 1);
            assert_eq!(asked().await, 0, "nothing new is at stake");
            shared.opened.set(2);
            assert_eq!(asked().await, 1);
            shared.opened.set(3);
            assert_eq!(asked().await, 0, "the server would take it amiss");
            shared.answered.set(true);
            assert_eq!(asked().await, 1);
            shared.spoke.set(true);
            shared.open.set(0);
            assert_eq!(asked().await, 0);
        });
    }
}
