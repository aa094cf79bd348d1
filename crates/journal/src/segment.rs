//! One file: a head that says when it was begun, then frames.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use ledger::codec::{self, Frame};
use ledger::{Moment, Record, crc32c};

/// `WEIRJNL1`, when it was begun, a checksum of both.
pub(crate) const HEAD: usize = 20;
const MAGIC: &[u8; 8] = b"WEIRJNL1";

/// How much is read at a time.
const CHUNK: usize = 256 << 10;

/// The frames of a file as it is now; more may come behind.
pub(crate) struct Frames {
    file: File,
    buffer: Vec<u8>,
    at: usize,
    /// Where in the file `buffer[at]` is.
    pub(crate) offset: u64,
    ended: bool,
    pub(crate) begun: Moment,
    /// Bytes that were passed over since they are damaged: whole frames come behind them.
    pub(crate) damaged: u64,
}

pub(crate) fn write_head(file: &mut File, begun: Moment) -> io::Result<()> {
    let mut head = [0; HEAD];
    head[..8].copy_from_slice(MAGIC);
    head[8..16].copy_from_slice(&begun.0.to_le_bytes());
    let sum = crc32c(&head[..16]);
    head[16..].copy_from_slice(&sum.to_le_bytes());
    file.write_all(&head)
}

/// When a file was begun; `None` if it has no whole head.
pub(crate) fn begun(path: &Path) -> io::Result<Option<Moment>> {
    Ok(Frames::open(path)?.map(|frames| frames.begun))
}

impl Frames {
    /// `None` if the file has no whole head: it was being made when the process ended.
    pub(crate) fn open(path: &Path) -> io::Result<Option<Frames>> {
        let mut file = File::open(path)?;
        let mut head = [0; HEAD];
        match file.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let number = |at: usize| <[u8; 8]>::try_from(&head[at..at + 8]).map(u64::from_le_bytes).unwrap_or_default();
        if head[..8] != *MAGIC || crc32c(&head[..16]).to_le_bytes() != head[16..] {
            return Ok(None);
        }
        Ok(Some(Frames {
            file,
            buffer: Vec::new(),
            at: 0,
            offset: HEAD as u64,
            ended: false,
            begun: Moment(number(8)),
            damaged: 0,
        }))
    }

    /// The next record; `None` at the end of what is whole. `offset` is then where that is.
    pub(crate) fn next(&mut self) -> io::Result<Option<(u64, Record)>> {
        loop {
            match codec::decode(&self.buffer[self.at..]) {
                Frame::Whole { sequence, record, length } => {
                    self.advance(length);
                    return Ok(Some((sequence, record)));
                }
                Frame::Unknown { length, .. } => self.advance(length),
                // Nothing at all is torn, too.
                Frame::Torn | Frame::Damaged if !self.ended => self.fill()?,
                Frame::Torn | Frame::Damaged => {
                    // Damage has whole frames behind it; what a killed process left unfinished has none.
                    match codec::resume(&self.buffer[self.at..]) {
                        Some(length) => {
                            self.damaged += length as u64;
                            self.advance(length);
                        }
                        None => return Ok(None),
                    }
                }
            }
        }
    }

    fn advance(&mut self, length: usize) {
        self.at += length;
        self.offset += length as u64;
    }

    fn fill(&mut self) -> io::Result<()> {
        self.buffer.drain(..self.at);
        self.at = 0;
        let before = self.buffer.len();
        // What cannot be decoded is mostly what has not been read: more each time, until all of it has.
        let more = CHUNK.max(before);
        (&mut self.file).take(more as u64).read_to_end(&mut self.buffer)?;
        self.ended = self.buffer.len() - before < more;
        Ok(())
    }
}
