//! Reads what was found in the index. What is not as it was written counts as not found.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::SystemTime;

use base::Time;
use bytes::Bytes;
use cache::Entry;
use cache::disk::{Counted, LARGE, Place, Slot, Tier, decode};
use tokio::sync::oneshot;

use crate::{Disk, Shared, locked};

pub(crate) enum Ask {
    Answer(Slot, oneshot::Sender<Option<Entry>>),
    Piece(Arc<File>, Arc<Place>, usize, oneshot::Sender<Option<Bytes>>),
}

/// A body on the disk that is being read. Its file is there until all who read it have ended.
pub struct Opened {
    disk: Arc<Disk>,
    file: Arc<File>,
    pub place: Arc<Place>,
}

const THREADS: usize = 4;
/// Questions that may wait. Beyond, the upstream is no slower.
const MOST: usize = 1024;

impl Disk {
    /// What is there; its body with it, unless it is large.
    pub async fn read(&self, slot: Slot) -> Option<Entry> {
        let entry = self.ask(|answer| Ask::Answer(slot, answer)).await?;
        self.tier.count(Counted::Hit);
        Some(entry)
    }

    /// A body that is not in memory; `None` if its segment is gone.
    pub fn open(self: &Arc<Disk>, place: &Place) -> Option<Opened> {
        let file = locked(&self.shared.segments).get(&place.segment)?.clone();
        Some(Opened { disk: self.clone(), file, place: Arc::new(place.clone()) })
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<Option<T>>) -> Ask) -> Option<T> {
        if self.shared.asked.load(Relaxed) >= MOST {
            return None;
        }
        let readers = self.readers.get_or_init(|| spawn(&self.tier, &self.shared));
        let (answer, answered) = oneshot::channel();
        let turn = self.turn.fetch_add(1, Relaxed) % readers.len().max(1);
        self.shared.asked.fetch_add(1, Relaxed);
        if readers.get(turn).is_none_or(|reader| reader.send(ask(answer)).is_err()) {
            self.shared.asked.fetch_sub(1, Relaxed);
            return None;
        }
        answered.await.ok().flatten()
    }
}

impl Opened {
    /// A piece of it, as it was written; `None` if it cannot be had.
    pub fn piece(&self, number: usize) -> impl Future<Output = Option<Bytes>> + use<> {
        let (disk, file, place) = (self.disk.clone(), self.file.clone(), self.place.clone());
        async move { disk.ask(|answer| Ask::Piece(file, place, number, answer)).await }
    }
}

fn spawn(tier: &Arc<Tier>, shared: &Arc<Shared>) -> Vec<mpsc::Sender<Ask>> {
    let thread = |_| {
        let (sender, receiver) = mpsc::channel();
        let (tier, shared) = (tier.clone(), shared.clone());
        let thread = thread::Builder::new().name("disk-read".to_owned());
        thread.spawn(move || run(&tier, &shared, &receiver)).ok().map(|_| sender)
    };
    (0..THREADS).filter_map(thread).collect()
}

fn run(tier: &Tier, shared: &Shared, asks: &Receiver<Ask>) {
    while let Ok(ask) = asks.recv() {
        shared.asked.fetch_sub(1, Relaxed);
        match ask {
            Ask::Answer(slot, answer) if !answer.is_closed() => {
                let _ = answer.send(read(tier, shared, &slot));
            }
            Ask::Piece(file, place, number, answer) if !answer.is_closed() => {
                let _ = answer.send(piece(tier, &file, &place, number));
            }
            Ask::Answer(..) | Ask::Piece(..) => {}
        }
    }
}

fn read(tier: &Tier, shared: &Shared, slot: &Slot) -> Option<Entry> {
    let entry = read_wanted(tier, shared, slot);
    if entry.is_none() {
        tier.drop_slot(slot.url, slot.sequence);
    }
    entry
}

fn read_wanted(tier: &Tier, shared: &Shared, slot: &Slot) -> Option<Entry> {
    let spot = slot.spot;
    let file = locked(&shared.segments).get(&spot.segment)?.clone();
    let small = spot.body as usize <= LARGE;
    let is_behind = spot.body_segment == spot.segment && spot.at.checked_add(spot.head) == Some(spot.body_at);
    let behind = if small && is_behind { spot.body as usize } else { 0 };
    let mut bytes = read_at(tier, &file, u64::from(spot.at), spot.head as usize + behind)?;
    let head = bytes.split_to(spot.head as usize);
    let decoded = decode(&head, (spot.segment, spot.at), Time::now(), SystemTime::now());
    let Some(record) = decoded.filter(|it| it.card.sequence == slot.sequence && it.card.spot == spot) else {
        tier.count(Counted::Corrupt);
        return None;
    };
    if tier.is_banned(&record.card) {
        return None;
    }
    if !small {
        return Some(record.without_body());
    }
    if !is_behind {
        let file = locked(&shared.segments).get(&spot.body_segment)?.clone();
        bytes = read_at(tier, &file, u64::from(spot.body_at), spot.body as usize)?;
    }
    if !record.is_whole(&bytes) {
        tier.count(Counted::Corrupt);
        return None;
    }
    Some(record.with_body(bytes))
}

fn piece(tier: &Tier, file: &File, place: &Place, number: usize) -> Option<Bytes> {
    let range = place.piece(number)?;
    let bytes = read_at(tier, file, range.start, usize::try_from(range.end - range.start).ok()?)?;
    if !place.is_piece(number, &bytes) {
        tier.count(Counted::Corrupt);
        return None;
    }
    Some(bytes)
}

fn read_at(tier: &Tier, file: &File, at: u64, length: usize) -> Option<Bytes> {
    let mut bytes = vec![0; length];
    match file.read_exact_at(&mut bytes, at) {
        Ok(()) => Some(bytes.into()),
        // It is shorter than it was.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            tier.count(Counted::Corrupt);
            None
        }
        Err(error) => {
            tier.count(Counted::Error);
            tracing::warn!(%error, "an answer of the cache cannot be read from the disk");
            None
        }
    }
}
