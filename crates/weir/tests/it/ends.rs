//! Endpoints that fail, are full, slow, far away or taken out: which calls go where, and which are refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use proxy::{CircuitStatus, UpstreamStatus};
use simulator::raw::{Script, Server};
use simulator::{Fault, Options, Simulator};
use testkit::{Gateway, Raw, eventually};

fn named(name: &str) -> Simulator {
    Simulator::start(Options::named(name)).unwrap()
}

fn fault(text: &str) -> Fault {
    text.parse().unwrap()
}

/// One worker and calls in turns, so that every number is certain.
fn document(endpoints: &[String], settings: &str) -> String {
    let endpoints = endpoints.join(", ");
    format!(
        "node: {{ workers: 1, zone: here }}\nupstreams: {{ s: {{ endpoints: [{endpoints}], balance: round-robin{settings} }} }}\napis: {{ a: {{ upstream: s }} }}\n"
    )
}

fn gateway(services: &[&Simulator], settings: &str) -> Gateway {
    let urls: Vec<_> = services.iter().map(|service| service.url()).collect();
    Gateway::start(&document(&urls, settings))
}

fn status(gateway: &Gateway) -> UpstreamStatus {
    gateway.node().upstreams().status().remove(0)
}

/// Who answers so many calls.
fn who(gateway: &Gateway, calls: usize) -> Vec<String> {
    let mut raw = Raw::connect(gateway.web());
    let mut who = || raw.get("/echo", "").json()["instance"].as_str().unwrap_or("nobody").to_owned();
    (0..calls).map(|_| who()).collect()
}

fn share(of: &str, all: &[String]) -> usize {
    all.iter().filter(|it| *it == of).count()
}

#[track_caller]
fn refused(answer: &testkit::Answer, problem: &str) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.json()["type"], format!("urn:weir:problem:{problem}"));
    assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
}

// === Ejection ===

#[test]
fn an_endpoint_that_fails_in_a_row_is_left_out_and_the_last_never_is() {
    let (a, b) = (named("a"), named("b"));
    let gateway = gateway(&[&a, &b], ", retry: { attempts: 1 }, eject: { failures: 3, on: ['5xx'], for: 60s }");
    a.inject(fault("status=503"), 1000);
    let mut raw = Raw::connect(gateway.web());
    let failed = (0..20).filter(|_| raw.get("/echo", "").status == 503).count();
    assert_eq!(failed, 3);
    assert_eq!(a.requests(), 3);
    let endpoints = status(&gateway).endpoints;
    assert!(matches!(endpoints[0].ejection, CircuitStatus::Open { left } if left > Duration::from_secs(30)));
    assert_eq!((endpoints[0].ejections, endpoints[1].ejection), (1, CircuitStatus::Closed));

    b.inject(fault("status=503"), 10);
    assert!((0..10).all(|_| raw.get("/echo", "").status == 503));
    assert_eq!(status(&gateway).endpoints[1].ejections, 0);
    assert_eq!(share("b", &who(&gateway, 10)), 10);
}

#[test]
fn an_ejected_endpoint_is_tried_by_one_call_and_comes_back() {
    let (a, b) = (named("a"), named("b"));
    let gateway = gateway(
        &[&a, &b],
        ", retry: { attempts: 2, on: ['503'], budget: 100% }, eject: { failures: 2, on: ['503'], for: 50ms }",
    );
    // The third is met by the first trial, which another endpoint saves.
    a.inject(fault("status=503"), 3);
    let mut raw = Raw::connect(gateway.web());
    eventually("a is back", || {
        assert_eq!(raw.get("/echo", "").status, 200);
        a.requests() > 10
    });
    let endpoint = status(&gateway).endpoints.remove(0);
    assert_eq!((endpoint.ejection, endpoint.ejections), (CircuitStatus::Closed, 2));
}

#[test]
fn an_endpoint_that_cannot_be_reached_is_ejected_without_a_word_in_the_document() {
    let (a, b) = (named("a"), named("b"));
    let gateway = gateway(&[&a, &b], ", retry: { backoff: 1ms }");
    assert_eq!(share("a", &who(&gateway, 10)), 5);
    drop(a);
    assert_eq!(share("b", &who(&gateway, 50)), 50, "each was tried elsewhere, or not at a at all");
    assert_eq!(status(&gateway).endpoints[0].ejections, 1);
    let gateway = self::gateway(&[&b, &b], ", eject: none");
    assert_eq!(share("b", &who(&gateway, 4)), 4);
}

