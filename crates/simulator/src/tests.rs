use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;

use crate::raw::{Script, Server, Then};
use crate::{Fault, Options, Simulator};

pub(crate) struct Got {
    pub(crate) head: Response<()>,
    pub(crate) body: Bytes,
    pub(crate) trailers: HeaderMap,
}

pub(crate) fn simulator() -> Simulator {
    Simulator::start(Options::named("one")).unwrap()
}

fn post(path: &str, body: &'static [u8]) -> Request<Full<Bytes>> {
    let request = Request::post(path).header("host", "simulator");
    request.body(Full::new(Bytes::from_static(body))).unwrap()
}

pub(crate) fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("host", "simulator").header("te", "trailers").body(Full::default()).unwrap()
}

pub(crate) fn block<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(10), future).await.unwrap() })
}

async fn whole(answer: Response<hyper::body::Incoming>) -> Result<Got, hyper::Error> {
    let (head, body) = answer.into_parts();
    let body = body.collect().await?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    Ok(Got { head: Response::from_parts(head, ()), body: body.to_bytes(), trailers })
}

pub(crate) fn h1(simulator: &Simulator, request: Request<Full<Bytes>>) -> Result<Got, hyper::Error> {
    block(async {
        let stream = tokio::net::TcpStream::connect(simulator.address()).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        whole(sender.send_request(request).await?).await
    })
}

pub(crate) fn h2(simulator: &Simulator, mut request: Request<Full<Bytes>>) -> Result<Got, hyper::Error> {
    *request.uri_mut() = format!("http://simulator{}", request.uri()).parse().unwrap();
    block(async {
        let stream = tokio::net::TcpStream::connect(simulator.address()).await.unwrap();
        let executor = TokioExecutor::new();
        let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        whole(sender.send_request(request).await?).await
    })
}

#[test]
fn echoes_on_both_versions() {
    let simulator = simulator();
    for call in [h1, h2] {
        let got = call(&simulator, post("/echo?a=1&b=2", b"hello")).unwrap();
        let echo: Value = serde_json::from_slice(&got.body).unwrap();
        assert_eq!(echo["instance"], "one");
        assert_eq!(echo["method"], "POST");
        assert_eq!(echo["path"], "/echo");
        assert_eq!(echo["query"], "a=1&b=2");
        assert_eq!(echo["headers"]["host"], "simulator");
        assert_eq!(echo["body"], "hello");
    }
    assert_eq!(simulator.requests(), 2);
    assert_eq!(simulator.connections(), 2);
    assert_eq!(simulator.seen("/echo").len(), 2);
    assert_eq!(simulator.seen("/other").len(), 0);
}

#[test]
fn bodies_and_statuses() {
    let simulator = simulator();
    assert_eq!(h1(&simulator, get("/bytes/100000")).unwrap().body.len(), 100_000);
    assert_eq!(h1(&simulator, post("/sink", &[7; 5000])).unwrap().body, "5000\n");
    assert_eq!(h1(&simulator, get("/status/418")).unwrap().head.status(), StatusCode::IM_A_TEAPOT);
    assert_eq!(h1(&simulator, get("/slow-body?chunks=2&every=1ms")).unwrap().body, "chunk 0\nchunk 1\n");
    let events = h1(&simulator, get("/events?count=3&every=1ms&size=120")).unwrap().body;
    assert_eq!(events.len(), 3 * 120);
    assert!(events.starts_with(b"data: 0 "));
    for call in [h1, h2] {
        assert_eq!(call(&simulator, get("/trailers")).unwrap().trailers["x-trailer"], "the end");
    }
}

#[test]
fn health_turns() {
    let simulator = simulator();
    assert_eq!(h1(&simulator, get("/health")).unwrap().head.status(), StatusCode::OK);
    simulator.set_healthy(false);
    assert_eq!(h1(&simulator, get("/health")).unwrap().head.status(), StatusCode::SERVICE_UNAVAILABLE);
    let got = h2(&simulator, post("/grpc.health.v1.Health/Check", &[0; 5])).unwrap();
    assert_eq!(got.body.as_ref(), [0, 0, 0, 0, 2, 8, 2]);
    assert_eq!(got.trailers["grpc-status"], "0");
}

