//! The thread that writes, and what the others hand it.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread;
use std::time::{Duration, SystemTime};

use ledger::{Entry, Moment, Opened, Record};

use crate::{Settings, folder, segment};

/// Whether entries can be written.
#[derive(Debug)]
pub enum State {
    /// They can, again.
    Writing,
    /// There is no space. What is handed over waits in memory, as far as there is room.
    Full(io::Error),
    /// The disk refuses for another reason.
    Failing(io::Error),
}

/// Hands records over. As many as one likes, on any thread.
#[derive(Clone)]
pub struct Handle {
    sender: Sender<Message>,
    shared: Arc<Shared>,
    backlog: u64,
}

/// What was handed over, to ask for later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// There is no room for it: the disk has not taken anything for a while.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("the journal takes no more entries: as many as may wait are waiting for the disk")]
pub struct Rejected(pub Box<Record>);

#[expect(clippy::large_enum_variant, reason = "nearly all are records, and a box is what handing over would cost most")]
pub(crate) enum Message {
    Record(u64, Record),
    /// All that came before is durable, or cannot be.
    Flush(Sender<bool>),
    End,
}

#[derive(Debug)]
pub(crate) struct Shared {
    handed: AtomicU64,
    taken: AtomicU64,
    /// All tickets up to this are durable.
    durable: AtomicU64,
    rejected: AtomicU64,
}

pub(crate) struct Writer {
    folder: PathBuf,
    settings: Settings,
    receiver: Receiver<Message>,
    shared: Arc<Shared>,
    told: Box<dyn FnMut(&State) + Send>,
    _lock: File,
    file: Option<File>,
    /// How much of the file is synced; what is behind may be anything.
    synced: u64,
    next: u64,
    /// Encoded and not synced.
    batch: Vec<u8>,
    /// How many records that is, and their tickets.
    tickets: Vec<u64>,
    /// Durable, and beyond a ticket that is not: cores are not in step.
    ahead: Vec<u64>,
    trouble: bool,
}

/// How many records are written at once, at most.
const MOST: usize = 4096;
/// How many times the writer looks for more before it sleeps, and the next one must wake it.
const LINGER: u32 = 20;
/// How long it waits after the disk refused.
const AGAIN: Duration = Duration::from_millis(250);

// === impl Handle ===

impl Handle {
    pub(crate) fn new(sender: Sender<Message>, shared: Arc<Shared>, backlog: usize) -> Handle {
        Handle { sender, shared, backlog: backlog as u64 }
    }

    /// Hands over what a call cost. Does not wait.
    pub fn append(&self, entry: Entry) -> Result<Ticket, Rejected> {
        self.push(Record::Entry(entry))
    }

    /// Hands over what a call may cost, before it; see [`Opened`].
    pub fn open(&self, opened: Opened) -> Result<Ticket, Rejected> {
        self.push(Record::Opened(opened))
    }

    pub(crate) fn push(&self, record: Record) -> Result<Ticket, Rejected> {
        let Shared { handed, taken, durable: _, rejected } = &*self.shared;
        if handed.load(Relaxed).saturating_sub(taken.load(Relaxed)) >= self.backlog {
            rejected.fetch_add(1, Relaxed);
            return Err(Rejected(Box::new(record)));
        }
        let ticket = handed.fetch_add(1, Relaxed) + 1;
        match self.sender.send(Message::Record(ticket, record)) {
            Ok(()) => Ok(Ticket(ticket)),
            Err(mpsc::SendError(Message::Record(_, record))) => {
                rejected.fetch_add(1, Relaxed);
                Err(Rejected(Box::new(record)))
            }
            Err(_) => Ok(Ticket(ticket)),
        }
    }

    /// It is on the disk, with all that was handed over before it.
    pub fn is_durable(&self, Ticket(ticket): Ticket) -> bool {
        self.shared.durable.load(Acquire) >= ticket
    }

    /// Waits until all that was handed over is durable. False if the disk does not take it.
    pub fn flush(&self) -> bool {
        let (sender, receiver) = mpsc::channel();
        self.send(Message::Flush(sender));
        receiver.recv().unwrap_or(false)
    }

    /// Records that were handed over and are not yet durable.
    pub fn waiting(&self) -> u64 {
        self.shared.handed.load(Relaxed).saturating_sub(self.shared.durable.load(Relaxed))
    }

    /// Records that nobody wrote down, since there was no room.
    pub fn rejected(&self) -> u64 {
        self.shared.rejected.load(Relaxed)
    }

    pub(crate) fn send(&self, message: Message) {
        let _ = self.sender.send(message);
    }
}

impl Shared {
    pub(crate) fn new() -> Arc<Shared> {
        Arc::new(Shared { handed: 0.into(), taken: 0.into(), durable: 0.into(), rejected: 0.into() })
    }
}

// === impl Writer ===

