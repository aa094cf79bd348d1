//! The three Vs of a series of calls: volume (how many, how much), velocity (how fast that changes), variance
//! (how unlike each other they are).
//!
//! Workers count; whoever adds up gives a [`Flow`] the [`Totals`] once a second or so, and asks it for a
//! [`View`]. A flow is of fixed size, about 3 KiB, whatever passes.

mod arrivals;
mod spread;

use std::time::Duration;

use base::Time;

pub use arrivals::{Arrivals, GRACE, LATEST, Window};
pub use spread::{Recent, Sizes, Spread};

use crate::Histogram;
use spread::Faded;

/// All that was counted of a series since the process began.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    pub calls: u64,
    /// Answers of 5xx, and calls that came to no answer or broke off.
    pub errors: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Time on a core, in nanoseconds: measured for some calls and scaled.
    pub cpu_nanos: u64,
    /// Bytes of bodies kept in memory, times the milliseconds their calls took.
    pub held: u64,
    pub latency: Histogram,
    /// Squares of latencies in milliseconds, added up.
    pub latency_squares: f64,
    /// Of bodies, both ways.
    pub sizes: Sizes,
    /// Calls by operation (method and route), each a number that whoever counts gave it.
    pub operations: Vec<(u32, u64)>,
}

/// What is made of a series' totals as time goes by.
#[derive(Clone, Debug)]
pub struct Flow {
    began: Time,
    at: Time,
    last: Totals,
    calls: Rate,
    errors: Rate,
    bytes: Rate,
    cpu: Rate,
    held: Rate,
    arrivals: Arrivals,
    latency: Faded<{ Histogram::BUCKETS }>,
    sizes: Faded<{ Sizes::BUCKETS }>,
    operations: Vec<(u32, f64)>,
}

/// A rate over several time constants, short ones first: [`OVER`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    means: [f64; OVER.len()],
}

/// The three Vs at a moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    pub totals: Totals,
    /// Each per second, over [`OVER`].
    pub calls: [f64; OVER.len()],
    pub errors: [f64; OVER.len()],
    pub bytes: [f64; OVER.len()],
    /// Seconds on a core per second.
    pub cpu: [f64; OVER.len()],
    /// Bytes of bodies kept in memory, at any one moment.
    pub held: [f64; OVER.len()],
    /// How the rates change: calls per second, more each second.
    pub calls_velocity: f64,
    pub errors_velocity: f64,
    pub bytes_velocity: f64,
    /// The busiest second of the last minute over the mean one; `None` of too few calls.
    pub burst: Option<f64>,
    /// Variance over mean of arrivals in short windows: 0 like a clock, 1 as chance has it, more in bursts.
    pub dispersion: Option<f64>,
    /// Bits that tell which operation a call is: 0 if all are the same.
    pub entropy: Option<f64>,
    /// Shares of the commonest operations, largest first.
    pub operations: Vec<(u32, f64)>,
    /// In milliseconds.
    pub latency: Option<Spread>,
    /// Of bodies, in bytes.
    pub sizes: Option<Spread>,
}

/// The time constants of rates.
pub const OVER: [Duration; 3] = [Duration::from_secs(10), Duration::from_secs(60), Duration::from_secs(600)];

// === impl Flow ===

impl Flow {
    /// Of a series that has not been seen; `began` is when counting as a whole did. That a new series was silent
    /// until now is known, and makes its first calls an acceleration.
    pub fn new(began: Time) -> Flow {
        Flow {
            began,
            at: began,
            last: Totals::default(),
            calls: Rate::default(),
            errors: Rate::default(),
            bytes: Rate::default(),
            cpu: Rate::default(),
            held: Rate::default(),
            arrivals: Arrivals::new(began),
            latency: Faded::default(),
            sizes: Faded::default(),
            operations: Vec::new(),
        }
    }

