//! How many calls at a time an upstream does well with, learnt from how long its answers take.
//!
//! A server with places for `n` calls serves the next by letting it wait. So while there are no more than `n`, answers
//! take as long as they take; beyond, all of them take longer by the time in the queue. A queue that stands is time
//! added to the fastest answers as well as to the slow ones. So it is measured at the fast end (the tenth part that is
//! fastest), which the mix of quick and slow operations moves little, and is held against the mean, which says what a
//! call costs: the limit is multiplied by the gradient `service / (service + queue)` and gains three quarters of its root, so
//! that a small queue stands where there is work enough, and one sees when there could be more.
//!
//! What no queue looks like is the least that was measured in the last seconds. Under lasting load that would rise
//! with the queue: so once in a while the limit is lowered for one window, and the queue runs dry. When latency does
//! not follow the limit downwards it is no queue that makes it: the service has become slower, and what was least is
//! measured anew.

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
    /// The most that were in flight since the last look.
    peak: AtomicU32,
    window: Window,
    /// Nanoseconds.
    usual: AtomicU64,
    /// Calls that are over, since the last look.
    ended: AtomicU32,
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

#[derive(Debug)]
struct Learnt {
    /// As the atomic, with its fraction.
    limit: f64,
    /// The least that was measured in this epoch and the one before.
    least: f64,
    least_before: f64,
    /// Windows of this epoch, and when it began.
    windows: u32,
    epoch: Time,
    /// No queue has been seen yet, or for long: bold steps upwards.
    bold: bool,
    calm: u32,
    fall: Option<Fall>,
    /// The limit to return to after the window that lets the queue run dry.
    dry: Option<f64>,
    /// What no queue looks like may be far from what is known of it.
    searching: bool,
    /// The limit has just gone far down: what is seen next is of calls from before and after, and tells nothing.
    mixed: bool,
}

/// The limit goes down.
#[derive(Clone, Copy, Debug)]
struct Fall {
    /// From this limit and this latency, with so many in flight.
    limit: f64,
    low: f64,
    peak: u32,
    /// It is far down; the next look tells whether latency went down too.
    down: bool,
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
/// How long it takes at least until what was least is measured anew.
const EPOCH: Duration = Duration::from_secs(5);
const EPOCH_WINDOWS: u32 = 20;
/// As long as little is known: so many windows before.
const AGAIN: u32 = 3;
/// A queue shorter than a part of the service, or than what the scheduling of threads looks like, is none.
const SLACK: f64 = 0.1;
const NOISE: f64 = 0.0005;

impl Limiter {
    pub(super) fn new(bounds: Bounds) -> Limiter {
        let limit = f64::from(bounds.start);
        let learnt = Learnt {
            limit,
            least: f64::INFINITY,
            least_before: f64::INFINITY,
            windows: EPOCH_WINDOWS - AGAIN,
            epoch: Time::default(),
            bold: true,
            calm: 0,
            fall: None,
            dry: None,
            searching: true,
            mixed: false,
        };
        Limiter {
            bounds,
            flying: AtomicU32::new(0),
            limit: AtomicU32::new(bounds.start),
            peak: AtomicU32::new(0),
            window: Window::new(),
            usual: AtomicU64::new(0),
            ended: AtomicU32::new(0),
            due: AtomicU64::new(0),
            learnt: Mutex::new(learnt),
        }
    }

    pub(super) fn limit(&self) -> u32 {
        self.limit.load(Relaxed)
    }

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

    /// Counts a call, if fewer than the limit without `reserve` are in flight.
    pub(super) fn enter(&self, reserve: u32) -> bool {
        let most = self.limit().saturating_sub(reserve).max(1);
        let before = self.flying.fetch_add(1, Relaxed);
        if before >= most {
            self.flying.fetch_sub(1, Relaxed);
            return false;
        }
        if self.peak.load(Relaxed) <= before {
            self.peak.fetch_max(before + 1, Relaxed);
        }
        true
    }

