//! Waiting with an end: timers that are made only when something has to be waited for.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use base::Time;
use transport::Alarm;

/// Timers of one core that nobody waits for at the moment. To take a used one is far cheaper than to make and
/// enlist a new one for each call.
#[derive(Default)]
pub struct Timers(RefCell<Vec<Alarm>>);

/// A timer that costs nothing until it is first waited for.
pub struct LazyTimer {
    spare: Rc<Timers>,
    alarm: Option<Alarm>,
}

impl LazyTimer {
    pub fn new(spare: &Rc<Timers>) -> LazyTimer {
        LazyTimer { spare: spare.clone(), alarm: None }
    }

    /// Ready when `at` has passed.
    pub fn poll(&mut self, at: Time, cx: &mut Context<'_>) -> Poll<()> {
        let alarm = match &mut self.alarm {
            Some(alarm) => alarm,
            none => none.insert(self.spare.0.borrow_mut().pop().unwrap_or_else(|| Alarm::new(at))),
        };
        alarm.poll(at, cx)
    }
}

impl Drop for LazyTimer {
    fn drop(&mut self) {
        const MOST: usize = 1024;
        if let Some(mut alarm) = self.alarm.take() {
            alarm.forget();
            let mut spare = self.spare.0.borrow_mut();
            if spare.len() < MOST {
                spare.push(alarm);
            }
        }
    }
}

/// Which wait was too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    FirstByte,
    /// The deadline of the try or of the call.
    Deadline,
}

/// Waits for an answer: until `first_byte` after the request was sent, and never beyond `deadline`.
pub async fn answer<T>(
    timers: &Rc<Timers>,
    answering: impl Future<Output = T>,
    sent: &Cell<Time>,
    first_byte: Option<Duration>,
    deadline: Option<Time>,
) -> Result<T, Late> {
    let mut answering = pin!(answering);
    let mut timer = LazyTimer::new(timers);
    poll_fn(|cx| {
        if let Poll::Ready(answer) = answering.as_mut().poll(cx) {
            return Poll::Ready(Ok(answer));
        }
        let first_byte = first_byte.filter(|_| sent.get() != Time::default()).map(|wait| sent.get() + wait);
        let (at, late) = match (first_byte, deadline) {
            (Some(first), Some(deadline)) if first < deadline => (first, Late::FirstByte),
            (Some(first), None) => (first, Late::FirstByte),
            (_, Some(deadline)) => (deadline, Late::Deadline),
            (None, None) => return Poll::Pending,
        };
        timer.poll(at, cx).map(|()| Err(late))
    })
    .await
}
