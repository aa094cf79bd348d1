//! OTLP/HTTP: one POST a connection. Exports are seconds apart, so a kept connection would be a stale one.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Collector, ExportError, Signal};

/// The body of the answer; empty if it came in chunks, which is only the loss of a warning.
pub(super) async fn post(collector: &Collector, signal: Signal, body: &[u8]) -> Result<Vec<u8>, ExportError> {
    let path = match signal {
        Signal::Traces => "/v1/traces",
        Signal::Metrics => "/v1/metrics",
    };
    let mut head = format!(
        "POST {}{path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\
         connection: close\r\n",
        collector.prefix,
        collector.authority,
        body.len(),
    )
    .into_bytes();
    for (name, value) in &collector.settings.headers {
        head.extend_from_slice(name.as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.expose());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");

    let mut stream = collector.connect().await?;
    stream.write_all(&head).await.map_err(ExportError::retry)?;
    stream.write_all(body).await.map_err(ExportError::retry)?;
    stream.flush().await.map_err(ExportError::retry)?;
    let mut answer = Vec::new();
    match stream.take(ANSWER).read_to_end(&mut answer).await {
        Ok(_) => {}
        // Many close without the word that TLS has for it; what matters of the answer is its head.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && !answer.is_empty() => {}
        Err(error) => return Err(ExportError::retry(error)),
    }

    let end = answer.windows(4).position(|end| end == b"\r\n\r\n");
    let (head, body) = match end {
        Some(end) => (&answer[..end], &answer[end + 4..]),
        None => return Err(ExportError::retry("the collector broke off its answer")),
    };
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok()).unwrap_or_default();
    match status {
        200..300 if head.contains("\r\ntransfer-encoding:") => Ok(Vec::new()),
        200..300 => Ok(body.to_vec()),
        429 | 502..=504 => Err(ExportError::retry(format!("the collector answered {status}"))),
        _ => Err(ExportError::fatal(format!("the collector answered {status}"))),
    }
}

const ANSWER: u64 = 1024 * 1024;
