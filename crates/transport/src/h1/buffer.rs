//! Reading and writing without a buffer for each connection.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncWrite, ReadBuf};

use crate::message::Io;
use crate::ration::{self, PIECE, Stuck};

/// Pieces from this size on are written from where they lie.
pub const COPY_BELOW: usize = 8 * 1024;

/// Bytes that one body may move before all others on its core have their turn.
const TURN: usize = 256 * 1024;

thread_local! {
    /// Every connection of a core reads through this, so that one that waits holds nothing.
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; PIECE].into());

    /// Buffers of this core from which all has been written.
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// How many of them are kept, and how large they may be.
const SPARES: usize = 64;
const SPARE_BYTES: usize = 16 * 1024;

/// Reads what there is, up to a piece, behind `buffer`. Zero at the end of the stream.
pub fn poll_read(io: &mut (impl Io + ?Sized), cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
    READ.with_borrow_mut(|scratch| {
        let piece = ration::piece();
        let mut read = ReadBuf::new(&mut scratch[..piece]);
        ready!(Pin::new(io).poll_read(cx, &mut read))?;
        if piece < PIECE && buffer.is_empty() {
            // It would be as large again as it once was.
            *buffer = BytesMut::new();
        }
        buffer.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    })
}

/// Reads what there is and shows it to `take`, which says how many bytes of it it needs no more; the others are put
/// into `buffer`, which was empty. `None` at the end of the stream.
pub fn poll_take<T>(
    io: &mut (impl Io + ?Sized),
    cx: &mut Context<'_>,
    buffer: &mut BytesMut,
    take: impl FnOnce(&[u8]) -> (T, usize),
) -> Poll<io::Result<Option<T>>> {
    debug_assert!(buffer.is_empty());
    READ.with_borrow_mut(|scratch| {
        let mut read = ReadBuf::new(&mut scratch[..ration::piece()]);
        ready!(Pin::new(io).poll_read(cx, &mut read))?;
        if read.filled().is_empty() {
            return Poll::Ready(Ok(None));
        }
        let (taken, used) = take(read.filled());
        if let Some(rest @ [_, ..]) = read.filled().get(used..) {
            buffer.extend_from_slice(rest);
        }
        Poll::Ready(Ok(Some(taken)))
    })
}

/// How much of a core one body takes at a stretch.
#[derive(Default)]
pub struct Turn(usize);

impl Turn {
    /// Counts bytes that were moved. Pending, and to be asked again, when others should come first: not only tasks
    /// that are ready, but what the sockets have for those that are not.
    pub fn poll_moved(&mut self, bytes: usize, cx: &mut Context<'_>) -> Poll<()> {
        self.0 += bytes;
        if self.0 < TURN {
            return Poll::Ready(());
        }
        self.0 = 0;
        // Its first poll sets the task back behind the next look at the sockets.
        std::pin::pin!(tokio::task::yield_now()).poll(cx)
    }
}

/// What is to be written: small things gathered, then at most one large piece.
#[derive(Default)]
pub struct Outgoing {
    pub head: Vec<u8>,
    written: usize,
    tail: Bytes,
    stuck: Stuck,
}

impl Outgoing {
    /// Makes room for so many bytes, in a buffer that was used before if there is one.
    pub fn reserve(&mut self, bytes: usize) {
        if self.head.capacity() == 0 {
            self.head = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
        }
        self.head.reserve(bytes);
    }

    /// Gives the buffer back if nothing is in it, for whoever writes next: it is still in the core's cache then, as one
    /// that had been kept through a wait would not be.
    pub fn rest(&mut self) {
        if self.is_empty() {
            spare(&mut self.head);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.written == self.head.len() && self.tail.is_empty()
    }

    /// Bytes that wait to be written.
    pub fn len(&self) -> usize {
        self.head.len() - self.written + self.tail.len()
    }

    /// True if another piece may be put in before the rest is written.
    pub fn has_room(&self) -> bool {
        self.tail.is_empty() && self.head.len() - self.written < ration::piece()
    }

    /// Puts a piece of a body behind what is there, framed.
    pub fn body(&mut self, framing: super::framing::Framing, data: Bytes) {
        debug_assert!(self.tail.is_empty());
        if data.len() < COPY_BELOW || framing == super::framing::Framing::Chunked {
            framing.encode(&mut self.head, &data);
        } else {
            self.tail = data;
        }
    }

    /// Writes until all is written.
    pub fn poll_write(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin + ?Sized),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let head = &self.head[self.written..];
            let wrote = if self.tail.is_empty() {
                Pin::new(&mut *io).poll_write(cx, head)
            } else if head.is_empty() {
                Pin::new(&mut *io).poll_write(cx, &self.tail)
            } else {
                let both = [io::IoSlice::new(head), io::IoSlice::new(&self.tail)];
                Pin::new(&mut *io).poll_write_vectored(cx, &both)
            };
            let Poll::Ready(wrote) = wrote else {
                self.stuck.set(true);
                return Poll::Pending;
            };
            let wrote = wrote?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_head = wrote.min(head.len());
            self.written += of_head;
            self.tail.advance(wrote - of_head);
        }
        self.head.clear();
        self.written = 0;
        // Of TLS something may still wait behind the stream.
        let flushed = Pin::new(io).poll_flush(cx);
        self.stuck.set(flushed.is_pending());
        flushed
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        spare(&mut self.head);
    }
}

/// Leaves a buffer to others of this core, unless it is so large that it is worth more where it is.
fn spare(buffer: &mut Vec<u8>) {
    if buffer.capacity() == 0 || buffer.capacity() > SPARE_BYTES {
        return;
    }
    let mut buffer = std::mem::take(buffer);
    buffer.clear();
    // At the end of the thread there is no place for it any more.
    let _ = SPARE.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        if spare.len() < SPARES {
            spare.push(buffer);
        }
    });
}
