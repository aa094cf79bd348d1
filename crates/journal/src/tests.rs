use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ledger::{Class, Entry, Moment, Money, Opened, Outcome, Record};

use super::*;

fn settings() -> Settings {
    Settings { commit: Duration::from_millis(1), ..Settings::default() }
}

fn entry(number: u64) -> Entry {
    Entry {
        time: Moment(number),
        api: "chat".into(),
        provider: "openai".into(),
        model_asked: "gpt-4o".into(),
        model_served: "gpt-4o".into(),
        cost: Money::from_units(i128::from(number)),
        ..Entry::default()
    }
}

fn open_with(path: &Path, settings: Settings) -> (Journal, Recovery, Vec<u64>) {
    let mut seen = Vec::new();
    let (journal, recovery) = Journal::open(path, settings, None, |entry| seen.push(entry.time.0), |_| {}).unwrap();
    (journal, recovery, seen)
}

fn written(path: &Path) -> Vec<(u64, u64)> {
    let records = read(path, None).unwrap().map(Result::unwrap);
    let entries = records.filter_map(|(id, record)| match record {
        Record::Entry(entry) => Some((id.sequence, entry.time.0)),
        Record::Opened(_) => None,
    });
    entries.collect()
}

#[test]
fn what_was_written_is_there_and_the_sequence_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = &folder.path().join("new/folder");
    let (journal, recovery, seen) = open_with(path, settings());
    assert_eq!((recovery, seen), (Recovery::default(), vec![]));
    let writer = journal.writer;
    let handle = journal.handle();
    let tickets: Vec<Ticket> = (1..=100).map(|number| handle.append(entry(number)).unwrap()).collect();
    assert!(handle.flush() && tickets.iter().all(|ticket| handle.is_durable(*ticket)));
    assert!(journal.close());
    let (journal, recovery, seen) = open_with(path, settings());
    assert_eq!(recovery, Recovery { entries: 100, ..Recovery::default() });
    assert_eq!((seen, journal.writer), ((1..=100).collect(), writer));
    journal.handle().append(entry(101)).unwrap();
    assert!(journal.close());
    assert_eq!(written(path), (1..=101).map(|it| (it, it)).collect::<Vec<_>>());
}

#[test]
fn many_threads_hand_over_and_each_entry_is_there_once() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, ..) = open_with(folder.path(), Settings { segment: 40_000, ..settings() });
    thread::scope(|scope| {
        for thread in 0..4 {
            let handle = journal.handle();
            scope.spawn(move || {
                for number in 0..2000 {
                    handle.append(entry(thread * 2000 + number)).unwrap();
                }
            });
        }
        // A reader meanwhile sees a beginning of it, in order.
        let handle = journal.handle();
        while handle.waiting() > 0 {
            let seen = written(folder.path());
            assert!(seen.iter().zip(1..).all(|((sequence, _), expected)| *sequence == expected));
        }
    });
    assert!(journal.close());
    let mut all = written(folder.path());
    assert!(folder::segments(&folder.path().join("0")).unwrap().len() > 1, "it never began another file");
    assert_eq!(all.iter().map(|it| it.0).collect::<Vec<_>>(), (1..=8000).collect::<Vec<_>>());
    all.sort_by_key(|it| it.1);
    assert_eq!(all.iter().map(|it| it.1).collect::<Vec<_>>(), (0..8000).collect::<Vec<_>>());
}

