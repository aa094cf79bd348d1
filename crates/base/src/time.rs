//! Time as a number: nanoseconds on the monotonic clock since the process began.
//!
//! A number can be copied, subtracted and made up in a test; the clock itself is read by the transport
//! and the path, never by a policy.

use std::cell::Cell;
use std::ops::{Add, Sub};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

/// When the process began: as timers have it, and in nanoseconds of the same clock, which are quicker to count with.
static START: LazyLock<(Instant, u64)> = LazyLock::new(|| (Instant::now(), monotonic()));

thread_local! {
    /// What this thread's clock showed last.
    static LAST: Cell<Time> = const { Cell::new(Time(0)) };
}

impl Time {
    /// Reads the clock. Never zero, so that zero may stand for "not yet".
    pub fn now() -> Time {
        let start = START.1;
        let now = Time(monotonic().saturating_sub(start) + 1);
        LAST.set(now);
        now
    }

    /// When this thread last read the clock; for what just happened it is near enough, and costs nothing.
    pub fn last() -> Time {
        match LAST.get() {
            Time(0) => Time::now(),
            last => last,
        }
    }

    pub const fn from_nanos(nanos: u64) -> Time {
        Time(nanos)
    }

    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// The same moment for a timer, without reading the clock again.
    pub fn instant(self) -> Instant {
        START.0 + Duration::from_nanos(self.0)
    }

    /// How long after `earlier` this is; zero if it is not.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

impl Add<Duration> for Time {
    type Output = Time;

    fn add(self, duration: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub for Time {
    type Output = Duration;

    fn sub(self, earlier: Time) -> Duration {
        self.since(earlier)
    }
}
