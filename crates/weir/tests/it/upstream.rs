//! Upstreams that fail, are slow, come and go; and documents that change under load.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::Request;
use simulator::raw::{Script, Server};
use simulator::{Fault, Options, Simulator};
use testkit::client::{self, none};
use testkit::{Gateway, Raw, curl, eventually};

fn simulator() -> Simulator {
    Simulator::start(Options::default()).unwrap()
}

fn named(name: &str) -> Simulator {
    Simulator::start(Options::named(name)).unwrap()
}

/// A URL where nobody listens.
fn nowhere() -> String {
    // Bound and not listening: connecting is refused, and nobody else gets the port.
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    drop(socket);
    format!("http://{address}")
}

/// One worker, so that what is counted for each of them is counted once.
fn gateway(endpoints: &[&str], settings: &str) -> Gateway {
    Gateway::start(&format!(
        "node: {{ workers: 1 }}\nupstreams: {{ s: {{ endpoints: {endpoints:?}{settings} }} }}\napis: {{ a: {{ upstream: s }} }}\n"
    ))
}

const POST: &str = "POST /echo HTTP/1.1\r\nhost: t\r\ncontent-length: 4\r\n\r\nbody";

// === Retries ===

#[test]
fn a_refused_connection_is_tried_elsewhere() {
    let service = simulator();
    let gateway = gateway(&[&nowhere(), &service.url()], ", balance: round-robin, retry: { budget: 100% }");
    let mut raw = Raw::connect(gateway.web());
    for _ in 0..10 {
        assert_eq!(raw.get("/echo", "").status, 200);
        // Nothing was sent, so nothing was done twice: any method may go on, with its body.
        assert_eq!(raw.send(POST).answer().json()["body"], "body");
    }
    assert_eq!(service.requests(), 20);
}

#[test]
fn what_cannot_be_reached_is_502() {
    let gateway = gateway(&[&nowhere()], "");
    let answer = Raw::connect(gateway.web()).get("/", "");
    assert_eq!(answer.status, 502);
    assert_eq!(answer.json()["type"], "urn:weir:problem:upstream-unreachable");
}

#[test]
fn a_reset_is_tried_again_where_that_does_no_harm() {
    let service = simulator();
    for protocol in ["http1", "http2"] {
        let gateway = gateway(&[&service.url()], &format!(", protocol: {protocol}"));
        let mut raw = Raw::connect(gateway.web());
        let before = service.requests();
        service.inject(Fault::Reset(None), 1);
        assert_eq!(raw.get("/echo", "").status, 200, "{protocol}");
        assert_eq!(service.requests() - before, 2, "{protocol}");

        let before = service.requests();
        service.inject(Fault::Reset(None), 1);
        let answer = raw.send(POST).answer();
        assert_eq!(answer.status, 502, "{protocol}: a POST that may have been done");
        assert_eq!(answer.json()["type"], "urn:weir:problem:upstream-broken");
        assert_eq!(service.requests() - before, 1, "{protocol}");
    }
    let gateway = gateway(&[&service.url()], ", retry: { unsafe-methods: true }");
    service.inject(Fault::Reset(None), 1);
    assert_eq!(Raw::connect(gateway.web()).send(POST).answer().json()["body"], "body");
}

#[test]
fn statuses_are_tried_again_where_the_document_says_so() {
    let service = simulator();
    let gateway = gateway(&[&service.url()], ", retry: { on: ['503'], attempts: 3, min-per-second: 100 }");
    let mut raw = Raw::connect(gateway.web());
    service.inject("status=503".parse().unwrap(), 2);
    assert_eq!(raw.get("/echo", "").status, 200);
    assert_eq!(service.requests(), 3);
    // The last answer is the answer.
    service.inject("status=503".parse().unwrap(), 3);
    assert_eq!(raw.get("/echo", "").status, 503);
    service.inject("status=500".parse().unwrap(), 1);
    assert_eq!(raw.get("/echo", "").status, 500);
}

#[test]
fn a_connection_that_went_stale_costs_no_request() {
    let service = Server::start(vec![
        // Says that it stays, and goes.
        Script::answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
    ])
    .unwrap();
    let gateway = gateway(&[&service.url()], ", retry: { attempts: 1 }");
    let mut raw = Raw::connect(gateway.web());
    for n in 1..=10 {
        let request = if n % 2 == 0 { POST } else { "GET / HTTP/1.1\r\nhost: t\r\n\r\n" };
        let answer = raw.send(request).answer();
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "request {n}");
        // The end has arrived by now, as it mostly has.
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(service.connections(), n);
    }
}

