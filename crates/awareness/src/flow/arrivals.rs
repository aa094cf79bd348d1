//! How calls come: counted in short windows of time, of which the last minute is kept.

use base::Time;

/// A piece of time, 134 ms long, by its number since the process began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Window(pub u64);

/// Counts of the last [`Arrivals::KEPT`] windows.
#[derive(Clone, Debug)]
pub struct Arrivals {
    counts: Box<[u32; Arrivals::KEPT]>,
    began: Window,
    /// The first window that is not counted yet.
    next: Window,
}

/// A call is told when it ends: one that took longer than this many windows is counted this many before its end.
pub const LATEST: u64 = 12;

/// Windows that must have passed before one is over: all its calls have ended, or are counted elsewhere.
pub const GRACE: u64 = LATEST + 3;

// === impl Window ===

impl Window {
    /// Two to this many nanoseconds: a shift is cheaper than a division.
    const BITS: u32 = 27;

    pub fn at(time: Time) -> Window {
        Window(time.nanos() >> Window::BITS)
    }

    /// Where a call is counted that came and ended then.
    pub fn of_call(started: Time, finished: Time) -> Window {
        Window::at(started).max(Window(Window::at(finished).0.saturating_sub(LATEST)))
    }

    /// The first that may still get calls.
    pub fn latest_over(now: Time) -> Window {
        Window(Window::at(now).0.saturating_sub(GRACE))
    }
}

// === impl Arrivals ===

impl Arrivals {
    /// About 69 seconds.
    pub const KEPT: usize = 512;
    /// Windows that are taken together as a second, near enough.
    const SECOND: usize = 8;

    pub fn new(began: Time) -> Arrivals {
        let began = Window::at(began);
        Arrivals { counts: Box::new([0; Arrivals::KEPT]), began, next: began }
    }

    /// In the order of windows; what comes late is left out.
    pub fn add(&mut self, window: Window, count: u32) {
        if window < self.next {
            return;
        }
        self.reach(window);
        self.counts[window.0 as usize % Arrivals::KEPT] = count;
        self.next = Window(window.0 + 1);
    }

    /// Nothing came in the windows before this one that were not told.
    pub fn reach(&mut self, window: Window) {
        let silent = window.0.saturating_sub(self.next.0).min(Arrivals::KEPT as u64);
        for back in 1..=silent {
            self.counts[(window.0 - back) as usize % Arrivals::KEPT] = 0;
        }
        self.next = self.next.max(window);
    }

    /// Oldest first.
    fn windows(&self) -> impl Iterator<Item = u32> + '_ {
        let first = self.next.0.saturating_sub(Arrivals::KEPT as u64).max(self.began.0);
        (first..self.next.0).map(|window| self.counts[window as usize % Arrivals::KEPT])
    }

    /// Variance over mean. Of fewer calls than ten, or less time than four seconds, it would say nothing.
    pub fn dispersion(&self) -> Option<f64> {
        let (mut windows, mut sum, mut squares) = (0.0, 0.0, 0.0);
        for count in self.windows().map(f64::from) {
            windows += 1.0;
            sum += count;
            squares += count * count;
        }
        if windows < 32.0 || sum < 10.0 {
            return None;
        }
        let mean = sum / windows;
        Some(((squares - sum * mean) / (windows - 1.0) / mean).max(0.0))
    }

    /// The fullest second over the mean one. Of few calls even chance makes it large.
    pub fn burst(&self) -> Option<f64> {
        let windows: Vec<u32> = self.windows().collect();
        let seconds = windows.chunks_exact(Arrivals::SECOND).map(|second| second.iter().sum::<u32>());
        let (mut count, mut sum, mut peak) = (0.0, 0.0, 0.0_f64);
        for second in seconds.map(f64::from) {
            count += 1.0;
            sum += second;
            peak = peak.max(second);
        }
        (count >= 4.0 && sum >= 20.0).then(|| peak * count / sum)
    }
}
