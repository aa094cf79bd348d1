use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::UNIX_EPOCH;

use bytes::Bytes;

use super::*;
use crate::key::Query;
use crate::plan::{Seen, plan};
use crate::testing::{NOW, WALL, reply, request, rules};
use crate::{Joined, Rules};

struct Room {
    store: Arc<Store>,
    front: Front,
}

fn key(owner: Option<&str>, target: &str) -> Key {
    Key::new(&[0; 16], owner, &request("GET", target, &[]), &Query::default())
}

fn entry(owner: Option<&str>, target: &str, ask: &[(&str, &str)], told: &[(&str, &str)], body: &[u8]) -> Entry {
    let head = request("GET", target, ask);
    let told: Vec<_> = told.iter().copied().chain([("cache-control", "max-age=60")]).collect();
    let (reply, wall) = (reply(200, &told), UNIX_EPOCH + WALL);
    let seen = Seen { request: &head, consumer: owner.is_some(), asked: NOW, told: NOW, wall };
    let plan = plan(&Rules { entry: 1 << 30, ..rules() }, &seen, &reply).unwrap();
    let body = Bytes::copy_from_slice(body);
    Entry::new(&key(owner, target), "a".into(), &reply, body, plan, (NOW, wall))
}

impl Room {
    fn new(memory: usize) -> Room {
        Room { store: Store::new(memory), front: Front::default() }
    }

    fn keep(&self, entry: Entry) -> Arc<Entry> {
        let target = String::from_utf8(entry.url()["http://h".len()..].to_vec()).unwrap();
        let Boarded::Lead(ticket) = self.store.board(&key(None, &target), true, NOW) else { panic!() };
        ticket.land(entry)
    }

    fn body(&mut self, owner: Option<&str>, target: &str, ask: &[(&str, &str)]) -> Option<Bytes> {
        let headers = Headers::from_iter(ask.iter().copied());
        match self.store.find(&mut self.front, &key(owner, target), &headers, false) {
            Found::Entry(entry) => Some(entry.body.clone()),
            Found::Others | Found::Nothing => None,
        }
    }

    fn has(&mut self, target: &str) -> bool {
        self.body(None, target, &[]).is_some()
    }
}

#[test]
fn what_is_kept_is_found_by_those_it_is_for() {
    let mut room = Room::new(1 << 20);
    let vary = [("vary", "foo")];
    room.keep(entry(None, "/a", &[("foo", "1")], &vary, b"one"));
    room.keep(entry(None, "/a", &[("foo", "2")], &vary, b"two"));
    room.keep(entry(Some("x"), "/a", &[], &[], b"his"));
    for _ in 0..2 {
        assert_eq!(room.body(None, "/a", &[("foo", "1")]).unwrap(), "one");
        assert_eq!(room.body(None, "/a", &[("foo", "2")]).unwrap(), "two");
        assert_eq!(room.body(None, "/a", &[]), None);
        assert_eq!(room.body(Some("x"), "/a", &[]).unwrap(), "his");
        assert_eq!(room.body(Some("y"), "/a", &[]), None);
    }
    room.keep(entry(None, "/a", &[("foo", "1")], &vary, b"new"));
    assert_eq!(room.body(None, "/a", &[("foo", "1")]).unwrap(), "new");
    assert_eq!(room.store.usage().entries, 3);
    assert_eq!(room.store.forget(&key(None, "/a")), 3, "whomever it is for");
    assert_eq!(room.store.usage(), Usage::default());
    assert_eq!(room.body(Some("x"), "/a", &[]), None, "not by the front either");
}

#[test]
fn who_is_known_gets_only_what_is_meant_for_everyone() {
    let mut room = Room::new(1 << 20);
    room.keep(entry(None, "/anonymous", &[], &[], b"1"));
    room.keep(entry(None, "/open", &[], &[("cache-control", "public")], b"1"));
    for (target, openly, expected) in
        [("/anonymous", false, true), ("/anonymous", true, false), ("/open", false, true), ("/open", true, true)]
    {
        let found = room.store.find(&mut room.front, &key(None, target), &Headers::new(), openly);
        assert_eq!(matches!(found, Found::Entry(_)), expected, "{target} {openly}");
    }
}

#[test]
fn memory_is_bounded_and_what_is_asked_for_stays() {
    let mut room = Room::new(200_000);
    for number in 0..20 {
        room.keep(entry(None, &format!("/hot/{number}"), &[], &[], &[0; 1000]));
    }
    for round in 0..500 {
        for number in 0..20 {
            assert!(round == 0 || room.has(&format!("/hot/{number}")), "{number} in round {round}");
            room.has(&format!("/hot/{number}"));
        }
        room.keep(entry(None, &format!("/cold/{round}"), &[], &[], &[0; 1000]));
        assert!(room.store.usage().bytes <= 200_000);
    }
    assert!(room.store.usage().evicted > 300);
    room.store.resize(0);
    assert_eq!(room.store.usage().bytes, 0);
    assert_eq!(room.store.usage().entries, 0);
    room.keep(entry(None, "/large", &[], &[], &[0; 1000]));
    assert!(!room.has("/large"));
}

