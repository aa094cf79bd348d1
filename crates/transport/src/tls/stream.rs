//! The listener's side of a connection: records over a socket, opened and sealed in buffers of the core.
//!
//! rustls is asked by its interface that has no buffers of its own. So a connection that waits holds none, one read of
//! the socket brings many records, and no more is sealed ahead of the socket than one writes at a time.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::ServerConfig;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::ration;

/// In a box, since it travels through futures that would each have room for it.
pub struct TlsStream<IO>(Box<Inner<IO>>);

struct Inner<IO> {
    io: IO,
    session: UnbufferedServerConnection,
    /// Of the records that came, what cannot be opened yet.
    came: Vec<u8>,
    /// What was opened, and its reader has not taken yet: so many bytes of it have gone.
    opened: Vec<u8>,
    taken: usize,
    /// What was sealed, and the socket has not taken yet.
    out: Vec<u8>,
    gone: usize,
    /// The peer has said that it sends no more.
    ended: bool,
    /// We have.
    farewell: bool,
    /// What the peer has sent makes no sense.
    broken: Option<Box<rustls::Error>>,
}

/// What a record may have at most beside what it carries (RFC 8446, 5.2), with its header.
const AROUND: usize = 256 + 5;
const RECORD: usize = 16 * 1024 + AROUND;
/// Records that wait to be opened: one, or those of a message of a handshake, which rustls bounds.
const UNOPENED: usize = 64 * 1024 + RECORD;

thread_local! {
    /// What connections of this core have read, and what they are about to write.
    static CAME: RefCell<Box<[u8]>> = RefCell::new(vec![0; UNOPENED + ration::PIECE].into());
    static SEALED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Shakes hands. `hello` is what has been read before.
pub(super) async fn accept<IO>(io: IO, config: Arc<ServerConfig>, hello: Vec<u8>) -> io::Result<TlsStream<IO>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let session = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
    let mut stream = TlsStream(Box::new(Inner {
        io,
        session,
        came: hello,
        opened: Vec::new(),
        taken: 0,
        out: Vec::new(),
        gone: 0,
        ended: false,
        farewell: false,
        broken: None,
    }));
    poll_fn(|cx| stream.0.poll_handshake(cx)).await?;
    Ok(stream)
}

impl<IO> TlsStream<IO> {
    /// What was agreed.
    pub fn session(&self) -> &UnbufferedServerConnection {
        &self.0.session
    }
}

// === struct Inner ===

