//! Export over OTLP: spans of sampled calls, metrics from the cells; protobuf over HTTP or gRPC.

mod grpc;
mod http;
mod metrics;
mod spans;

use std::future;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use awareness::Exchange;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;

use crate::{Otlp, OtlpProtocol, Shared, Tls};

/// Where to export to, and what.
pub(crate) struct Collector {
    settings: Otlp,
    authority: String,
    /// What stands before `/v1/traces`.
    prefix: String,
}

pub(crate) struct Exporter {
    shared: Arc<Shared>,
    collector: Option<Collector>,
    batch: Vec<Exchange>,
}

#[derive(Clone, Copy)]
enum Signal {
    Traces,
    Metrics,
}

/// Why an export failed, and whether another try may help.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct ExportError {
    message: String,
    retry: bool,
}

/// TCP, or TLS over it.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Collector {
    pub(crate) fn new(settings: Otlp) -> Result<Collector, String> {
        let endpoint = &settings.endpoint;
        let rest = match settings.tls {
            None => endpoint.strip_prefix("http://"),
            Some(_) => endpoint.strip_prefix("https://"),
        };
        let Some(rest) = rest else {
            return Err(format!("`{endpoint}` is not supported; an endpoint begins with `http://` or `https://`"));
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.is_empty() || authority.contains(|c: char| c.is_whitespace() || c == '@') {
            return Err(format!("`{endpoint}` has no host"));
        }
        let path = path.trim_end_matches('/');
        let prefix = if path.is_empty() { String::new() } else { format!("/{path}") };
        let authority = authority.to_owned();
        Ok(Collector { settings, authority, prefix })
    }

    /// Host and port to connect to.
    fn address(&self) -> String {
        let has_port = self.authority.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
        let port = if self.settings.tls.is_some() { 443 } else { 80 };
        if has_port { self.authority.clone() } else { format!("{}:{port}", self.authority) }
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, ExportError> {
        let stream = TcpStream::connect(self.address()).await.map_err(ExportError::retry)?;
        let Some(Tls { config, name }) = &self.settings.tls else { return Ok(Box::new(stream)) };
        let connector = TlsConnector::from(config.clone());
        let stream = connector.connect(name.clone(), stream).await;
        Ok(Box::new(stream.map_err(|error| ExportError::retry(format!("TLS handshake failed: {error}")))?))
    }

    fn resource(&self) -> Resource {
        let mut attributes: Vec<_> =
            self.settings.resource.iter().map(|(key, value)| attribute(key, text(value))).collect();
        if !self.settings.resource.contains_key("service.name") {
            attributes.push(attribute("service.name", text("weir")));
        }
        Resource { attributes, ..Resource::default() }
    }

    /// Sends until it is taken, refused for good, or tried often enough.
    async fn export(&self, signal: Signal, body: Vec<u8>) -> Result<(), ExportError> {
        let mut pause = Duration::from_millis(250);
        for last in [false, false, false, true] {
            let once = async {
                match self.settings.protocol {
                    OtlpProtocol::Http => http::post(self, signal, &body).await,
                    OtlpProtocol::Grpc => grpc::call(self, signal, &body).await,
                }
            };
            let result = timeout(PATIENCE, once).await.unwrap_or_else(|_| Err(ExportError::retry("no answer in time")));
            match result {
                Ok(answer) => {
                    partial_success(signal, &answer);
                    return Ok(());
                }
                Err(error) if last || !error.retry => return Err(error),
                Err(_) => tokio::time::sleep(pause).await,
            }
            pause *= 2;
        }
        Ok(())
    }
}

impl Exporter {
    pub(crate) fn new(shared: Arc<Shared>) -> Exporter {
        Exporter { shared, collector: None, batch: Vec::new() }
    }

    /// Until the other end of `changes` is gone.
    pub(crate) async fn run(
        mut self,
        mut exchanges: mpsc::Receiver<Vec<Exchange>>,
        mut changes: mpsc::UnboundedReceiver<Option<Collector>>,
    ) {
        let mut spans_due = None;
        let mut metrics_due = None;
        loop {
            tokio::select! {
                biased;
                change = changes.recv() => {
                    let Some(collector) = change else { break };
                    let settings = collector.as_ref().map(|collector| &collector.settings);
                    metrics_due = settings.filter(|otlp| otlp.metrics).map(|otlp| Instant::now() + otlp.every);
                    self.collector = collector;
                }
                () = due(metrics_due) => {
                    self.export_metrics().await;
                    metrics_due = self.collector.as_ref().map(|collector| Instant::now() + collector.settings.every);
                }
                () = due(spans_due) => {
                    self.export_spans().await;
                    spans_due = None;
                }
                Some(more) = exchanges.recv() => {
                    self.batch.extend(more);
                    spans_due = spans_due.or(Some(Instant::now() + SPANS_DUE));
                    if self.batch.len() >= BATCH {
                        self.export_spans().await;
                        spans_due = None;
                    }
                }
            }
        }
        while let Ok(more) = exchanges.try_recv() {
            self.batch.extend(more);
        }
        self.export_spans().await;
        self.export_metrics().await;
    }

    async fn export_spans(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        let Some(collector) = self.collector.as_ref().filter(|collector| collector.settings.traces) else { return };
        if batch.is_empty() {
            return;
        }
        let request = spans::request(collector.resource(), &batch);
        if let Err(error) = collector.export(Signal::Traces, request.encode_to_vec()).await {
            self.shared.otlp_dropped.fetch_add(batch.len() as u64, Relaxed);
            tracing::warn!(%error, calls = batch.len(), "cannot export traces");
        }
    }

    async fn export_metrics(&self) {
        let Some(collector) = self.collector.as_ref().filter(|collector| collector.settings.metrics) else { return };
        let request = metrics::request(collector.resource(), &self.shared, SystemTime::now());
        // Sums are cumulative, so the next export makes up for one that was lost.
        if let Err(error) = collector.export(Signal::Metrics, request.encode_to_vec()).await {
            tracing::warn!(%error, "cannot export metrics");
        }
    }
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => future::pending().await,
    }
}

fn partial_success(signal: Signal, answer: &[u8]) {
    let (rejected, message) = match signal {
        Signal::Traces => {
            let answer = ExportTraceServiceResponse::decode(answer).ok().and_then(|answer| answer.partial_success);
            answer.map(|partial| (partial.rejected_spans, partial.error_message)).unwrap_or_default()
        }
        Signal::Metrics => {
            let answer = ExportMetricsServiceResponse::decode(answer).ok().and_then(|answer| answer.partial_success);
            answer.map(|partial| (partial.rejected_data_points, partial.error_message)).unwrap_or_default()
        }
    };
    if rejected > 0 || !message.is_empty() {
        tracing::warn!(rejected, message, "the collector took only a part");
    }
}

impl ExportError {
    fn retry(message: impl ToString) -> ExportError {
        ExportError { message: message.to_string(), retry: true }
    }

    fn fatal(message: impl ToString) -> ExportError {
        ExportError { message: message.to_string(), retry: false }
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope { name: "weir".into(), version: env!("CARGO_PKG_VERSION").into(), ..Default::default() }
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn text(value: &str) -> Value {
    Value::StringValue(value.into())
}

fn nanos(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

const PATIENCE: Duration = Duration::from_secs(10);
const SPANS_DUE: Duration = Duration::from_secs(1);
const BATCH: usize = 512;