// === The breaker ===

#[test]
fn an_upstream_that_fails_is_left_alone_and_asked_again_by_a_few() {
    let service = named("a");
    let gateway = gateway(&[&service], ", retry: { attempts: 1 }, breaker: { failures: 3, for: 300ms, trials: 2 }");
    let mut raw = Raw::connect(gateway.web());
    service.inject(fault("status=503"), 3);
    for _ in 0..3 {
        assert_eq!(raw.get("/echo", "").text(), "503 Service Unavailable\n");
    }
    let answer = raw.get("/echo", "");
    if service.requests() == 3 {
        refused(&answer, "upstream-open");
        assert!(status(&gateway).refused_open >= 1);
    }
    eventually("calls are let through", || raw.get("/echo", "").status == 200);
    eventually("it is closed", || {
        raw.get("/echo", "");
        status(&gateway).breaker == CircuitStatus::Closed
    });
    assert_eq!(status(&gateway).breaker_opened, 1);
}

#[test]
fn an_open_breaker_asks_nobody_and_says_until_when() {
    let service = named("a");
    let gateway =
        gateway(&[&service], ", retry: { attempts: 3, on: ['500'] }, breaker: { failures: 2, on: ['5xx'], for: 60s }");
    let mut raw = Raw::connect(gateway.web());
    service.inject(fault("status=500"), 1000);
    // The second try opens it, so that there is no third.
    assert_eq!(raw.get("/echo", "").status, 500);
    assert_eq!(service.requests(), 2);
    let answer = raw.get("/echo", "");
    refused(&answer, "upstream-open");
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((30..=60).contains(&wait), "{wait}");
    assert_eq!(service.requests(), 2);
}

// === Limits ===

/// Calls that are under way until they are dropped.
fn hold(gateway: &Gateway, services: &[&Simulator], calls: usize) -> Vec<Raw> {
    let before: u64 = services.iter().map(|service| service.requests()).sum();
    let held = (0..calls).map(|_| {
        let mut raw = Raw::connect(gateway.web());
        raw.send("GET /slow-body?chunks=100000&every=20ms HTTP/1.1\r\nhost: t\r\n\r\n");
        raw
    });
    let held: Vec<_> = held.collect();
    eventually("they have arrived", || {
        services.iter().map(|service| service.requests()).sum::<u64>() == before + calls as u64
    });
    held
}

#[test]
fn an_upstream_has_no_more_calls_than_it_may() {
    let (a, b) = (named("a"), named("b"));
    for limits in ["calls: 2", "endpoint: { calls: 1 }"] {
        let gateway = gateway(&[&a, &b], &format!(", limits: {{ {limits} }}"));
        let held = hold(&gateway, &[&a, &b], 2);
        assert!(status(&gateway).endpoints.iter().all(|endpoint| endpoint.in_flight == 1), "{limits}");
        refused(&Raw::connect(gateway.web()).get("/echo", ""), "upstream-full");
        assert_eq!(status(&gateway).refused_full, 1);
        drop(held);
        eventually("there is room again", || Raw::connect(gateway.web()).get("/echo", "").status == 200);
        assert_eq!(status(&gateway).in_flight, 0, "{limits}");
    }
}

#[test]
fn a_few_may_wait_for_room() {
    let service = named("a");
    for limits in ["calls: 1", "endpoint: { calls: 1 }", "connections: 1", "endpoint: { connections: 1 }"] {
        let gateway = gateway(&[&service], &format!(", limits: {{ {limits}, waiting: 1, wait: 20s }}"));
        let held = hold(&gateway, &[&service], 1);
        let mut waiting = Raw::connect(gateway.web());
        waiting.send("GET /echo HTTP/1.1\r\nhost: t\r\n\r\n");
        let mut refusals = 0;
        eventually("one waits, and the next is refused", || {
            let mut another = Raw::connect(gateway.web());
            another.wait_at_most(Duration::from_millis(200));
            another.send("GET /echo HTTP/1.1\r\nhost: t\r\n\r\n");
            if let Ok(answer) = another.try_answer(false) {
                refused(&answer, "upstream-full");
                refusals += 1;
            }
            refusals > 0
        });
        drop(held);
        assert_eq!(waiting.answer().status, 200, "{limits}");
    }
}

