//! The thread that writes: appends what is offered to the newest segment, and deletes the oldest for the next.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use base::Time;
use cache::disk::{
    Ban, Card, Counted, HEAD, Job, Slot, Tier, TierState, decode, encode, footer, renumbered, write_head,
};
use cache::{Entry, What};

use crate::{Command, Settings, Shared, folder, locked, open};

struct Writer {
    tier: Arc<Tier>,
    shared: Arc<Shared>,
    settings: Option<Settings>,
    open: Option<Open>,
    /// When the folder is tried again.
    again: Option<Instant>,
    /// Who wants to hear that what was purged is on the disk, and how many answers of it were found.
    purging: Vec<(Sender<usize>, usize)>,
}

/// A folder that this process has.
struct Open {
    path: PathBuf,
    _lock: File,
    /// Bytes that may be used, and that one segment has at most.
    size: u64,
    segment: u64,
    /// What is full, oldest first.
    full: VecDeque<Full>,
    active: Option<Active>,
    used: u64,
    next: u32,
    bans: File,
    bans_count: u64,
    bans_bytes: u64,
    /// How long that file may become before it is written anew.
    bans_most: u64,
    /// Something was purged that is not synced.
    dirty: bool,
}

struct Full {
    number: u32,
    bytes: u64,
    /// Of the first that was written there.
    first: u64,
    /// The hashes of what is in it.
    urls: Vec<u64>,
}

struct Active {
    number: u32,
    file: Arc<File>,
    at: u32,
    cards: Vec<Card>,
    urls: Vec<u64>,
    /// About how long its footer will be.
    footer: u64,
}

/// How often it is seen whether another process has let go of the folder.
const TAKEN: Duration = Duration::from_millis(200);
/// How long a disk is left alone that failed.
const FAILED: Duration = Duration::from_secs(30);
/// What is asked for is kept when its segment goes: so many bytes of a segment, at most.
const KEPT: u64 = 8 << 20;
/// What a record and a footer may take beside what is counted.
const AROUND: u64 = 64;
/// The file of what was purged is written anew when it is longer.
const BANS: u64 = 4 << 20;

pub(crate) fn spawn(tier: Arc<Tier>, shared: Arc<Shared>, jobs: Receiver<Job>) -> io::Result<JoinHandle<()>> {
    let writer = Writer { tier, shared, settings: None, open: None, again: None, purging: Vec::new() };
    thread::Builder::new().name("disk-write".to_owned()).spawn(move || writer.run(&jobs))
}

// === impl Writer ===