#[test]
fn repeats_are_bounded_by_the_budget() {
    let service = simulator();
    let gateway = gateway(&[&service.url()], ", retry: { attempts: 2, budget: 10%, min-per-second: 0, backoff: 1ms }");
    let mut raw = Raw::connect(gateway.web());
    let calls = 100;
    service.inject(Fault::Reset(None), 10_000);
    for _ in 0..calls {
        assert_eq!(raw.get("/echo", "").status, 502);
    }
    let tries = service.requests();
    assert!((105..=111).contains(&tries), "{tries} tries for {calls} calls with a budget of 10 %");
}

// === Time ===

#[test]
fn who_does_not_answer_in_time_is_given_up() {
    let service = simulator();
    for (settings, path) in [
        ("first-byte: 100ms", "/delay/10000"),
        ("first-byte: none, call: 100ms", "/delay/10000"),
        ("first-byte: 100ms", "/echo?fault=hang"),
    ] {
        let gateway = gateway(&[&service.url()], &format!(", timeouts: {{ {settings} }}"));
        let begin = Instant::now();
        let answer = Raw::connect(gateway.web()).get(path, "");
        assert_eq!(answer.status, 504, "{settings}");
        assert_eq!(answer.json()["type"], "urn:weir:problem:upstream-timeout");
        let took = begin.elapsed();
        assert!(took >= Duration::from_millis(100) && took < Duration::from_secs(5), "{settings}: {took:?}");
    }
}

#[test]
fn an_answer_that_stops_is_cut_and_never_looks_whole() {
    let service = simulator();
    for protocol in ["http1", "http2"] {
        for (settings, path) in [
            ("idle: 100ms", "/bytes/1000?fault=hang=10"),
            ("idle: 100ms", "/slow-body?chunks=2&every=60s"),
            // Something always comes, and it is too long in all.
            ("call: 150ms", "/slow-body?chunks=10000&every=10ms"),
            ("idle: 60s", "/bytes/1000?fault=cut=10"),
            ("idle: 60s", "/slow-body?chunks=9&every=1ms&fault=cut=10"),
            ("idle: 60s", "/bytes/1000?fault=reset=10"),
        ] {
            let settings = format!(", protocol: {protocol}, timeouts: {{ {settings} }}");
            let gateway = gateway(&[&service.url()], &settings);
            let begin = Instant::now();
            let mut raw = Raw::connect(gateway.web());
            let answer = raw.get(path, "");
            assert_eq!(answer.status, 200, "{protocol} {path}");
            assert!(!answer.complete, "{protocol} {path} {answer:?}");
            assert!(begin.elapsed() < Duration::from_secs(5), "{protocol} {path}");
            let said = curl(&["--http2-prior-knowledge", &format!("{}{path}", gateway.url())]);
            assert_ne!(said.code, 0, "{protocol} {path} in HTTP/2");
        }
    }
}

#[test]
fn a_try_that_takes_too_long_is_followed_by_another() {
    let service = simulator();
    let gateway = gateway(&[&service.url()], ", retry: { on: [timeout], try-timeout: 150ms, attempts: 2 }");
    service.inject(Fault::Hang(None), 1);
    assert_eq!(Raw::connect(gateway.web()).get("/echo", "").status, 200);
    assert_eq!(service.requests(), 2);
}

// === Which endpoint ===

#[test]
fn an_unhealthy_endpoint_is_left_alone_until_it_is_well() {
    for probe in ["http: /health", "grpc: ''"] {
        let (a, b) = (named("a"), named("b"));
        let gateway = gateway(
            &[&a.url(), &b.url()],
            &format!(", balance: round-robin, health: {{ {probe}, every: 20ms, timeout: 2s }}"),
        );
        let mut raw = Raw::connect(gateway.web());
        let mut who = || -> Vec<String> {
            (0..8).map(|_| raw.get("/echo", "").json()["instance"].as_str().unwrap().to_owned()).collect()
        };
        let both = who();
        assert!(both.contains(&"a".to_owned()) && both.contains(&"b".to_owned()), "{both:?}");
        a.set_healthy(false);
        eventually("only b", || who().iter().all(|it| it == "b"));
        a.set_healthy(true);
        eventually("both", || who().contains(&"a".to_owned()));
        // All ill: a guess is better than a refusal.
        a.set_healthy(false);
        b.set_healthy(false);
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(who().len(), 8);
    }
}

