//! A request's body that can be sent again: pieces are kept as they pass, up to a bound.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use base::Headers;
use bytes::Bytes;
use transport::{Body, BodyError, Frame, Source};

/// The body, wherever it has got to.
pub struct Replay(Rc<RefCell<Kept>>);

struct Kept {
    source: Body,
    length: Option<u64>,
    pieces: Vec<Bytes>,
    trailers: Option<Box<Headers>>,
    ended: bool,
    bytes: usize,
    limit: usize,
    /// More has passed than may be kept: what went out cannot be sent again.
    lost: bool,
}

/// One sending of it.
struct Reader {
    kept: Rc<RefCell<Kept>>,
    next: usize,
    passed: u64,
}

impl Replay {
    pub fn new(source: Body, limit: usize) -> Replay {
        let length = source.length();
        Replay(Rc::new(RefCell::new(Kept {
            ended: source.is_empty(),
            source,
            length,
            pieces: Vec::new(),
            trailers: None,
            bytes: 0,
            limit,
            lost: false,
        })))
    }

    /// The body from its beginning; `None` if some of it is gone.
    pub fn body(&self) -> Option<Body> {
        let kept = self.0.borrow();
        if kept.lost {
            return None;
        }
        if kept.ended && kept.pieces.is_empty() && kept.trailers.is_none() {
            return Some(Body::Empty);
        }
        Some(Body::source(Reader { kept: self.0.clone(), next: 0, passed: 0 }))
    }

    /// How much is kept now.
    pub fn bytes(&self) -> usize {
        let kept = self.0.borrow();
        if kept.lost { 0 } else { kept.bytes }
    }

    /// All of it has been read: any number can send it at once.
    pub fn is_whole(&self) -> bool {
        let kept = self.0.borrow();
        // Who sends it may know by its length that nothing follows, and not ask for the end.
        !kept.lost && (kept.ended || kept.length == Some(kept.bytes as u64))
    }

    /// No other sending will be asked for.
    pub fn seal(&self) {
        self.0.borrow_mut().limit = 0;
    }
}

impl Source for Reader {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let kept = &mut *self.kept.borrow_mut();
        if let Some(piece) = kept.pieces.get(self.next) {
            self.next += 1;
            self.passed += piece.len() as u64;
            return Poll::Ready(Some(Ok(Frame::Data(piece.clone()))));
        }
        if kept.ended {
            return Poll::Ready(kept.trailers.clone().map(|trailers| Ok(Frame::Trailers(trailers))));
        }
        match ready!(kept.source.poll_frame(cx)) {
            Some(Ok(Frame::Data(data))) => {
                self.passed += data.len() as u64;
                kept.bytes += data.len();
                if kept.bytes <= kept.limit && !kept.lost {
                    kept.pieces.push(data.clone());
                    self.next = kept.pieces.len();
                } else {
                    kept.lost = true;
                    kept.pieces.clear();
                    self.next = 0;
                }
                Poll::Ready(Some(Ok(Frame::Data(data))))
            }
            Some(Ok(Frame::Trailers(trailers))) => {
                kept.ended = true;
                kept.trailers = Some(trailers.clone());
                Poll::Ready(Some(Ok(Frame::Trailers(trailers))))
            }
            None => {
                kept.ended = true;
                Poll::Ready(None)
            }
            Some(Err(error)) => {
                kept.lost = true;
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn length(&self) -> Option<u64> {
        Some(self.kept.borrow().length?.saturating_sub(self.passed))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    struct Pieces(VecDeque<&'static str>);
    impl Source for Pieces {
        fn poll_frame(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
            Poll::Ready(self.0.pop_front().map(|it| Ok(Frame::Data(Bytes::from_static(it.as_bytes())))))
        }
    }

    fn read(mut body: Body, most: usize) -> String {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut text = String::new();
        for _ in 0..most {
            match body.poll_frame(&mut cx) {
                Poll::Ready(Some(Ok(Frame::Data(data)))) => text.push_str(std::str::from_utf8(&data).unwrap()),
                _ => break,
            }
        }
        text
    }

    #[test]
    fn a_body_is_sent_again_from_its_beginning_wherever_the_first_try_stopped() {
        for stop in 0..4 {
            let replay = Replay::new(Body::source(Pieces(["ab", "cd", "ef"].into())), 100);
            read(replay.body().unwrap(), stop);
            assert_eq!(read(replay.body().unwrap(), 9), "abcdef", "{stop}");
        }
    }

    #[test]
    fn beyond_the_bound_there_is_no_second_time() {
        let replay = Replay::new(Body::source(Pieces(["ab", "cd", "ef"].into())), 3);
        assert_eq!(read(replay.body().unwrap(), 9), "abcdef");
        assert!(replay.body().is_none());
    }
}
