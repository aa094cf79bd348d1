//! A stream whose writes wait until their writer has no more to do for now, and then leave together.
//!
//! `h2` writes whenever it holds one larger DATA frame, so a hundred answers that are ready at once would be a
//! hundred system calls. Under a cork they are one.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::sieve::Sieve;
use crate::message::Io;
use crate::ration::{self, PIECE, Stuck};

/// The stream, for who writes.
pub(super) struct Corked<I>(Rc<RefCell<Inner<I>>>);

/// What lets the waiting bytes out.
pub(super) struct Cork<I>(Rc<RefCell<Inner<I>>>);

struct Inner<I> {
    io: I,
    sieve: Sieve,
    /// Without room of its own while nothing waits: most connections are idle.
    waiting: Vec<u8>,
    /// How many of them have gone.
    gone: usize,
    /// The writer is having its turn; and has been told in this one that there is nothing to be read.
    turn: bool,
    dry: bool,
    /// Something came.
    heard: bool,
    /// What the stream said when they were let out; who writes next hears it.
    broken: Option<io::Error>,
    stuck: Stuck,
}

/// What is read comes through the sieve.
pub(super) fn corked<I: Io>(io: I, sieve: Sieve) -> (Corked<I>, Cork<I>) {
    let inner = Inner {
        io,
        sieve,
        waiting: Vec::new(),
        gone: 0,
        turn: false,
        dry: false,
        heard: false,
        broken: None,
        stuck: Stuck::default(),
    };
    let inner = Rc::new(RefCell::new(inner));
    (Corked(inner.clone()), Cork(inner))
}

impl<I: Io> Cork<I> {
    /// Whether something was read since this was asked last.
    pub(super) fn heard(&self) -> bool {
        std::mem::take(&mut self.0.borrow_mut().heard)
    }

    /// Drives a future that writes to the stream, and lets out what it has written each time that it waits.
    pub(super) async fn drive<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|cx| {
            self.0.borrow_mut().turn = true;
            let output = future.as_mut().poll(cx);
            let mut inner = self.0.borrow_mut();
            (inner.turn, inner.dry) = (false, false);
            if output.is_pending()
                && let Poll::Ready(Err(error)) = inner.poll_out(cx)
            {
                inner.broken = Some(error);
            }
            output
        })
        .await
    }
}

impl<I: Io> Inner<I> {
    /// Writes what waits.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.gone < self.waiting.len() {
            let wrote = Pin::new(&mut self.io).poll_write(cx, &self.waiting[self.gone..])?;
            self.stuck.set(wrote.is_pending());
            let wrote = ready!(wrote);
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gone += wrote;
        }
        self.emptied();
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn emptied(&mut self) {
        self.gone = 0;
        spare::give(std::mem::take(&mut self.waiting));
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Err(error));
        }
        let more: usize = parts.iter().map(|part| part.len()).sum();
        // More than a piece does not wait here, but goes straight to the stream.
        let most = ration::piece();
        if self.waiting.len() - self.gone + more > most {
            ready!(self.poll_out(cx))?;
            if more > most {
                return Pin::new(&mut self.io).poll_write_vectored(cx, parts);
            }
        }
        if self.waiting.capacity() == 0 {
            self.waiting = spare::take();
        }
        // A stream that is never quite empty must not leave all that has gone before it.
        if self.gone > most {
            self.waiting.drain(..std::mem::take(&mut self.gone));
        }
        for part in parts {
            self.waiting.extend_from_slice(part);
        }
        Poll::Ready(Ok(more))
    }
}

/// One buffer for each core, lent to the connection that writes.
mod spare {
    use std::cell::Cell;

    use super::PIECE;

    thread_local! {
        static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    }

    pub(super) fn take() -> Vec<u8> {
        SPARE.take()
    }

    pub(super) fn give(mut buffer: Vec<u8>) {
        // What goes partly, with more behind it, may have grown beyond what is worth keeping.
        if buffer.capacity() > 0 && buffer.capacity() <= 2 * PIECE {
            buffer.clear();
            SPARE.set(buffer);
        }
    }
}

impl<I: Io> AsyncRead for Corked<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Inner { io, sieve, turn, dry, heard, .. } = &mut *self.0.borrow_mut();
        // `h2` looks for more with each stream that is taken from it. The waker lies with the stream already, and nothing
        // comes before the turn is over.
        if *dry {
            return Poll::Pending;
        }
        let read = sieve.poll_read(Pin::new(io), cx, buf);
        *heard |= read.is_ready();
        *dry = *turn && read.is_pending();
        read
    }
}

impl<I: Io> AsyncWrite for Corked<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// What has been written leaves when its writer waits.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        ready!(inner.poll_out(cx))?;
        Pin::new(&mut inner.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn writes_leave_together_and_in_order_however_slow_the_stream_is() {
        let (near, mut far) = tokio::io::duplex(1000);
        let (mut corked, cork) = corked(near, Sieve::of_server());
        let sent: Vec<u8> = (0..500_000u32).map(|at| (at % 251) as u8).collect();
        let expected = sent.clone();
        let write = async move {
            let mut rest = &*sent;
            // Pieces below, at and far above what may wait.
            for length in [1, 9, 70_000, 3, 65_536, 65_537, 1000, 200_000].into_iter().cycle() {
                let (piece, behind) = rest.split_at(length.min(rest.len()));
                corked.write_all(piece).await.unwrap();
                rest = behind;
                if rest.is_empty() {
                    break;
                }
            }
            corked.shutdown().await.unwrap();
        };
        let read = async {
            let mut got = Vec::new();
            far.read_to_end(&mut got).await.unwrap();
            got
        };
        let ((), got) = tokio::join!(cork.drive(write), read);
        assert!(got == expected);
    }

    #[tokio::test]
    async fn what_was_written_leaves_when_its_writer_waits() {
        let (near, mut far) = tokio::io::duplex(1000);
        let (mut corked, cork) = corked(near, Sieve::of_server());
        let (tell, told) = tokio::sync::oneshot::channel::<()>();
        let write = async {
            corked.write_all(b"one").await.unwrap();
            corked.flush().await.unwrap();
            corked.write_all(b"two").await.unwrap();
            told.await.unwrap();
        };
        let read = async {
            let mut got = [0; 6];
            far.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"onetwo");
            tell.send(()).unwrap();
        };
        tokio::join!(cork.drive(write), read);
    }

    #[tokio::test]
    async fn who_writes_next_hears_that_the_stream_broke() {
        let (near, far) = tokio::io::duplex(1000);
        drop(far);
        let (mut corked, cork) = corked(near, Sieve::of_server());
        let write = async {
            corked.write_all(b"lost").await.unwrap();
            tokio::task::yield_now().await;
            corked.write_all(b"told").await.unwrap_err().kind()
        };
        assert_eq!(cork.drive(write).await, io::ErrorKind::BrokenPipe);
    }
}
