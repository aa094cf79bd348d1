use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use ledger::{Class, Entry, Moment, Money, Outcome, Record};

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

/// What is booked if nothing more is heard of it.
fn worst(hold: u64) -> Entry {
    let class = Class::Abandoned;
    Entry { hold, class, outcome: Outcome::Crashed, cost: Money::dollars(2), estimated: true, ..entry(0) }
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
    let tickets: Vec<Ticket> = (1..=100).map(|number| handle.append(&[entry(number)]).unwrap()).collect();
    assert!(handle.flush() && tickets.iter().all(|ticket| handle.is_durable(*ticket)));
    assert!(journal.close());
    let (journal, recovery, seen) = open_with(path, settings());
    assert_eq!(recovery, Recovery { entries: 100, ..Recovery::default() });
    assert_eq!((seen, journal.writer), ((1..=100).collect(), writer));
    journal.handle().append(&[entry(101)]).unwrap();
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
                for number in (0..2000).step_by(2) {
                    let number = thread * 2000 + number;
                    handle.append(&[entry(number), entry(number + 1)]).unwrap();
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
        journal.handle().append(&[entry(number)]).unwrap();
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
        journal.handle().append(&[entry(9)]).unwrap();
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
        journal.handle().append(&[entry(number)]).unwrap();
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
    let (journal, ..) = open_with(folder.path(), settings());
    let handle = journal.handle();
    for hold in 1..=4 {
        handle.open(&worst(hold)).unwrap();
    }
    // The last of a call's entries has its hold.
    handle.append(&[Entry { class: Class::Retry, ..entry(1) }, Entry { hold: 1, ..entry(1) }]).unwrap();
    handle.append(&[Entry { class: Class::Retry, ..entry(2) }]).unwrap();
    handle.append(&[Entry { hold: 3, class: Class::FailedBilled, ..entry(3) }]).unwrap();
    assert!(journal.close());
    for crashed in [2, 0, 0] {
        let mut seen = Vec::new();
        let (journal, recovery) =
            Journal::open(folder.path(), settings(), None, |entry| seen.push(entry.clone()), |_| {}).unwrap();
        assert_eq!((recovery.crashed, seen.len()), (crashed, 6));
        let booked: Vec<&Entry> = seen.iter().filter(|it| it.outcome == Outcome::Crashed).collect();
        assert_eq!(booked.iter().map(|it| it.hold).collect::<Vec<_>>(), [2, 4]);
        assert!(booked.iter().all(|it| it.cost == Money::dollars(2) && it.estimated && it.class == Class::Abandoned));
        assert!(journal.close());
    }
}

#[test]
fn while_one_process_takes_over_from_another_both_write() {
    let folder = tempfile::tempdir().unwrap();
    let (old, ..) = open_with(folder.path(), settings());
    let (from_old, other) = (old.handle(), old.handle());
    other.append(&[entry(1)]).unwrap();
    from_old.open(&worst(1)).unwrap();
    assert!(from_old.flush());
    // The new one counts what the old one wrote, and leaves alone what the old one has open.
    let (new, recovery, seen) = open_with(folder.path(), settings());
    assert_eq!((recovery.crashed, seen), (0, vec![1]));
    assert_ne!(new.writer, old.writer);
    let from_new = new.handle();
    from_new.append(&[entry(3)]).unwrap();
    from_new.open(&worst(1)).unwrap();
    from_old.append(&[Entry { hold: 1, ..entry(2) }]).unwrap();
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
        handle.append(&[entry(number)]).unwrap();
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
    assert!(journal.handle().append(&[entry(4)]).is_ok() && journal.close());
    assert_eq!(written(folder.path()), [(3, 3), (4, 4)]);
}

// === Killed ===

const CHILD: &str = "WEIR_TEST_JOURNAL";
const THREADS: u64 = 2;
/// How far apart the numbers of threads are.
const APART: u64 = 1 << 32;

/// Not a test: what the next one starts and kills. Each thread hands over numbered entries, with a reservation before each,
/// and says which it has handed over and which are acknowledged.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Ok(folder) = std::env::var(CHILD) else { return };
    let settings = Settings { segment: 20_000, spool: 1 << 20, ..settings() };
    let (journal, recovery, seen) = open_with(Path::new(&folder), settings);
    assert_eq!(recovery.damaged, 0);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let handle = journal.handle();
            let numbers = thread * APART..(thread + 1) * APART;
            let last = seen.iter().filter(|it| numbers.contains(it)).max().copied();
            scope.spawn(move || {
                let mut waiting: VecDeque<(u64, Ticket)> = VecDeque::new();
                for number in last.unwrap_or(thread * APART) + 1.. {
                    let worst = Entry { hold: number, ..worst(number) };
                    while handle.open(&worst).is_err() {
                        thread::sleep(Duration::from_millis(1));
                    }
                    let entries =
                        [Entry { class: Class::Retry, ..entry(number) }, Entry { hold: number, ..entry(number) }];
                    let ticket = loop {
                        match handle.append(&entries) {
                            Ok(ticket) => break ticket,
                            Err(Rejected) => thread::sleep(Duration::from_millis(1)),
                        }
                    };
                    waiting.push_back((number, ticket));
                    let mut lines = format!("handed {number}\n");
                    while let Some((number, _)) = waiting.front().copied().filter(|(_, it)| handle.is_durable(*it)) {
                        lines += &format!("acknowledged {number}\n");
                        waiting.pop_front();
                    }
                    if waiting.len() > 500 {
                        thread::sleep(Duration::from_millis(1));
                    }
                    let mut out = std::io::stdout().lock();
                    let _ = out.write_all(lines.as_bytes()).and_then(|()| out.flush());
                }
            });
        }
    });
}

