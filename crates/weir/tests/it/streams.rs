//! What lasts: events, WebSocket, gRPC, large bodies, many streams at once.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::{Bytes, Frame};
use hyper::http::request::Builder;
use simulator::{Options, Simulator};
use testkit::client::{self, full, none, piece, piped};
use testkit::{Folder, Gateway, PATIENCE, Raw, curl, eventually};

use crate::h2peer::{self, Peer};

fn simulator() -> Simulator {
    Simulator::start(Options::default()).unwrap()
}

fn through(upstream: &str, protocol: &str) -> Gateway {
    Gateway::start(&format!(
        "upstreams: {{ s: {{ endpoints: ['{upstream}'], protocol: {protocol} }} }}\napis: {{ a: {{ upstream: s }} }}\n"
    ))
}

/// A service that sends an event whenever it is told to, and tells when its peer has gone.
struct Paced {
    url: String,
    events: mpsc::Sender<&'static str>,
    gone: mpsc::Receiver<()>,
}

impl Paced {
    fn start() -> Paced {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (events, orders) = mpsc::channel::<&'static str>();
        let (tell, gone) = mpsc::channel();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            let mut reader: TcpStream = stream.try_clone().unwrap();
            std::thread::spawn(move || {
                let _ = reader.read(&mut [0; 100]);
                let _ = tell.send(());
            });
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
                .unwrap();
            for event in orders {
                if write!(stream, "{:x}\r\n{event}\r\n", event.len()).is_err() {
                    return;
                }
            }
            let _ = stream.write_all(b"0\r\n\r\n");
        });
        Paced { url, events, gone }
    }
}

const EVENTS: [&str; 4] = ["data: 1\n\n", "data: 2\n\n", "id: 9\ndata: three\n\n", ": quiet\n\n"];

#[test]
fn each_event_arrives_before_the_next_is_sent() {
    let service = Paced::start();
    let gateway = through(&service.url, "http1");
    let mut raw = Raw::connect(gateway.web());
    raw.send("GET / HTTP/1.1\r\nhost: t\r\naccept: text/event-stream\r\n\r\n");
    // The head comes though no event was sent.
    assert_eq!(raw.head().unwrap().header("content-type"), Some("text/event-stream"));
    for event in EVENTS {
        service.events.send(event).unwrap();
        assert_eq!(usize::from_str_radix(&raw.line().unwrap(), 16), Ok(event.len()));
        assert_eq!(raw.exactly(event.len() + 2), format!("{event}\r\n").as_bytes());
    }
    drop(service.events);
    assert_eq!((raw.line().unwrap().as_str(), raw.line().unwrap().as_str()), ("0", ""));
}

#[test]
fn each_event_arrives_before_the_next_is_sent_in_http_2() {
    let service = Paced::start();
    let gateway = through(&service.url, "http1");
    client::run(async {
        let mut http2 = client::http2(gateway.web()).await;
        let request = Request::get(gateway.url()).body(none()).unwrap();
        let mut body = http2.send_request(request).await.unwrap().into_body();
        for event in EVENTS {
            service.events.send(event).unwrap();
            assert_eq!(piece(&mut body).await.unwrap(), event);
        }
        drop(service.events);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "");
    });
}

#[test]
fn an_upstream_hears_that_the_client_left() {
    for http2 in [false, true] {
        let service = Paced::start();
        let gateway = through(&service.url, "http1");
        if http2 {
            client::run(async {
                let mut http2 = client::http2(gateway.web()).await;
                let request = Request::get(gateway.url()).body(none()).unwrap();
                let mut body = http2.send_request(request).await.unwrap().into_body();
                service.events.send(EVENTS[0]).unwrap();
                assert_eq!(piece(&mut body).await.unwrap(), EVENTS[0]);
                assert!(service.gone.try_recv().is_err(), "it is still wanted");
                drop(body);
                tokio::task::yield_now().await;
                // The connection stays, only the stream was left.
                let told = tokio::task::spawn_blocking(move || service.gone.recv_timeout(PATIENCE)).await;
                assert!(told.unwrap().is_ok());
            });
        } else {
            let mut raw = Raw::connect(gateway.web());
            raw.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n");
            raw.head().unwrap();
            assert!(service.gone.try_recv().is_err(), "it is still wanted");
            drop(raw);
            assert!(service.gone.recv_timeout(PATIENCE).is_ok());
        }
    }
}

