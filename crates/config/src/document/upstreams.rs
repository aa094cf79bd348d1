//! Pools of endpoints: balance, health, retries, bounds, connections.

use base::{Percent, SecretRef, Size, Span};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use super::{Certificate, FromText, OrNone, OrText};

section! {
    /// A pool of endpoints.
    Upstream {
        /// Who serves: URLs, or maps with `url` and what else is to be said of it. `srv+http://orders.service.internal`
        /// and `srv+https://...` stand for all places of the SRV records of that name.
        endpoints: Vec<OrText<Endpoint>>,
        /// Default: `auto`.
        protocol: Option<Protocol>,
        /// `least-load` (default), `round-robin` or `hash: ...`.
        balance: Option<OrText<Balance>>,
        /// Ask endpoints whether they are well.
        health: Option<Health>,
        /// When a call is tried again.
        retry: Retry,
        /// How long to wait for what.
        timeouts: Timeouts,
        /// TLS towards endpoints with `https://`.
        tls: ClientTls,
        /// Connections kept.
        connections: Connections,
        /// Which endpoints are left out for a while because calls fail there; or `none`. Where this is not given,
        /// its defaults hold.
        eject: OrText<Eject>,
        /// When calls are refused at once because the upstream as a whole fails; `{}` for the defaults. Never
        /// unless given.
        breaker: Option<Breaker>,
        /// How much may be under way at once, on all workers together.
        limits: Option<Limits>,
        /// How endpoints of other zones and of later priority come in.
        zones: Zones,
        /// How long an endpoint that is new, or well again, gets less than its share, rising from a tenth.
        /// Default: `0s`.
        slow_start: Option<Span>,
    }
}

section! {
    /// One that serves.
    Endpoint {
        /// `http://10.0.0.1:8080`, `https://a.internal:8443/base` or `unix:/run/app.sock`; or `srv+http://NAME`,
        /// `srv+https://NAME/base` for as many endpoints as the name has SRV records: they come and go with the records,
        /// and what is said here holds for each of them.
        url: String,
        /// Its share of calls against the others. Default: 1. An SRV record's weight is multiplied by it.
        weight: Option<u32>,
        /// Where it stands. Endpoints in the node's own zone are preferred.
        zone: Option<String>,
        /// Those of a lower number are preferred, before zones. Default: 0. Among equals the priority of SRV records
        /// decides, also before zones.
        priority: Option<u32>,
        /// It gets no new calls; those under way end as they would. Default: false.
        drain: bool,
    }
}

section! {
    /// Which endpoints are left out for a while. One call then tries whether it is well again: if so, it takes
    /// calls as before; if not, it is left out for twice as long. An endpoint is never left out when no other is there.
    Eject {
        /// This many failures in a row. Default: 5.
        failures: Option<u32>,
        /// This share of its calls in the last `window`. Not looked at unless given.
        failure_share: Option<Percent>,
        /// Default: `10s`.
        window: Option<Span>,
        /// A share of fewer calls says nothing. Default: 20.
        min_calls: Option<u32>,
        /// What a failure is: `connect`, `reset`, `timeout`, `5xx` and statuses such as `"503"`.
        /// Default: `[connect, reset, timeout]`.
        on: Option<Vec<String>>,
        /// How long, for the first time. Default: `10s`.
        r#for: Option<Span>,
        /// How long at most. Default: `5m`.
        at_most: Option<Span>,
        /// At most this share of the endpoints is left out at once, but one always may be. Default: `50%`.
        max_ejected: Option<Percent>,
        #[serde(skip)]
        none: bool,
    }
}

section! {
    /// When calls are refused at once (503, `upstream-open`). A few calls then try whether the upstream is well
    /// again: if so, all are let through; if one fails, none is for twice as long.
    Breaker {
        /// This many failures in a row. Not looked at unless given.
        failures: Option<u32>,
        /// This share of all tries in the last `window`. Default: `50%`.
        failure_share: Option<Percent>,
        /// Default: `10s`.
        window: Option<Span>,
        /// A share of fewer tries says nothing. Default: 20.
        min_calls: Option<u32>,
        /// What a failure is: `connect`, `reset`, `timeout`, `5xx` and statuses such as `"503"`.
        /// Default: `[connect, reset, timeout, "502", "503", "504"]`.
        on: Option<Vec<String>>,
        /// How long, for the first time. Default: `5s`.
        r#for: Option<Span>,
        /// How long at most. Default: `1m`.
        at_most: Option<Span>,
        /// Calls that try whether it is well again. Default: 3.
        trials: Option<u32>,
    }
}

