//! What is told, and to whom.

use std::collections::BTreeMap;

use base::{Percent, SecretRef, Span};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{ClientTls, Named};

section! {
    /// What is told.
    Telemetry {
        /// Where `/metrics` answers: `127.0.0.1:9901`.
        metrics: Option<String>,
        /// `stdout` or `file:PATH`.
        access_log: Option<String>,
        /// Send traces and metrics to a collector.
        otlp: Option<Otlp>,
        /// Part of the calls that is traced where the caller does not decide. Default: `1%`.
        sample: Option<Percent>,
        /// Series each metric family may have, one for each combination of label values; the rest is
        /// counted as `other`. Default: 1000.
        max_series: Option<usize>,
    }
}

/// An OpenTelemetry collector.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Otlp {
    /// `http://127.0.0.1:4318`, or `https://...`.
    pub endpoint: String,
    /// TLS towards an endpoint with `https://`.
    #[serde(default)]
    pub tls: ClientTls,
    /// `http` (default) or `grpc`.
    pub protocol: Option<OtlpProtocol>,
    /// Sent along, by name.
    #[serde(default)]
    pub headers: Named<SecretRef>,
    /// How often metrics are sent. Default: `10s`.
    pub every: Option<Span>,
    /// Default: true.
    pub traces: Option<bool>,
    /// Default: true.
    pub metrics: Option<bool>,
    /// Attributes beside `service.name`.
    #[serde(default)]
    pub resource: BTreeMap<String, String>,
}

/// How the collector is spoken to.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OtlpProtocol {
    /// Protobuf over HTTP.
    Http,
    /// gRPC.
    Grpc,
}
