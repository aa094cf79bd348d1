//! Upstreams: how their endpoints are, where attempts spend their time, and which endpoints get no calls for now.

use awareness::Layer;
use proxy::{CircuitStatus, EndpointStatus, UpstreamStatus};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::answer::{Answer, Asked, Problem};
use super::flows::Spread;

/// All upstreams.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Upstreams {
    pub upstreams: Vec<Upstream>,
}

/// One upstream.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Upstream {
    pub name: String,
    /// Closed where there is none.
    pub breaker: Circuit,
    /// How often the breaker has opened.
    pub breaker_opened: u64,
    /// Tries under way.
    pub in_flight: u32,
    /// Calls that wait for room.
    pub waiting: u32,
    pub connections: u32,
    /// Calls refused because there was no room.
    pub refused_full: u64,
    /// Calls refused because the breaker was open.
    pub refused_open: u64,
    /// Tries made beside a slow one.
    pub hedges: u64,
    /// Those of them that were quicker.
    pub hedges_won: u64,
    pub endpoints: Vec<Endpoint>,
    /// Of attempts in about the last minute, the one that took most time first.
    pub segments: Vec<Segment>,
}

/// One endpoint.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Endpoint {
    pub url: String,
    pub zone: Option<String>,
    pub priority: u32,
    pub weight: u32,
    /// What probes say; true where there are none.
    pub healthy: bool,
    /// Open while it is ejected.
    pub ejection: Circuit,
    /// How often it was ejected.
    pub ejections: u64,
    /// It gets no new calls, by the document or by an operator.
    pub draining: bool,
    /// Tries under way.
    pub in_flight: u32,
    /// Average time to an answer; absent if it was not measured.
    pub latency_millis: Option<f64>,
    pub connections: u32,
}

/// Whether calls are let through.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Circuit {
    pub state: CircuitState,
    /// For how long it stays open yet.
    pub open_seconds: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CircuitState {
    /// They are.
    Closed,
    /// They are not.
    Open,
    /// The next call tries whether all is well.
    OnTrial,
}

/// Which endpoint is meant.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Which {
    /// Its URL, as the document has it.
    pub endpoint: String,
}

/// A part of attempts' timelines.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Segment {
    pub name: String,
    /// Whose time it is: `client`, `gateway`, `network` or `upstream`.
    pub layer: String,
    /// Of the time that attempts took, from 0 to 1.
    pub share: f64,
    /// In milliseconds.
    pub millis: Spread,
}

pub fn all(asked: &Asked<'_>) -> Result<Answer, Problem> {
    Ok(Answer::json(&Upstreams { upstreams: upstreams(asked)? }))
}

pub fn one(asked: &Asked<'_>) -> Result<Answer, Problem> {
    let name = asked.params.first().map_or("", |name| name);
    let found = upstreams(asked)?.into_iter().find(|upstream| upstream.name == name);
    let found = found.ok_or_else(|| Problem::new(404, format!("no upstream is called `{name}`")))?;
    Ok(Answer::json(&found))
}

pub fn drain(asked: &Asked<'_>) -> Result<Answer, Problem> {
    set(asked, proxy::Upstreams::drain)
}

pub fn undrain(asked: &Asked<'_>) -> Result<Answer, Problem> {
    set(asked, proxy::Upstreams::undrain)
}

fn set(asked: &Asked<'_>, set: fn(&proxy::Upstreams, &str, &str) -> bool) -> Result<Answer, Problem> {
    let Which { endpoint } = asked.json()?;
    let name = asked.params.first().map_or("", |name| name);
    let upstreams = asked.running.with(|node| node.upstreams().clone()).ok_or_else(Problem::stopping)?;
    if !set(&upstreams, name, &endpoint) {
        let known = upstreams.status().into_iter().find(|upstream| &*upstream.name == name);
        let detail = match known {
            None => format!("no upstream is called `{name}`"),
            Some(known) => {
                let known: Vec<_> = known.endpoints.iter().map(|it| it.url.to_string()).collect();
                format!("`{name}` has no endpoint `{endpoint}`; it has {}", known.join(", "))
            }
        };
        return Err(Problem::new(404, detail));
    }
    one(asked)
}

fn upstreams(asked: &Asked<'_>) -> Result<Vec<Upstream>, Problem> {
    let segments = asked.running.observer.segments();
    let status = asked.running.with(|node| node.upstreams().status()).ok_or_else(Problem::stopping)?;
    let upstreams = status.into_iter().map(|status| {
        let UpstreamStatus {
            name,
            breaker,
            breaker_opened,
            in_flight,
            waiting,
            connections,
            refused_full,
            refused_open,
            hedges,
            hedges_won,
            endpoints,
        } = status;
        let segments = segments.iter().filter(|segment| *segment.upstream == *name).map(|segment| Segment {
            name: segment.name.clone(),
            layer: Layer::of_segment(&segment.name).map_or("", Layer::as_str).into(),
            share: segment.share,
            millis: segment.spread.into(),
        });
        Upstream {
            segments: segments.collect(),
            name: name.to_string(),
            breaker: breaker.into(),
            breaker_opened,
            in_flight,
            waiting,
            connections,
            refused_full,
            refused_open,
            hedges,
            hedges_won,
            endpoints: endpoints.into_iter().map(Endpoint::from).collect(),
        }
    });
    Ok(upstreams.collect())
}

// === impl Endpoint ===

impl Endpoint {
    /// New calls may go there.
    pub fn takes_calls(&self) -> bool {
        self.healthy && !self.draining && self.ejection.state != CircuitState::Open
    }
}

impl From<EndpointStatus> for Endpoint {
    fn from(status: EndpointStatus) -> Endpoint {
        let EndpointStatus {
            url,
            zone,
            priority,
            weight,
            healthy,
            ejection,
            ejections,
            draining,
            in_flight,
            latency,
            connections,
        } = status;
        Endpoint {
            url: url.to_string(),
            zone: zone.as_deref().map(str::to_owned),
            priority,
            weight,
            healthy,
            ejection: ejection.into(),
            ejections,
            draining,
            in_flight,
            latency_millis: latency.map(|latency| latency.as_secs_f64() * 1e3),
            connections,
        }
    }
}

impl From<CircuitStatus> for Circuit {
    fn from(status: CircuitStatus) -> Circuit {
        match status {
            CircuitStatus::Closed => Circuit { state: CircuitState::Closed, open_seconds: None },
            CircuitStatus::Open { left } => {
                Circuit { state: CircuitState::Open, open_seconds: Some(left.as_secs_f64()) }
            }
            CircuitStatus::OnTrial => Circuit { state: CircuitState::OnTrial, open_seconds: None },
        }
    }
}
