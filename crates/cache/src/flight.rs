//! One fetch for all who want the same at the same time: they get its answer, or go their own ways at once.
//!
//! Who fetches holds the [`Ticket`]; whatever becomes of it, the others are told when it is dropped. The lock is held
//! for as long as it takes to copy a pointer, and only by those who wait for the upstream anyway.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use base::Time;
use bytes::Bytes;

use crate::entry::Entry;
use crate::store::{Of, Store};

#[derive(Debug, Default)]
pub struct Flight(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    pieces: VecDeque<Bytes>,
    /// Pieces that are no more among them.
    dropped: usize,
    /// Bytes in them.
    held: usize,
    /// Of all who wait; a place is not used twice.
    places: Vec<Place>,
    /// It turned out to be too large to be kept: nobody new may read along, and what all have read is dropped.
    passing: bool,
    pump: Option<Waker>,
    /// What it brings is out of date before it is there.
    void: bool,
}

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Waiting,
    /// The head is there, in an entry without a body, and how long the body will be.
    Streaming(Arc<Entry>, Option<u64>),
    Landed(Arc<Entry>),
    /// The body is whole, and not kept.
    Ended,
    /// There is nothing for the others.
    Passed,
    /// Who fetched left before there was anything; another may.
    Abandoned,
    Broken,
}

#[derive(Debug, Default)]
struct Place {
    waker: Option<Waker>,
    /// The piece it will read next.
    reading: Option<usize>,
}

/// What came of waiting.
#[derive(Debug)]
pub enum Joined {
    Entry(Arc<Entry>),
    /// Its head, without its body, and the body as it comes.
    Stream(Arc<Entry>, Reader),
    /// Nothing that others could use.
    Alone,
    /// Who fetched left before it was known.
    Again,
}

/// One who reads along.
#[derive(Debug)]
pub struct Reader {
    flight: Arc<Flight>,
    place: usize,
    left: Option<u64>,
}

/// The right and the duty to fetch for all who wait.
pub struct Ticket {
    flight: Arc<Flight>,
    store: Arc<Store>,
    /// Of the key it was boarded for.
    shard: usize,
    hash: u64,
    /// Bytes that are held for it before it is kept.
    reserved: usize,
}

// === impl Flight ===

/// More than this is not held for the slowest reader of what is not kept.
const WINDOW: usize = 256 * 1024;

impl Flight {
    /// Waits until it is known what the others get.
    pub async fn join(self: &Arc<Flight>) -> Joined {
        let mut waiting = Waiting { flight: self, place: None };
        poll_fn(|cx| waiting.poll(cx)).await
    }

    /// Whether somebody new may wait for it.
    pub(crate) fn is_joinable(&self) -> bool {
        let state = self.state();
        !state.void && !state.passing && matches!(state.phase, Phase::Waiting | Phase::Streaming(..))
    }

    pub(crate) fn is_over(&self) -> bool {
        !matches!(self.state().phase, Phase::Waiting | Phase::Streaming(..))
    }

    /// What it brings must not be kept.
    pub(crate) fn void(&self) {
        self.state().void = true;
    }

    pub(crate) fn is_void(&self) -> bool {
        self.state().void
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn become_of(&self, phase: Phase) {
        let mut state = self.state();
        if matches!(state.phase, Phase::Waiting | Phase::Streaming(..)) {
            state.phase = phase;
        }
        state.wake();
    }
}

impl State {
    fn wake(&mut self) {
        for waker in self.places.iter_mut().filter_map(|place| place.waker.take()) {
            waker.wake();
        }
    }

    fn place(&mut self) -> usize {
        self.places.push(Place::default());
        self.places.len() - 1
    }

    fn is_read(&self) -> bool {
        self.places.iter().any(|place| place.reading.is_some())
    }

    /// Lets go of what all have read, once it is not kept for those to come.
    fn trim(&mut self) {
        if !self.passing {
            return;
        }
        let slowest = self.places.iter().filter_map(|place| place.reading).min().unwrap_or(usize::MAX);
        while self.dropped < slowest
            && let Some(piece) = self.pieces.pop_front()
        {
            self.held -= piece.len();
            self.dropped += 1;
        }
        if let Some(pump) = self.pump.take() {
            pump.wake();
        }
    }
}

struct Waiting<'a> {
    flight: &'a Arc<Flight>,
    place: Option<usize>,
}

impl Waiting<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Joined> {
        let mut state = self.flight.state();
        let joined = match &state.phase {
            Phase::Waiting => {
                let place = *self.place.get_or_insert_with(|| state.place());
                state.places[place].waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Phase::Landed(entry) => Joined::Entry(entry.clone()),
            Phase::Streaming(head, length) if !state.passing => {
                let (head, left) = (head.clone(), *length);
                let place = state.place();
                state.places[place].reading = Some(0);
                Joined::Stream(head, Reader { flight: self.flight.clone(), place, left })
            }
            Phase::Abandoned => Joined::Again,
            _ => Joined::Alone,
        };
        Poll::Ready(joined)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.flight.state().places[place].waker = None;
        }
    }
}

// === impl Reader ===