#[test]
fn purging_takes_what_is_named_and_nothing_else() {
    for (what, gone) in [
        (What::Url("http://h/a/1".into()), vec!["/a/1"]),
        (What::Prefix("http://h/a".into()), vec!["/a/1", "/a/2"]),
        (What::Tag("t".into()), vec!["/a/2", "/b"]),
        (What::Tag("unknown".into()), vec![]),
        (What::All, vec!["/a/1", "/a/2", "/b"]),
    ] {
        let mut room = Room::new(1 << 20);
        for (target, tags) in [("/a/1", "s"), ("/a/2", "s t"), ("/b", "t")] {
            room.keep(entry(None, target, &[], &[("surrogate-key", tags)], b"1"));
            assert!(room.has(target));
        }
        let other = Purge { api: Some("other".into()), what: what.clone() };
        assert_eq!(room.store.purge(&other), Purged::default());
        let purged = room.store.purge(&Purge { api: Some("a".into()), what });
        assert_eq!(purged, Purged { answers: gone.len(), memory: gone.len(), disk: None });
        for target in ["/a/1", "/a/2", "/b"] {
            assert_eq!(room.has(target), !gone.contains(&target), "{target} {gone:?}");
        }
    }
}

#[test]
fn what_is_on_its_way_when_its_url_is_forgotten_is_not_kept() {
    let mut room = Room::new(1 << 20);
    for forget in [false, true] {
        let Boarded::Lead(ticket) = room.store.board(&key(None, "/a"), false, NOW) else { panic!() };
        if forget {
            room.store.forget(&key(None, "/a"));
        } else {
            room.store.purge(&Purge { api: None, what: What::Tag("t".into()) });
        }
        ticket.land(entry(None, "/a", &[], &[], b"old"));
        assert!(!room.has("/a"));
    }
}

fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

fn follow(store: &Arc<Store>) -> Arc<Flight> {
    match store.board(&key(None, "/a"), false, NOW) {
        Boarded::Follow(flight) => flight,
        other => panic!("{other:?}"),
    }
}

#[test]
fn those_who_wait_get_what_lands_or_go_at_once() {
    let store = Store::new(1 << 20);
    let Boarded::Lead(ticket) = store.board(&key(None, "/a"), false, NOW) else { panic!() };
    assert!(matches!(store.board(&key(None, "/b"), false, NOW), Boarded::Lead(_)), "another key");
    assert!(matches!(store.board(&key(Some("x"), "/a"), false, NOW), Boarded::Lead(_)), "another's");
    assert!(matches!(store.board(&key(None, "/a"), true, NOW), Boarded::Lead(_)), "who will not wait");
    let flight = follow(&store);
    assert!(now(flight.join()).is_none());
    ticket.land(entry(None, "/a", &[], &[], b"1"));
    assert!(matches!(now(flight.join()), Some(Joined::Entry(_))));

    let Boarded::Lead(ticket) = store.board(&key(None, "/a"), false, NOW) else { panic!() };
    let flight = follow(&store);
    drop(ticket);
    assert!(matches!(now(flight.join()), Some(Joined::Again)));

    let Boarded::Lead(ticket) = store.board(&key(None, "/a"), false, NOW) else { panic!("a lost lead is no lead") };
    let flight = follow(&store);
    ticket.pass(Some(NOW));
    assert!(matches!(now(flight.join()), Some(Joined::Alone)));
    for _ in 0..2 {
        let boarded = store.board(&key(None, "/a"), false, NOW);
        assert!(matches!(boarded, Boarded::Lead(_)), "nobody waits for what nobody else could use");
        std::mem::forget(boarded);
    }
}

#[test]
fn bodies_on_their_way_are_bounded_too() {
    let store = Store::new(1000);
    let board = || match store.board(&key(None, "/a"), true, NOW) {
        Boarded::Lead(ticket) => ticket,
        other => panic!("{other:?}"),
    };
    let (mut one, mut other) = (board(), board());
    assert!(one.reserve(300) && !other.reserve(201) && other.reserve(200) && !other.reserve(1));
    drop(one);
    assert!(other.reserve(300) && !other.reserve(usize::MAX));
}

fn read(reader: &mut crate::Reader) -> Vec<Option<Result<Bytes, ()>>> {
    let mut all = Vec::new();
    while let Poll::Ready(piece) = reader.poll(&mut Context::from_waker(Waker::noop())) {
        let last = !matches!(piece, Some(Ok(_)));
        all.push(piece);
        if last {
            break;
        }
    }
    all
}

