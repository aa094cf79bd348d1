//! A worker's end of telemetry.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use awareness::Exchange;
use base::Time;
use tokio::sync::mpsc;

use crate::Shared;
use crate::access_log::Buffer;
use crate::metrics::{Gauge, Local};

/// One a worker. Dropping it hands over what it still holds.
pub struct Recorder {
    local: Local,
    log: Buffer,
    spans: Vec<Exchange>,
    spans_since: Time,
    exporter: mpsc::Sender<Vec<Exchange>>,
    shared: Arc<Shared>,
}

impl Recorder {
    pub(crate) fn new(
        local: Local,
        log: Buffer,
        exporter: mpsc::Sender<Vec<Exchange>>,
        shared: Arc<Shared>,
    ) -> Recorder {
        Recorder { local, log, spans: Vec::new(), spans_since: Time::default(), exporter, shared }
    }

    /// Counts a finished call, logs it, and passes it to the exporter if it is sampled; gives it back if it is not.
    pub fn record(&mut self, exchange: Box<Exchange>) -> Option<Box<Exchange>> {
        self.local.count(&exchange);
        if self.shared.log_on.load(Relaxed) {
            self.log.add(&exchange, &self.shared);
        }
        if !exchange.trace.sampled || !self.shared.traces_on.load(Relaxed) {
            return Some(exchange);
        }
        if self.spans.is_empty() {
            self.spans_since = exchange.finished;
        }
        self.spans.push(*exchange);
        if self.spans.len() >= SPANS {
            self.flush_spans();
        }
        None
    }

    /// Hands over what has become old. For the worker's timer, every 200 ms or so.
    pub fn tick(&mut self, now: Time) {
        self.log.tick(now, &self.shared);
        if !self.spans.is_empty() && (now - self.spans_since).as_millis() >= 200 {
            self.flush_spans();
        }
    }

    /// The calls under way on this worker.
    pub fn active(&self) -> Gauge {
        self.local.active()
    }

    /// The connections of a listener on this worker.
    pub fn connections(&self, listener: &Arc<str>) -> Gauge {
        self.local.connections(listener)
    }

    fn flush_spans(&mut self) {
        let spans = std::mem::take(&mut self.spans);
        let count = spans.len() as u64;
        if count > 0 && self.exporter.try_send(spans).is_err() {
            self.shared.otlp_dropped.fetch_add(count, Relaxed);
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.log.flush(&self.shared);
        self.flush_spans();
    }
}

/// Calls handed to the exporter at a time: waking it costs a system call.
const SPANS: usize = 64;
