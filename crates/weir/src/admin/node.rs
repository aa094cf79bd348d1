//! The node as a process: whether it is well, what it uses.

use std::collections::BTreeMap;
use std::time::SystemTime;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::answer::{Answer, Asked, Problem};

/// Whether the node takes calls, and on which document.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// It takes calls.
    pub ready: bool,
    pub version: String,
    /// The document in force: 12 hex digits of its SHA-256.
    pub revision: String,
    /// The document's file; `-` for standard input.
    pub document: String,
    pub uptime_seconds: f64,
    pub listeners: Vec<Listener>,
}

/// Where calls come in.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Listener {
    pub name: String,
    /// As bound: its port is never 0.
    pub address: String,
    pub tls: bool,
    /// Connections that are open.
    pub connections: i64,
}

/// What the process uses, and what its cgroup lets it use.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Resources {
    /// Calls under way.
    pub active_calls: i64,
    /// How busy each worker is, from 0 to 1.
    pub workers: Vec<f64>,
    /// Absent where there is no `/proc`.
    pub process: Option<Process>,
    /// Absent where there is no cgroup of version 2.
    pub cgroup: Option<Cgroup>,
    pub cache: Cache,
}

/// What stored answers take, and for whom.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Cache {
    pub memory_bytes: u64,
    /// Of all files. Absent where the document wants no disk.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub disk_bytes: Option<u64>,
    /// Every api of which there are answers, what takes most first; beyond 249 they are one, `other`.
    pub apis: Vec<Share>,
    /// Every consumer for whom alone there are answers, in the same way. What is kept for all is in `apis` alone.
    pub consumers: Vec<Share>,
}

/// What the answers of one api, or for one consumer, take.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Share {
    pub name: String,
    pub memory_bytes: u64,
    /// Of what is still found there: what was replaced or purged is nobody's, until its file goes.
    pub disk_bytes: u64,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Process {
    pub resident_bytes: u64,
    pub cpu_seconds: f64,
    pub open_fds: u64,
    /// Absent without a limit.
    pub max_fds: Option<u64>,
    pub threads: u64,
}

/// Limits are absent where there are none.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Cgroup {
    pub memory_bytes: Option<u64>,
    pub memory_max_bytes: Option<u64>,
    pub cpu_seconds: Option<f64>,
    /// In cores.
    pub cpu_max: Option<f64>,
    /// How often it was held up for having used its share, and for how long.
    pub throttled_periods: Option<u64>,
    pub throttled_seconds: Option<f64>,
}

pub fn health(asked: &Asked<'_>) -> Result<Answer, Problem> {
    let observer = &asked.running.observer;
    let open: BTreeMap<_, _> = observer.connections();
    let health = asked.running.with(|node| {
        let snapshot = node.snapshot();
        let listeners =
            node.addresses().into_iter().zip(&snapshot.listeners).map(|((name, address), listener)| Listener {
                address: match address {
                    config::Address::Ip(address) => address.to_string(),
                    config::Address::Unix(path) => format!("unix:{}", path.display()),
                },
                tls: listener.tls.is_some(),
                connections: open.get(&name).copied().unwrap_or_default(),
                name: name.to_string(),
            });
        Health {
            ready: observer.is_ready(),
            version: env!("CARGO_PKG_VERSION").into(),
            revision: snapshot.revision.hash.clone(),
            document: snapshot.revision.source.clone(),
            uptime_seconds: SystemTime::now().duration_since(observer.started()).unwrap_or_default().as_secs_f64(),
            listeners: listeners.collect(),
        }
    });
    Ok(Answer::json(&health.ok_or_else(Problem::stopping)?))
}

pub fn resources(asked: &Asked<'_>) -> Result<Answer, Problem> {
    let observer = &asked.running.observer;
    let node = asked.running.with(|node| (node.loads(), node.cache_shares()));
    let (loads, shares) = node.unwrap_or_default();
    let share = |share| {
        let proxy::CacheShare { name, memory, disk } = share;
        Share { name, memory_bytes: memory, disk_bytes: disk }
    };
    let proxy::CacheShares { memory, disk, apis, consumers } = shares;
    let cache = Cache {
        memory_bytes: memory,
        disk_bytes: disk,
        apis: apis.into_iter().map(share).collect(),
        consumers: consumers.into_iter().map(share).collect(),
    };
    let process = observer.process().map(|process| {
        let telemetry::Process { resident_bytes, cpu_seconds, open_fds, max_fds, threads, start_seconds: _ } = process;
        Process { resident_bytes, cpu_seconds, open_fds, max_fds, threads }
    });
    let cgroup = observer.cgroup().map(|cgroup| {
        let telemetry::Cgroup {
            memory_bytes,
            memory_max_bytes,
            cpu_seconds,
            cpu_max,
            throttled_periods,
            throttled_seconds,
        } = cgroup;
        Cgroup { memory_bytes, memory_max_bytes, cpu_seconds, cpu_max, throttled_periods, throttled_seconds }
    });
    Ok(Answer::json(&Resources {
        active_calls: observer.active(),
        workers: loads.into_iter().map(|thousandths| f64::from(thousandths) / 1e3).collect(),
        process,
        cgroup,
        cache,
    }))
}
