//! Upstreams by name, asked of a name server that is not ours: what comes and goes with its records, and what stays while
//! it is away.

use std::collections::BTreeMap;

use simulator::{Options, Simulator};
use testkit::dns::NameServer;
use testkit::{Gateway, Raw, eventually};

fn named(name: &str) -> Simulator {
    Simulator::start(Options::named(name)).unwrap()
}

fn port(service: &Simulator) -> u16 {
    service.url().rsplit(':').next().unwrap().parse().unwrap()
}

/// A record of `_s._tcp.test`, valid for a second.
fn srv(priority: u16, weight: u16, port: u16, target: &str) -> String {
    format!("_s._tcp 1 SRV {priority} {weight} {port} {target}\n")
}

const HOSTS: &str = "a 60 A 127.0.0.1\nb 60 A 127.0.0.1\n";

fn document(server: &NameServer, dns: &str, upstream: &str) -> String {
    format!(
        "node: {{ workers: 2, dns: {{ servers: ['{}']{dns} }} }}\nupstreams: {{ s: {{ endpoints: ['srv+http://_s._tcp.test']{upstream} }} }}\napis: {{ a: {{ upstream: s }} }}\n",
        server.address()
    )
}

fn endpoints(gateway: &Gateway) -> Vec<String> {
    let status = gateway.node().upstreams().status();
    status[0].endpoints.iter().map(|it| it.url.to_string()).collect()
}

/// Who answers, how often, of so many calls on connections of their own.
fn answers(gateway: &Gateway, calls: usize) -> BTreeMap<String, usize> {
    let mut answers = BTreeMap::new();
    for _ in 0..calls {
        let answer = Raw::connect(gateway.web()).get("/echo", "");
        let who = match answer.status {
            200 => answer.json()["instance"].as_str().unwrap().to_owned(),
            status => status.to_string(),
        };
        *answers.entry(who).or_default() += 1;
    }
    answers
}

fn only(who: &str, calls: usize) -> BTreeMap<String, usize> {
    BTreeMap::from([(who.to_owned(), calls)])
}

#[test]
fn endpoints_come_and_go_with_the_records() {
    let (one, two) = (named("one"), named("two"));
    let mut server = NameServer::start(&format!("{HOSTS}{}", srv(0, 1, port(&one), "a")));
    let gateway = Gateway::start(&document(&server, "", ", balance: round-robin"));
    // The first call finds them, too.
    assert_eq!(answers(&gateway, 10), only("one", 10));
    assert_eq!(endpoints(&gateway), [format!("http://a.test:{}", port(&one))]);

    // Weights are shares.
    server.say(&format!("{HOSTS}{}{}", srv(0, 1, port(&one), "a"), srv(0, 3, port(&two), "b")));
    eventually("the second is there", || endpoints(&gateway).len() == 2);
    eventually("both workers know", || answers(&gateway, 20).len() == 2);
    let told = answers(&gateway, 80);
    assert!((16..=24).contains(&told["one"]), "{told:?}");

    // Of a priority that is not the lowest, one is called only when the others are down.
    server.say(&format!("{HOSTS}{}{}", srv(10, 1, port(&one), "a"), srv(20, 1, port(&two), "b")));
    eventually("the first alone is called", || answers(&gateway, 20) == only("one", 20));

    server.say(&format!("{HOSTS}{}", srv(0, 1, port(&two), "b")));
    eventually("the first is gone", || answers(&gateway, 20) == only("two", 20));
    assert_eq!(endpoints(&gateway).len(), 1);

    // A target of `.` says that there is none (RFC 2782).
    server.say(&format!("{HOSTS}{}", srv(0, 0, 0, ".")));
    eventually("there is none", || endpoints(&gateway).is_empty());
    assert_eq!(answers(&gateway, 2), only("503", 2));
    server.say(&format!("{HOSTS}{}", srv(0, 0, port(&one), "a")));
    eventually("it is back", || answers(&gateway, 10) == only("one", 10));
}

