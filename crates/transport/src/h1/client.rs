//! One exchange after another on one upstream connection, driven inside the request's own task.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};

use base::{Method, RequestHead, StatusCode, Time};
use bytes::{Bytes, BytesMut};

use super::buffer::{self, Outgoing, Turn};
use super::framing::{Decoded, Decoder, Framing};
use super::head::{self, HeadError, HeadLimits};
use crate::body::{Body, BodyError, Frame, Piece, Sink, Source};
use crate::client::SendError;
use crate::message::{Io, Response, Tunnel};
use crate::pool::Held;

/// An open connection that carries no exchange.
pub struct Connection {
    io: Box<dyn Io>,
    read: BytesMut,
    held: Held,
}

/// Where a connection goes that may carry another exchange.
pub trait Recycle {
    fn recycle(&self, connection: Connection);
}

/// An answer's head may be this large; the upstream is ours to trust more than a client.
const ANSWER: HeadLimits = HeadLimits { bytes: 256 * 1024, fields: head::MAX_FIELDS };

/// So many interim answers may come before the one that counts.
const MAX_INTERIM: u32 = 100;

impl Connection {
    pub fn new(io: Box<dyn Io>) -> Connection {
        Connection { io, read: BytesMut::new(), held: Held::new() }
    }

    /// What is to be given back when the connection ends.
    pub fn holding(self, held: Held) -> Connection {
        Connection { held, ..self }
    }

    /// True if the peer has closed it, or has said something that nobody asked for.
    pub fn is_spent(&mut self) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        !self.read.is_empty() || buffer::poll_read(&mut *self.io, &mut cx, &mut self.read).is_ready()
    }

    /// Sends a request and waits for the head of its answer; the rest of the request goes on being sent while
    /// the answer's body is read. `sent` gets the time when the last of it was written.
    ///
    /// Dropping the future, or the answer's body, closes the connection.
    pub async fn send(
        self,
        head: &RequestHead,
        upgrade: Option<&str>,
        body: Body,
        sent: Rc<Cell<Time>>,
        home: Weak<dyn Recycle>,
    ) -> Result<Response, SendError> {
        let framing = match body.length() {
            _ if body.is_empty() => Framing::None,
            Some(length) => Framing::Length(length),
            None => Framing::Chunked,
        };
        let mut out = Outgoing::default();
        out.reserve(512 + head.headers.bytes() + framing.length().map_or(0, |length| length.min(8192) as usize));
        head::write_request(&mut out.head, head, framing, upgrade);
        let upload = Upload {
            body,
            framing,
            out,
            left: body_left(framing),
            done: false,
            turn: Turn::default(),
            began: false,
            sent,
        };
        let Connection { io, read, held } = self;
        let mut exchange = Exchange { io, read, held, upload, unsendable: None, interim: 0, whole: None };
        let method = head.method.clone();
        let (answer, keep_alive) = poll_fn(|cx| exchange.poll_head(cx, &method)).await?;
        // Passed on, it would make a tunnel of a client's connection that goes on speaking HTTP.
        if answer.head.status == StatusCode::SWITCHING_PROTOCOLS && upgrade.is_none() {
            return Err(SendError::Malformed(HeadError::Malformed("a 101 that nobody asked for")));
        }
        Ok(exchange.into_response(answer, keep_alive, home))
    }
}

/// A request being sent and its answer's head being awaited.
struct Exchange {
    io: Box<dyn Io>,
    read: BytesMut,
    held: Held,
    upload: Upload,
    /// Why no more of the request can be written; an answer may come for all that.
    unsendable: Option<io::Error>,
    /// Answers that came before the one that counts.
    interim: u32,
    /// The body of the answer, if all of it came with its head.
    whole: Option<Bytes>,
}

/// What is still to be sent of a request.
struct Upload {
    body: Body,
    framing: Framing,
    out: Outgoing,
    /// Bytes promised by Content-Length that were not yet taken from the body.
    left: u64,
    done: bool,
    turn: Turn,
    /// Some of the request has reached the socket.
    began: bool,
    sent: Rc<Cell<Time>>,
}

