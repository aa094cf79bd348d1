//! Opening a folder: what the last process left there is found, by the footers of segments; where it was killed, by the
//! heads of records, and what it left unfinished is cut off. No body is read.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use cache::disk::{Ban, Card, Survey, footer, survey};
use cache::{Purge, What};

use crate::folder;

/// What was found.
#[derive(Default)]
pub(crate) struct Found {
    /// Oldest first.
    pub(crate) segments: Vec<Segment>,
    pub(crate) bans: Vec<Ban>,
    /// Greater than all sequences.
    pub(crate) next: u64,
    /// Bytes that were cut off.
    pub(crate) torn: u64,
}

pub(crate) struct Segment {
    pub(crate) number: u32,
    pub(crate) file: Arc<File>,
    pub(crate) bytes: u64,
    pub(crate) cards: Vec<Card>,
}

pub(crate) fn find(path: &Path) -> io::Result<Found> {
    let mut found = Found { next: 1, ..Found::default() };
    for (number, path) in folder::segments(path)? {
        match segment(&path, number, &mut found.torn)? {
            Some(segment) => found.segments.push(segment),
            // Of another version, or nothing is in it.
            None => fs::remove_file(&path)?,
        }
    }
    let cards = found.segments.iter().flat_map(|segment| &segment.cards);
    let mut last = cards.map(|card| card.sequence).max().unwrap_or_default();
    let whole = match fs::read(folder::purged_path(path)) {
        Ok(bytes) => {
            let (bans, whole) = Ban::decode_all(&bytes);
            found.bans = bans;
            whole
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => found.segments.is_empty(),
        Err(error) => return Err(error),
    };
    last = last.max(found.bans.iter().map(|ban| ban.sequence).max().unwrap_or_default());
    if !whole {
        // Nobody knows what was purged.
        found.bans.push(Ban { sequence: last + 1, purge: Purge { api: None, what: What::All } });
    }
    found.next = last + 2;
    Ok(found)
}

fn segment(path: &Path, number: u32, torn: &mut u64) -> io::Result<Option<Segment>> {
    let file = File::options().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    let Some(Survey { cards, end }) = look(&file, length, number)? else { return Ok(None) };
    let mut bytes = length;
    if let Some(end) = end {
        *torn += length - end;
        file.set_len(end)?;
        if cards.is_empty() {
            return Ok(None);
        }
        let footer = footer(&cards);
        // It is for the next start; without it that takes longer.
        let written = file.write_all_at(&footer, end).is_ok();
        bytes = if written { end + footer.len() as u64 } else { end };
    }
    Ok(Some(Segment { number, file: Arc::new(file), bytes, cards }))
}

/// What is in a segment of so many bytes.
pub(crate) fn look(file: &File, length: u64, number: u32) -> io::Result<Option<Survey>> {
    survey(number, length, |bytes, at| file.read_exact_at(bytes, at))
}
