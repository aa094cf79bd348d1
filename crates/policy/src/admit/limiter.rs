//! How many calls at a time an upstream does well with, learnt from how long its answers take.
//!
//! A server with places for `n` calls serves the next by letting it wait. So while there are no more than `n`, answers
//! take as long as they take; beyond, all of them take longer by the time in the queue, and of `limit` calls in flight
//! those that are served are `limit * service / (service + queue)` (Little's law). That many the limit comes down to,
//! and to it is added three quarters of its root, at least one: so a small queue stands where there is work enough, no
//! place is idle between two calls, and one sees when there could be more.
//!
//! What no queue looks like is measured by calls that went in while there were few, so that none of them can have
//! waited, and which are marked from then to their end. Under lasting load there are no such calls by themselves: so once in a
//! while the limit is lowered for a few, and the queue runs dry. That is done at once when the limit has fallen far: if
//! those few are as slow, it was no queue, but the service that has become slower.
//!
//! Time in a queue makes quick and slow calls longer alike. So what is compared is the mean of those that are not the slowest
//! (`window.rs`), which few slow ones do not move, and held against the mean of all, which says what a call costs.

use std::cmp::Ordering;
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

use base::Time;

use super::window::{Seen, Window};

pub(super) struct Limiter {
    bounds: Bounds,
    flying: AtomicU32,
    limit: AtomicU32,
    /// Without the places that are kept for calls in their right.
    spare: AtomicU32,
    /// The most that were in flight since the last look.
    peak: AtomicU32,
    /// Of so many in flight none waits.
    few: AtomicU32,
    /// Calls that are still to go in while there are few; until then there are no more, and not for longer than this.
    dry: AtomicU32,
    dry_end: AtomicU64,
    window: Window,
    /// Of calls that went in while there were few.
    quiet: Window,
    /// Nanoseconds.
    usual: AtomicU64,
    /// Calls that are over, and that were refused, since the last look.
    ended: AtomicU32,
    refused: AtomicU32,
    /// When to look again.
    due: AtomicU64,
    /// Of whoever looks; the others go on without.
    learnt: Mutex<Learnt>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bounds {
    pub(super) least: u32,
    pub(super) most: u32,
    pub(super) start: u32,
}

/// A call in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flight {
    /// It went in while there were few.
    quiet: bool,
}

#[derive(Debug)]
struct Learnt {
    /// As the atomic, with its fraction.
    limit: f64,
    /// Calls in flight that are served, and do not wait.
    served: f64,
    /// What calls take that do not wait: those that are not the slowest. Nothing is known at first.
    alone: Option<Alone>,
    /// The queue is made to run dry, or what that showed is still to come in.
    probe: Probe,
    /// Windows since the last time, and when that was.
    windows: u32,
    since: Time,
    /// When the last one began, and until when there is no other without need.
    began: Time,
    rest: Time,
    /// Until then there is none, since the last one showed nothing.
    barred: Time,
    /// With so many in flight at most.
    tested: u32,
    /// There was less of a queue than was known, and may be still less.
    searching: bool,
    /// What calls take now is far less than what was known of those that do not wait.
    stale: bool,
    /// No queue has been seen yet, or for long: bold steps upwards.
    bold: bool,
    calm: u32,
    /// The limit from which it goes down.
    fall: Option<f64>,
    /// Calls that ended in the last window that was not part of a probe.
    ended: u32,
}