#[test]
fn an_endpoint_without_a_listener_is_found_by_connecting() {
    let (a, b) = (named("a"), named("b"));
    let address = a.address();
    let gateway = gateway(
        &[&a.url(), &b.url()],
        ", balance: round-robin, health: { tcp: true, every: 20ms }, retry: { attempts: 1 }",
    );
    let get = || curl(&["-m", "5", &format!("{}/echo", gateway.url())]).answer;
    drop(a);
    eventually("only b", || (0..6).all(|_| get().status == 200));
    let again = Simulator::start(Options { address, ..Options::named("a") }).unwrap();
    eventually("both", || get().json()["instance"] == "a");
    drop(again);
}

#[test]
fn turns_and_hashes_spread_calls() {
    let services: Vec<_> = ["a", "b", "c"].map(named).into();
    let urls: Vec<_> = services.iter().map(Simulator::url).collect();
    let urls: Vec<_> = urls.iter().map(String::as_str).collect();
    let counts = |services: &[Simulator]| services.iter().map(Simulator::requests).collect::<Vec<_>>();

    let turns = gateway(&urls, ", balance: round-robin");
    let mut raw = Raw::connect(turns.web());
    (0..90).for_each(|_| drop(raw.get("/echo", "")));
    assert_eq!(counts(&services), [30, 30, 30]);

    let least = gateway(&urls, "");
    let mut raw = Raw::connect(least.web());
    (0..90).for_each(|_| drop(raw.get("/echo", "")));
    assert!(counts(&services).iter().all(|count| *count > 30), "{:?}", counts(&services));

    let hashed = gateway(&urls, ", balance: { hash: { header: x-user } }");
    let mut raw = Raw::connect(hashed.web());
    let mut met = std::collections::HashSet::new();
    for user in 0..30 {
        let mut who = || raw.get("/echo", &format!("x-user: {user}\r\n")).json()["instance"].to_string();
        let first = who();
        assert!((0..3).all(|_| who() == first), "user {user}");
        met.insert(first);
    }
    assert_eq!(met.len(), 3);
}

#[test]
fn names_are_looked_up() {
    let service = simulator();
    let gateway = gateway(&[&format!("http://localhost:{}", service.address().port())], "");
    assert_eq!(Raw::connect(gateway.web()).get("/echo", "").status, 200);
    let unknown = self::gateway(&["http://no-such-name.invalid:80"], ", timeouts: { connect: 3s, call: 5s }");
    let answer = Raw::connect(unknown.web()).get("/", "");
    assert!(matches!(answer.status, 502 | 504), "{answer:?}");
}

// === Changes ===

