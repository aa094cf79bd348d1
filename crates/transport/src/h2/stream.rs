//! The two halves of a stream, as bodies and as bytes.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::convert::{fields_in, fields_out};
use crate::body::{Body, BodyError, Frame, Source};
use crate::pace::{Pace, Waiting};
use crate::ration::Stuck;
use crate::trailers::as_trailers;

/// The half that comes in, as a body. Its window opens again as its pieces are asked for.
pub(super) struct Incoming {
    recv: RecvStream,
    length: Option<u64>,
    /// Handed out, and not yet given back to the window.
    held: usize,
    data_done: bool,
    pace: Option<Pace>,
    waiting: Waiting,
    /// The answer has begun: from then on both sides may be silent for as long as they like.
    answered: Rc<Cell<bool>>,
}

impl Incoming {
    pub(super) fn new(recv: RecvStream, length: Option<u64>) -> Incoming {
        Incoming {
            recv,
            length,
            held: 0,
            data_done: false,
            pace: None,
            waiting: Waiting::default(),
            answered: Rc::default(),
        }
    }

    /// Fails if it comes too slowly before the answer has begun.
    pub(super) fn with_pace(mut self, pace: Pace, answered: Rc<Cell<bool>>) -> Incoming {
        self.pace = Some(pace);
        self.answered = answered;
        self
    }

    fn is_idle(&mut self, cx: &mut Context<'_>) -> bool {
        !self.answered.get() && self.pace.is_some_and(|pace| self.waiting.poll_late(pace, cx).is_ready())
    }
}

impl Source for Incoming {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let held = std::mem::take(&mut self.held);
        if held > 0 {
            // Fails only if the stream is gone, which the next poll tells.
            let _ = self.recv.flow_control().release_capacity(held);
        }
        while !self.data_done {
            match self.recv.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) => {
                    if data.is_empty() {
                        continue;
                    }
                    if let Some(pace) = self.pace {
                        self.waiting.moved(pace, data.len());
                    }
                    self.held = data.len();
                    self.length = self.length.map(|length| length.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::Data(data))));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(body_error(error)))),
                Poll::Ready(None) => self.data_done = true,
                Poll::Pending if self.is_idle(cx) => return Poll::Ready(Some(Err(BodyError::Idle))),
                Poll::Pending => return Poll::Pending,
            }
        }
        match self.recv.poll_trailers(cx) {
            Poll::Ready(Ok(Some(trailers))) => {
                Poll::Ready(Some(Ok(Frame::Trailers(Box::new(as_trailers(fields_in(&trailers)))))))
            }
            Poll::Ready(Ok(None)) => Poll::Ready(None),
            Poll::Ready(Err(error)) => Poll::Ready(Some(Err(body_error(error)))),
            Poll::Pending if self.is_idle(cx) => Poll::Ready(Some(Err(BodyError::Idle))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn length(&self) -> Option<u64> {
        // All bytes are here, but trailers may follow: only the end of the stream is the end.
        if self.recv.is_end_stream() { Some(0) } else { self.length.filter(|length| *length > 0) }
    }
}

fn body_error(error: h2::Error) -> BodyError {
    if error.is_io() {
        BodyError::Io(error.into_io().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()))
    } else {
        BodyError::Reset(error)
    }
}

/// Why a body was not sent to its end.
pub(super) enum Unsent {
    /// Its source failed; the stream has been reset.
    Body(BodyError),
    /// The peer wants no more of it, or is gone.
    Gone,
    /// The peer took too little for too long; the stream has been reset.
    Stalled,
}

/// The half that goes out: a body on its way, as fast as the peer's window lets it.
pub(super) struct Outgoing {
    body: Body,
    send: SendStream<Bytes>,
    piece: Bytes,
    /// What the peer is told when the source of the body fails: never a clean end.
    failure: Reason,
    pace: Option<Pace>,
    waiting: Waiting,
    stuck: Stuck,
}

impl Outgoing {
    pub(super) fn new(body: Body, send: SendStream<Bytes>, failure: Reason, pace: Option<Pace>) -> Outgoing {
        Outgoing {
            body,
            send,
            piece: Bytes::new(),
            failure,
            pace,
            waiting: Waiting::default(),
            stuck: Stuck::default(),
        }
    }

    pub(super) fn reset(&mut self, reason: Reason) {
        self.send.send_reset(reason);
    }