#[derive(Clone, Copy, Debug)]
struct Alone {
    usual: f64,
    /// Calls that say so, as far as they still count.
    weight: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Probe {
    No,
    /// Few are let in: so many.
    Dry(u32),
    /// They have been; by then they will be over.
    Until(Time),
}

/// What a look showed, for those who divide what there is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Look {
    /// As it is from now on.
    pub(super) limit: u32,
    /// Calls that came to their end since the last one.
    pub(super) ended: u32,
}

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);
/// Answers that say something.
const ENOUGH: u32 = 10;
/// How long it takes at least until the queue is made to run dry.
const EPOCH: Duration = Duration::from_secs(5);
const EPOCH_WINDOWS: u32 = 20;
/// After one that showed nothing.
const BARRED: Duration = Duration::from_secs(60);
/// While little is known: so many windows.
const SOON: u32 = 3;
/// Calls that are let in for it at most, and that say something if they come by themselves.
const MOST_CALLS: u32 = 60;
const FEW_CALLS: u32 = 30;
/// A queue shorter than a part of the service, or than what the scheduling of threads looks like, is none.
const SLACK: f64 = 0.1;
const NOISE: f64 = 0.0003;
/// Where few are refused it is chance that makes some wait, and they rather wait than be refused: one service, and less
/// where many are served at once. From this part of refused calls on there is too much to do, and nobody is to wait.
const PATIENT: f64 = 2.0;
const PRESSED: f64 = 0.3;
/// What is measured is another by more than this: things have changed.
const CHANGED: f64 = 0.3;
/// Older measurements count for no more calls than this.
const WEIGHT: f64 = 100.0;

impl Limiter {
    pub(super) fn new(bounds: Bounds) -> Limiter {
        let start = f64::from(bounds.start);
        let start = (start - f64::from(reserve(start))).max(1.0);
        let learnt = Learnt {
            limit: start,
            served: start,
            alone: None,
            probe: Probe::No,
            windows: 0,
            since: Time::default(),
            began: Time::default(),
            rest: Time::default(),
            barred: Time::default(),
            tested: 0,
            searching: true,
            stale: false,
            bold: true,
            calm: 0,
            fall: None,
            ended: 0,
        };
        Limiter {
            bounds,
            flying: AtomicU32::new(0),
            limit: AtomicU32::new(bounds.start),
            spare: AtomicU32::new(start as u32),
            peak: AtomicU32::new(0),
            few: AtomicU32::new(few(start)),
            dry: AtomicU32::new(0),
            dry_end: AtomicU64::new(0),
            window: Window::new(),
            quiet: Window::new(),
            usual: AtomicU64::new(0),
            ended: AtomicU32::new(0),
            refused: AtomicU32::new(0),
            due: AtomicU64::new(0),
            learnt: Mutex::new(learnt),
        }
    }

    #[cfg(test)]
    pub(super) fn flying(&self) -> u32 {
        self.flying.load(Relaxed)
    }

    pub(super) fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// What calls took in the last window; nothing before there was one.
    pub(super) fn usual(&self) -> Duration {
        Duration::from_nanos(self.usual.load(Relaxed))
    }

    #[cfg(test)]
    pub(super) fn samples(&self) -> u32 {
        self.window.count()
    }

    /// Counts a call, if there is room for it; one in its right may have a place that is kept for such.
    pub(super) fn enter(&self, right: bool, now: Time) -> Option<Flight> {
        let few = self.few.load(Relaxed);
        let mut dry = self.dry.load(Relaxed);
        if dry > 0 && now.nanos() >= self.dry_end.load(Relaxed) {
            dry = 0;
        }
        let limit = if right { &self.limit } else { &self.spare };
        let most = if dry > 0 { few } else { limit.load(Relaxed) };
        let before = self.flying.fetch_add(1, Relaxed);
        if before >= most {
            self.flying.fetch_sub(1, Relaxed);
            self.refuse();
            return None;
        }
        if self.peak.load(Relaxed) <= before {
            self.peak.fetch_max(before + 1, Relaxed);
        }
        if dry > 0 {
            // Of two cores that take the last one, one more is let in.
            self.dry.store(dry - 1, Relaxed);
        }
        Some(Flight { quiet: before < few })
    }

