//! An answer that comes in pieces: metered or translated as it passes, and booked when it ends, however it ends.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base::Time;
use bytes::Bytes;
use llm::error::Kind;
use llm::stream::Fault;
use transport::{Body, BodyError, Frame, Piece, Sink, Source};

use super::books::{Account, Booked, Ending};
use super::keep::{Keep, Keeping, Note};
use super::state::CandidateState;
use super::words::Failure;
use crate::deadline::{LazyTimer, Timers};

/// A stream for a caller. If he leaves while others read along, it goes on for them.
pub struct Streamed(Option<Under>);

/// A stream under way. In this order, since each token needs all of the first and nothing of the last: with many streams
/// under way, each line of memory is a cold one. It has 408 bytes in any order; in this one a token's are the first 360 of
/// them, six lines of 64, and in the compiler's they are spread over all seven.
#[repr(C)]
struct Under {
    body: Body,
    /// For the caller, not yet taken.
    ready: VecDeque<Bytes>,
    keep: Kept,
    over: bool,
    first: Option<Time>,
    stream: llm::Stream,
    began: Time,
    state: Arc<CandidateState>,
    /// Until it is settled.
    account: Option<Account>,
    /// What its end waits for.
    booked: Option<Booked>,
}

/// What the cache has of it.
enum Kept {
    Nothing,
    Begun(Box<Begun>),
    Keeping(Box<Keeping>),
}

/// It has not begun for its caller yet.
struct Begun {
    keep: Box<Keep>,
    note: Note,
    /// What has come of it.
    came: Vec<Bytes>,
}

/// A piece of a stream as it came, and what it becomes: at once, so all streams of a core use the same room.
#[derive(Default)]
struct Passing {
    came: Vec<u8>,
    out: Vec<u8>,
}

thread_local! {
    static PASSING: RefCell<Passing> = RefCell::default();
}

/// Why a stream did not begin, what it has cost, and what is still to be kept.
pub type Unbegun = (Failure, Account, Option<Box<Keep>>);

/// What must not be held back for ever while the first token is waited for.
const MOST_HELD: usize = 64 << 10;

impl Streamed {
    pub fn new(
        body: Body,
        stream: llm::Stream,
        account: Account,
        state: Arc<CandidateState>,
        began: Time,
        keep: Option<Box<Keep>>,
        note: Note,
    ) -> Box<Streamed> {
        let begun = |keep| Kept::Begun(Box::new(Begun { keep, note, came: Vec::new() }));
        Box::new(Streamed(Some(Under {
            body,
            ready: VecDeque::new(),
            keep: keep.map_or(Kept::Nothing, begun),
            over: false,
            first: None,
            stream,
            began,
            state,
            account: Some(account),
            booked: None,
        })))
    }

    /// Waits for the first token, so that another candidate can be tried if there is none. What comes before it is kept.
    /// The account comes back with the failure.
    pub async fn until_first(
        mut self: Box<Self>,
        timers: &Rc<Timers>,
        patience: Option<Duration>,
    ) -> Result<Box<Streamed>, Unbegun> {
        let Some(under) = self.0.as_mut() else { return Ok(self) };
        let mut timer = LazyTimer::new(timers);
        let until = patience.map(|patience| under.began + patience);
        let failure = loop {
            let polled = poll_fn(|cx| match under.poll(cx) {
                Poll::Ready(more) => Poll::Ready(Some(more)),
                Poll::Pending => match until {
                    Some(until) => timer.poll(until, cx).map(|()| None),
                    None => Poll::Pending,
                },
            });
            let Some(more) = polled.await else { break Failure::FirstToken(patience.unwrap_or_default()) };
            let seen = under.stream.seen();
            match &seen.fault {
                Some(_) if under.first.is_none() => break fault(seen.fault.as_ref()),
                _ => {}
            }
            let held: usize = under.ready.iter().map(Bytes::len).sum();
            if under.first.is_some() || seen.done || !more || held > MOST_HELD {
                under.keep_on();
                return Ok(self);
            }
        };
        match under.account.take() {
            Some(account) => {
                let keep = match std::mem::replace(&mut under.keep, Kept::Nothing) {
                    Kept::Begun(begun) => Some(begun.keep),
                    _ => None,
                };
                Err((failure, account.failed(under.stream.seen()), keep))
            }
            // It is there until the stream has ended, and a stream that has ended is given as it is.
            None => Ok(self),
        }
    }

