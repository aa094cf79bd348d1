//! What another call is being answered, read along in the words of one more caller.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use cache::Reader;
use ledger::Outcome;
use transport::{BodyError, Frame, Source};

use super::books::{Booked, Saving};

pub struct Replay {
    reader: Reader,
    stream: llm::Stream,
    /// Until it is booked.
    saving: Option<Saving>,
    /// What its end waits for.
    booked: Option<Booked>,
    out: Vec<u8>,
    over: bool,
}

impl Replay {
    pub fn new(reader: Reader, stream: llm::Stream, saving: Saving) -> Replay {
        Replay { reader, stream, saving: Some(saving), booked: None, out: Vec::new(), over: false }
    }

    fn book(&mut self, outcome: Outcome) {
        let Some(saving) = self.saving.take() else { return };
        let seen = self.stream.seen();
        self.booked = saving.book(seen.usage.filter(|_| seen.settled), seen.text as usize, outcome);
    }
}

impl Source for Replay {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        while !self.over {
            match ready!(self.reader.poll(cx)) {
                Some(Ok(piece)) => self.stream.push(&piece, &mut self.out),
                // If it broke off, the end that is missing is told as an error.
                Some(Err(())) | None => {
                    self.over = true;
                    self.stream.finish(&mut self.out);
                    let cut = self.stream.seen().fault.is_some();
                    self.book(if cut { Outcome::Cut } else { Outcome::Answered });
                }
            }
            if !self.out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::Data(Bytes::from(std::mem::take(&mut self.out))))));
            }
        }
        if let Some(booked) = &mut self.booked {
            ready!(Pin::new(booked).poll(cx));
            self.booked = None;
        }
        Poll::Ready(None)
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.book(Outcome::Cancelled);
    }
}
