//! Requests of HTTP/2 that would be others, or several, once they are HTTP/1: as a table, like that of HTTP/1.

use testkit::{Gateway, Raw};

use super::frames::{DATA, END_HEADERS, END_STREAM, Field, HEADERS, Http2, Outcome, block, get};
use super::origin::Origin;

/// A request with these fields is refused, by an answer or by the end of the stream or of the connection.
fn heads() -> Vec<Vec<Field<'static>>> {
    const METHOD: Field<'_> = (b":method", b"POST");
    const SCHEME: Field<'_> = (b":scheme", b"http");
    const AUTHORITY: Field<'_> = (b":authority", b"t");
    const PATH: Field<'_> = (b":path", b"/case");
    let mut heads: Vec<Vec<Field<'static>>> = vec![
        // Pseudo-header fields: missing, doubled, late, unknown, of answers.
        vec![SCHEME, AUTHORITY, PATH],
        vec![METHOD, AUTHORITY, PATH],
        vec![METHOD, SCHEME, AUTHORITY],
        vec![METHOD, SCHEME, PATH],
        vec![METHOD, METHOD, SCHEME, AUTHORITY, PATH],
        vec![METHOD, SCHEME, AUTHORITY, PATH, (b":path", b"/smuggled")],
        vec![METHOD, SCHEME, AUTHORITY, PATH, (b":authority", b"evil")],
        vec![METHOD, SCHEME, AUTHORITY, (b"x", b"y"), PATH],
        vec![METHOD, SCHEME, AUTHORITY, PATH, (b":status", b"200")],
        vec![METHOD, SCHEME, AUTHORITY, PATH, (b":unknown", b"x")],
        vec![METHOD, SCHEME, AUTHORITY, PATH, (b":protocol", b"websocket")],
        vec![(b":method", b"CONNECT"), AUTHORITY],
        vec![(b":method", b"CONNECT"), SCHEME, AUTHORITY, PATH],
    ];
    // One pseudo-header field in place of what it should be.
    for (name, values) in [
        (
            ":method",
            &[
                "",
                "GET /smuggled HTTP/1.1\r\nhost: t\r\n\r\nGET",
                "GET ",
                " GET",
                "G\tT",
                "G\rT",
                "G\nT",
                "G\0T",
                "G:T",
                "G{T",
            ][..],
        ),
        (":scheme", &["", "ftp", "http://evil/?", "http ", "ht\r\ntp", "javascript", "http\0"]),
        (
            ":authority",
            &[
                "",
                " ",
                "t\r\nx: y",
                "t\nx: y",
                "t\rx",
                "t\0",
                "u@t",
                "u:p@t",
                "t/smuggled",
                "t?x",
                "t#x",
                "t u",
                "t\t",
                "\\t",
                "\"t\"",
                "<t>",
            ],
        ),
        (
            ":path",
            &[
                "",
                "*",
                "case",
                "http://evil/smuggled",
                "/ HTTP/1.1\r\nhost: t\r\n\r\nGET /smuggled",
                "/a b",
                "/a\tb",
                "/a\rb",
                "/a\nb",
                "/a\0b",
                "/a\x7fb",
                "/a\x0bb",
                "/../b",
                "/a/%2e%2e/b",
                "/a\\..\\b",
                " /case",
            ],
        ),
    ] {
        heads.extend(values.iter().map(|value| {
            let others = [METHOD, SCHEME, AUTHORITY, PATH].into_iter().filter(|it| it.0 != name.as_bytes());
            others.chain([(name.as_bytes(), value.as_bytes())]).collect()
        }));
    }
    // One more field.
    let more: &[Field<'static>] = &[
        (b"X-Upper", b"x"),
        (b"", b"x"),
        (b" x", b"y"),
        (b"x ", b"y"),
        (b"x y", b"z"),
        (b"x:", b"y"),
        (b"x: y\r\nsmuggled", b"z"),
        (b"x\r\n", b"y"),
        (b"x\n", b"y"),
        (b"x\0", b"y"),
        (b"x\x7f", b"y"),
        (b"\xc3\xa4", b"y"),
        (b"x(y)", b"z"),
        (b"transfer-encoding: chunked\r\nx", b"y"),
        (b"x", b"y\r\nsmuggled: z"),
        (b"x", b"y\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: t\r\n\r\n"),
        (b"x", b"y\nsmuggled: z"),
        (b"x", b"y\rsmuggled: z"),
        (b"x", b"y\0z"),
        (b"x", b"\x01"),
        (b"x", b"\x7f"),
        (b"x", b" y"),
        (b"x", b"y "),
        (b"x", b"\ty"),
        (b"cookie", b"a=b\r\nsmuggled: z"),
        (b"connection", b"close"),
        (b"connection", b"x"),
        (b"keep-alive", b"timeout=5"),
        (b"proxy-connection", b"keep-alive"),
        (b"transfer-encoding", b"chunked"),
        (b"transfer-encoding", b"identity"),
        (b"upgrade", b"h2c"),
        (b"te", b"chunked"),
        (b"te", b"trailers, chunked"),
        (b"host", b"evil"),
        (b"host", b"t\r\nx: y"),
        (b"host", b""),
        (b"content-length", b""),
        (b"content-length", b"x"),
        (b"content-length", b"+4"),
        (b"content-length", b"-4"),
        (b"content-length", b"0x4"),
        (b"content-length", b"4, 4"),
        (b"content-length", b"4 "),
        (b"content-length", b"18446744073709551620"),
        (b"content-length", b"3"),
        (b"content-length", b"5"),
        (b"content-length", b"4\r\ntransfer-encoding: chunked"),
    ];
    heads.extend(more.iter().map(|field| vec![METHOD, SCHEME, AUTHORITY, PATH, *field]));
    let pair = |name: &'static [u8], values: [&'static [u8]; 2]| {
        let fields = values.map(|value| (name, value));
        vec![METHOD, SCHEME, AUTHORITY, PATH, fields[0], fields[1]]
    };
    heads.push(pair(b"content-length", [b"4", b"4"]));
    heads.push(pair(b"content-length", [b"4", b"40"]));
    heads.push(pair(b"host", [b"t", b"t"]));
    heads
}