    pub fn first_token(&self) -> Option<Time> {
        self.0.as_ref()?.first
    }
}

// === impl Under ===

impl Under {
    /// Its caller gets it, so that those who wait for the same may read along.
    fn keep_on(&mut self) {
        if let Kept::Begun(begun) = std::mem::replace(&mut self.keep, Kept::Nothing) {
            let Begun { keep, note, came } = *begun;
            let Some(keeping) = keep.for_others.and_then(|for_others| for_others.stream(note, came)) else { return };
            self.keep = Kept::Keeping(Box::new(keeping));
            if self.over {
                self.kept();
            }
        }
    }

    /// A piece of the provider's, as it came.
    fn keeps(&mut self, piece: &Bytes) {
        let goes_on = match &mut self.keep {
            Kept::Nothing => return,
            Kept::Begun(begun) => {
                if begun.keep.for_others.is_some() {
                    begun.came.push(piece.clone());
                }
                true
            }
            Kept::Keeping(keeping) => keeping.push(piece.clone()),
        };
        if !goes_on {
            self.keep = Kept::Nothing;
        }
    }

    /// The provider has said all it will.
    fn kept(&mut self) {
        if let Kept::Keeping(keeping) = std::mem::replace(&mut self.keep, Kept::Nothing)
            && self.stream.seen().fault.is_none()
        {
            keeping.finish();
        }
    }

    /// Takes one piece from the provider; false if there are no more.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.over {
            return Poll::Ready(false);
        }
        let mut out = Vec::new();
        match ready!(self.body.poll_frame(cx)) {
            Some(Ok(Frame::Data(data))) => {
                self.keeps(&data);
                if self.pass(&data, &mut out) {
                    self.ready.push_back(data);
                }
            }
            Some(Ok(Frame::Trailers(_))) => {}
            Some(Err(_)) | None => self.end(&mut out),
        }
        if !out.is_empty() {
            self.ready.push_back(Bytes::from(out));
        }
        Poll::Ready(!self.over)
    }

    /// The same for who writes it at once, so that nothing of it need be held. Gives what there is for the caller.
    fn poll_into(&mut self, cx: &mut Context<'_>, to: &mut Sink<'_>) -> Poll<Option<Piece>> {
        if self.stream.passes() { self.poll_through(cx, to) } else { self.poll_changed(cx, to) }
    }

    /// Of what passes as it is, which is looked at where it stands.
    fn poll_through(&mut self, cx: &mut Context<'_>, to: &mut Sink<'_>) -> Poll<Option<Piece>> {
        let mark = to.mark();
        let piece = ready!(self.body.poll_into(cx, to));
        // Also what came before a stream broke off.
        to.since(mark).for_each(|data| {
            self.stream.watch(data);
        });
        let piece = match piece {
            Some(Ok(Piece::Put(bytes))) => Some(Piece::Put(bytes)),
            Some(Ok(Piece::Frame(Frame::Data(data)))) => {
                self.stream.watch(&data);
                Some(Piece::Frame(Frame::Data(data)))
            }
            Some(Ok(Piece::Frame(Frame::Trailers(_)))) => None,
            Some(Err(_)) | None => {
                let mut out = Vec::new();
                self.end(&mut out);
                put(&out, to)
            }
        };
        self.note_first();
        Poll::Ready(piece)
    }

    /// Of what may become something else.
    fn poll_changed(&mut self, cx: &mut Context<'_>, to: &mut Sink<'_>) -> Poll<Option<Piece>> {
        PASSING.with_borrow_mut(|Passing { came, out }| {
            came.clear();
            out.clear();
            let as_it_is = match ready!(self.body.poll_into(cx, &mut Sink::bare(came))) {
                Some(Ok(Piece::Put(_))) => self.pass(came, out),
                Some(Ok(Piece::Frame(Frame::Data(data)))) => {
                    came.extend_from_slice(&data);
                    self.pass(came, out)
                }
                Some(Ok(Piece::Frame(Frame::Trailers(_)))) => false,
                Some(Err(_)) | None => {
                    self.end(out);
                    false
                }
            };
            let put = put(if as_it_is { came } else { out }, to);
            // What was large for once is not kept so.
            came.shrink_to(MOST_HELD);
            out.shrink_to(MOST_HELD);
            Poll::Ready(put)
        })
    }

    /// True if what came goes to the caller as it is; if not, what it becomes is in `out`.
    fn pass(&mut self, came: &[u8], out: &mut Vec<u8>) -> bool {
        let as_it_is = self.stream.watch(came);
        if !as_it_is {
            self.stream.push(came, out);
        }
        self.note_first();
        as_it_is
    }

    fn note_first(&mut self) {
        if self.first.is_none() && self.stream.seen().deltas > 0 {
            self.first = Some(Time::now());
        }
    }

    /// The provider has said all it will.
    fn end(&mut self, out: &mut Vec<u8>) {
        self.stream.finish(out);
        self.note_first();
        self.over = true;
        // Before the first token there is still a choice, so that the account is needed again.
        if self.stream.seen().fault.is_some() && self.first.is_none() {
            return;
        }
        if matches!(self.keep, Kept::Keeping(_)) {
            self.kept();
        }
        self.settle(Ending::of(self.stream.seen()));
    }

    /// Reads what is left for those who read along.
    async fn finish(mut self: Box<Self>) {
        loop {
            self.ready.clear();
            let more = poll_fn(|cx| self.poll(cx)).await;
            if !more || !self.is_read() {
                return;
            }
        }
    }

    fn is_read(&self) -> bool {
        matches!(&self.keep, Kept::Keeping(keeping) if keeping.is_read())
    }

    fn settle(&mut self, ending: Ending) {
        let Some(account) = self.account.take() else { return };
        let seen = self.stream.seen();
        if let Some(first) = self.first {
            let tokens = seen.usage.filter(|_| seen.settled).map_or(seen.deltas, |usage| usage.completion());
            match seen.fault {
                None => self.state.answered(first.since(self.began), tokens, Time::now().since(first)),
                Some(_) => self.state.failed(Time::now()),
            }
        }
        self.booked = account.served(seen, ending, self.first);
    }
}

