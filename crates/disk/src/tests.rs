//! With real files. What a killed process leaves is a copy of its folder, made while it writes.

use std::fs;
use std::path::Path;
use std::process::Command as Program;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use base::{Headers, Method, RequestHead, ResponseHead, Scheme, StatusCode, Time, Version};
use bytes::Bytes;
use cache::disk::{Counted, LARGE, OnDisk, TierState};
use cache::{Boarded, Entry, Key, Purge, Purged, Query, Rules, Seen, Store, What, plan};
use proptest::prelude::*;

use crate::{Disk, Settings};

struct Room {
    store: Arc<Store>,
    disk: Arc<Disk>,
}

fn request(target: &str, fields: &[(&str, &str)]) -> RequestHead {
    RequestHead {
        method: Method::GET,
        scheme: Scheme::Http,
        authority: "h".into(),
        target: target.into(),
        version: Version::HTTP_11,
        headers: Headers::from_iter(fields.iter().copied()),
    }
}

fn key(owner: Option<&str>, target: &str) -> Key {
    Key::new(&[0; 16], owner, &request(target, &[]), &Query::default())
}

fn entry(owner: Option<&str>, target: &str, ask: &[(&str, &str)], told: &[(&str, &str)], body: Bytes) -> Entry {
    let head = request(target, ask);
    let told: Vec<_> = told.iter().copied().chain([("cache-control", "max-age=600"), ("etag", "\"e\"")]).collect();
    let reply = ResponseHead { status: StatusCode::OK, headers: Headers::from_iter(told) };
    let (now, wall) = (Time::now(), SystemTime::now());
    let rules = Rules {
        fresh: None,
        heuristic: true,
        stale_while_revalidate: Duration::ZERO,
        stale_if_error: Duration::ZERO,
        entry: 1 << 30,
        shared: false,
        set_cookie: false,
        query: Query::default(),
    };
    let seen = Seen { request: &head, consumer: owner.is_some(), asked: now, told: now, wall };
    let plan = plan(&rules, &seen, &reply).unwrap();
    Entry::new(&key(owner, target), "a".into(), &reply, body, plan, (now, wall))
}

/// Another for each target and length, that tells which it is.
fn body(target: &str, length: usize) -> Bytes {
    let seed = format!("{target}|{length}|");
    seed.bytes().cycle().take(length).collect::<Vec<u8>>().into()
}

fn eventually(mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it never came to be");
        thread::sleep(Duration::from_millis(2));
    }
}

fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.path().join(file.file_name())).unwrap();
    }
    to
}

fn bytes(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).unwrap().flatten();
    files.map(|file| file.metadata().map_or(0, |it| it.len())).sum()
}

impl Room {
    fn new(folder: &Path, size: u64) -> Room {
        let room = Room::waiting(folder, size);
        eventually(|| room.state() == TierState::On);
        room
    }

    fn waiting(folder: &Path, size: u64) -> Room {
        let store = Store::new(1 << 20);
        let disk = Arc::new(Disk::new(store.tier.clone()));
        disk.apply(Some(Settings { folder: folder.to_owned(), size }));
        Room { store, disk }
    }

    fn state(&self) -> TierState {
        self.store.tier.usage().state
    }

    fn count(&self, counted: Counted) -> u64 {
        self.store.tier.usage().counts[counted as usize]
    }

    /// Keeps an answer, and waits until it is on the disk.
    fn keep(&self, entry: Entry) {
        let done = || self.count(Counted::Written) + self.count(Counted::Dropped);
        let before = done();
        self.land(entry);
        eventually(|| done() > before || self.state() != TierState::On);
    }

    fn land(&self, entry: Entry) {
        let target = std::str::from_utf8(&entry.url()["http://h".len()..]).unwrap();
        let Boarded::Lead(ticket) = self.store.board(&key(None, target), true, Time::now()) else { panic!() };
        ticket.land(entry);
    }