#[test]
fn curl_reads_events_of_the_simulator() {
    let service = simulator();
    let gateway = through(&service.url(), "auto");
    for flag in ["--http1.1", "--http2-prior-knowledge"] {
        let said = curl(&[flag, "-N", &format!("{}/events?count=20&every=1ms&size=64", gateway.url())]);
        assert_eq!((said.code, said.answer.text().matches("data: ").count()), (0, 20), "{flag}");
    }
}

// === WebSocket ===

/// A frame of a client, masked as it must be.
fn websocket(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
    }
    let mask = [1, 2, 3, 4];
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

#[test]
fn a_websocket_goes_through() {
    let service = simulator();
    let gateway = through(&service.url(), "auto");
    let mut raw = Raw::connect(gateway.web());
    let upgrade = "GET /ws HTTP/1.1\r\nhost: t\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    // The first frame with the request itself: it must not be lost.
    raw.send([upgrade.as_bytes(), &websocket(1, b"early")].concat());
    let answer = raw.head().unwrap();
    assert_eq!(answer.status, 101, "{answer:?}");
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert!(answer.header("upgrade").is_some_and(|it| it.eq_ignore_ascii_case("websocket")), "{answer:?}");
    assert_eq!(raw.exactly(7), b"\x81\x05early");
    for n in 0..50 {
        let text = format!("message {n:04}");
        raw.send(websocket(1, text.as_bytes()));
        assert_eq!(&raw.exactly(14)[2..], text.as_bytes());
    }
    let large = vec![b'w'; 60_000];
    raw.send(websocket(2, &large));
    assert_eq!(&raw.exactly(4 + large.len())[4..], large);
    raw.send(websocket(8, &1000u16.to_be_bytes()));
    assert_eq!(raw.exactly(4), [0x88, 2, 0x03, 0xe8]);
    assert!(raw.is_closed());

    // What the service does not upgrade is answered as any other.
    let mut raw = Raw::connect(gateway.web());
    let answer = raw.send(upgrade.replace("/ws", "/bytes/3")).answer();
    assert_eq!((answer.status, answer.text().as_str()), (200, "000"));
}

#[test]
fn a_websocket_over_http_2_goes_through() {
    let service = simulator();
    speak_over_http_2(&through(&service.url(), "auto"));
}

#[track_caller]
fn speak_over_http_2(gateway: &Gateway) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let talk = async {
        let io = tokio::net::TcpStream::connect(gateway.web()).await.unwrap();
        let (mut client, connection) = h2::client::handshake(io).await.unwrap();
        let driver = tokio::spawn(connection);
        // The settings that allow extended CONNECT come with the first answer.
        let plain = Request::get("http://t/bytes/3").body(()).unwrap();
        let (answer, _) = client.send_request(plain, true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
        let connect = Request::connect("http://t/ws")
            .extension(h2::ext::Protocol::from_static("websocket"))
            .header("sec-websocket-version", "13")
            .body(())
            .unwrap();
        let (answer, mut send) = client.send_request(connect, false).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(!answer.headers().contains_key("sec-websocket-accept"));
        let mut body = answer.into_body();
        send.send_data(websocket(1, b"hello").into(), false).unwrap();
        let mut echoed = Vec::new();
        while echoed.len() < 7 {
            echoed.extend_from_slice(&body.data().await.unwrap().unwrap());
        }
        assert_eq!(echoed, b"\x81\x05hello");
        driver.abort();
    };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, talk).await.unwrap() });
}

const TALK: &str = r#"
import sys
from websockets.sync.client import connect
with connect("ws://" + sys.argv[1] + "/ws") as ws:
    for n in range(20):
        ws.send("x" * n * 1000)
        assert ws.recv() == "x" * n * 1000, n
"#;

#[test]
fn a_websocket_of_python_goes_through() {
    let service = simulator();
    let gateway = through(&service.url(), "auto");
    python("import websockets", &format!("{TALK}    assert ws.ping().wait(5)\n"), &gateway);
}

