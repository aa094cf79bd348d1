//! gRPC, without knowing any message: frames of raw bytes go back as they came.
//!
//! Request headers steer it: `x-grpc-status: N` fails the call with that status, `x-count` and `x-every` (milliseconds)
//! pace `ServerStream`.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use tokio::time::sleep;

use crate::answer::{Answer, AnswerBody, empty, piped, typed};

const CONTENT_TYPE: &str = "application/grpc";
const OK: &str = "0";
const INTERNAL: &str = "13";
const UNIMPLEMENTED: &str = "12";

/// `grpc.health.v1.HealthCheckResponse { status: SERVING }` and `{ status: NOT_SERVING }`, each in its frame.
const SERVING: &[u8] = &[0, 0, 0, 0, 2, 0x08, 1];
const NOT_SERVING: &[u8] = &[0, 0, 0, 0, 2, 0x08, 2];

pub(crate) async fn call(request: Request<Incoming>, healthy: bool) -> Answer {
    let number = |name: &str| -> Option<u64> { request.headers().get(name)?.to_str().ok()?.parse().ok() };
    if let Some(status) = number("x-grpc-status") {
        let status = status.to_string();
        let _ = request.into_body().collect().await;
        return trailers_only(&status);
    }
    let (count, every) = (number("x-count").unwrap_or(3), number("x-every").unwrap_or(0));
    let path = request.uri().path().to_owned();
    let mut body = request.into_body();
    match path.as_str() {
        "/simulator.Echo/Bidi" => {
            let (sender, answer) = piped(16);
            tokio::spawn(async move {
                let mut status = OK;
                while let Some(frame) = body.frame().await {
                    let Ok(frame) = frame else {
                        status = INTERNAL;
                        break;
                    };
                    let Ok(data) = frame.into_data() else { continue };
                    if sender.send(Ok(Frame::data(data))).await.is_err() {
                        return;
                    }
                }
                let _ = sender.send(Ok(Frame::trailers(ending(status)))).await;
            });
            grpc(answer)
        }
        "/simulator.Echo/Unary" | "/simulator.Echo/ServerStream" | "/grpc.health.v1.Health/Check" => {
            let Ok(request) = body.collect().await else { return trailers_only(INTERNAL) };
            let (message, count) = match path.as_str() {
                "/grpc.health.v1.Health/Check" => (Bytes::from_static(if healthy { SERVING } else { NOT_SERVING }), 1),
                "/simulator.Echo/Unary" => (request.to_bytes(), 1),
                _ => (request.to_bytes(), count),
            };
            let (sender, answer) = piped(16);
            tokio::spawn(async move {
                for number in 0..count {
                    if number > 0 && every > 0 {
                        sleep(Duration::from_millis(every)).await;
                    }
                    if sender.send(Ok(Frame::data(message.clone()))).await.is_err() {
                        return;
                    }
                }
                let _ = sender.send(Ok(Frame::trailers(ending(OK)))).await;
            });
            grpc(answer)
        }
        _ => trailers_only(UNIMPLEMENTED),
    }
}

fn grpc(body: AnswerBody) -> Answer {
    typed(StatusCode::OK, CONTENT_TYPE, body)
}

fn ending(status: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    let status = HeaderValue::from_str(status).unwrap_or(HeaderValue::from_static(INTERNAL));
    trailers.insert("grpc-status", status);
    trailers
}

fn trailers_only(status: &str) -> Answer {
    let mut answer = grpc(empty());
    answer.headers_mut().extend(ending(status));
    answer
}
