//! The answer's body on its way to the client: measured, held to its deadlines, settled at its end.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use awareness::{Ending, Stamp};
use base::Time;
use transport::{Body, BodyError, Frame, Piece, Response, Sink, Source};

use crate::deadline::LazyTimer;
use crate::meter::Meter;
use crate::trip::Trip;

/// How long an answer may take; put beside it by the attempt.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    pub idle: Option<Duration>,
    pub deadline: Option<Time>,
}

/// In this order, since of a stream all of the first is needed for each piece and nothing of the last: with many streams
/// under way, each line of memory is a cold one.
#[repr(C)]
struct Tap {
    body: Body,
    /// The trip's.
    meter: Option<Meter>,
    last: Time,
    /// What has passed of the body; the record hears of it at the end.
    bytes: u64,
    patience: Patience,
    timer: LazyTimer,
    trip: Trip,
}

/// Puts the call's record where its last byte passes.
pub fn attach(response: Response, trip: Trip) -> Response {
    let Response { head, body, tunnel } = response;
    if let Some(mut tunnel) = tunnel {
        let mut trip = trip;
        trip.complete();
        let held = std::mem::replace(&mut tunnel.guard, Box::new(()));
        tunnel.guard = Box::new((trip, held));
        return Response { head, body, tunnel: Some(tunnel) };
    }
    let (patience, timer) = (trip.patience, LazyTimer::new(trip.timers()));
    let (meter, last) = (trip.meter.clone(), trip.now());
    Response::new(head, Body::source(Tap { body, meter, last, bytes: 0, patience, timer, trip }))
}

impl Tap {
    /// Looks at what comes, whichever way it is asked for.
    fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Body, &mut Context<'_>) -> Poll<Option<Result<T, BodyError>>>,
        length: impl FnOnce(&T) -> Option<usize>,
    ) -> Poll<Option<Result<T, BodyError>>> {
        // What is whole came with its head.
        let whole = matches!(self.body, Body::Full(_));
        let polled = match &self.meter {
            None => poll(&mut self.body, cx),
            Some(meter) => meter.poll(|| poll(&mut self.body, cx)),
        };
        let piece = match polled {
            Poll::Ready(piece) => piece,
            Poll::Pending => {
                let idle = self.patience.idle.map(|idle| self.last + idle);
                let (at, error, word) = match (idle, self.patience.deadline) {
                    (Some(idle), Some(deadline)) if idle < deadline => (idle, BodyError::Idle, "upstream_idle"),
                    (Some(idle), None) => (idle, BodyError::Idle, "upstream_idle"),
                    (_, Some(deadline)) => (deadline, BodyError::Deadline, "deadline"),
                    (None, None) => return Poll::Pending,
                };
                ready!(self.timer.poll(at, cx));
                self.trip.broke(Ending::Deadline, word);
                return Poll::Ready(Some(Err(error)));
            }
        };
        match &piece {
            Some(Ok(piece)) => match length(piece) {
                Some(bytes) => {
                    if !whole {
                        self.last = Time::now();
                    }
                    self.bytes += bytes as u64;
                }
                None => self.ended(),
            },
            None => self.ended(),
            Some(Err(BodyError::Stopped)) => self.trip.broke(Ending::Stopped, "stopped"),
            Some(Err(_)) => self.trip.broke(Ending::UpstreamBroke, "upstream_broke"),
        }
        Poll::Ready(piece)
    }

    fn ended(&mut self) {
        self.trip.mark(Stamp::LastByte, self.last);
        self.trip.complete();
    }
}

impl Source for Tap {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        self.poll(cx, Body::poll_frame, data)
    }

    fn poll_into(&mut self, cx: &mut Context<'_>, to: &mut Sink<'_>) -> Poll<Option<Result<Piece, BodyError>>> {
        self.poll(
            cx,
            |body, cx| body.poll_into(cx, to),
            |piece| match piece {
                Piece::Put(bytes) => Some(*bytes),
                Piece::Frame(frame) => data(frame),
            },
        )
    }

    fn length(&self) -> Option<u64> {
        self.body.length()
    }
}

/// How many bytes a frame has; of trailers, none.
fn data(frame: &Frame) -> Option<usize> {
    if let Frame::Data(data) = frame { Some(data.len()) } else { None }
}

impl Drop for Tap {
    fn drop(&mut self) {
        // A body without a byte is never asked for one; neither is that of a HEAD.
        if self.body.is_empty() {
            self.trip.complete();
        }
        let bytes = self.bytes;
        self.trip.note(|exchange| exchange.bytes_out = bytes);
    }
}
