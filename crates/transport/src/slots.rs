//! How many connections may be open at once, to an endpoint or to all of an upstream, on all cores together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// A count with a bound. Connections are opened seldom, so cores share the number; who only sends on one that is
/// open never comes here.
#[derive(Debug, Default)]
pub struct Slots {
    open: AtomicU32,
    /// Zero for no bound.
    most: AtomicU32,
    waiting: AtomicU32,
    most_waiting: AtomicU32,
    /// In nanoseconds.
    patience: AtomicU64,
    /// Somebody who would not wait found none free, while some may be held by connections that lie idle.
    missed: AtomicBool,
    freed: Notify,
}

/// One open connection, until it is dropped.
#[derive(Debug)]
pub struct Slot(Arc<Slots>);

/// A place among those who wait.
pub(crate) struct Waiting<'a>(&'a Slots);

impl Slots {
    /// At most so many, and so many may wait for one, each for so long.
    pub fn bound(&self, most: Option<u32>, waiting: u32, patience: Duration) {
        self.most.store(most.unwrap_or(0), Ordering::Relaxed);
        self.most_waiting.store(waiting, Ordering::Relaxed);
        self.patience.store(patience.as_nanos() as u64, Ordering::Relaxed);
    }

    pub fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }

    /// `None` if there are as many as there may be.
    pub(crate) fn take(self: &Arc<Slots>) -> Option<Slot> {
        let most = self.most.load(Ordering::Relaxed);
        let more = |open: u32| (most == 0 || open < most).then_some(open + 1);
        self.open.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        Some(Slot(self.clone()))
    }

    /// `None` if so many wait that no more may; idle connections will be let go all the same.
    pub(crate) fn wait(&self) -> Option<Waiting<'_>> {
        let before = self.waiting.fetch_add(1, Ordering::SeqCst);
        let waiting = Waiting(self);
        if before < self.most_waiting.load(Ordering::Relaxed) {
            return Some(waiting);
        }
        self.missed.store(true, Ordering::Relaxed);
        None
    }

    /// Whoever has an idle connection should close it, since others have none.
    pub(crate) fn are_wanted(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
            || (self.missed.load(Ordering::Relaxed) && self.missed.swap(false, Ordering::Relaxed))
    }
}

impl Waiting<'_> {
    pub(crate) fn patience(&self) -> Duration {
        Duration::from_nanos(self.0.patience.load(Ordering::Relaxed))
    }

    /// Returns when one may be free.
    pub(crate) async fn freed(&self) {
        self.0.freed.notified().await;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
        // Whoever waits said so before it looked for a slot: either it saw this one, or it is seen here.
        if self.0.waiting.load(Ordering::SeqCst) > 0 {
            self.0.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_as_there_may_be_and_what_is_dropped_is_free() {
        let slots = Arc::new(Slots::default());
        let unbounded: Vec<_> = (0..100).map(|_| slots.take()).collect();
        assert!(unbounded.iter().all(Option::is_some));
        drop(unbounded);
        slots.bound(Some(2), 0, Duration::ZERO);
        let (a, b) = (slots.take().unwrap(), slots.take());
        assert!(b.is_some() && slots.take().is_none());
        assert!(slots.wait().is_none() && slots.are_wanted() && !slots.are_wanted());
        drop(a);
        assert_eq!(slots.open(), 1);
        assert!(slots.take().is_some());
    }

    #[tokio::test]
    async fn who_waits_gets_what_is_freed() {
        let slots = Arc::new(Slots::default());
        slots.bound(Some(1), 1, Duration::from_secs(1));
        let held = slots.take().unwrap();
        let waiting = slots.wait().unwrap();
        assert!(slots.wait().is_none() && slots.are_wanted() && slots.take().is_none());
        drop(held);
        waiting.freed().await;
        assert!(slots.take().is_some());
    }
}
