//! What calls cost in time on a core: measured for one call in so many, by the thread's clock round each poll.
//!
//! Reading that clock is a system call, so most calls are not measured, and the others stand for them. What is
//! measured is the call itself: policies, the upstream's side, the body as it passes. Reading the client's head
//! and writing to the client are its connection's.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What one call has cost so far.
#[derive(Clone, Default)]
pub struct Meter(Rc<Cell<Duration>>);

impl Meter {
    /// Measures one poll.
    pub fn poll<T>(&self, poll: impl FnOnce() -> Poll<T>) -> Poll<T> {
        let before = on_core();
        let polled = poll();
        self.0.set(self.0.get() + on_core().saturating_sub(before));
        polled
    }

    pub async fn measure<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        poll_fn(|cx| self.poll(|| future.as_mut().poll(cx))).await
    }

    /// Adds what was done for it on another thread.
    pub fn add(&self, elsewhere: Duration) {
        self.0.set(self.0.get() + elsewhere);
    }

    /// What all the calls cost that this one stands for.
    pub fn stands_for(&self) -> Duration {
        self.0.get() * ONE_IN
    }
}

/// What a thread has computed so far.
pub fn on_core() -> Duration {
    let at = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(at.tv_sec as u64, at.tv_nsec as u32)
}

/// A power of two. By chance and not by turn, since calls of one kind may come by turns too.
pub const ONE_IN: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_measured_and_waiting_is_not() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (busy, idle) = (Meter::default(), Meter::default());
        runtime.block_on(idle.measure(async { tokio::time::sleep(Duration::from_millis(200)).await }));
        runtime.block_on(busy.measure(async {
            let begin = on_core();
            while on_core() - begin < Duration::from_millis(20) {}
        }));
        assert!(busy.0.get() >= Duration::from_millis(20), "{:?}", busy.0.get());
        assert!(idle.0.get() < Duration::from_millis(20), "{:?}", idle.0.get());
        assert_eq!(busy.stands_for(), busy.0.get() * ONE_IN);
    }
}