#[test]
fn a_change_under_load_drops_nothing() {
    let service = simulator();
    let document = |n: usize| {
        format!(
            "apis:\n  a:\n    upstream: '{}'\n    routes:\n      - {{ match: {{ path: /n }}, respond: {{ body: 'n{n}' }} }}\n      - {{ match: {{ prefix: /bytes }} }}\n",
            service.url()
        )
    };
    let mut gateway = Gateway::start(&document(0));
    let address = gateway.web();
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let load = |thread: usize| {
        let (stop, served) = (stop.clone(), served.clone());
        let even = thread.is_multiple_of(2);
        std::thread::spawn(move || {
            let mut raw = Raw::connect(address);
            let mut last = 0;
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                // Most on a connection that is kept, some on a new one.
                if n % 100 == 99 {
                    raw = Raw::connect(address);
                }
                let answer = if even { raw.get("/n", "") } else { raw.get("/bytes/100", "") };
                assert_eq!(answer.status, 200);
                if even {
                    let number: usize = answer.text()[1..].parse().unwrap();
                    assert!(n % 100 == 99 || number >= last, "an older document came back: {number} after {last}");
                    last = number;
                }
                served.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let threads: Vec<_> = (0..4).map(load).collect();
    for n in 1..=50 {
        gateway.apply(&document(n));
        // In force on all workers when `apply` is back.
        assert_eq!(Raw::connect(address).get("/n", "").text(), format!("n{n}"));
        std::thread::sleep(Duration::from_millis(30));
    }
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(served.load(Ordering::Relaxed) > 500, "{served:?}");
    assert_eq!(gateway.web(), address);
}

#[test]
fn limits_that_stay_as_they_are_written_keep_their_counts() {
    let document = |rate: &str, body: &str| {
        format!(
            "apis:\n  a:\n    policies: {{ limit: [{{ per: address, rate: {rate}, burst: 3 }}] }}\n    routes: [{{ respond: {{ body: {body} }} }}]\n"
        )
    };
    let mut gateway = Gateway::start(&document("1/h", "first"));
    let ask = |gateway: &Gateway| {
        let answer = Raw::connect(gateway.web()).get("/", "");
        (answer.status, answer.text())
    };
    let passed = |text: &str| (200, text.to_owned());
    assert_eq!(ask(&gateway), passed("first"));
    assert_eq!(ask(&gateway), passed("first"));
    gateway.apply(&document("1/h", "second"));
    assert_eq!(ask(&gateway), passed("second"), "one of three was left");
    assert_eq!(ask(&gateway).0, 429);
    gateway.apply(&document("1/h", "third"));
    assert_eq!(ask(&gateway).0, 429);
    // Another limit begins anew.
    gateway.apply(&document("2/h", "fourth"));
    assert_eq!(ask(&gateway), passed("fourth"));
}

#[test]
fn two_listeners_may_each_have_any_port() {
    let document = |more: &str| {
        format!(
            "listeners: {{ web: {{ address: '127.0.0.1:0' }}, other: {{ address: '127.0.0.1:0' }}{more} }}\napis: {{ a: {{ routes: [{{ respond: {{ body: here }} }}] }} }}\n"
        )
    };
    let mut gateway = Gateway::start(&document(""));
    let (web, other) = (gateway.web(), gateway.address("other"));
    assert_ne!(web, other);
    assert_eq!(Raw::connect(other).get("/", "").text(), "here");
    gateway.apply(&document(", third: { address: '127.0.0.1:0' }"));
    assert_eq!((gateway.web(), gateway.address("other")), (web, other));
    assert!(![web, other].contains(&gateway.address("third")));
    let wrong = gateway.try_apply(&document(", third: { address: '127.0.0.1:7' }, fourth: { address: '127.0.0.1:7' }"));
    assert!(wrong.unwrap_err()[0].contains("has this address already"));
}

#[test]
fn a_listener_that_goes_finishes_what_is_under_way() {
    let service = simulator();
    let two = format!(
        "listeners: {{ web: {{ address: '127.0.0.1:0' }}, other: {{ address: '127.0.0.2:0' }} }}\napis: {{ a: {{ upstream: '{}' }} }}\n",
        service.url()
    );
    let one = two.replace(", other: { address: '127.0.0.2:0' }", "");
    let mut gateway = Gateway::start(&two);
    let (web, other) = (gateway.web(), gateway.address("other"));
    let mut stays = Raw::connect(web);
    assert_eq!(stays.get("/", "").status, 200);
    let mut idle = Raw::connect(other);
    assert_eq!(idle.get("/", "").status, 200);
    let mut busy = Raw::connect(other);
    busy.send("GET /slow-body?chunks=5&every=100ms HTTP/1.1\r\nhost: t\r\n\r\n");
    eventually("it is under way", || !service.seen("/slow-body").is_empty());

    gateway.apply(&one);
    let answer = busy.answer();
    assert!(answer.complete && answer.text().contains("chunk 4"), "{answer:?}");
    assert!(busy.is_closed() && idle.is_closed());
    eventually("nobody listens", || std::net::TcpStream::connect(other).is_err());
    assert_eq!(stays.get("/", "").status, 200, "the others do not notice");
}

#[test]
fn a_listener_that_goes_lets_http_2_finish() {
    let service = simulator();
    let document = |extra: &str| {
        format!(
            "listeners: {{ web: {{ address: '127.0.0.1:0' }}{extra} }}\napis: {{ a: {{ upstream: '{}' }} }}\n",
            service.url()
        )
    };
    let mut gateway = Gateway::start(&document(", other: { address: '127.0.0.2:0' }"));
    let other = gateway.address("other");
    let (ready, wait) = std::sync::mpsc::channel();
    let client = std::thread::spawn(move || {
        client::run(async {
            let mut http2 = client::http2(other).await;
            let request = Request::get(format!("http://{other}/slow-body?chunks=5&every=100ms")).body(none()).unwrap();
            let answer = http2.send_request(request).await.unwrap();
            ready.send(()).unwrap();
            let whole = answer.into_body().collect().await.unwrap().to_bytes();
            assert!(whole.ends_with(b"chunk 4\n"));
            let request = Request::get(format!("http://{other}/")).body(none()).unwrap();
            assert!(http2.send_request(request).await.is_err(), "GOAWAY was said");
        });
    });
    wait.recv().unwrap();
    gateway.apply(&document(""));
    client.join().unwrap();
}

#[test]
fn a_document_that_cannot_be_in_force_changes_nothing() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut gateway = Gateway::start("apis: { a: { routes: [{ respond: { body: old } }] } }\n");
    let mut raw = Raw::connect(gateway.web());
    for (document, part) in [
        (
            format!(
                "listeners: {{ web: {{ address: '127.0.0.1:0' }}, more: {{ address: '{}' }} }}\napis: {{ a: {{ routes: [{{ respond: {{ body: new }} }}] }} }}\n",
                taken.local_addr().unwrap()
            ),
            "listeners.more.address",
        ),
        ("apis: { a: { upstream: unknown } }\n".to_owned(), "unknown"),
        ("apis: [\n".to_owned(), ""),
    ] {
        let wrong = gateway.try_apply(&document).unwrap_err();
        assert!(wrong.iter().any(|it| it.contains(part)), "{wrong:?}");
        assert_eq!(raw.get("/", "").text(), "old");
        assert_eq!(Raw::connect(gateway.web()).get("/", "").text(), "old");
    }
    assert_eq!(gateway.node().addresses().len(), 1);
}

#[test]
fn a_stopping_gateway_finishes_and_says_so() {
    let service = simulator();
    let gateway = gateway(&[&service.url()], "");
    let address = gateway.web();
    let slow = std::thread::spawn(move || Raw::connect(address).get("/slow-body?chunks=5&every=60ms", ""));
    eventually("it is under way", || !service.seen("/slow-body").is_empty());
    assert!(gateway.stop(Duration::from_secs(10)));
    let answer = slow.join().unwrap();
    assert!(answer.complete, "{answer:?}");
    assert_eq!(answer.header("connection"), None, "its head was on its way before");
    assert!(std::net::TcpStream::connect(address).is_err());

    // What would not end is cut, and told.
    let gateway = self::gateway(&[&service.url()], "");
    let mut raw = Raw::connect(gateway.web());
    raw.send("GET /echo?fault=hang HTTP/1.1\r\nhost: t\r\n\r\n");
    eventually("it is under way", || !service.seen("/echo").is_empty());
    assert!(!gateway.stop(Duration::from_millis(100)));
    assert_eq!(raw.rest(), b"");
}

#[test]
fn a_body_too_large_to_keep_is_sent_once() {
    let service = simulator();
    let gateway = gateway(&[&service.url()], ", retry: { buffer: 1KiB, unsafe-methods: true, attempts: 3 }");
    let put = |length: usize| {
        let request =
            format!("PUT /sink HTTP/1.1\r\nhost: t\r\ncontent-length: {length}\r\n\r\n{}", "x".repeat(length));
        Raw::connect(gateway.web()).send(request).answer()
    };
    // Read, then refused: what was read is gone where it was not kept.
    let (before, fault) = (service.requests(), Fault::Reset(Some(0)));
    service.inject(fault, 1);
    assert_eq!(put(1000).status, 200);
    let small = service.requests() - before;
    service.inject(Fault::Reset(None), 1);
    let answer = put(500_000);
    assert_eq!(answer.status, 502, "{answer:?}");
    assert_eq!(service.requests() - before, small + 1);
}

#[test]
fn a_dead_shadow_is_not_noticed() {
    let service = simulator();
    let shadow = nowhere();
    let gateway = Gateway::start(&format!(
        "apis:\n  a:\n    routes:\n      - {{ match: {{ prefix: / }}, upstream: '{}', mirror: {{ upstream: '{shadow}' }} }}\n",
        service.url()
    ));
    let mut raw = Raw::connect(gateway.web());
    for _ in 0..20 {
        assert_eq!(raw.send(POST).answer().json()["body"], "body");
    }
}

#[test]
fn connections_are_kept_and_shared() {
    let service = simulator();
    for (protocol, most) in [("http1", 1), ("http2", 1)] {
        let before = service.connections();
        let gateway = gateway(&[&service.url()], &format!(", protocol: {protocol}"));
        for _ in 0..20 {
            assert_eq!(Raw::connect(gateway.web()).get("/bytes/10", "").status, 200);
        }
        assert!(service.connections() - before <= most, "{protocol}");
    }
    // Idle for longer than they are kept.
    let before = service.connections();
    let gateway = gateway(&[&service.url()], ", connections: { idle-timeout: 100ms }");
    let mut raw = Raw::connect(gateway.web());
    assert_eq!(raw.get("/bytes/10", "").status, 200);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(raw.get("/bytes/10", "").status, 200);
    assert_eq!(service.connections() - before, 2);
}
