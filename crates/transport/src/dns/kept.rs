//! What a name stands for, kept fresh by a task of its own for as long as somebody holds it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use base::{Srv, Time};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::names::Asked;
use super::resolver::{Answer, DnsError, Resolver};

/// A host, by its addresses.
pub type Name = Kept<IpAddr>;
/// A service, by its places.
pub type Service = Kept<Srv>;

/// A name that is kept resolved. Dropping the last handle ends that.
pub struct Kept<T> {
    name: Arc<str>,
    cell: Arc<Cell<T>>,
    task: AbortHandle,
}

/// How long the last answer is used once there is no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// After its time to live, while no server says anything of use; `None` for ever.
    pub stale: Option<Duration>,
    /// From the moment on that a server said that there is nothing by the name.
    pub gone: Duration,
}

/// What names can be asked for.
pub(super) trait Question: Sized + PartialEq + Send + Sync + 'static {
    fn ask(resolver: &Resolver, name: &str) -> impl Future<Output = Result<Answer<Self>, DnsError>> + Send;
}

pub(super) struct Cell<T> {
    found: ArcSwap<Vec<T>>,
    /// Why the last question went unanswered; what was found may be stale then.
    error: ArcSwapOption<DnsError>,
    /// How often a question went unanswered.
    failures: AtomicU64,
    /// Until when the last answer may be believed.
    good_until: AtomicU64,
    /// Counts the questions that were answered or given up.
    asked: watch::Sender<u64>,
    /// Counts the times that what was found changed.
    changed: watch::Sender<u64>,
}

// === impl Kept ===

impl<T> Kept<T> {
    pub(super) fn new(name: Arc<str>, cell: Arc<Cell<T>>, task: AbortHandle) -> Kept<T> {
        Kept { name, cell, task }
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What it stands for, as far as is known; empty before the first answer. Takes no lock.
    pub fn found(&self) -> Guard<Arc<Vec<T>>> {
        self.cell.found.load()
    }

    /// Why it could not be resolved the last time; `None` while all is well.
    pub fn error(&self) -> Option<Arc<DnsError>> {
        self.cell.error.load_full()
    }

    /// For how long the answer in use should have been renewed; `None` while it need not be, and where there is none.
    pub fn stale(&self, now: Time) -> Option<Duration> {
        let good_until = Time::from_nanos(self.cell.good_until.load(Ordering::Relaxed));
        (self.error().is_some() && !self.found().is_empty()).then(|| now.since(good_until))
    }

    /// How often a question went unanswered.
    pub fn failures(&self) -> u64 {
        self.cell.failures.load(Ordering::Relaxed)
    }

    /// Waits until it was asked for once, with or without success.
    pub async fn settled(&self) {
        // The cell keeps the sender alive for as long as we wait.
        let _ = self.cell.asked.subscribe().wait_for(|asked| *asked > 0).await;
    }

    /// Tells of every change of what it stands for, on whatever runtime it is awaited.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.cell.changed.subscribe()
    }
}

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === impl Cell ===

impl<T: Question> Cell<T> {
    pub(super) fn new() -> Arc<Cell<T>> {
        Arc::new(Cell {
            found: ArcSwap::default(),
            error: ArcSwapOption::empty(),
            failures: AtomicU64::new(0),
            good_until: AtomicU64::new(0),
            asked: watch::Sender::new(0),
            changed: watch::Sender::new(0),
        })
    }

    /// Asks again and again, when the last answer has become old or another way to ask is given.
    pub(super) async fn keep_fresh(self: Arc<Self>, name: Arc<str>, mut how: watch::Receiver<Asked>) {
        let mut backoff = FIRST_BACKOFF;
        // Since when servers have been saying that there is nothing.
        let mut gone_since = None;
        loop {
            let Asked { resolver, patience } = how.borrow_and_update().clone();
            let answer = T::ask(&resolver, &name).await;
            let now = Time::now();
            let pause = match answer {
                Ok(Answer { found, ttl }) => {
                    (backoff, gone_since) = (FIRST_BACKOFF, None);
                    self.good_until.store((now + ttl).nanos(), Ordering::Relaxed);
                    if self.error.swap(None).is_some() {
                        tracing::info!(%name, "the name is resolved again");
                    }
                    self.publish(&name, found);
                    ttl
                }
                Err(error) => {
                    gone_since = error.is_nothing.then(|| gone_since.unwrap_or(now));
                    let until = self.usable_until(patience, gone_since);
                    let first = self.error.load().is_none();
                    if first {
                        tracing::warn!(%name, reason = %error.reason, "the name cannot be resolved; its last answer stays in use");
                    }
                    self.failures.fetch_add(1, Ordering::Relaxed);
                    self.error.store(Some(Arc::new(error)));
                    if until.is_some_and(|until| until <= now) && !self.found.load().is_empty() {
                        tracing::warn!(%name, "its last answer is too old to be used any longer");
                        self.publish(&name, Vec::new());
                    }
                    let left = until.map_or(backoff, |until| until.since(now));
                    let pause = if left.is_zero() { backoff } else { backoff.min(left) };
                    backoff = (backoff * 2).min(LAST_BACKOFF);
                    pause
                }
            };
            self.asked.send_modify(|count| *count += 1);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // Who gave the name out is gone: nothing will ever change again but the answers.
                Ok(()) = how.changed() => backoff = FIRST_BACKOFF,
            }
        }
    }

    /// The moment at which the last answer is to be given up; `None` for never.
    fn usable_until(&self, patience: Patience, gone_since: Option<Time>) -> Option<Time> {
        let good_until = Time::from_nanos(self.good_until.load(Ordering::Relaxed));
        let stale = patience.stale.map(|stale| good_until + stale);
        // What servers say is no news before the last answer has become old.
        let gone = gone_since.map(|since| since.max(good_until) + patience.gone);
        [stale, gone].into_iter().flatten().min()
    }

    fn publish(&self, name: &str, found: Vec<T>) {
        if **self.found.load() == found {
            return;
        }
        tracing::debug!(name, answers = found.len(), "the name stands for something else now");
        self.found.store(Arc::new(found));
        self.changed.send_modify(|count| *count += 1);
    }
}

impl Question for IpAddr {
    fn ask(resolver: &Resolver, name: &str) -> impl Future<Output = Result<Answer<IpAddr>, DnsError>> + Send {
        resolver.addresses(name)
    }
}

impl Question for Srv {
    fn ask(resolver: &Resolver, name: &str) -> impl Future<Output = Result<Answer<Srv>, DnsError>> + Send {
        resolver.places(name)
    }
}

impl Default for Patience {
    /// A day; half a minute.
    fn default() -> Patience {
        Patience { stale: Some(Duration::from_secs(86_400)), gone: Duration::from_secs(30) }
    }
}

const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const LAST_BACKOFF: Duration = Duration::from_secs(30);