impl Writer {
    #[expect(clippy::too_many_arguments, reason = "called once, with all that a writer is")]
    pub(crate) fn new(
        folder: PathBuf,
        tail: Option<(PathBuf, u64)>,
        next: u64,
        settings: Settings,
        receiver: Receiver<Message>,
        shared: Arc<Shared>,
        told: Box<dyn FnMut(&State) + Send>,
        lock: File,
    ) -> Writer {
        let (file, synced) = match tail {
            Some((path, end)) => (File::options().write(true).open(path).ok(), end),
            None => (None, 0),
        };
        Writer {
            folder,
            settings,
            receiver,
            shared,
            told,
            _lock: lock,
            file,
            synced,
            next,
            batch: Vec::new(),
            tickets: Vec::new(),
            ahead: Vec::new(),
            trouble: false,
        }
    }

    pub(crate) fn run(mut self) {
        self.forget_old();
        let mut idle = 0;
        loop {
            let mut flushes = Vec::new();
            let mut ends = false;
            if self.tickets.is_empty() && idle >= LINGER {
                match self.receiver.recv() {
                    Ok(message) => ends |= self.take(message, &mut flushes),
                    Err(mpsc::RecvError) => return,
                }
            }
            // While it sleeps so, nobody has to wake it: handing over is free of system calls.
            if flushes.is_empty() && !ends && !self.trouble {
                thread::sleep(self.settings.commit);
            }
            while self.tickets.len() < MOST && !ends {
                match self.receiver.try_recv() {
                    Ok(message) => ends |= self.take(message, &mut flushes),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => ends = true,
                }
            }
            idle = if self.tickets.is_empty() { idle + 1 } else { 0 };
            let written = self.commit();
            for flush in flushes {
                let _ = flush.send(written);
            }
            if ends {
                return;
            }
            if !written {
                thread::sleep(AGAIN);
            }
        }
    }

    /// True if there is nothing more to come.
    fn take(&mut self, message: Message, flushes: &mut Vec<Sender<bool>>) -> bool {
        match message {
            Message::Record(ticket, record) => {
                record.encode(self.next, &mut self.batch);
                self.next += 1;
                self.tickets.push(ticket);
                false
            }
            Message::Flush(sender) => {
                flushes.push(sender);
                false
            }
            Message::End => true,
        }
    }

    /// Writes and syncs the batch, or keeps it for the next time. False if it could not.
    fn commit(&mut self) -> bool {
        if self.batch.is_empty() {
            return true;
        }
        match self.write() {
            Ok(()) => {
                self.synced += self.batch.len() as u64;
                self.batch.clear();
                self.batch.shrink_to(1 << 20);
                self.acknowledge();
                if self.trouble {
                    self.trouble = false;
                    (self.told)(&State::Writing);
                }
                true
            }
            Err(error) => {
                if !self.trouble {
                    self.trouble = true;
                    let full = matches!(
                        error.kind(),
                        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
                    );
                    (self.told)(&if full { State::Full(error) } else { State::Failing(error) });
                }
                false
            }
        }
    }

    /// All of the batch behind what is synced. If it fails, what it left there is written over the next time: a failed
    /// sync says nothing of what is on the disk, so nothing of it is relied on.
    fn write(&mut self) -> io::Result<()> {
        if self.file.is_none() || self.synced >= self.settings.segment {
            self.begin()?;
        }
        let Some(file) = &mut self.file else { return Err(io::Error::other("there is no file to write to")) };
        if self.trouble {
            file.set_len(self.synced)?;
        }
        file.seek(SeekFrom::Start(self.synced))?;
        file.write_all(&self.batch)?;
        file.sync_data()
    }

    /// The next file, for what is in the batch and after.
    fn begin(&mut self) -> io::Result<()> {
        let first = self.next - self.tickets.len() as u64;
        let path = folder::segment_path(&self.folder, first);
        let make = || {
            let mut file = File::options().write(true).create(true).truncate(true).open(&path)?;
            segment::write_head(&mut file, Moment::from(SystemTime::now()))?;
            file.sync_all()?;
            folder::sync(&self.folder)?;
            Ok(file)
        };
        match make() {
            Ok(file) => {
                self.file = Some(file);
                self.synced = segment::HEAD as u64;
                self.forget_old();
                Ok(())
            }
            Err(error) => {
                // Half a head is of no use, and takes space.
                let _ = fs::remove_file(&path);
                Err(error)
            }
        }
    }

    fn acknowledge(&mut self) {
        let Shared { taken, durable, .. } = &*self.shared;
        taken.fetch_add(self.tickets.len() as u64, Relaxed);
        self.ahead.append(&mut self.tickets);
        self.ahead.sort_unstable();
        let mut until = durable.load(Relaxed);
        let beyond = self.ahead.iter().position(|ticket| {
            let follows = *ticket == until + 1;
            until += u64::from(follows);
            !follows
        });
        self.ahead.drain(..beyond.unwrap_or(self.ahead.len()));
        durable.store(until, Release);
    }

    /// Deletes files all of whose records are older than they are kept.
    fn forget_old(&self) {
        let Some(keep) = self.settings.keep else { return };
        let Some(limit) = SystemTime::now().checked_sub(keep).map(Moment::from) else { return };
        let Ok(segments) = folder::segments(&self.folder) else { return };
        for pair in segments.windows(2) {
            let (old, next) = (&pair[0].1, &pair[1].1);
            match segment::begun(next) {
                // What the next file's beginning is older than, its predecessor's records are, too.
                Ok(Some(begun)) if begun < limit => {
                    let _ = fs::remove_file(old);
                }
                _ => return,
            }
        }
    }
}
