//! Opening a journal: what the last process left behind is found, and what it left unfinished is cut off or finished.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use ledger::{Class, Moment, Opened, Record};

use crate::segment::Frames;
use crate::writer::{Handle, Message, Shared, State, Writer};
use crate::{Settings, folder, reader};

/// A journal that is written to. Ends when it is closed: dropped, it loses what was not synced.
#[must_use = "a journal that is not closed may lose what was handed over last"]
pub struct Journal {
    handle: Handle,
    thread: Option<thread::JoinHandle<()>>,
    /// The node whose journal this is; with the sequence it makes the id of an entry.
    pub node: u64,
}

/// What was found when a journal was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Entries that were read, and given to the caller.
    pub entries: u64,
    /// The end of the last file that was no whole record, and was cut off. It was never acknowledged.
    pub torn: Option<Torn>,
    /// Bytes in the midst of files that are not as they were written; passed over.
    pub damaged: u64,
    /// Reservations that nothing settles. Each is booked now, as it was reserved.
    pub crashed: u64,
    /// The sequence of the next record.
    pub next: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    pub file: PathBuf,
    pub at: u64,
    pub bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("another process writes to the journal in `{}`; expected a folder of its own for each", .0.display())]
    Taken(PathBuf),
    #[error("the journal in `{}` cannot be opened", .folder.display())]
    Io { folder: PathBuf, source: io::Error },
}

impl Journal {
    /// Opens the journal in a folder, which is made if need be. Every entry of calls that began at `since` or later goes
    /// to `replay` first, in order; of older ones some may, too. What was reserved and never settled is booked as it was reserved.
    ///
    /// `told` hears, from the writer's thread, when entries cannot be written and when they can again.
    pub fn open(
        path: &Path,
        settings: Settings,
        since: Option<Moment>,
        mut replay: impl FnMut(&ledger::Entry),
        told: impl FnMut(&State) + Send + 'static,
    ) -> Result<(Journal, Recovery), OpenError> {
        let failed = |source| OpenError::Io { folder: path.to_owned(), source };
        fs::create_dir_all(path).map_err(failed)?;
        let Some(lock) = folder::lock(path).map_err(failed)? else { return Err(OpenError::Taken(path.to_owned())) };
        let node = folder::node(path).map_err(failed)?;
        let mut recovery = Recovery { next: 1, ..Recovery::default() };
        let tail = tail(path, &mut recovery).map_err(failed)?;
        let open = replay_all(path, since, &mut recovery, &mut replay).map_err(failed)?;
        let crashed: Vec<Record> = open.into_values().map(|opened| Record::Entry(opened.crashed())).collect();
        recovery.crashed = crashed.len() as u64;
        for record in &crashed {
            if let Record::Entry(entry) = record {
                replay(entry);
            }
        }
        let (sender, receiver) = mpsc::channel();
        let shared = Shared::new();
        let handle = Handle::new(sender, shared.clone(), settings.backlog);
        for record in crashed {
            // The writer has not begun, and there is room for as many as were open at once.
            let _ = handle.push(record);
        }
        let writer =
            Writer::new(path.to_owned(), tail, recovery.next, settings, receiver, shared, Box::new(told), lock);
        let thread = thread::Builder::new().name("journal".to_owned()).spawn(move || writer.run()).map_err(failed)?;
        Ok((Journal { handle, thread: Some(thread), node }, recovery))
    }

    /// For whoever has entries; any number of them.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Writes and syncs what was handed over, and ends. False if that was not possible.
    pub fn close(mut self) -> bool {
        let written = self.handle.flush();
        self.handle.send(Message::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        written
    }
}

/// Finds the last file and where its last whole record ends, and cuts off what is behind.
fn tail(path: &Path, recovery: &mut Recovery) -> io::Result<Option<(PathBuf, u64)>> {
    while let Some((first, file)) = folder::segments(path)?.pop() {
        let length = fs::metadata(&file)?.len();
        let Some(mut frames) = Frames::open(&file)? else {
            // It was being made; nothing can be in it.
            recovery.torn = Some(Torn { file: file.clone(), at: 0, bytes: length });
            fs::remove_file(&file)?;
            folder::sync(path)?;
            continue;
        };
        recovery.next = first.max(1);
        while let Some((sequence, _)) = frames.next()? {
            recovery.next = recovery.next.max(sequence + 1);
        }
        let end = frames.offset;
        if end < length {
            recovery.torn = Some(Torn { file: file.clone(), at: end, bytes: length - end });
            let file = File::options().write(true).open(&file)?;
            file.set_len(end)?;
            file.sync_all()?;
        }
        return Ok(Some((file, end)));
    }
    Ok(None)
}

/// Gives away all entries, and tells what is reserved and not settled.
fn replay_all(
    path: &Path,
    since: Option<Moment>,
    recovery: &mut Recovery,
    replay: &mut impl FnMut(&ledger::Entry),
) -> io::Result<BTreeMap<u64, Opened>> {
    let mut open: BTreeMap<u64, Opened> = BTreeMap::new();
    let mut reader = reader::read(path, since)?;
    for record in &mut reader {
        match record?.1 {
            Record::Opened(opened) => {
                open.insert(opened.hold, opened);
            }
            Record::Entry(entry) => {
                recovery.entries += 1;
                replay(&entry);
                // After the others there is another attempt.
                if !matches!(entry.class, Class::Retry | Class::Duplicate | Class::Guard) {
                    open.remove(&entry.hold);
                }
            }
        }
    }
    recovery.damaged = reader.damaged();
    Ok(open)
}
