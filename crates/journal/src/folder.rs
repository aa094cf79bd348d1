//! The folder of a journal: which files are in it, whose it is, and that only one process writes to it.

use std::fs::{self, File, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

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
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The node whose journal this is: a random number that is made with the folder and stays with it.
pub(crate) fn node(folder: &Path) -> io::Result<u64> {
    let path = folder.join("node");
    if let Ok(text) = fs::read_to_string(&path)
        && let Ok(node) = u64::from_str_radix(text.trim(), 16)
    {
        return Ok(node);
    }
    let node = RandomState::new().hash_one(std::process::id()).max(1);
    let new = folder.join("node.new");
    let mut file = File::create(&new)?;
    writeln!(file, "{node:016x}")?;
    file.sync_all()?;
    fs::rename(&new, &path)?;
    sync(folder)?;
    Ok(node)
}
