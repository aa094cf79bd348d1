//! Series and their cells: one shard a worker, one table a shard, one guard of cardinality for all.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use awareness::{Cached, Exchange, Histogram, Stamp, StepEnd};
use foldhash::HashMap;

use super::named::Named;
use super::tally::{Operation, Subject, Subjects, Tally};

/// What is counted by workers. Their names lack the `_total` that exposition adds to a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Family {
    Requests,
    RequestDuration,
    RequestBytes,
    ResponseBytes,
    Retries,
    PolicyRefusals,
    Cache,
    Attempts,
    AttemptSegments,
}

pub(crate) type Labels = Vec<(&'static str, String)>;

/// The cells of one series: one for a counter; the buckets and the sum in nanoseconds for a histogram.
#[derive(Clone, Debug)]
pub(crate) struct Cells(Arc<[AtomicU64]>);

/// All workers' cells of one series, added up.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Sample {
    Count(u64),
    Histogram(Histogram),
}

/// All shards, and what they may hold.
#[derive(Debug)]
pub(crate) struct Registry {
    shards: Vec<Arc<Shard>>,
    pub(crate) max_series: AtomicUsize,
    families: Mutex<HashMap<Family, Known>>,
    /// Set once a family is full, for workers that forgot what was folded to ask nobody.
    full: [AtomicBool; Family::ALL.len()],
    subjects: Subjects,
}

#[derive(Debug, Default)]
struct Known {
    series: HashSet<Labels>,
    folded: u64,
}

/// One worker's series. The lock is taken when a series is new, and by whoever reads.
#[derive(Debug, Default)]
struct Shard {
    series: Mutex<Vec<(Family, Labels, Cells)>>,
    tallies: Mutex<Vec<(Subject, Tally)>>,
    active: Arc<AtomicI64>,
    connections: Mutex<BTreeMap<Arc<str>, Arc<AtomicI64>>>,
}

/// A number that goes up and down on one worker.
#[derive(Clone, Debug)]
pub struct Gauge(Arc<AtomicI64>);

/// A worker's way to its cells.
pub(crate) struct Local {
    registry: Arc<Registry>,
    shard: Arc<Shard>,
    /// By API, by route.
    routes: Named<Named<RouteCells>>,
    upstreams: Named<UpstreamCells>,
    consumers: Named<Tally>,
    /// The name of what has none.
    nameless: Arc<str>,
}