    /// A call is refused.
    pub(super) fn refuse(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// A call is over. `latency` is how long its upstream took, if that says anything.
    pub(super) fn leave(&self, flight: Flight, latency: Option<Duration>) {
        self.flying.fetch_sub(1, Relaxed);
        self.ended.fetch_add(1, Relaxed);
        if let Some(latency) = latency {
            self.window.add(latency);
            if flight.quiet {
                self.quiet.add(latency);
            }
        }
    }

    /// Looks at what was seen, if it is time; of several who come one does.
    pub(super) fn look(&self, now: Time) -> Option<Look> {
        if now.nanos() < self.due.load(Relaxed) || self.window.count() < ENOUGH {
            return None;
        }
        let mut learnt = self.learnt.try_lock().ok()?;
        if now.nanos() < self.due.load(Relaxed) {
            return None;
        }
        let seen = self.window.take();
        let peak = self.peak.swap(self.flying.load(Relaxed), Relaxed);
        let (mut ended, refused) = (self.ended.swap(0, Relaxed), self.refused.swap(0, Relaxed));
        let want = f64::from(refused) / f64::from((refused + ended).max(1));
        self.usual.store((seen.mean * 1e9) as u64, Relaxed);
        let length = Duration::from_secs_f64((4.0 * seen.mean).min(LONGEST.as_secs_f64())).max(SHORTEST);
        self.due.store((now + length).nanos(), Relaxed);
        match learnt.probe {
            Probe::No => {
                learnt.ended = ended;
                // What came in by itself while there was little to do.
                if self.quiet.count() >= FEW_CALLS {
                    learnt.add(self.quiet.take());
                }
                let busy = learnt.learn(seen, peak, want, self.bounds);
                self.few.store(few(learnt.served.min(f64::from(peak))), Relaxed);
                if busy && learnt.wants_probe(now) {
                    let few = self.few.load(Relaxed);
                    let calls = (10 * few).clamp(FEW_CALLS, MOST_CALLS);
                    (learnt.probe, learnt.began, learnt.tested) = (Probe::Dry(calls), now, few);
                    self.quiet.take();
                    // Some for those to end that are in flight, and twice what the few should take.
                    let seconds = 2.0 * seen.mean * (2.0 + f64::from(calls) / f64::from(few));
                    let end = now + Duration::from_secs_f64(seconds.min(LONGEST.as_secs_f64()));
                    self.dry_end.store(end.nanos(), Relaxed);
                    self.dry.store(calls, Relaxed);
                }
            }
            Probe::Dry(calls) => match self.dry.load(Relaxed) {
                0 => learnt.probe = Probe::Until(now + length),
                // Those in flight last: answers that are streams, most likely. There will be no few.
                left if left == calls => {
                    self.dry.store(0, Relaxed);
                    learnt.gave_up(seen, now);
                }
                _ if now.nanos() >= self.dry_end.load(Relaxed) => {
                    self.dry.store(0, Relaxed);
                    learnt.probe = Probe::Until(now + length);
                }
                _ => {}
            },
            Probe::Until(end) if now < end => {}
            Probe::Until(_) => {
                learnt.probe = Probe::No;
                learnt.told(self.quiet.take(), now);
            }
        }
        let spare = places(learnt.limit);
        let limit = (spare + reserve(learnt.limit)).clamp(self.bounds.least, self.bounds.most);
        self.limit.store(limit, Relaxed);
        self.spare.store(spare, Relaxed);
        ended = ended.max(learnt.ended);
        Some(Look { limit, ended })
    }
}

impl Learnt {
    /// The limit anew, and whether it is what calls are kept at.
    fn learn(&mut self, seen: Seen, peak: u32, want: f64, bounds: Bounds) -> bool {
        let before = self.limit;
        let busy = f64::from(peak) >= 0.9 * f64::from(places(before));
        self.windows += 1;
        let Some(Alone { usual, .. }) = self.alone else {
            self.served = before;
            return busy;
        };
        let queue = (seen.usual - usual).max(0.0);
        let service = (seen.mean - queue).max(usual / 2.0).max(1e-9);
        let slack = (PATIENT / self.served.max(1.0).sqrt() * (1.0 - want / PRESSED)).max(SLACK);
        let excess = (queue - (service * slack).max(NOISE)).max(0.0);
        let part = service / (service + excess);
        self.stale = seen.usual < usual * (1.0 - CHANGED);
        self.served = before * part;
        let mut limit = self.served;
        if busy {
            limit += (self.served.sqrt() * 0.75).max(1.0);
            self.calm = if excess > 0.0 { 0 } else { self.calm + 1 };
            self.bold = excess == 0.0 && (self.bold || self.calm >= 10);
            if self.bold {
                limit = limit.max(before * 1.5);
            }
        } else if f64::from(peak) < before / 2.0 {
            // Too few to make a queue here: it is not the limit's business.
            limit = before;
        }
        self.limit = limit.clamp(f64::from(bounds.least), f64::from(bounds.most));
        self.fall = match self.fall {
            None if part < 0.9 => Some(before),
            Some(_) if part >= 0.9 => None,
            fall => fall,
        };
        busy
    }

