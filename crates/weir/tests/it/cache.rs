//! The policy `cache` through the front door. That it does what RFC 9111 says is shown by `make test-cache`; here is what
//! that suite does not ask: who gets what, who waits for whom, what is forgotten.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use proxy::{Purge, What};
use testkit::{Answer, Gateway, PATIENCE, Raw, eventually};

/// A service that answers as it is told, one thread a connection.
pub struct Origin {
    pub address: SocketAddr,
    requests: Arc<AtomicUsize>,
}

/// A request as the origin saw it: its first line, and its fields in lower case.
pub struct Asked {
    pub line: String,
    fields: Vec<String>,
    /// How many came before it.
    pub number: usize,
}

impl Asked {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find_map(|field| field.strip_prefix(name)?.strip_prefix(": "))
    }
}

impl Origin {
    pub fn start(answer: impl Fn(&Asked, &mut TcpStream) + Send + Sync + 'static) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, requests) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let (answer, count) = (Arc::new(answer), requests.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, count) = (answer.clone(), count.clone());
                thread::spawn(move || {
                    let mut writer = stream.try_clone().unwrap();
                    let mut reader = BufReader::new(stream);
                    while let Some(asked) = read(&mut reader, &count) {
                        answer(&asked, &mut writer);
                    }
                });
            }
        });
        Origin { address, requests }
    }

    /// The same fields and the number of the request as the body, each time.
    pub fn saying(fields: &'static str) -> Origin {
        Origin::start(move |asked, out| say(out, fields, &format!("answer {}", asked.number)))
    }

    pub fn requests(&self) -> usize {
        self.requests.load(SeqCst)
    }
}

fn read(reader: &mut BufReader<TcpStream>, count: &AtomicUsize) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let (mut fields, mut length) = (Vec::new(), 0);
    loop {
        let mut field = String::new();
        reader.read_line(&mut field).ok().filter(|read| *read > 0)?;
        let field = field.trim_end().to_ascii_lowercase();
        if field.is_empty() {
            break;
        }
        if let Some(value) = field.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
        fields.push(field);
    }
    reader.read_exact(&mut vec![0; length]).ok()?;
    Some(Asked { line, fields, number: count.fetch_add(1, SeqCst) })
}

pub fn say(out: &mut TcpStream, fields: &str, body: &str) {
    let _ = write!(out, "HTTP/1.1 200 OK\r\n{fields}content-length: {}\r\n\r\n{body}", body.len());
}

fn before(origin: &Origin, settings: &str) -> Gateway {
    Gateway::start(&document(origin, settings))
}

fn document(origin: &Origin, settings: &str) -> String {
    format!("apis: {{ a: {{ upstream: 'http://{}', policies: {{ cache: {settings} }} }} }}\n", origin.address)
}

fn get(gateway: &Gateway, path: &str, fields: &str) -> Answer {
    Raw::connect(gateway.web()).get(path, fields)
}

#[track_caller]
pub fn check(answer: &Answer, body: &str, status: &str) {
    assert_eq!(answer.text(), body, "{answer:?}");
    let told = answer.header("cache-status").unwrap_or_default();
    assert!(told.starts_with("weir; ") && told.contains(status), "no `{status}` in {answer:?}");
}

#[test]
fn an_answer_is_given_again_whole_in_part_or_not_at_all() {
    let origin = Origin::saying("cache-control: max-age=60\r\netag: \"e\"\r\n");
    let gateway = before(&origin, "{}");
    check(&get(&gateway, "/a", ""), "answer 0", "fwd=uri-miss; fwd-status=200; stored");
    let answer = get(&gateway, "/a", "");
    check(&answer, "answer 0", "hit; ttl=");
    assert!(answer.header("age").is_some() && answer.header("date").is_some());
    let head = Raw::connect(gateway.web()).send("HEAD /a HTTP/1.1\r\nhost: test\r\n\r\n").answer_to_head();
    assert_eq!((head.status, head.header("content-length")), (200, Some("8")));
    let part = get(&gateway, "/a", "range: bytes=0-2\r\n");
    assert_eq!((part.status, part.header("content-range"), &*part.text()), (206, Some("bytes 0-2/8"), "ans"));
    let beyond = get(&gateway, "/a", "range: bytes=8-\r\n");
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some("bytes */8")));
    let same = get(&gateway, "/a", "if-none-match: W/\"e\"\r\n");
    assert_eq!((same.status, same.header("etag"), same.header("content-length")), (304, Some("\"e\""), None));
    assert_eq!(origin.requests(), 1);
    check(&get(&gateway, "/b", ""), "answer 1", "fwd=uri-miss");
    check(&get(&gateway, "/a", "cache-control: no-store\r\n"), "answer 2", "fwd=request");
}