type Head = (head::ParsedResponse, bool);

impl Exchange {
    fn poll_head(&mut self, cx: &mut Context<'_>, method: &Method) -> Poll<Result<Head, SendError>> {
        let mut body_failed = None;
        if self.unsendable.is_none() {
            match self.upload.poll(&mut *self.io, cx) {
                // An upstream that has had enough answers and closes; the answer may lie behind the broken write.
                Poll::Ready(Err(UploadError::Io(error))) => {
                    self.unsendable = Some(error);
                    self.upload.sent.set(Time::now());
                }
                Poll::Ready(Err(UploadError::Body(error))) => body_failed = Some(error),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        loop {
            // An answer may come before the request was sent, or instead of it.
            let parsed = match self.read.is_empty() {
                true => Ok(None),
                false => head::parse_response(&mut self.read, method, ANSWER),
            };
            match parsed {
                Ok(Some(answer)) if answer.head.status == StatusCode::SWITCHING_PROTOCOLS => {
                    return Poll::Ready(Ok((answer, false)));
                }
                Ok(Some(answer)) if answer.head.status.is_informational() && self.interim < MAX_INTERIM => {
                    self.interim += 1;
                    continue;
                }
                Ok(Some(answer)) if answer.head.status.is_informational() => {
                    let error = HeadError::Malformed("interim answers without end");
                    return Poll::Ready(Err(SendError::Malformed(error)));
                }
                Ok(Some(answer)) => {
                    let keep_alive = answer.keep_alive;
                    return Poll::Ready(Ok((answer, keep_alive)));
                }
                Ok(None) => {}
                Err(error) => return Poll::Ready(Err(SendError::Malformed(error))),
            }
            let read = if self.read.is_empty() {
                // Most heads come whole, and are read from where they came in; so do small bodies behind them, which
                // then need no decoder.
                let Exchange { io, read, upload, whole, .. } = self;
                let taken =
                    buffer::poll_take(&mut **io, cx, read, |bytes| match head::read_response(bytes, method, ANSWER) {
                        Ok(Some((mut answer, length))) if !answer.head.status.is_informational() => {
                            let behind = &bytes[length..];
                            if behind.is_empty() || !upload.done || answer.body.length() != Some(behind.len() as u64) {
                                return (Some(answer), length);
                            }
                            *whole = Some(Bytes::copy_from_slice(behind));
                            answer.body = Decoder::Done;
                            (Some(answer), bytes.len())
                        }
                        _ => (None, 0),
                    });
                match taken {
                    Poll::Ready(Ok(Some(Some(answer)))) => {
                        let keep_alive = answer.keep_alive;
                        return Poll::Ready(Ok((answer, keep_alive)));
                    }
                    Poll::Ready(Ok(taken)) => Poll::Ready(Ok(taken.map_or(0, |_| self.read.len()))),
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    Poll::Pending => Poll::Pending,
                }
            } else {
                buffer::poll_read(&mut *self.io, cx, &mut self.read)
            };
            match read {
                Poll::Ready(Ok(0)) => {
                    let ended = || io::Error::new(io::ErrorKind::UnexpectedEof, "closed before an answer");
                    let error = self.unsendable.take().unwrap_or_else(ended);
                    return Poll::Ready(Err(self.broken(error)));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.broken(error))),
                Poll::Pending => break,
            }
        }
        match body_failed {
            Some(error) => Poll::Ready(Err(SendError::Body(error))),
            None => Poll::Pending,
        }
    }

    fn broken(&self, source: io::Error) -> SendError {
        SendError::Broken { sent: self.upload.began, answered: !self.read.is_empty(), source }
    }

    #[inline]
    fn into_response(mut self, answer: head::ParsedResponse, keep_alive: bool, home: Weak<dyn Recycle>) -> Response {
        let head::ParsedResponse { head, body: mut decoder, .. } = answer;
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            let tunnel = Tunnel { io: self.io, read: self.read.to_vec(), guard: Box::new(self.held) };
            return Response { head, body: Body::Empty, tunnel: Some(Box::new(tunnel)) };
        }
        // A small answer came whole, with its head: the connection is free before the client has a byte.
        if let Some(whole) = self.whole(&mut decoder) {
            self.give_back(keep_alive, &home);
            return Response::new(head, whole);
        }
        Response::new(head, Body::source(Download { exchange: Some(self), decoder, keep_alive, home }))
    }