fn put(data: &[u8], to: &mut Sink<'_>) -> Option<Piece> {
    if data.is_empty() {
        return None;
    }
    to.put(data);
    Some(Piece::Put(data.len()))
}

fn fault(fault: Option<&Fault>) -> Failure {
    match fault {
        Some(Fault::Provider { kind, message }) => {
            let status = match kind {
                Kind::RateLimited => 429,
                Kind::Overloaded => 503,
                Kind::Timeout => 504,
                Kind::Invalid => 400,
                _ => 502,
            };
            Failure::Said { status, kind: *kind, message: message.clone() }
        }
        _ => Failure::Garbled,
    }
}

impl Source for Streamed {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let Some(under) = &mut self.0 else { return Poll::Ready(None) };
        loop {
            if let Some(data) = under.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::Data(data))));
            }
            if under.over {
                if let Some(booked) = &mut under.booked {
                    ready!(Pin::new(booked).poll(cx));
                    under.booked = None;
                }
                return Poll::Ready(None);
            }
            ready!(under.poll(cx));
        }
    }

    fn poll_into(&mut self, cx: &mut Context<'_>, to: &mut Sink<'_>) -> Poll<Option<Result<Piece, BodyError>>> {
        while let Some(under) = &mut self.0 {
            // What waits comes first; and what others read along is held for them.
            if under.over || !under.ready.is_empty() || !matches!(under.keep, Kept::Nothing) {
                break;
            }
            if let Some(piece) = ready!(under.poll_into(cx, to)) {
                return Poll::Ready(Some(Ok(piece)));
            }
        }
        self.poll_frame(cx).map(|frame| frame.map(|frame| frame.map(Piece::Frame)))
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        let Some(under) = self.0.take() else { return };
        if !under.over
            && let Kept::Keeping(keeping) = &under.keep
            && keeping.is_read()
        {
            let worker = keeping.worker.clone();
            worker.outside.aside(Box::new(under).finish());
        }
    }
}

impl Drop for Under {
    fn drop(&mut self) {
        let ending = if self.over { Ending::of(self.stream.seen()) } else { Ending::Abandoned };
        self.settle(ending);
    }
}
