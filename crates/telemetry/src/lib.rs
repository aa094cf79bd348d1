//! Telemetry: what workers saw, told to whoever asks, without a worker ever waiting for it.
//!
//! [`Recorder`] is the worker's end: it counts in cells of its own and fills buffers of its own. All else,
//! from adding up to sockets and files, happens on two threads of this crate: one runtime for the
//! metrics endpoint and OTLP, one writer for the access log, since files block.
#![forbid(unsafe_code)]

mod access_log;
mod endpoint;
mod flows;
mod metrics;
mod observer;
mod otlp;
mod recorder;
mod settings;
mod start;
#[cfg(test)]
mod testing;

pub use flows::{Segment, Series};
pub use metrics::{Cgroup, Figure, Gauge, Gauges, Operation, Process, Row, Subject};
pub use observer::Observer;
pub use recorder::Recorder;
pub use settings::{AccessLog, Otlp, OtlpProtocol, Settings, Tls};
pub(crate) use start::Shared;
pub use start::{StartError, Telemetry};
