//! Telemetry as a whole: sockets, files and a collector that is not ours.

use std::convert::Infallible;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;

use super::*;
use crate::testing::exchange;
use crate::{AccessLog, Otlp, OtlpProtocol};

fn settings() -> Settings {
    Settings { metrics: None, access_log: None, otlp: None, max_series: 100 }
}

fn get(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn lines(path: &Path) -> usize {
    let text = fs::read_to_string(path).unwrap();
    text.lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).unwrap().is_object()).count()
}

fn eventually(mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(5);
    while !holds() {
        assert!(Instant::now() < end, "did not come about");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn metrics_are_served_as_text_that_parses() {
    let settings = Settings { metrics: Some(([127, 0, 0, 1], 0).into()), ..settings() };
    let (telemetry, mut recorders) = Telemetry::start(settings.clone(), 2, None).unwrap();
    for recorder in &mut recorders {
        recorder.record(Box::new(exchange("/")));
    }
    telemetry.gauges().endpoint(&"backend".into(), &"a\"b".into(), true);
    let address = telemetry.metrics_addr().unwrap();

    let answer = get(address, "GET /metrics");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("application/openmetrics-text; version=1.0.0"), "{head}");
    for line in body.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert_eq!(series.contains('{'), series.ends_with('}'), "{line}");
    }
    for line in [
        r#"weir_requests_total{api="shop",route="carts",method="GET",code="200"} 2"#,
        r#"weir_request_duration_seconds_bucket{le="+Inf",api="shop",route="carts"} 2"#,
        r#"weir_attempts_total{upstream="backend",endpoint="10.0.0.1:80",outcome="ok"} 2"#,
        r#"weir_endpoint_healthy{upstream="backend",endpoint="a\"b"} 1"#,
        "# EOF",
    ] {
        assert!(body.lines().any(|found| found == line), "{line} is not in\n{body}");
    }
    assert!(get(address, "GET /readyz").starts_with("HTTP/1.1 503"));
    telemetry.set_ready(true);
    assert!(get(address, "GET /readyz").starts_with("HTTP/1.1 200"));
    assert!(get(address, "GET /healthz").starts_with("HTTP/1.1 200"));
    assert!(get(address, "POST /metrics").starts_with("HTTP/1.1 404"));

    // An address that is taken leaves all as it was.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = Settings { metrics: Some(taken.local_addr().unwrap()), ..settings };
    assert!(matches!(telemetry.reconfigure(refused), Err(StartError::Bind(..))));
    assert!(get(address, "GET /healthz").starts_with("HTTP/1.1 200"));
    drop(recorders);
    telemetry.flush_and_stop();
}

#[test]
fn a_log_that_was_moved_away_is_opened_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (now, before) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
    let settings = Settings { access_log: Some(AccessLog::File(now.clone())), ..settings() };
    let (telemetry, mut recorders) = Telemetry::start(settings, 1, None).unwrap();
    recorders[0].record(Box::new(exchange("/1")));
    recorders[0].tick(base::Time::from_nanos(u64::MAX));
    eventually(|| lines(&now) == 1);
    fs::rename(&now, &before).unwrap();
    telemetry.reopen_logs();
    eventually(|| now.exists());
    recorders[0].record(Box::new(exchange("/2")));
    recorders[0].record(Box::new(exchange("/3")));
    drop(recorders);
    telemetry.flush_and_stop();
    assert_eq!((lines(&before), lines(&now)), (1, 2));
}

#[test]
fn a_full_disk_costs_lines_that_are_counted() {
    let settings = Settings { access_log: Some(AccessLog::File("/dev/full".into())), ..settings() };
    let (telemetry, mut recorders) = Telemetry::start(settings, 1, None).unwrap();
    (0..1000).for_each(|_| drop(recorders[0].record(Box::new(exchange("/")))));
    drop(recorders);
    eventually(|| telemetry.render().contains("weir_access_log_dropped_total 1000\n"));
    telemetry.flush_and_stop();
}

