//! The policy before a server that is simulated, in virtual time: so many places, and a queue before them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use base::Time;

use super::limiter::Bounds;
use super::{State, Who};

/// Calls of one consumer, at random moments.
struct Source {
    class: usize,
    name: &'static str,
    per_second: f64,
}

struct Server {
    places: usize,
    /// Seconds that a call takes, by the time it begins and a number from 0 to 1.
    service: fn(f64, f64) -> f64,
}

struct Outcome {
    /// Of each source: calls that came, calls that were let in, both after the first seconds.
    came: Vec<u32>,
    passed: Vec<u32>,
    /// Answers of each second, and how long they took.
    seconds: Vec<Vec<f64>>,
    limit: u32,
}

const BOUNDS: Bounds = Bounds { least: 1, most: 10_000, start: 8 };
/// Until things have settled.
const FIRST: f64 = 5.0;

fn run(server: &Server, sources: &[Source], seconds: f64) -> Outcome {
    run_with(server, sources, seconds, true)
}

fn run_with(server: &Server, sources: &[Source], seconds: f64, admit: bool) -> Outcome {
    let classes = sources.iter().map(|it| it.class).max().unwrap() + 1;
    let (state, whose) = loop {
        let state = State::new(BOUNDS, classes);
        let whose: Vec<Who> = sources.iter().map(|it| state.shares.who(it.class, it.name.as_bytes())).collect();
        // Of a thousand one pair shares what it gets, by its hash.
        if (1..whose.len()).all(|at| !whose[..at].contains(&whose[at])) {
            break (state, whose);
        }
    };
    let mut random = Random(seconds.to_bits() ^ 0x9e37_79b9_7f4a_7c15);
    let mut events: BinaryHeap<Reverse<(Moment, u64, usize, u64)>> = BinaryHeap::new();
    let mut number = 0u64;
    let mut outcome = Outcome {
        came: vec![0; sources.len()],
        passed: vec![0; sources.len()],
        seconds: vec![Vec::new(); seconds as usize + 1],
        limit: 0,
    };
    // An event: when, its number, its source, and when the call came of which it is the end, or nothing.
    let mut push = |events: &mut BinaryHeap<_>, at: f64, source: usize, came: Option<f64>| {
        number += 1;
        events.push(Reverse((Moment(at), number, source, came.map_or(u64::MAX, f64::to_bits))));
    };
    for (at, source) in sources.iter().enumerate() {
        push(&mut events, random.gap(source.per_second), at, None);
    }
    let (mut queue, mut busy) = (VecDeque::new(), 0);
    while let Some(Reverse((Moment(now), _, source, came))) = events.pop() {
        if now > seconds {
            break;
        }
        if came == u64::MAX {
            push(&mut events, now + random.gap(sources[source].per_second), source, None);
            let counts = now > FIRST;
            outcome.came[source] += u32::from(counts);
            if admit && !state.enter(whose[source], random.next()) {
                continue;
            }
            outcome.passed[source] += u32::from(counts);
            if busy < server.places {
                busy += 1;
                push(&mut events, now + (server.service)(now, random.part()), source, Some(now));
            } else {
                queue.push_back((source, now));
            }
            continue;
        }
        let took = now - f64::from_bits(came);
        outcome.seconds[now as usize].push(took);
        if admit {
            state.leave(Some(Duration::from_secs_f64(took)), Time::from_nanos((now * 1e9) as u64));
        }
        match queue.pop_front() {
            Some((source, came)) => push(&mut events, now + (server.service)(now, random.part()), source, Some(came)),
            None => busy -= 1,
        }
    }
    outcome.limit = state.limiter.limit();
    outcome
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Until the next of so many a second, at random.
    fn gap(&mut self, per_second: f64) -> f64 {
        -(1.0 - self.part()).ln() / per_second
    }
}

#[derive(PartialEq)]
struct Moment(f64);

impl Eq for Moment {}

