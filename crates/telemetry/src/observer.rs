//! Telemetry for whoever looks on: reads, and never keeps a worker waiting.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use crate::metrics::render;
use crate::{Cgroup, Process, Segment, Series, Shared};

/// Outlives the node it looks at; then it shows what was last.
#[derive(Clone)]
pub struct Observer(pub(crate) Arc<Shared>);

impl Observer {
    /// Every api, route and consumer that was called, with its three Vs.
    pub fn series(&self) -> Vec<Series> {
        self.0.series()
    }

    /// How long what took at each upstream, each's slowest first.
    pub fn segments(&self) -> Vec<Segment> {
        self.0.segments()
    }

    /// Whether the node takes calls.
    pub fn is_ready(&self) -> bool {
        self.0.ready.load(Relaxed)
    }

    pub fn started(&self) -> SystemTime {
        self.0.started
    }

    /// Calls under way.
    pub fn active(&self) -> i64 {
        self.0.registry.active()
    }

    /// Connections from clients, by listener.
    pub fn connections(&self) -> BTreeMap<Arc<str>, i64> {
        self.0.registry.connections()
    }

    /// Whether an endpoint is well, by upstream and URL.
    pub fn endpoints(&self) -> BTreeMap<(Arc<str>, Arc<str>), bool> {
        self.0.gauges.read().healthy
    }

    pub fn process(&self) -> Option<Process> {
        Process::read()
    }

    pub fn cgroup(&self) -> Option<Cgroup> {
        Cgroup::read()
    }

    /// The metrics as OpenMetrics text.
    pub fn render(&self) -> String {
        render(&self.0)
    }
}
