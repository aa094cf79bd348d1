//! Bodies that are read along with others, and those that have been looked into.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use bytes::Bytes;
use cache::Reader;
use transport::{Body, BodyError, Frame, Source};

/// What somebody else fetches, or what is fetched for all.
pub struct Along(pub Reader);

impl Source for Along {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        self.0.poll(cx).map(|piece| piece.map(|piece| piece.map(Frame::Data).map_err(|()| BodyError::Incomplete)))
    }

    fn length(&self) -> Option<u64> {
        self.0.left()
    }
}

/// A body of which something has been read already.
pub struct Resumed {
    front: VecDeque<Result<Frame, BodyError>>,
    rest: Body,
}

impl Resumed {
    pub fn body(pieces: Vec<Bytes>, last: Option<Result<Frame, BodyError>>, rest: Body) -> Body {
        if pieces.is_empty() && last.is_none() {
            return rest;
        }
        let front = pieces.into_iter().map(|piece| Ok(Frame::Data(piece))).chain(last).collect();
        Body::source(Resumed { front, rest })
    }
}

impl Source for Resumed {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        match self.front.pop_front() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => self.rest.poll_frame(cx),
        }
    }

    fn length(&self) -> Option<u64> {
        let read: usize = self.front.iter().map(|it| if let Ok(Frame::Data(data)) = it { data.len() } else { 0 }).sum();
        Some(self.rest.length()? + read as u64)
    }
}