    /// Sends what can be sent. Ready once; not to be asked again after that.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Unsent>> {
        // That the peer has reset the stream is heard from each step that would send, so it is asked only when there is
        // to be waited for the body.
        loop {
            // What is sure to come waits at its source, and not here, until there is room for some of it. Of a body whose
            // length is not known the next piece may be its end, which needs no room.
            let wanted = match self.piece.len() {
                0 => usize::from(matches!(self.body.length(), Some(1..))),
                length => length,
            };
            if wanted > 0 {
                self.send.reserve_capacity(wanted);
                let mut room = self.send.capacity();
                if room == 0 {
                    match self.send.poll_capacity(cx) {
                        Poll::Ready(Some(Ok(capacity))) => room = capacity,
                        Poll::Ready(_) => return Poll::Ready(Err(Unsent::Gone)),
                        Poll::Pending if self.pace.is_some_and(|pace| self.waiting.poll_late(pace, cx).is_ready()) => {
                            self.send.send_reset(Reason::CANCEL);
                            return Poll::Ready(Err(Unsent::Stalled));
                        }
                        Poll::Pending => {
                            // If it is not here that a piece waits, there is one at its source.
                            self.stuck.set(true);
                            return Poll::Pending;
                        }
                    }
                }
                self.stuck.set(false);
                if self.piece.is_empty() {
                    match self.poll_piece(cx) {
                        Poll::Ready(None) => continue,
                        Poll::Ready(Some(sent)) => return Poll::Ready(sent),
                        Poll::Pending => return Poll::Pending,
                    }
                }
                let piece = self.piece.split_to(room.min(self.piece.len()));
                if let Some(pace) = self.pace {
                    self.waiting.moved(pace, piece.len());
                }
                let end = self.piece.is_empty() && self.body.is_empty();
                if self.send.send_data(piece, end).is_err() {
                    return Poll::Ready(Err(Unsent::Gone));
                }
                if end {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            if let Some(sent) = ready!(self.poll_piece(cx)) {
                return Poll::Ready(sent);
            }
        }
    }

    /// Takes the next piece of the body; how it was sent, if there is none.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<(), Unsent>>> {
        let frame = match self.body.poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending if self.send.poll_reset(cx).is_ready() => return Poll::Ready(Some(Err(Unsent::Gone))),
            Poll::Pending => return Poll::Pending,
        };
        let sent = match frame {
            Some(Ok(Frame::Data(data))) => {
                self.piece = data;
                return Poll::Ready(None);
            }
            Some(Ok(Frame::Trailers(trailers))) => match fields_out(&trailers) {
                Ok(trailers) => self.send.send_trailers(trailers),
                Err(why) => {
                    self.send.send_reset(self.failure);
                    return Poll::Ready(Some(Err(Unsent::Body(BodyError::Malformed(why)))));
                }
            },
            Some(Err(error)) => {
                self.send.send_reset(self.failure);
                return Poll::Ready(Some(Err(Unsent::Body(error))));
            }
            None => self.send.send_data(Bytes::new(), true),
        };
        Poll::Ready(Some(sent.map_err(|_| Unsent::Gone)))
    }
}

/// Both halves as a stream of bytes: what a tunnel runs over.
///
/// Dropped before both halves have ended, it resets the stream.
pub(super) struct Bytestream {
    recv: RecvStream,
    send: SendStream<Bytes>,
    piece: Bytes,
    ended: bool,
}

impl Bytestream {
    pub(super) fn new(recv: RecvStream, send: SendStream<Bytes>) -> Bytestream {
        Bytestream { recv, send, piece: Bytes::new(), ended: false }
    }
}

impl AsyncRead for Bytestream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.piece.is_empty() {
            match ready!(self.recv.poll_data(cx)) {
                Some(Ok(data)) => self.piece = data,
                Some(Err(error)) => return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.piece.len().min(buf.remaining());
        buf.put_slice(&self.piece.split_to(length));
        let _ = self.recv.flow_control().release_capacity(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Bytestream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.send.poll_reset(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        self.send.reserve_capacity(buf.len());
        let mut room = self.send.capacity();
        if room == 0 {
            room = match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(room)) => room,
                Some(Err(_)) | None => return Poll::Ready(Err(broken())),
            };
        }
        let length = room.min(buf.len());
        let sent = self.send.send_data(Bytes::copy_from_slice(&buf[..length]), false);
        Poll::Ready(sent.map(|()| length).map_err(|_| broken()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's own task writes what was handed to it.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.ended, true) {
            // Fails only if the peer has reset the stream, and then there is nothing left to end.
            let _ = self.send.send_data(Bytes::new(), true);
        }
        Poll::Ready(Ok(()))
    }
}