#[test]
fn who_has_waited_long_enough_is_refused() {
    let service = named("a");
    for limits in ["calls: 1", "connections: 1"] {
        let gateway = gateway(&[&service], &format!(", limits: {{ {limits}, waiting: 9, wait: 100ms }}"));
        let _held = hold(&gateway, &[&service], 1);
        let begin = Instant::now();
        refused(&Raw::connect(gateway.web()).get("/echo", ""), "upstream-full");
        assert!(begin.elapsed() >= Duration::from_millis(100), "{limits}");
    }
}

#[test]
fn connections_are_bounded_and_shared_by_those_who_wait() {
    let service = named("a");
    for (protocol, most) in [("http1", 3), ("http2", 1)] {
        let before = service.connections();
        let gateway = gateway(
            &[&service],
            &format!(", protocol: {protocol}, limits: {{ connections: {most}, waiting: 100, wait: 30s }}"),
        );
        let address = gateway.web();
        let clients: Vec<_> = (0..12)
            .map(|_| {
                std::thread::spawn(move || {
                    let mut raw = Raw::connect(address);
                    (0..10).for_each(|_| assert_eq!(raw.get("/delay/2", "").status, 200));
                })
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().unwrap());
        assert!(service.connections() - before <= most, "{protocol}: {}", service.connections() - before);
        assert!(u64::from(status(&gateway).connections) <= most);
    }
}

// === Drains ===

#[test]
fn a_drained_endpoint_finishes_and_gets_no_more() {
    let (a, b) = (named("a"), named("b"));
    let urls = [a.url(), b.url()];
    let mut gateway = Gateway::start(&document(&urls, ""));
    let mut held = Raw::connect(gateway.web());
    held.send("GET /slow-body?chunks=20&every=20ms HTTP/1.1\r\nhost: t\r\n\r\n");
    let upstreams = gateway.node().upstreams().clone();
    assert!(!upstreams.drain("s", "http://nobody") && !upstreams.drain("t", &a.url()));
    assert!(upstreams.drain("s", &a.url()));
    assert_eq!(share("b", &who(&gateway, 10)), 10);
    assert!(held.answer().complete);
    // It holds over a reload.
    gateway.apply(&document(&urls, ", timeouts: { connect: 4s }"));
    assert_eq!(share("b", &who(&gateway, 10)), 10);
    assert!(status(&gateway).endpoints[0].draining);
    upstreams.drain("s", &b.url());
    refused(&Raw::connect(gateway.web()).get("/echo", ""), "no-endpoint");
    assert!(upstreams.undrain("s", &a.url()) && upstreams.undrain("s", &b.url()));
    assert_eq!(share("a", &who(&gateway, 10)), 5);
    // The document can say the same.
    gateway.apply(&document(&[format!("{{ url: '{}', drain: true }}", a.url()), b.url()], ""));
    assert_eq!(share("b", &who(&gateway, 10)), 10);
}

// === Zones and priorities ===

#[test]
fn near_endpoints_are_preferred_while_enough_of_them_are_well() {
    let (near, far, spare) = (named("near"), named("far"), named("spare"));
    let endpoint = |service: &Simulator, more: &str| format!("{{ url: '{}', {more} }}", service.url());
    let endpoints = [
        endpoint(&far, "zone: there, weight: 5"),
        endpoint(&near, "zone: here"),
        endpoint(&spare, "zone: here, priority: 1"),
    ];
    let settings = ", health: { http: /health, every: 20ms }";
    let mut gateway = Gateway::start(&document(&endpoints, settings));
    assert_eq!(share("near", &who(&gateway, 20)), 20);
    near.set_healthy(false);
    eventually("the other zone takes over", || share("far", &who(&gateway, 10)) == 10);
    far.set_healthy(false);
    eventually("the spare takes over", || share("spare", &who(&gateway, 10)) == 10);
    near.set_healthy(true);
    eventually("near again", || share("near", &who(&gateway, 10)) == 10);
    far.set_healthy(true);

    // Half of the own zone is well: it bears half of the calls, since all of it would have to.
    let half = named("half");
    half.set_healthy(false);
    let endpoints = [endpoint(&near, "zone: here"), endpoint(&half, "zone: here"), endpoint(&far, "zone: there")];
    gateway.apply(&document(&endpoints, &format!("{settings}, zones: {{ spill-below: 100% }}")));
    eventually("half is ill, and nobody else", || {
        status(&gateway).endpoints.iter().map(|it| it.healthy).eq([true, false, true])
    });
    let met = who(&gateway, 200);
    assert_eq!(share("half", &met), 0);
    assert!((60..140).contains(&share("far", &met)), "{}", share("far", &met));
    gateway.apply(&document(&endpoints, &format!("{settings}, zones: {{ prefer-own: false }}")));
    assert!(share("far", &who(&gateway, 20)) >= 8);
}

// === Slow start ===

#[test]
fn a_new_endpoint_begins_with_a_part_of_its_share() {
    let (a, b) = (named("a"), named("b"));
    for balance in ["round-robin", "{ hash: { header: x-user } }"] {
        let document = |urls: &[String]| {
            document(urls, ", slow-start: 1h").replace("balance: round-robin", &format!("balance: {balance}"))
        };
        let mut gateway = Gateway::start(&document(&[a.url()]));
        gateway.apply(&document(&[a.url(), b.url()]));
        let before = b.requests();
        let mut raw = Raw::connect(gateway.web());
        (0..300).for_each(|user| assert_eq!(raw.get("/echo", &format!("x-user: {user}\r\n")).status, 200));
        let met = b.requests() - before;
        // A tenth of its share is a twentieth or an eleventh of all.
        assert!((1..80).contains(&met), "{balance}: {met}");
    }
}

// === Hedging ===

#[test]
fn a_slow_try_is_hedged_and_the_first_answer_counts() {
    let (a, b) = (named("a"), named("b"));
    for protocol in ["http1", "http2"] {
        let settings = format!(", protocol: {protocol}, retry: {{ attempts: 1, budget: 100%, hedge: 500ms }}");
        let gateway = gateway(&[&a, &b], &settings);
        let mut raw = Raw::connect(gateway.web());
        let before = [a.requests(), b.requests()];
        assert_eq!(raw.get("/echo", "").status, 200);
        assert_eq!(status(&gateway).hedges, 0, "quick enough");
        // Its turn is next.
        let slow = if a.requests() > before[0] { &b } else { &a };
        slow.inject(Fault::Hang(None), 1);
        let begin = Instant::now();
        let answer = raw.send("PUT /echo HTTP/1.1\r\nhost: t\r\ncontent-length: 4\r\n\r\nbody").answer();
        assert_eq!((answer.status, answer.json()["body"].as_str()), (200, Some("body")), "{protocol}");
        assert!(begin.elapsed() < Duration::from_secs(20));
        let upstream = status(&gateway);
        assert_eq!((upstream.hedges, upstream.hedges_won, upstream.in_flight), (1, 1, 0), "{protocol}");
    }
}

#[test]
fn who_loses_is_let_go_at_once() {
    let slow = Server::start(vec![Script::answer("").then(simulator::raw::Then::Hold)]).unwrap();
    let quick = named("quick");
    let gateway = Gateway::start(&document(
        &[slow.url(), quick.url()],
        ", retry: { budget: 100%, hedge: { after: 20ms, attempts: 1 } }, limits: { connections: 2 }",
    ));
    let mut raw = Raw::connect(gateway.web());
    (0..4).for_each(|_| assert_eq!(raw.get("/echo", "").status, 200));
    assert!(status(&gateway).hedges_won >= 1);
    let endpoint = status(&gateway).endpoints.remove(0);
    assert_eq!((endpoint.in_flight, endpoint.connections), (0, 0), "its connections are closed");
}

#[test]
fn hedges_are_within_the_budget_and_only_for_what_may_be_repeated() {
    let (a, b) = (named("a"), named("b"));
    let get = "GET /delay/150 HTTP/1.1\r\nhost: t\r\n\r\n";
    let post = "POST /echo?fault=delay=150 HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\n\r\n";
    for (budget, request, expected) in [("0%", get, 0), ("100%", get, 3), ("100%", post, 0), ("34%", get, 1)] {
        let settings = format!(", retry: {{ budget: {budget}, min-per-second: 0, hedge: 20ms }}");
        let gateway = gateway(&[&a, &b], &settings);
        let mut raw = Raw::connect(gateway.web());
        (0..3).for_each(|_| assert_eq!(raw.send(request).answer().status, 200));
        assert_eq!(status(&gateway).hedges, expected, "{budget} {request}");
    }
}

// === Processes ===

/// A service in a process of its own.
fn process() -> (crate::weir::Running, String) {
    let folder = tempfile::tempdir().unwrap();
    let document = "version: 1\nnode: { workers: 1 }\nadmin: { address: none }\nlisteners: { web: { address: '127.0.0.1:0' } }\napis: { a: { routes: [{ respond: { body: here } }] } }\n";
    std::fs::write(folder.path().join("weir.yaml"), document).unwrap();
    let running = crate::weir::Running::start(folder.path(), &["run", "weir.yaml"]);
    let line = running.line("listening");
    let address = line.split_whitespace().find_map(|word| word.strip_prefix("address=")).unwrap().to_owned();
    (running, format!("http://{address}"))
}

#[test]
fn a_killed_endpoint_costs_no_call_that_may_be_repeated() {
    let ((doomed, first), (_spared, second)) = (process(), process());
    // Nothing but defaults: what everybody gets.
    let gateway = Gateway::start(&format!(
        "upstreams: {{ s: {{ endpoints: ['{first}', '{second}'], balance: round-robin }} }}\napis: {{ a: {{ upstream: s }} }}\n"
    ));
    let (address, stop) = (gateway.web(), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                let (mut raw, mut calls) = (Raw::connect(address), Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    calls.push((begun, raw.get("/", "").status));
                }
                calls
            })
        })
        .collect();
    let in_flight = |at: usize| status(&gateway).endpoints[at].connections;
    eventually("both are called", || in_flight(0) > 0 && in_flight(1) > 0);
    std::thread::sleep(Duration::from_millis(300));
    let killed = Instant::now();
    doomed.signal("KILL");
    eventually("it is ejected", || status(&gateway).endpoints[0].ejections > 0);
    std::thread::sleep(Duration::from_millis(700));
    stop.store(true, Ordering::Relaxed);
    let calls: Vec<_> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    let (before, after): (Vec<_>, Vec<_>) = calls.into_iter().partition(|(begun, _)| *begun < killed);
    assert!(before.len() > 50 && after.len() > 50, "{} calls before, {} after", before.len(), after.len());
    let late = killed + Duration::from_millis(100);
    let failed = |calls: &[(Instant, u16)], from| calls.iter().filter(|it| it.0 >= from && it.1 != 200).count();
    assert_eq!(failed(&before, late), 0);
    assert_eq!(failed(&after, late), 0, "of {} calls", after.len());
    // Those that were on their way when it died are tried again too.
    let torn = failed(&before, Instant::now() - Duration::from_secs(3600)) + failed(&after, killed);
    assert_eq!(torn, 0, "of {} calls", before.len() + after.len());
}