    fn keep_all(&self, targets: &[String], length: usize) {
        targets.iter().for_each(|target| self.keep(entry(None, target, &[], &[], body(target, length))));
    }

    /// As the disk has it, whatever is in memory.
    fn read(&self, owner: Option<&str>, target: &str, ask: &[(&str, &str)]) -> Option<Entry> {
        let headers = Headers::from_iter(ask.iter().copied());
        let OnDisk::At(slot) = self.store.tier.find(&key(owner, target), &headers, false) else { return None };
        let entry = wait(self.disk.read(slot))?;
        assert!(entry.answers(key(owner, target).bytes(), &headers, false));
        Some(entry)
    }

    fn body(&self, target: &str) -> Option<Bytes> {
        let entry = self.read(None, target, &[])?;
        let Some(place) = &entry.apart else { return Some(entry.body) };
        let opened = self.disk.open(place)?;
        let mut all = Vec::new();
        for number in 0..entry.length().div_ceil(cache::disk::CHUNK) {
            all.extend_from_slice(&wait(opened.piece(number))?);
        }
        Some(all.into())
    }

    fn purge(&self, what: What) -> Purged {
        self.store.purge(&Purge { api: None, what })
    }

    /// What is told of the disk, by api and consumer.
    fn shares(&self) -> Vec<(String, Option<String>, u64)> {
        let shares = self.store.shares().into_iter().filter(|share| share.disk > 0);
        shares.map(|share| (share.api, share.consumer, share.disk)).collect()
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn what_was_written_is_there_after_a_restart_and_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let room = Room::new(folder.path(), 64 << 20);
    let lengths = [0, 1, 5000, LARGE, LARGE + 1, 3 * LARGE];
    for length in lengths {
        let target = format!("/{length}");
        room.keep(entry(None, &target, &[], &[("x-a", "1"), ("cache-tag", "t")], body(&target, length)));
    }
    room.keep(entry(Some("x"), "/own", &[], &[], body("x", 10)));
    for lang in ["de", "en"] {
        room.keep(entry(None, "/vary", &[("accept-language", lang)], &[("vary", "accept-language")], body(lang, 10)));
    }
    let killed = copy(folder.path());
    room.disk.close();
    assert_eq!(room.body("/1"), None, "nobody reads what was closed");
    for folder in [killed.path(), folder.path()] {
        let room = Room::new(folder, 64 << 20);
        for length in lengths {
            let target = format!("/{length}");
            assert_eq!(room.body(&target).unwrap(), body(&target, length));
            let entry = room.read(None, &target, &[]).unwrap();
            assert_eq!((entry.headers.get_str("x-a"), &entry.plan.tags[..]), (Some("1"), &["t".to_owned()][..]));
            assert_eq!(entry.apart.is_some(), length > LARGE);
            assert!(entry.age(Time::now()) < Duration::from_secs(60));
        }
        assert_eq!(room.read(Some("x"), "/own", &[]).unwrap().body, body("x", 10));
        assert!(room.read(None, "/own", &[]).is_none() && room.read(Some("y"), "/own", &[]).is_none());
        for lang in ["de", "en"] {
            assert_eq!(room.read(None, "/vary", &[("accept-language", lang)]).unwrap().body, body(lang, 10));
        }
        assert!(room.read(None, "/vary", &[]).is_none());
        assert_eq!(room.store.tier.usage().entries, lengths.len() + 3);
    }
}

#[test]
fn what_was_forgotten_stays_so_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let room = Room::new(folder.path(), 8 << 20);
    let tagged = |target: &str, tag: &str| entry(None, target, &[], &[("cache-tag", tag)], body(target, 100));
    for (target, tag) in [("/tag", "t"), ("/url", "u"), ("/prefix/a", "u"), ("/changed", "u"), ("/stays", "u")] {
        room.keep(tagged(target, tag));
    }
    room.purge(What::Tag("t".into()));
    room.purge(What::Url("http://h/url".into()));
    room.purge(What::Prefix("http://h/prefix/".into()));
    room.store.forget(&key(None, "/changed"));
    // What is written next is written after that.
    room.keep(tagged("/next", "u"));
    let killed = copy(folder.path());
    let gone = |room: &Room| {
        for target in ["/tag", "/url", "/prefix/a", "/changed"] {
            assert_eq!(room.body(target), None, "{target}");
        }
        assert!(room.body("/stays").is_some());
    };
    gone(&room);
    room.keep(tagged("/tag", "t"));
    assert!(room.body("/tag").is_some(), "what is written later is not meant");
    room.disk.close();
    gone(&Room::new(killed.path(), 8 << 20));
    let room = Room::new(folder.path(), 8 << 20);
    assert!(room.body("/tag").is_some() && room.body("/url").is_none());
    room.purge(What::All);
    room.disk.close();
    assert_eq!(Room::new(folder.path(), 8 << 20).body("/stays"), None);
    // Nobody knows any more what was forgotten.
    let room = Room::new(folder.path(), 8 << 20);
    room.keep(tagged("/new", "t"));
    room.disk.close();
    let purged = folder.path().join("purged");
    let mut text = fs::read(&purged).unwrap();
    *text.last_mut().unwrap() ^= 1;
    fs::write(&purged, text).unwrap();
    assert_eq!(Room::new(folder.path(), 8 << 20).body("/new"), None);
}