impl Writer {
    fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            let job = match jobs.try_recv() {
                Ok(job) => job,
                Err(TryRecvError::Disconnected) => return self.let_go(TierState::Off),
                Err(TryRecvError::Empty) => {
                    // Nobody else waits, so it is time to sync.
                    self.sync();
                    match self.wait(jobs) {
                        Ok(job) => job,
                        Err(RecvTimeoutError::Timeout) => {
                            self.try_open();
                            continue;
                        }
                        Err(RecvTimeoutError::Disconnected) => return self.let_go(TierState::Off),
                    }
                }
            };
            match job {
                Job::Write { entry, sequence } => {
                    self.tier.taken(&entry);
                    self.guard(|open, tier, shared| open.write(tier, shared, &entry, sequence));
                }
                Job::Ban(ban, tell) => {
                    let mut found = 0;
                    self.guard(|open, tier, shared| {
                        open.ban(tier, &ban)?;
                        found = open.forget(tier, shared, &ban);
                        Ok(())
                    });
                    self.purging.extend(tell.map(|tell| (tell, found)));
                }
                Job::Look => {
                    if self.look() {
                        return;
                    }
                }
            }
        }
    }

    fn wait(&self, jobs: &Receiver<Job>) -> Result<Job, RecvTimeoutError> {
        match self.again {
            Some(again) => jobs.recv_timeout(again.saturating_duration_since(Instant::now())),
            None => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// True if it is to end.
    fn look(&mut self) -> bool {
        let commands = std::mem::take(&mut *locked(&self.shared.commands));
        for command in commands {
            match command {
                Command::End => {
                    self.let_go(TierState::Off);
                    return true;
                }
                Command::Apply(None) => {
                    self.settings = None;
                    self.let_go(TierState::Off);
                }
                Command::Apply(Some(new)) => {
                    let same_folder = self.settings.as_ref().is_some_and(|old| old.folder == new.folder);
                    let same = self.settings.as_ref() == Some(&new);
                    self.settings = Some(new);
                    if !same {
                        // What is purged from now on counts for what is in the folder.
                        self.let_go(if same_folder { TierState::Waiting } else { TierState::Off });
                        self.tier.close(TierState::Waiting);
                        self.try_open();
                    }
                }
            }
        }
        false
    }

    fn try_open(&mut self) {
        let Some(settings) = &self.settings else { return self.again = None };
        self.again = None;
        match Open::new(settings, &self.tier, &self.shared) {
            Ok(Some(open)) => self.open = Some(open),
            Ok(None) => {
                if self.tier.state() != TierState::Waiting {
                    self.tier.close(TierState::Waiting);
                }
                self.again = Some(Instant::now() + TAKEN);
            }
            Err(error) => self.fail(&error),
        }
    }

    /// Does something with the folder, if there is one; what fails puts an end to it.
    fn guard(&mut self, work: impl FnOnce(&mut Open, &Tier, &Shared) -> io::Result<()>) {
        let Some(open) = &mut self.open else { return };
        match work(open, &self.tier, &self.shared) {
            Ok(()) => self.tier.set_bytes(open.used + open.bans_bytes),
            Err(error) => self.fail(&error),
        }
    }

    fn sync(&mut self) {
        self.guard(|open, _, _| open.sync());
        self.tell();
    }

    /// Goes on without a disk. What is there is deleted: what is purged meanwhile could not be written down, and space
    /// may be what there is too little of.
    fn fail(&mut self, error: &io::Error) {
        self.tier.count(Counted::Error);
        tracing::error!(%error, "the cache goes on without its disk, and tries again in half a minute");
        self.tier.close(TierState::Failed);
        locked(&self.shared.segments).clear();
        if let Some(open) = self.open.take() {
            folder::empty(&open.path);
        }
        self.again = Some(Instant::now() + FAILED);
    }

    fn let_go(&mut self, state: TierState) {
        self.tier.close(state);
        if let Some(mut open) = self.open.take() {
            let done = open.seal().and_then(|()| open.sync());
            if let Err(error) = done {
                tracing::warn!(%error, "the disk of the cache was not left in order; the next start takes longer");
            }
        }
        locked(&self.shared.segments).clear();
        self.tell();
        self.again = None;
    }

    fn tell(&mut self) {
        for (tell, found) in self.purging.drain(..) {
            let _ = tell.send(found);
        }
    }
}

// === impl Open ===

impl Open {
    /// `None` if another process has it.
    fn new(settings: &Settings, tier: &Tier, shared: &Shared) -> io::Result<Option<Open>> {
        let Settings { folder: path, size } = settings;
        fs::create_dir_all(path)?;
        let Some(lock) = folder::lock(path)? else { return Ok(None) };
        let begun = Instant::now();
        let open::Found { segments, bans, next, torn } = open::find(path)?;
        tier.remember(bans);
        let mut full = VecDeque::new();
        let (mut used, mut last, mut entries) = (0, 0, 0);
        {
            let mut files = locked(&shared.segments);
            let lengths: HashMap<u32, u64> = segments.iter().map(|it| (it.number, it.bytes)).collect();
            for open::Segment { number, file, bytes, cards } in &segments {
                files.insert(*number, file.clone());
                (used, last, entries) = (used + bytes, *number, entries + cards.len());
                let first = cards.iter().map(|card| card.sequence).min().unwrap_or_default();
                let urls = cards.iter().map(|card| tier.url_of(card)).collect();
                full.push_back(Full { number: *number, bytes: *bytes, first, urls });
            }
            for card in segments.iter().flat_map(|segment| &segment.cards) {
                let spot = card.spot;
                let end = lengths.get(&spot.body_segment).copied().unwrap_or_default();
                if u64::from(spot.body_at) + u64::from(spot.body) <= end {
                    tier.load(card);
                }
            }
        }
        let size = *size;
        let most = usize::try_from(size / 4).unwrap_or(usize::MAX).min(1 << 30);
        let bans = tier.open(next, most);
        if !bans.is_empty() {
            // Some may have been purged while it was loaded. What is purged from here on finds all that is known.
            let cards = segments.iter().flat_map(|segment| &segment.cards);
            cards.filter(|card| tier.is_banned(card)).for_each(|card| {
                tier.drop_card(card);
            });
        }
        let bans_count = bans.len() as u64;
        let bytes = Ban::encode_all(&bans);
        let bans = folder::write_purged(path, &bytes)?;
        let mut open = Open {
            path: path.clone(),
            _lock: lock,
            size,
            segment: (size / 32).clamp(64 << 10, 256 << 20),
            full,
            active: None,
            used,
            next: last.wrapping_add(1),
            bans,
            bans_count,
            bans_bytes: bytes.len() as u64,
            bans_most: BANS.min(size / 8).max(2 * bytes.len() as u64),
            dirty: false,
        };
        open.make_room(tier, shared, 0)?;
        tier.set_bytes(open.used + open.bans_bytes);
        let milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(entries, bytes = open.used, torn, milliseconds, "the cache has its disk");
        Ok(Some(open))
    }

    fn write(&mut self, tier: &Tier, shared: &Shared, entry: &Entry, sequence: u64) -> io::Result<()> {
        let there = |segment| locked(&shared.segments).contains_key(&segment);
        let written = encode(entry, sequence, (0, 0), Time::now(), SystemTime::now());
        // Its body may have gone since.
        let usable = entry.apart.as_ref().is_none_or(|place| there(place.segment));
        let Some((head, mut card)) = written.filter(|_| usable) else {
            tier.count(Counted::Dropped);
            tier.drop_offer(entry, sequence);
            return Ok(());
        };
        if tier.is_banned(&card) {
            tier.drop_card(&card);
            return Ok(());
        }
        self.append(tier, shared, &head, &entry.body, &mut card, entry.apart.is_some())?;
        tier.publish(&card);
        tier.count(Counted::Written);
        Ok(())
    }

    /// Writes a record where there is room for it, if need be by deleting the oldest.
    fn append(
        &mut self,
        tier: &Tier,
        shared: &Shared,
        head: &[u8],
        body: &[u8],
        card: &mut Card,
        apart: bool,
    ) -> io::Result<()> {
        self.make_room(tier, shared, (head.len() + body.len()) as u64 + card.listed() + AROUND)?;
        self.place(tier, shared, head, body, card, apart)
    }

    /// Writes a record at the end, and says in its card where that is.
    fn place(
        &mut self,
        tier: &Tier,
        shared: &Shared,
        head: &[u8],
        body: &[u8],
        card: &mut Card,
        apart: bool,
    ) -> io::Result<()> {
        let length = (head.len() + body.len()) as u64;
        let is_full = |active: &Active| u64::from(active.at) + length > self.segment && !active.cards.is_empty();
        if self.active.as_ref().is_some_and(is_full) {
            self.seal()?;
        }
        if self.active.is_none() {
            self.begin(shared)?;
        }
        let Some(active) = &mut self.active else { return Err(io::Error::other("there is no segment to write to")) };
        let at = active.at;
        let body_at = u64::from(at) + head.len() as u64;
        active.file.write_all_at(head, u64::from(at))?;
        active.file.write_all_at(body, body_at)?;
        active.at = u32::try_from(u64::from(at) + length).map_err(io::Error::other)?;
        self.used += length;
        (card.spot.segment, card.spot.at) = (active.number, at);
        if !apart {
            (card.spot.body_segment, card.spot.body_at) = (active.number, at + head.len() as u32);
        }
        active.footer += card.listed();
        active.urls.push(tier.url_of(card));
        active.cards.push(card.clone());
        Ok(())
    }

    fn begin(&mut self, shared: &Shared) -> io::Result<()> {
        let number = self.next;
        let path = folder::segment_path(&self.path, number);
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        file.write_all_at(&write_head(number), 0)?;
        let file = Arc::new(file);
        locked(&shared.segments).insert(number, file.clone());
        self.next = number.wrapping_add(1);
        self.used += HEAD as u64;
        self.active =
            Some(Active { number, file, at: HEAD as u32, cards: Vec::new(), urls: Vec::new(), footer: AROUND });
        Ok(())
    }

    /// Nothing more comes into the newest segment.
    fn seal(&mut self) -> io::Result<()> {
        let Some(Active { number, file, at, cards, urls, footer: _ }) = self.active.take() else { return Ok(()) };
        let footer = footer(&cards);
        file.write_all_at(&footer, u64::from(at))?;
        self.used += footer.len() as u64;
        let bytes = u64::from(at) + footer.len() as u64;
        let first = cards.iter().map(|card| card.sequence).min().unwrap_or_default();
        self.full.push_back(Full { number, bytes, first, urls });
        Ok(())
    }

    /// Deletes the oldest segments until there is room for so many bytes more. What was asked for of the first of them is
    /// written again, as far as there is room.
    fn make_room(&mut self, tier: &Tier, shared: &Shared, bytes: u64) -> io::Result<()> {
        let mut kept = Vec::new();
        while self.taken() + bytes > self.size {
            if self.full.is_empty() {
                self.seal()?;
            }
            let Some(oldest) = self.full.pop_front() else { break };
            if kept.is_empty() {
                kept = keep(tier, shared, &oldest, KEPT.min(oldest.bytes / 2));
            }
            let is_kept = |url: u64| kept.iter().any(|it: &Kept| it.slot.url == url);
            for url in oldest.urls.iter().filter(|url| !is_kept(**url)) {
                tier.evict(*url, oldest.number);
            }
            self.delete(shared, &oldest)?;
            tier.count(Counted::Evicted);
        }
        for Kept { slot, mut head, body, mut card } in kept {
            let room = (head.len() + body.len()) as u64 + card.listed() + AROUND;
            if self.taken() + bytes + room <= self.size {
                renumbered(&mut head, card.sequence);
                let old = slot.spot.segment;
                self.place(tier, shared, &head, &body, &mut card, false)?;
                tier.moved(&slot, &card);
                tier.evict(slot.url, old);
            } else {
                tier.evict(slot.url, slot.spot.segment);
            }
        }
        Ok(())
    }

    fn delete(&mut self, shared: &Shared, segment: &Full) -> io::Result<()> {
        locked(&shared.segments).remove(&segment.number);
        fs::remove_file(folder::segment_path(&self.path, segment.number))?;
        self.used -= segment.bytes;
        Ok(())
    }

    /// Bytes that are used, or will be by the footer of the newest segment.
    fn taken(&self) -> u64 {
        self.used + self.bans_bytes + self.active.as_ref().map_or(0, |active| active.footer)
    }

    fn ban(&mut self, tier: &Tier, ban: &Ban) -> io::Result<()> {
        let bytes = ban.encode();
        if self.bans_bytes + bytes.len() as u64 > self.bans_most {
            // Those are left out that name only what is no more there.
            let oldest = self.full.iter().map(|full| full.first).min();
            let newest = self.active.iter().flat_map(|active| &active.cards).map(|card| card.sequence).min();
            // What has a number already may still be on its way here.
            let oldest = oldest.into_iter().chain(newest).min().unwrap_or(ban.sequence).saturating_sub(4096);
            let bans = tier.bans_since(oldest);
            let all = Ban::encode_all(&bans);
            self.bans = folder::write_purged(&self.path, &all)?;
            self.bans_count = bans.len() as u64;
            self.bans_bytes = all.len() as u64;
            self.bans_most = self.bans_most.max(2 * self.bans_bytes);
            return Ok(());
        }
        self.bans.write_all_at(&bytes, self.bans_bytes)?;
        self.bans_count += 1;
        self.bans_bytes += bytes.len() as u64;
        self.bans.write_all_at(&Ban::heading(self.bans_count), 0)?;
        self.dirty = true;
        Ok(())
    }

    /// Forgets what a prefix names, which the index cannot tell: the lists of the segments can.
    fn forget(&self, tier: &Tier, shared: &Shared, ban: &Ban) -> usize {
        if !matches!(ban.purge.what, What::Prefix(_)) {
            return 0;
        }
        let full = self.full.iter().map(|full| {
            let Some(file) = locked(&shared.segments).get(&full.number).cloned() else { return 0 };
            // What is not found stays until it is read.
            let found = open::look(&file, full.bytes, full.number).unwrap_or_default();
            found.map_or(0, |survey| tier.drop_named(ban, &survey.cards))
        });
        let active = self.active.iter().flat_map(|active| &active.cards);
        full.sum::<usize>() + tier.drop_named(ban, active)
    }

    fn sync(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.dirty) {
            self.bans.sync_data()?;
        }
        Ok(())
    }
}

