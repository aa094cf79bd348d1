//! A body that passes through the filters of policies.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use policy::{Filter, Filters, Stop};
use transport::{Body, BodyError, Frame, Source};

/// Where a filter that stops its body leaves the reason, for the path to find.
pub type Stopped = Rc<RefCell<Option<Stop>>>;

struct Filtered {
    body: Body,
    filters: Filters,
    stopped: Stopped,
    /// What follows the last piece, when that has been asked for.
    end: Option<Option<Frame>>,
}

/// The body behind the filters; the body itself if there are none.
pub fn filtered(body: Body, filters: Filters, stopped: &mut Option<Stopped>) -> Body {
    if filters.is_empty() {
        return body;
    }
    Body::source(Filtered { body, filters, stopped: stopped.get_or_insert_default().clone(), end: None })
}

impl Filtered {
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
            let last = match ready!(self.body.poll_frame(cx)) {
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
        if self.filters.keeps_length() && self.end.is_none() { self.body.length() } else { None }
    }
}