impl<IO: AsyncRead + AsyncWrite + Unpin> Inner<IO> {
    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut came = std::mem::take(&mut self.came);
            let (used, step) = step(&mut self.session, &mut came, &mut self.out, &mut |data| {
                self.opened.extend_from_slice(data);
            });
            let step = step.map(|step| step.waiting());
            came.drain(..used);
            self.came = came;
            match step {
                Ok(None) => continue,
                Ok(Some(Waiting::Ended)) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(Some(Waiting::More)) => {}
                Err(error) => {
                    let mut came = std::mem::take(&mut self.came);
                    return Poll::Ready(Err(self.failed(error, &mut came, cx)));
                }
            }
            // What the socket does not take now goes with what is read or written next: a peer may not read on before it
            // has been heard.
            let _ = self.poll_out(cx)?;
            if !self.session.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if self.came.len() > UNOPENED {
                return Poll::Ready(Err(too_much()));
            }
            let read = CAME.with_borrow_mut(|came| {
                let mut read = ReadBuf::new(&mut came[..RECORD]);
                ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
                self.came.extend_from_slice(read.filled());
                Poll::Ready(io::Result::Ok(read.filled().len()))
            });
            if ready!(read)? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.taken < self.opened.len() {
            let length = buf.remaining().min(self.opened.len() - self.taken);
            buf.put_slice(&self.opened[self.taken..self.taken + length]);
            self.taken += length;
            if self.taken == self.opened.len() {
                (self.opened, self.taken) = (Vec::new(), 0);
            }
            return Poll::Ready(Ok(()));
        }
        if self.ended || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = &self.broken {
            return Poll::Ready(Err(broken(*error.clone())));
        }
        let read = CAME.with_borrow_mut(|came| {
            let before = std::mem::take(&mut self.came);
            came[..before.len()].copy_from_slice(&before);
            let (mut from, mut to) = (0, before.len());
            let read = self.poll_open(cx, came, (&mut from, &mut to), buf);
            if from < to {
                self.came = came[from..to].to_vec();
            }
            read
        });
        // What the session had to say to that: an update of keys.
        if !self.out.is_empty() {
            let _ = self.poll_out(cx)?;
        }
        read
    }

    /// Opens records, and reads more while there is nothing in those that are there.
    fn poll_open(
        &mut self,
        cx: &mut Context<'_>,
        came: &mut [u8],
        (from, to): (&mut usize, &mut usize),
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let empty = buf.filled().len();
        loop {
            while from < to {
                let (used, step) = step(&mut self.session, &mut came[*from..*to], &mut self.out, &mut |data| {
                    let (now, later) = data.split_at(data.len().min(buf.remaining()));
                    buf.put_slice(now);
                    self.opened.extend_from_slice(later);
                });
                let step = step.map(|step| step.waiting());
                *from += used;
                match step {
                    Ok(None) if buf.remaining() == 0 => return Poll::Ready(Ok(())),
                    Ok(None) => {}
                    Ok(Some(Waiting::More)) => break,
                    Ok(Some(Waiting::Ended)) => {
                        self.ended = true;
                        return Poll::Ready(Ok(()));
                    }
                    Err(error) => {
                        let error = self.failed(error, &mut came[*from..*to], cx);
                        *from = *to;
                        // What came before it is still good; the next one to read hears of it.
                        return Poll::Ready(if buf.filled().len() > empty { Ok(()) } else { Err(error) });
                    }
                }
            }
            if buf.filled().len() > empty {
                return Poll::Ready(Ok(()));
            }
            if *to - *from > UNOPENED {
                return Poll::Ready(Err(too_much()));
            }
            came.copy_within(*from..*to, 0);
            (*from, *to) = (0, *to - *from);
            let most = *to + buf.remaining().clamp(RECORD, ration::PIECE);
            let mut read = ReadBuf::new(&mut came[*to..most]);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
            match read.filled().len() {
                // Whoever cuts a connection must not be able to pass it off as its end.
                0 => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                length => *to += length,
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_out(cx))?;
        SEALED.with_borrow_mut(|sealed| {
            let (taken, end) = self.seal(parts, sealed)?;
            let mut gone = 0;
            while gone < end {
                match Pin::new(&mut self.io).poll_write(cx, &sealed[gone..end]) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(wrote)) => gone += wrote,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => break,
                }
            }
            self.out.extend_from_slice(&sealed[gone..end]);
            Poll::Ready(Ok(taken))
        })
    }

    /// Seals what one writes at a time: how many bytes of the parts that is, and how many sealed ones it became.
    fn seal(&mut self, parts: &[IoSlice<'_>], sealed: &mut Vec<u8>) -> io::Result<(usize, usize)> {
        let mut room = ration::piece();
        self.when_ready(|mut traffic, out| {
            // What the session had to say before.
            let mut end = put(sealed, 0, out.len(), |to| {
                to[..out.len()].copy_from_slice(out);
                Ok::<_, EncodeError>(out.len())
            })?;
            out.clear();
            let mut taken = 0;
            for part in parts {
                let data = &part[..part.len().min(room)];
                if data.is_empty() {
                    continue;
                }
                let around = (data.len() / (RECORD - AROUND) + 1) * AROUND;
                end = put(sealed, end, data.len() + around, |to| traffic.encrypt(data, to))?;
                room -= data.len();
                taken += data.len();
            }
            Ok((taken, end))
        })
    }

    fn say_farewell(&mut self) -> io::Result<()> {
        self.when_ready(|mut traffic, out| append(out, AROUND, |to| traffic.queue_close_notify(to)))
    }

    /// Does what can be done when the session has nothing else to do. What it had to say lies in the second argument.
    fn when_ready<T>(
        &mut self,
        mut then: impl FnMut(WriteTraffic<'_, ServerConnectionData>, &mut Vec<u8>) -> io::Result<T>,
    ) -> io::Result<T> {
        if let Some(error) = &self.broken {
            return Err(broken(*error.clone()));
        }
        loop {
            let (used, step) = step(&mut self.session, &mut self.came, &mut self.out, &mut |data| {
                self.opened.extend_from_slice(data);
            });
            let done = match step {
                Ok(Step::Ready(traffic)) => Some(then(traffic, &mut self.out)),
                Ok(Step::Again) => None,
                Ok(Step::Ended) => {
                    self.ended = true;
                    None
                }
                Ok(Step::Blocked | Step::Closed) => Some(Err(io::ErrorKind::BrokenPipe.into())),
                Err(error) => {
                    self.broken = Some(Box::new(error.clone()));
                    Some(Err(broken(error)))
                }
            };
            self.came.drain(..used);
            if let Some(done) = done {
                return done;
            }
        }
    }

    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.gone < self.out.len() {
            let wrote = ready!(Pin::new(&mut self.io).poll_write(cx, &self.out[self.gone..]))?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gone += wrote;
        }
        if self.gone > 0 {
            (self.out, self.gone) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }

    /// The peer is told why, if the socket takes it. `came` is what has not been looked at.
    fn failed(&mut self, error: rustls::Error, came: &mut [u8], cx: &mut Context<'_>) -> io::Error {
        // Once: a session is not to be asked again for what it has failed at.
        let _ = step(&mut self.session, came, &mut self.out, &mut |_| {});
        let _ = self.poll_out(cx);
        self.broken = Some(Box::new(error.clone()));
        broken(error)
    }
}

fn broken(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn too_much() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "more bytes than a record has")
}

