//! Volume, velocity and variance of every api, route and consumer.

use awareness::flow::{self, OVER, Totals, View};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use telemetry::{Series, Subject};

use super::answer::{Answer, Asked, Problem};

/// All flows.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Flows {
    pub flows: Vec<Flow>,
}

/// The three Vs of one api, route or consumer.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Flow {
    pub kind: Kind,
    /// Empty for calls that no route took.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub api: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub route: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub consumer: Option<String>,
    pub volume: Volume,
    pub velocity: Velocity,
    pub variance: Variance,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Api,
    Route,
    Consumer,
}

/// How much there is.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Volume {
    /// Since the node started.
    pub calls: u64,
    /// Answers of 5xx, calls without an answer, answers that broke off.
    pub errors: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Measured for some calls and scaled.
    pub cpu_seconds: f64,
    pub calls_per_second: Over,
    pub errors_per_second: Over,
    pub bytes_per_second: Over,
    /// Cores in use.
    pub cores: Over,
    /// Bytes of bodies kept in memory to be sent again.
    pub memory_bytes: Over,
}

/// Exponentially weighted means over three time constants.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Over {
    #[serde(rename = "10s")]
    pub short: f64,
    #[serde(rename = "1m")]
    pub medium: f64,
    #[serde(rename = "10m")]
    pub long: f64,
}

/// How the rates change, per second.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Velocity {
    /// Calls per second, more each second.
    pub calls: f64,
    pub errors: f64,
    pub bytes: f64,
}

/// How unlike each other calls are, of about the last minute. Absent where too few came to say.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Variance {
    /// The busiest second over the mean one.
    pub burst: Option<f64>,
    /// Variance over mean of arrivals in windows of 134 ms: 0 like a clock, 1 by chance, more in bursts.
    pub dispersion: Option<f64>,
    /// Bits that tell which operation a call is.
    pub entropy_bits: Option<f64>,
    /// The commonest operations, at most ten.
    pub operations: Vec<Operation>,
    pub latency_millis: Option<Spread>,
    pub body_bytes: Option<Spread>,
}

/// A method on a route.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Operation {
    /// All absent of those that are not told apart.
    pub method: Option<String>,
    pub api: Option<String>,
    pub route: Option<String>,
    /// Of the calls, from 0 to 1.
    pub share: f64,
}

/// Quantiles, interpolated within buckets, and how far values lie from the mean.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Spread {
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    /// Standard deviation over mean.
    pub variation: f64,
}

pub fn all(asked: &Asked<'_>) -> Result<Answer, Problem> {
    let wanted = match asked.query("kind") {
        None => None,
        Some("api") => Some(Kind::Api),
        Some("route") => Some(Kind::Route),
        Some("consumer") => Some(Kind::Consumer),
        Some(other) => {
            return Err(Problem::new(400, format!("`{other}` is no kind; expected `api`, `route` or `consumer`")));
        }
    };
    let flows = asked.running.observer.series().into_iter().map(Flow::from);
    let flows = flows.filter(|flow| wanted.is_none_or(|wanted| wanted == flow.kind)).collect();
    Ok(Answer::json(&Flows { flows }))
}

// === impl Flow ===

impl Flow {
    /// `orders`, `orders/0`, `research`.
    pub fn name(&self) -> &str {
        let name = match self.kind {
            Kind::Api => &self.api,
            Kind::Route => &self.route,
            Kind::Consumer => &self.consumer,
        };
        name.as_deref().filter(|name| !name.is_empty()).unwrap_or("(no route)")
    }
}

impl From<Series> for Flow {
    fn from(series: Series) -> Flow {
        let Series { subject, view, operations } = series;
        let (kind, api, route, consumer) = match subject {
            Subject::Api(api) => (Kind::Api, Some(api), None, None),
            Subject::Route(api, route) => (Kind::Route, Some(api), Some(route), None),
            Subject::Consumer(consumer) => (Kind::Consumer, None, None, Some(consumer)),
        };
        let View {
            totals,
            calls,
            errors,
            bytes,
            cpu,
            held,
            calls_velocity,
            errors_velocity,
            bytes_velocity,
            burst,
            dispersion,
            entropy,
            operations: _,
            latency,
            sizes,
        } = view;
        let operations = operations.into_iter().take(10).map(|(operation, share)| match operation {
            Some(telemetry::Operation { api, route, method }) => Operation {
                method: Some(method.into()),
                api: Some(api.to_string()),
                route: Some(route.to_string()),
                share,
            },
            None => Operation { method: None, api: None, route: None, share },
        });
        let Totals { calls: all, errors: failed, bytes_in, bytes_out, cpu_nanos, .. } = totals;
        let text = |name: Option<std::sync::Arc<str>>| name.map(|name| name.to_string());
        Flow {
            kind,
            api: text(api),
            route: text(route),
            consumer: text(consumer),
            volume: Volume {
                calls: all,
                errors: failed,
                bytes_in,
                bytes_out,
                cpu_seconds: cpu_nanos as f64 / 1e9,
                calls_per_second: calls.into(),
                errors_per_second: errors.into(),
                bytes_per_second: bytes.into(),
                cores: cpu.into(),
                memory_bytes: held.into(),
            },
            velocity: Velocity { calls: calls_velocity, errors: errors_velocity, bytes: bytes_velocity },
            variance: Variance {
                burst,
                dispersion,
                entropy_bits: entropy,
                operations: operations.collect(),
                latency_millis: latency.map(Spread::from),
                body_bytes: sizes.map(Spread::from),
            },
        }
    }
}

impl From<[f64; OVER.len()]> for Over {
    fn from([short, medium, long]: [f64; OVER.len()]) -> Over {
        Over { short, medium, long }
    }
}

impl From<flow::Spread> for Spread {
    fn from(spread: flow::Spread) -> Spread {
        let flow::Spread { mean, p50, p90, p99, variation } = spread;
        Spread { mean, p50, p90, p99, variation }
    }
}
