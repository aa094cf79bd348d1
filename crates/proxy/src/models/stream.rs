//! An answer that comes in pieces: metered or translated as it passes, and booked when it ends, however it ends.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base::Time;
use bytes::Bytes;
use llm::error::Kind;
use llm::stream::Fault;
use transport::{Body, BodyError, Frame, Source};

use super::books::{Account, Ending};
use super::state::CandidateState;
use super::words::Failure;
use crate::deadline::{LazyTimer, Timers};

pub struct Streamed {
    body: Body,
    stream: llm::Stream,
    /// Until it is settled.
    account: Option<Account>,
    state: Arc<CandidateState>,
    began: Time,
    first: Option<Time>,
    /// For the caller, not yet taken.
    ready: VecDeque<Bytes>,
    out: Vec<u8>,
    over: bool,
}

/// What must not be held back for ever while the first token is waited for.
const MOST_HELD: usize = 64 << 10;

impl Streamed {
    pub fn new(body: Body, stream: llm::Stream, account: Account, state: Arc<CandidateState>, began: Time) -> Streamed {
        Streamed {
            body,
            stream,
            account: Some(account),
            state,
            began,
            first: None,
            ready: VecDeque::new(),
            out: Vec::new(),
            over: false,
        }
    }

    /// Waits for the first token, so that another candidate can be tried if there is none. What comes before it is kept.
    /// The account comes back with the failure.
    pub async fn until_first(
        mut self,
        timers: &Rc<Timers>,
        patience: Option<Duration>,
    ) -> Result<Streamed, (Failure, Account)> {
        let mut timer = LazyTimer::new(timers);
        let until = patience.map(|patience| self.began + patience);
        let failure = loop {
            let polled = poll_fn(|cx| match self.poll(cx) {
                Poll::Ready(more) => Poll::Ready(Some(more)),
                Poll::Pending => match until {
                    Some(until) => timer.poll(until, cx).map(|()| None),
                    None => Poll::Pending,
                },
            });
            let Some(more) = polled.await else { break Failure::FirstToken(patience.unwrap_or_default()) };
            let seen = self.stream.seen();
            match &seen.fault {
                Some(_) if self.first.is_none() => break fault(seen.fault.as_ref()),
                _ => {}
            }
            let held: usize = self.ready.iter().map(Bytes::len).sum();
            if self.first.is_some() || seen.done || !more || held > MOST_HELD {
                return Ok(self);
            }
        };
        match self.account.take() {
            Some(account) => Err((failure, account.failed(self.stream.seen()))),
            // It is there until the stream has ended, and a stream that has ended is given as it is.
            None => Ok(self),
        }
    }

    pub fn first_token(&self) -> Option<Time> {
        self.first
    }

    /// Takes one piece from the provider; false if there are no more.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.over {
            return Poll::Ready(false);
        }
        match ready!(self.body.poll_frame(cx)) {
            Some(Ok(Frame::Data(data))) => {
                self.stream.push(&data, &mut self.out);
                self.note_first();
            }
            Some(Ok(Frame::Trailers(_))) => {}
            Some(Err(_)) | None => {
                self.stream.finish(&mut self.out);
                self.note_first();
                self.end();
            }
        }
        if !self.out.is_empty() {
            self.ready.push_back(Bytes::from(std::mem::take(&mut self.out)));
        }
        Poll::Ready(!self.over)
    }

    fn note_first(&mut self) {
        if self.first.is_none() && self.stream.seen().deltas > 0 {
            self.first = Some(Time::now());
        }
    }

    /// The provider has said all it will.
    fn end(&mut self) {
        self.over = true;
        // Before the first token there is still a choice, so that the account is needed again.
        if self.stream.seen().fault.is_some() && self.first.is_none() {
            return;
        }
        self.settle(Ending::of(self.stream.seen()));
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
        account.served(seen, ending, self.first);
    }
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
        loop {
            if let Some(data) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::Data(data))));
            }
            if self.over {
                return Poll::Ready(None);
            }
            ready!(self.poll(cx));
        }
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        let ending = if self.over { Ending::of(self.stream.seen()) } else { Ending::Abandoned };
        self.settle(ending);
    }
}
