//! Much of what costs the sender little: the gateway's memory stays bounded, and others are served meanwhile.

use std::time::{Duration, Instant};

use simulator::{Options, Simulator};
use testkit::Raw;

use super::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, Http2, Outcome, PING, PRIORITY, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, block, frame, get,
};
use super::process::Process;

const RESPOND: &str = "apis: { a: { routes: [{ respond: { body: ok } }] } }";
const MIB: usize = 1 << 20;

/// Sends that again and again, up to so many bytes, until the other side has enough; gives what was sent.
fn flood(http2: &mut Http2, bytes: &[u8], most: usize) -> usize {
    http2.write_at_most(Duration::from_millis(500));
    let piece = bytes.repeat((64 * 1024 / bytes.len()).max(1));
    let mut sent = 0;
    while sent < most && http2.send(&piece).is_ok() {
        sent += piece.len();
    }
    sent
}

#[test]
fn frames_that_ask_for_answers_or_bookkeeping_cost_no_memory() {
    let process = Process::start("", RESPOND);
    process.serves("/");
    let before = process.weir.memory();
    let post = || {
        let mut fields = get("/");
        fields[0].1 = b"POST";
        frame(HEADERS, END_HEADERS, 1, &block(&fields))
    };
    for (name, first, flood_of) in [
        ("PING", vec![], frame(PING, 0, 0, &[7; 8])),
        ("SETTINGS", vec![], frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])),
        ("empty SETTINGS", vec![], frame(SETTINGS, 0, 0, &[])),
        ("PRIORITY", vec![], frame(PRIORITY, 0, 1001, &[0, 0, 0, 0, 16])),
        ("WINDOW_UPDATE", vec![], frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("empty DATA", post(), frame(DATA, 0, 1, &[])),
        ("DATA of one byte", post(), frame(DATA, 0, 1, b"x")),
        ("unknown frames", vec![], frame(0x42, 0, 0, &[1; 32])),
    ] {
        // None of them reads what it is answered.
        let mut attackers: Vec<_> = (0..4).map(|_| Http2::connect(process.web, &[])).collect();
        for attacker in &mut attackers {
            attacker.send(&first).unwrap();
            flood(attacker, &flood_of, 4 * MIB);
            let begin = Instant::now();
            process.serves("/");
            assert!(begin.elapsed() < Duration::from_secs(5), "{name}: others wait for {:?}", begin.elapsed());
        }
        let held = process.weir.memory().saturating_sub(before);
        assert!(held < 24 * MIB, "{name}: {held} bytes more are held");
    }
}

#[test]
fn streams_that_are_opened_to_be_reset_end_their_connection() {
    let service = Simulator::start(Options::default()).unwrap();
    let process = Process::start("", &format!("apis: {{ a: {{ upstream: '{}' }} }}", service.url()));
    process.serves("/");
    let mut http2 = Http2::connect(process.web, &[]);
    let head = block(&get("/slow-body?chunks=9&every=1s"));
    let mut opened = 0u32;
    // In pieces as large as a socket takes, with both frames of a stream side by side.
    'flood: for batch in 0..2000u32 {
        let mut bytes = Vec::new();
        for index in 0..50 {
            let stream = 2 * (batch * 50 + index) + 1;
            bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &head));
            bytes.extend(frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()));
        }
        if http2.send(&bytes).is_err() {
            break 'flood;
        }
        opened += 50;
    }
    assert!(opened < 100_000, "the connection bears it all");
    let asked = service.requests();
    assert!(asked < 2_500, "{asked} calls were made for {opened} streams");
    process.serves("/");
}

#[test]
fn heads_that_do_not_end_or_unfold_end_their_connection() {
    let process = Process::start("", RESPOND);
    process.serves("/");
    let before = process.weir.memory();
    // A head that goes on and on, in large pieces, in small ones, and in none.
    let field = block(&[(b"x-field", &[b'x'; 1000])]);
    for piece in [field.repeat(16), block(&[(b"x", b"y")]), Vec::new()] {
        let mut http2 = Http2::connect(process.web, &[]);
        http2.frame(HEADERS, 0, 1, &block(&get("/"))).unwrap();
        let sent = flood(&mut http2, &frame(CONTINUATION, 0, 1, &piece), 64 * MIB);
        assert!(sent < 64 * MIB, "{sent} bytes of head were taken");
    }
    // One field in the table, and a thousand references of one byte: a few kilobytes that are four megabytes.
    let mut bomb = block(&get("/"));
    let value = [b'x'; 4000];
    bomb.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
    bomb.extend(value);
    bomb.extend(vec![0xbe; 1000]);
    for stream in [1, 3, 5] {
        let mut http2 = Http2::connect(process.web, &[]);
        http2.frame(HEADERS, END_HEADERS | END_STREAM, stream, &bomb).unwrap();
        let outcome = http2.outcome(stream);
        assert!(outcome != Outcome::Status(200), "{outcome:?}");
    }
    let held = process.weir.memory().saturating_sub(before);
    assert!(held < 16 * MIB, "{held} bytes more are held");
    process.serves("/");
}

