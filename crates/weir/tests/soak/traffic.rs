//! Clients of every kind, a few at a time, one call after the other.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::{Bytes, Frame};
use testkit::client::{self, full, none, piped};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What clients have begun, by whom it was for and by kind, and what they were answered.
#[derive(Default)]
pub struct Counts {
    steady: AtomicU64,
    shaky: AtomicU64,
    kinds: Mutex<BTreeMap<&'static str, u64>>,
    /// By api and status, or `none` where no answer came.
    codes: Mutex<BTreeMap<(&'static str, String), u64>>,
}

/// What every run must have had some of.
pub const KINDS: [&str; 13] = [
    "http/1",
    "http/2",
    "grpc",
    "grpc stream",
    "grpc cancelled",
    "grpc failed",
    "grpc at once",
    "events",
    "websocket",
    "upload",
    "cancelled",
    "faults",
    "shaky",
];

impl Counts {
    pub fn all(&self) -> u64 {
        self.steady() + self.shaky()
    }

    pub fn steady(&self) -> u64 {
        self.steady.load(Ordering::Acquire)
    }

    pub fn shaky(&self) -> u64 {
        self.shaky.load(Ordering::Acquire)
    }

    pub fn kinds(&self) -> BTreeMap<&'static str, u64> {
        self.kinds.lock().unwrap().clone()
    }

    pub fn codes(&self) -> BTreeMap<(&'static str, String), u64> {
        self.codes.lock().unwrap().clone()
    }

    fn note(&self, kind: &'static str) {
        let counter = if kind == "shaky" { &self.shaky } else { &self.steady };
        counter.fetch_add(1, Ordering::AcqRel);
        *self.kinds.lock().unwrap().entry(kind).or_default() += 1;
    }