    /// The body, if all of it has been read already, and all of the request been sent.
    fn whole(&mut self, decoder: &mut Decoder) -> Option<Body> {
        match decoder {
            Decoder::Done => {}
            Decoder::Length(left) if self.read.len() as u64 >= *left => {}
            _ => return None,
        }
        if !self.upload.done {
            return None;
        }
        match (self.whole.take(), decoder.decode(&mut self.read)) {
            (Some(data), _) | (None, Ok(Decoded::Frame(Frame::Data(data)))) => Some(Body::Full(data)),
            _ => Some(Body::Empty),
        }
    }

    /// The connection goes where another call will find it, if it may carry one.
    #[inline]
    fn give_back(self, keep_alive: bool, home: &Weak<dyn Recycle>) {
        if keep_alive
            && self.upload.done
            && self.read.is_empty()
            && let Some(home) = home.upgrade()
        {
            home.recycle(Connection { io: self.io, read: BytesMut::new(), held: self.held });
        }
    }
}

enum UploadError {
    Io(io::Error),
    Body(BodyError),
}

impl Upload {
    fn poll(&mut self, io: &mut dyn Io, cx: &mut Context<'_>) -> Poll<Result<(), UploadError>> {
        if self.done {
            return Poll::Ready(Ok(()));
        }
        loop {
            while self.out.has_room() && !self.is_taken() {
                match self.body.poll_frame(cx) {
                    Poll::Ready(Some(Ok(Frame::Data(data)))) => self.put(data)?,
                    Poll::Ready(Some(Ok(Frame::Trailers(trailers)))) => self.finish(Some(trailers))?,
                    Poll::Ready(None) => self.finish(None)?,
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(UploadError::Body(error))),
                    Poll::Pending => break,
                }
            }
            let bytes = self.out.len();
            let wrote = self.out.poll_write(io, cx);
            self.began = true;
            ready!(wrote).map_err(UploadError::Io)?;
            if self.is_taken() {
                self.out.rest();
                self.done = true;
                self.sent.set(Time::now());
                return Poll::Ready(Ok(()));
            }
            ready!(self.turn.poll_moved(bytes, cx));
            if !self.out.has_room() {
                continue;
            }
            // All that there was is written: wait for the body.
            match self.body.poll_frame(cx) {
                Poll::Ready(Some(Ok(Frame::Data(data)))) => self.put(data)?,
                Poll::Ready(Some(Ok(Frame::Trailers(trailers)))) => self.finish(Some(trailers))?,
                Poll::Ready(None) => self.finish(None)?,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(UploadError::Body(error))),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// The body has been asked for its last piece.
    fn is_taken(&self) -> bool {
        self.framing == Framing::None
    }

    fn put(&mut self, data: Bytes) -> Result<(), UploadError> {
        if let Framing::Length(_) = self.framing {
            let Some(left) = self.left.checked_sub(data.len() as u64) else {
                return Err(UploadError::Body(BodyError::Malformed("longer than its Content-Length")));
            };
            self.left = left;
        }
        self.out.body(self.framing, data);
        Ok(())
    }

    fn finish(&mut self, trailers: Option<Box<base::Headers>>) -> Result<(), UploadError> {
        if self.left > 0 {
            return Err(UploadError::Body(BodyError::Incomplete));
        }
        self.framing.finish(&mut self.out.head, trailers.as_deref());
        self.framing = Framing::None;
        Ok(())
    }
}

fn body_left(framing: Framing) -> u64 {
    if let Framing::Length(length) = framing { length } else { 0 }
}

/// The body of an answer: reads the connection, keeps sending the request, gives the connection back at the end.
struct Download {
    exchange: Option<Exchange>,
    decoder: Decoder,
    keep_alive: bool,
    home: Weak<dyn Recycle>,
}

impl Download {
    fn give_back(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            exchange.give_back(self.keep_alive, &self.home);
        }
    }

