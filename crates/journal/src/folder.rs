//! The folder of a journal. In it is a folder for each process that writes at the same time, `0`, `1` and so on: most of the
//! time there is one; while a process takes over from another there are two, since the old one still has calls.

use std::fs::{self, File, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// How many processes may write at the same time.
pub(crate) const SLOTS: u32 = 8;

/// The folders of those that write, and of those that did.
pub(crate) fn slots(folder: &Path) -> Vec<PathBuf> {
    (0..SLOTS).map(|slot| folder.join(slot.to_string())).filter(|slot| slot.is_dir()).collect()
}

/// The files with entries, oldest first, each with the first sequence it may hold.
pub(crate) fn segments(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut segments = Vec::new();
    for file in fs::read_dir(folder)? {
        let path = file?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if path.extension().is_some_and(|it| it == EXTENSION)
            && let Ok(first) = stem.parse()
        {
            segments.push((first, path));
        }
    }
    segments.sort();
    Ok(segments)
}

pub(crate) fn segment_path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:020}.{EXTENSION}"))
}

const EXTENSION: &str = "journal";

/// Names of files are durable when their folder is.
pub(crate) fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Held for as long as this process writes; `None` if another one does.
pub(crate) fn lock(folder: &Path) -> io::Result<Option<File>> {
    let file = File::options().create(true).truncate(false).write(true).open(folder.join("lock"))?;
    for _ in 0..10 {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            // A child that was forked just now has it, too, until it becomes another program.
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(5)),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(None)
}

/// Who writes here, in the ids of entries: a random number that is made with the folder and stays with it.
pub(crate) fn writer(folder: &Path) -> io::Result<u64> {
    let path = folder.join("writer");
    if let Ok(text) = fs::read_to_string(&path)
        && let Ok(writer) = u64::from_str_radix(text.trim(), 16)
    {
        return Ok(writer);
    }
    let writer = RandomState::new().hash_one(std::process::id()).max(1);
    let new = folder.join("writer.new");
    let mut file = File::create(&new)?;
    writeln!(file, "{writer:016x}")?;
    file.sync_all()?;
    fs::rename(&new, &path)?;
    sync(folder)?;
    Ok(writer)
}