    fn told(&self, api: &'static str, code: impl ToString) {
        *self.codes.lock().unwrap().entry((api, code.to_string())).or_default() += 1;
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Http1,
    Http2,
    Grpc,
    Streams,
    Events,
    WebSocket,
    Upload,
    Cancel,
    Errors,
    Shaky,
}

/// Until it is to stop; every call that was begun is ended.
pub fn run(web: SocketAddr, counts: &Counts, stopping: &AtomicBool) {
    use Kind::{Cancel, Errors, Events, Grpc, Http1, Http2, Shaky, Streams, Upload, WebSocket};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let repeat = async |kind: Kind| {
        while !stopping.load(Ordering::Acquire) {
            once(kind, web, counts).await;
        }
    };
    // Twice each, so that they meet on the same connections to the services.
    let all = async || {
        tokio::join!(
            repeat(Http1),
            repeat(Http2),
            repeat(Grpc),
            repeat(Grpc),
            repeat(Streams),
            repeat(Events),
            repeat(WebSocket),
            repeat(Upload),
            repeat(Cancel),
            repeat(Errors),
            repeat(Shaky),
        )
    };
    runtime.block_on(async { tokio::join!(all(), all()) });
}

/// A client comes, does what it has to do, and goes.
async fn once(kind: Kind, web: SocketAddr, counts: &Counts) {
    match kind {
        Kind::Http1 => http1(web, counts).await,
        Kind::Http2 => http2(web, counts).await,
        Kind::Grpc => grpc(web, counts).await,
        Kind::Streams => streams(web, counts).await,
        Kind::Events => events(web, counts).await,
        Kind::WebSocket => websocket(web, counts).await,
        Kind::Upload => upload(web, counts).await,
        Kind::Cancel => cancel(web, counts).await,
        Kind::Errors => errors(web, counts).await,
        Kind::Shaky => shaky(web, counts).await,
    }
}

async fn http1(web: SocketAddr, counts: &Counts) {
    let mut http1 = client::http1(web).await;
    for n in 0..50usize {
        http1.ready().await.unwrap();
        counts.note("http/1");
        let request = Request::post("/echo").header("host", "steady.test").body(full("z".repeat(n))).unwrap();
        let answer = http1.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        counts.told("steady", 200);
        answer.into_body().collect().await.unwrap();
    }
}

async fn http2(web: SocketAddr, counts: &Counts) {
    let http2 = client::http2(web).await;
    let call = async |n: usize| {
        counts.note("http/2");
        let request = Request::get(format!("http://steady.test/bytes/{n}")).body(none()).unwrap();
        let answer = http2.clone().send_request(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        counts.told("steady", 200);
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes().len(), n);
    };
    for n in 0..10 {
        tokio::join!(call(n), call(1000 * n), call(10_000 * n), call(100_000 * n));
    }
}

fn call(method: &str) -> http::request::Builder {
    let request = Request::post(format!("http://grpc.test/simulator.Echo/{method}"));
    request.header("content-type", "application/grpc").header("te", "trailers")
}

const MESSAGE: Bytes = Bytes::from_static(b"\0\0\0\0\x05hello");

async fn grpc(web: SocketAddr, counts: &Counts) {
    let mut http2 = client::http2(web).await;
    for _ in 0..10 {
        counts.note("grpc");
        let answer = http2.send_request(call("Unary").body(full(MESSAGE)).unwrap()).await.unwrap();
        counts.told("grpc", answer.status().as_u16());
        assert_eq!(answer.into_body().collect().await.unwrap().trailers().unwrap()["grpc-status"], "0");
    }
    counts.note("grpc failed");
    let request = call("Unary").header("x-grpc-status", "5").body(full(MESSAGE)).unwrap();
    let answer = http2.send_request(request).await.unwrap();
    counts.told("grpc", answer.status().as_u16());
    assert_eq!(answer.headers()["grpc-status"], "5");
    stream(&http2, counts, "grpc stream").await;
}

/// Many at once on one connection, of which some are given up in the middle.
async fn streams(web: SocketAddr, counts: &Counts) {
    let http2 = client::http2(web).await;
    for _ in 0..5 {
        let whole = async || stream(&http2, counts, "grpc at once").await;
        let given_up = async {
            counts.note("grpc cancelled");
            let (sender, body) = piped();
            let answer = http2.clone().send_request(call("Bidi").body(body).unwrap()).await.unwrap();
            counts.told("grpc", answer.status().as_u16());
            let mut body = answer.into_body();
            sender.send(Frame::data(MESSAGE)).await.unwrap();
            assert_eq!(client::piece(&mut body).await.unwrap(), MESSAGE);
        };
        tokio::join!(whole(), whole(), given_up, whole(), whole());
    }
}

/// Both ways at once, to its end.
async fn stream(http2: &client::Http2, counts: &Counts, kind: &'static str) {
    counts.note(kind);
    let (sender, body) = piped();
    let answer = http2.clone().send_request(call("Bidi").body(body).unwrap()).await.unwrap();
    counts.told("grpc", answer.status().as_u16());
    let mut body = answer.into_body();
    for _ in 0..10 {
        sender.send(Frame::data(MESSAGE)).await.unwrap();
        assert_eq!(client::piece(&mut body).await.unwrap(), MESSAGE);
    }
    drop(sender);
    assert_eq!(body.collect().await.unwrap().trailers().unwrap()["grpc-status"], "0");
}

async fn events(web: SocketAddr, counts: &Counts) {
    counts.note("events");
    let mut http1 = client::http1(web).await;
    let request = Request::get("/events?count=20&every=10ms").header("host", "steady.test").body(none()).unwrap();
    let answer = http1.send_request(request).await.unwrap();
    counts.told("steady", answer.status().as_u16());
    let answer = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(String::from_utf8_lossy(&answer).matches("data: ").count(), 20);
}

async fn websocket(web: SocketAddr, counts: &Counts) {
    counts.note("websocket");
    let mut stream = TcpStream::connect(web).await.unwrap();
    let upgrade = "GET /ws HTTP/1.1\r\nhost: steady.test\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(upgrade.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    counts.told("steady", 101);
    for _ in 0..20 {
        // Masked with zeroes, so that it comes back as it went.
        stream.write_all(b"\x81\x85\0\0\0\0hello").await.unwrap();
        let mut back = [0; 7];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"\x81\x05hello");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    stream.write_all(b"\x88\x82\0\0\0\0\x03\xe8").await.unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
}

async fn upload(web: SocketAddr, counts: &Counts) {
    let mut http1 = client::http1(web).await;
    for known in [true, false] {
        counts.note("upload");
        let piece = Bytes::from(vec![b'u'; 64 * 1024]);
        let (sender, body) = piped();
        let request = Request::post("/sink").header("host", "steady.test");
        let request = if known { request.header("content-length", 16 * piece.len()) } else { request };
        http1.ready().await.unwrap();
        let send = async {
            for _ in 0..16 {
                sender.send(Frame::data(piece.clone())).await.unwrap();
            }
            drop(sender);
        };
        let (answer, ()) = tokio::join!(http1.send_request(request.body(body).unwrap()), send);
        let answer = answer.unwrap();
        counts.told("steady", answer.status().as_u16());
        let answer = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&answer).contains("1048576"));
    }
}