    /// It is time to let the queue run dry.
    fn wants_probe(&mut self, now: Time) -> bool {
        let long = self.windows >= EPOCH_WINDOWS && now.since(self.since) >= EPOCH;
        let fell = self.fall.is_some_and(|from| self.limit <= 0.6 * from);
        // Those that went in while there were few may have found a queue all the same.
        self.searching =
            self.alone.is_none() || (self.tested > few(self.served) && f64::from(self.tested) > 0.8 * self.served);
        let soon = self.searching && self.windows >= SOON;
        // A probe costs throughput: it is not to be a large part of the time.
        let rested = now >= self.rest;
        let due = self.alone.is_none() || soon || rested && (long || fell || self.stale);
        due && now >= self.barred
    }

    /// What the calls of a probe took.
    fn told(&mut self, seen: Seen, now: Time) {
        (self.windows, self.since) = (0, now);
        self.rest = now + 4 * now.since(self.began);
        if seen.count == 0 {
            return;
        }
        let before = self.alone.filter(|_| !self.searching);
        match before.map(|before| changed(&seen, before.usual)) {
            Some(Ordering::Equal) => self.add(seen),
            None | Some(_) => self.alone = Some(Alone { usual: seen.usual.max(1e-9), weight: f64::from(seen.count) }),
        }
        // It was no queue: what was known before of how many calls it bears holds.
        if let (Some(from), Some(before)) = (self.fall.take(), before)
            && changed(&seen, before.usual) == Ordering::Greater
        {
            self.limit = from;
        }
    }

    /// There were no few. So what calls take now is what there is to go by, and half of it is believed.
    fn gave_up(&mut self, seen: Seen, now: Time) {
        self.probe = Probe::No;
        (self.windows, self.since, self.barred) = (0, now, now + BARRED);
        let usual = self.alone.map_or(seen.usual, |alone| (alone.usual + seen.usual) / 2.0);
        self.alone = Some(Alone { usual: usual.max(1e-9), weight: f64::from(seen.count) });
        if let Some(from) = self.fall.take() {
            self.limit = self.limit.max(from / 2.0);
        }
    }

    /// What calls took that came by themselves while there were few.
    fn add(&mut self, seen: Seen) {
        let count = f64::from(seen.count);
        let Alone { usual, weight } = self.alone.unwrap_or(Alone { usual: 0.0, weight: 0.0 });
        let weight = weight.min(WEIGHT);
        self.alone = Some(Alone {
            usual: ((usual * weight + seen.usual * count) / (weight + count)).max(1e-9),
            weight: weight + count,
        });
    }
}

/// Whether what calls took is another than what was known, and not by chance.
fn changed(seen: &Seen, before: f64) -> Ordering {
    let times = 1.0 + (3.0 / f64::from(seen.count.max(1)).sqrt()).max(CHANGED);
    match seen.usual / before {
        more if more > times => Ordering::Greater,
        less if less * times < 1.0 => Ordering::Less,
        _ => Ordering::Equal,
    }
}

/// Of so many that are served at once, what finds no queue.
fn few(served: f64) -> u32 {
    (served * 0.6).max(1.0) as u32
}

/// Rather one too few than one too many.
fn places(limit: f64) -> u32 {
    limit as u32
}

/// Places beside the limit that are kept for calls in their right.
fn reserve(limit: f64) -> u32 {
    (limit.sqrt() / 2.0).max(1.0) as u32
}
