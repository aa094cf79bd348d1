//! The answer of a provider on its way into the cache: what was whole is kept at once, a stream as it passes, and who waits
//! for the same reads along. What is not worth keeping, or never ends, is kept for nobody.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base::{ResponseHead, StatusCode, Time};
use bytes::Bytes;
use cache::{Entry, Key, Plan, Ticket};
use ledger::Price;
use llm::Dialect;
use llm::again::{Kept, Worth, worth_keeping};

use super::near::Remember;
use crate::known::status::{Forwarded, Status};
use crate::worker::Worker;

/// What is to be known of a kept answer beside its bytes.
#[derive(Clone)]
pub struct Note {
    /// Its provider's.
    pub dialect: Dialect,
    pub stream: bool,
    pub provider: Arc<str>,
    /// As its provider calls the model.
    pub model: Arc<str>,
    pub price: Option<Arc<Price>>,
    /// Tokens of the prompt, about, in case the provider did not tell.
    pub prompt: u64,
    /// What was lost on the way to the provider, in the words of that caller.
    pub lost: Option<(Dialect, Box<[u8]>)>,
    /// How near the question is that it was given to, where it is another.
    pub similarity: Option<f32>,
}

/// What becomes of the answer to a call that the cache could not answer.
pub struct Keep {
    pub why: Forwarded,
    pub detail: Option<&'static str>,
    /// If it is to be kept, and given to others who wait for it.
    pub for_others: Option<ForOthers>,
}

pub struct ForOthers {
    pub worker: Rc<Worker>,
    pub ticket: Ticket,
    pub key: Key,
    pub api: Arc<str>,
    pub ttl: Duration,
    pub tags: Vec<String>,
    /// Bytes of the largest answer.
    pub most: usize,
    /// Where its question is remembered.
    pub remember: Option<Remember>,
}

/// A stream that is kept as it passes.
pub struct Keeping {
    pub worker: Rc<Worker>,
    ticket: Ticket,
    head: Arc<Entry>,
    note: Arc<Note>,
    most: usize,
    pieces: Vec<Bytes>,
    length: usize,
    reserved: usize,
    remember: Option<Remember>,
}

/// By how much memory is taken for a body that is on its way.
const STEP: usize = 16 << 10;

// === impl Keep ===

impl Keep {
    pub fn status(&self, answered: StatusCode) -> Status {
        Status::answered(self.why, answered).saying(self.detail)
    }

    /// There is no answer to keep; who waits for one goes his own way at once.
    pub fn give_up(self) {
        if let Some(ForOthers { ticket, .. }) = self.for_others {
            ticket.pass(None);
        }
    }
}

// === impl ForOthers ===

impl ForOthers {
    /// Keeps an answer that came whole, if it is worth it.
    pub fn whole(self, note: Note, body: &Bytes) -> bool {
        let kept = Kept { dialect: note.dialect, stream: false, body };
        let worth = if body.len() <= self.most { worth_keeping(&kept) } else { None };
        let (head, ticket, remember) = self.head(Arc::new(note));
        match worth {
            Some(worth) => {
                let entry = ticket.land(head.with_body(body.clone()));
                told(remember, &worth, &entry);
                true
            }
            None => {
                // The next is likely to be of no use to others either.
                ticket.pass(Some(Time::now()));
                false
            }
        }
    }

    /// The stream has begun: what has come of it already, and whoever waits reads along from here on.
    pub fn stream(self, note: Note, begun: Vec<Bytes>) -> Option<Keeping> {
        let (worker, most, note) = (self.worker.clone(), self.most, Arc::new(note));
        let (head, ticket, remember) = self.head(note.clone());
        let head = Arc::new(head);
        // The first reader would be ourselves, who have the pieces anyway.
        drop(ticket.stream(head.clone(), None));
        let mut keeping =
            Keeping { worker, ticket, head, note, most, pieces: Vec::new(), length: 0, reserved: 0, remember };
        begun.into_iter().all(|piece| keeping.push(piece)).then_some(keeping)
    }

    fn head(self, note: Arc<Note>) -> (Entry, Ticket, Option<Remember>) {
        let ForOthers { ticket, key, api, ttl, tags, remember, .. } = self;
        let plan = Plan::plain(ttl, tags);
        let reply = ResponseHead::new(StatusCode::OK);
        let mut entry = Entry::new(&key, api, &reply, Bytes::new(), plan, (Time::now(), SystemTime::now()));
        entry.note = Some(note);
        (entry, ticket, remember)
    }
}

// === impl Keeping ===

impl Keeping {
    /// Another piece. False if it cannot be kept any more: then whoever reads along is cut off.
    pub fn push(&mut self, piece: Bytes) -> bool {
        self.length += piece.len();
        if self.length > self.most {
            return false;
        }
        if self.length > self.reserved {
            let more = (self.length - self.reserved).next_multiple_of(STEP);
            if !self.ticket.reserve(more) {
                return false;
            }
            self.reserved += more;
        }
        self.pieces.push(piece.clone());
        self.ticket.push(piece, usize::MAX);
        true
    }

    /// Whether somebody reads along.
    pub fn is_read(&self) -> bool {
        self.ticket.is_read()
    }

    /// The stream has come to its proper end.
    pub fn finish(self) {
        let Keeping { ticket, head, note, pieces, remember, .. } = self;
        let body = Bytes::from(pieces.concat());
        match worth_keeping(&Kept { dialect: note.dialect, stream: true, body: &body }) {
            Some(worth) => {
                let entry = ticket.land(head.with_body(body));
                told(remember, &worth, &entry);
            }
            None => ticket.end(),
        }
    }
}

/// What tools are to be called with depends on every word, so those answers are for the same question alone.
fn told(remember: Option<Remember>, worth: &Worth, entry: &Arc<Entry>) {
    if let Some(remember) = remember.filter(|_| !worth.calls) {
        remember.answer(entry);
    }
}
