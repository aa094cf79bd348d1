//! OTLP/gRPC: a unary call over h2, one connection each.

use std::future;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request};

use super::{Collector, ExportError, Signal};

/// The message of the answer.
pub(super) async fn call(collector: &Collector, signal: Signal, body: &[u8]) -> Result<Vec<u8>, ExportError> {
    let path = match signal {
        Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    };
    let scheme = if collector.settings.tls.is_some() { "https" } else { "http" };
    let mut request = Request::post(format!("{scheme}://{}{path}", collector.authority))
        .version(http::Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in &collector.settings.headers {
        let mut value = HeaderValue::from_bytes(value.expose()).map_err(ExportError::fatal)?;
        value.set_sensitive(true);
        request = request.header(name.to_ascii_lowercase(), value);
    }
    let request = request.body(()).map_err(ExportError::fatal)?;

    let stream = collector.connect().await?;
    let (sender, connection) = h2::client::handshake(stream).await.map_err(ExportError::retry)?;
    // The connection is driven here, beside the call, so that it ends with it.
    tokio::select! {
        answer = exchange(sender, request, frame(body)) => answer,
        broken = connection => Err(ExportError::retry(match broken {
            Ok(()) => "the collector closed the connection".to_owned(),
            Err(error) => error.to_string(),
        })),
    }
}

async fn exchange(
    sender: h2::client::SendRequest<Bytes>,
    request: Request<()>,
    mut body: Bytes,
) -> Result<Vec<u8>, ExportError> {
    let mut sender = sender.ready().await.map_err(ExportError::retry)?;
    let (response, mut stream) = sender.send_request(request, false).map_err(ExportError::retry)?;
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let Some(room) = future::poll_fn(|context| stream.poll_capacity(context)).await else { break };
        let room = room.map_err(ExportError::retry)?;
        let piece = body.split_to(room.min(body.len()));
        stream.send_data(piece, body.is_empty()).map_err(ExportError::retry)?;
    }

    let (head, mut body) = response.await.map_err(ExportError::retry)?.into_parts();
    let mut answer = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.map_err(ExportError::retry)?;
        let _ = body.flow_control().release_capacity(piece.len());
        answer.extend_from_slice(&piece);
        if answer.len() > ANSWER {
            return Err(ExportError::fatal("the collector's answer is too long"));
        }
    }
    let trailers = body.trailers().await.map_err(ExportError::retry)?;
    status(&head.headers, trailers.as_ref(), head.status)?;
    Ok(answer.get(5..).unwrap_or_default().to_vec())
}

/// Without compression, its length before it.
fn frame(body: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + body.len());
    frame.put_u8(0);
    frame.put_u32(body.len() as u32);
    frame.put_slice(body);
    frame.freeze()
}

fn status(head: &HeaderMap, trailers: Option<&HeaderMap>, http: http::StatusCode) -> Result<(), ExportError> {
    let find = |name| trailers.and_then(|trailers| trailers.get(name)).or_else(|| head.get(name));
    let code = find("grpc-status").and_then(|code| code.to_str().ok());
    match code {
        Some("0") => Ok(()),
        // Cancelled, deadline exceeded, resource exhausted, aborted, out of range, unavailable, data loss.
        Some(code @ ("1" | "4" | "8" | "10" | "11" | "14" | "15")) => {
            Err(ExportError::retry(format!("the collector answered grpc status {code}")))
        }
        Some(code) => Err(ExportError::fatal(format!("the collector answered grpc status {code}"))),
        None => Err(ExportError::retry(format!("the collector answered {http} without a grpc status"))),
    }
}

const ANSWER: usize = 1024 * 1024;