#[test]
fn what_is_purged_is_counted_once_wherever_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let names = [("/a/1", "s"), ("/a/2", "s,t"), ("/b/1", "t"), ("/b/2", "s")];
    let fill = |room: &Room| {
        for (target, tags) in names {
            room.keep(entry(None, target, &[], &[("cache-tag", tags)], body(target, 100)));
        }
    };
    let check = |room: &Room, api: Option<&str>, what: What, answers: usize, memory: usize| {
        let purged = room.store.purge(&Purge { api: api.map(str::to_owned), what: what.clone() });
        assert_eq!(purged, Purged { answers, memory, disk: Some(answers) }, "{what:?}");
        assert_eq!(room.purge(what), Purged { answers: 0, memory: 0, disk: Some(0) }, "each once");
    };
    let whats = [
        (What::Tag("t".into()), 2),
        (What::Prefix("http://h/a".into()), 2),
        (What::Url("http://h/b/1".into()), 1),
        (What::All, 4),
    ];
    for (what, answers) in whats {
        let room = Room::new(folder.path(), 8 << 20);
        room.purge(What::All);
        // In both.
        fill(&room);
        assert_eq!(room.store.purge(&Purge { api: Some("b".into()), what: what.clone() }).answers, 0);
        check(&room, Some("a"), what.clone(), answers, answers);
        // On the disk alone, in the list of a file that is full.
        room.purge(What::All);
        fill(&room);
        room.disk.close();
        let room = Room::new(folder.path(), 8 << 20);
        check(&room, Some("a"), what.clone(), answers, 0);
        assert_eq!(room.store.tier.usage().entries, 4 - answers);
        // Some of it in memory, some on the disk, some in both.
        room.purge(What::All);
        fill(&room);
        room.store.resize(0);
        room.store.resize(1 << 20);
        room.keep(entry(None, "/a/2", &[], &[("cache-tag", "s,t")], body("again", 100)));
        let of_it = usize::from(!matches!(what, What::Url(_)));
        check(&room, None, what, answers, of_it);
    }
}

