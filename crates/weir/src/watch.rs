//! Whether the files that a document consists of are still what was read.
//!
//! The system's notifications are hints that make it fast; what makes it certain is that contents are
//! compared every second. A ConfigMap is swapped by a symlink somewhere above the file, and network file
//! systems notify nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use crate::signals::Event;

/// Files and a hash of what was in each; `None` where it could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint(BTreeMap<PathBuf, Option<u64>>);

/// The thread that compares; it ends with this.
pub struct Watch {
    news: Sender<News>,
}

enum News {
    /// Something happened near one of the files.
    Hint(notify::Event),
    /// This is what was read last.
    Follow(Fingerprint),
    End,
}

struct Watching {
    news: Receiver<News>,
    events: Sender<Event>,
    notifier: Option<RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
    seen: Fingerprint,
}

// === impl Fingerprint ===

impl Fingerprint {
    pub fn record(&mut self, path: PathBuf, content: Option<&[u8]>) {
        self.0.insert(path, content.map(hash));
    }

    /// The same files as they are now.
    fn again(&self) -> Fingerprint {
        let now = self.0.keys().map(|path| (path.clone(), std::fs::read(path).ok().map(|content| hash(&content))));
        Fingerprint(now.collect())
    }

    fn folders(&self) -> BTreeSet<PathBuf> {
        let parents = self.0.keys().filter_map(|path| path.parent());
        parents.map(|folder| if folder == Path::new("") { Path::new(".") } else { folder }.to_owned()).collect()
    }

    /// True for what may concern the files; an access log in the same folder does not.
    fn concerns(&self, event: &notify::Event) -> bool {
        match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {}
            // Our own reading among them.
            EventKind::Access(_) => return false,
            _ => {}
        }
        let swapped = |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".."));
        let named = |path: &PathBuf| self.0.keys().any(|file| file.file_name() == path.file_name());
        event.paths.is_empty() || event.paths.iter().any(|path| swapped(path) || named(path))
    }
}

fn hash(content: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(content);
    hasher.finish()
}

// === impl Watch ===

impl Watch {
    /// Sends [`Event::Changed`] whenever the files differ from what was followed last.
    pub fn start(events: Sender<Event>) -> io::Result<Watch> {
        let (news, inbox) = mpsc::channel();
        let hints = news.clone();
        let notifier = notify::recommended_watcher(move |hint: notify::Result<notify::Event>| {
            if let Ok(event) = hint {
                let _ = hints.send(News::Hint(event));
            }
        });
        let notifier = notifier
            .inspect_err(|error| tracing::warn!(%error, "no file notifications; files are compared every second"))
            .ok();
        let watching =
            Watching { news: inbox, events, notifier, folders: BTreeSet::new(), seen: Fingerprint::default() };
        thread::Builder::new().name("weir-watch".into()).spawn(move || watching.run())?;
        Ok(Watch { news })
    }

    /// What was read last, wrong or not: from now on a change is a difference from this.
    pub fn follow(&self, seen: Fingerprint) {
        let _ = self.news.send(News::Follow(seen));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.news.send(News::End);
    }
}

// === impl Watching ===

impl Watching {
    fn run(mut self) {
        loop {
            match self.news.recv_timeout(EVERY) {
                Ok(News::Follow(seen)) => self.follow(seen),
                Ok(News::Hint(event)) if self.seen.concerns(&event) => {
                    if !self.settle() {
                        return;
                    }
                    self.compare();
                }
                Ok(News::Hint(_)) => {}
                Err(RecvTimeoutError::Timeout) => self.compare(),
                Ok(News::End) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// An editor writes in several steps; false when told to end.
    fn settle(&mut self) -> bool {
        thread::sleep(SETTLE);
        while let Ok(news) = self.news.try_recv() {
            match news {
                News::Hint(_) => {}
                News::Follow(seen) => self.follow(seen),
                News::End => return false,
            }
        }
        true
    }

    fn compare(&mut self) {
        let now = self.seen.again();
        if now != self.seen {
            self.seen = now;
            let _ = self.events.send(Event::Changed);
        }
    }

    fn follow(&mut self, seen: Fingerprint) {
        let folders = seen.folders();
        if let Some(notifier) = &mut self.notifier {
            for gone in self.folders.difference(&folders) {
                let _ = notifier.unwatch(gone);
            }
            for new in folders.difference(&self.folders) {
                if let Err(error) = notifier.watch(new, RecursiveMode::NonRecursive) {
                    tracing::debug!(folder = %new.display(), %error, "not notified of this folder");
                }
            }
        }
        self.folders = folders;
        self.seen = seen;
        // Between reading and following somebody may have written.
        self.compare();
    }
}

const EVERY: Duration = Duration::from_secs(1);
const SETTLE: Duration = Duration::from_millis(15);

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn follow(path: &Path) -> (Watch, Receiver<Event>) {
        let (sender, events) = mpsc::channel();
        let watch = Watch::start(sender).unwrap();
        let mut seen = Fingerprint::default();
        seen.record(path.to_owned(), std::fs::read(path).ok().as_deref());
        watch.follow(seen);
        // The folder is watched once this was read.
        thread::sleep(Duration::from_millis(50));
        (watch, events)
    }

    #[test]
    fn a_write_is_told_soon_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weir.yaml");
        std::fs::write(&path, "a").unwrap();
        let (_watch, events) = follow(&path);
        let begin = Instant::now();
        std::fs::write(&path, "b").unwrap();
        assert!(matches!(events.recv_timeout(Duration::from_secs(3)), Ok(Event::Changed)));
        assert!(begin.elapsed() < Duration::from_millis(900), "only the comparison saw it");
        std::fs::write(&path, "b").unwrap();
        assert!(events.recv_timeout(Duration::from_millis(1200)).is_err(), "the same again is no change");
    }

    #[test]
    fn a_swapped_link_above_the_file_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (version, text) in [("1", "a"), ("2", "b")] {
            std::fs::create_dir(at(version)).unwrap();
            std::fs::write(at(version).join("weir.yaml"), text).unwrap();
        }
        std::fs::create_dir(at("mount")).unwrap();
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, at(name)).unwrap();
        link("../1", "mount/..data");
        link("..data/weir.yaml", "mount/weir.yaml");
        let (_watch, events) = follow(&at("mount/weir.yaml"));
        link("../2", "mount/..new");
        std::fs::rename(at("mount/..new"), at("mount/..data")).unwrap();
        assert!(matches!(events.recv_timeout(Duration::from_secs(3)), Ok(Event::Changed)));
    }
}