#[test]
fn a_body_on_its_way_is_read_along_from_its_beginning_and_kept() {
    let store = Store::new(1 << 20);
    let Boarded::Lead(ticket) = store.board(&key(None, "/a"), false, NOW) else { panic!() };
    let flight = follow(&store);
    let mut first = ticket.stream(Arc::new(entry(None, "/a", &[], &[], b"")), Some(4));
    ticket.push("ab".into(), 100);
    let Some(Joined::Stream(_, mut second)) = now(flight.join()) else { panic!() };
    assert_eq!((read(&mut first).len(), read(&mut second).len(), second.left()), (1, 1, Some(2)));
    ticket.push("cd".into(), 100);
    ticket.finish();
    assert_eq!(read(&mut first), [Some(Ok("cd".into())), None]);
    assert_eq!(read(&mut second), [Some(Ok("cd".into())), None]);
    let found = store.find(&mut Front::default(), &key(None, "/a"), &Headers::new(), false);
    let Found::Entry(entry) = found else { panic!("{found:?}") };
    assert_eq!(&*entry.body, b"abcd");
}

#[test]
fn a_body_that_is_too_large_goes_on_at_the_pace_of_the_slowest_and_is_not_kept() {
    let store = Store::new(1 << 20);
    let Boarded::Lead(ticket) = store.board(&key(None, "/a"), false, NOW) else { panic!() };
    let flight = follow(&store);
    let cx = &mut Context::from_waker(Waker::noop());
    let mut reader = ticket.stream(Arc::new(entry(None, "/a", &[], &[], b"")), None);
    ticket.push(vec![0; 300 * 1024].into(), 1000);
    assert!(matches!(now(flight.join()), Some(Joined::Alone)), "nobody new");
    assert!(ticket.poll_room(cx).is_pending());
    assert_eq!(read(&mut reader).len(), 1);
    assert_eq!(ticket.poll_room(cx), Poll::Ready(true));
    ticket.push("b".into(), 1000);
    assert_eq!(read(&mut reader).len(), 1);
    ticket.finish();
    assert_eq!(read(&mut reader), [None]);
    assert!(matches!(
        store.find(&mut Front::default(), &key(None, "/a"), &Headers::new(), false),
        Found::Nothing | Found::Others
    ));

    let Boarded::Lead(ticket) = store.board(&key(None, "/a"), false, NOW) else { panic!() };
    let mut reader = ticket.stream(Arc::new(entry(None, "/a", &[], &[], b"")), None);
    drop(ticket);
    assert_eq!(read(&mut reader), [Some(Err(()))]);
}

#[test]
fn what_has_not_changed_takes_the_place_of_what_it_was() {
    let mut room = Room::new(1 << 20);
    let old = room.keep(entry(None, "/a", &[], &[("x-a", "1")], b"1"));
    assert!(room.has("/a"));
    let Boarded::Lead(ticket) = room.store.board(&key(None, "/a"), false, NOW) else { panic!() };
    ticket.renew(&old, entry(None, "/a", &[], &[("x-a", "22")], b"1"));
    let found = room.store.find(&mut room.front, &key(None, "/a"), &Headers::new(), false);
    let Found::Entry(found) = found else { panic!() };
    assert_eq!(found.headers.get_str("x-a"), Some("22"));
    assert_eq!(room.store.usage().bytes, found.size());
    assert_eq!(room.store.usage().entries, 1);
}

/// Between a look that finds nothing and the lead, whoever had it on the way may land: what he brought is there by then.
#[test]
fn who_leads_too_late_finds_what_was_brought_and_gives_it_to_those_who_wait() {
    let mut room = Room::new(1 << 20);
    let key = key(None, "/a");
    let Boarded::Lead(first) = room.store.board(&key, false, NOW) else { panic!() };
    let head = request("GET", "/a", &[]);
    assert!(matches!(room.store.find(&mut room.front, &key, &head.headers, false), Found::Nothing));
    let landed = first.land(entry(None, "/a", &[], &[], b"body"));
    let Boarded::Lead(late) = room.store.board(&key, false, NOW) else { panic!("the first is over") };
    let Boarded::Follow(flight) = room.store.board(&key, false, NOW) else { panic!() };
    let Found::Entry(found) = room.store.find(&mut room.front, &key, &head.headers, false) else { panic!() };
    assert!(Arc::ptr_eq(&found, &landed));
    late.found(found);
    let Poll::Ready(Joined::Entry(given)) = pin!(flight.join()).poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("those who wait are told")
    };
    assert!(Arc::ptr_eq(&given, &landed));
    assert_eq!(room.store.usage().entries, 1);
}