#[test]
fn an_end_that_is_torn_anywhere_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, ..) = open_with(folder.path(), settings());
    for number in 1..=3 {
        journal.handle().append(entry(number)).unwrap();
    }
    assert!(journal.close());
    let [(_, file)] = &folder::segments(&folder.path().join("0")).unwrap()[..] else { panic!("one file") };
    let whole = fs::read(file).unwrap();
    let frame = (whole.len() - segment::HEAD) / 3;
    for end in 0..whole.len() {
        fs::write(file, &whole[..end]).unwrap();
        let (journal, recovery, seen) = open_with(folder.path(), settings());
        let entries = end.saturating_sub(segment::HEAD) / frame;
        assert_eq!(seen.len(), entries, "cut at {end}");
        let torn = end.checked_sub(segment::HEAD).map_or(end, |rest| rest % frame) as u64;
        assert_eq!(recovery.torn.iter().map(|it| it.bytes).sum::<u64>(), torn, "cut at {end}");
        // What comes now stands behind what is whole.
        journal.handle().append(entry(9)).unwrap();
        assert!(journal.close());
        let numbers: Vec<u64> = written(folder.path()).iter().map(|it| it.1).collect();
        assert_eq!(numbers, (1..=entries as u64).chain([9]).collect::<Vec<_>>(), "cut at {end}");
        for (_, file) in folder::segments(&folder.path().join("0")).unwrap() {
            fs::remove_file(file).unwrap();
        }
    }
}

#[test]
fn damage_is_passed_over_and_nothing_behind_it_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, ..) = open_with(folder.path(), settings());
    for number in 1..=5 {
        journal.handle().append(entry(number)).unwrap();
    }
    assert!(journal.close());
    let [(_, file)] = &folder::segments(&folder.path().join("0")).unwrap()[..] else { panic!("one file") };
    let mut bytes = fs::read(file).unwrap();
    let frame = (bytes.len() - segment::HEAD) / 5;
    bytes[segment::HEAD + 2 * frame + 20] ^= 4;
    fs::write(file, &bytes).unwrap();
    let (journal, recovery, seen) = open_with(folder.path(), settings());
    assert_eq!((seen, recovery.damaged, recovery.torn.len()), (vec![1, 2, 4, 5], frame as u64, 0));
    assert!(journal.close());
}

#[test]
fn what_was_reserved_when_the_process_ended_is_booked_once() {
    let folder = tempfile::tempdir().unwrap();
    let opened = |hold| Opened { hold, worst: Money::dollars(2), input_tokens: 10, ..Opened::default() };
    let (journal, ..) = open_with(folder.path(), settings());
    let handle = journal.handle();
    for hold in 1..=4 {
        handle.open(opened(hold)).unwrap();
    }
    handle.append(Entry { hold: 1, ..entry(1) }).unwrap();
    handle.append(Entry { hold: 2, class: Class::Retry, ..entry(2) }).unwrap();
    handle.append(Entry { hold: 3, class: Class::FailedBilled, ..entry(3) }).unwrap();
    assert!(journal.close());
    for crashed in [2, 0, 0] {
        let mut seen = Vec::new();
        let (journal, recovery) =
            Journal::open(folder.path(), settings(), None, |entry| seen.push(entry.clone()), |_| {}).unwrap();
        assert_eq!((recovery.crashed, seen.len()), (crashed, 5));
        let booked: Vec<&Entry> = seen.iter().filter(|it| it.outcome == Outcome::Crashed).collect();
        assert_eq!(booked.iter().map(|it| it.hold).collect::<Vec<_>>(), [2, 4]);
        assert!(booked.iter().all(|it| it.cost == Money::dollars(2) && it.estimated && it.class == Class::Abandoned));
        assert!(journal.close());
    }
}

#[test]
fn while_one_process_takes_over_from_another_both_write() {
    let folder = tempfile::tempdir().unwrap();
    let opened = |hold| Opened { hold, worst: Money::dollars(2), ..Opened::default() };
    let (old, ..) = open_with(folder.path(), settings());
    old.handle().append(entry(1)).unwrap();
    old.handle().open(opened(1)).unwrap();
    assert!(old.handle().flush());
    // The new one counts what the old one wrote, and leaves alone what the old one has open.
    let (new, recovery, seen) = open_with(folder.path(), settings());
    assert_eq!((recovery.crashed, seen), (0, vec![1]));
    assert_ne!(new.writer, old.writer);
    new.handle().append(entry(3)).unwrap();
    new.handle().open(opened(1)).unwrap();
    old.handle().append(Entry { hold: 1, ..entry(2) }).unwrap();
    assert!(old.close() && new.close());
    let ids: Vec<Id> = read(folder.path(), None).unwrap().map(|it| it.unwrap().0).collect();
    assert_eq!(ids.iter().map(|id| id.sequence).collect::<Vec<_>>(), [1, 2, 3, 1, 2]);
    // Whoever comes next finishes what is left of both, once.
    for crashed in [1, 0] {
        let (journal, recovery, mut seen) = open_with(folder.path(), settings());
        seen.sort_unstable();
        assert_eq!((recovery.crashed, seen), (crashed, vec![0, 1, 2, 3]));
        assert!(journal.close());
    }
}