    /// A call is over. `latency` is how long its upstream took, if that says anything.
    pub(super) fn leave(&self, latency: Option<Duration>) {
        self.flying.fetch_sub(1, Relaxed);
        self.ended.fetch_add(1, Relaxed);
        if let Some(latency) = latency {
            self.window.add(latency);
        }
    }

    /// Looks at what was seen, if it is time; of several who come one does. Without `reserve`,
    /// the limit is what calls are kept at.
    pub(super) fn look(&self, now: Time, reserve: u32) -> Option<Look> {
        if now.nanos() < self.due.load(Relaxed) || self.window.count() < ENOUGH {
            return None;
        }
        let mut learnt = self.learnt.try_lock().ok()?;
        if now.nanos() < self.due.load(Relaxed) {
            return None;
        }
        let seen = self.window.take();
        let peak = self.peak.swap(self.flying(), Relaxed);
        learnt.learn(seen, peak + reserve, now, self.bounds);
        self.usual.store((seen.mean * 1e9) as u64, Relaxed);
        let limit = learnt.limit as u32;
        self.limit.store(limit, Relaxed);
        let length = Duration::from_secs_f64((4.0 * seen.mean).min(LONGEST.as_secs_f64())).max(SHORTEST);
        self.due.store((now + length).nanos(), Relaxed);
        Some(Look { limit, ended: self.ended.swap(0, Relaxed) })
    }
}

impl Learnt {
    fn learn(&mut self, seen: Seen, peak: u32, now: Time, bounds: Bounds) {
        let Seen { mean, low, .. } = seen;
        if std::mem::take(&mut self.mixed) {
            return;
        }
        let base_before = self.least.min(self.least_before);
        self.least = self.least.min(low);
        let base = self.least.min(self.least_before);
        if let Some(limit) = self.dry.take() {
            // The queue ran dry, or nearly; what was measured in it is all that it was for.
            self.limit = limit;
            // There was more of it than was known, and may be still.
            self.searching = low < 0.9 * base_before;
            if self.searching {
                (self.windows, self.epoch) = (EPOCH_WINDOWS - AGAIN, Time::default());
            }
            return;
        }
        if let Some(fall) = self.fall.filter(|fall| fall.down) {
            self.fall = None;
            if low >= 0.8 * fall.low && f64::from(peak) <= 0.7 * f64::from(fall.peak) {
                (self.least, self.least_before) = (low, low);
                self.limit = fall.limit;
            }
            return;
        }
        let queue = (low - base).max(0.0);
        let service = (mean - queue).max(1e-9);
        let excess = (queue - (service * SLACK).max(NOISE)).max(0.0);
        let gradient = (service / (service + excess)).max(0.5);
        let busy = f64::from(peak) >= 0.9 * self.limit;

        let before = self.limit;
        let mut limit = before * gradient;
        if busy {
            limit += (before.sqrt() * 0.75).max(1.0);
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

        match self.fall {
            None if gradient < 0.9 => self.fall = Some(Fall { limit: before, low, peak, down: false }),
            Some(fall) if self.limit <= 0.6 * fall.limit => {
                (self.fall, self.mixed) = (Some(Fall { down: true, ..fall }), true);
            }
            Some(_) if gradient >= 0.9 => self.fall = None,
            _ => {}
        }

        self.windows += 1;
        if self.windows >= EPOCH_WINDOWS && now.since(self.epoch) >= EPOCH {
            (self.windows, self.epoch) = (0, now);
            self.least_before = self.least;
            self.least = f64::INFINITY;
            if busy {
                (self.dry, self.mixed) = (Some(self.limit), true);
                let part = if self.searching { 0.5 } else { 0.75 };
                let dry = (self.limit * part).min(self.limit - 2.0 * self.limit.sqrt());
                self.limit = dry.max(f64::from(bounds.least));
            } else {
                // So few say what no queue looks like.
                self.least = low;
            }
        }
    }
}