#[test]
fn whose_answers_take_how_much_is_known_over_eviction_purge_and_restart() {
    const SIZE: u64 = 1 << 20;
    let folder = tempfile::tempdir().unwrap();
    let room = Room::new(folder.path(), SIZE);
    let all = |room: &Room| room.shares().iter().map(|(_, _, bytes)| bytes).sum::<u64>();
    assert_eq!(room.shares(), []);
    room.keep(entry(None, "/a", &[], &[("cache-tag", "t")], body("/a", 1000)));
    let one = all(&room);
    assert!((1000..2000).contains(&one) && one <= bytes(folder.path()), "{one}");
    room.keep(entry(Some("x"), "/a", &[], &[], body("/a", 3000)));
    room.keep(entry(Some("x"), "/b", &[], &[], body("/b", 3000)));
    let told = room.shares();
    let whose = |told: &[(String, Option<String>, u64)]| {
        told.iter().map(|(api, consumer, _)| (api.clone(), consumer.clone())).collect::<Vec<_>>()
    };
    assert_eq!(whose(&told), [("a".into(), None), ("a".into(), Some("x".into()))]);
    assert!(told[0].2 == one && (6000..8000).contains(&told[1].2), "{told:?}");
    let memory: u64 = room.store.shares().iter().map(|share| share.memory).sum();
    assert_eq!(memory, room.store.usage().bytes as u64);

    // In place of another, it takes what it takes.
    room.keep(entry(None, "/a", &[], &[("cache-tag", "t")], body("/a", 1000)));
    assert_eq!(room.shares(), told);
    let killed = copy(folder.path());
    room.disk.close();
    assert_eq!(room.shares(), []);
    for folder in [killed.path(), folder.path()] {
        assert_eq!(Room::new(folder, SIZE).shares(), told, "after a restart");
    }
    let room = Room::new(folder.path(), SIZE);
    room.purge(What::Tag("t".into()));
    assert_eq!(room.shares(), told[1..]);
    room.store.forget(&key(None, "/b"));
    assert!(all(&room) < told[1].2 - 3000);
    // What is written next is written after that.
    room.keep(entry(Some("y"), "/c", &[], &[], body("/c", 10)));
    let told = room.shares();
    room.disk.close();
    let room = Room::new(folder.path(), SIZE);
    assert_eq!(room.shares(), told, "what was purged is not there again");

    // What is deleted for the next is nobody's.
    for round in 0..300 {
        room.keep_all(&[format!("/cold/{round}")], 10_000);
        assert!(all(&room) <= bytes(folder.path()), "in round {round}");
    }
    assert_eq!(whose(&room.shares()), [("a".into(), None)]);
    let usage = room.store.tier.usage();
    assert!(all(&room) > usage.entries as u64 * 10_000 && usage.entries > 50, "{usage:?}");
    room.purge(What::Prefix("http://h/cold/".into()));
    assert_eq!((room.shares(), room.store.tier.usage().entries), (vec![], 0));
    room.disk.close();
    assert_eq!(Room::new(folder.path(), SIZE).shares(), []);
}

#[test]
fn bytes_are_bounded_and_what_is_asked_for_stays() {
    const SIZE: u64 = 2 << 20;
    let folder = tempfile::tempdir().unwrap();
    let room = Room::new(folder.path(), SIZE);
    let hot: Vec<String> = (0..4).map(|number| format!("/hot/{number}")).collect();
    room.keep_all(&hot, 3000);
    for round in 0..900 {
        room.keep_all(&[format!("/cold/{round}")], 1000 + round * 37 % 20_000);
        if round % 10 == 0 {
            hot.iter().for_each(|target| assert_eq!(room.body(target), Some(body(target, 3000)), "{target} {round}"));
        }
        assert!(bytes(folder.path()) <= SIZE, "{} bytes in round {round}", bytes(folder.path()));
    }
    assert!(room.count(Counted::Evicted) > 20 && room.body("/cold/0").is_none() && room.body("/cold/899").is_some());
    let usage = room.store.tier.usage();
    assert!(usage.bytes > SIZE / 2 && usage.entries > 50, "{usage:?}");
    room.disk.close();
    let room = Room::new(folder.path(), 1 << 20);
    eventually(|| bytes(folder.path()) <= 1 << 20);
    assert_eq!(room.body(&hot[0]), Some(body(&hot[0], 3000)));
}