fn refused(outcome: Outcome) -> bool {
    // 405 and 501 are in no static table.
    matches!(outcome, Outcome::Status(400 | 0) | Outcome::Reset(_) | Outcome::Gone)
}

#[test]
fn what_would_be_another_request_in_http_1_is_refused() {
    let origin = Origin::start();
    let gateway =
        Gateway::start(&format!("node: {{ workers: 1 }}\napis: {{ a: {{ upstream: '{}' }} }}\n", origin.url()));
    let mut http2 = Http2::connect(gateway.web(), &[]);
    let mut stream = 1;
    let heads = heads();
    for (number, head) in heads.iter().enumerate() {
        let told: Vec<_> = head
            .iter()
            .map(|(name, value)| (name.escape_ascii().to_string(), value.escape_ascii().to_string()))
            .collect();
        let _ = http2.frame(HEADERS, END_HEADERS, stream, &block(head));
        let _ = http2.frame(DATA, END_STREAM, stream, b"body");
        let outcome = http2.outcome(stream);
        assert!(refused(outcome), "{outcome:?} for {told:?}");
        stream += 2;
        // Whoever is on the same connection is served, and gets an answer of his own; or it has gone as a whole.
        let sent = http2.get(stream, "/beside").is_ok();
        let beside = if sent { http2.outcome(stream) } else { Outcome::Gone };
        stream += 2;
        match beside {
            Outcome::Status(200) => {}
            Outcome::Gone => (http2, stream) = (Http2::connect(gateway.web(), &[]), 1),
            other => panic!("{other:?} beside {told:?}"),
        }
        let after = format!("/after-{number}");
        assert_eq!(Raw::connect(gateway.web()).get(&after, "").text(), after, "after {told:?}");
    }
    let seen = origin.seen();
    let others: Vec<_> = seen.iter().filter(|it| it.target != "/beside" && !it.target.starts_with("/after-")).collect();
    assert!(others.is_empty(), "{others:?}");
    assert_eq!(seen.iter().filter(|it| it.target.starts_with("/after-")).count(), heads.len());
}

#[test]
fn lengths_and_trailers_of_http_2_are_not_believed() {
    let origin = Origin::start();
    let gateway =
        Gateway::start(&format!("node: {{ workers: 1 }}\napis: {{ a: {{ upstream: '{}' }} }}\n", origin.url()));
    let post = |path: &'static str, length: &'static [u8]| {
        let mut fields = get(path);
        fields[0].1 = b"POST";
        fields.push((b"content-length", length));
        block(&fields)
    };
    // No body at all, where one was promised; and one that goes on with what could be a request.
    for (length, body) in
        [(&b"4"[..], None), (b"0", Some("GET /smuggled HTTP/1.1\r\nhost: t\r\n\r\n")), (b"9", Some("short"))]
    {
        let mut http2 = Http2::connect(gateway.web(), &[]);
        let flags = if body.is_none() { END_STREAM } else { 0 };
        http2.frame(HEADERS, END_HEADERS | flags, 1, &post("/length", length)).unwrap();
        if let Some(body) = body {
            let _ = http2.frame(DATA, END_STREAM, 1, body.as_bytes());
        }
        let outcome = http2.outcome(1);
        assert!(refused(outcome), "{outcome:?} for {body:?} of {length:?}");
        assert_eq!(Raw::connect(gateway.web()).get("/after", "").text(), "/after");
    }
    assert!(origin.seen().iter().all(|seen| seen.target == "/after"), "{:?}", origin.seen());

    // Trailers: what frames, routes or identifies does not pass for one; what cannot be a field ends the stream.
    for (number, (trailers, passes)) in [
        (vec![(&b"x-sum"[..], &b"1"[..])], true),
        (
            vec![
                (b"x-sum", b"1"),
                (b"content-length", b"9"),
                (b"host", b"evil"),
                (b"authorization", b"x"),
                (b"trailer", b"x"),
            ],
            true,
        ),
        (vec![(b"transfer-encoding", b"chunked")], false),
        (vec![(b"connection", b"close")], false),
        // RFC 9113, 8.1 would have it refused; `h2` drops the field and lets the rest pass, which nobody can misread.
        (vec![(b":path", b"/smuggled"), (b"x-sum", b"1")], true),
        (vec![(b"X-Sum", b"1")], false),
        (vec![(b"x", b"y\r\nz: z")], false),
        (vec![(b"x\r\n\r\nGET /smuggled HTTP/1.1\r\nhost", b"t")], false),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/trailers-{number}");
        let mut fields = get(&path);
        fields[0].1 = b"POST";
        let mut http2 = Http2::connect(gateway.web(), &[]);
        http2.frame(HEADERS, END_HEADERS, 1, &block(&fields)).unwrap();
        http2.frame(DATA, 0, 1, b"body").unwrap();
        let _ = http2.frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&trailers));
        let outcome = http2.outcome(1);
        assert_eq!(outcome == Outcome::Status(200), passes, "{outcome:?} for {trailers:?}");
        let seen = origin.seen();
        let seen: Vec<_> = seen.iter().filter(|seen| seen.target == path).collect();
        assert_eq!(seen.len(), usize::from(passes), "{trailers:?}");
        for seen in seen {
            assert_eq!(seen.trailers, [("x-sum".to_owned(), "1".to_owned())]);
        }
    }
}
