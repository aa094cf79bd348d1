//! Takes empty DATA frames out of what a peer sends, before `h2` sees them.
//!
//! `h2` gives up a connection, and every stream on it, with the hundredth DATA frame that is empty and not the last of its
//! stream, however long the connection lives and however many streams it has carried. There are servers that send
//! one behind each answer that ends in trailers, as who passes on the empty frame that ended a request does: a
//! connection to them would break every hundred calls, and the others on it with it. Such a frame says nothing and takes
//! nothing of a window, so it is left out. Lest a peer keep a core busy with them, a bounded number is: `h2` sees those
//! beyond, and its bound holds.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// Where one is in what a peer sends.
pub(super) struct Sieve {
    /// Bytes until the next head of a frame.
    rest: usize,
    /// A head that has not come whole, or that was read where there was no room for it.
    head: [u8; HEAD],
    have: usize,
    /// It is to be told; this much of it has been.
    told: Option<usize>,
    /// Frames that may still be left out.
    patience: u32,
}

const HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;
const PADDED: u8 = 8;
/// What a client says before its first frame.
const PREFACE: usize = 24;
/// More is left out with each stream that is begun or ended, up to a bound.
const PATIENCE: u32 = 100;
const MORE: u32 = 10;
const MOST: u32 = 1000;

impl Sieve {
    /// For what a client sends.
    pub(super) fn of_client() -> Sieve {
        Sieve { rest: PREFACE, ..Sieve::of_server() }
    }

    /// For what a server sends.
    pub(super) fn of_server() -> Sieve {
        Sieve { rest: 0, head: [0; HEAD], have: 0, told: None, patience: PATIENCE }
    }

    /// Reads as `io` does, without the frames that are left out.
    pub(super) fn poll_read(
        &mut self,
        mut io: Pin<&mut impl AsyncRead>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if let Some(told) = &mut self.told {
            let piece = &self.head[*told..self.have];
            let piece = &piece[..piece.len().min(buf.remaining())];
            buf.put_slice(piece);
            *told += piece.len();
            if *told == self.have {
                (self.told, self.have) = (None, 0);
            }
            return Poll::Ready(Ok(()));
        }
        if buf.remaining() < 2 * HEAD {
            return self.read_narrow(io, cx, buf);
        }
        let begin = buf.filled().len();
        loop {
            buf.put_slice(&self.head[..self.have]);
            let before = buf.filled().len();
            let read = io.as_mut().poll_read(cx, buf);
            if !matches!(read, Poll::Ready(Ok(()))) {
                buf.set_filled(begin);
                return read;
            }
            self.have = 0;
            // At the end, what was begun is told as it is.
            if buf.filled().len() > before {
                let kept = self.sift(&mut buf.filled_mut()[begin..]);
                buf.set_filled(begin + kept);
                // Nothing at all would be the end.
                if kept == 0 {
                    continue;
                }
            }
            return Poll::Ready(Ok(()));
        }
    }

    /// Reads into less than a head may need.
    fn read_narrow(
        &mut self,
        mut io: Pin<&mut impl AsyncRead>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.rest > 0 {
            let room = self.rest.min(buf.remaining());
            let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
            ready!(io.poll_read(cx, &mut part))?;
            let length = part.filled().len();
            buf.advance(length);
            self.rest -= length;
            return Poll::Ready(Ok(()));
        }
        loop {
            let mut part = ReadBuf::new(&mut self.head[self.have..]);
            ready!(io.as_mut().poll_read(cx, &mut part))?;
            let length = part.filled().len();
            self.have += length;
            if self.have == HEAD && self.leaves_out(self.head) {
                self.have = 0;
            } else if self.have == HEAD || length == 0 {
                // The payload comes behind it.
                self.told = (self.have > 0).then_some(0);
                self.rest = self.rest.saturating_sub(self.have);
                return match self.told {
                    None => Poll::Ready(Ok(())),
                    Some(_) => self.poll_read(io, cx, buf),
                };
            }
        }
    }