#[test]
fn a_websocket_finds_an_upstream_of_http_2() {
    let peer = Peer::start(h2peer::Settings { streams: 100, extended_connect: true });
    let gateway = through(&peer.url(), "http2");
    let ask = |gateway: &Gateway| {
        let mut raw = Raw::connect(gateway.web());
        let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        raw.send(format!("GET /ws HTTP/1.1\r\nhost: t\r\n{upgrade}\r\n"));
        raw
    };
    let mut raw = ask(&gateway);
    let answer = raw.head().unwrap();
    assert_eq!((answer.status, answer.header("upgrade")), (101, Some("websocket")), "{answer:?}");
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    raw.send(websocket(1, b"hello"));
    assert_eq!(raw.exactly(7), b"\x81\x05hello");
    python("import websockets", TALK, &gateway);
    // From HTTP/2 to HTTP/2, and from there through another gateway to HTTP/1.
    speak_over_http_2(&gateway);
    let service = simulator();
    let far = through(&service.url(), "auto");
    let near = through(&far.url(), "http2");
    speak_over_http_2(&near);
    python("import websockets", TALK, &near);

    // What the upstream's settings do not allow is not tried.
    let plain = Peer::start(h2peer::Settings { streams: 100, extended_connect: false });
    let gateway = through(&plain.url(), "http2");
    let answer = ask(&gateway).answer();
    assert_eq!(answer.status, 501, "{answer:?}");
    assert_eq!(answer.json()["type"], "urn:weir:problem:upgrade-not-supported");
    assert_eq!(Raw::connect(gateway.web()).get("/", "").text(), "ok", "anything else is");
}

// === gRPC ===

fn message(text: &str) -> Bytes {
    let mut bytes = vec![0];
    bytes.extend((text.len() as u32).to_be_bytes());
    bytes.extend(text.as_bytes());
    bytes.into()
}

