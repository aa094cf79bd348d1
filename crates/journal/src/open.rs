//! Opening a journal: what the last process left behind is found, and what it left unfinished is cut off or finished.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;

use ledger::{Entry, Moment, Record};

use crate::handle::{Control, Handle, Message, Shared, Source};
use crate::segment::Frames;
use crate::writer::{State, Writer};
use crate::{Settings, folder, reader, spool};

/// A journal that is written to. Ends when it is closed: dropped, it leaves to whoever opens it next what was not synced.
#[must_use = "a journal that is not closed leaves what was handed over last to the next process"]
pub struct Journal {
    slot: PathBuf,
    /// Of each ring.
    bytes: u64,
    control: Control,
    thread: Option<thread::JoinHandle<()>>,
    /// With the sequence it makes the id of an entry.
    pub writer: u64,
}

/// What was found when a journal was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Entries that were read, and given to the caller.
    pub entries: u64,
    /// Ends of files that were no whole records, and were cut off. They were never acknowledged.
    pub torn: Vec<Torn>,
    /// Bytes in the midst of files that are not as they were written; passed over.
    pub damaged: u64,
    /// Records that the last process had handed over, and nobody had written yet.
    pub spooled: u64,
    /// Reservations that nothing settles. Each is booked now, as it was reserved.
    pub crashed: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    pub file: PathBuf,
    pub at: u64,
    pub bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("as many processes as may write to the journal in `{}`; expected a folder of its own for each node", .0.display())]
    Taken(PathBuf),
    #[error("the journal in `{}` cannot be opened", .folder.display())]
    Io { folder: PathBuf, source: io::Error },
}

impl Journal {
    /// Opens the journal in a folder, which is made if need be. Every entry of calls that began at `since` or later goes
    /// to `replay` first, those of one writer in order; of older ones some may, too. What was reserved and never settled
    /// is booked as it was reserved, unless the process that reserved it still runs.
    ///
    /// `told` hears, from the writer's thread, when entries cannot be written and when they can again.
    pub fn open(
        path: &Path,
        settings: Settings,
        since: Option<Moment>,
        mut replay: impl FnMut(&Entry),
        told: impl FnMut(&State) + Send + 'static,
    ) -> Result<(Journal, Recovery), OpenError> {
        let failed = |source| OpenError::Io { folder: path.to_owned(), source };
        fs::create_dir_all(path).map_err(failed)?;
        let mut told = Some(told);
        let mut ours: Option<Journal> = None;
        let mut recovery = Recovery::default();
        for number in 0..folder::SLOTS {
            let slot = path.join(number.to_string());
            if !slot.is_dir() {
                if ours.is_some() {
                    break;
                }
                fs::create_dir(&slot).and_then(|()| folder::sync(path)).map_err(failed)?;
            }
            let Some(lock) = folder::lock(&slot).map_err(failed)? else {
                // Another process writes there; what it still has open is its own affair.
                let _ = replay_all(&slot, since, false, &mut recovery, &mut replay).map_err(failed)?;
                continue;
            };
            let told: Box<dyn FnMut(&State) + Send> = match (&ours, told.take()) {
                (None, Some(told)) => Box::new(told),
                _ => Box::new(|_| {}),
            };
            let journal =
                open_slot(&slot, lock, settings.clone(), since, &mut recovery, &mut replay, told).map_err(failed)?;
            match &ours {
                None => ours = Some(journal),
                // What somebody left there is finished, and nothing more is written.
                Some(_) => drop(journal.close()),
            }
        }
        ours.map(|journal| (journal, recovery)).ok_or_else(|| OpenError::Taken(path.to_owned()))
    }

    /// For a thread that has entries. If the disk has no space for what it hands over, that is told, and it stays in memory.
    pub fn handle(&self) -> Handle {
        let open = Arc::new(());
        let (producer, ring, file) = match spool::make(&self.slot, self.bytes) {
            Ok((producer, ring, path)) => (producer, ring, Ok(path)),
            Err(error) => {
                let (producer, ring) = spool::without_file(self.bytes);
                (producer, ring, Err(error))
            }
        };
        self.control.send(Message::Ring(Source { ring, file, open: open.clone() }));
        Handle::new(producer, self.control.clone(), open)
    }