impl Reader {
    /// The next piece; an error if the fetch broke off.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ()>>> {
        let mut state = self.flight.state();
        let Some(next) = state.places[self.place].reading else { return Poll::Ready(None) };
        if let Some(piece) = state.pieces.get(next - state.dropped).cloned() {
            state.places[self.place].reading = Some(next + 1);
            state.trim();
            if let Some(left) = &mut self.left {
                *left = left.saturating_sub(piece.len() as u64);
            }
            return Poll::Ready(Some(Ok(piece)));
        }
        match state.phase {
            Phase::Landed(_) | Phase::Ended => Poll::Ready(None),
            Phase::Passed | Phase::Abandoned | Phase::Broken => Poll::Ready(Some(Err(()))),
            Phase::Waiting | Phase::Streaming(..) => {
                state.places[self.place].waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Bytes still to come, where that is known.
    pub fn left(&self) -> Option<u64> {
        self.left
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.flight.state();
        state.places[self.place] = Place::default();
        state.trim();
        if let Some(pump) = state.pump.take() {
            pump.wake();
        }
    }
}

// === impl Ticket ===

impl Ticket {
    pub(crate) fn new(flight: Arc<Flight>, store: Arc<Store>, shard: usize, hash: u64) -> Ticket {
        Ticket { flight, store, shard, hash, reserved: 0 }
    }

    /// Nothing for the others. If it is likely to be so again, as from now, nobody waits the next time.
    pub fn pass(self, again: Option<Time>) {
        if let Some(now) = again {
            self.store.note_pass(self.shard, self.hash, now);
        }
        self.flight.become_of(Phase::Passed);
    }

    /// Takes room for a body that is on its way; false if too much is.
    pub fn reserve(&mut self, bytes: usize) -> bool {
        let had = self.store.reserve(bytes);
        if had {
            self.reserved += bytes;
        }
        had
    }

    /// Keeps the answer and gives it to all who wait.
    pub fn land(self, entry: Entry) -> Arc<Entry> {
        let entry = Arc::new(self.store.numbered(entry));
        self.store.put(self.hash, &self.flight, &entry, Of::Upstream);
        self.flight.become_of(Phase::Landed(entry.clone()));
        entry
    }

    /// Somebody else had brought it just before: that is what those who wait get.
    pub fn found(self, entry: Arc<Entry>) {
        self.flight.become_of(Phase::Landed(entry));
    }

    /// The disk had the answer. `None` if it was forgotten meanwhile.
    pub fn recall(self, entry: Entry) -> Option<Arc<Entry>> {
        let entry = Arc::new(self.store.numbered(entry));
        self.store.put(self.hash, &self.flight, &entry, Of::Disk);
        if self.flight.is_void() {
            return None;
        }
        self.flight.become_of(Phase::Landed(entry.clone()));
        Some(entry)
    }

    /// What was kept is told not to have changed.
    pub fn renew(self, old: &Arc<Entry>, entry: Entry) -> Arc<Entry> {
        let entry = Arc::new(self.store.numbered(entry));
        self.store.replace(self.hash, &self.flight, old, &entry);
        self.flight.become_of(Phase::Landed(entry.clone()));
        entry
    }

    /// The head is there; whoever waits may read along. The first reader is the one who fetched.
    pub fn stream(&self, head: Arc<Entry>, length: Option<u64>) -> Reader {
        let mut state = self.flight.state();
        state.phase = Phase::Streaming(head, length);
        let place = state.place();
        state.places[place].reading = Some(0);
        state.wake();
        Reader { flight: self.flight.clone(), place, left: length }
    }

    pub fn push(&self, piece: Bytes, most: usize) {
        let mut state = self.flight.state();
        state.held += piece.len();
        state.pieces.push_back(piece);
        if state.held > most {
            state.passing = true;
            state.trim();
        }
        state.wake();
    }

    /// Ready when more may be pushed: what is not kept goes no faster than it is read. False if nobody reads it.
    pub fn poll_room(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut state = self.flight.state();
        if !state.passing {
            return Poll::Ready(true);
        }
        if !state.is_read() {
            return Poll::Ready(false);
        }
        if state.held <= WINDOW {
            return Poll::Ready(true);
        }
        state.pump = Some(cx.waker().clone());
        Poll::Pending
    }

    /// All of the body has been pushed, and it is not kept.
    pub fn end(self) {
        self.flight.become_of(Phase::Ended);
    }

    /// Whether anybody reads along.
    pub fn is_read(&self) -> bool {
        self.flight.state().is_read()
    }

    /// All of the body has been pushed: kept, unless it is too large. Gives what is kept.
    pub fn finish(self) -> Option<Arc<Entry>> {
        let (head, body) = {
            let state = self.flight.state();
            match &state.phase {
                Phase::Streaming(head, _) if !state.passing => {
                    let mut body = Vec::with_capacity(state.held);
                    state.pieces.iter().for_each(|piece| body.extend_from_slice(piece));
                    (head.clone(), body)
                }
                _ => {
                    drop(state);
                    self.flight.become_of(Phase::Ended);
                    return None;
                }
            }
        };
        let entry = head.with_body(Bytes::from(body));
        Some(self.land(entry))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let broken = match self.flight.state().phase {
            Phase::Waiting => Phase::Abandoned,
            _ => Phase::Broken,
        };
        self.flight.become_of(broken);
        self.store.release(self.reserved);
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").field("hash", &self.hash).finish_non_exhaustive()
    }
}