#[test]
fn what_waits_for_the_disk_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let room = Room::new(folder.path(), 128 << 20);
    let large = body("/large", 8 << 20);
    for number in 0..40 {
        room.land(entry(None, &format!("/{number}"), &[], &[], large.clone()));
    }
    eventually(|| room.count(Counted::Written) + room.count(Counted::Dropped) == 40);
    // Too large for a disk of this size at all.
    room.keep(entry(None, "/39", &[], &[], body("/39", (32 << 20) + 1)));
    assert!(room.count(Counted::Dropped) > 0);
    assert_eq!(room.body("/39"), None, "nor does the one before it come back");
}

#[test]
fn a_head_is_renewed_and_its_large_body_stays() {
    let folder = tempfile::tempdir().unwrap();
    let room = Room::new(folder.path(), 16 << 20);
    let large = body("/l", 2 * LARGE);
    room.keep(entry(None, "/l", &[], &[("x-a", "old")], large.clone()));
    let written = bytes(folder.path());
    let old = room.read(None, "/l", &[]).unwrap();
    room.keep(entry(None, "/l", &[], &[("x-a", "new")], Bytes::new()).with_body_of(&old));
    assert!(bytes(folder.path()) < written + 4096, "the body is not written again");
    let killed = copy(folder.path());
    room.disk.close();
    for folder in [folder.path(), killed.path()] {
        let room = Room::new(folder, 16 << 20);
        assert_eq!(room.read(None, "/l", &[]).unwrap().headers.get_str("x-a"), Some("new"));
        assert_eq!(room.body("/l"), Some(large.clone()));
        assert_eq!(room.store.tier.usage().entries, 1);
    }
}

#[test]
fn what_memory_has_no_room_for_is_renewed_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let room = Room::new(folder.path(), 16 << 20);
    room.store.resize(1 << 10);
    room.keep(entry(None, "/a", &[], &[("x-a", "old")], body("/a", 100)));
    let lead = || match room.store.board(&key(None, "/a"), true, Time::now()) {
        Boarded::Lead(ticket) => ticket,
        other => panic!("{other:?}"),
    };
    let old = lead().recall(room.read(None, "/a", &[]).unwrap()).unwrap();
    assert_eq!(room.store.usage().entries, 0);
    lead().renew(&old, entry(None, "/a", &[], &[("x-a", "new")], Bytes::new()).with_body_of(&old));
    eventually(|| room.count(Counted::Written) == 2);
    let new = room.read(None, "/a", &[]).unwrap();
    assert_eq!((new.headers.get_str("x-a"), new.body), (Some("new"), body("/a", 100)));
}

#[test]
fn one_process_has_the_folder_and_the_next_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let first = Room::new(folder.path(), 8 << 20);
    for target in ["/a", "/b", "/c"] {
        first.keep_all(&[target.to_owned()], 100);
    }
    // Once before, which is on the disk.
    first.purge(What::Url("http://h/c".into()));
    first.keep_all(&["/c".to_owned()], 100);
    let second = Room::waiting(folder.path(), 8 << 20);
    eventually(|| second.state() == TierState::Waiting);
    assert_eq!(second.body("/a"), None);
    // It knows nothing of what is there, and must not give it later.
    second.store.forget(&key(None, "/b"));
    second.purge(What::Url("http://h/c".into()));
    first.keep_all(&["/d".to_owned()], 100);
    assert!(first.body("/a").is_some(), "the first goes on");
    first.disk.release();
    eventually(|| second.state() == TierState::On);
    assert!(second.body("/a").is_some() && second.body("/d").is_some());
    assert!(second.body("/b").is_none() && second.body("/c").is_none());
    assert_eq!(first.state(), TierState::Off);
    first.land(entry(None, "/e", &[], &[], body("/e", 10)));
    second.keep_all(&["/f".to_owned()], 100);
    assert!(second.body("/f").is_some() && first.body("/a").is_none());
}

