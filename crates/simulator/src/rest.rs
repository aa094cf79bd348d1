//! Ordinary requests with ordinary answers.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use serde_json::{Map, Value, json};
use tokio::time::sleep;

use crate::answer::{Answer, full, piped, text, typed};
use crate::model::books::Books;

static ZEROES: [u8; 64 * 1024] = [b'0'; 64 * 1024];

/// A parameter of the query, as it stands there: nothing the simulator takes needs percent-decoding.
pub(crate) fn query<'r, B>(request: &'r Request<B>, name: &str) -> Option<&'r str> {
    query_of(request.uri(), name)
}

pub(crate) fn query_of<'u>(uri: &'u Uri, name: &str) -> Option<&'u str> {
    let pairs = uri.query()?.split('&');
    pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
}

pub(crate) async fn echo(request: Request<Incoming>, instance: &str) -> Answer {
    let (head, body) = request.into_parts();
    let whole = match body.collect().await {
        Ok(whole) => whole,
        Err(error) => return text(StatusCode::BAD_REQUEST, format!("the body did not arrive whole: {error}\n")),
    };
    let trailers = whole.trailers().cloned().unwrap_or_default();
    let body = whole.to_bytes();
    let authority = head.uri.authority().map(|authority| authority.as_str());
    let echo = json!({
        "instance": instance,
        "version": format!("{:?}", head.version),
        "method": head.method.as_str(),
        "authority": authority,
        "path": head.uri.path(),
        "query": head.uri.query().unwrap_or_default(),
        "headers": joined(&head.headers),
        "trailers": joined(&trailers),
        "length": body.len(),
        "body": String::from_utf8_lossy(&body),
    });
    typed(StatusCode::OK, "application/json", full(format!("{echo}\n")))
}

/// Name to value; a name that came several times has its values joined as HTTP says.
fn joined(headers: &HeaderMap) -> Value {
    let mut map = Map::new();
    for name in headers.keys() {
        let values: Vec<_> =
            headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        map.insert(name.as_str().to_owned(), Value::String(values.join(", ")));
    }
    Value::Object(map)
}

fn argument(path: &str) -> Option<u64> {
    path.split('/').nth(2)?.parse().ok()
}

pub(crate) fn bytes(path: &str) -> Answer {
    let Some(length) = argument(path) else { return text(StatusCode::BAD_REQUEST, "/bytes/{n}\n") };
    if length <= ZEROES.len() as u64 {
        let body = full(Bytes::from_static(&ZEROES[..length as usize]));
        return typed(StatusCode::OK, "application/octet-stream", body);
    }
    let (sender, body) = piped(4);
    tokio::spawn(async move {
        let mut left = length;
        while left > 0 {
            let now = left.min(ZEROES.len() as u64);
            if sender.send(Ok(Frame::data(Bytes::from_static(&ZEROES[..now as usize])))).await.is_err() {
                return;
            }
            left -= now;
        }
    });
    let mut answer = typed(StatusCode::OK, "application/octet-stream", body);
    answer.headers_mut().insert(http::header::CONTENT_LENGTH, length.into());
    answer
}

pub(crate) async fn sink(request: Request<Incoming>) -> Answer {
    let mut body = request.into_body();
    let mut count = 0u64;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => count += frame.data_ref().map_or(0, |data| data.len() as u64),
            Err(error) => return text(StatusCode::BAD_REQUEST, format!("{count} bytes, then {error}\n")),
        }
    }
    text(StatusCode::OK, format!("{count}\n"))
}

pub(crate) fn status(path: &str) -> Answer {
    let code = argument(path).and_then(|code| u16::try_from(code).ok()).filter(|code| *code >= 200);
    match code.and_then(|code| StatusCode::from_u16(code).ok()) {
        Some(status @ (StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)) => {
            let mut answer = Answer::new(crate::answer::empty());
            *answer.status_mut() = status;
            answer
        }
        Some(status) => text(status, format!("{status}\n")),
        None => text(StatusCode::BAD_REQUEST, "/status/{code}\n"),
    }
}

pub(crate) async fn delay(path: &str) -> Answer {
    let Some(ms) = argument(path) else { return text(StatusCode::BAD_REQUEST, "/delay/{ms}\n") };
    sleep(Duration::from_millis(ms)).await;
    text(StatusCode::OK, format!("{ms} ms late\n"))
}

pub(crate) fn health(healthy: bool) -> Answer {
    if healthy { text(StatusCode::OK, "ok\n") } else { text(StatusCode::SERVICE_UNAVAILABLE, "unhealthy\n") }
}

/// Those who wait for a call to end ask again and again, so they can say what they have seen.
pub(crate) fn books<B>(request: &Request<B>, books: &Books) -> Answer {
    match query(request, "since").map_or(Ok(0), str::parse) {
        Ok(since) => typed(StatusCode::OK, "application/json", full(books.json(since).to_string())),
        Err(_) => text(StatusCode::BAD_REQUEST, "/books?since=NUMBER\n"),
    }
}
