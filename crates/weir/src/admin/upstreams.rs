//! Upstreams: how their endpoints are, where attempts spend their time.

use awareness::Layer;
use config::Snapshot;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use telemetry::Observer;

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
    pub endpoints: Vec<Endpoint>,
    /// Of attempts in about the last minute, the one that took most time first.
    pub segments: Vec<Segment>,
}

/// One endpoint.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Endpoint {
    pub url: String,
    pub weight: u32,
    pub zone: Option<String>,
    /// What health checks say; absent where nobody checks.
    pub healthy: Option<bool>,
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
    let snapshot = asked.running.snapshot().ok_or_else(Problem::stopping)?;
    Ok(Answer::json(&Upstreams { upstreams: upstreams(&snapshot, &asked.running.observer) }))
}

pub fn one(asked: &Asked<'_>) -> Result<Answer, Problem> {
    let snapshot = asked.running.snapshot().ok_or_else(Problem::stopping)?;
    let name = asked.params.first().map_or("", |name| name);
    let found = upstreams(&snapshot, &asked.running.observer).into_iter().find(|upstream| upstream.name == name);
    let found = found.ok_or_else(|| Problem::new(404, format!("no upstream is called `{name}`")))?;
    Ok(Answer::json(&found))
}

fn upstreams(snapshot: &Snapshot, observer: &Observer) -> Vec<Upstream> {
    let healthy = observer.endpoints();
    let segments = observer.segments();
    let upstreams = snapshot.upstreams.iter().map(|upstream| Upstream {
        name: upstream.name.to_string(),
        endpoints: upstream
            .endpoints
            .iter()
            .map(|endpoint| Endpoint {
                url: endpoint.url.to_string(),
                weight: endpoint.weight,
                zone: endpoint.zone.as_deref().map(str::to_owned),
                healthy: healthy.get(&(upstream.name.clone(), endpoint.url.clone())).copied(),
            })
            .collect(),
        segments: segments
            .iter()
            .filter(|segment| *segment.upstream == *upstream.name)
            .map(|segment| Segment {
                name: segment.name.clone(),
                layer: Layer::of_segment(&segment.name).map_or("", Layer::as_str).into(),
                share: segment.share,
                millis: segment.spread.into(),
            })
            .collect(),
    });
    upstreams.collect()
}