#[test]
fn killed_at_any_moment_it_loses_nothing_that_was_handed_over_and_counts_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let mut before = [0; THREADS as usize];
    let (mut spooled, mut crashed, mut acknowledged) = (0, 0, 0);
    for round in 0..8u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["tests::child_that_writes_until_it_is_killed", "--exact", "--nocapture"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let number = |line: &str, word: &str| Some(line.split_once(word)?.1.trim().parse::<u64>().unwrap());
        // Not before it has written something, and then at another moment each time.
        let mut said: Vec<String> = Vec::new();
        while !said.last().is_some_and(|line| line.contains("acknowledged ")) {
            said.push(lines.next().unwrap());
        }
        thread::sleep(Duration::from_micros(round * 5300));
        child.kill().unwrap();
        child.wait().unwrap();
        said.extend(lines);
        acknowledged += said.iter().filter(|line| line.contains("acknowledged ")).count();
        let (journal, recovery, seen) = open_with(folder.path(), settings());
        assert_eq!(recovery.damaged, 0);
        spooled += recovery.spooled;
        crashed += recovery.crashed;
        assert!(recovery.crashed <= THREADS, "{} at once", recovery.crashed);
        for (thread, before) in (0..).zip(&mut before) {
            let of_thread = |it: &&u64| (thread * APART..(thread + 1) * APART).contains(it);
            let handed = said.iter().filter_map(|line| number(line, "handed ")).filter(|it| of_thread(&it)).max();
            let handed = handed.unwrap_or(thread * APART + *before);
            let mut numbers: Vec<u64> = seen.iter().filter(of_thread).copied().collect();
            numbers.sort_unstable();
            let last = numbers.iter().max().copied().unwrap_or(thread * APART);
            assert!(last >= handed, "lost what was handed over in round {round}: {handed}, and there is {last}");
            // Both entries of each; or, where it was killed between, what was reserved: once.
            for number in thread * APART + 1..=last {
                let count = numbers.partition_point(|it| *it <= number) - numbers.partition_point(|it| *it < number);
                assert!((1..=2).contains(&count), "{number} is there {count} times");
            }
            *before = last - thread * APART;
        }
        assert!(journal.close());
        assert!(spool::paths(&folder.path().join("0")).unwrap().is_empty(), "nothing is left to be recovered");
        let sequences: Vec<u64> = written(folder.path()).iter().map(|it| it.0).collect();
        assert!(sequences.is_sorted_by(|a, b| a < b));
    }
    assert!(spooled > 0, "it was never killed with something in the spool");
    eprintln!(
        "8 times killed, {before:?} calls, {acknowledged} acknowledged, {spooled} found in spools, {crashed} crashed"
    );
}

#[test]
fn what_is_in_a_spool_is_read_and_recovered_once_with_whatever_is_already_written() {
    // As a killed process leaves it at some moment: some of the records in a segment, with the last one torn, and the spools
    // as they were before anything of it was synced. A writer may begin before its time; then once more.
    let (folder, slot, journal, handles, spools) = loop {
        let folder = tempfile::tempdir().unwrap();
        let slot = folder.path().join("0");
        let (journal, ..) = open_with(folder.path(), Settings { commit: Duration::from_secs(3600), ..settings() });
        let handles = [journal.handle(), journal.handle()];
        for number in 1..=20 {
            handles[number as usize % 2].append(&[entry(number)]).unwrap();
        }
        let spools: Vec<(PathBuf, Vec<u8>)> =
            spool::paths(&slot).unwrap().into_iter().map(|path| (path.clone(), fs::read(&path).unwrap())).collect();
        if folder::segments(&slot).unwrap().is_empty() {
            break (folder, slot, journal, handles, spools);
        }
    };
    assert!(handles[0].flush());
    drop(handles);
    assert!(journal.close());
    let [(_, file)] = &folder::segments(&slot).unwrap()[..] else { panic!("one file") };
    let whole = fs::read(file).unwrap();
    for end in (0..=whole.len()).step_by(97) {
        fs::write(file, &whole[..end]).unwrap();
        for (path, bytes) in &spools {
            fs::write(path, bytes).unwrap();
        }
        assert_eq!(written(folder.path()), (1..=20).map(|it| (it, it)).collect::<Vec<_>>(), "cut at {end}");
        let (journal, recovery, seen) = open_with(folder.path(), settings());
        assert_eq!(seen, (1..=20).collect::<Vec<_>>(), "cut at {end}");
        assert_eq!(recovery.entries, 20);
        journal.handle().append(&[entry(21)]).unwrap();
        assert!(journal.close());
        assert_eq!(written(folder.path()), (1..=21).map(|it| (it, it)).collect::<Vec<_>>(), "cut at {end}");
        for (_, file) in folder::segments(&slot).unwrap() {
            fs::remove_file(file).unwrap();
        }
    }
}