#[test]
fn the_next_priority_takes_over_from_one_that_fails() {
    let two = named("two");
    let one = named("one");
    let records = format!("{HOSTS}{}{}", srv(10, 1, port(&one), "a"), srv(20, 1, port(&two), "b"));
    let server = NameServer::start(&records);
    let gateway = Gateway::start(&document(&server, "", ", health: { http: /echo, every: 50ms, unhealthy-after: 1 }"));
    assert_eq!(answers(&gateway, 10), only("one", 10));
    drop(one);
    eventually("the second takes over", || answers(&gateway, 10) == only("two", 10));
}

#[test]
fn the_last_answer_stays_while_name_servers_are_away() {
    let (one, two) = (named("one"), named("two"));
    let records = format!("{HOSTS}{}", srv(0, 1, port(&one), "a"));
    let mut server = NameServer::start(&records);
    let gateway = Gateway::start(&document(&server, "", ""));
    assert_eq!(answers(&gateway, 5), only("one", 5));
    let metrics = |gateway: &Gateway| gateway.node().telemetry().render();
    let stale = |gateway: &Gateway| {
        let text = metrics(gateway);
        let line = text.lines().find(|it| it.starts_with("weir_name_stale_seconds{name=\"_s._tcp.test\"}"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
    };
    for down in [NameServer::stop, NameServer::fail] {
        down(&mut server);
        eventually("it is stale", || stale(&gateway).is_some_and(|seconds| seconds >= 1));
        assert_eq!(answers(&gateway, 5), only("one", 5));
        server.come_back(&records);
        eventually("it is fresh", || stale(&gateway).is_none());
    }
    assert!(metrics(&gateway).contains("weir_name_answers{name=\"_s._tcp.test\"} 1"));
    server.say(&format!("{HOSTS}{}", srv(0, 1, port(&two), "b")));
    eventually("what is new is followed again", || answers(&gateway, 5) == only("two", 5));
}

#[test]
fn what_is_too_old_is_given_up() {
    let one = named("one");
    let mut server = NameServer::start(&format!("{HOSTS}{}", srv(0, 1, port(&one), "a")));
    let mut gateway = Gateway::start(&document(&server, ", stale: 2s, gone: 1h", ""));
    assert_eq!(answers(&gateway, 5), only("one", 5));
    server.stop();
    eventually("it is too old", || endpoints(&gateway).is_empty());
    assert_eq!(answers(&gateway, 2), only("503", 2));

    // A document that has other servers brings them back, though it took the node a while to ask again.
    let other = NameServer::start(&format!("{HOSTS}{}", srv(0, 1, port(&one), "a")));
    gateway.apply(&document(&other, ", stale: 2s, gone: 1h", ""));
    eventually("it is there", || answers(&gateway, 5) == only("one", 5));
}

#[test]
fn a_name_that_is_no_more_is_believed_after_a_while() {
    let one = named("one");
    let mut server = NameServer::start(&format!("{HOSTS}{}", srv(0, 1, port(&one), "a")));
    let gateway = Gateway::start(&document(&server, ", gone: 3s", ""));
    assert_eq!(answers(&gateway, 5), only("one", 5));
    // A slip of whoever keeps the zone.
    server.say(HOSTS);
    eventually("it is noticed", || {
        gateway.node().telemetry().render().contains("weir_name_failures_total{name=\"_s._tcp.test\"} 1")
    });
    assert_eq!(answers(&gateway, 5), only("one", 5));
    eventually("it is believed", || endpoints(&gateway).is_empty());
}

#[test]
fn an_answer_too_long_for_a_datagram_comes_by_tcp() {
    let one = named("one");
    let records: String = (0..400).map(|n| srv(1, 1, 1000 + n, "b")).collect();
    let server = NameServer::start(&format!("{HOSTS}{}{records}", srv(0, 1, port(&one), "a")));
    let gateway = Gateway::start(&document(&server, "", ""));
    assert_eq!(endpoints(&gateway).len(), 401);
    assert_eq!(answers(&gateway, 5), only("one", 5));
}

#[test]
fn a_node_starts_without_name_servers() {
    let one = named("one");
    let records = format!("{HOSTS}{}", srv(0, 1, port(&one), "a"));
    let mut server = NameServer::start(&records);
    server.stop();
    let gateway = Gateway::start(&document(&server, "", ""));
    assert_eq!(answers(&gateway, 2), only("503", 2));
    server.come_back(&records);
    eventually("it serves", || answers(&gateway, 5) == only("one", 5));
}
