//! A timer for waits that seldom last to their end.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use base::Time;
use tokio::time::{Instant, Sleep, sleep_until};

/// Waits for a moment that is put off again and again: it is set anew only when it goes off too early, or would go
/// off too late. So a wait that begins with each request does not cost a clock and a place in a queue each time.
pub struct Alarm {
    sleep: Pin<Box<Sleep>>,
    set: Time,
    /// Whom it will wake, once that one has asked twice: most never do.
    waker: Option<Waker>,
    asked: bool,
}

impl Alarm {
    pub fn new(at: Time) -> Alarm {
        Alarm { sleep: Box::pin(sleep_until(instant(at))), set: at, waker: None, asked: false }
    }

    /// Ready when `at` has passed. It may wake its task earlier, to no harm.
    pub fn poll(&mut self, at: Time, cx: &mut Context<'_>) -> Poll<()> {
        if at < self.set {
            self.set(at);
        }
        // As nearly always: the same task asks again, long before.
        if self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) && !self.sleep.is_elapsed() {
            return Poll::Pending;
        }
        loop {
            // Without any left it turns its caller away unheard.
            let is_heard = tokio::task::coop::has_budget_remaining();
            if self.sleep.as_mut().poll(cx).is_pending() {
                self.waker = (is_heard && self.asked).then(|| cx.waker().clone());
                self.asked = true;
                return Poll::Pending;
            }
            if self.set >= at {
                return Poll::Ready(());
            }
            self.set(at);
        }
    }

    /// Nobody waits for it any more.
    pub fn forget(&mut self) {
        (self.waker, self.asked) = (None, false);
    }

    fn set(&mut self, at: Time) {
        self.sleep.as_mut().reset(instant(at));
        self.set = at;
        self.waker = None;
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
    async fn whoever_asks_again_is_woken_all_the_same_and_so_is_another_task() {
        let late = Time::now() + Duration::from_millis(40);
        let mut alarm = Alarm::new(late);
        for _ in 0..2 {
            let mut polls = 0;
            poll_fn(|cx| {
                polls += 1;
                // Asked often, with whatever has been spent of the task's budget.
                if (0..300).all(|_| alarm.poll(late, cx).is_pending()) { Poll::Pending } else { Poll::Ready(()) }
            })
            .await;
            assert!(Time::now() >= late && polls < 100, "{polls}");
        }
        let mut alarm = Alarm::new(late);
        let late = Time::now() + Duration::from_millis(20);
        for _ in 0..3 {
            let _ = alarm.poll(late, &mut Context::from_waker(Waker::noop()));
        }
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