impl PartialOrd for Moment {
    fn partial_cmp(&self, other: &Moment) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Moment {
    fn cmp(&self, other: &Moment) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl Outcome {
    fn answers(&self, from: usize, to: usize) -> f64 {
        self.seconds[from..to].iter().map(|second| second.len() as f64).sum::<f64>() / (to - from) as f64
    }

    /// In seconds.
    fn quantile(&self, from: usize, to: usize, quantile: f64) -> f64 {
        let mut all: Vec<f64> = self.seconds[from..to].concat();
        all.sort_by(f64::total_cmp);
        all[((all.len() as f64 * quantile) as usize).min(all.len() - 1)]
    }
}

fn one(per_second: f64) -> [Source; 1] {
    [Source { class: 0, name: "a", per_second }]
}

/// 20 places of 20 ms: a thousand a second.
const STEADY: Server = Server { places: 20, service: |_, part| 0.019 + 0.002 * part };

#[test]
fn at_three_times_what_there_is_nothing_is_lost_and_nobody_waits() {
    let open = run_with(&STEADY, &one(3000.0), 20.0, false);
    assert!(open.quantile(15, 20, 0.5) > 5.0, "without it a queue builds, or this test shows nothing");
    let kept = run(&STEADY, &one(3000.0), 40.0);
    let (answers, p99) = (kept.answers(5, 40), kept.quantile(5, 40, 0.99));
    assert!(answers > 950.0, "{answers}");
    assert!(p99 < 0.038, "{p99}");
}

#[test]
fn below_what_there_is_nobody_is_refused() {
    let half = run(&STEADY, &one(500.0), 40.0);
    assert!(half.passed[0] as f64 > 0.999 * half.came[0] as f64, "{} of {}", half.passed[0], half.came[0]);
    let nearly = run(&STEADY, &one(800.0), 40.0);
    assert!(nearly.passed[0] as f64 > 0.98 * nearly.came[0] as f64, "{} of {}", nearly.passed[0], nearly.came[0]);
}

#[test]
fn servers_of_other_sizes_are_found_from_the_same_start() {
    for (places, service, most) in [
        // A queue of a few calls is much where the places are few.
        (4, (|_, part| 0.09 + 0.02 * part) as fn(f64, f64) -> f64, 4.0),
        (400, |_, part| 0.095 + 0.01 * part, 2.0),
        (64, |_, part| 1.9 + 0.2 * part, 2.5),
    ] {
        let usual = service(0.0, 0.5);
        let capacity = places as f64 / usual;
        let kept = run(&Server { places, service }, &one(3.0 * capacity), 300.0);
        let (answers, p99) = (kept.answers(200, 300), kept.quantile(200, 300, 0.99));
        assert!(answers > 0.85 * capacity, "{places}: {answers} of {capacity}, {}", kept.limit);
        assert!(p99 < most * usual, "{places}: {p99} where {usual} is usual");
    }
}

#[test]
fn it_recovers_when_all_becomes_slower_and_quicker_again() {
    let server = Server {
        places: 20,
        service: |now, part| if (20.0..50.0).contains(&now) { 0.06 + 0.006 * part } else { 0.02 + 0.002 * part },
    };
    let kept = run(&server, &one(3000.0), 80.0);
    let (slow, quick) = (20.0 / 0.063, 20.0 / 0.021);
    let at = |from| kept.answers(from, from + 5);
    assert!(at(15) > 0.95 * quick, "before: {}", at(15));
    assert!(at(25) > 0.9 * slow && at(45) > 0.9 * slow, "slower: {} {}", at(25), at(45));
    assert!(kept.quantile(30, 50, 0.99) < 2.0 * 0.066, "{}", kept.quantile(30, 50, 0.99));
    assert!(at(60) > 0.93 * quick && at(75) > 0.93 * quick, "after: {} {}", at(60), at(75));
    assert!(kept.quantile(65, 80, 0.99) < 2.0 * 0.022, "{}", kept.quantile(65, 80, 0.99));
}

#[test]
fn quick_and_slow_calls_side_by_side_do_not_make_it_collapse() {
    for (name, service) in [
        ("one of ten is slow", (|_, part| if part < 0.9 { 0.005 } else { 0.2 }) as fn(f64, f64) -> f64),
        ("half are slow", |_, part| if part < 0.5 { 0.01 } else { 0.1 }),
        ("one of five is quick", |_, part| if part < 0.2 { 0.005 } else { 0.05 }),
        ("widely spread", |_, part| 0.002 - 0.02 * (1.0 - part).ln()),
    ] {
        let mean = (0..1000).map(|nth| service(0.0, f64::from(nth) / 1000.0)).sum::<f64>() / 1000.0;
        let capacity = 20.0 / mean;
        let kept = run(&Server { places: 20, service }, &one(3.0 * capacity), 60.0);
        let answers = kept.answers(10, 60);
        assert!(answers > 0.9 * capacity, "{name}: {answers} of {capacity}");
        assert!(kept.limit < 60, "{name}: {}", kept.limit);
    }
}

#[test]
fn each_consumer_gets_the_same_as_far_as_it_wants_it() {
    let sources = [
        Source { class: 0, name: "greedy", per_second: 5000.0 },
        Source { class: 0, name: "eager", per_second: 800.0 },
        Source { class: 0, name: "small", per_second: 50.0 },
    ];
    let kept = run(&STEADY, &sources, 60.0);
    let part = |at: usize| f64::from(kept.passed[at]) / f64::from(kept.came[at]);
    assert!(part(2) > 0.97, "the small one gets what it wants: {}", part(2));
    let rates = [0, 1].map(|at: usize| f64::from(kept.passed[at]) / 55.0);
    assert!(rates.iter().all(|rate| (400.0..560.0).contains(rate)), "the others the same: {rates:?}");
    assert!(kept.answers(5, 60) > 950.0, "{}", kept.answers(5, 60));
}

#[test]
fn what_is_important_goes_first() {
    let sources = [
        Source { class: 0, name: "a", per_second: 600.0 },
        Source { class: 1, name: "b", per_second: 3000.0 },
        Source { class: 2, name: "c", per_second: 1000.0 },
    ];
    let kept = run(&STEADY, &sources, 60.0);
    let rates = [0, 1, 2].map(|at: usize| f64::from(kept.passed[at]) / 55.0);
    assert!(rates[0] > 0.97 * 600.0, "{rates:?}");
    assert!(rates[1] > 320.0, "{rates:?}");
    assert!(rates[2] < 50.0, "{rates:?}");
    assert!(kept.answers(5, 60) > 900.0, "{}", kept.answers(5, 60));
}