// === Damage ===

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Whatever becomes of the files, what is served is what was written.
    #[test]
    fn what_is_damaged_is_never_served(
        lengths in prop::collection::vec(0..2 * LARGE, 1..8),
        purged in any::<prop::sample::Index>(),
        is_killed in any::<bool>(),
        wounds in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1..=255u8), 0..8),
        cut in prop::option::of((any::<prop::sample::Index>(), any::<prop::sample::Index>())),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let room = Room::new(folder.path(), 16 << 20);
        let targets: Vec<String> = (0..lengths.len()).map(|number| format!("/{number}")).collect();
        for (target, length) in targets.iter().zip(&lengths) {
            room.keep(entry(None, target, &[], &[], body(target, *length)));
        }
        let purged = &targets[purged.index(targets.len())];
        room.purge(What::Url(format!("http://h{purged}")));
        // What is written next is written after that.
        room.keep(entry(None, "/next", &[], &[], body("/next", 100)));
        let copied = copy(folder.path());
        room.disk.close();
        let folder = if is_killed { copied } else { folder };
        let mut files: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        for (file, at, by) in &wounds {
            let path = &files[file.index(files.len())];
            let mut content = fs::read(path).unwrap();
            if !content.is_empty() {
                let at = at.index(content.len());
                content[at] ^= by;
                fs::write(path, content).unwrap();
            }
        }
        if let Some((file, at)) = cut {
            let path = &files[file.index(files.len())];
            let content = fs::read(path).unwrap();
            fs::write(path, &content[..at.index(content.len() + 1)]).unwrap();
        }
        let room = Room::new(folder.path(), 16 << 20);
        let untouched = wounds.is_empty() && cut.is_none();
        for (target, length) in targets.iter().zip(&lengths) {
            match room.body(target) {
                Some(found) => {
                    prop_assert!(target != purged, "{} was purged", target);
                    prop_assert!(found == body(target, *length), "{} is not what it was", target);
                }
                None => prop_assert!(!untouched || target == purged, "{} is gone", target),
            }
        }
        // And it goes on.
        room.keep_all(&["/more".to_owned()], 1000);
        prop_assert_eq!(room.body("/more"), Some(body("/more", 1000)));
    }
}

/// Also while it is in use.
#[test]
fn damage_that_comes_later_is_a_miss() {
    let folder = tempfile::tempdir().unwrap();
    let room = Room::new(folder.path(), 64 << 20);
    room.keep_all(&["/small".to_owned()], 1000);
    room.keep_all(&["/large".to_owned()], 2 * LARGE);
    let path =
        fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().path()).find(|it| it.ends_with("0000000001.cache"));
    let path = path.unwrap();
    let mut content = fs::read(&path).unwrap();
    let middle = content.len() / 2;
    content[900] ^= 1;
    content[middle] ^= 1;
    fs::write(&path, content).unwrap();
    assert!(room.body("/small").is_none() && room.body("/large").is_none());
    assert!(room.count(Counted::Corrupt) >= 2);
    assert_eq!(room.state(), TierState::On);
}

// === Full ===

/// A file system of 400 KiB, gone when dropped; `None` where one may not mount.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Option<Small> {
        let folder = tempfile::tempdir().unwrap();
        let mount = Program::new("mount").args(["-t", "tmpfs", "-o", "size=400k", "tmpfs"]).arg(folder.path()).output();
        mount.is_ok_and(|it| it.status.success()).then_some(Small(folder))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Program::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_done_without() {
    let Some(small) = Small::mount() else {
        eprintln!("skipped: mounting a small file system is not allowed here");
        return;
    };
    let room = Room::new(&small.0.path().join("cache"), 8 << 20);
    for number in 0..100 {
        room.keep_all(&[format!("/{number}")], 10_000);
        if room.state() == TierState::Failed {
            break;
        }
    }
    assert_eq!((room.state(), room.count(Counted::Error)), (TierState::Failed, 1));
    assert_eq!(room.body("/0"), None);
    room.keep_all(&["/later".to_owned()], 10);
    room.purge(What::Tag("nothing waits".into()));
    room.disk.close();
    // What could not be purged is not there.
    assert!(bytes(&small.0.path().join("cache")) < 10_000);
}