#[test]
fn old_files_are_passed_over_and_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, ..) = open_with(folder.path(), Settings { segment: 100, ..settings() });
    let handle = journal.handle();
    for number in 1..=3 {
        handle.append(entry(number)).unwrap();
        assert!(handle.flush());
    }
    let begun =
        |at: usize| segment::begun(&folder::segments(&folder.path().join("0")).unwrap()[at].1).unwrap().unwrap();
    assert_eq!(folder::segments(&folder.path().join("0")).unwrap().len(), 2);
    // Of what is asked for nothing may be missing; some more may come.
    let since = |since| read(folder.path(), Some(since)).unwrap().count();
    assert_eq!((since(begun(1)), since(Moment(begun(1).0 + 1)), since(Moment(0))), (3, 1, 3));
    assert!(journal.close());
    let (journal, ..) = open_with(folder.path(), Settings { keep: Some(Duration::ZERO), ..settings() });
    assert!(journal.handle().append(entry(4)).is_ok() && journal.close());
    assert_eq!(written(folder.path()), [(3, 3), (4, 4)]);
}

// === Killed ===

const CHILD: &str = "WEIR_TEST_JOURNAL";

/// Not a test: what the next one starts and kills. Hands over numbered entries, and says which are acknowledged.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Ok(folder) = std::env::var(CHILD) else { return };
    let (journal, recovery, seen) = open_with(Path::new(&folder), Settings { segment: 20_000, ..settings() });
    assert_eq!(recovery.damaged, 0);
    let handle = journal.handle();
    let mut number = seen.last().copied().unwrap_or_default();
    let mut out = std::io::stdout();
    let mut waiting: VecDeque<(u64, Ticket)> = VecDeque::new();
    loop {
        number += 1;
        match handle.append(entry(number)) {
            Ok(ticket) => waiting.push_back((number, ticket)),
            Err(_) => {
                number -= 1;
                thread::sleep(Duration::from_millis(1));
            }
        }
        let mut acknowledged = None;
        while let Some((number, _)) = waiting.front().copied().filter(|(_, ticket)| handle.is_durable(*ticket)) {
            acknowledged = Some(number);
            waiting.pop_front();
        }
        if let Some(number) = acknowledged {
            let _ = writeln!(out, "acknowledged {number}").and_then(|()| out.flush());
        }
        if waiting.len() > 1000 {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn killed_at_any_moment_it_loses_nothing_acknowledged_and_counts_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let mut last = 0;
    let mut torn = 0;
    for round in 0..15u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["tests::child_that_writes_until_it_is_killed", "--exact", "--nocapture"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Not before it has written something, and then at another moment each time.
        let number = |line: &str| Some(line.split_once("acknowledged ")?.1.parse::<u64>().unwrap());
        let first = lines.by_ref().map_while(Result::ok).find_map(|line| number(&line));
        thread::sleep(Duration::from_micros(round * 2700));
        child.kill().unwrap();
        child.wait().unwrap();
        let acknowledged = lines.map_while(Result::ok).filter_map(|line| number(&line)).last().or(first).unwrap();
        assert!(acknowledged > last, "round {round} wrote nothing");
        let (journal, recovery, seen) = open_with(folder.path(), settings());
        torn += recovery.torn.len();
        assert_eq!(recovery.damaged, 0);
        assert!(seen.last().is_some_and(|it| *it >= acknowledged), "lost what was acknowledged in round {round}");
        assert_eq!(seen, (1..=seen.len() as u64).collect::<Vec<_>>(), "round {round}");
        assert!(journal.close());
        let sequences: Vec<u64> = written(folder.path()).iter().map(|it| it.0).collect();
        assert_eq!(sequences, (1..=seen.len() as u64).collect::<Vec<_>>());
        last = *seen.last().unwrap();
    }
    eprintln!("15 times killed, {last} entries, {torn} ends torn");
}

// === Full ===

/// A file system of 300 KiB, gone when dropped; `None` where one may not mount.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Option<Small> {
        let folder = tempfile::tempdir().unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=300k", "tmpfs"]).arg(folder.path()).output();
        mount.is_ok_and(|it| it.status.success()).then_some(Small(folder))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_told_and_nothing_is_lost_when_space_returns() {
    let Some(small) = Small::mount() else {
        eprintln!("skipped: mounting a small file system is not allowed here");
        return;
    };
    let path = small.0.path().join("journal");
    let filler = small.0.path().join("filler");
    fs::write(&filler, vec![1; 150_000]).unwrap();
    let (tell, told) = mpsc::channel();
    let told_as = move |state: &State| {
        let _ = tell.send(match state {
            State::Writing => "writing",
            State::Full(_) => "full",
            State::Failing(_) => "failing",
        });
    };
    // Files so small that the disk is full at the beginning of one, too, in some of the attempts.
    let settings = Settings { segment: 30_000, backlog: 5000, ..settings() };
    let (journal, _) = Journal::open(&path, settings, None, |_| {}, told_as).unwrap();
    let handle = journal.handle();
    let mut number = 0;
    let mut append = || {
        let result = handle.append(entry(number + 1));
        number += u64::from(result.is_ok());
        result.map(|_| number)
    };
    let state = loop {
        if append().unwrap() % 100 == 0 {
            handle.flush();
        }
        if let Ok(state) = told.try_recv() {
            break state;
        }
    };
    assert_eq!(state, "full");
    // What is handed over now waits, until there is no room for more.
    while append().is_ok() {}
    assert!(handle.rejected() > 0 && handle.waiting() == 5000);
    assert!(told.try_recv().is_err(), "it is told once");
    fs::remove_file(&filler).unwrap();
    // 5000 entries need more space than the file held; what is there is read while it waits.
    let before = written(&path).len();
    let resized = Command::new("mount").args(["-o", "remount,size=8m"]).arg(small.0.path()).status();
    assert!(resized.unwrap().success());
    assert_eq!(told.recv_timeout(Duration::from_secs(20)), Ok("writing"));
    assert!(journal.close());
    let all = written(&path);
    assert!(before < all.len());
    assert_eq!(all, (1..=number).map(|it| (it, it)).collect::<Vec<_>>());
}

#[test]
fn spent_amounts_are_built_again_from_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let specs = ledger::BudgetsSpec(BTreeMap::from([(
        "all".to_owned(),
        ledger::BudgetSpec {
            per: ledger::Scope::Api,
            only: Vec::new(),
            amount: "10 USD".parse().unwrap(),
            every: ledger::Every::Day,
            offset: None,
            enforce: ledger::Enforce::Hard,
            warn: Vec::new(),
            fail: ledger::Fail::Closed,
            keys: 10,
        },
    )]));
    let books = || ledger::Books::new(&specs, ledger::PriceBook::default(), None).unwrap();
    let at = |day: u64, hour: u64| Moment::from_secs(day * 86_400 + hour * 3600);
    let (journal, ..) = open_with(folder.path(), settings());
    for (day, dollars) in [(5, 7), (6, 3), (6, 4)] {
        journal.handle().append(Entry { time: at(day, 3), cost: Money::dollars(dollars), ..entry(1) }).unwrap();
    }
    let opened = Opened { hold: 1, time: at(6, 3), api: "chat".into(), worst: Money::dollars(2), ..Opened::default() };
    journal.handle().open(opened).unwrap();
    assert!(journal.close());
    let books = books();
    let now = at(6, 12);
    let (journal, _) =
        Journal::open(folder.path(), settings(), books.needed_since(now), |entry| books.restore(entry), |_| {})
            .unwrap();
    let [account] = &books.accounts(now)[..] else { panic!("one account") };
    assert_eq!((account.spent.to_string(), account.left.to_string()), ("9 USD".into(), "1 USD".into()));
    assert!(journal.close());
}
