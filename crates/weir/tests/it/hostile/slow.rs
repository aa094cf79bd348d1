//! Clients that send too slowly or do not read: they are given up, and what they held is free again.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use simulator::{Options, Simulator};
use testkit::{Gateway, Raw, eventually};

use super::frames::{DATA, END_HEADERS, HEADERS, Http2, Outcome, WINDOW_UPDATE, block, get};
use super::process::Process;

const SOON: Duration = Duration::from_secs(10);

fn simulator() -> Simulator {
    Simulator::start(Options::default()).unwrap()
}

fn gateway(service: &Simulator, limits: &str) -> Gateway {
    Gateway::start(&format!(
        "node: {{ workers: 1 }}\nlisteners: {{ web: {{ address: '127.0.0.1:0', limits: {{ {limits} }} }} }}\napis: {{ a: {{ upstream: '{}' }} }}\n",
        service.url()
    ))
}

#[test]
fn a_body_that_only_drips_is_given_up() {
    let service = simulator();
    let gateway = gateway(&service, "body-timeout: 300ms, min-rate: 4KiB");
    // Something always comes; it is not enough.
    for framing in ["content-length: 1000000\r\n\r\n", "transfer-encoding: chunked\r\n\r\n"] {
        let mut raw = Raw::connect(gateway.web());
        raw.send(format!("POST /sink HTTP/1.1\r\nhost: t\r\n{framing}"));
        let begin = Instant::now();
        while begin.elapsed() < SOON && raw.try_send("4\r\ndrip\r\n").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(begin.elapsed() < SOON, "it goes on dripping");
    }
    let mut fields = get("/sink");
    fields[0].1 = b"POST";
    let mut http2 = Http2::connect(gateway.web(), &[]);
    http2.frame(HEADERS, END_HEADERS, 1, &block(&fields)).unwrap();
    http2.wait_at_most(Duration::from_millis(20));
    let begin = Instant::now();
    let outcome = loop {
        assert!(begin.elapsed() < SOON, "it goes on dripping");
        let _ = http2.frame(DATA, 0, 1, b"drip");
        // Gone here is only that nothing has come yet.
        match http2.outcome(1) {
            Outcome::Gone => {}
            other => break other,
        }
    };
    assert!(matches!(outcome, Outcome::Status(400 | 0) | Outcome::Reset(_)), "{outcome:?}");
    eventually("nothing is under way", || service.requests() == 0 || service.seen("/sink").len() == 3);

    // Who is slow and keeps to the least is served.
    let mut raw = Raw::connect(gateway.web());
    raw.send("POST /sink HTTP/1.1\r\nhost: t\r\ncontent-length: 20000\r\n\r\n");
    for _ in 0..20 {
        raw.send([b'x'; 1000]);
        std::thread::sleep(Duration::from_millis(50));
    }
    let answer = raw.answer();
    assert_eq!((answer.status, answer.text().contains("20000")), (200, true), "{answer:?}");
}

#[test]
fn who_does_not_read_is_given_up() {
    let service = simulator();
    let document = format!("apis: {{ a: {{ upstream: '{}' }} }}", service.url());
    let process = Process::start(", limits: { body-timeout: 300ms, min-rate: 64KiB }", &document);
    for drip in [0, 100] {
        let mut stream = TcpStream::connect(process.web).unwrap();
        stream.write_all(b"GET /bytes/64000000 HTTP/1.1\r\nhost: t\r\n\r\n").unwrap();
        let begin = Instant::now();
        eventually("it has begun", || process.metric("weir_active_requests") == 1.0);
        while process.metric("weir_active_requests") > 0.0 {
            assert!(begin.elapsed() < SOON, "it is waited for");
            let _ = stream.read(&mut vec![0; drip]);
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.len() < 32_000_000, "{} bytes were kept for one who does not read", rest.len());
    }
    // Another, who reads with pauses, gets all.
    let mut stream = TcpStream::connect(process.web).unwrap();
    stream.write_all(b"GET /bytes/20000000 HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n").unwrap();
    let (mut read, mut buffer) = (0, vec![0; 1 << 20]);
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        read += count;
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(read > 20_000_000, "{read}");
}

#[test]
fn a_window_that_stays_shut_ends_its_stream_only() {
    let service = simulator();
    let gateway = gateway(&service, "body-timeout: 300ms, min-rate: 1KiB");
    // SETTINGS_INITIAL_WINDOW_SIZE = 0.
    let mut http2 = Http2::connect(gateway.web(), &[(4, 0)]);
    for stream in [1, 3] {
        http2.get(stream, "/bytes/100000").unwrap();
    }
    let outcome = http2.outcome(1);
    assert_eq!(outcome, Outcome::Status(200), "the head came, and then the end of the stream");
    // A byte now and then keeps nothing open.
    http2.wait_at_most(Duration::from_millis(20));
    let begin = Instant::now();
    http2.get(5, "/bytes/100000").unwrap();
    while http2.outcome(5) == Outcome::Gone {
        assert!(begin.elapsed() < SOON, "a byte of window is enough");
        let _ = http2.frame(WINDOW_UPDATE, 0, 5, &1u32.to_be_bytes());
    }
    // The connection is none the worse: an answer without a body needs no window.
    http2.wait_at_most(SOON);
    http2.get(7, "/status/204").unwrap();
    assert_eq!(http2.outcome(7), Outcome::Status(204));
}
