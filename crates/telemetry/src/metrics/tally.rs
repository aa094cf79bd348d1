//! What is counted of a route or a consumer for its three Vs: a worker's own cells, about 1 KiB a series.

use std::array;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use awareness::flow::{GRACE, Sizes, Totals, Window};
use awareness::{Exchange, Histogram};

use super::cells::locked;

/// Whose calls a tally counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// All routes of it together; nobody counts it, it is added up.
    Api(Arc<str>),
    Route(Arc<str>, Arc<str>),
    Consumer(Arc<str>),
}

/// What a call does: which method on which route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    pub api: Arc<str>,
    pub route: Arc<str>,
    pub method: &'static str,
}

/// One worker's cells of one series. Only that worker may count.
#[derive(Clone, Debug)]
pub(crate) struct Tally(Arc<[AtomicU64; LENGTH]>);

/// Which series there are, and the numbers of operations: one for all workers.
#[derive(Debug, Default)]
pub(crate) struct Subjects {
    routes: Mutex<HashSet<Subject>>,
    consumers: Mutex<HashSet<Subject>>,
    operations: Mutex<Vec<Operation>>,
}

// Where what is in a tally.
const ERRORS: usize = 0;
const BYTES_IN: usize = 1;
const BYTES_OUT: usize = 2;
const CPU: usize = 3;
const HELD: usize = 4;
const LATENCY_SQUARES: usize = 5;
const SIZE_SQUARES: usize = 6;
const LATENCY_SUM: usize = 7;
const LATENCY: usize = 8;
const SIZES: usize = LATENCY + Histogram::BUCKETS;
const OPERATIONS: usize = SIZES + Sizes::BUCKETS;
const ARRIVALS: usize = OPERATIONS + OPERATIONS_KEPT;
const LENGTH: usize = ARRIVALS + WINDOWS;

/// The last of them takes all that found no place.
const OPERATIONS_KEPT: usize = 25;
/// The number of no operation in particular.
pub(crate) const OTHER: u32 = 0;
/// Windows of arrivals kept until they are read: 8.6 seconds.
const WINDOWS: usize = 64;
/// A cell of an operation: its number above, its calls below.
const COUNT_BITS: u32 = 40;
/// A cell of a window: its number above, its calls below.
const ARRIVAL_BITS: u32 = 24;

// === impl Tally ===

impl Tally {
    pub(crate) fn new() -> Tally {
        Tally(Arc::new(array::from_fn(|_| AtomicU64::new(0))))
    }

    pub(crate) fn count(&self, exchange: &Exchange, operation: u32) {
        let length = exchange.duration();
        let size = exchange.bytes_in + exchange.bytes_out;
        let millis = length.as_nanos() as f64 / 1e6;
        self.add(LATENCY + Histogram::bucket(length), 1);
        self.add(LATENCY_SUM, length.as_nanos() as u64);
        self.add_float(LATENCY_SQUARES, millis * millis);
        self.add(BYTES_IN, exchange.bytes_in);
        self.add(BYTES_OUT, exchange.bytes_out);
        self.add(SIZES + Sizes::bucket(size), 1);
        self.add_float(SIZE_SQUARES, size as f64 * size as f64);
        if exchange.is_error() {
            self.add(ERRORS, 1);
        }
        if !exchange.cpu.is_zero() {
            self.add(CPU, exchange.cpu.as_nanos() as u64);
        }
        if exchange.held > 0 {
            self.add(HELD, exchange.held);
        }
        self.operation(operation);
        self.arrival(Window::of_call(exchange.started, exchange.finished));
    }

    fn operation(&self, operation: u32) {
        let cells = &self.0[OPERATIONS..ARRIVALS];
        let own = cells[..OPERATIONS_KEPT - 1].iter().find(|cell| {
            let known = cell.load(Relaxed);
            known == 0 || (known >> COUNT_BITS) as u32 == operation
        });
        let cell = own.unwrap_or(&cells[OPERATIONS_KEPT - 1]);
        let before = match cell.load(Relaxed) {
            0 if own.is_some() => u64::from(operation) << COUNT_BITS,
            count => count,
        };
        cell.store(before + 1, Relaxed);
    }

    fn arrival(&self, Window(window): Window) {
        let cell = &self.0[ARRIVALS + window as usize % WINDOWS];
        let before = cell.load(Relaxed);
        let known = before >> ARRIVAL_BITS;
        if known == window {
            cell.store(before + 1, Relaxed);
        } else if known < window {
            cell.store((window << ARRIVAL_BITS) + 1, Relaxed);
        }
    }

    fn add(&self, cell: usize, more: u64) {
        let cell = &self.0[cell];
        cell.store(cell.load(Relaxed).wrapping_add(more), Relaxed);
    }

    fn add_float(&self, cell: usize, more: f64) {
        let cell = &self.0[cell];
        cell.store((f64::from_bits(cell.load(Relaxed)) + more).to_bits(), Relaxed);
    }

