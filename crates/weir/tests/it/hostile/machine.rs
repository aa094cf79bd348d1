//! A machine that has too little: descriptors, disk, memory, and a clock that is set back.

use std::fs::File;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::hmac;
use base::Date;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use simulator::raw::{Script, Server};
use testkit::{Raw, eventually};

use super::process::Process;
use crate::weir::weir;

const RESPOND: &str = "apis: { a: { routes: [{ respond: { body: ok } }] } }";
const MIB: usize = 1 << 20;

#[test]
fn connections_beyond_what_may_be_open_wait_or_go() {
    let process =
        Process::start(", limits: { connections: 3, requests: 2 }", &format!("node: {{ workers: 2 }}\n{RESPOND}"));
    let mut open: Vec<Raw> = (0..3).map(|_| Raw::connect(process.web)).collect();
    for raw in &mut open {
        assert_eq!(raw.get("/", "").status, 200);
    }
    let mut next = Raw::connect(process.web);
    next.wait_at_most(Duration::from_millis(200));
    next.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n");
    assert!(next.try_answer(false).is_err(), "there is no room for it yet");
    next.wait_at_most(testkit::PATIENCE);
    // The second answer is the last on its connection, and makes room.
    let last = open[0].get("/", "");
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    assert!(open[0].is_closed());
    assert_eq!(next.answer().status, 200);

    let process = Process::start(", limits: { connections-per-address: 2 }", RESPOND);
    let mut open: Vec<Raw> = (0..2).map(|_| Raw::connect(process.web)).collect();
    for raw in &mut open {
        assert_eq!(raw.get("/", "").status, 200);
    }
    assert!(Raw::connect(process.web).is_closed());
    open.pop();
    eventually("another may come", || {
        let mut raw = Raw::connect(process.web);
        raw.try_send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").is_ok() && raw.try_answer(false).is_ok()
    });
}

#[test]
fn without_descriptors_it_waits_and_can_still_be_operated() {
    // Some are reserved by default. Where the document says otherwise, it is the kernel that has no more.
    for (reserved, most, command) in [("", 192, "reload"), (", connections: 10000", 256, "top")] {
        let process = Process::start_under(
            &["prlimit", "--nofile=256:256"],
            "",
            "",
            &format!("node: {{ workers: 1{reserved} }}\n{RESPOND}\nadmin: {{ address: 'unix:admin.sock' }}"),
            &[],
        );
        let mut clients: Vec<Raw> = (0..400).map(|_| Raw::connect(process.web)).collect();
        for raw in &mut clients {
            raw.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n");
        }
        let begin = Instant::now();
        assert_eq!(clients[0].answer().status, 200);
        // Those who are in may go on, whoever else waits.
        assert_eq!(clients[0].get("/", "").status, 200);
        let open = || process.metric("weir_connections_open{listener=\"web\"}");
        eventually("all that may come in are in", || open() >= f64::from(most) * 0.75);
        for _ in 0..5 {
            assert!(open() <= f64::from(most), "{} of {most}", open());
            let health = Raw::connect(process.metrics).send("GET /healthz HTTP/1.1\r\nhost: t\r\n\r\n").answer();
            assert_eq!(health.status, 200);
            let once: &[&str] = if command == "top" { &["--json"] } else { &[] };
            let said = weir(process.folder.path(), &[&[command, "--node", "unix:admin.sock"], once].concat());
            assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
        }
        // Each that leaves makes room for one that waits, and none of them is lost.
        for mut raw in clients.drain(1..) {
            assert_eq!(raw.answer().status, 200);
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
        process.serves("/");
    }
}

#[test]
fn a_full_disk_under_the_access_log_costs_lines_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    // Every write to it fails as on a disk that is full.
    symlink("/dev/full", &log).unwrap();
    let process = Process::start_under(&[], "", &format!(", access-log: 'file:{}'", log.display()), RESPOND, &[]);
    let mut raw = Raw::connect(process.web);
    for _ in 0..500 {
        assert_eq!(raw.get("/", "").status, 200);
    }
    eventually("what is lost is counted", || process.metric("weir_access_log_dropped_total") == 500.0);
    process.weir.line("cannot write the access log");
    // There is room again.
    std::fs::remove_file(&log).unwrap();
    File::create(&log).unwrap();
    process.weir.signal("USR1");
    eventually("lines are written again", || {
        process.serves("/again");
        std::fs::read_to_string(&log).unwrap().contains("/again")
    });
    // Nothing is cut: what was torn by the full disk is not continued in the new file.
    let lines = std::fs::read_to_string(&log).unwrap();
    assert!(
        lines
            .lines()
            .filter(|line| !line.is_empty())
            .all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()),
        "{lines}"
    );
}

