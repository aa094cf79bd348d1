//! A timer for waits that seldom last to their end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base::Time;
use tokio::time::{Instant, Sleep, sleep_until};

/// Waits for a moment that is put off again and again: it is set anew only when it goes off too early, or would go
/// off too late. So a wait that begins with each request does not cost a clock and a place in a queue each time.
pub struct Alarm {
    sleep: Pin<Box<Sleep>>,
    set: Time,
}

impl Alarm {
    pub fn new(at: Time) -> Alarm {
        Alarm { sleep: Box::pin(sleep_until(instant(at))), set: at }
    }

    /// Ready when `at` has passed. It may wake its task earlier, to no harm.
    pub fn poll(&mut self, at: Time, cx: &mut Context<'_>) -> Poll<()> {
        if at < self.set {
            self.set(at);
        }
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            if self.set >= at {
                return Poll::Ready(());
            }
            self.set(at);
        }
    }

    fn set(&mut self, at: Time) {
        self.sleep.as_mut().reset(instant(at));
        self.set = at;
    }
}

fn instant(at: Time) -> Instant {
    Instant::from_std(at.instant())
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_was_put_off_does_not_go_off_at_the_old_moment() {
        let begin = Time::now();
        let mut alarm = Alarm::new(begin + Duration::from_millis(20));
        let late = begin + Duration::from_millis(60);
        poll_fn(|cx| alarm.poll(late, cx)).await;
        assert!(Time::now() >= late);
    }

    #[tokio::test]
    async fn what_was_brought_forward_does_not_wait() {
        let begin = Time::now();
        let mut alarm = Alarm::new(begin + Duration::from_secs(3600));
        poll_fn(|cx| alarm.poll(begin + Duration::from_millis(5), cx)).await;
        assert!(Time::now() >= begin + Duration::from_millis(5));
        // Once more, for a moment that has passed.
        poll_fn(|cx| alarm.poll(begin, cx)).await;
    }
}
