//! The side of the upstream: one connection, many exchanges.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::{fmt, io};

use base::{RequestHead, Time};
use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Ping, Reason};
use tokio::sync::Notify;

use super::convert::{request_out, response_in};
use super::cork::corked;
use super::stream::{Bytestream, Incoming, Outgoing, Unsent};
use crate::body::{Body, BodyError, Frame, Source};
use crate::client::SendError;
use crate::message::{Io, Response, Tunnel};

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
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            max_streams: 250,
            connection_window: 16 << 20,
            stream_window: 1 << 20,
            data_frame_budget: 64 << 20,
            head_bytes: 64 << 10,
        }
    }
}

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
    changed: Notify,
}

impl Connection {
    /// Begins HTTP/2 on a stream, and drives it in a task of its own.
    pub async fn handshake<I: Io + 'static>(io: I, settings: &Settings) -> Result<Connection, SendError> {
        let (corked, cork) = corked(io);
        let (sender, mut connection) = h2::client::Builder::new()
            .enable_push(false)
            .initial_connection_window_size(settings.connection_window)
            .initial_window_size(settings.stream_window)
            .data_frame_budget(settings.data_frame_budget)
            .max_header_list_size(settings.head_bytes)
            .handshake::<_, Bytes>(corked)
            .await
            .map_err(unsent)?;
        let shared = Rc::new(Shared {
            max_streams: settings.max_streams,
            open: Cell::new(0),
            closed: Cell::new(false),
            settled: Cell::new(false),
            changed: Notify::new(),
        });
        let driven = shared.clone();
        tokio::task::spawn_local(async move {
            // Settings are the first thing an upstream says: they are here when it answers anything.
            let mut ping = connection.ping_pong();
            if let Some(ping) = &mut ping {
                let _ = ping.send_ping(Ping::opaque());
            }
            let driving = poll_fn(|cx| {
                let ended = Pin::new(&mut connection).poll(cx);
                if let Some(waiting) = &mut ping
                    && waiting.poll_pong(cx).is_ready()
                {
                    ping = None;
                    driven.settled.set(true);
                    driven.changed.notify_waiters();
                }
                ended
            });
            let ended = cork.drive(driving).await;
            if let Err(error) = ended {
                tracing::debug!(%error, "http/2 connection to an upstream failed");
            }
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

    /// How many more can begin now.
    pub fn capacity(&self) -> usize {
        if self.is_going_away() {
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
            return Err(SendError::Unsendable("the upstream knows no extended CONNECT"));
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
        let (parts, recv) = answer.into_parts();
        let length = length_of(&parts.headers);
        let head = response_in(parts);
        if let Some(stream) = tunnel
            && head.status.is_success()
        {
            let io = Box::new(Bytestream::new(recv, stream));
            let tunnel = Tunnel { io, read: Vec::new(), guard: Box::new(slot) };
            return Ok(Response { head, body: Body::Empty, tunnel: Some(tunnel) });
        }
        let body = if recv.is_end_stream() {
            Body::Empty
        } else {
            Body::source(Answer { incoming: Incoming::new(recv, length), upload, _slot: slot })
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

/// A place among the streams of a connection.
struct Slot(Rc<Shared>);

impl Slot {
    fn new(shared: &Rc<Shared>) -> Slot {
        shared.open.set(shared.open.get() + 1);
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
    _slot: Slot,
}

impl Source for Answer {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if let Err(error) = poll_upload(&mut self.upload, cx) {
            return Poll::Ready(Some(Err(error)));
        }
        self.incoming.poll_frame(cx)
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
