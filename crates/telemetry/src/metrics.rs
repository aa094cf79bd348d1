//! Metrics: every worker counts in cells of its own, whoever asks adds them up.
//!
//! A cell has one writer, so counting is a load and a store; a scrape reads the cells while they are
//! written and takes no lock that counting would wait for.

mod cells;
mod expose;
mod gauges;
mod named;
mod process;
mod tally;

pub use cells::Gauge;
pub(crate) use cells::{Family, Labels, Local, Registry, Sample, method};
pub(crate) use expose::render;
pub(crate) use gauges::Reading;
pub use gauges::{Figure, Gauges, Row};
pub use process::{Cgroup, Process};
pub(crate) use tally::{OTHER, READABLE};
pub use tally::{Operation, Subject};