#[test]
fn the_document_says_what_nobody_else_says() {
    let origin = Origin::saying("");
    let gateway = before(&origin, "{ fresh: 1h, query: { ignore: [utm_*] } }");
    check(&get(&gateway, "/a?id=1&utm_source=x", ""), "answer 0", "stored");
    check(&get(&gateway, "/a?utm_source=y&id=1", ""), "answer 0", "hit");
    check(&get(&gateway, "/a?id=2", ""), "answer 1", "stored");
    let answer = get(&gateway, "/never", "cache-control: only-if-cached\r\n");
    assert_eq!((answer.status, &answer.json()["type"]), (504, &"urn:weir:problem:not-stored".into()));

    let gateway = before(&origin, "none");
    let answer = get(&gateway, "/a", "");
    assert_eq!((answer.text().as_str(), answer.header("cache-status")), ("answer 2", None));
}

#[test]
fn what_one_consumer_got_is_for_no_other() {
    let origin = Origin::start(|asked, out| {
        let fields = match &asked.line {
            line if line.contains("/public") => "cache-control: public, max-age=60\r\n",
            line if line.contains("/private") => "cache-control: private, max-age=60\r\n",
            _ => "cache-control: max-age=60\r\n",
        };
        say(out, fields, &format!("answer {}", asked.number));
    });
    // The hashes are those of `alice` and `bob`.
    let consumers = "consumers:\n  alice: { keys: [{ id: a, hash: 'sha256:2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90' }] }\n  bob: { keys: [{ id: b, hash: 'sha256:81b637d8fcd2c6da6359e6963113a1170de795e4b725b84d1e0b4cfd9ec58ce9' }] }\n";
    for shared in [false, true] {
        let requests = origin.requests();
        let gateway = Gateway::start(&format!(
            "policies: {{ authenticate: {{ api-key: {{}} }} }}\n{}{consumers}",
            document(&origin, &format!("{{ shared: {shared} }}"))
        ));
        let ask = |who: &str, path: &str| get(&gateway, path, &format!("x-api-key: {who}\r\n"));
        let first = ask("alice", "/a").text();
        check(&ask("alice", "/a"), &first, "hit");
        let others = ask("bob", "/a");
        assert_eq!(others.text() == first, shared, "{others:?}");
        check(&ask("bob", "/a"), &others.text(), "hit");
        check(&ask("alice", "/a"), &first, "hit");

        let public = ask("alice", "/public").text();
        check(&ask("bob", "/public"), &public, "hit");
        for _ in 0..2 {
            let next = format!("answer {}", origin.requests());
            check(&ask("alice", "/private"), &next, "fwd=uri-miss");
        }
        assert_eq!(origin.requests() - requests, if shared { 4 } else { 5 });
        assert_eq!(get(&gateway, "/public", "").status, 401);
    }
}

#[test]
fn what_goes_to_the_upstream_with_a_credential_is_not_kept() {
    let origin = Origin::saying("cache-control: max-age=60\r\n");
    let gateway = before(&origin, "{ fresh: 1h, shared: true }");
    for number in 0..2 {
        let answer = get(&gateway, "/a", "authorization: Basic eA==\r\n");
        check(&answer, &format!("answer {number}"), "fwd=uri-miss");
    }
    check(&get(&gateway, "/a", ""), "answer 2", "stored");
}