struct RouteCells {
    tally: Tally,
    /// Numbers of the route's operations, by method.
    operations: Vec<(&'static str, u32)>,
    duration: Cells,
    bytes_in: Cells,
    bytes_out: Cells,
    retries: Cells,
    /// By method and status; a handful, so a scan is as quick as a hash.
    requests: Vec<((&'static str, u16), Cells)>,
    refusals: Vec<(&'static str, Cells)>,
    cached: Vec<(&'static str, Cells)>,
}

#[derive(Default)]
struct UpstreamCells {
    /// By the stamp that ends them, of answers without and with a first token of their own.
    segments: [[Option<Cells>; Stamp::COUNT]; 2],
    endpoints: Named<Vec<(&'static str, Cells)>>,
}

// === impl Family ===

impl Family {
    pub(crate) const ALL: [Family; 9] = [
        Family::Requests,
        Family::RequestDuration,
        Family::RequestBytes,
        Family::ResponseBytes,
        Family::Retries,
        Family::PolicyRefusals,
        Family::Cache,
        Family::Attempts,
        Family::AttemptSegments,
    ];

    /// Name, unit as UCUM has it, what it says.
    pub(crate) fn describe(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Family::Requests => ("weir_requests", "{request}", "Calls that were finished"),
            Family::RequestDuration => ("weir_request_duration_seconds", "s", "From a call's head to its last byte"),
            Family::RequestBytes => ("weir_request_bytes", "By", "Bytes of request bodies"),
            Family::ResponseBytes => ("weir_response_bytes", "By", "Bytes of response bodies"),
            Family::Retries => ("weir_retries", "{attempt}", "Attempts after a call's first"),
            Family::PolicyRefusals => ("weir_policy_refusals", "{request}", "Calls a policy refused"),
            Family::Cache => ("weir_cache_requests", "{request}", "Calls by what the cache had to do with them"),
            Family::Attempts => ("weir_attempts", "{attempt}", "Attempts at endpoints"),
            Family::AttemptSegments => ("weir_attempt_segment_seconds", "s", "Segments of attempts' timelines"),
        }
    }

    pub(crate) fn is_histogram(self) -> bool {
        matches!(self, Family::RequestDuration | Family::AttemptSegments)
    }
}

// === impl Cells ===

impl Cells {
    fn new(family: Family) -> Cells {
        let cells = if family.is_histogram() { Histogram::BUCKETS + 1 } else { 1 };
        Cells((0..cells).map(|_| AtomicU64::new(0)).collect())
    }

    /// Only the worker that owns the cells may call this: two writers would lose counts.
    fn add_at(&self, cell: usize, more: u64) {
        let cell = &self.0[cell];
        cell.store(cell.load(Relaxed).wrapping_add(more), Relaxed);
    }

    pub(crate) fn add(&self, more: u64) {
        self.add_at(0, more);
    }

    pub(crate) fn observe(&self, length: Duration) {
        self.add_at(Histogram::bucket(length), 1);
        self.add_at(Histogram::BUCKETS, length.as_nanos() as u64);
    }

    fn sample(&self, family: Family) -> Sample {
        if !family.is_histogram() {
            return Sample::Count(self.0[0].load(Relaxed));
        }
        let mut histogram = Histogram::default();
        for (bucket, cell) in histogram.buckets.iter_mut().zip(self.0.iter()) {
            *bucket = cell.load(Relaxed);
        }
        histogram.sum_nanos = self.0[Histogram::BUCKETS].load(Relaxed);
        Sample::Histogram(histogram)
    }
}

// === impl Sample ===

impl Sample {
    fn merge(&mut self, other: &Sample) {
        match (self, other) {
            (Sample::Count(mine), Sample::Count(theirs)) => *mine += theirs,
            (Sample::Histogram(mine), Sample::Histogram(theirs)) => mine.merge(theirs),
            (Sample::Count(_), Sample::Histogram(_)) | (Sample::Histogram(_), Sample::Count(_)) => {}
        }
    }
}

// === impl Registry ===

impl Registry {
    pub(crate) fn new(workers: usize, max_series: usize) -> Registry {
        Registry {
            shards: (0..workers).map(|_| Arc::default()).collect(),
            max_series: AtomicUsize::new(max_series),
            families: Mutex::default(),
            full: Default::default(),
            subjects: Subjects::default(),
        }
    }

    /// The labels under which a new series is counted: its own, or `other` when the family is full.
    fn admit(&self, family: Family, labels: Labels) -> Labels {
        let mut families = locked(&self.families);
        let known = families.entry(family).or_default();
        if known.series.contains(&labels) {
            return labels;
        }
        if known.series.len() < self.max_series.load(Relaxed) {
            known.series.insert(labels.clone());
            return labels;
        }
        known.folded += 1;
        self.full[family as usize].store(true, Relaxed);
        other(&labels)
    }

    /// Every series with all workers' counts, in a steady order.
    pub(crate) fn samples(&self) -> BTreeMap<Family, BTreeMap<Labels, Sample>> {
        let mut all = BTreeMap::<Family, BTreeMap<Labels, Sample>>::new();
        for shard in &self.shards {
            // The table is copied so that a worker with a new series waits for a copy, not for the sums.
            let series = locked(&shard.series).clone();
            for (family, labels, cells) in series {
                let sample = cells.sample(family);
                all.entry(family).or_default().entry(labels).and_modify(|sum| sum.merge(&sample)).or_insert(sample);
            }
        }
        all
    }

    /// The histograms of one family, all workers' together.
    pub(crate) fn histograms(&self, wanted: Family) -> BTreeMap<Labels, Histogram> {
        let mut all = BTreeMap::<Labels, Histogram>::new();
        for shard in &self.shards {
            let series: Vec<_> = locked(&shard.series).iter().filter(|(it, ..)| *it == wanted).cloned().collect();
            for (family, labels, cells) in series {
                if let Sample::Histogram(histogram) = cells.sample(family) {
                    all.entry(labels).or_default().merge(&histogram);
                }
            }
        }
        all
    }

    /// Of all workers; the same subject may come several times.
    pub(crate) fn tallies(&self) -> Vec<(Subject, Tally)> {
        self.shards.iter().flat_map(|shard| locked(&shard.tallies).clone()).collect()
    }

    pub(crate) fn operations(&self) -> Vec<Operation> {
        self.subjects.operations()
    }

    pub(crate) fn folded(&self) -> Vec<(&'static str, u64)> {
        let families = locked(&self.families);
        Family::ALL.iter().map(|f| (f.describe().0, families.get(f).map_or(0, |known| known.folded))).collect()
    }

    pub(crate) fn active(&self) -> i64 {
        self.shards.iter().map(|shard| shard.active.load(Relaxed)).sum()
    }

    pub(crate) fn connections(&self) -> BTreeMap<Arc<str>, i64> {
        let mut all = BTreeMap::new();
        for shard in &self.shards {
            for (listener, open) in &*locked(&shard.connections) {
                *all.entry(listener.clone()).or_default() += open.load(Relaxed);
            }
        }
        all
    }
}

fn other(labels: &Labels) -> Labels {
    labels.iter().map(|(name, _)| (*name, "other".to_owned())).collect()
}

/// A panic while holding one of these locks leaves nothing half done that counting could not bear.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Gauge ===

impl Gauge {
    pub fn up(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub fn down(&self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

// === impl Local ===

impl Local {
    pub(crate) fn new(registry: Arc<Registry>, worker: usize) -> Local {
        let shard = registry.shards[worker].clone();
        Local {
            registry,
            shard,
            routes: Named::default(),
            upstreams: Named::default(),
            consumers: Named::default(),
            nameless: Arc::from(""),
        }
    }

    pub(crate) fn active(&self) -> Gauge {
        Gauge(self.shard.active.clone())
    }

    pub(crate) fn connections(&self, listener: &Arc<str>) -> Gauge {
        Gauge(locked(&self.shard.connections).entry(listener.clone()).or_default().clone())
    }

    pub(crate) fn count(&mut self, exchange: &Exchange) {
        let Local { registry, shard, routes, upstreams, consumers, nameless } = self;
        let tables = Tables { registry, shard };
        let api = exchange.api.as_ref().unwrap_or(nameless);
        let name = exchange.route.as_ref().unwrap_or(nameless);
        let route = routes.row(api, Named::default).row(name, || RouteCells::new(&tables, api, name));
        let operation = route.count(&tables, api, name, exchange);
        if let Some(consumer) = &exchange.consumer {
            // Names may come from tokens, without end; those that are folded are forgotten again.
            if consumers.len() > 4 * Subjects::MOST {
                consumers.clear();
            }
            let tally = consumers.row(consumer, || tables.tally(Subject::Consumer(consumer.clone())));
            tally.count(exchange, operation);
        }
        if exchange.attempts.is_empty() {
            return;
        }
        let name = exchange.upstream.as_ref().unwrap_or(nameless);
        upstreams.row(name, UpstreamCells::default).count(&tables, name, exchange);
    }
}

/// Where new series come from.
struct Tables<'a> {
    registry: &'a Registry,
    shard: &'a Shard,
}

impl Tables<'_> {
    fn series(&self, family: Family, labels: &[(&'static str, &str)]) -> Cells {
        let labels: Labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let labels = self.registry.admit(family, labels);
        let mut series = locked(&self.shard.series);
        // Series that are folded share one row.
        if let Some((_, _, cells)) = series.iter().find(|(f, l, _)| *f == family && *l == labels) {
            return cells.clone();
        }
        let cells = Cells::new(family);
        series.push((family, labels, cells.clone()));
        cells
    }

    fn tally(&self, subject: Subject) -> Tally {
        let subject = self.registry.subjects.admit(subject, self.registry.max_series.load(Relaxed));
        let mut tallies = locked(&self.shard.tallies);
        if let Some((_, tally)) = tallies.iter().find(|(it, _)| *it == subject) {
            return tally.clone();
        }
        let tally = Tally::new();
        tallies.push((subject, tally.clone()));
        tally
    }

    /// The cells of all that is folded, for a worker whose own map has grown too long to be kept.
    fn is_full(&self, family: Family, kept: usize) -> bool {
        kept > 4 * self.registry.max_series.load(Relaxed).max(1) && self.registry.full[family as usize].load(Relaxed)
    }
}

// === impl RouteCells ===

impl RouteCells {
    fn new(tables: &Tables<'_>, api: &str, route: &str) -> RouteCells {
        let labels = [("api", api), ("route", route)];
        RouteCells {
            tally: tables.tally(Subject::Route(api.into(), route.into())),
            operations: Vec::new(),
            duration: tables.series(Family::RequestDuration, &labels),
            bytes_in: tables.series(Family::RequestBytes, &labels),
            bytes_out: tables.series(Family::ResponseBytes, &labels),
            retries: tables.series(Family::Retries, &labels),
            requests: Vec::new(),
            refusals: Vec::new(),
            cached: Vec::new(),
        }
    }

    /// Returns the number of the call's operation.
    fn count(&mut self, tables: &Tables<'_>, api: &str, route: &str, exchange: &Exchange) -> u32 {
        self.duration.observe(exchange.duration());
        self.bytes_in.add(exchange.bytes_in);
        self.bytes_out.add(exchange.bytes_out);
        self.retries.add(exchange.retries());

        let key = (method(&exchange.method), exchange.status.map_or(0, |status| status.as_u16()));
        match self.requests.iter().find(|(known, _)| *known == key) {
            Some((_, cells)) => cells.add(1),
            None => {
                let mut code = itoa::Buffer::new();
                let code = if key.1 == 0 { "none" } else { code.format(key.1) };
                let labels = [("api", api), ("route", route), ("method", key.0), ("code", code)];
                let cells = tables.series(Family::Requests, &labels);
                cells.add(1);
                self.requests.push((key, cells));
            }
        }

        let operation = match self.operations.iter().find(|(method, _)| *method == key.0) {
            Some((_, number)) => *number,
            None => {
                let number = tables.registry.subjects.operation(api, route, key.0);
                self.operations.push((key.0, number));
                number
            }
        };
        self.tally.count(exchange, operation);

        for step in exchange.steps.iter().filter(|step| step.end == StepEnd::Refused) {
            if let Some((_, cells)) = self.refusals.iter().find(|(policy, _)| *policy == step.policy) {
                cells.add(1);
                continue;
            }
            let labels = [("api", api), ("route", route), ("policy", step.policy)];
            let cells = tables.series(Family::PolicyRefusals, &labels);
            cells.add(1);
            self.refusals.push((step.policy, cells));
        }
        if let Some(cached) = exchange.cache.map(Cached::as_str) {
            match self.cached.iter().find(|(result, _)| *result == cached) {
                Some((_, cells)) => cells.add(1),
                None => {
                    let cells = tables.series(Family::Cache, &[("api", api), ("route", route), ("result", cached)]);
                    cells.add(1);
                    self.cached.push((cached, cells));
                }
            }
        }
        operation
    }
}

/// The methods of the standards; whatever else a client may invent is one value.
pub(crate) fn method(method: &base::Method) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("_OTHER")
}

// === impl UpstreamCells ===

impl UpstreamCells {
    fn count(&mut self, tables: &Tables<'_>, upstream: &str, exchange: &Exchange) {
        for attempt in &exchange.attempts {
            let streamed = attempt.timeline.at(Stamp::FirstToken).is_some();
            let known = &mut self.segments[usize::from(streamed)];
            attempt.timeline.gaps(|stamp, _, length| {
                let cells = known[stamp as usize].get_or_insert_with(|| {
                    let name = stamp.segment(streamed).0;
                    tables.series(Family::AttemptSegments, &[("upstream", upstream), ("segment", name)])
                });
                cells.observe(length);
            });

            // Endpoints come from name resolution and go again, so this map alone can grow without end.
            if tables.is_full(Family::Attempts, self.endpoints.len()) {
                self.endpoints.clear();
            }
            let outcome = attempt.outcome.as_str();
            let outcomes = self.endpoints.row(&attempt.endpoint, Vec::new);
            match outcomes.iter().find(|(known, _)| *known == outcome) {
                Some((_, cells)) => cells.add(1),
                None => {
                    let labels = [("upstream", upstream), ("endpoint", &*attempt.endpoint), ("outcome", outcome)];
                    let cells = tables.series(Family::Attempts, &labels);
                    cells.add(1);
                    outcomes.push((outcome, cells));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::exchange;

    #[test]
    fn two_workers_cells_are_one_series() {
        let registry = Arc::new(Registry::new(2, 100));
        for worker in 0..2 {
            let mut local = Local::new(registry.clone(), worker);
            local.count(&exchange("/a"));
            local.count(&exchange("/b"));
        }
        let samples = registry.samples();
        assert_eq!(samples[&Family::Requests].values().collect::<Vec<_>>(), [&Sample::Count(4)]);
        let Some(Sample::Histogram(duration)) = samples[&Family::RequestDuration].values().next() else { panic!() };
        assert_eq!((duration.count(), duration.sum_nanos), (4, 4 * 12_000_000));
    }

    #[test]
    fn beyond_the_limit_series_are_folded_and_counted() {
        let registry = Arc::new(Registry::new(1, 3));
        let mut local = Local::new(registry.clone(), 0);
        for endpoint in 0..100 {
            let mut exchange = exchange("/");
            exchange.attempts[0].endpoint = format!("10.0.0.{endpoint}:80").into();
            local.count(&exchange);
        }
        let samples = &registry.samples()[&Family::Attempts];
        assert_eq!(samples.len(), 4);
        let other = samples.iter().find(|(labels, _)| labels[1].1 == "other").map(|(_, sample)| sample);
        assert_eq!(other, Some(&Sample::Count(97)));
        let folded = registry.folded().into_iter().find(|(name, _)| *name == "weir_attempts").map(|(_, n)| n);
        assert_eq!(folded, Some(97));
        assert!(local.upstreams.row(&"backend".into(), UpstreamCells::default).endpoints.len() <= 14);
    }
}
