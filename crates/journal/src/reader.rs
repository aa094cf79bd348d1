//! Reads all entries of a folder, also while somebody writes to it.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::vec;

use ledger::{Moment, Record};

use crate::folder;
use crate::segment::{self, Frames};

/// The records of a folder, as far as they were written when it comes to them: of one writer after the other, in the order
/// of their sequence.
pub struct Reader {
    segments: vec::IntoIter<(u64, PathBuf)>,
    current: Option<Frames>,
    last: Id,
    damaged: u64,
}

/// What no other record has, on any node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    pub writer: u64,
    pub sequence: u64,
}

/// Of files that may hold calls that began at `since` or later; of all files without it.
pub fn read(path: &Path, since: Option<Moment>) -> io::Result<Reader> {
    // What is not there cannot be read; what is there may be empty.
    path.read_dir()?;
    let mut all = Vec::new();
    for slot in folder::slots(path) {
        all.append(&mut files(&slot, since)?);
    }
    Ok(Reader { segments: all.into_iter(), current: None, last: Id::default(), damaged: 0 })
}

/// Of one writer.
pub(crate) fn read_slot(slot: &Path, since: Option<Moment>) -> io::Result<Reader> {
    let files = files(slot, since)?;
    Ok(Reader { segments: files.into_iter(), current: None, last: Id::default(), damaged: 0 })
}

/// Each with its writer.
fn files(slot: &Path, since: Option<Moment>) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut segments = folder::segments(slot)?;
    if let Some(since) = since {
        // A file's last record was written before the next file was begun.
        let mut first = 0;
        for (_, path) in segments.iter().skip(1) {
            match segment::begun(path)? {
                Some(begun) if begun < since => first += 1,
                _ => break,
            }
        }
        segments.drain(..first);
    }
    if segments.is_empty() {
        return Ok(Vec::new());
    }
    let writer = folder::writer(slot)?;
    Ok(segments.into_iter().map(|(_, path)| (writer, path)).collect())
}

impl Reader {
    /// Bytes so far that somebody else than a writer left there.
    pub fn damaged(&self) -> u64 {
        self.damaged + self.current.as_ref().map_or(0, |frames| frames.damaged)
    }

    fn step(&mut self) -> io::Result<Option<(Id, Record)>> {
        loop {
            if let Some(frames) = &mut self.current {
                while let Some((sequence, record)) = frames.next()? {
                    // Each once, whatever the disk gives back.
                    if sequence > self.last.sequence {
                        self.last.sequence = sequence;
                        return Ok(Some((self.last, record)));
                    }
                }
                self.damaged += frames.damaged;
                self.current = None;
            }
            let Some((writer, path)) = self.segments.next() else { return Ok(None) };
            if writer != self.last.writer {
                self.last = Id { writer, sequence: 0 };
            }
            self.current = match Frames::open(&path) {
                Ok(frames) => frames,
                // It was too old to keep.
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
        }
    }
}

impl Iterator for Reader {
    type Item = io::Result<(Id, Record)>;

    fn next(&mut self) -> Option<io::Result<(Id, Record)>> {
        self.step().transpose()
    }
}