    /// Takes what was counted until now; `arrived` are the arrivals in windows that are over, in their order.
    pub fn update(&mut self, now: Time, totals: Totals, arrived: impl IntoIterator<Item = (Window, u32)>) {
        let dt = (now - self.at).as_secs_f64();
        if dt <= 0.0 {
            return;
        }
        let last = &self.last;
        let more = |new: u64, old: u64| new.saturating_sub(old) as f64;
        let bytes = more(totals.bytes_in, last.bytes_in) + more(totals.bytes_out, last.bytes_out);
        self.calls.add(more(totals.calls, last.calls), dt);
        self.errors.add(more(totals.errors, last.errors), dt);
        self.bytes.add(bytes, dt);
        self.cpu.add(more(totals.cpu_nanos, last.cpu_nanos) / 1e9, dt);
        // Byte-seconds a second are bytes.
        self.held.add(more(totals.held, last.held) / 1e3, dt);

        let keep = (-dt / RECENT.as_secs_f64()).exp();
        let (new, old) = (&totals.latency, &last.latency);
        let sum = more(new.sum_nanos, old.sum_nanos) / 1e6;
        let squares = totals.latency_squares - last.latency_squares;
        self.latency.add(keep, &new.buckets, &old.buckets, sum, squares);
        let (new, old) = (&totals.sizes, &last.sizes);
        self.sizes.add(keep, &new.buckets, &old.buckets, bytes, new.squares - old.squares);
        self.operations.iter_mut().for_each(|(_, weight)| *weight *= keep);
        for (operation, count) in &totals.operations {
            let before = last.operations.iter().find(|(it, _)| it == operation).map_or(0, |(_, count)| *count);
            let new = more(*count, before);
            match self.operations.iter_mut().find(|(it, _)| it == operation) {
                Some((_, weight)) => *weight += new,
                None => self.operations.push((*operation, new)),
            }
        }
        // What has faded is as if it had not been.
        self.operations.retain(|(_, weight)| *weight > 1e-3);

        arrived.into_iter().for_each(|(window, count)| self.arrivals.add(window, count));
        self.arrivals.reach(Window::latest_over(now));
        self.last = totals;
        self.at = now;
    }

    pub fn view(&self) -> View {
        let age = (self.at - self.began).as_secs_f64();
        let all: f64 = self.operations.iter().map(|(_, weight)| weight).sum();
        let share = |weight: f64| weight / all;
        let mut operations: Vec<_> = self.operations.iter().map(|(it, weight)| (*it, share(*weight))).collect();
        operations.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        View {
            totals: self.last.clone(),
            calls: self.calls.means(age),
            errors: self.errors.means(age),
            bytes: self.bytes.means(age),
            cpu: self.cpu.means(age),
            held: self.held.means(age),
            calls_velocity: self.calls.velocity(age),
            errors_velocity: self.errors.velocity(age),
            bytes_velocity: self.bytes.velocity(age),
            burst: self.arrivals.burst(),
            dispersion: self.arrivals.dispersion(),
            entropy: (all > 0.0).then(|| entropy(operations.iter().map(|(_, share)| *share))),
            operations,
            latency: self.latency.latencies(),
            sizes: self.sizes.sizes(),
        }
    }
}

// === impl Totals ===

impl Totals {
    /// What two workers counted of one series, or two series of one api.
    pub fn merge(&mut self, other: &Totals) {
        let Totals { calls, errors, bytes_in, bytes_out, cpu_nanos, held, latency, latency_squares, sizes, operations } =
            other;
        self.calls += calls;
        self.errors += errors;
        self.bytes_in += bytes_in;
        self.bytes_out += bytes_out;
        self.cpu_nanos += cpu_nanos;
        self.held += held;
        self.latency.merge(latency);
        self.latency_squares += latency_squares;
        self.sizes.merge(sizes);
        for (operation, count) in operations {
            match self.operations.iter_mut().find(|(it, _)| it == operation) {
                Some((_, mine)) => *mine += count,
                None => self.operations.push((*operation, *count)),
            }
        }
    }
}

// === impl Rate ===

impl Rate {
    /// Exponentially weighted means of the rate, each piece of time weighted by its length.
    fn add(&mut self, more: f64, dt: f64) {
        for (mean, over) in self.means.iter_mut().zip(OVER) {
            let keep = (-dt / over.as_secs_f64()).exp();
            *mean = *mean * keep + more / dt * (1.0 - keep);
        }
    }

    /// Means over what has been since the beginning: a time constant that is longer than that says nothing of
    /// what was before.
    fn means(&self, age: f64) -> [f64; OVER.len()] {
        let mut means = self.means;
        for (mean, over) in means.iter_mut().zip(OVER) {
            let known = 1.0 - (-age / over.as_secs_f64()).exp();
            *mean = if known > 0.0 { *mean / known } else { 0.0 };
        }
        means
    }

    /// The mean over a time constant lags behind a rate that grows steadily by just that time, so two of them
    /// differ by the growth over the difference.
    fn velocity(&self, age: f64) -> f64 {
        let [short, long, _] = self.means(age);
        let lag = |over: Duration| {
            // Of a mean that is younger than its time constant: the weighted age of what is in it.
            let (tau, gone) = (over.as_secs_f64(), (-age / over.as_secs_f64()).exp());
            tau - age * gone / (1.0 - gone)
        };
        let apart = lag(OVER[1]) - lag(OVER[0]);
        if age > 0.0 && apart > f64::EPSILON { (short - long) / apart } else { 0.0 }
    }
}

/// Of shares that add up to one.
fn entropy(shares: impl Iterator<Item = f64>) -> f64 {
    let bits: f64 = shares.filter(|share| *share > 0.0).map(|share| -share * share.log2()).sum();
    bits.max(0.0)
}

/// Spreads and operations are those of about this long.
pub(crate) const RECENT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