/// Leaves in the middle of an answer: with the connection, and with the stream alone.
async fn cancel(web: SocketAddr, counts: &Counts) {
    let mut http1 = client::http1(web).await;
    let mut http2 = client::http2(web).await;
    counts.note("cancelled");
    let uri = "http://steady.test/events?count=1000&every=5ms";
    let request = Request::get("/events?count=1000&every=5ms").header("host", "steady.test").body(none()).unwrap();
    let answer = http1.send_request(request).await.unwrap();
    counts.told("steady", answer.status().as_u16());
    let mut body = answer.into_body();
    client::piece(&mut body).await.unwrap();
    drop((body, http1));
    for _ in 0..5 {
        counts.note("cancelled");
        let answer = http2.send_request(Request::get(uri).body(none()).unwrap()).await.unwrap();
        counts.told("steady", answer.status().as_u16());
        client::piece(&mut answer.into_body()).await.unwrap();
    }
}

async fn errors(web: SocketAddr, counts: &Counts) {
    for (fault, status, whole) in [
        ("status=503", 503, true),
        ("cut=100", 200, false),
        ("reset=100", 200, false),
        ("garbage", 502, true),
        ("reset", 502, true),
        ("early=413", 413, true),
        ("delay=5", 200, true),
    ] {
        counts.note("faults");
        let mut http1 = client::http1(web).await;
        let request = Request::get("/bytes/100000").header("host", "steady.test").header("x-fault", fault);
        let answer = match http1.send_request(request.body(none()).unwrap()).await {
            Ok(answer) => answer,
            // It may break before its head is on its way; what the gateway had counted by then is told apart.
            Err(_) if !whole => {
                counts.told("steady", "broken");
                continue;
            }
            Err(error) => panic!("{fault}: {error}"),
        };
        assert_eq!(answer.status(), status, "{fault}");
        counts.told("steady", status);
        assert_eq!(answer.into_body().collect().await.is_ok(), whole, "{fault}");
    }
}

/// Of a service that goes and comes.
async fn shaky(web: SocketAddr, counts: &Counts) {
    let mut http1 = client::http1(web).await;
    for _ in 0..20 {
        if http1.ready().await.is_err() {
            return;
        }
        counts.note("shaky");
        let request = Request::get("/delay/1").header("host", "shaky.test").body(none()).unwrap();
        let answer = http1.send_request(request).await.unwrap();
        assert!(matches!(answer.status().as_u16(), 200 | 502 | 503), "{}", answer.status());
        counts.told("shaky", answer.status().as_u16());
        // An answer may break off with the service.
        let _ = answer.into_body().collect().await;
    }
}
