//! Counts the bytes of a request's body that did not say how long it would be.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll};

use transport::{Body, BodyError, Frame, Source};

/// How many bytes a body has, or has had until now.
pub enum Bytes {
    Known(u64),
    Counted(Rc<Cell<u64>>),
}

struct Counted {
    body: Body,
    bytes: Rc<Cell<u64>>,
}

/// The body, and what will have been read of it.
pub fn counted(body: Body) -> (Body, Bytes) {
    match body.length() {
        Some(length) => (body, Bytes::Known(length)),
        None => {
            let bytes = Rc::new(Cell::new(0));
            (Body::source(Counted { body, bytes: bytes.clone() }), Bytes::Counted(bytes))
        }
    }
}

impl Bytes {
    pub fn get(&self) -> u64 {
        match self {
            Bytes::Known(bytes) => *bytes,
            Bytes::Counted(bytes) => bytes.get(),
        }
    }
}

impl Source for Counted {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let frame = self.body.poll_frame(cx);
        if let Poll::Ready(Some(Ok(Frame::Data(data)))) = &frame {
            self.bytes.set(self.bytes.get() + data.len() as u64);
        }
        frame
    }
}