    pub(crate) fn totals(&self) -> Totals {
        let cell = |at: usize| self.0[at].load(Relaxed);
        let latency = Histogram { buckets: array::from_fn(|at| cell(LATENCY + at)), sum_nanos: cell(LATENCY_SUM) };
        let operations = (OPERATIONS..ARRIVALS).map(cell).filter(|packed| *packed != 0);
        let operations = operations.map(|packed| ((packed >> COUNT_BITS) as u32, packed & ((1 << COUNT_BITS) - 1)));
        Totals {
            calls: latency.count(),
            errors: cell(ERRORS),
            bytes_in: cell(BYTES_IN),
            bytes_out: cell(BYTES_OUT),
            cpu_nanos: cell(CPU),
            held: cell(HELD),
            latency,
            latency_squares: f64::from_bits(cell(LATENCY_SQUARES)),
            sizes: Sizes {
                buckets: array::from_fn(|at| cell(SIZES + at)),
                squares: f64::from_bits(cell(SIZE_SQUARES)),
            },
            operations: operations.collect(),
        }
    }

    /// Adds the arrivals from a window on to `counts`, one a window.
    pub(crate) fn arrivals(&self, from: Window, counts: &mut [u32]) {
        for cell in &self.0[ARRIVALS..] {
            let packed = cell.load(Relaxed);
            let window = packed >> ARRIVAL_BITS;
            if let Some(count) = window.checked_sub(from.0).and_then(|at| counts.get_mut(at as usize)) {
                *count += (packed & ((1 << ARRIVAL_BITS) - 1)) as u32;
            }
        }
    }
}

/// As many windows as may be read at once: those after that many are being written again.
pub(crate) const READABLE: u64 = WINDOWS as u64 - GRACE - 1;

// === impl Subjects ===

impl Subjects {
    /// The most there may be of a kind.
    pub(crate) const MOST: usize = 512;

    /// The series under which this one is counted: its own, or `other` when there are too many.
    pub(crate) fn admit(&self, subject: Subject, most: usize) -> Subject {
        let known = match subject {
            Subject::Consumer(_) => &self.consumers,
            Subject::Api(_) | Subject::Route(..) => &self.routes,
        };
        let mut known = locked(known);
        if known.contains(&subject) {
            return subject;
        }
        if known.len() < most.min(Subjects::MOST) {
            known.insert(subject.clone());
            return subject;
        }
        let other = || Arc::from("other");
        match subject {
            Subject::Consumer(_) => Subject::Consumer(other()),
            Subject::Api(_) | Subject::Route(..) => Subject::Route(other(), other()),
        }
    }

    /// The number of an operation, from 1 on; [`OTHER`] when there are too many.
    pub(crate) fn operation(&self, api: &str, route: &str, method: &'static str) -> u32 {
        let mut known = locked(&self.operations);
        let same = |it: &Operation| &*it.api == api && &*it.route == route && it.method == method;
        if let Some(at) = known.iter().position(same) {
            return at as u32 + 1;
        }
        if known.len() >= OPERATIONS_MOST {
            return OTHER;
        }
        known.push(Operation { api: api.into(), route: route.into(), method });
        known.len() as u32
    }

    pub(crate) fn operations(&self) -> Vec<Operation> {
        locked(&self.operations).clone()
    }
}

const OPERATIONS_MOST: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::exchange;

    #[test]
    fn a_tally_says_what_it_was_told() {
        let tally = Tally::new();
        for _ in 0..3 {
            tally.count(&exchange("/"), 7);
        }
        tally.count(&exchange("/"), 9);
        let totals = tally.totals();
        assert_eq!((totals.calls, totals.errors, totals.bytes_in, totals.bytes_out), (4, 0, 4, 8));
        assert_eq!(totals.operations, [(7, 3), (9, 1)]);
        assert!((totals.latency_squares - 4.0 * 144.0).abs() < 1e-6);
        let mut counts = [0; 10];
        tally.arrivals(Window(0), &mut counts);
        assert_eq!(counts.iter().sum::<u32>(), 4);
        assert_eq!(size_of::<[AtomicU64; LENGTH]>(), 1048);
    }

    #[test]
    fn operations_without_a_place_are_counted_together() {
        let tally = Tally::new();
        for operation in 1..=40 {
            tally.count(&exchange("/"), operation);
        }
        tally.count(&exchange("/"), 40);
        let totals = tally.totals();
        assert_eq!(totals.operations.len(), OPERATIONS_KEPT);
        assert_eq!(totals.operations.last(), Some(&(OTHER, 17)));
    }

    #[test]
    fn a_window_is_written_again_when_its_turn_comes() {
        let tally = Tally::new();
        tally.arrival(Window(1));
        tally.arrival(Window(1 + WINDOWS as u64));
        tally.arrival(Window(1));
        let mut counts = [0; 2 * WINDOWS];
        tally.arrivals(Window(0), &mut counts);
        assert_eq!((counts[1], counts[1 + WINDOWS]), (0, 1));
    }

    #[test]
    fn subjects_and_operations_are_bounded() {
        let subjects = Subjects::default();
        let consumer = |name: &str| Subject::Consumer(name.into());
        assert_eq!(subjects.admit(consumer("a"), 1), consumer("a"));
        assert_eq!(subjects.admit(consumer("b"), 1), consumer("other"));
        assert_eq!(subjects.admit(consumer("a"), 1), consumer("a"));
        for _ in 0..2 {
            assert_eq!(subjects.operation("shop", "carts", "GET"), 1);
            assert_eq!(subjects.operation("shop", "carts", "PUT"), 2);
        }
        for route in 0..OPERATIONS_MOST {
            subjects.operation("shop", &route.to_string(), "GET");
        }
        assert_eq!(subjects.operation("shop", "one more", "GET"), OTHER);
    }
}
