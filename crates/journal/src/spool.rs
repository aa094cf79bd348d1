//! The files of a journal that hold what was handed over and is not yet in a segment: one for each thread that hands over, a
//! [ring](crate::ring) whose memory is the file's. What a killed process leaves there is what the kernel had, which is all
//! that was handed over.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ledger::codec::{self, Frame};
use rustix::fs::{FallocateFlags, IFlags};

use crate::memory::Memory;
use crate::ring::{self, Consumer, Producer};

/// A record as it was left, with its sequence.
pub(crate) struct Left {
    pub(crate) sequence: u64,
    pub(crate) frame: Vec<u8>,
}

const EXTENSION: &str = "spool";
/// No shorter ring has room for what one call hands over.
const SHORTEST: u64 = 256 << 10;

/// A new ring in a file of its own.
pub(crate) fn make(folder: &Path, bytes: u64) -> io::Result<(Producer, Consumer, PathBuf)> {
    let mut options = File::options();
    options.read(true).write(true).create_new(true);
    let mut numbers = 0..;
    let (file, path) = loop {
        let path = folder.join(format!("{}.{EXTENSION}", numbers.next().unwrap_or(u32::MAX)));
        match options.open(&path) {
            Ok(file) => break (file, path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    };
    let words = words(bytes);
    match allocate(&file, words as u64 * 8).and_then(|()| Memory::map(&file, words)) {
        Ok(memory) => {
            let (producer, consumer) = ring::new(memory);
            Ok((producer, consumer, path))
        }
        Err(error) => {
            let _ = fs::remove_file(path);
            Err(error)
        }
    }
}

/// A ring that is gone with the process, where there is no file to be had.
pub(crate) fn without_file(bytes: u64) -> (Producer, Consumer) {
    ring::new(Memory::heap(words(bytes)))
}

fn words(bytes: u64) -> usize {
    ring::BEFORE + bytes.max(SHORTEST).div_ceil(8) as usize
}

/// Takes the space now: what is stored where the disk has none ends the process.
fn allocate(mut file: &File, length: u64) -> io::Result<()> {
    // Where a file system would write elsewhere what is written again, it would need space again.
    if let Ok(flags) = rustix::fs::ioctl_getflags(file) {
        let _ = rustix::fs::ioctl_setflags(file, flags | IFlags::NOCOW);
    }
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, length) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            let zeros = vec![0; 64 << 10];
            let mut rest = length;
            while rest > 0 {
                let now = rest.min(zeros.len() as u64);
                file.write_all(&zeros[..now as usize])?;
                rest -= now;
            }
            file.sync_data()
        }
        done => Ok(done?),
    }
}

/// The spools in a folder.
pub(crate) fn paths(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for file in fs::read_dir(folder)? {
        let path = file?.path();
        if path.extension().is_some_and(|it| it == EXTENSION) {
            paths.push(path);
        }
    }
    Ok(paths)
}

/// What is in the spools of a folder, by sequence: what was left there, or what is there just now. A record that is in a
/// segment, too, has the same sequence there.
pub(crate) fn left(folder: &Path) -> io::Result<Vec<Left>> {
    let mut all = Vec::new();
    for path in paths(folder)? {
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            // Its records are in a segment by now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let bytes = ring::left(&ring::words(&bytes));
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let length = match codec::decode(rest) {
                Frame::Whole { sequence, length, .. } | Frame::Unknown { sequence, length } => {
                    all.push(Left { sequence, frame: rest[..length].to_vec() });
                    length
                }
                // Only where the machine has stopped, not the process alone, or where somebody writes just now.
                Frame::Torn | Frame::Damaged => match codec::resume(rest) {
                    Some(length) => length,
                    None => break,
                },
            };
            rest = &rest[length..];
        }
    }
    all.sort_by_key(|it| it.sequence);
    all.dedup_by_key(|it| it.sequence);
    Ok(all)
}
