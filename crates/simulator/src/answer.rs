//! Answers and their bodies.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;

pub(crate) type AnswerBody = UnsyncBoxBody<Bytes, io::Error>;
pub(crate) type Answer = Response<AnswerBody>;

pub(crate) fn full(bytes: impl Into<Bytes>) -> AnswerBody {
    Full::new(bytes.into()).map_err(never).boxed_unsync()
}

pub(crate) fn empty() -> AnswerBody {
    Empty::new().map_err(never).boxed_unsync()
}

fn never(never: Infallible) -> io::Error {
    match never {}
}

pub(crate) fn text(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    typed(status, "text/plain; charset=utf-8", full(text))
}

pub(crate) fn typed(status: StatusCode, content_type: &'static str, body: AnswerBody) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// A body whose frames come from a task.
pub(crate) fn piped(capacity: usize) -> (mpsc::Sender<io::Result<Frame<Bytes>>>, AnswerBody) {
    let (sender, receiver) = mpsc::channel(capacity);
    (sender, Piped(receiver).boxed_unsync())
}

struct Piped(mpsc::Receiver<io::Result<Frame<Bytes>>>);

impl Body for Piped {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(cx)
    }
}
