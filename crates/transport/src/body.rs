//! Bodies: pulled piece by piece, by whoever needs the next one, in that one's own task.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use base::Headers;
use bytes::Bytes;

use crate::h1::Framing;

/// The body of a request or an answer.
#[derive(Default)]
pub enum Body {
    #[default]
    Empty,
    /// Whole and in memory.
    Full(Bytes),
    /// From a connection, or made on the way.
    Source(Box<dyn Source>),
}

/// What a body is pulled from. One core owns it: it need not be `Send`.
pub trait Source {
    /// The next piece; `None` at the end, after which it is not asked again.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>>;

    /// The same, for who puts it on a connection of HTTP/1: small pieces that came by one may be put there at once,
    /// which spares what it costs to hold them in between.
    fn poll_into(&mut self, cx: &mut Context<'_>, _to: &mut Sink<'_>) -> Poll<Option<Result<Piece, BodyError>>> {
        self.poll_frame(cx).map(|frame| frame.map(|frame| frame.map(Piece::Frame)))
    }

    /// How many bytes are still to come, where that is known.
    fn length(&self) -> Option<u64> {
        None
    }
}

/// What is to be written to a connection of HTTP/1, and how a body is framed there.
pub struct Sink<'o> {
    out: &'o mut Vec<u8>,
    framing: Framing,
}

pub enum Piece {
    Frame(Frame),
    /// So many bytes of the body were put into the sink. Never none.
    Put(usize),
}

pub enum Frame {
    /// Never empty.
    Data(Bytes),
    /// Always the last. Rare and large, so apart from the data that passes all the time.
    Trailers(Box<Headers>),
}

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the connection broke")]
    Io(#[source] io::Error),
    /// The peer closed before the length it had promised, or in the middle of a chunk.
    #[error("the body ended before its end")]
    Incomplete,
    /// The peer broke the framing of the body.
    #[error("the body is malformed: {0}")]
    Malformed(&'static str),
    /// HTTP/2: the peer reset the stream.
    #[error("the stream was reset")]
    Reset(#[source] h2::Error),
    /// Something on the way would not let it pass.
    #[error("the body was stopped on its way")]
    Stopped,
    #[error("nothing came for too long")]
    Idle,
    #[error("the call's deadline passed")]
    Deadline,
}

// === impl Body ===

impl Body {
    pub fn source(source: impl Source + 'static) -> Body {
        Body::Source(Box::new(source))
    }

    /// True if it is known that no byte and no trailer will come.
    pub fn is_empty(&self) -> bool {
        match self {
            Body::Empty => true,
            Body::Full(bytes) => bytes.is_empty(),
            Body::Source(source) => source.length() == Some(0),
        }
    }

    /// How many bytes are still to come, where that is known.
    pub fn length(&self) -> Option<u64> {
        match self {
            Body::Empty => Some(0),
            Body::Full(bytes) => Some(bytes.len() as u64),
            Body::Source(source) => source.length(),
        }
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        match self {
            Body::Empty => Poll::Ready(None),
            Body::Full(_) => {
                let Body::Full(bytes) = std::mem::take(self) else { unreachable!("matched above") };
                Poll::Ready(if bytes.is_empty() { None } else { Some(Ok(Frame::Data(bytes))) })
            }
            Body::Source(source) => {
                let frame = source.poll_frame(cx);
                if let Poll::Ready(None | Some(Err(_) | Ok(Frame::Trailers(_)))) = &frame {
                    *self = Body::Empty;
                }
                frame
            }
        }
    }

    pub fn poll_into(&mut self, cx: &mut Context<'_>, to: &mut Sink<'_>) -> Poll<Option<Result<Piece, BodyError>>> {
        let Body::Source(source) = self else {
            return self.poll_frame(cx).map(|frame| frame.map(|frame| frame.map(Piece::Frame)));
        };
        let piece = source.poll_into(cx, to);
        if let Poll::Ready(None | Some(Err(_) | Ok(Piece::Frame(Frame::Trailers(_))))) = &piece {
            *self = Body::Empty;
        }
        piece
    }

    pub async fn frame(&mut self) -> Option<Result<Frame, BodyError>> {
        poll_fn(|cx| self.poll_frame(cx)).await
    }
}

// === impl Sink ===

impl<'o> Sink<'o> {
    pub(crate) fn new(out: &'o mut Vec<u8>, framing: Framing) -> Sink<'o> {
        Sink { out, framing }
    }

    /// For who looks at what comes before it is put on: nothing but the body's own bytes.
    pub fn bare(out: &'o mut Vec<u8>) -> Sink<'o> {
        Sink { out, framing: Framing::UntilClose }
    }

    /// A piece of the body, not empty.
    pub fn put(&mut self, data: &[u8]) {
        debug_assert!(!data.is_empty());
        self.framing.encode(self.out, data);
    }

    /// How much is in it.
    pub fn mark(&self) -> usize {
        self.out.len()
    }

    /// The pieces of the body that were put behind a mark.
    pub fn since(&self, mark: usize) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.out.get(mark..).unwrap_or_default();
        let framing = self.framing;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let piece;
            (piece, rest) = framing.split_encoded(rest);
            Some(piece)
        })
    }

    pub(crate) fn takes_chunks(&self) -> bool {
        self.framing == Framing::Chunked
    }

    /// A chunk with its size and its end.
    pub(crate) fn put_chunk(&mut self, chunk: &[u8]) {
        debug_assert!(self.takes_chunks());
        self.out.extend_from_slice(chunk);
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Body {
        if bytes.is_empty() { Body::Empty } else { Body::Full(bytes) }
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Body {
        Bytes::from(bytes).into()
    }
}
