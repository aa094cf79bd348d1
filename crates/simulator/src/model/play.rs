//! A body that is played: its pieces in their time, and an entry in the books whichever way it ends.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::answer::AnswerBody;
use crate::model::books::{Books, Ended, Entry};
use crate::model::piece::Piece;
use crate::model::script::Usage;

/// An answer, rendered.
pub(crate) struct Plan {
    pub(crate) pieces: Vec<Piece>,
    pub(crate) then: Then,
    /// A stream has its time between its tokens, another answer before it begins.
    pub(crate) stream: bool,
    pub(crate) content_type: &'static str,
    pub(crate) first: Duration,
    pub(crate) every: Duration,
    pub(crate) usage: Usage,
    pub(crate) model: String,
    pub(crate) tag: Option<String>,
    /// What the rate-limit headers say, if the call had a word in it.
    pub(crate) remaining_tokens: Option<u64>,
    pub(crate) remaining_requests: Option<u64>,
}

/// What follows the last piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    End,
    Cut,
    Hang,
}

impl Plan {
    /// When a piece is due that has so many tokens before it.
    fn due(&self, tokens: u32) -> Duration {
        self.first + self.every * tokens
    }

    /// How long the whole of it takes.
    pub(crate) fn takes(&self) -> Duration {
        if self.usage.output == 0 { self.first } else { self.due(self.usage.output - 1) }
    }
}

/// The entry of a call under way: written when dropped.
pub(crate) struct Booking {
    pub(crate) entry: Option<Entry>,
    books: Arc<Books>,
    /// Of an answer that is still being made.
    making: Option<(Instant, Arc<Plan>)>,
}

impl Booking {
    pub(crate) fn new(books: Arc<Books>, entry: Entry) -> Self {
        Self { entry: Some(entry), books, making: None }
    }

    pub(crate) fn begins(&mut self, plan: &Arc<Plan>) {
        let Some(entry) = &mut self.entry else { return };
        entry.status = 200;
        entry.ended = Ended::Cancelled;
        entry.stream = plan.stream;
        entry.usage = Usage { output: 0, reasoning: 0, ..plan.usage };
        if !plan.stream {
            self.making = Some((Instant::now(), plan.clone()));
        }
    }

    fn makes(&mut self, tokens: u32, of: &Usage) {
        let Some(entry) = &mut self.entry else { return };
        entry.usage.output += tokens;
        // They come first.
        entry.usage.reasoning = of.reasoning.min(entry.usage.output);
    }

    fn ends(&mut self, ended: Ended) {
        let Some(mut entry) = self.entry.take() else { return };
        entry.ended = ended;
        self.books.write(entry);
    }
}

impl Drop for Booking {
    fn drop(&mut self) {
        if let Some((start, plan)) = self.making.take() {
            let made = (0..plan.usage.output).take_while(|made| start.elapsed() >= plan.due(*made)).count();
            self.makes(made as u32, &plan.usage);
        }
        let ended = self.entry.as_ref().map(|entry| entry.ended);
        if let Some(ended) = ended {
            self.ends(ended);
        }
    }
}

pub(crate) struct Play {
    plan: Arc<Plan>,
    booking: Booking,
    id: String,
    created: u64,
    /// The nanosecond at which the call came.
    came: u64,
    next: usize,
    tokens: u32,
    start: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Play {
    pub(crate) fn body(plan: Arc<Plan>, mut booking: Booking, id: String, created: u64, came: u64) -> AnswerBody {
        booking.making = None;
        let start = Instant::now();
        Self { plan, booking, id, created, came, next: 0, tokens: 0, start, sleep: None }.boxed_unsync()
    }

    fn over(&mut self) {
        match self.plan.then {
            Then::End => self.booking.ends(Ended::Completed),
            Then::Cut => self.booking.ends(Ended::Cut),
            Then::Hang => {}
        }
    }
}

impl Body for Play {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        let Some(piece) = this.plan.pieces.get(this.next) else {
            this.over();
            return match this.plan.then {
                Then::End => Poll::Ready(None),
                Then::Cut => Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
                Then::Hang => Poll::Pending,
            };
        };
        if this.plan.stream && piece.tokens > 0 {
            let due = this.start + this.plan.due(this.tokens);
            if due > Instant::now() {
                match &mut this.sleep {
                    Some(sleep) => sleep.as_mut().reset(due),
                    None => this.sleep = Some(Box::pin(sleep_until(due))),
                }
            }
            if let Some(sleep) = &mut this.sleep
                && !sleep.is_elapsed()
            {
                ready!(sleep.as_mut().poll(cx));
            }
        }
        let bytes = piece.fill(&this.id, this.created, this.came);
        let (tokens, usage) = (piece.tokens, piece.usage);
        this.tokens += tokens;
        this.next += 1;
        let of = this.plan.usage;
        this.booking.makes(tokens, &of);
        if let Some(entry) = &mut this.booking.entry {
            entry.told |= usage;
        }
        if this.next == this.plan.pieces.len() && this.plan.then == Then::End {
            this.over();
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> SizeHint {
        if self.plan.stream {
            return SizeHint::default();
        }
        let left: usize = self.plan.pieces[self.next..].iter().map(Piece::len).sum();
        // A promise that is not kept is how a cut is noticed.
        let missing = if self.plan.then == Then::Cut { left.max(1) } else { 0 };
        SizeHint::with_exact((left + missing) as u64)
    }

    fn is_end_stream(&self) -> bool {
        self.next == self.plan.pieces.len() && self.plan.then == Then::End
    }
}