fn grpc(gateway: &Gateway, method: &str) -> Builder {
    Request::post(format!("{}/simulator.Echo/{method}", gateway.url()))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

#[test]
fn grpc_of_every_shape_goes_through() {
    let service = simulator();
    let gateway = through(&service.url(), "http2");
    client::run(async {
        let mut http2 = client::http2(gateway.web()).await;
        let unary = grpc(&gateway, "Unary").body(full(message("hello"))).unwrap();
        let answer = http2.send_request(unary).await.unwrap();
        assert_eq!(answer.headers()["content-type"], "application/grpc");
        let whole = answer.into_body().collect().await.unwrap();
        assert_eq!(whole.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(whole.to_bytes(), message("hello"));

        let failing = grpc(&gateway, "Unary").header("x-grpc-status", "5").body(full(message(""))).unwrap();
        let answer = http2.send_request(failing).await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], "5", "trailers only");

        let streaming = grpc(&gateway, "ServerStream").header("x-count", "5").header("x-every", "1");
        let answer = http2.send_request(streaming.body(full(message("again"))).unwrap()).await.unwrap();
        let whole = answer.into_body().collect().await.unwrap();
        assert_eq!(whole.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(whole.to_bytes().len(), 5 * message("again").len());

        // Each message comes back before the next is sent.
        let (sender, body) = piped();
        let mut body = http2.send_request(grpc(&gateway, "Bidi").body(body).unwrap()).await.unwrap().into_body();
        for n in 0..10 {
            let message = message(&n.to_string());
            sender.send(Frame::data(message.clone())).await.unwrap();
            assert_eq!(piece(&mut body).await.unwrap(), message);
        }
        drop(sender);
        let ending = body.collect().await.unwrap();
        assert_eq!(ending.trailers().unwrap()["grpc-status"], "0");
    });
    assert!(service.journal().iter().all(|seen| seen.header("te") == Some("trailers")));
}

#[test]
fn grpc_of_python_goes_through() {
    let service = simulator();
    let gateway = through(&service.url(), "http2");
    python(
        "import grpc",
        r#"
import grpc, sys
raw = dict(request_serializer=lambda it: it, response_deserializer=lambda it: it)
with grpc.insecure_channel(sys.argv[1]) as channel:
    unary = channel.unary_unary("/simulator.Echo/Unary", **raw)
    assert unary(b"hello", timeout=10) == b"hello"
    assert unary(b"x" * 1000000, timeout=10) == b"x" * 1000000
    try:
        unary(b"", timeout=10, metadata=[("x-grpc-status", "7")])
        raise SystemExit("no error")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.PERMISSION_DENIED, error
    stream = channel.unary_stream("/simulator.Echo/ServerStream", **raw)
    assert list(stream(b"a", timeout=10, metadata=[("x-count", "7")])) == [b"a"] * 7
    bidi = channel.stream_stream("/simulator.Echo/Bidi", **raw)
    assert list(bidi(iter([b"1", b"2", b"3"]), timeout=10)) == [b"1", b"2", b"3"]
    call = stream(b"a", timeout=10, metadata=[("x-count", "100000"), ("x-every", "1")])
    next(call); call.cancel()
    try:
        unary(b"", timeout=0.2, metadata=[("x-fault", "hang")])
        raise SystemExit("no error")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
"#,
        &gateway,
    );
}

/// Runs a client in Python, where `scripts/test-setup.sh` has made the venv for it.
#[track_caller]
fn python(needs: &str, script: &str, gateway: &Gateway) {
    let interpreter = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/test-venv/bin/python3");
    let has = Command::new(interpreter).args(["-c", needs]).output().is_ok_and(|output| output.status.success());
    if !has {
        eprintln!("left out: no venv with `{needs}`; scripts/test-setup.sh makes one");
        return;
    }
    let output = Command::new(interpreter).args(["-c", script, &gateway.web().to_string()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

// === Much at once ===

const LARGE: usize = 20 << 20;

/// Bytes that tell when one of them is in the wrong place.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32 / 4).flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect()
}

#[test]
fn large_bodies_arrive_as_they_were_sent() {
    for protocol in ["http1", "http2"] {
        // Two gateways, one behind the other, so that our own client and server meet too.
        let service = Echo::start();
        let inner = through(&service.url, "http1");
        let outer = through(&inner.url(), protocol);
        let folder = Folder::new();
        let sent = pattern(LARGE);
        let data = format!("@{}", folder.write("large", &sent).display());
        for flag in ["--http1.1", "--http2-prior-knowledge"] {
            let said = curl(&[flag, "--data-binary", &data, &format!("{}/", outer.url())]);
            assert_eq!((said.code, said.answer.body.len()), (0, LARGE), "{protocol} {flag}");
            assert!(said.answer.body == sent, "{protocol} {flag}: not the same bytes");
        }
    }
}

/// Sends back the bytes of a body while it still arrives.
struct Echo {
    url: String,
}

impl Echo {
    fn start() -> Echo {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || Echo::serve(stream));
            }
        });
        Echo { url }
    }

    fn serve(mut stream: TcpStream) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte).unwrap_or(0) == 0 {
                return;
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n").unwrap();
        let mut left: usize = length.parse().unwrap();
        let mut buffer = vec![0; 1 << 16];
        while left > 0 {
            let Ok(read @ 1..) = stream.read(&mut buffer) else { return };
            if stream.write_all(&buffer[..read]).is_err() {
                return;
            }
            left -= read;
        }
    }
}

#[test]
fn many_streams_share_a_connection() {
    let service = simulator();
    for protocol in ["http1", "http2"] {
        let gateway = through(&service.url(), protocol);
        client::run(async {
            let http2 = client::http2(gateway.web()).await;
            let calls = (0..300usize).map(|n| {
                let mut http2 = http2.clone();
                let request = Request::post(format!("{}/echo?{n}", gateway.url()))
                    .body(full(format!("{n}").repeat(500)))
                    .unwrap();
                tokio::spawn(async move {
                    http2.ready().await.unwrap();
                    let answer = http2.send_request(request).await.unwrap();
                    assert_eq!(answer.status(), 200);
                    let whole = answer.into_body().collect().await.unwrap().to_bytes();
                    let echo: serde_json::Value = serde_json::from_slice(&whole).unwrap();
                    assert_eq!(echo["query"], n.to_string());
                    assert_eq!(echo["body"], format!("{n}").repeat(500));
                })
            });
            for call in calls.collect::<Vec<_>>() {
                call.await.unwrap();
            }
        });
    }
}