#[test]
fn what_is_changed_is_forgotten() {
    let origin = Origin::start(|asked, out| {
        let fields = if asked.line.starts_with("POST") { "location: /b\r\n" } else { "cache-control: max-age=60\r\n" };
        say(out, fields, &format!("answer {}", asked.number));
    });
    let gateway = before(&origin, "{}");
    for path in ["/a", "/b", "/c"] {
        get(&gateway, path, "");
    }
    let post = "POST /a HTTP/1.1\r\nhost: test\r\ncontent-length: 1\r\n\r\nx";
    check(&Raw::connect(gateway.web()).send(post).answer(), "answer 3", "fwd=method");
    check(&get(&gateway, "/a", ""), "answer 4", "fwd=uri-miss");
    check(&get(&gateway, "/b", ""), "answer 5", "fwd=uri-miss");
    check(&get(&gateway, "/c", ""), "answer 2", "hit");
}

#[test]
fn what_is_purged_is_gone() {
    let origin = Origin::saying("cache-control: max-age=60\r\nsurrogate-key: news front\r\n");
    let gateway = before(&origin, "{}");
    for (what, count) in [
        (What::Tag("front".into()), 2),
        (What::Tag("unknown".into()), 0),
        (What::Prefix("http://test/a".into()), 1),
        (What::Url("http://test/b".into()), 1),
        (What::All, 2),
    ] {
        get(&gateway, "/a?x", "");
        get(&gateway, "/b", "");
        let purged = gateway.node().purge(&Purge { api: Some("a".into()), what: what.clone() });
        assert_eq!((purged.answers, purged.disk), (count, None), "{what:?}");
    }
    let requests = origin.requests();
    get(&gateway, "/b", "");
    assert_eq!(origin.requests(), requests + 1);
}

#[test]
fn a_route_that_leads_elsewhere_knows_nothing_of_before() {
    let (old, new) = (Origin::saying("cache-control: max-age=60\r\n"), Origin::saying("cache-control: max-age=60\r\n"));
    let mut gateway = before(&old, "{}");
    get(&gateway, "/a", "");
    gateway.apply(&document(&old, "{ fresh: 1s }"));
    check(&get(&gateway, "/a", ""), "answer 0", "hit");
    gateway.apply(&document(&new, "{}"));
    check(&get(&gateway, "/a", ""), "answer 0", "fwd=uri-miss");
    assert_eq!(new.requests(), 1);
}

// === Stale answers ===

#[test]
fn a_stale_answer_is_asked_about_and_told_anew() {
    let origin = Origin::start(|asked, out| match asked.field("if-none-match") {
        Some("\"e\"") => {
            let _ = out.write_all(b"HTTP/1.1 304 Not Modified\r\ncache-control: max-age=60\r\nx-a: 2\r\n\r\n");
        }
        _ => say(out, "cache-control: max-age=0\r\netag: \"e\"\r\nx-a: 1\r\n", "body"),
    });
    let gateway = before(&origin, "{}");
    get(&gateway, "/a", "");
    let answer = get(&gateway, "/a", "");
    check(&answer, "body", "fwd=stale; fwd-status=304");
    assert_eq!((answer.status, answer.header("x-a")), (200, Some("2")));
    check(&get(&gateway, "/a", ""), "body", "hit");
    assert_eq!(get(&gateway, "/a", "if-none-match: \"e\"\r\n").status, 304);
    assert_eq!(origin.requests(), 2);
}

#[test]
fn a_stale_answer_stands_in_for_an_upstream_that_fails() {
    let fails = Arc::new(AtomicBool::new(false));
    let failing = fails.clone();
    let origin = Origin::start(move |asked, out| {
        if failing.load(SeqCst) {
            let _ = out.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n");
            return;
        }
        let fields = match &asked.line {
            line if line.contains("/strict") => "cache-control: max-age=0, must-revalidate\r\netag: \"e\"\r\n",
            _ => "cache-control: max-age=0\r\netag: \"e\"\r\n",
        };
        say(out, fields, "body");
    });
    let gateway = before(&origin, "{ stale: { if-error: 1h } }");
    get(&gateway, "/a", "");
    get(&gateway, "/strict", "");
    fails.store(true, SeqCst);
    let answer = get(&gateway, "/a", "");
    check(&answer, "body", "fwd=stale; fwd-status=503; detail=stale-if-error");
    assert_eq!(answer.status, 200);
    assert_eq!(get(&gateway, "/strict", "").status, 503);
    assert_eq!(get(&gateway, "/a", "cache-control: no-cache\r\n").status, 503);
}