/// A collector: path, `x-key` and body of every request it got. The first is refused with 503.
fn collector(grpc: bool) -> (SocketAddr, Receiver<(String, String, Bytes)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, got) = channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let mut first = true;
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let refuse = std::mem::take(&mut first);
                let sender = sender.clone();
                let service = service_fn(move |request: hyper::Request<Incoming>| {
                    let sender = sender.clone();
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        let answer = hyper::Response::builder();
                        if refuse {
                            let code = if grpc { 200 } else { 503 };
                            let empty = Full::new(Bytes::new()).boxed();
                            return Ok(answer.status(code).header("grpc-status", "14").body(empty).unwrap());
                        }
                        let key = head.headers["x-key"].to_str().unwrap().to_owned();
                        let _ = sender.send((head.uri.path().to_owned(), key, body));
                        if !grpc {
                            return Ok(answer.body(Full::new(Bytes::new()).boxed()).unwrap());
                        }
                        let mut trailers = hyper::HeaderMap::new();
                        trailers.insert("grpc-status", "0".parse().unwrap());
                        let body = Full::new(Bytes::from_static(&[0; 5]));
                        let body = body.with_trailers(async { Some(Ok::<_, Infallible>(trailers)) }).boxed();
                        Ok::<_, Infallible>(answer.body(body).unwrap())
                    }
                });
                tokio::spawn(async move {
                    let _ =
                        auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
    });
    (address, got)
}

fn check_export(protocol: OtlpProtocol) {
    let grpc = protocol == OtlpProtocol::Grpc;
    let (address, got) = collector(grpc);
    let otlp = Otlp {
        endpoint: format!("http://{address}"),
        tls: None,
        protocol,
        headers: vec![("X-Key".into(), base::Secret::new(*b"k"))],
        every: Duration::from_secs(3600),
        traces: true,
        metrics: true,
        resource: [("deployment".to_owned(), "test".to_owned())].into(),
    };
    let (telemetry, mut recorders) = Telemetry::start(Settings { otlp: Some(otlp), ..settings() }, 1, None).unwrap();
    recorders[0].record(Box::new(exchange("/a?secret")));
    drop(recorders);
    telemetry.flush_and_stop();

    let message = |body: Bytes| if grpc { body.slice(5..) } else { body };
    let (path, key, body) = got.recv_timeout(Duration::from_secs(5)).unwrap();
    assert!(path.ends_with(if grpc { "TraceService/Export" } else { "/v1/traces" }), "{path}");
    assert_eq!(key, "k");
    let traces = ExportTraceServiceRequest::decode(message(body)).unwrap();
    let spans = &traces.resource_spans[0].scope_spans[0].spans;
    assert_eq!(spans.iter().map(|span| &*span.name).collect::<Vec<_>>(), ["GET carts", "GET"]);
    assert_eq!(spans[1].parent_span_id, spans[0].span_id);
    assert_eq!(spans[0].end_time_unix_nano - spans[0].start_time_unix_nano, 12_000_000);
    assert_eq!(spans[1].events.iter().map(|event| &*event.name).collect::<Vec<_>>(), ["send", "upstream", "receive"]);
    assert!(!format!("{traces:?}").contains("secret"));

    let (path, _, body) = got.recv_timeout(Duration::from_secs(5)).unwrap();
    assert!(path.ends_with(if grpc { "MetricsService/Export" } else { "/v1/metrics" }), "{path}");
    let metrics = ExportMetricsServiceRequest::decode(message(body)).unwrap();
    let metrics = &metrics.resource_metrics[0].scope_metrics[0].metrics;
    assert!(metrics.iter().any(|metric| metric.name == "weir_request_duration_seconds"));
}

#[test]
fn a_collector_gets_spans_and_metrics_over_http() {
    check_export(OtlpProtocol::Http);
}

#[test]
fn a_collector_gets_spans_and_metrics_over_grpc() {
    check_export(OtlpProtocol::Grpc);
}