    /// Writes and syncs what was handed over, and ends. False if that was not possible.
    pub fn close(mut self) -> bool {
        let written = self.control.flush();
        self.control.send(Message::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        written
    }
}

/// Finishes what was left in one writer's folder, and goes on writing there.
fn open_slot(
    slot: &Path,
    lock: File,
    settings: Settings,
    since: Option<Moment>,
    recovery: &mut Recovery,
    replay: &mut impl FnMut(&Entry),
    told: Box<dyn FnMut(&State) + Send>,
) -> io::Result<Journal> {
    let writer = folder::writer(slot)?;
    let (tail, first) = tail(slot, recovery)?;
    let open = replay_all(slot, since, true, recovery, replay)?;
    let old = spool::paths(slot)?;
    // What is in a segment, too, is there already.
    let (mut next, mut batch) = (first, Vec::new());
    for left in spool::left(slot)?.into_iter().filter(|it| it.sequence >= first) {
        batch.extend_from_slice(&left.frame);
        next = left.sequence + 1;
        recovery.spooled += 1;
    }
    for entry in open.into_values() {
        replay(&entry);
        recovery.crashed += 1;
        entry.encode(next, &mut batch);
        next += 1;
    }
    let (file, synced) = match tail {
        Some((path, end)) => (File::options().write(true).open(path).ok(), end),
        None => (None, 0),
    };
    if batch.is_empty() {
        for path in &old {
            let _ = fs::remove_file(path);
        }
    }
    let (sender, messages) = mpsc::channel();
    let shared =
        Arc::new(Shared { next: next.into(), durable: (first - 1).into(), rejected: 0.into(), asleep: false.into() });
    let thread = Writer {
        folder: slot.to_owned(),
        settings: settings.clone(),
        messages,
        shared: shared.clone(),
        told,
        _lock: lock,
        file,
        synced,
        next,
        batch,
        first,
        old,
        rings: Vec::new(),
        flushes: Vec::new(),
        ends: false,
        trouble: false,
        lost: 0,
        behind: None,
    };
    let thread = thread::Builder::new().name("journal".to_owned()).spawn(move || thread.run())?;
    let control = Control::new(shared, sender, thread.thread().clone());
    Ok(Journal { slot: slot.to_owned(), bytes: settings.spool, control, thread: Some(thread), writer })
}

/// Finds the last file and where its last whole record ends, and cuts off what is behind; and the next sequence.
fn tail(path: &Path, recovery: &mut Recovery) -> io::Result<(Option<(PathBuf, u64)>, u64)> {
    while let Some((first, file)) = folder::segments(path)?.pop() {
        let length = fs::metadata(&file)?.len();
        let Some(mut frames) = Frames::open(&file)? else {
            // It was being made; nothing can be in it.
            recovery.torn.push(Torn { file: file.clone(), at: 0, bytes: length });
            fs::remove_file(&file)?;
            folder::sync(path)?;
            continue;
        };
        let mut next = first.max(1);
        while let Some((sequence, _)) = frames.next()? {
            next = next.max(sequence + 1);
        }
        let end = frames.offset;
        if end < length {
            recovery.torn.push(Torn { file: file.clone(), at: end, bytes: length - end });
            let file = File::options().write(true).open(&file)?;
            file.set_len(end)?;
            file.sync_all()?;
        }
        return Ok((Some((file, end)), next));
    }
    Ok((None, 1))
}

/// Gives away all entries, and tells what is reserved and not settled.
fn replay_all(
    path: &Path,
    since: Option<Moment>,
    ended: bool,
    recovery: &mut Recovery,
    replay: &mut impl FnMut(&Entry),
) -> io::Result<BTreeMap<u64, Entry>> {
    let mut open: BTreeMap<u64, Entry> = BTreeMap::new();
    let mut reader = reader::read_slot(path, since, ended)?;
    for record in &mut reader {
        match record?.1 {
            Record::Opened(worst) => {
                open.insert(worst.hold, worst);
            }
            Record::Entry(entry) => {
                recovery.entries += 1;
                replay(&entry);
                open.remove(&entry.hold);
            }
        }
    }
    recovery.damaged += reader.damaged();
    Ok(open)
}
