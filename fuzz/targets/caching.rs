//! Fields of a request and of an answer before the cache: whether to keep it, and under which key. Two requests have one
//! key only if they ask for the same of the same.
#![no_main]

use std::time::{Duration, SystemTime};

use base::{Headers, RequestHead, Scheme, StatusCode, Time};
use bytes::BytesMut;
use cache::{Asks, Key, Query, Rules, Seen};
use libfuzzer_sys::fuzz_target;
use transport::h1::{HeadLimits, parse_request};

fuzz_target!(|data: &[u8]| {
    let mut buffer = BytesMut::from(data);
    let mut heads: Vec<RequestHead> = Vec::new();
    while let Ok(Some(parsed)) = parse_request(&mut buffer, Scheme::Http, HeadLimits::new(8 << 10, 50)) {
        heads.push(parsed.head);
        if heads.len() == 3 {
            break;
        }
    }
    let rules = Rules {
        fresh: None,
        heuristic: true,
        stale_while_revalidate: Duration::ZERO,
        stale_if_error: Duration::from_secs(60),
        entry: 1 << 20,
        shared: false,
        set_cookie: false,
        query: Query::default(),
    };
    let query = Query { only: None, ignore: vec!["utm".into()] };
    for head in &heads {
        let _ = Asks::of(&head.headers);
        let key = Key::new(&[0; 16], Some("owner"), head, &Query::default());
        assert!(key.url().starts_with(b"http://"));
        let _ = Key::new(&[0; 16], None, head, &query);
        // The second head stands for an answer, by its fields.
        for status in [200u16, 206, 301, 404, 500] {
            let mut reply = base::ResponseHead::new(StatusCode::from_u16(status).unwrap());
            reply.headers = heads.last().map_or_else(Headers::new, |it| it.headers.clone());
            let now = Time::from_nanos(1_000_000_000);
            let seen =
                Seen { request: head, consumer: status == 301, asked: now, told: now, wall: SystemTime::UNIX_EPOCH };
            let _ = cache::plan(&rules, &seen, &reply);
        }
    }
    if let [first, second, ..] = &heads[..] {
        let keys = [first, second].map(|head| Key::new(&[0; 16], None, head, &Query::default()));
        let same = first.target == second.target
            && first.host().eq_ignore_ascii_case(second.host())
            && port(first) == port(second);
        assert_eq!(keys[0] == keys[1], same, "{first:?} and {second:?}");
    }
});

fn port(head: &RequestHead) -> &str {
    let port = head.authority.get(head.host().len() + 1..).unwrap_or("");
    if port == "80" { "" } else { port }
}
