//! The thread that writes: takes from the rings what was handed over, in the order of its sequence, writes and syncs it
//! together, and only then gives the rings' words free.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};
use std::sync::atomic::fence;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use ledger::Moment;

use crate::handle::{Message, Shared, Source, Tell};
use crate::{Settings, folder, segment};

/// Whether entries can be written.
#[derive(Debug)]
pub enum State {
    /// They can, again.
    Writing,
    /// There is no space. What is handed over waits, as far as there is room.
    Full(io::Error),
    /// The disk refuses for another reason.
    Failing(io::Error),
    /// The disk takes less than is handed over, and so many records found no room and are lost.
    Behind(u64),
    /// What is handed over waits in memory that a killed process loses, since no file could be had.
    Unspooled(io::Error),
}

pub(crate) struct Writer {
    pub(crate) folder: PathBuf,
    pub(crate) settings: Settings,
    pub(crate) messages: Receiver<Message>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) told: Box<dyn FnMut(&State) + Send>,
    pub(crate) _lock: File,
    pub(crate) file: Option<File>,
    /// How much of the file is synced; what is behind may be anything.
    pub(crate) synced: u64,
    /// What comes next into the batch.
    pub(crate) next: u64,
    /// Taken and not synced.
    pub(crate) batch: Vec<u8>,
    /// The sequence of its first record.
    pub(crate) first: u64,
    /// Spools of those before, whose records are in the first batch.
    pub(crate) old: Vec<PathBuf>,
    pub(crate) rings: Vec<Source>,
    pub(crate) flushes: Vec<(u64, Tell)>,
    pub(crate) ends: bool,
    pub(crate) trouble: bool,
    /// How many rejected records were told, and when last.
    pub(crate) lost: u64,
    pub(crate) behind: Option<Instant>,
}

/// How many bytes are written at once, about.
const MOST: usize = 1 << 20;
/// How many times the writer looks for more before it sleeps, and the next one must wake it.
const LINGER: u32 = 2;
/// How long it waits after the disk refused.
const AGAIN: Duration = Duration::from_millis(250);
/// How long it must lose nothing to be well again.
const CALM: Duration = Duration::from_secs(1);

impl Writer {
    pub(crate) fn run(mut self) {
        self.forget_old();
        let mut idle = 0;
        let mut more = false;
        loop {
            if idle >= LINGER && self.behind.is_none() {
                self.sleep();
                // What woke it may have been told to it, and is not told again.
                self.listen();
            }
            // While it sleeps so, nobody has to wake it: handing over is free of system calls. Until a ring is filling.
            if self.flushes.is_empty() && !self.ends && !self.trouble && !more {
                thread::park_timeout(self.settings.commit);
            }
            self.listen();
            self.gather();
            more = self.batch.len() >= MOST;
            idle = if self.batch.is_empty() { idle + 1 } else { 0 };
            let written = self.commit();
            self.answer(written);
            self.tell_lost();
            if written {
                self.close_rings();
            }
            let all = self.rings.iter().all(|it| it.ring.is_empty());
            if self.ends && (all || !written) {
                return self.end();
            }
            if !written {
                thread::park_timeout(AGAIN);
            }
        }
    }

    /// Until there is something.
    fn sleep(&mut self) {
        self.shared.asleep.store(true, Relaxed);
        fence(SeqCst);
        // Whoever sends a message wakes it, also if that was before.
        if self.rings.iter().all(|it| it.ring.is_empty()) && self.shared.asleep.load(Relaxed) {
            thread::park();
        }
        self.shared.asleep.store(false, Relaxed);
    }

    fn listen(&mut self) {
        loop {
            match self.messages.try_recv() {
                Ok(Message::Ring(source)) => {
                    let Source { ring, file, open } = source;
                    let file = file.map_err(|error| {
                        let kind = error.kind();
                        (self.told)(&State::Unspooled(error));
                        io::Error::from(kind)
                    });
                    self.rings.push(Source { ring, file, open });
                }
                Ok(Message::Flush(until, tell)) => self.flushes.push((until, tell)),
                Ok(Message::End) | Err(TryRecvError::Disconnected) => {
                    self.ends = true;
                    return;
                }
                Err(TryRecvError::Empty) => return,
            }
        }
    }

    /// Takes what follows, from whichever ring has it, until there is enough. What is not there yet, since a thread has its
    /// sequence and has not put it in, is waited for.
    fn gather(&mut self) {
        let mut at = 0;
        let mut missed = 0;
        while self.batch.len() < MOST && missed < self.rings.len() {
            let ring = &mut self.rings[at].ring;
            missed += 1;
            while let Some(item) = ring.peek().filter(|it| it.sequence == self.next) {
                if self.batch.is_empty() {
                    self.first = item.sequence;
                }
                ring.take(item, &mut self.batch);
                self.next += u64::from(item.records);
                missed = 0;
                if self.batch.len() >= MOST {
                    break;
                }
            }
            at = (at + 1) % self.rings.len();
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
                self.batch.shrink_to(MOST);
                for path in self.old.drain(..) {
                    let _ = fs::remove_file(path);
                }
                for source in &self.rings {
                    source.ring.release();
                }
                self.shared.durable.store(self.next - 1, Release);
                if self.trouble {
                    self.trouble = false;
                    self.behind = None;
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
        let path = folder::segment_path(&self.folder, self.first);
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

    fn answer(&mut self, written: bool) {
        let next = self.next;
        for (_, tell) in self.flushes.extract_if(.., |(until, _)| *until <= next || !written) {
            tell(written);
        }
    }

    /// Once in a while, so that a slow disk does not fill the log.
    fn tell_lost(&mut self) {
        if self.behind.is_some_and(|told| told.elapsed() < CALM) {
            return;
        }
        let rejected = self.shared.rejected.load(Relaxed);
        if rejected > self.lost {
            (self.told)(&State::Behind(rejected - self.lost));
            self.lost = rejected;
            self.behind = Some(Instant::now());
        } else if !self.trouble && self.behind.take().is_some() {
            (self.told)(&State::Writing);
        }
    }

    /// Those that nobody puts anything into any more.
    fn close_rings(&mut self) {
        self.rings.retain(|Source { ring, file, open }| {
            // In this order: what was put in before the handle was dropped is seen.
            let done = Arc::strong_count(open) == 1 && {
                fence(SeqCst);
                ring.is_empty()
            };
            if let (true, Ok(path)) = (done, file) {
                let _ = fs::remove_file(path);
            }
            !done
        });
    }

    /// What could not be written is in the spools, for whoever comes next.
    fn end(self) {
        if self.batch.is_empty() {
            for path in self.rings.iter().filter_map(|it| it.file.as_ref().ok()) {
                let _ = fs::remove_file(path);
            }
        }
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
