//! What is told, and to whom.

use std::time::Duration;

use base::{Headers, Percent, Secret};

use super::upstreams::parse_url;
use super::{Context, key};
use crate::document;
use crate::snapshot::{AccessLog, Destination, Endpoint, Otlp, OtlpProtocol, Telemetry};

impl Context<'_> {
    pub(super) fn telemetry(&mut self, written: document::Telemetry) -> Telemetry {
        let document::Telemetry { metrics, access_log, otlp, sample, max_series } = written;
        let metrics = metrics.and_then(|text| {
            let address = text.parse().ok();
            if address.is_none() {
                let message = format!("`{text}` is not an address; expected one such as `127.0.0.1:9901`");
                self.error("telemetry.metrics", message);
            }
            address
        });
        let access_log = access_log.and_then(|text| match text.strip_prefix("file:") {
            _ if text == "stdout" => Some(AccessLog::Stdout),
            Some(path) if !path.is_empty() => Some(AccessLog::File(self.files.resolve(path))),
            _ => {
                self.error("telemetry.access-log", format!("found `{text}`, expected `stdout` or `file:PATH`"));
                None
            }
        });
        Telemetry {
            metrics,
            access_log,
            otlp: otlp.map(|otlp| self.otlp(otlp)),
            sample: sample.unwrap_or(Percent::whole(1)),
            max_series: max_series.unwrap_or(1000),
        }
    }

    fn otlp(&mut self, written: document::Otlp) -> Otlp {
        let document::Otlp { endpoint, tls, protocol, headers, every, traces, metrics, resource } = written;
        let (mut host, mut secure) = (String::new(), false);
        match parse_url(&endpoint) {
            Ok(Endpoint { address, tls, .. }) => {
                secure = tls;
                match address {
                    Destination::Name { host: name, .. } => host = name,
                    Destination::Ip(address) => host = address.ip().to_string(),
                    Destination::Unix(_) => {
                        self.error("telemetry.otlp.endpoint", "a collector is reached over `http://` or `https://`");
                    }
                }
            }
            Err(message) => self.error("telemetry.otlp.endpoint", message),
        }
        let tls = self.client_tls("telemetry.otlp.tls", tls, secure);
        let mut sent = Vec::new();
        for (name, reference) in headers.0 {
            let at = key("telemetry.otlp.headers", &name);
            if !Headers::is_name(&name) {
                self.error(&at, format!("`{name}` is not a header's name"));
            }
            if let Some(value) = self.read(&at, &reference) {
                sent.push((name.to_ascii_lowercase(), Secret::new(value.trim_ascii())));
            }
        }
        let every = every.map_or(Duration::from_secs(10), |span| span.0);
        if every.is_zero() {
            self.error("telemetry.otlp.every", "expected more than zero");
        }
        Otlp {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            tls,
            host,
            protocol: match protocol {
                None | Some(document::OtlpProtocol::Http) => OtlpProtocol::Http,
                Some(document::OtlpProtocol::Grpc) => OtlpProtocol::Grpc,
            },
            headers: sent,
            every,
            traces: traces.unwrap_or(true),
            metrics: metrics.unwrap_or(true),
            resource: resource.into_iter().collect(),
        }
    }
}
