//! `limit` and `admit` through the front door.

use simulator::{Options, Simulator};
use testkit::{Gateway, Raw, eventually};

use crate::cache::Origin;

fn simulator() -> Simulator {
    Simulator::start(Options::default()).unwrap()
}

fn limited(upstream: &str, rules: &str) -> Gateway {
    Gateway::start(&format!("apis: {{ a: {{ upstream: '{upstream}', policies: {{ limit: {rules} }} }} }}\n"))
}

fn get(gateway: &Gateway) -> u16 {
    Raw::connect(gateway.web()).get("/", "").status
}

#[test]
fn places_come_back_however_a_call_ends() {
    let service = simulator();
    let gateway = limited(&service.url(), "[{ per: address, concurrency: 1 }]");
    let unfinished = || {
        let mut raw = Raw::connect(gateway.web());
        let before = service.requests();
        raw.send("POST /echo HTTP/1.1\r\nhost: t\r\ncontent-length: 10\r\n\r\n01234");
        eventually("the call is under way", || service.requests() > before);
        assert_eq!(get(&gateway), 429);
        raw
    };
    // Its last byte comes.
    let mut raw = unfinished();
    let answer = raw.send("56789").answer();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("ratelimit-policy"), Some(r#""address-concurrency";q=1;qu="concurrent-requests""#));
    eventually("the place is free", || get(&gateway) == 200);
    // The client leaves.
    drop(unfinished());
    eventually("the place is free again", || get(&gateway) == 200);
    // Nobody answers.
    let gateway = limited("http://127.0.0.1:1", "[{ per: address, concurrency: 1 }]");
    for _ in 0..3 {
        eventually("the place is free", || get(&gateway) == 502);
    }
}

#[test]
fn bytes_are_counted_as_they_were_in_the_end() {
    let service = simulator();
    let gateway =
        limited(&service.url(), "[{ per: all, bytes-in: 1000B/h, estimate: 900B }, { per: all, bytes-out: 1MiB/h }]");
    let mut raw = Raw::connect(gateway.web());
    let chunked = "POST /echo HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n";
    let left = |answer: &testkit::Answer| -> u64 {
        let field = answer.header("ratelimit").unwrap();
        field.split(";r=").nth(1).unwrap().split(';').next().unwrap().parse().unwrap()
    };
    // 900 are taken for the body whose length is not known, and 890 of them come back.
    assert_eq!(left(&raw.send(chunked).answer()), 100);
    eventually("what was too much is given back", || {
        let answer = Raw::connect(gateway.web()).get("/", "");
        // Each of these counts as one while it lasts, and as nothing then.
        answer.status == 200 && left(&answer) == 989
    });
    let body = "x".repeat(985);
    let answer = raw.send(format!("POST /echo HTTP/1.1\r\nhost: t\r\ncontent-length: 985\r\n\r\n{body}")).answer();
    assert_eq!((answer.status, left(&answer)), (200, 5));
    let answer = raw.send("POST /echo HTTP/1.1\r\nhost: t\r\ncontent-length: 985\r\n\r\n").answer();
    assert_eq!(answer.status, 429, "{answer:?}");
    assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() > 3000, "{answer:?}");
}

#[test]
fn what_an_upstream_has_no_room_for_is_refused_and_what_is_stored_needs_none() {
    let (service, origin) = (simulator(), Origin::saying("cache-control: max-age=60\r\n"));
    let gateway = Gateway::start(&format!(
        "apis:
  a:
    policies: {{ admit: {{ start: 1, most: 1, retry-after: 3s }}, cache: {{}} }}
    routes:
      - {{ match: {{ path: /stored }}, upstream: 'http://{}' }}
      - {{ upstream: '{}' }}
",
        origin.address,
        service.url()
    ));
    let stored = || Raw::connect(gateway.web()).get("/stored", "").status;
    assert_eq!(stored(), 200);
    let mut raw = Raw::connect(gateway.web());
    for _ in 0..2 {
        let before = service.requests();
        raw.send("POST /echo HTTP/1.1\r\nhost: t\r\ncontent-length: 10\r\n\r\n01234");
        eventually("the call is under way", || service.requests() > before);
        let refused = Raw::connect(gateway.web()).get("/", "");
        assert_eq!(refused.header("retry-after"), Some("3"), "{refused:?}");
        assert!(refused.text().contains("urn:weir:problem:overloaded"), "{refused:?}");
        assert_eq!(stored(), 200);
        assert_eq!(raw.send("56789").answer().status, 200);
        eventually("there is room again", || get(&gateway) == 200);
    }
}