#[test]
fn answers_that_nobody_reads_cost_little() {
    let service = Simulator::start(Options::default()).unwrap();
    let process = Process::start("", &format!("apis: {{ a: {{ upstream: '{}' }} }}", service.url()));
    process.serves("/");
    let before = process.weir.memory();
    // With windows as large as can be, and nobody behind them.
    let mut attackers = Vec::new();
    for _ in 0..8 {
        let mut http2 = Http2::connect(process.web, &[(4, 0x7fff_ffff)]);
        http2.frame(WINDOW_UPDATE, 0, 0, &0x7fff_0000u32.to_be_bytes()).unwrap();
        for stream in 0..100 {
            http2.get(2 * stream + 1, "/bytes/10000000").unwrap();
        }
        attackers.push(http2);
    }
    let begin = Instant::now();
    let mut most = 0;
    while begin.elapsed() < Duration::from_secs(2) {
        process.serves("/");
        most = most.max(process.weir.memory().saturating_sub(before));
        std::thread::sleep(Duration::from_millis(50));
    }
    // 800 answers, of which each may have a piece that was read and one that is to be written.
    assert!(most < 800 * 160 * 1024, "{most} bytes more are held");
    drop(attackers);
}

#[test]
fn a_flood_of_new_callers_costs_no_memory() {
    let process = Process::start(
        ", trusted-proxies: [127.0.0.0/8]",
        "apis: { a: { policies: { limit: [{ per: address, rate: 1/h, burst: 1 }] }, routes: [{ respond: { body: ok } }] } }",
    );
    let mut raw = Raw::connect(process.web);
    let mut ask = |batch: std::ops::Range<u32>, expected: u16| {
        let request = |at: u32| {
            format!(
                "GET / HTTP/1.1\r\nhost: t\r\nx-forwarded-for: 2001:db8:{:x}:{:x}::1\r\n\r\n",
                at >> 16,
                at & 0xffff
            )
        };
        raw.send(batch.clone().map(request).collect::<String>());
        for _ in batch {
            assert_eq!(raw.answer().status, expected);
        }
    };
    ask(0..100, 200);
    ask(0..100, 429);
    let before = process.weir.memory();
    for batch in 1..200 {
        ask(batch * 100..(batch + 1) * 100, 200);
    }
    let held = process.weir.memory().saturating_sub(before);
    assert!(held < 8 * MIB, "{held} bytes more are held");
}

/// Far more callers than the table of the limit has room for: as many as WEIR_FLOOD_KEYS says, a million if one has the
/// time. None of those who owe much gets anything by it.
#[test]
fn a_flood_of_new_callers_frees_nobody_of_what_he_owes() {
    let callers: u32 = std::env::var("WEIR_FLOOD_KEYS").map_or(100_000, |callers| callers.parse().unwrap());
    let process = Process::start(
        ", trusted-proxies: [127.0.0.0/8]",
        "apis: { a: { policies: { limit: [{ per: address, rate: 1/h, burst: 20, keys: 8192 }] }, routes: [{ respond: { body: ok } }] } }",
    );
    let ask = |network: u32, at: u32, times: usize| -> Vec<u16> {
        // The flood may take longer than a connection may be idle.
        let mut raw = Raw::connect(process.web);
        let from = format!("2001:db8:{:x}:{:x}::1", (at >> 16) + network, at & 0xffff);
        raw.send(format!("GET / HTTP/1.1\r\nhost: t\r\nx-forwarded-for: {from}\r\n\r\n").repeat(times));
        (0..times).map(|_| raw.answer().status).collect()
    };
    // Some have used up all that they may.
    let (flood, debtors) = (0x100, 0..50);
    let mut spent = vec![200; 20];
    spent.push(429);
    for debtor in debtors.clone() {
        assert_eq!(ask(0, debtor, 21), spent, "{debtor}");
    }
    for caller in 0..1000 {
        assert_eq!(ask(flood, caller, 1), [200]);
    }
    let before = process.weir.memory();
    let mut raw = Raw::connect(process.web);
    for batch in (1000..callers).step_by(500) {
        let batch = batch..callers.min(batch + 500);
        let request = |at: u32| {
            let from = format!("2001:db8:{:x}:{:x}::1", (at >> 16) + flood, at & 0xffff);
            format!("GET / HTTP/1.1\r\nhost: t\r\nx-forwarded-for: {from}\r\n\r\n")
        };
        raw.send(batch.clone().map(request).collect::<String>());
        for _ in batch {
            assert_eq!(raw.answer().status, 200, "a newcomer owes nothing");
        }
    }
    let held = process.weir.memory().saturating_sub(before);
    println!("{callers} callers: {} KiB more than after the first thousand", held / 1024);
    assert!(held < 4 * MIB, "{held} bytes more are held");
    for debtor in debtors {
        assert_eq!(ask(0, debtor, 1), [429], "{debtor} owes nothing any more");
    }
}
