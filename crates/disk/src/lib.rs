//! The files behind the disk tier of the cache: threads that write what is offered and read what is asked for, so that no
//! worker ever waits for a disk.
//!
//! What is in the files, and what is known of them in memory, is in `cache::disk`. A crate of its own, since it does what
//! `cache` must not be able to do: files, threads, clocks.
#![forbid(unsafe_code)]

mod folder;
mod open;
mod reader;
mod writer;

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;

use cache::disk::{Job, Tier};

pub use reader::Opened;

/// Where answers are kept, and how many bytes of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub folder: PathBuf,
    pub size: u64,
}

/// The disk of a node. It has threads from when it is first wanted.
pub struct Disk {
    tier: Arc<Tier>,
    shared: Arc<Shared>,
    readers: OnceLock<Vec<Sender<reader::Ask>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    turn: AtomicUsize,
}

/// What the threads have in common.
#[derive(Default)]
pub(crate) struct Shared {
    segments: Mutex<HashMap<u32, Arc<File>>>,
    commands: Mutex<Vec<Command>>,
    /// Questions that are not answered yet.
    asked: AtomicUsize,
}

pub(crate) enum Command {
    Apply(Option<Settings>),
    End,
}

impl Disk {
    pub fn new(tier: Arc<Tier>) -> Disk {
        Disk {
            tier,
            shared: Arc::default(),
            readers: OnceLock::new(),
            writer: Mutex::default(),
            turn: AtomicUsize::new(0),
        }
    }

    /// What the document wants from now on. What is in the folder is found by and by.
    pub fn apply(&self, settings: Option<Settings>) {
        let mut writer = locked(&self.writer);
        if writer.is_none() {
            if settings.is_none() {
                return;
            }
            let Some(jobs) = self.tier.take_jobs() else { return };
            match writer::spawn(self.tier.clone(), self.shared.clone(), jobs) {
                Ok(thread) => *writer = Some(thread),
                Err(error) => return tracing::error!(%error, "the cache has no disk: no thread could be started"),
            }
        }
        self.command(Command::Apply(settings));
    }

    /// Writes down what was offered, and lets go of the folder, for the process that follows.
    pub fn release(&self) {
        self.apply(None);
    }

    /// The same, and waits for it.
    pub fn close(&self) {
        if let Some(thread) = locked(&self.writer).take() {
            self.command(Command::End);
            let _ = thread.join();
        }
    }

    fn command(&self, command: Command) {
        locked(&self.shared.commands).push(command);
        self.tier.send(Job::Look);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.close();
    }
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
