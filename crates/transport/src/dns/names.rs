//! The names in use, hosts and services.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use base::{Srv, Time};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::kept::{Cell, Kept, Name, Patience, Question, Service};
use super::resolver::Resolver;

/// Gives out [`Name`]s and [`Service`]s; the same one to all who ask for the same.
pub struct Names {
    how: watch::Sender<Asked>,
    runtime: Handle,
    hosts: Table<IpAddr>,
    services: Table<Srv>,
}

/// How names are asked for, at the moment.
#[derive(Clone)]
pub struct Asked {
    pub resolver: Arc<Resolver>,
    pub patience: Patience,
}

/// How one name is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameStatus {
    pub name: Arc<str>,
    /// How many addresses or places it stands for.
    pub found: usize,
    /// For how long the answer in use should have been renewed.
    pub stale: Option<Duration>,
    pub failures: u64,
}

type Table<T> = Mutex<HashMap<Arc<str>, Weak<Kept<T>>>>;

impl Names {
    /// `runtime` is where names are resolved: the control runtime, never a core that carries calls.
    pub fn new(asked: Asked, runtime: Handle) -> Names {
        Names { how: watch::Sender::new(asked), runtime, hosts: Table::default(), services: Table::default() }
    }

    /// From now on names are asked for like this; all are, at once. Gives what was so before.
    pub fn ask_by(&self, asked: Asked) -> Asked {
        self.how.send_replace(asked)
    }

    /// Keeps the host resolved from now on. Does not wait: see [`Kept::settled`].
    pub fn host(&self, host: &str) -> Arc<Name> {
        self.kept(&self.hosts, host)
    }

    /// The same for the places of a service.
    pub fn service(&self, service: &str) -> Arc<Service> {
        self.kept(&self.services, service)
    }

    /// Waits until each of these was asked for once, but not for longer than that. Not for the inside of a runtime.
    pub fn wait_for(&self, services: Vec<Arc<Service>>, patience: Duration) {
        let (tell, told) = std::sync::mpsc::channel();
        // Its owner waits for it below; who gives up leaves it to end by itself.
        self.runtime.spawn(async move {
            for service in services {
                service.settled().await;
            }
            let _ = tell.send(());
        });
        let _ = told.recv_timeout(patience);
    }

    /// How the names in use are.
    pub fn status(&self) -> Vec<NameStatus> {
        let now = Time::now();
        let mut all = status(&self.hosts, now);
        all.extend(status(&self.services, now));
        all
    }

    fn kept<T: Question>(&self, table: &Table<T>, name: &str) -> Arc<Kept<T>> {
        let name: Arc<str> = name.to_ascii_lowercase().into();
        let mut names = table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = names.get(&name).and_then(Weak::upgrade) {
            return name;
        }
        names.retain(|_, name| name.strong_count() > 0);
        let cell = Cell::new();
        // Its owner is what is given out: it ends with the last handle.
        let task = self.runtime.spawn(cell.clone().keep_fresh(name.clone(), self.how.subscribe())).abort_handle();
        let kept = Arc::new(Kept::new(name.clone(), cell, task));
        names.insert(name, Arc::downgrade(&kept));
        kept
    }
}

fn status<T>(table: &Table<T>, now: Time) -> Vec<NameStatus> {
    let names = table.lock().unwrap_or_else(PoisonError::into_inner);
    let held: Vec<_> = names.values().filter_map(Weak::upgrade).collect();
    drop(names);
    let status = held.iter().map(|kept| NameStatus {
        name: kept.name().clone(),
        found: kept.found().len(),
        stale: kept.stale(now),
        failures: kept.failures(),
    });
    let mut status: Vec<_> = status.collect();
    status.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    status
}
