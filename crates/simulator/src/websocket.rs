//! WebSocket echo (RFC 6455), by hand: text and binary come back as they were, pings are answered, a close is returned.

use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Request, StatusCode, header};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::answer::{Answer, empty, text};

const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;
/// More than any test sends in one frame.
const LARGEST: u64 = 16 * 1024 * 1024;

pub(crate) fn upgrade(mut request: Request<Incoming>) -> Answer {
    let headers = request.headers();
    let upgrade = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok());
    let (Some(key), true) =
        (headers.get(header::SEC_WEBSOCKET_KEY), upgrade.is_some_and(|value| value.eq_ignore_ascii_case("websocket")))
    else {
        return text(StatusCode::UPGRADE_REQUIRED, "a WebSocket handshake, please\n");
    };
    let accept = accept(key.as_bytes());
    let protocol = headers.get(header::SEC_WEBSOCKET_PROTOCOL).cloned();
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(stream) = upgraded.await {
            let _ = echo(TokioIo::new(stream)).await;
        }
    });
    let mut answer = Answer::new(empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(protocol) = protocol {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    answer
}

fn accept(key: &[u8]) -> String {
    let mut sha = sha1_smol::Sha1::new();
    sha.update(key);
    sha.update(GUID.as_bytes());
    STANDARD.encode(sha.digest().bytes())
}

async fn echo(mut stream: TokioIo<Upgraded>) -> io::Result<()> {
    let mut payload = Vec::new();
    loop {
        let first = stream.read_u8().await?;
        let second = stream.read_u8().await?;
        let length = match second & 0x7f {
            126 => u64::from(stream.read_u16().await?),
            127 => stream.read_u64().await?,
            short => u64::from(short),
        };
        if second & 0x80 == 0 || length > LARGEST {
            // 1002: a client must mask.
            return send(&mut stream, 0x80 | CLOSE, &1002u16.to_be_bytes()).await;
        }
        let mut mask = [0; 4];
        stream.read_exact(&mut mask).await?;
        payload.resize(length as usize, 0);
        stream.read_exact(&mut payload).await?;
        for (index, byte) in payload.iter_mut().enumerate() {
            *byte ^= mask[index % 4];
        }
        match first & 0x0f {
            PING => send(&mut stream, 0x80 | PONG, &payload).await?,
            PONG => {}
            CLOSE => {
                send(&mut stream, first, &payload).await?;
                return stream.shutdown().await;
            }
            _ => send(&mut stream, first, &payload).await?,
        }
    }
}

async fn send(stream: &mut TokioIo<Upgraded>, first: u8, payload: &[u8]) -> io::Result<()> {
    let mut frame = Vec::with_capacity(payload.len() + 10);
    frame.push(first);
    match payload.len() {
        short @ 0..126 => frame.push(short as u8),
        middle @ 126..0x1_0000 => {
            frame.push(126);
            frame.extend_from_slice(&(middle as u16).to_be_bytes());
        }
        long => {
            frame.push(127);
            frame.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    stream.write_all(&frame).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_example_of_the_rfc() {
        assert_eq!(super::accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