#[test]
fn a_stale_answer_is_given_at_once_while_a_newer_one_is_fetched() {
    let origin = Origin::start(|asked, out| {
        let age = if asked.number == 0 { "age: 10\r\n" } else { "" };
        let fields = format!("cache-control: max-age=10, stale-while-revalidate=600\r\n{age}");
        say(out, &fields, &format!("answer {}", asked.number));
    });
    let gateway = before(&origin, "{}");
    get(&gateway, "/a", "");
    check(&get(&gateway, "/a", ""), "answer 0", "hit; ttl=");
    eventually("the newer one is there", || get(&gateway, "/a", "").text() == "answer 1");
    assert_eq!(origin.requests(), 2);
    let counted = |result: &str| {
        let line = format!("weir_cache_revalidations_total{{result=\"{result}\"}} ");
        let text = gateway.node().telemetry().render();
        text.lines().find_map(|it| it.strip_prefix(&line)).unwrap().parse::<u64>().unwrap()
    };
    eventually("it is counted", || counted("replaced") == 1);
    assert_eq!((counted("unchanged"), counted("failed")), (0, 0));
}

// === Many at once ===

fn together(gateway: &Gateway, count: usize, path: &'static str) -> Vec<Answer> {
    let address = gateway.web();
    let clients: Vec<_> = (0..count).map(|_| thread::spawn(move || Raw::connect(address).get(path, ""))).collect();
    clients.into_iter().map(|client| client.join().unwrap()).collect()
}

#[test]
fn many_who_want_the_same_ask_once() {
    let origin = Origin::start(|_, out| {
        thread::sleep(Duration::from_millis(300));
        say(out, "cache-control: max-age=60\r\n", "body");
    });
    let gateway = before(&origin, "{}");
    for answer in together(&gateway, 30, "/a") {
        assert_eq!((answer.status, &*answer.text()), (200, "body"));
    }
    assert_eq!(origin.requests(), 1);
}

#[test]
fn those_who_waited_for_what_is_not_theirs_go_on_together() {
    const OTHERS: usize = 5;
    // All the others must be there at the same time, or nobody gets on.
    let (release, others) = (Arc::new(Barrier::new(2)), Arc::new(AtomicUsize::new(0)));
    let (released, arrived) = (release.clone(), others.clone());
    let origin = Origin::start(move |asked, out| {
        if asked.number == 0 {
            released.wait();
        } else {
            arrived.fetch_add(1, SeqCst);
            let end = Instant::now() + PATIENCE;
            while arrived.load(SeqCst) < OTHERS && Instant::now() < end {
                thread::sleep(Duration::from_millis(5));
            }
            if Instant::now() >= end {
                return say(out, "", "alone");
            }
        }
        say(out, "cache-control: no-store\r\n", "body");
    });
    let gateway = before(&origin, "{}");
    let address = gateway.web();
    let first = thread::spawn(move || Raw::connect(address).get("/a", ""));
    eventually("the first has asked", || origin.requests() == 1);
    let waiting = thread::spawn(move || {
        let clients: Vec<_> = (0..OTHERS).map(|_| thread::spawn(move || Raw::connect(address).get("/a", ""))).collect();
        clients.into_iter().map(|client| client.join().unwrap().text()).collect::<Vec<_>>()
    });
    // However many of them wait by now, all must come through.
    thread::sleep(Duration::from_millis(200));
    release.wait();
    assert_eq!(first.join().unwrap().text(), "body");
    assert_eq!(waiting.join().unwrap(), ["body"; OTHERS]);
    assert_eq!(origin.requests(), OTHERS + 1);
}

