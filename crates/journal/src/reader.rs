//! Reads all entries of a folder, also while somebody writes to it.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::vec;

use ledger::codec::{self, Frame};
use ledger::{Moment, Record};

use crate::segment::{self, Frames};
use crate::{folder, spool};

/// The records of a folder, as far as they were written when it comes to them: of one writer after the other, in the order
/// of their sequence.
pub struct Reader {
    sources: vec::IntoIter<Source>,
    current: Option<Frames>,
    spooled: vec::IntoIter<(u64, Record)>,
    /// What is missing in spools never comes.
    ended: bool,
    last: Id,
    damaged: u64,
}

/// Where records are, with their writer.
enum Source {
    /// With the first sequence that it may hold.
    Segment(u64, u64, PathBuf),
    /// Behind the segments: what was handed over and not yet written when reading began.
    Spooled(u64, Vec<(u64, Record)>),
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
        all.append(&mut sources(&slot, since)?);
    }
    Ok(Reader::of(all, false))
}

/// Of one writer, which has ended or goes on.
pub(crate) fn read_slot(slot: &Path, since: Option<Moment>, ended: bool) -> io::Result<Reader> {
    Ok(Reader::of(sources(slot, since)?, ended))
}

fn sources(slot: &Path, since: Option<Moment>) -> io::Result<Vec<Source>> {
    // First: what leaves a spool meanwhile is in a segment then.
    let spooled: Vec<(u64, Record)> = spool::left(slot)?
        .into_iter()
        .filter_map(|left| match codec::decode(&left.frame) {
            Frame::Whole { sequence, record, .. } => Some((sequence, record)),
            _ => None,
        })
        .collect();
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
    if segments.is_empty() && spooled.is_empty() {
        return Ok(Vec::new());
    }
    let writer = folder::writer(slot)?;
    let segments = segments.into_iter().map(|(first, path)| Source::Segment(writer, first, path));
    Ok(segments.chain([Source::Spooled(writer, spooled)]).collect())
}

impl Reader {
    fn of(sources: Vec<Source>, ended: bool) -> Reader {
        Reader {
            sources: sources.into_iter(),
            current: None,
            spooled: Vec::new().into_iter(),
            ended,
            last: Id::default(),
            damaged: 0,
        }
    }

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
            while let Some((sequence, record)) = self.spooled.next() {
                // Threads hand over beside each other: what is missing now is there the next time, and what comes after it.
                if sequence > self.last.sequence + 1 && !self.ended {
                    self.spooled = Vec::new().into_iter();
                } else if sequence > self.last.sequence {
                    self.last.sequence = sequence;
                    return Ok(Some((self.last, record)));
                }
            }
            let Some(source) = self.sources.next() else { return Ok(None) };
            let (Source::Segment(writer, ..) | Source::Spooled(writer, _)) = source;
            if writer != self.last.writer {
                self.last = Id { writer, sequence: 0 };
            }
            match source {
                Source::Segment(_, first, path) => {
                    self.last.sequence = self.last.sequence.max(first.saturating_sub(1));
                    self.current = match Frames::open(&path) {
                        Ok(frames) => frames,
                        // It was too old to keep.
                        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                        Err(error) => return Err(error),
                    };
                }
                Source::Spooled(_, records) => self.spooled = records.into_iter(),
            }
        }
    }
}

impl Iterator for Reader {
    type Item = io::Result<(Id, Record)>;

    fn next(&mut self) -> Option<io::Result<(Id, Record)>> {
        self.step().transpose()
    }
}