/// Something of a segment that goes, to be written once more.
struct Kept {
    slot: Slot,
    head: Vec<u8>,
    body: Vec<u8>,
    /// With a number that was given before it was read: whatever is forgotten meanwhile is forgotten later.
    card: Card,
}

fn keep(tier: &Tier, shared: &Shared, segment: &Full, most: u64) -> Vec<Kept> {
    let Some(file) = locked(&shared.segments).get(&segment.number).cloned() else { return Vec::new() };
    let (mut kept, mut bytes) = (Vec::new(), 0);
    let mut urls = segment.urls.clone();
    urls.sort_unstable();
    urls.dedup();
    for slot in urls.into_iter().flat_map(|url| tier.asked(url, segment.number)) {
        let spot = slot.spot;
        bytes += u64::from(spot.head) + u64::from(spot.body);
        if bytes > most {
            break;
        }
        let sequence = tier.sequence();
        let (mut head, mut body) = (vec![0; spot.head as usize], vec![0; spot.body as usize]);
        let read = file.read_exact_at(&mut head, u64::from(spot.at));
        if read.and_then(|()| file.read_exact_at(&mut body, u64::from(spot.body_at))).is_err() {
            continue;
        }
        let record = decode(&head, (spot.segment, spot.at), Time::now(), SystemTime::now());
        let Some(record) = record.filter(|record| record.card.sequence == slot.sequence) else { continue };
        // What it is made of is checked when it is read; a body that is damaged stays so.
        if !tier.is_banned(&record.card) && tier.is_known(&slot) {
            let mut card = record.card;
            card.sequence = sequence;
            kept.push(Kept { slot, head, body, card });
        }
    }
    kept
}