#[test]
fn what_happens_to_endpoints_is_told() {
    let (a, b) = (named("a"), named("b"));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let urls = [a.url(), b.url()];
    let document = document(&urls, ", retry: { attempts: 1 }, eject: { failures: 1, on: ['503'], for: 1h }");
    let gateway = Gateway::start(&format!("{document}telemetry: {{ metrics: '{port}' }}\n"));
    a.inject(fault("status=503"), 1);
    let mut raw = Raw::connect(gateway.web());
    (0..4).for_each(|_| drop(raw.get("/echo", "")));
    gateway.node().upstreams().drain("s", &b.url());
    let text = Raw::connect(port).get("/metrics", "").text();
    for line in [
        format!("weir_endpoint_ejected{{upstream=\"s\",endpoint=\"{}\"}} 1", a.url()),
        format!("weir_endpoint_ejections_total{{upstream=\"s\",endpoint=\"{}\"}} 1", a.url()),
        format!("weir_endpoint_draining{{upstream=\"s\",endpoint=\"{}\"}} 1", b.url()),
        "weir_upstream_breaker{upstream=\"s\"} 0".to_owned(),
        "weir_upstream_refused_full_total{upstream=\"s\"} 0".to_owned(),
        "weir_hedges_total{upstream=\"s\"} 0".to_owned(),
    ] {
        assert!(text.lines().any(|it| it == line), "{line}\n{text}");
    }
}
