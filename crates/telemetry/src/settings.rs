//! What telemetry runs on: already checked, nothing left to default.
//!
//! The types are this crate's own, so that it compiles beside the document's crate, not after it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base::Secret;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where `/metrics` answers; `None` for nowhere.
    pub metrics: Option<SocketAddr>,
    pub access_log: Option<AccessLog>,
    pub otlp: Option<Otlp>,
    /// Series a family may have before the rest is counted as `other`.
    pub max_series: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    Stdout,
    File(PathBuf),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Otlp {
    /// `http://127.0.0.1:4318`.
    pub endpoint: String,
    /// For an endpoint with `https://`.
    pub tls: Option<Tls>,
    pub protocol: OtlpProtocol,
    pub headers: Vec<(String, Secret)>,
    /// How often metrics are sent.
    pub every: Duration,
    pub traces: bool,
    pub metrics: bool,
    /// Attributes of the resource beside `service.name`.
    pub resource: HashMap<String, String>,
}

/// How the collector is known. Its configuration offers what the protocol needs: `h2` for gRPC.
#[derive(Clone, Debug)]
pub struct Tls {
    pub config: Arc<ClientConfig>,
    pub name: ServerName<'static>,
}

impl PartialEq for Tls {
    fn eq(&self, other: &Tls) -> bool {
        Arc::ptr_eq(&self.config, &other.config) && self.name == other.name
    }
}

impl Eq for Tls {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpProtocol {
    Http,
    Grpc,
}
