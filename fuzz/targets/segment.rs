//! What is read of the cache's disk: a segment with anything in it, a list and a record whose checksums are right and nothing
//! else need be, and a good segment that was damaged or cut. Nothing is given that was not written, and what was whole
//! before the damage is found.
#![no_main]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base::{Headers, Method, RequestHead, ResponseHead, Scheme, StatusCode, Time, Version, crc32c};
use bytes::Bytes;
use cache::disk::{Ban, CHUNK, Card, FRAME, HEAD, Record, Survey, decode, encode, footer, survey, write_head};
use cache::{Entry, Key, Query, Rules, Seen, plan};
use libfuzzer_sys::fuzz_target;

/// Of a folder's first.
const NUMBER: u32 = 1;
const NOW: Time = Time::from_nanos(1_000_000_000);
const WALL: Duration = Duration::from_secs(1_800_000_000);

fuzz_target!(|data: &[u8]| {
    let Some((mode, data)) = data.split_first() else { return };
    match mode % 5 {
        0 => any(data),
        1 => any(&[&write_head(NUMBER)[..], data].concat()),
        2 => list(data),
        3 => record(data),
        _ => damaged(data),
    }
    let (bans, whole) = Ban::decode_all(data);
    if whole {
        let again = Ban::encode_all(&bans);
        assert_eq!(Ban::decode_all(&again), (bans, true), "what was understood is understood again");
    }
});

/// A segment, as the disk is looked at: nothing is read beyond its end, nor more at once than there is.
fn look(bytes: &[u8]) -> Option<Survey> {
    survey(NUMBER, bytes.len() as u64, |buffer, at| {
        let from = usize::try_from(at).expect("within");
        buffer.copy_from_slice(bytes.get(from..from + buffer.len()).ok_or(())?);
        Ok::<_, ()>(())
    })
    .expect("only what is there is asked for")
}

fn at(bytes: &[u8], from: u32, length: u32) -> Option<&[u8]> {
    bytes.get(from as usize..from as usize + length as usize)
}

/// An answer as a reader would give it.
fn given(bytes: &[u8], card: &Card) -> Option<Entry> {
    let spot = card.spot;
    let record = read(at(bytes, spot.at, spot.head)?, spot.at)?;
    if record.card != *card || spot.body_segment != NUMBER {
        return None;
    }
    let body = at(bytes, spot.body_at, spot.body)?;
    record.is_whole(body).then(|| record.with_body(Bytes::copy_from_slice(body)))
}

fn read(head: &[u8], at: u32) -> Option<Record> {
    decode(head, (NUMBER, at), NOW, UNIX_EPOCH + WALL)
}

fn any(bytes: &[u8]) {
    let Some(Survey { cards, end }) = look(bytes) else { return };
    assert!(end.is_none_or(|end| (HEAD as u64..=bytes.len() as u64).contains(&end)));
    for card in &cards {
        let spot = card.spot;
        let head = at(bytes, spot.at, spot.head).expect("it is within");
        assert!(spot.body_segment != NUMBER || at(bytes, spot.body_at, spot.body).is_some(), "so is its body");
        if let Some(entry) = given(bytes, card) {
            assert_eq!(head[20..24], sum(head).to_le_bytes(), "its checksum is right");
            assert_eq!((entry.url(), entry.body.len()), (card.url(), spot.body as usize));
            rewritten(&entry);
        }
    }
    if end.is_some() {
        // What is cut off and listed is found as it was.
        let end = end.map_or(bytes.len(), |end| end as usize);
        let listed = [&bytes[..end], &footer(&cards)].concat();
        assert_eq!(look(&listed), Some(Survey { cards, end: None }));
    }
}

/// What is read can be written, and is the same then.
fn rewritten(entry: &Entry) {
    let Some((head, card)) = encode(entry, 1, (NUMBER, HEAD as u32), NOW, UNIX_EPOCH + WALL) else { return };
    let again = read(&head, HEAD as u32).expect("it was written so");
    assert_eq!(again.card, card);
    assert_eq!(again.entry.headers, entry.headers);
    // An age that no number of nanoseconds can tell is for ever.
    assert!(again.entry.plan == entry.plan || u64::try_from(entry.plan.age.as_nanos()).is_err());
    assert_eq!((again.entry.status, &again.entry.api), (entry.status, &entry.api));
    assert!(footer(&[card.clone()]).len() as u64 <= card.listed() + 16, "no list is longer than was reckoned with");
}

/// A list whose checksum is right.
fn list(data: &[u8]) {
    let (records, table) = data.split_at(data.len().min(usize::from(data.first().copied().unwrap_or_default())));
    let trailer = [(table.len() as u32).to_le_bytes(), crc32c(table).to_le_bytes(), *b"WEC1"];
    any(&[&write_head(NUMBER)[..], records, table, trailer.as_flattened()].concat());
}

