//! What a thread has that hands records over: a ring of its own, and what all of them share with the writer.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64, fence};
use std::sync::mpsc::{self, Sender};
use std::thread::Thread;

use ledger::Entry;
use ledger::codec::LONGEST_FRAME;

use crate::ring::{Consumer, Producer};

/// Hands records over, from one thread at a time. What is handed over is in memory that outlives a killed process.
pub struct Handle {
    ring: Producer,
    control: Control,
    encoded: RefCell<Vec<u8>>,
    /// Tells the writer that there will be no more.
    _open: Arc<()>,
}

/// What was handed over, to ask for later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// There is no room for it: the disk has not taken anything for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal takes no more entries: as many as may wait are waiting for the disk")]
pub struct Rejected;

/// The way to the writer.
#[derive(Clone)]
pub(crate) struct Control {
    pub(crate) shared: Arc<Shared>,
    sender: Sender<Message>,
    writer: Thread,
}

#[derive(Debug)]
pub(crate) struct Shared {
    /// The next record's sequence.
    pub(crate) next: AtomicU64,
    /// All records up to this are durable.
    pub(crate) durable: AtomicU64,
    pub(crate) rejected: AtomicU64,
    /// The writer waits until it is woken.
    pub(crate) asleep: AtomicBool,
}

pub(crate) enum Message {
    Ring(Source),
    /// All that came before this sequence is durable, or cannot be.
    Flush(u64, Tell),
    End,
}

/// To be told whether it is durable.
pub(crate) type Tell = Box<dyn FnOnce(bool) + Send>;

/// A ring as the writer has it.
pub(crate) struct Source {
    pub(crate) ring: Consumer,
    /// Its file, or why it has none.
    pub(crate) file: io::Result<std::path::PathBuf>,
    /// The only one: its handle is gone.
    pub(crate) open: Arc<()>,
}

/// As many entries as are put into a ring at once.
const TOGETHER: usize = 8;

// === impl Handle ===

impl Handle {
    pub(crate) fn new(ring: Producer, control: Control, open: Arc<()>) -> Handle {
        Handle { ring, control, encoded: RefCell::default(), _open: open }
    }

    /// Hands over what a call cost: all of its entries or none. Does not wait.
    pub fn append(&self, entries: &[Entry]) -> Result<Ticket, Rejected> {
        let mut ticket = Ok(Ticket(0));
        for entries in entries.chunks(TOGETHER) {
            ticket = Ok(self.push(entries, Entry::encode)?);
        }
        ticket
    }

    /// Hands over, before a call, the entry that is booked if the process ends before it is settled.
    pub fn open(&self, worst: &Entry) -> Result<Ticket, Rejected> {
        self.push(std::slice::from_ref(worst), Entry::encode_opened)
    }

    fn push(&self, entries: &[Entry], encode: impl Fn(&Entry, u64, &mut Vec<u8>)) -> Result<Ticket, Rejected> {
        let Shared { next, rejected, asleep, .. } = &*self.control.shared;
        // Before there are sequences: each of those that are given out is waited for.
        if !self.ring.has_room(entries.len() * LONGEST_FRAME) {
            rejected.fetch_add(entries.len() as u64, Relaxed);
            return Err(Rejected);
        }
        let mut encoded = self.encoded.borrow_mut();
        encoded.clear();
        let count = entries.len() as u32;
        let first = next.fetch_add(count.into(), Relaxed);
        for (entry, sequence) in entries.iter().zip(first..) {
            encode(entry, sequence, &mut encoded);
        }
        let was_filling = self.ring.is_filling();
        self.ring.push(first, count, &encoded);
        // Either this sees that the writer sleeps, or the writer, which looks once more before, sees the record.
        fence(SeqCst);
        // And one that gathers hears once that it need not wait any more.
        if asleep.load(Relaxed) || (!was_filling && self.ring.is_filling()) {
            self.control.wake();
        }
        Ok(Ticket(first + u64::from(count) - 1))
    }

    /// It is on the disk, with all that was handed over before it.
    pub fn is_durable(&self, Ticket(ticket): Ticket) -> bool {
        self.control.shared.durable.load(Acquire) >= ticket
    }

    /// Writes at once, and tells, from the thread that writes, when that is on the disk with all that was handed over before
    /// it; or with `false` that the disk does not take it now. It is not told at all if the journal has been closed.
    pub fn when_durable(&self, Ticket(ticket): Ticket, tell: impl FnOnce(bool) + Send + 'static) {
        self.control.send(Message::Flush(ticket + 1, Box::new(tell)));
    }

    /// Waits until all that was handed over is durable. False if the disk does not take it.
    pub fn flush(&self) -> bool {
        self.control.flush()
    }

    /// Records that were handed over, by all, and are not yet durable.
    pub fn waiting(&self) -> u64 {
        let Shared { next, durable, .. } = &*self.control.shared;
        (next.load(Relaxed) - 1).saturating_sub(durable.load(Relaxed))
    }

    /// Records that nobody wrote down, since there was no room.
    pub fn rejected(&self) -> u64 {
        self.control.shared.rejected.load(Relaxed)
    }
}

// === impl Control ===

impl Control {
    pub(crate) fn new(shared: Arc<Shared>, sender: Sender<Message>, writer: Thread) -> Control {
        Control { shared, sender, writer }
    }

    pub(crate) fn send(&self, message: Message) {
        let _ = self.sender.send(message);
        self.wake();
    }

    pub(crate) fn flush(&self) -> bool {
        let (sender, receiver) = mpsc::channel();
        let tell = move |written| {
            let _ = sender.send(written);
        };
        self.send(Message::Flush(self.shared.next.load(Acquire), Box::new(tell)));
        receiver.recv().unwrap_or(false)
    }

    fn wake(&self) {
        self.shared.asleep.store(false, Relaxed);
        self.writer.unpark();
    }
}
