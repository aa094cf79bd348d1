//! The names in use, each kept fresh by a task of its own for as long as somebody holds it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::{DnsError, Resolver};

/// Gives out [`Name`]s; the same one to all who ask for the same host.
pub struct Names {
    resolver: Arc<Resolver>,
    runtime: Handle,
    names: Mutex<HashMap<String, Weak<Name>>>,
}

/// A name that is kept resolved. Dropping the last handle ends that.
pub struct Name {
    host: String,
    cell: Arc<Cell>,
    task: AbortHandle,
}

struct Cell {
    addresses: ArcSwap<Vec<IpAddr>>,
    /// Why the last question went unanswered; the addresses may be stale then.
    error: ArcSwapOption<DnsError>,
    /// Counts the questions that were answered or given up.
    asked: watch::Sender<u64>,
    /// Counts the times that the addresses changed.
    changed: watch::Sender<u64>,
}

// === impl Names ===

impl Names {
    /// `runtime` is where names are resolved: the control runtime, never a core that carries calls.
    pub fn new(resolver: Resolver, runtime: Handle) -> Names {
        Names { resolver: Arc::new(resolver), runtime, names: Mutex::default() }
    }

    /// Keeps the host resolved from now on. Does not wait: see [`Name::settled`].
    pub fn register(&self, host: &str) -> Arc<Name> {
        let host = host.to_ascii_lowercase();
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = names.get(&host).and_then(Weak::upgrade) {
            return name;
        }
        names.retain(|_, name| name.strong_count() > 0);
        let cell = Arc::new(Cell {
            addresses: ArcSwap::default(),
            error: ArcSwapOption::empty(),
            asked: watch::Sender::new(0),
            changed: watch::Sender::new(0),
        });
        // Its owner is the name: it ends with the last handle.
        let task = self.runtime.spawn(keep_fresh(host.clone(), self.resolver.clone(), cell.clone())).abort_handle();
        let name = Arc::new(Name { host: host.clone(), cell, task });
        names.insert(host, Arc::downgrade(&name));
        name
    }
}

// === impl Name ===

impl Name {
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What it stands for, as far as is known; empty before the first answer. Takes no lock.
    pub fn addresses(&self) -> Guard<Arc<Vec<IpAddr>>> {
        self.cell.addresses.load()
    }

    /// Why it could not be resolved the last time; `None` while all is well.
    pub fn error(&self) -> Option<Arc<DnsError>> {
        self.cell.error.load_full()
    }

    /// Waits until it was asked for once, with or without success.
    pub async fn settled(&self) {
        // The cell keeps the sender alive for as long as we wait.
        let _ = self.cell.asked.subscribe().wait_for(|asked| *asked > 0).await;
    }

    /// Tells of every change of the addresses, on whatever runtime it is awaited.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.cell.changed.subscribe()
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep_fresh(host: String, resolver: Arc<Resolver>, cell: Arc<Cell>) {
    let mut backoff = FIRST_BACKOFF;
    loop {
        let pause = match resolver.resolve(&host).await {
            Ok(answer) => {
                backoff = FIRST_BACKOFF;
                if cell.error.swap(None).is_some() {
                    tracing::info!(%host, "the name is resolved again");
                }
                if **cell.addresses.load() != answer.addresses {
                    tracing::debug!(%host, addresses = ?answer.addresses, "the name has new addresses");
                    cell.addresses.store(Arc::new(answer.addresses));
                    cell.changed.send_modify(|count| *count += 1);
                }
                answer.ttl
            }
            Err(error) => {
                if cell.error.load().is_none() {
                    tracing::warn!(%host, reason = %error.reason, "the name cannot be resolved; its last addresses stay");
                }
                cell.error.store(Some(Arc::new(error)));
                let pause = backoff;
                backoff = (backoff * 2).min(LAST_BACKOFF);
                pause
            }
        };
        cell.asked.send_modify(|count| *count += 1);
        tokio::time::sleep(pause).await;
    }
}

const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const LAST_BACKOFF: Duration = Duration::from_secs(30);
