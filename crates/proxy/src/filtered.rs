//! A body that passes through the filters of policies.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base::Time;
use bytes::Bytes;
use policy::{Filter, Filters, Stop};
use transport::{Body, BodyError, Frame, Source};

/// Where a filter that stops its body leaves the reason, for the path to find.
pub type Stopped = Rc<RefCell<Option<Stop>>>;

/// How much a filter is given at once, so that the clock can be asked in between.
const PIECE: usize = 4 << 10;

/// How long a core filters before all others on it have their turn: what some filters do to a byte costs hundreds of
/// times what others do, so it is not counted in bytes.
const TURN: Duration = Duration::from_micros(100);

struct Filtered {
    body: Body,
    filters: Filters,
    stopped: Stopped,
    /// What is left of a piece that was too large for one turn.
    rest: Bytes,
    /// When this turn began.
    since: Option<Time>,
    /// What follows the last piece, when that has been asked for.
    end: Option<Option<Frame>>,
}

/// The body behind the filters; the body itself if there are none.
pub fn filtered(body: Body, filters: Filters, stopped: &mut Option<Stopped>) -> Body {
    if filters.is_empty() {
        return body;
    }
    let stopped = stopped.get_or_insert_default().clone();
    Body::source(Filtered { body, filters, stopped, rest: Bytes::new(), since: None, end: None })
}

impl Filtered {
    /// The next piece of the body, while it is this body's turn.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if self.rest.is_empty() {
            match self.body.poll_frame(cx) {
                Poll::Ready(Some(Ok(Frame::Data(data)))) => self.rest = data,
                Poll::Pending => {
                    self.since = None;
                    return Poll::Pending;
                }
                other => return other,
            }
        }
        let now = Time::now();
        if now.since(*self.since.get_or_insert(now)) >= TURN {
            self.since = None;
            // Its first poll sets the task back behind the next look at the sockets.
            ready!(std::pin::pin!(tokio::task::yield_now()).poll(cx));
        }
        let piece = self.rest.split_to(self.rest.len().min(PIECE));
        Poll::Ready(Some(Ok(Frame::Data(piece))))
    }

    fn stop(&mut self, stop: Stop) -> Poll<Option<Result<Frame, BodyError>>> {
        *self.stopped.borrow_mut() = Some(stop);
        // Nothing more is read of it.
        self.body = Body::Empty;
        Poll::Ready(Some(Err(BodyError::Stopped)))
    }
}

impl Source for Filtered {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        loop {
            if let Some(end) = &mut self.end {
                return Poll::Ready(end.take().map(Ok));
            }
            let last = match ready!(self.poll_piece(cx)) {
                Some(Ok(Frame::Data(data))) => match self.filters.piece(data) {
                    Ok(data) if data.is_empty() => continue,
                    Ok(data) => return Poll::Ready(Some(Ok(Frame::Data(data)))),
                    Err(stop) => return self.stop(stop),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(trailers)) => Some(trailers),
                None => None,
            };
            self.end = Some(last);
            match self.filters.end() {
                Ok(rest) if rest.is_empty() => {}
                Ok(rest) => return Poll::Ready(Some(Ok(Frame::Data(rest)))),
                Err(stop) => return self.stop(stop),
            }
        }
    }

    fn length(&self) -> Option<u64> {
        match self.filters.keeps_length() && self.end.is_none() {
            true => self.body.length().map(|length| length + self.rest.len() as u64),
            false => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use policy::Refusal;

    use super::*;

    /// Repeats each byte; stops at an `x`; refuses what is longer than it says.
    struct Twice(u64);

    impl Filter for Twice {
        fn begin(&mut self, length: Option<u64>) -> Result<(), Stop> {
            if length.is_some_and(|length| length > self.0) { Err(Refusal::Forbidden.into()) } else { Ok(()) }
        }

        fn piece(&mut self, data: Bytes) -> Result<Bytes, Stop> {
            if data.contains(&b'x') {
                return Err(Refusal::Forbidden.into());
            }
            Ok(data.iter().flat_map(|byte| [*byte, *byte]).collect())
        }

        fn end(&mut self) -> Result<Bytes, Stop> {
            Ok(Bytes::from_static(b"."))
        }
    }

    fn twice(body: Body, stopped: &mut Option<Stopped>) -> Body {
        filtered(body, Filters::new(vec![Box::new(Twice(9))]), stopped)
    }

    #[test]
    fn a_large_piece_takes_several_turns_and_all_of_it_passes() {
        const LENGTH: usize = 20 * PIECE + 1;
        let mut stopped = None;
        let mut body = twice(Body::from(vec![b'a'; LENGTH]), &mut stopped);
        assert_eq!(body.length(), None);
        let (mut bytes, mut turns) = (Vec::new(), 1);
        loop {
            match body.poll_frame(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Some(Ok(Frame::Data(data)))) => {
                    assert!(data.len() <= 2 * PIECE);
                    bytes.extend_from_slice(&data);
                    // As if the filter were slow.
                    std::thread::sleep(TURN);
                }
                Poll::Ready(None) => break,
                Poll::Pending => turns += 1,
                Poll::Ready(_) => panic!("it fails"),
            }
        }
        assert_eq!((bytes.len(), bytes.last()), (2 * LENGTH + 1, Some(&b'.')));
        assert!(turns >= 20, "{turns}");
    }

    #[test]
    fn what_a_filter_stops_fails_and_the_reason_is_left() {
        let mut stopped = None;
        let mut body = twice(Body::from(b"abxc".to_vec()), &mut stopped);
        let frame = body.poll_frame(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(frame, Poll::Ready(Some(Err(BodyError::Stopped)))));
        assert!(matches!(*stopped.unwrap().borrow(), Some(Stop::Refuse(Refusal::Forbidden))));
    }
}
