//! The folder: segments by their numbers, what was purged, and a lock. One process has it at a time; another one waits
//! until it lets go, and meanwhile does without.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Held for as long as this process has the folder; `None` if another one does.
pub(crate) fn lock(folder: &Path) -> io::Result<Option<File>> {
    let file = File::options().create(true).truncate(false).write(true).open(folder.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The segments, oldest first.
pub(crate) fn segments(folder: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let mut segments = Vec::new();
    for file in fs::read_dir(folder)? {
        let path = file?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if path.extension().is_some_and(|it| it == EXTENSION)
            && let Ok(number) = stem.parse()
        {
            segments.push((number, path));
        }
    }
    segments.sort();
    Ok(segments)
}

pub(crate) fn segment_path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number:010}.{EXTENSION}"))
}

pub(crate) fn purged_path(folder: &Path) -> PathBuf {
    folder.join("purged")
}

/// Puts what was purged in place of what was written there, whole or not at all; it stays open for more.
pub(crate) fn write_purged(folder: &Path, bytes: &[u8]) -> io::Result<File> {
    let (new, path) = (folder.join("purged.new"), purged_path(folder));
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, &path)?;
    File::open(folder)?.sync_all()?;
    File::options().write(true).open(path)
}

/// Deletes all that is there.
pub(crate) fn empty(folder: &Path) {
    for (_, path) in segments(folder).unwrap_or_default() {
        let _ = fs::remove_file(path);
    }
    let _ = fs::remove_file(purged_path(folder));
}

const EXTENSION: &str = "cache";
