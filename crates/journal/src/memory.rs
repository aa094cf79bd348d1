//! Memory that outlives a killed process: a file that is mapped, so that what is stored there the kernel has at once. The only
//! unsafe code of this crate.
#![expect(unsafe_code, reason = "mapping a file is")]

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::AtomicU64;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Words that several threads store to and load from; zeros at first, or what is in the file.
pub(crate) enum Memory {
    Mapped {
        base: NonNull<AtomicU64>,
        words: usize,
    },
    /// Where no file can be had: gone with the process.
    Heap(Box<[AtomicU64]>),
}

const WORD: usize = size_of::<AtomicU64>();

impl Memory {
    /// All of a file, whose length is a multiple of eight bytes. The file must have its space on the disk already: to store
    /// where there is none kills the process.
    pub(crate) fn map(file: &File, words: usize) -> io::Result<Memory> {
        let length = words * WORD;
        if words == 0 || file.metadata()?.len() != length as u64 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the file is not as long as the memory"));
        }
        // SAFETY: the kernel chooses an address where nothing else is, so no memory of ours changes its meaning.
        let base =
            unsafe { mmap(ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, file, 0)? };
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at null"))?;
        Ok(Memory::Mapped { base, words })
    }

    pub(crate) fn heap(words: usize) -> Memory {
        Memory::Heap((0..words).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Deref for Memory {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        match self {
            // SAFETY: `map` got that many bytes there, page-aligned, readable and writable, and they stay until `drop`,
            // which the borrow of `self` outlasts none of. Whatever else changes them, another thread or another process with
            // the file, may do so: atomics allow it, and any bits are a number.
            Memory::Mapped { base, words } => unsafe { slice::from_raw_parts(base.as_ptr(), *words) },
            Memory::Heap(words) => words,
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Memory::Mapped { base, words } = self {
            // SAFETY: it is what `map` got, once, and nobody can borrow it any more.
            let _ = unsafe { munmap(base.as_ptr().cast(), *words * WORD) };
        }
    }
}

// SAFETY: the pointer is to memory of the process, not of a thread, and is only read through as `[AtomicU64]`, which is both.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn what_is_stored_is_in_the_file_and_the_other_way_round() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("words");
        fs::write(&path, [0; 4096]).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        assert!(Memory::map(&file, 511).is_err() && Memory::map(&file, 513).is_err());
        let (one, other) = (Memory::map(&file, 512).unwrap(), Memory::map(&file, 512).unwrap());
        one[511].store(u64::from_ne_bytes(*b"the last"), Relaxed);
        assert_eq!((fs::read(&path).unwrap()[4088..].to_vec(), one.len()), (b"the last".to_vec(), 512));
        assert_eq!(other[511].load(Relaxed).to_ne_bytes(), *b"the last");
    }
}
