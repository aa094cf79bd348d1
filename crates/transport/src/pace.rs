//! How slow a client may be.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Within each `patience` that one waits for a client, it has to move `least` bytes; were any byte enough, one a minute
/// would hold a connection for ever.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub patience: Duration,
    pub least: u64,
}

/// How long a client has been waited for. Time in which nobody waits for it does not count.
#[derive(Default)]
pub(crate) struct Waiting {
    /// Since the last time that it had moved enough.
    before: Duration,
    moved: u64,
    since: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    /// So many bytes a second on average.
    pub fn new(patience: Duration, rate: u64) -> Pace {
        let least = u128::from(rate) * patience.as_millis() / 1000;
        Pace { patience, least: u64::try_from(least).unwrap_or(u64::MAX) }
    }
}

impl Waiting {
    pub(crate) fn moved(&mut self, pace: Pace, bytes: usize) {
        self.moved_at(Instant::now, pace, bytes);
    }

    /// Nobody waits for it any more, and what it took is forgiven.
    pub(crate) fn done(&mut self) {
        (self.before, self.moved, self.since) = (Duration::ZERO, 0, None);
    }

    /// For who waits now; ready when it has taken too long.
    pub(crate) fn poll_late(&mut self, pace: Pace, cx: &mut Context<'_>) -> Poll<()> {
        if self.since.is_none() {
            let now = Instant::now();
            let end = self.begin_at(now, pace);
            if end <= now {
                return Poll::Ready(());
            }
            match &mut self.sleep {
                Some(sleep) => sleep.as_mut().reset(end),
                none => *none = Some(Box::pin(sleep_until(end))),
            }
        }
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }

    fn moved_at(&mut self, now: impl FnOnce() -> Instant, pace: Pace, bytes: usize) {
        // Asked again for another reason, it has been waiting all the time.
        if bytes == 0 {
            return;
        }
        self.moved += bytes as u64;
        if self.moved >= pace.least {
            self.done();
        } else if let Some(since) = self.since.take() {
            self.before += now().saturating_duration_since(since);
        }
    }

    /// When it will have taken too long.
    fn begin_at(&mut self, now: Instant, pace: Pace) -> Instant {
        let since = *self.since.get_or_insert(now);
        since + pace.patience.saturating_sub(self.before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// After how many seconds one who moves that many bytes in each of them is found too slow; nobody waits for it
    /// for `pause` behind each.
    fn found_slow(pace: Pace, bytes: usize, pause: Duration) -> Option<u32> {
        let (mut now, mut waiting) = (Instant::now(), Waiting::default());
        for second in 1..1000 {
            let end = waiting.begin_at(now, pace);
            now += SECOND;
            if end <= now {
                return Some(second);
            }
            waiting.moved_at(|| now, pace, bytes);
            // Who has moved nothing is waited for without a break.
            if bytes > 0 {
                now += pause;
            }
        }
        None
    }

    #[test]
    fn who_moves_enough_may_go_on_for_ever() {
        for (rate, bytes, expected) in
            [(10, 0, Some(60)), (10, 1, Some(60)), (10, 9, Some(60)), (10, 11, None), (0, 1, None), (0, 0, Some(60))]
        {
            for pause in [Duration::ZERO, 100 * SECOND] {
                assert_eq!(found_slow(Pace::new(60 * SECOND, rate), bytes, pause), expected, "{bytes} of {rate}");
            }
        }
    }
}
