//! Reads all entries of a folder, also while somebody writes to it.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::vec;

use ledger::{Moment, Record};

use crate::folder;
use crate::segment::{self, Frames};

/// The records of a folder, in the order of their sequence, as far as they were written when it comes to them.
pub struct Reader {
    segments: vec::IntoIter<(u64, PathBuf)>,
    current: Option<Frames>,
    last: u64,
    damaged: u64,
}

/// Of files that may hold calls that began at `since` or later; of all files without it.
pub fn read(path: &Path, since: Option<Moment>) -> io::Result<Reader> {
    let mut segments = folder::segments(path)?;
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
    Ok(Reader { segments: segments.into_iter(), current: None, last: 0, damaged: 0 })
}

impl Reader {
    /// Bytes so far that somebody else than a writer left there.
    pub fn damaged(&self) -> u64 {
        self.damaged + self.current.as_ref().map_or(0, |frames| frames.damaged)
    }

    fn step(&mut self) -> io::Result<Option<(u64, Record)>> {
        loop {
            if let Some(frames) = &mut self.current {
                while let Some((sequence, record)) = frames.next()? {
                    // Each once, whatever the disk gives back.
                    if sequence > self.last {
                        self.last = sequence;
                        return Ok(Some((sequence, record)));
                    }
                }
                self.damaged += frames.damaged;
                self.current = None;
            }
            let Some((_, path)) = self.segments.next() else { return Ok(None) };
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
    type Item = io::Result<(u64, Record)>;

    fn next(&mut self) -> Option<io::Result<(u64, Record)>> {
        self.step().transpose()
    }
}