#[test]
fn if_the_one_who_asked_leaves_one_of_the_others_asks() {
    let (release, first_gone) = (Arc::new(Barrier::new(2)), Arc::new(AtomicBool::new(false)));
    let (released, gone) = (release.clone(), first_gone.clone());
    let origin = Origin::start(move |asked, out| {
        if asked.number == 0 {
            // It never gets an answer.
            released.wait();
            gone.store(true, SeqCst);
            return;
        }
        thread::sleep(Duration::from_millis(200));
        say(out, "cache-control: max-age=60\r\n", "body");
    });
    let gateway = before(&origin, "{}");
    let mut first = Raw::connect(gateway.web());
    first.send("GET /a HTTP/1.1\r\nhost: test\r\n\r\n");
    eventually("the first has asked", || origin.requests() == 1);
    let address = gateway.web();
    let others: Vec<_> = (0..5).map(|_| thread::spawn(move || Raw::connect(address).get("/a", "").text())).collect();
    // However many of them wait by now, no more than one may ask.
    thread::sleep(Duration::from_millis(200));
    drop(first);
    for other in others {
        assert_eq!(other.join().unwrap(), "body");
    }
    release.wait();
    eventually("the first is done with", || first_gone.load(SeqCst));
    assert_eq!(origin.requests(), 2);
}

#[test]
fn a_body_on_its_way_is_read_along_though_the_one_who_asked_has_left() {
    let (go_on, count) = (Arc::new(Barrier::new(2)), Arc::new(AtomicUsize::new(0)));
    let (went_on, counted) = (go_on.clone(), count.clone());
    let origin = Origin::start(move |_, out| {
        counted.fetch_add(1, SeqCst);
        let _ = out.write_all(b"HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 10\r\n\r\nfirst");
        went_on.wait();
        let _ = out.write_all(b"-last");
    });
    let gateway = before(&origin, "{}");
    let request = "GET /a HTTP/1.1\r\nhost: test\r\n\r\n";
    let mut first = Raw::connect(gateway.web());
    first.send(request).head().unwrap();
    assert_eq!(first.exactly(5), b"first", "what is there is not held back");
    let mut second = Raw::connect(gateway.web());
    let head = second.send(request).head().unwrap();
    assert!(head.header("cache-status").unwrap().contains("collapsed"), "{head:?}");
    assert_eq!(second.exactly(5), b"first");
    drop(first);
    go_on.wait();
    assert_eq!(second.exactly(5), b"-last");
    check(&get(&gateway, "/a", ""), "first-last", "hit");
    assert_eq!(count.load(SeqCst), 1);
}

#[test]
fn what_is_too_large_or_has_no_end_passes() {
    let origin = Origin::start(|asked, out| {
        let large = "x".repeat(5000);
        if asked.line.contains("/events") {
            let _ = out.write_all(
                b"HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n3\r\na\n\n\r\n",
            );
        } else if asked.line.contains("/chunked") {
            let head = "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ntransfer-encoding: chunked\r\n\r\n";
            let _ = write!(out, "{head}1388\r\n{large}\r\n");
            thread::sleep(Duration::from_millis(50));
            let _ = write!(out, "1388\r\n{large}\r\n0\r\n\r\n");
        } else {
            say(out, "cache-control: max-age=60\r\n", &large);
        }
    });
    let gateway = before(&origin, "{ entry: 4KiB }");
    for round in 1..3 {
        assert_eq!(get(&gateway, "/large", "").body.len(), 5000);
        let chunked = get(&gateway, "/chunked", "");
        assert!(chunked.complete && chunked.body.len() == 10_000, "{}", chunked.body.len());
        assert_eq!(origin.requests(), 3 * round - 1, "nothing of it is kept");
        let mut events = Raw::connect(gateway.web());
        events.send("GET /events HTTP/1.1\r\nhost: test\r\n\r\n").head().unwrap();
        assert_eq!(events.line().unwrap(), "3");
    }
}