#[test]
fn long_streams_get_as_many_connections_as_they_need() {
    let peer = Peer::start(h2peer::Settings { streams: 2, extended_connect: false });
    // One worker, so that the connections can be counted.
    let gateway = Gateway::start(&format!(
        "node: {{ workers: 1 }}\nupstreams: {{ s: {{ endpoints: ['{}'], protocol: http2, timeouts: {{ first-byte: 5s }} }} }}\napis: {{ a: {{ upstream: s }} }}\n",
        peer.url()
    ));
    client::run(async {
        let http2 = client::http2(gateway.web()).await;
        let hold = || {
            let mut http2 = http2.clone();
            let request = Request::get(format!("{}/hold", gateway.url())).body(none()).unwrap();
            tokio::spawn(async move {
                let answer = http2.send_request(request).await.unwrap();
                assert_eq!(answer.status(), 200);
                let mut body = answer.into_body();
                assert_eq!(piece(&mut body).await.unwrap(), "held");
                body
            })
        };
        // At once, before the upstream has said how many it takes: none of them may wait for another.
        let mut held = Vec::new();
        for stream in (0..11).map(|_| hold()).collect::<Vec<_>>() {
            held.push(stream.await.unwrap());
        }
        assert_eq!(peer.connections(), 6);
        // What is short finds room beside them, and then again.
        for _ in 0..5 {
            let mut http2 = http2.clone();
            let request = Request::get(format!("{}/short", gateway.url())).body(none()).unwrap();
            assert_eq!(http2.send_request(request).await.unwrap().status(), 200);
        }
        assert_eq!(peer.connections(), 6);
        peer.release();
        for mut body in held {
            assert_eq!(piece(&mut body).await.unwrap(), "ok");
        }
    });
}

#[test]
fn a_silent_connection_is_given_up_and_its_calls_are_repeated() {
    let peer = Peer::start(h2peer::Settings { streams: 100, extended_connect: false });
    let gateway = Gateway::start(&format!(
        "node: {{ workers: 1 }}\nupstreams: {{ s: {{ endpoints: ['{}'], protocol: http2, connections: {{ ping: 200ms }}, retry: {{ attempts: 2, unsafe-methods: true }} }} }}\napis: {{ a: {{ upstream: s }} }}\n",
        peer.url()
    ));
    assert_eq!(Raw::connect(gateway.web()).get("/", "").text(), "ok");
    assert_eq!(peer.connections(), 1);
    let mut silent = Raw::connect(gateway.web());
    silent.send("GET /silent HTTP/1.1\r\nhost: t\r\n\r\n");
    // It waits where nobody answers any more, and is tried again on another connection.
    let begin = std::time::Instant::now();
    while Raw::connect(gateway.web()).get("/", "").text() != "ok" || peer.connections() < 2 {
        assert!(begin.elapsed() < PATIENCE);
    }
    assert_eq!(silent.answer().status, 502, "it was silent on each of them");
    eventually("all is well", || Raw::connect(gateway.web()).get("/", "").status == 200);
}

#[test]
fn a_stream_that_is_not_read_does_not_stop_the_others() {
    let service = simulator();
    let gateway = through(&service.url(), "http2");
    client::run(async {
        let mut http2 = client::http2(gateway.web()).await;
        let request = |path: &str| Request::get(format!("{}{path}", gateway.url())).body(none()).unwrap();
        let stuck = http2.send_request(request("/bytes/50000000")).await.unwrap();
        for _ in 0..20 {
            let answer = http2.send_request(request("/bytes/1000")).await.unwrap();
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes().len(), 1000);
        }
        drop(stuck);
        let answer = http2.send_request(request("/bytes/1000")).await.unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes().len(), 1000);
    });
}

#[test]
fn a_slow_reader_holds_the_upstream_back() {
    // The service writes until its socket is full; what lies in between is bounded by buffers, not by the body.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = through(&format!("http://{}", listener.local_addr().unwrap()), "http1");
    let (tell, written) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n");
        let piece = vec![0; 1 << 16];
        let mut total = 0usize;
        while let Ok(count @ 1..) = stream.write(&piece) {
            total += count;
            if total > 200 << 20 {
                break;
            }
        }
        let _ = tell.send(total);
    });
    let mut raw = Raw::connect(gateway.web());
    raw.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n");
    raw.head().unwrap();
    let total = written.recv_timeout(PATIENCE).unwrap();
    assert!(total < 40 << 20, "{total} bytes were taken for a client that reads none");
}
