//! Calls as spans: the server's for the call, a client's for every attempt, segments as its events.

use awareness::{Attempt, Exchange, Outcome, Stamp};
use base::Version;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

use super::{attribute, nanos, scope, text};
use crate::metrics::method;

pub(super) fn request(resource: Resource, exchanges: &[Exchange]) -> ExportTraceServiceRequest {
    let mut spans = Vec::new();
    for exchange in exchanges {
        spans.push(server(exchange));
        spans.extend(exchange.attempts.iter().enumerate().map(|(index, attempt)| client(exchange, index, attempt)));
    }
    let scope_spans = vec![ScopeSpans { scope: Some(scope()), spans, ..Default::default() }];
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { resource: Some(resource), scope_spans, ..Default::default() }],
    }
}

fn server(exchange: &Exchange) -> Span {
    let mut attributes = vec![
        attribute("http.request.method", text(method(&exchange.method))),
        attribute("url.scheme", text(exchange.scheme.as_str())),
        attribute("url.path", text(exchange.path())),
        attribute("server.address", text(&exchange.host)),
        attribute("client.address", text(&exchange.client.to_string())),
        attribute("network.protocol.version", text(version(exchange.version))),
        attribute("weir.ending", text(exchange.ending.as_str())),
    ];
    let names = [
        ("http.route", &exchange.route),
        ("weir.api", &exchange.api),
        ("weir.upstream", &exchange.upstream),
        ("weir.consumer", &exchange.consumer),
        ("weir.credential", &exchange.credential),
    ];
    for (key, name) in names {
        attributes.extend(name.as_deref().map(|name| attribute(key, text(name))));
    }
    attributes.extend(exchange.refused_by().map(|policy| attribute("weir.refused_by", text(policy))));
    attributes.extend(exchange.cache.map(|cached| attribute("weir.cache", text(cached.as_str()))));
    let code = exchange.status.map(|status| status.as_u16());
    attributes.extend(code.map(|code| attribute("http.response.status_code", Value::IntValue(i64::from(code)))));
    // A server is not to blame for a 4xx.
    let failed = exchange.error.is_some() || code.is_some_and(|code| code >= 500);
    if failed {
        let code = code.unwrap_or_default().to_string();
        attributes.push(attribute("error.type", text(exchange.error.unwrap_or(&code))));
    }
    let method = method(&exchange.method);
    Span {
        trace_id: exchange.trace.trace.0.to_vec(),
        span_id: exchange.trace.span.0.to_vec(),
        parent_span_id: exchange.trace.parent.map(|parent| parent.0.to_vec()).unwrap_or_default(),
        trace_state: exchange.trace.state.as_deref().unwrap_or_default().into(),
        flags: u32::from(exchange.trace.sampled),
        name: exchange.route.as_ref().map_or_else(|| method.to_owned(), |route| format!("{method} {route}")),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: nanos(exchange.wall),
        end_time_unix_nano: nanos(exchange.wall_at(exchange.finished)),
        attributes,
        status: status(failed),
        ..Span::default()
    }
}

fn client(exchange: &Exchange, index: usize, attempt: &Attempt) -> Span {
    let method = method(&exchange.method);
    let (host, port) = attempt.endpoint.rsplit_once(':').unwrap_or((&attempt.endpoint, ""));
    let mut attributes = vec![
        attribute("http.request.method", text(method)),
        attribute("server.address", text(host)),
        attribute("weir.outcome", text(attempt.outcome.as_str())),
    ];
    attributes.extend(port.parse().ok().map(|port| attribute("server.port", Value::IntValue(port))));
    if index > 0 {
        attributes.push(attribute("http.request.resend_count", Value::IntValue(index as i64)));
    }
    let error = match attempt.outcome {
        Outcome::Answered(status) => {
            let code = i64::from(status.as_u16());
            attributes.push(attribute("http.response.status_code", Value::IntValue(code)));
            (code >= 400).then(|| code.to_string())
        }
        Outcome::Failed(error) => Some(error.to_owned()),
        Outcome::Abandoned => None,
    };
    attributes.extend(error.as_deref().map(|error| attribute("error.type", text(error))));
    let events = attempt.timeline.segments().map(|segment| Event {
        time_unix_nano: nanos(exchange.wall_at(segment.start)),
        name: segment.name.into(),
        attributes: vec![
            attribute("weir.layer", text(segment.layer.as_str())),
            attribute("weir.length_ms", Value::DoubleValue(segment.length.as_secs_f64() * 1e3)),
        ],
        ..Event::default()
    });
    // What came before the policies were done is the call's, not the attempt's.
    let own = |stamp: Stamp| stamp as u8 >= Stamp::PoliciesDone as u8 && stamp != Stamp::ClientDrained;
    let stamps = || attempt.timeline.stamps().filter(|(stamp, _)| own(*stamp)).map(|(_, at)| at);
    let start = stamps().min().unwrap_or(exchange.started);
    let end = stamps().max().unwrap_or(start);
    Span {
        trace_id: exchange.trace.trace.0.to_vec(),
        span_id: attempt.span.0.to_vec(),
        parent_span_id: exchange.trace.span.0.to_vec(),
        flags: u32::from(exchange.trace.sampled),
        name: method.into(),
        kind: SpanKind::Client.into(),
        start_time_unix_nano: nanos(exchange.wall_at(start)),
        end_time_unix_nano: nanos(exchange.wall_at(end)),
        attributes,
        events: events.collect(),
        status: status(error.is_some()),
        ..Span::default()
    }
}

fn status(failed: bool) -> Option<Status> {
    failed.then(|| Status { code: StatusCode::Error.into(), ..Status::default() })
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    }
}