    /// Leaves out what is to be left out, and holds back a head that is not whole. Gives how many bytes there are then.
    fn sift(&mut self, bytes: &mut [u8]) -> usize {
        let (mut at, mut kept) = (0, 0);
        while at < bytes.len() {
            let here = &bytes[at..];
            if self.rest > 0 {
                let length = self.rest.min(here.len());
                self.rest -= length;
                if kept != at {
                    bytes.copy_within(at..at + length, kept);
                }
                (at, kept) = (at + length, kept + length);
                continue;
            }
            let Some(head) = here.first_chunk::<HEAD>() else {
                self.head[..here.len()].copy_from_slice(here);
                self.have = here.len();
                break;
            };
            if self.leaves_out(*head) {
                at += HEAD;
            }
        }
        kept
    }

    /// Looks at a head: it is left out, or it and its payload are what comes next.
    fn leaves_out(&mut self, head: [u8; HEAD]) -> bool {
        let [high, middle, low, kind, flags, ..] = head;
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        if kind == HEADERS {
            self.patience = (self.patience + MORE).min(MOST);
        }
        if kind == DATA && length == 0 && flags & (END_STREAM | PADDED) == 0 && self.patience > 0 {
            self.patience -= 1;
            return true;
        }
        self.rest = HEAD + length;
        false
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let [.., high, middle, low] = (payload.len() as u32).to_be_bytes();
        let mut frame = vec![high, middle, low, kind, flags, 0, 0, 0, 1];
        frame.extend_from_slice(payload);
        frame
    }

    /// Comes in pieces of one length, and waits between them.
    struct Pieces(Vec<u8>, usize, bool);

    impl AsyncRead for Pieces {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            self.2 = !self.2;
            if self.2 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let length = self.1.min(self.0.len()).min(buf.remaining());
            buf.put_slice(&self.0.drain(..length).collect::<Vec<_>>());
            Poll::Ready(Ok(()))
        }
    }

    fn sifted(mut sieve: Sieve, bytes: &[u8], piece: usize, room: usize) -> Vec<u8> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut io, mut all) = (Pieces(bytes.to_vec(), piece, false), Vec::new());
            loop {
                let mut room = vec![0; room];
                let mut buf = ReadBuf::new(&mut room);
                poll_fn(|cx| sieve.poll_read(Pin::new(&mut io), cx, &mut buf)).await.unwrap();
                if buf.filled().is_empty() {
                    return all;
                }
                all.extend_from_slice(buf.filled());
            }
        })
    }

    #[test]
    fn empty_frames_are_left_out_however_they_come() {
        let (empty, last) = (frame(DATA, 0, b""), frame(DATA, END_STREAM, b""));
        let (data, padded) = (frame(DATA, 0, b"hello"), frame(DATA, PADDED, b"\0"));
        // Its payload looks like what is left out.
        let (head, settings) = (frame(HEADERS, 4, &empty), frame(4, 0, b""));
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let sent = [&preface, &settings, &head, &empty, &data, &empty, &empty, &padded, &head, &last, &empty]
            .map(|it| &**it)
            .concat();
        let kept = [&preface, &settings, &head, &data, &padded, &head, &last].map(|it| &**it).concat();
        for piece in [1, 2, 8, 9, 10, 17, 1000] {
            for room in [1, 2, 7, 9, 17, 18, 19, 40, 1000] {
                assert_eq!(sifted(Sieve::of_client(), &sent, piece, room), kept, "{piece} {room}");
                let broken = [&sent[..], &data[..4]].concat();
                let told = [&kept[..], &data[..4]].concat();
                assert_eq!(sifted(Sieve::of_client(), &broken, piece, room), told, "{piece} {room}, broken off");
            }
        }
    }

    #[test]
    fn a_flood_is_let_through() {
        let (head, empty) = (frame(HEADERS, 4, b"x"), frame(DATA, 0, b""));
        let check = |heads: usize, empties: usize, through: usize| {
            let sent = [head.repeat(heads), empty.repeat(empties)].concat();
            let kept = [head.repeat(heads), empty.repeat(through)].concat();
            assert_eq!(sifted(Sieve::of_server(), &sent, 4096, 4096), kept, "{heads} {empties}");
        };
        check(1, 110, 0);
        check(1, 111, 1);
        check(500, 1000, 0);
        check(500, 1100, 100);
    }
}