#[test]
fn grpc_echo() {
    let simulator = simulator();
    let message = b"\0\0\0\0\x02hi";
    for (method, times) in [("Unary", 1), ("Bidi", 1), ("ServerStream", 3)] {
        let got = h2(&simulator, post(&format!("/simulator.Echo/{method}"), message)).unwrap();
        assert_eq!(got.body, message.repeat(times), "{method}");
        assert_eq!(got.trailers["grpc-status"], "0", "{method}");
    }
    let mut failing = post("/simulator.Echo/Unary", message);
    failing.headers_mut().insert("x-grpc-status", "7".parse().unwrap());
    assert_eq!(h2(&simulator, failing).unwrap().head.headers()["grpc-status"], "7");
}

#[test]
fn faults() {
    let simulator = simulator();
    for call in [h1, h2] {
        assert!(call(&simulator, get("/bytes/1000?fault=cut=10")).is_err());
        assert!(call(&simulator, get("/?fault=reset")).is_err());
        assert!(call(&simulator, get("/?fault=garbage")).is_err());
        assert_eq!(call(&simulator, get("/?fault=status=503")).unwrap().head.status(), 503);
        assert_eq!(call(&simulator, get("/?fault=nonsense")).unwrap().head.status(), 400);
    }
    simulator.inject(Fault::Status(StatusCode::BAD_GATEWAY), 1);
    assert_eq!(h1(&simulator, get("/")).unwrap().head.status(), 502);
    assert_eq!(h1(&simulator, get("/")).unwrap().head.status(), 200);
}

#[test]
fn a_cut_answer_has_its_first_bytes() {
    let simulator = simulator();
    let mut stream = TcpStream::connect(simulator.address()).unwrap();
    stream.write_all(b"GET /bytes/1000 HTTP/1.1\r\nhost: a\r\nx-fault: cut=10\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("content-length: 1000\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n0000000000"), "{answer}");
}

#[test]
fn an_early_answer_does_not_wait_for_the_body() {
    let simulator = simulator();
    let mut stream = TcpStream::connect(simulator.address()).unwrap();
    stream.write_all(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\nx-fault: early=403\r\n\r\n").unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 403");
}

#[test]
fn websocket_echo() {
    let simulator = simulator();
    let mut stream = TcpStream::connect(simulator.address()).unwrap();
    stream
        .write_all(
            b"GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
              sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101"));
    let mut exchange = |sent: &[u8], expected: &[u8]| {
        stream.write_all(sent).unwrap();
        let mut frame = vec![0; expected.len()];
        stream.read_exact(&mut frame).unwrap();
        assert_eq!(frame, expected);
    };
    exchange(b"\x81\x82\0\0\0\0hi", b"\x81\x02hi");
    exchange(b"\x89\x81\x01\x01\x01\x01\x60", b"\x8a\x01a");
    exchange(b"\x88\x82\0\0\0\0\x03\xe8", b"\x88\x02\x03\xe8");
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

#[test]
fn raw_scripts() {
    let server =
        Server::start(vec![Script::answer("nonsense"), Script::answer("HTTP/1.1 200 OK\r\n\r\n").then(Then::Reset)])
            .unwrap();
    let mut first = TcpStream::connect(server.address()).unwrap();
    first.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    first.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "nonsense");
    assert_eq!(server.received(), [b"GET / HTTP/1.1\r\n\r\n"]);
    let mut second = TcpStream::connect(server.address()).unwrap();
    second.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert!(second.read_to_end(&mut Vec::new()).is_err());
}

#[test]
fn stops_when_dropped() {
    let simulator = simulator();
    let address = simulator.address();
    let mut open = TcpStream::connect(address).unwrap();
    drop(simulator);
    assert!(TcpStream::connect(address).is_err());
    assert!(!matches!(open.read(&mut [0]), Ok(1..)));
}