section! {
    /// How much may be under way at once, on all workers together. What finds no room waits or is refused
    /// (503, `upstream-full`).
    Limits {
        /// Calls, from their choice of an endpoint to the last byte of their answer.
        calls: Option<u32>,
        /// Connections.
        connections: Option<u32>,
        /// The same, for each endpoint.
        endpoint: EndpointLimits,
        /// Calls that may wait for room. Default: 0, all are refused at once.
        waiting: Option<u32>,
        /// How long each may. Default: `1s`.
        wait: Option<Span>,
    }
}

section! {
    /// How much may be under way at one endpoint.
    EndpointLimits {
        /// Calls.
        calls: Option<u32>,
        /// Connections.
        connections: Option<u32>,
    }
}

section! {
    /// Endpoints in order: by `priority`, and among equals those of the node's own zone (`node.zone`) first. The first
    /// of these groups takes all calls while enough of it is well; what it cannot bear goes to the next.
    Zones {
        /// A group of which less than this share is well gives calls away, in proportion. Default: `70%`.
        spill_below: Option<Percent>,
        /// Whether the node's own zone is preferred. Default: true.
        prefer_own: Option<bool>,
    }
}

/// The HTTP spoken to endpoints.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2: with prior knowledge in clear, by ALPN over TLS.
    Http2,
    /// HTTP/1.1 in clear; over TLS what both sides settle.
    Auto,
}

section! {
    /// How endpoints are chosen.
    Balance {
        /// The same caller to the same endpoint: `consumer`, `address`, `path`, `header: NAME` or `query: NAME`.
        hash: Option<OrText<HashBy>>,
        #[serde(skip)]
        word: Option<String>,
    }
}

section! {
    /// What is hashed.
    HashBy {
        /// The value of this header.
        header: Option<String>,
        /// The value of this query parameter.
        query: Option<String>,
        #[serde(skip)]
        word: Option<String>,
    }
}

section! {
    /// A question to every endpoint; exactly one of `http`, `grpc`, `tcp`.
    Health {
        /// GET of this path; 200 to 299 is healthy.
        http: Option<String>,
        /// `Host` of that GET, where it is not the endpoint's.
        host: Option<String>,
        /// `grpc.health.v1.Health/Check` for this service; empty for the server as a whole.
        grpc: Option<String>,
        /// A connection can be made.
        tcp: bool,
        /// Default: `5s`.
        every: Option<Span>,
        /// Default: `2s`.
        timeout: Option<Span>,
        /// Failures in a row that make an endpoint unhealthy. Default: 2.
        unhealthy_after: Option<u32>,
        /// Successes in a row that make it healthy again. Default: 2.
        healthy_after: Option<u32>,
    }
}

section! {
    /// When a call is tried again. What is not given comes from the level around.
    Retry {
        /// Tries in all; 1 means none is repeated. Default: 2.
        attempts: Option<u32>,
        /// `connect`, `reset`, `timeout`, `5xx` and statuses such as `"503"`. Default: `[connect, reset]`.
        on: Option<Vec<String>>,
        /// Share of calls that may be repeated. Default: `20%`.
        budget: Option<Percent>,
        /// How many a second always may. Default: 3.
        min_per_second: Option<u32>,
        /// First pause. Default: `25ms`.
        backoff: Option<Span>,
        /// Longest pause. Default: `250ms`.
        max_backoff: Option<Span>,
        /// For each try.
        try_timeout: Option<Span>,
        /// Also calls that are not idempotent. Default: false.
        unsafe_methods: Option<bool>,
        /// How much of a request's body is kept to be sent again. Default: `64KiB`.
        buffer: Option<Size>,
        /// Try a second endpoint beside a slow first one, and take the first answer: a time such as `100ms`, `p95`,
        /// a map, or `none`. Only calls that may be repeated without harm, and each counts against `budget`.
        /// Default: `none`.
        hedge: Option<OrText<Hedge>>,
    }
}

section! {
    /// Further tries beside a slow one.
    Hedge {
        /// How long the tries before may take: a time such as `100ms`, or `p95` for what 95 of 100 recent tries took.
        after: Option<After>,
        /// Tries beside the first. Default: 1.
        attempts: Option<u32>,
        #[serde(skip)]
        none: bool,
    }
}