#[test]
fn five_thousand_connections_fit_into_64_mib() {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: files.maximum, maximum: files.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    let process = Process::start("", RESPOND);
    process.serves("/");
    let mut clients = Vec::new();
    for _ in 0..5000 {
        let mut raw = Raw::connect(process.web);
        assert_eq!(raw.get("/", "").status, 200);
        clients.push(raw);
    }
    let idle = process.weir.memory();
    println!("5,000 connections, idle: {} KiB", idle / 1024);
    assert!(idle < 64 * MIB, "{idle} bytes");
    // All at once with a part of a head.
    for raw in &mut clients {
        raw.send(format!("GET / HTTP/1.1\r\nhost: t\r\nx: {}", "y".repeat(2000)));
    }
    process.serves("/");
    let begun = process.weir.memory();
    println!("5,000 connections, each with 2 KB of a head: {} KiB", begun / 1024);
    assert!(begun < 64 * MIB, "{begun} bytes");
    for raw in &mut clients {
        raw.send("\r\n\r\n");
    }
    for raw in &mut clients {
        assert_eq!(raw.answer().status, 200);
    }
}

#[test]
fn a_clock_that_is_set_back_breaks_nothing() {
    const HOUR: u64 = 3600;
    let libraries = ["x86_64", "aarch64"].map(|it| format!("/usr/lib/{it}-linux-gnu/faketime/libfaketime.so.1"));
    let library = libraries.iter().find(|it| std::fs::exists(it).unwrap());
    let library = library.expect("libfaketime, which scripts/test-setup.sh installs");
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    write("offset", "+0");
    write("secret", SECRET);
    let fresh = "HTTP/1.1 200 OK\r\ncache-control: max-age=7200\r\ncontent-length: 5\r\n\r\nfresh";
    let origin = Server::start(vec![Script::answer(fresh)]).unwrap();
    let respond = "routes: [{ respond: { body: ok } }]";
    let document = format!(
        "
apis:
  cached: {{ host: cached.test, upstream: '{}', policies: {{ cache: {{}} }} }}
  limited: {{ host: limited.test, {respond}, policies: {{ limit: [{{ per: all, rate: 2/m }}] }} }}
  known:
    host: known.test
    {respond}
    policies: {{ authenticate: {{ jwt: [{{ issuer: 'https://idp.test', audience: [a], secret: 'file:{}' }}] }} }}
  plain: {{ {respond} }}
consumers: {{ x: {{}} }}",
        origin.url(),
        path("secret")
    );
    let offset = path("offset");
    // Only the calendar is set back: what tells how long things take knows no calendar.
    let variables = [
        ("LD_PRELOAD", library.as_str()),
        ("FAKETIME_TIMESTAMP_FILE", offset.as_str()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ];
    let process = Process::start_under(&[], "", ", access-log: stdout", &document, &variables);
    let ask = |host: &str, fields: &str| {
        Raw::connect(process.web).send(format!("GET / HTTP/1.1\r\nhost: {host}\r\n{fields}\r\n")).answer()
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let tokens = [
        ("valid for long", token(&format!("\"exp\":{}", now + 7200)), 200, 200),
        // By what the clock says: it was valid half an hour ago, and that is now.
        ("expired", token(&format!("\"exp\":{}", now - HOUR / 2)), 401, 200),
        ("valid since then", token(&format!("\"exp\":{},\"nbf\":{}", now + 7200, now - HOUR / 2)), 200, 401),
    ];
    assert_eq!(ask("cached.test", "").text(), "fresh");
    for expected in [200, 200, 429] {
        assert_eq!(ask("limited.test", "").status, expected);
    }
    for (name, token, before, _) in &tokens {
        assert_eq!(ask("known.test", token).status, *before, "{name}");
    }
    write("offset", &format!("-{HOUR}"));
    eventually("the clock is set back", || {
        let date = ask("plain.test", "").header("date").unwrap().to_owned();
        (now - HOUR - 5..now - HOUR + 120).any(|at| Date::of_seconds(at).to_http()[..] == *date.as_bytes())
    });
    // What is stored is as old as it is, and neither from the future nor for ever.
    let cached = ask("cached.test", "");
    assert_eq!((cached.text().as_str(), origin.connections()), ("fresh", 1), "{cached:?}");
    let age: u64 = cached.header("age").unwrap().parse().unwrap();
    assert!(age < 60, "{cached:?}");
    // A limit that was used up still is, and not for an hour more.
    let refused = ask("limited.test", "");
    assert_eq!(refused.status, 429);
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{refused:?}");
    for (name, token, _, after) in &tokens {
        assert_eq!(ask("known.test", token).status, *after, "{name}, an hour ago");
    }
}

const SECRET: &str = "a secret for signatures that is long enough";

/// A field with a token that says this too.
fn token(claims: &str) -> String {
    let encode = |text: &[u8]| URL_SAFE_NO_PAD.encode(text);
    let claims = format!("{{\"iss\":\"https://idp.test\",\"aud\":\"a\",\"sub\":\"x\",{claims}}}");
    let signed = format!("{}.{}", encode(b"{\"alg\":\"HS256\"}"), encode(claims.as_bytes()));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), signed.as_bytes());
    format!("authorization: Bearer {signed}.{}\r\n", encode(signature.as_ref()))
}