#[test]
fn what_fills_a_ring_is_written_before_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, ..) =
        open_with(folder.path(), Settings { commit: Duration::from_secs(3600), spool: 0, ..settings() });
    let handle = journal.handle();
    let first = handle.append(&[entry(1)]).unwrap();
    while handle.append(&[entry(2)]).is_ok() && !handle.is_durable(first) {}
    let begun = Instant::now();
    while !handle.is_durable(first) {
        assert!(begun.elapsed() < Duration::from_secs(60), "the writer waits for its time");
        thread::yield_now();
    }
    drop(handle);
    assert!(journal.close());
}

#[test]
fn a_spool_that_is_damaged_gives_what_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let slot = folder.path().join("0");
    let (journal, ..) = open_with(folder.path(), Settings { commit: Duration::from_secs(3600), ..settings() });
    let handle = journal.handle();
    for number in 1..=5 {
        handle.append(&[entry(number)]).unwrap();
    }
    let [path] = &spool::paths(&slot).unwrap()[..] else { panic!("one file") };
    let bytes = fs::read(path).unwrap();
    let begin = 8 * ring::BEFORE;
    let mut marks = bytes[begin..].windows(2).enumerate().filter(|(_, pair)| *pair == ledger::codec::MARK);
    let third = begin + marks.nth(2).unwrap().0;
    let mut damaged = bytes.clone();
    damaged[third + 30] ^= 1;
    fs::write(folder.path().join("copy"), damaged).unwrap();
    assert!(handle.flush());
    drop(handle);
    assert!(journal.close());
    for (_, file) in folder::segments(&slot).unwrap() {
        fs::remove_file(file).unwrap();
    }
    fs::rename(folder.path().join("copy"), path).unwrap();
    let (journal, _, seen) = open_with(folder.path(), settings());
    assert_eq!(seen, [1, 2, 4, 5]);
    assert!(journal.close());
}

// === Full ===

/// A file system of 600 KiB, gone when dropped; `None` where one may not mount.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Option<Small> {
        let folder = tempfile::tempdir().unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=600k", "tmpfs"]).arg(folder.path()).output();
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
            State::Behind(_) => "behind",
            State::Unspooled(_) => "unspooled",
        });
    };
    // Files so small that the disk is full at the beginning of one, too, in some of the attempts.
    let settings = Settings { segment: 30_000, spool: 0, ..settings() };
    let (journal, _) = Journal::open(&path, settings, None, |_| {}, told_as).unwrap();
    let handle = journal.handle();
    let mut number = 0;
    let mut append = || {
        let result = handle.append(&[entry(number + 1)]);
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
    assert!(handle.rejected() > 0 && handle.waiting() > 1000);
    assert_eq!(told.recv_timeout(Duration::from_secs(20)), Ok("behind"));
    assert!(told.try_recv().is_err(), "it is told once");
    fs::remove_file(&filler).unwrap();
    // What waits is read meanwhile, too.
    let before = written(&path).len();
    assert_eq!(before as u64, number);
    let resized = Command::new("mount").args(["-o", "remount,size=8m"]).arg(small.0.path()).status();
    assert!(resized.unwrap().success());
    assert_eq!(told.recv_timeout(Duration::from_secs(20)), Ok("writing"));
    assert!(journal.close());
    let all = written(&path);
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
            shared: None,
            keys: 10,
        },
    )]));
    let books = || ledger::Books::new(&specs, ledger::PriceBook::default(), None).unwrap();
    let at = |day: u64, hour: u64| Moment::from_secs(day * 86_400 + hour * 3600);
    let (journal, ..) = open_with(folder.path(), settings());
    for (day, dollars) in [(5, 7), (6, 3), (6, 4)] {
        journal.handle().append(&[Entry { time: at(day, 3), cost: Money::dollars(dollars), ..entry(1) }]).unwrap();
    }
    journal.handle().open(&Entry { time: at(6, 3), ..worst(1) }).unwrap();
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
