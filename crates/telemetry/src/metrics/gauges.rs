//! What others set: the health of endpoints, reloads. Seldom written, so behind a lock.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Clone, Debug, Default)]
pub struct Gauges(Arc<Mutex<Reading>>);

/// One metric at a moment, of all that have it.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Without the `_total` of a counter.
    pub name: &'static str,
    pub help: &'static str,
    pub counter: bool,
    pub rows: Vec<Row>,
}

#[derive(Clone, Debug)]
pub struct Row {
    pub labels: Vec<(&'static str, Arc<str>)>,
    pub value: u64,
}

/// Asked whenever somebody reads the metrics: who has the numbers keeps them for itself.
#[derive(Clone)]
struct Reader(Arc<dyn Fn() -> Vec<Figure> + Send + Sync>);

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reader")
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Reading {
    pub(crate) healthy: BTreeMap<(Arc<str>, Arc<str>), bool>,
    pub(crate) reloads_good: u64,
    pub(crate) reloads_bad: u64,
    pub(crate) last_reload_good: bool,
    pub(crate) revision: String,
    readers: Vec<Reader>,
}

impl Reading {
    pub(crate) fn figures(&self) -> Vec<Figure> {
        self.readers.iter().flat_map(|reader| reader.0()).collect()
    }
}

impl Gauges {
    /// Where to ask for more of them.
    pub fn read_from(&self, reader: impl Fn() -> Vec<Figure> + Send + Sync + 'static) {
        self.locked().readers.push(Reader(Arc::new(reader)));
    }

    pub fn endpoint(&self, upstream: &Arc<str>, endpoint: &Arc<str>, healthy: bool) {
        self.locked().healthy.insert((upstream.clone(), endpoint.clone()), healthy);
    }

    /// The endpoint is no more, so its gauge is not either.
    pub fn endpoint_gone(&self, upstream: &Arc<str>, endpoint: &Arc<str>) {
        self.locked().healthy.remove(&(upstream.clone(), endpoint.clone()));
    }

    /// The document the process began with. Not a reload.
    pub fn loaded(&self, revision: &str) {
        let mut reading = self.locked();
        reading.last_reload_good = true;
        reading.revision = revision.into();
    }

    pub fn reloaded(&self, revision: &str) {
        self.loaded(revision);
        self.locked().reloads_good += 1;
    }

    pub fn reload_failed(&self) {
        let mut reading = self.locked();
        reading.last_reload_good = false;
        reading.reloads_bad += 1;
    }

    pub(crate) fn read(&self) -> Reading {
        self.locked().clone()
    }

    fn locked(&self) -> MutexGuard<'_, Reading> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Figure {
    /// A counter without labels.
    pub fn counter(name: &'static str, help: &'static str, value: u64) -> Figure {
        Figure { name, help, counter: true, rows: vec![Row { labels: Vec::new(), value }] }
    }

    /// A gauge without labels.
    pub fn gauge(name: &'static str, help: &'static str, value: u64) -> Figure {
        Figure { name, help, counter: false, rows: vec![Row { labels: Vec::new(), value }] }
    }
}