    /// Goes on sending the request. Gives why the answer must not go on either.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        let Some(exchange) = self.exchange.as_mut().filter(|exchange| !exchange.upload.done) else { return Ok(()) };
        match exchange.upload.poll(&mut *exchange.io, cx) {
            // What was not to pass is no longer to be answered either.
            Poll::Ready(Err(UploadError::Body(error @ BodyError::Stopped))) => {
                self.exchange = None;
                return Err(error);
            }
            // An upload that fails now costs the connection, not the answer: the upstream may have had enough.
            Poll::Ready(Err(_)) => {
                exchange.upload.body = Body::Empty;
                self.keep_alive = false;
            }
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        Ok(())
    }

    fn poll_download(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let Some(exchange) = &mut self.exchange else { return Poll::Ready(None) };
        loop {
            match self.decoder.decode(&mut exchange.read) {
                Ok(Decoded::Frame(frame)) => {
                    if self.decoder.is_done() {
                        self.give_back();
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                Ok(Decoded::End) => {
                    self.give_back();
                    return Poll::Ready(None);
                }
                Ok(Decoded::More) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            match ready!(buffer::poll_read(&mut *exchange.io, cx, &mut exchange.read)) {
                Ok(0) => return Poll::Ready(self.closed().map(Err)),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(BodyError::Io(error)))),
            }
        }
    }

    /// The upstream has closed the connection.
    fn closed(&mut self) -> Option<BodyError> {
        self.keep_alive = false;
        self.decoder.end_of_stream().err()
    }
}

impl Source for Download {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if let Err(error) = self.poll_upload(cx) {
            return Poll::Ready(Some(Err(error)));
        }
        self.poll_download(cx)
    }

    fn poll_into(&mut self, cx: &mut Context<'_>, to: &mut Sink<'_>) -> Poll<Option<Result<Piece, BodyError>>> {
        if let Err(error) = self.poll_upload(cx) {
            return Poll::Ready(Some(Err(error)));
        }
        let Some(exchange) = &mut self.exchange else { return Poll::Ready(None) };
        if exchange.read.is_empty() && !self.decoder.is_done() {
            let decoder = &mut self.decoder;
            let taken = buffer::poll_take(&mut *exchange.io, cx, &mut exchange.read, |bytes| {
                // Large pieces are written from where they lie.
                if bytes.len() >= buffer::COPY_BELOW {
                    return (Ok(0), 0);
                }
                match decoder.relay(bytes, to) {
                    Ok((used, passed)) => (Ok(passed), used),
                    Err(error) => (Err(error), 0),
                }
            });
            match ready!(taken) {
                Ok(None) => return Poll::Ready(self.closed().map(Err)),
                // Nothing of it was body, or it is to be looked at.
                Ok(Some(Ok(0))) => {}
                Ok(Some(Ok(passed))) => {
                    if self.decoder.is_done() {
                        self.give_back();
                    }
                    return Poll::Ready(Some(Ok(Piece::Put(passed))));
                }
                Ok(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Err(error) => return Poll::Ready(Some(Err(BodyError::Io(error)))),
            }
        }
        self.poll_download(cx).map(|frame| frame.map(|frame| frame.map(Piece::Frame)))
    }

    fn length(&self) -> Option<u64> {
        self.decoder.length()
    }
}

impl From<HeadError> for SendError {
    fn from(error: HeadError) -> SendError {
        SendError::Malformed(error)
    }
}
