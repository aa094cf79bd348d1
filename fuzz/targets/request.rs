//! Bytes of a client: what is taken of them must come out as exactly one request for each, in whatever pieces they come,
//! and be the same request to who reads it next.
#![no_main]

use base::{Headers, Scheme};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use transport::Frame;
use transport::h1::{Decoded, Framing, HeadLimits, parse_request, write_request};

#[derive(Debug, PartialEq)]
struct Taken {
    method: String,
    target: String,
    authority: String,
    headers: Headers,
    body: Vec<u8>,
    trailers: Option<Headers>,
    chunked: bool,
}

fuzz_target!(|data: &[u8]| {
    let Some((piece, wire)) = data.split_first() else { return };
    let limits = HeadLimits::new(8 << 10, 50);
    let whole = read(wire, wire.len().max(1), limits);
    let pieces = read(wire, usize::from(*piece % 16) + 1, limits);
    assert_eq!(whole, pieces, "the pieces in which it comes make a difference");
    for taken in whole {
        let wire = written(&taken);
        strict(&wire);
        // What is written may have a field more, such as a length.
        let again = read(&wire, wire.len(), HeadLimits::new(16 << 10, 60));
        assert_eq!(again.len(), 1, "one request became {}: {:?}", again.len(), String::from_utf8_lossy(&wire));
        assert_eq!(again[0], taken);
    }
});

/// All requests that come whole before something is refused.
fn read(wire: &[u8], piece: usize, limits: HeadLimits) -> Vec<Taken> {
    let (mut buffer, mut all, mut rest) = (BytesMut::new(), Vec::new(), wire.chunks(piece));
    loop {
        let mut parsed = loop {
            match parse_request(&mut buffer, Scheme::Http, limits) {
                Ok(Some(parsed)) => break parsed,
                Ok(None) => match rest.next() {
                    Some(piece) => buffer.extend_from_slice(piece),
                    None => return all,
                },
                Err(_) => return all,
            }
        };
        let chunked = !parsed.body.is_done() && parsed.body.length().is_none();
        let (mut body, mut trailers) = (Vec::new(), None);
        while !parsed.body.is_done() {
            match parsed.body.decode(&mut buffer) {
                Ok(Decoded::Frame(Frame::Data(data))) => {
                    assert!(!data.is_empty());
                    body.extend_from_slice(&data);
                }
                Ok(Decoded::Frame(Frame::Trailers(it))) => trailers = Some(*it),
                Ok(Decoded::End) => break,
                Ok(Decoded::More) => match rest.next() {
                    Some(piece) => buffer.extend_from_slice(piece),
                    None => return all,
                },
                Err(_) => return all,
            }
        }
        let mut head = parsed.head;
        // As the path does before it writes a head.
        for name in ["content-length", "transfer-encoding", "connection", "te", "upgrade", "expect", "host"] {
            head.headers.remove(name);
        }
        all.push(Taken {
            method: head.method.to_string(),
            target: head.target,
            authority: head.authority,
            headers: head.headers,
            body,
            trailers: trailers.filter(|it| !it.is_empty()),
            chunked,
        });
    }
}

fn written(taken: &Taken) -> Vec<u8> {
    let head = base::RequestHead {
        method: taken.method.parse().unwrap(),
        scheme: Scheme::Http,
        authority: taken.authority.clone(),
        target: taken.target.clone(),
        version: base::Version::HTTP_11,
        headers: taken.headers.clone(),
    };
    let framing = match taken.body.len() as u64 {
        _ if taken.chunked => Framing::Chunked,
        0 => Framing::None,
        length => Framing::Length(length),
    };
    let mut wire = Vec::new();
    write_request(&mut wire, &head, framing, None);
    if !taken.body.is_empty() {
        framing.encode(&mut wire, &taken.body);
    }
    framing.finish(&mut wire, taken.trailers.as_ref());
    wire
}

/// Every line of the head ends in CRLF, and nothing else in it could end one.
fn strict(wire: &[u8]) {
    let end = wire.windows(4).position(|it| it == b"\r\n\r\n").expect("a head has an end");
    let head = &wire[..end];
    let lines: Vec<&[u8]> = split(head);
    for line in &lines {
        assert!(
            !line.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n' | 0x7f)),
            "{:?}",
            String::from_utf8_lossy(head)
        );
    }
    assert_eq!(lines[0].iter().filter(|byte| **byte == b' ').count(), 2);
    let named = |name: &[u8]| lines[1..].iter().filter(|line| line.split(|b| *b == b':').next() == Some(name)).count();
    assert_eq!(named(b"host"), 1);
    assert!(named(b"content-length") + named(b"transfer-encoding") <= 1);
}

fn split(mut head: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    while let Some(at) = head.windows(2).position(|it| it == b"\r\n") {
        lines.push(&head[..at]);
        head = &head[at + 2..];
    }
    lines.push(head);
    lines
}