/// Where a session is, once a part of what came has been looked at.
enum Step<'c> {
    /// It may have more to do.
    Again,
    /// It can seal, and wants to see more.
    Ready(WriteTraffic<'c, ServerConnectionData>),
    /// It wants to see more before it can do anything.
    Blocked,
    /// The peer sends no more.
    Ended,
    /// Nor do we.
    Closed,
}

enum Waiting {
    More,
    Ended,
}

impl Step<'_> {
    /// For who reads.
    fn waiting(self) -> Option<Waiting> {
        match self {
            Step::Again => None,
            Step::Ready(_) | Step::Blocked => Some(Waiting::More),
            Step::Ended | Step::Closed => Some(Waiting::Ended),
        }
    }
}

/// Shows a session what came: how many bytes of it are done with, and where it is now. What it has to say goes into `out`.
fn step<'c>(
    session: &'c mut UnbufferedServerConnection,
    came: &mut [u8],
    out: &mut Vec<u8>,
    opened: &mut dyn FnMut(&[u8]),
) -> (usize, Result<Step<'c>, rustls::Error>) {
    let UnbufferedStatus { mut discard, state } = session.process_tls_records(came);
    let step = match state {
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    opened(record.payload);
                }
                Some(Err(error)) => break Err(error),
                None => break Ok(Step::Again),
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            // Encoded one by one: none of them is large.
            append(out, AROUND, |to| data.encode(to)).map_err(|_| rustls::Error::EncryptError).map(|()| Step::Again)
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            // It lies in `out`, from where it goes in order.
            data.done();
            Ok(Step::Again)
        }
        Ok(ConnectionState::WriteTraffic(traffic)) => Ok(Step::Ready(traffic)),
        Ok(ConnectionState::BlockedHandshake) => Ok(Step::Blocked),
        Ok(ConnectionState::PeerClosed) => Ok(Step::Ended),
        Ok(ConnectionState::Closed) => Ok(Step::Closed),
        Ok(_) => Err(rustls::Error::General("a state that is not provided for".into())),
        Err(error) => Err(error),
    };
    (discard, step)
}

/// Lets something be written from `at` on, with so much room for it, or with as much as it turns out to need; where its
/// end is. What lies behind that is left there: a buffer that is used again need not be cleared again.
fn put<E: Needs>(
    to: &mut Vec<u8>,
    at: usize,
    room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> io::Result<usize> {
    if to.len() < at + room {
        to.resize(at + room, 0);
    }
    let mut wrote = write(&mut to[at..]);
    if let Some(needed) = wrote.as_ref().err().and_then(E::needs) {
        to.resize(at + needed, 0);
        wrote = write(&mut to[at..]);
    }
    wrote.map(|length| at + length).map_err(|error| io::Error::other(error.to_string()))
}

/// The same behind all that is there, and nothing is left behind it.
fn append<E: Needs>(to: &mut Vec<u8>, room: usize, write: impl FnMut(&mut [u8]) -> Result<usize, E>) -> io::Result<()> {
    let before = to.len();
    let end = put(to, before, room, write);
    to.truncate(*end.as_ref().unwrap_or(&before));
    end.map(|_| ())
}

/// An error that may be one of too little room.
trait Needs: std::fmt::Display {
    fn needs(&self) -> Option<usize>;
}

impl Needs for EncryptError {
    fn needs(&self) -> Option<usize> {
        match self {
            EncryptError::InsufficientSize(size) => Some(size.required_size),
            EncryptError::EncryptExhausted => None,
        }
    }
}

impl Needs for EncodeError {
    fn needs(&self) -> Option<usize> {
        match self {
            EncodeError::InsufficientSize(size) => Some(size.required_size),
            EncodeError::AlreadyEncoded => None,
        }
    }
}

// === struct TlsStream ===

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.poll_read(cx, buf)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.0.poll_out(cx))?;
        Pin::new(&mut self.0.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.0.farewell, true) {
            // Fails only where the peer would not understand it any more.
            let _ = self.0.say_farewell();
        }
        ready!(self.0.poll_out(cx))?;
        match ready!(Pin::new(&mut self.0.io).poll_shutdown(cx)) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            other => Poll::Ready(other),
        }
    }
}