/// A record whose checksum is right, with what follows.
fn record(data: &[u8]) {
    let Some((lengths, rest)) = data.split_first_chunk::<2>() else { return };
    let (head, body) = rest.split_at(rest.len().min(usize::from(u16::from_le_bytes(*lengths))));
    let mut framed = Vec::from(*b"WRC1");
    framed.extend_from_slice(&1u64.to_le_bytes());
    framed.extend_from_slice(&(head.len() as u32).to_le_bytes());
    framed.extend_from_slice(&(body.len() as u32).to_le_bytes());
    framed.extend_from_slice(&[0; 4]);
    framed.extend_from_slice(head);
    let sum = sum(&framed);
    framed[20..24].copy_from_slice(&sum.to_le_bytes());
    any(&[&write_head(NUMBER)[..], &framed[..], body].concat());
}

fn sum(framed: &[u8]) -> u32 {
    crc32c(&framed[..20]) ^ crc32c(&framed[FRAME..]).rotate_left(7)
}

/// A good segment, of which some bytes are changed and the end may be cut off.
fn damaged(data: &[u8]) {
    let Some(([count, listed, wounds, rest @ ..], data)) = data.split_first_chunk::<6>() else { return };
    let cut = u16::from_le_bytes([rest[0], rest[1]]);
    let (wounds, data) = data.split_at(data.len().min(usize::from(wounds % 8) * 3));
    let count = usize::from(count % 5) + 1;
    let (mut bytes, mut cards, mut entries) = (write_head(NUMBER).to_vec(), Vec::new(), Vec::new());
    for (number, part) in data.chunks(data.len() / count + 1).enumerate() {
        let entry = entry(number, part);
        let place = (NUMBER, bytes.len() as u32);
        let (head, card) = encode(&entry, number as u64 + 1, place, NOW, UNIX_EPOCH + WALL).expect("it is small");
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(&entry.body);
        cards.push(card);
        entries.push(entry);
    }
    let is_listed = listed % 2 == 1;
    let records = bytes.len();
    if is_listed {
        bytes.extend_from_slice(&footer(&cards));
    }
    let whole = bytes.clone();
    for wound in wounds.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([wound[0], wound[1]])) % bytes.len();
        bytes[at] ^= wound[2];
    }
    if cut != 0 {
        bytes.truncate(usize::from(cut) % bytes.len());
    }
    let first = whole.iter().zip(&bytes).position(|(was, is)| was != is).unwrap_or(bytes.len());
    any(&bytes);

    let found = look(&bytes);
    let list_is_whole = is_listed && bytes.get(records..) == whole.get(records..);
    let has_head = bytes.len() >= HEAD && first >= HEAD;
    assert_eq!(found.is_some(), has_head, "by its head");
    let Some(Survey { cards: found, end }) = found else { return };
    assert!(!list_is_whole || end.is_none(), "a list is read where there is one");
    for (card, entry) in cards.iter().zip(&entries) {
        let (start, behind) = (card.spot.at as usize, (card.spot.body_at + card.spot.body) as usize);
        let is_found = found.contains(card);
        assert!(is_found || !(list_is_whole || behind <= first), "what is whole before the damage is found");
        let is_same = bytes.get(start..behind) == whole.get(start..behind);
        match given(&bytes, card) {
            Some(given) => {
                assert!(is_same, "what was damaged is not given");
                assert_eq!((&given.body, &given.headers), (&entry.body, &entry.headers));
            }
            None => assert!(!is_same, "what is as it was written can be given"),
        }
    }
    assert!(found.iter().all(|card| cards.contains(card)), "nothing is found that was not written");
}

/// An answer made of some bytes: its length, what it varies by, and a body that takes more than one piece now and then.
fn entry(number: usize, part: &[u8]) -> Entry {
    let shape = part.first().copied().unwrap_or_default();
    let text: String = part.iter().map(|byte| char::from(byte % 94 + 33)).collect();
    let told = [
        ("cache-control", "max-age=600"),
        ("vary", if shape & 1 == 1 { "accept, x-a" } else { "" }),
        ("cache-tag", if shape & 2 == 2 { "a,b" } else { "" }),
        ("x-text", &text),
    ];
    let head = RequestHead {
        method: Method::GET,
        scheme: Scheme::Https,
        authority: "h".into(),
        target: format!("/{number}?{}", text.get(..8).unwrap_or_default()),
        version: Version::HTTP_11,
        headers: Headers::from_iter([("accept", &*text)]),
    };
    let rules = Rules {
        fresh: None,
        heuristic: true,
        stale_while_revalidate: Duration::ZERO,
        stale_if_error: Duration::ZERO,
        entry: 1 << 30,
        shared: false,
        set_cookie: false,
        query: Query::default(),
    };
    let reply = ResponseHead {
        status: StatusCode::OK,
        headers: Headers::from_iter(told.into_iter().filter(|it| !it.1.is_empty())),
    };
    let wall: SystemTime = UNIX_EPOCH + WALL;
    let owner = (shape & 4 == 4).then_some("someone");
    let seen = Seen { request: &head, consumer: owner.is_some(), asked: NOW, told: NOW, wall };
    let plan = plan(&rules, &seen, &reply).expect("it may be kept");
    let key = Key::new(&[3; 16], owner, &head, &Query::default());
    let body =
        if shape & 24 == 24 { part.iter().copied().cycle().take(CHUNK + part.len()).collect() } else { part.to_vec() };
    Entry::new(&key, "api".into(), &reply, Bytes::from(body), plan, (NOW, wall))
}