section! {
    /// How long to wait. What is not given comes from the level around.
    Timeouts {
        /// For a connection. Default: `5s`.
        connect: Option<Span>,
        /// From the request sent to the head of the answer; or `none`. Default: `60s`.
        first_byte: Option<OrNone>,
        /// Between two pieces of the answer's body; or `none`. Default: `60s`.
        idle: Option<OrNone>,
        /// The whole call, tries and body included; or `none`. Default: `none`.
        call: Option<OrNone>,
    }
}

section! {
    /// TLS towards endpoints.
    ClientTls {
        /// Authorities in PEM; the system's unless given.
        authorities: Option<SecretRef>,
        /// Who we are.
        certificate: Option<Certificate>,
        /// The name to verify, where it is not the endpoint's.
        name: Option<String>,
        /// Verify the endpoint's certificate. Default: true.
        verify: Option<bool>,
    }
}

section! {
    /// Connections to an endpoint.
    Connections {
        /// Idle ones kept, for each worker; those of HTTP/1. Default: 256.
        idle: Option<usize>,
        /// How long; those of HTTP/2 too. Default: `60s`.
        idle_timeout: Option<Span>,
        /// Streams on one HTTP/2 connection before another is opened. Default: 100.
        streams: Option<usize>,
        /// A HTTP/2 connection with streams that is silent for so long is asked whether it is there (PING) and gets no
        /// more streams; one that is silent again for so long is given up, three times this after its last sign at the
        /// latest. Or `none`. Default: `10s`.
        ping: Option<OrNone>,
    }
}

/// A duration, or a part of what calls take.
#[derive(Clone, Copy, Debug)]
pub enum After {
    Span(Span),
    /// `p95`.
    Part(Percent),
}

impl FromText for Endpoint {
    const EXPECTED: &'static str = "a URL, or a map with `url`";
    fn from_text(text: &str) -> Result<Endpoint, String> {
        Ok(Endpoint { url: text.into(), ..Endpoint::default() })
    }
}

impl FromText for Eject {
    const EXPECTED: &'static str = "`none`, or a map such as `failures: 5`";
    fn from_text(text: &str) -> Result<Eject, String> {
        match text {
            "none" => Ok(Eject { none: true, ..Eject::default() }),
            _ => Err(format!("found `{text}`, expected {}", Self::EXPECTED)),
        }
    }
}

impl FromText for Hedge {
    const EXPECTED: &'static str = "a duration such as `100ms`, `p95`, `none`, or a map with `after`";
    fn from_text(text: &str) -> Result<Hedge, String> {
        match text {
            "none" => Ok(Hedge { none: true, ..Hedge::default() }),
            _ => text
                .parse()
                .map(|after| Hedge { after: Some(after), ..Hedge::default() })
                .map_err(|_| format!("found `{text}`, expected {}", Self::EXPECTED)),
        }
    }
}

impl std::str::FromStr for After {
    type Err = String;

    fn from_str(text: &str) -> Result<After, String> {
        let wrong = || format!("found `{text}`, expected a duration such as `100ms`, or `p50` to `p99.9`");
        match text.strip_prefix('p') {
            Some(part) => {
                let part = format!("{part}%").parse().map_err(|_| wrong())?;
                let possible = Percent::whole(50)..Percent::whole(100);
                if possible.contains(&part) { Ok(After::Part(part)) } else { Err(wrong()) }
            }
            None => text.parse().map(After::Span).map_err(|_| wrong()),
        }
    }
}

impl FromText for Balance {
    const EXPECTED: &'static str = "`least-load`, `round-robin`, or a map such as `hash: consumer`";
    fn from_text(text: &str) -> Result<Balance, String> {
        match text {
            "least-load" | "round-robin" => Ok(Balance { hash: None, word: Some(text.into()) }),
            _ => Err(format!("found `{text}`, expected {}", Self::EXPECTED)),
        }
    }
}

impl FromText for HashBy {
    const EXPECTED: &'static str = "`consumer`, `address`, `path`, `header: NAME` or `query: NAME`";
    fn from_text(text: &str) -> Result<HashBy, String> {
        match text {
            "consumer" | "address" | "path" => Ok(HashBy { word: Some(text.into()), ..HashBy::default() }),
            _ => Err(format!("found `{text}`, expected {}", Self::EXPECTED)),
        }
    }
}

impl<'de> Deserialize<'de> for After {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<After, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for After {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SpanOrPart".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let part = json_schema!({ "type": "string", "pattern": "^p[5-9][0-9](\\.[0-9]+)?$", "examples": ["p95"] });
        json_schema!({ "anyOf": [generator.subschema_for::<Span>(), part] })
    }
}
