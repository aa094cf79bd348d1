//! What others set: the health of endpoints, reloads. Seldom written, so behind a lock.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Clone, Debug, Default)]
pub struct Gauges(Arc<Mutex<Reading>>);

/// What the cache holds at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheReading {
    pub bytes: u64,
    pub entries: u64,
    /// Since the start.
    pub evicted: u64,
}

/// Asked whenever somebody reads the metrics.
#[derive(Clone)]
struct CacheReader(Arc<dyn Fn() -> CacheReading + Send + Sync>);

impl std::fmt::Debug for CacheReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CacheReader")
    }
}

/// One metric of all upstreams, or of all their endpoints, at a moment.
#[derive(Clone, Debug)]
pub struct UpstreamFamily {
    /// Without the `_total` of a counter.
    pub name: &'static str,
    pub help: &'static str,
    pub counter: bool,
    pub rows: Vec<UpstreamRow>,
}

#[derive(Clone, Debug)]
pub struct UpstreamRow {
    pub upstream: Arc<str>,
    pub endpoint: Option<Arc<str>>,
    pub value: u64,
}

/// Asked whenever somebody reads the metrics: who carries calls keeps the numbers for itself.
#[derive(Clone)]
struct UpstreamReader(Arc<dyn Fn() -> Vec<UpstreamFamily> + Send + Sync>);

impl std::fmt::Debug for UpstreamReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UpstreamReader")
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Reading {
    pub(crate) healthy: BTreeMap<(Arc<str>, Arc<str>), bool>,
    pub(crate) reloads_good: u64,
    pub(crate) reloads_bad: u64,
    pub(crate) last_reload_good: bool,
    pub(crate) revision: String,
    cache: Option<CacheReader>,
    upstreams: Option<UpstreamReader>,
}

impl Reading {
    pub(crate) fn upstreams(&self) -> Vec<UpstreamFamily> {
        self.upstreams.as_ref().map_or_else(Vec::new, |reader| reader.0())
    }

    pub(crate) fn cache(&self) -> CacheReading {
        self.cache.as_ref().map_or_else(CacheReading::default, |reader| reader.0())
    }
}

impl Gauges {
    /// Where to ask how upstreams are.
    pub fn read_upstreams(&self, reader: impl Fn() -> Vec<UpstreamFamily> + Send + Sync + 'static) {
        self.locked().upstreams = Some(UpstreamReader(Arc::new(reader)));
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

    /// How the cache is read.
    pub fn cache(&self, read: impl Fn() -> CacheReading + Send + Sync + 'static) {
        self.locked().cache = Some(CacheReader(Arc::new(read)));
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
