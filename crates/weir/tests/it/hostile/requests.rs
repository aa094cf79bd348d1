//! Requests of HTTP/1 that two readers could read differently, as a table: what each is answered, and what the origin
//! gets to see of it. Every case is followed by a request that must not be let through with it, and by one on a
//! connection of its own that must get its own answer.

use std::time::{Duration, Instant};

use testkit::{Gateway, Raw, curl};

use super::origin::Origin;

enum Want {
    /// This status, or one of these; the connection ends, and the origin sees no whole request.
    Refused(&'static [u16]),
    /// The origin sees just this body, and the connection goes on with the next request.
    Served(&'static str),
}

use Want::{Refused, Served};

const BAD: Want = Refused(&[400]);
/// A transfer coding that is not known is 501 (RFC 9112, 6.1).
const CODING: Want = Refused(&[400, 501]);

/// Fields of a POST, and what follows its head.
const FRAMING: &[(&str, &str, Want)] = &[
    // Content-Length.
    ("content-length: 4\r\n", "abcd", Served("abcd")),
    ("content-length: 0004\r\n", "abcd", Served("abcd")),
    ("Content-LENGTH:\t4 \r\n", "abcd", Served("abcd")),
    ("content-length: 4\r\ncontent-length: 5\r\n", "abcd", BAD),
    ("content-length: 4\r\ncontent-length: 4\r\n", "abcd", BAD),
    ("content-length: 4\r\nx: y\r\nContent-Length: 0\r\n", "abcd", BAD),
    ("content-length: 4, 4\r\n", "abcd", BAD),
    ("content-length: 4, 5\r\n", "abcd", BAD),
    ("content-length: 4,\r\n", "abcd", BAD),
    ("content-length: +4\r\n", "abcd", BAD),
    ("content-length: -1\r\n", "", BAD),
    ("content-length: -0\r\n", "", BAD),
    ("content-length: 4 4\r\n", "abcd", BAD),
    ("content-length: 4;a=b\r\n", "abcd", BAD),
    ("content-length: 0x4\r\n", "abcd", BAD),
    ("content-length: 4e0\r\n", "abcd", BAD),
    ("content-length: 4.0\r\n", "abcd", BAD),
    ("content-length: \"4\"\r\n", "abcd", BAD),
    ("content-length: 4_0\r\n", "abcd", BAD),
    ("content-length: \u{664}\r\n", "abcd", BAD),
    ("content-length:\r\n", "", BAD),
    ("content-length: 18446744073709551616\r\n", "", BAD),
    ("content-length: 18446744073709551620\r\n", "abcd", BAD),
    ("content-length: 99999999999999999999\r\n", "", BAD),
    ("content-length : 4\r\n", "abcd", BAD),
    ("content-length\t: 4\r\n", "abcd", BAD),
    (" content-length: 4\r\n", "abcd", BAD),
    ("content-length\0: 4\r\n", "abcd", BAD),
    ("content-length:\x0b4\r\n", "abcd", BAD),
    ("content-length:\x0c4\r\n", "abcd", BAD),
    ("content-length: 4\x0c\r\n", "abcd", BAD),
    // Another field to us, and not to be passed on to those for whom it is the same.
    ("content_length: 4\r\n", "", Served("")),
    ("transfer_encoding: chunked\r\n", "", Served("")),
    // Transfer-Encoding.
    ("transfer-encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n", Served("abc")),
    ("Transfer-Encoding:\t CHUNKED\t\r\n", "3\r\nabc\r\n0\r\n\r\n", Served("abc")),
    ("transfer-encoding: chunked\r\ncontent-length: 4\r\n", "0\r\n\r\n", BAD),
    ("content-length: 4\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n", BAD),
    ("content-length: 5\r\ntransfer-encoding: identity\r\n", "0\r\n\r\n", BAD),
    ("content-length: 5\r\ntransfer-encoding:\r\n", "0\r\n\r\n", BAD),
    ("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n", CODING),
    ("transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n", "0\r\n\r\n", CODING),
    ("transfer-encoding: identity\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n", CODING),
    ("transfer-encoding: chunked, chunked\r\n", "0\r\n\r\n", CODING),
    ("transfer-encoding: chunked, identity\r\n", "0\r\n\r\n", CODING),
    ("transfer-encoding: identity, chunked\r\n", "0\r\n\r\n", CODING),
    ("transfer-encoding: gzip, chunked\r\n", "0\r\n\r\n", CODING),
    ("transfer-encoding: chunked,\r\n", "0\r\n\r\n", CODING),
    ("transfer-encoding: ,chunked\r\n", "0\r\n\r\n", CODING),
    ("transfer-encoding: chunked;q=1\r\n", "0\r\n\r\n", CODING),
    ("transfer-encoding: \"chunked\"\r\n", "0\r\n\r\n", CODING),
    ("transfer-encoding: 'chunked'\r\n", "0\r\n\r\n", CODING),
    ("transfer-encoding: xchunked\r\n", "0\r\n\r\n", CODING),
    ("transfer-encoding: chunkedx\r\n", "0\r\n\r\n", CODING),
    ("transfer-encoding: x chunked\r\n", "0\r\n\r\n", CODING),
    ("transfer-encoding: identity\r\n", "0\r\n\r\n", CODING),
    ("transfer-encoding: cow\r\n", "0\r\n\r\n", CODING),
    ("transfer-encoding:\r\n", "0\r\n\r\n", CODING),
    ("transfer-encoding: \u{212a}hunked\r\n", "0\r\n\r\n", CODING),
    ("transfer-encoding:\x0bchunked\r\n", "0\r\n\r\n", CODING),
    ("transfer-encoding:\x0cchunked\r\n", "0\r\n\r\n", CODING),
    ("transfer-encoding: chunked\x0b\r\n", "0\r\n\r\n", CODING),
    ("transfer-encoding: chunked\0\r\n", "0\r\n\r\n", CODING),
    ("transfer-encoding: chun\0ked\r\n", "0\r\n\r\n", CODING),
    ("transfer-encoding : chunked\r\n", "0\r\n\r\n", BAD),
    ("transfer-encoding\x0b: chunked\r\n", "0\r\n\r\n", BAD),
    ("transfer-encoding\r\n : chunked\r\n", "0\r\n\r\n", BAD),
    (" transfer-encoding: chunked\r\n", "0\r\n\r\n", BAD),
    ("\ttransfer-encoding: chunked\r\n", "0\r\n\r\n", BAD),
    ("x: y\r\n transfer-encoding: chunked\r\n", "0\r\n\r\n", BAD),
    ("transfer-encoding:\r\n chunked\r\n", "0\r\n\r\n", BAD),
    ("transfer-encoding: chunked\r\n , identity\r\n", "0\r\n\r\n", BAD),
    ("x: y\rtransfer-encoding: chunked\r\n", "0\r\n\r\n", BAD),
    ("x: y\ntransfer-encoding: chunked\r\n", "0\r\n\r\n", BAD),
    ("x: y\n\rtransfer-encoding: chunked\r\n", "0\r\n\r\n", BAD),
    ("x: y\r\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n", BAD),
    // What a Connection field names is for this hop, but what frames the message was read before.
    ("connection: content-length\r\ncontent-length: 4\r\n", "abcd", Served("abcd")),
    ("connection: transfer-encoding, te\r\ntransfer-encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n", Served("abc")),
    ("connection: host\r\ncontent-length: 4\r\n", "abcd", Served("abcd")),
    ("te: trailers, chunked\r\ncontent-length: 4\r\n", "abcd", Served("abcd")),
    (
        "upgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: AAMA\r\ncontent-length: 4\r\n",
        "abcd",
        Served("abcd"),
    ),
    ("x-http-method-override: GET\r\ncontent-length: 4\r\n", "abcd", Served("abcd")),
];

/// Chunked bodies.
const CHUNKS: &[(&str, Want)] = &[
    ("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", Served("abcde")),
    ("003\r\nabc\r\n000\r\n\r\n", Served("abc")),
    ("A\r\n0123456789\r\n0\r\n\r\n", Served("0123456789")),
    ("3 \t\r\nabc\r\n0\r\n\r\n", Served("abc")),
    ("3;a=b;c=\"d;e\"\r\nabc\r\n0;f\r\n\r\n", Served("abc")),
    ("3 ; a\r\nabc\r\n0\r\n\r\n", Served("abc")),
    ("0\r\nx-sum: 1\r\nx-sum: 2\r\n\r\n", Served("")),
    // What has no place in trailers does not go on as one.
    ("3\r\nabc\r\n0\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\nhost: evil\r\n\r\n", Served("abc")),
    ("0\r\nconnection: x\r\nte: x\r\ntrailer: x\r\nupgrade: x\r\nx-forwarded-for: x\r\n\r\n", Served("")),
    ("\r\n", BAD),
    (" 3\r\nabc\r\n0\r\n\r\n", BAD),
    ("+3\r\nabc\r\n0\r\n\r\n", BAD),
    ("-3\r\nabc\r\n0\r\n\r\n", BAD),
    ("-0\r\n\r\n", BAD),
    ("0x3\r\nabc\r\n0\r\n\r\n", BAD),
    ("3h\r\nabc\r\n0\r\n\r\n", BAD),
    ("g\r\nabc\r\n0\r\n\r\n", BAD),
    ("3_0\r\nabc\r\n0\r\n\r\n", BAD),
    ("3 3\r\nabc\r\n0\r\n\r\n", BAD),
    ("3,3\r\nabc\r\n0\r\n\r\n", BAD),
    ("3.\r\nabc\r\n0\r\n\r\n", BAD),
    ("3\x0b\r\nabc\r\n0\r\n\r\n", BAD),
    ("3\x0c\r\nabc\r\n0\r\n\r\n", BAD),
    ("3\0\r\nabc\r\n0\r\n\r\n", BAD),
    (";a\r\nabc\r\n0\r\n\r\n", BAD),
    // Beyond 64 bits, where some begin again at 0, and beyond 63, where some turn negative.
    ("10000000000000003\r\nabc\r\n0\r\n\r\n", BAD),
    ("fffffffffffffffff\r\nabc\r\n0\r\n\r\n", BAD),
    ("ffffffffffffffff\r\nabc\r\n0\r\n\r\n", BAD),
    ("8000000000000003\r\nabc\r\n0\r\n\r\n", BAD),
    ("00000000000000000000000000000003\r\nabc\r\n0\r\n\r\n", BAD),
    // Lines that do not end as lines.
    ("3\nabc\r\n0\r\n\r\n", BAD),
    ("3\r\nabc\n0\r\n\r\n", BAD),
    ("3\r\nabc\r0\r\n\r\n", BAD),
    ("3\r\nabc0\r\n\r\n", BAD),
    ("3\r\nabcd\r\n0\r\n\r\n", BAD),
    ("3\r\nab\r\n0\r\n\r\n", BAD),
    ("3\r\nabc\r\n\r\n0\r\n\r\n", BAD),
    ("3\r\nabcXX0\r\n\r\n", BAD),
    ("3\r\r\nabc\r\n0\r\n\r\n", BAD),
    ("3\rabc\r\n0\r\n\r\n", BAD),
    ("3;a=\"\n\"\r\nabc\r\n0\r\n\r\n", BAD),
    ("3;a\nabc\r\n0\r\n\r\n", BAD),
    ("3;a\rb\r\nabc\r\n0\r\n\r\n", BAD),
    ("3;\n\r\nabc\r\n0\r\n\r\n", BAD),
    ("0\n\r\n", BAD),
    ("0\n\n", BAD),
    ("0\r\n\n", BAD),
    ("0\r\n\r\r\n", BAD),
    ("0\r\nx: y\n\n", BAD),
    ("0\r\nx: y\n\r\n", BAD),
    ("0\r\nx: y\r\n\n", BAD),
    ("0\r\nx: y\r\r\n\r\n", BAD),
    ("0\r\nx : y\r\n\r\n", BAD),
    ("0\r\n x: y\r\n\r\n", BAD),
    ("0\r\nx: a\r\n b\r\n\r\n", BAD),
    ("0\r\nx: a\0b\r\n\r\n", BAD),
    ("0\r\n: x\r\n\r\n", BAD),
    ("0\r\nGET /smuggled HTTP/1.1\r\nhost: t\r\n\r\n", BAD),
];

/// Request lines, and fields in place of `host: t`.
const HEADS: &[(&str, &str, Want)] = &[
    ("GET PATH HTTP/1.1", "host: t\r\n", Served("")),
    ("get PATH HTTP/1.1", "host: t\r\n", Served("")),
    ("\r\n\r\nGET PATH HTTP/1.1", "host: t\r\n", Served("")),
    ("GET http://t/PATH HTTP/1.1", "host: t\r\n", Served("")),
    ("GET http://t/PATH HTTP/1.1", "host: other\r\n", Served("")),
    ("GET HTTPS://t/PATH HTTP/1.1", "host: t\r\n", Served("")),
    ("GET PATH HTTP/1.0", "connection: keep-alive\r\n", Served("")),
    // The field that no reader takes for another.
    ("GET PATH HTTP/1.1", "host: t\r\nx\x60y!#$%&'*+-.^_|~: z\r\n", Served("")),
    ("GET PATH HTTP/1.1", "", BAD),
    ("GET PATH HTTP/1.1", "host: t\r\nhost: t\r\n", BAD),
    ("GET PATH HTTP/1.1", "host: a\r\nHost: b\r\n", BAD),
    ("GET http://a/PATH HTTP/1.1", "host: a\r\nhost: b\r\n", BAD),
    ("GET http://a/PATH HTTP/1.1", "", BAD),
    ("GET PATH HTTP/1.1", "host: a b\r\n", BAD),
    ("GET PATH HTTP/1.1", "host: a\tb\r\n", BAD),
    ("GET PATH HTTP/1.1", "host: u@a\r\n", BAD),
    ("GET PATH HTTP/1.1", "host: u:p@a\r\n", BAD),
    ("GET PATH HTTP/1.1", "host: a/b\r\n", BAD),
    ("GET PATH HTTP/1.1", "host: a?b\r\n", BAD),
    ("GET PATH HTTP/1.1", "host: a#b\r\n", BAD),
    ("GET PATH HTTP/1.1", "host: a\\b\r\n", BAD),
    ("GET PATH HTTP/1.1", "host: \"a\"\r\n", BAD),
    ("GET PATH HTTP/1.1", "host: <a>\r\n", BAD),
    ("GET PATH HTTP/1.1", "host: \u{e4}\r\n", BAD),
    ("GET PATH HTTP/1.1", "host: a\0\r\n", BAD),
    ("GET PATH HTTP/1.1", "host:\r\n a\r\n", BAD),
    ("GET PATH HTTP/1.1", "host : t\r\n", BAD),
    ("GET http://u@t/PATH HTTP/1.1", "host: t\r\n", BAD),
    ("GET http://t@evil/PATH HTTP/1.1", "host: t\r\n", BAD),
    ("GET http:///PATH HTTP/1.1", "host: t\r\n", BAD),
    ("GET http://t\\PATH HTTP/1.1", "host: t\r\n", BAD),
    ("GET ftp://t/PATH HTTP/1.1", "host: t\r\n", BAD),
    ("GET //t@evil:80PATH#x HTTP/1.1", "host: t\r\n", BAD),
    ("GET t/PATH HTTP/1.1", "host: t\r\n", BAD),
    ("GET * HTTP/1.1", "host: t\r\n", BAD),
    ("GET PATH#x HTTP/1.1", "host: t\r\n", BAD),
    ("GET PATH\x7f HTTP/1.1", "host: t\r\n", BAD),
    ("GET PATH\0 HTTP/1.1", "host: t\r\n", BAD),
    ("GET PATH\tx HTTP/1.1", "host: t\r\n", BAD),
    ("GET PATH\x0bx HTTP/1.1", "host: t\r\n", BAD),
    ("GET PATH b HTTP/1.1", "host: t\r\n", Refused(&[400, 505])),
    ("GET  PATH HTTP/1.1", "host: t\r\n", BAD),
    ("GET\tPATH HTTP/1.1", "host: t\r\n", BAD),
    ("GET PATH  HTTP/1.1", "host: t\r\n", Refused(&[400, 505])),
    ("GET PATH HTTP/1.1 ", "host: t\r\n", Refused(&[400, 505])),
    ("GET PATH HTTP/1.1\r", "host: t\r\n", Refused(&[400, 505])),
    (" GET PATH HTTP/1.1", "host: t\r\n", BAD),
    ("\nGET PATH HTTP/1.1", "host: t\r\n", BAD),
    ("GET PATH", "", Refused(&[400, 505])),
    ("GET PATH HTTP/0.9", "host: t\r\n", Refused(&[400, 505])),
    ("GET PATH HTTP/1.2", "host: t\r\n", Refused(&[400, 505])),
    ("GET PATH HTTP/1.10", "host: t\r\n", Refused(&[400, 505])),
    ("GET PATH HTTP/2.0", "host: t\r\n", Refused(&[400, 505])),
    ("GET PATH HTTP/3.7", "host: t\r\n", Refused(&[400, 505])),
    ("GET PATH http/1.1", "host: t\r\n", Refused(&[400, 505])),
    ("GET PATH HTTP /1.1", "host: t\r\n", Refused(&[400, 505])),
    ("GET PATH ICAP/1.1", "host: t\r\n", Refused(&[400, 505])),
    ("G{T PATH HTTP/1.1", "host: t\r\n", BAD),
    ("G:T PATH HTTP/1.1", "host: t\r\n", BAD),
    ("G\0T PATH HTTP/1.1", "host: t\r\n", BAD),
    ("PATH HTTP/1.1", "host: t\r\n", Refused(&[400, 505])),
    ("GET PATH HTTP/1.1\nhost: t\nx: y", "", BAD),
    ("GET PATH HTTP/1.1\nx: y", "host: t\r\n", BAD),
    ("GET PATH HTTP/1.1", "host: t\nx: y\r\n", BAD),
    ("GET PATH HTTP/1.1", "host: t\r\nx: a\nsmuggled: b\r\n", BAD),
    ("GET PATH HTTP/1.1", "host: t\r\nx: a\n\r\n", BAD),
    ("GET PATH HTTP/1.1", "host: t\r\nx: a\rb\r\n", BAD),
    ("GET PATH HTTP/1.1", "host: t\r\nx: a\0b\r\n", BAD),
    ("GET PATH HTTP/1.1", "host: t\r\nx: a\x01b\r\n", BAD),
    ("GET PATH HTTP/1.1", "host: t\r\nx: a\x7fb\r\n", BAD),
    ("GET PATH HTTP/1.1", "host: t\r\nx: a\r\n b\r\n", BAD),
    ("GET PATH HTTP/1.1", "host: t\r\nx: a\r\n\tb\r\n", BAD),
    ("GET PATH HTTP/1.1", "\r folded: x\r\nhost: t\r\n", BAD),
    ("GET PATH HTTP/1.1", " folded: x\r\nhost: t\r\n", BAD),
    ("GET PATH HTTP/1.1", "host: t\r\n: x\r\n", BAD),
    ("GET PATH HTTP/1.1", "host: t\r\nno-colon\r\n", BAD),
    ("GET PATH HTTP/1.1", "host: t\r\nx y: z\r\n", BAD),
    ("GET PATH HTTP/1.1", "host: t\r\nx\0y: z\r\n", BAD),
    ("GET PATH HTTP/1.1", "host: t\r\n\u{e4}: z\r\n", BAD),
    ("GET PATH HTTP/1.1", "host: t\r\nx(y): z\r\n", BAD),
    ("GET PATH HTTP/1.1", "host: t\r\n\"x\": z\r\n", BAD),
    ("GET PATH HTTP/1.1", "host: t\r\nx\\y: z\r\n", BAD),
    ("POST PATH HTTP/1.0", "host: t\r\ntransfer-encoding: chunked\r\n", BAD),
    ("POST PATH HTTP/1.0", "host: t\r\ntransfer-encoding: identity\r\n", BAD),
];

#[test]
fn what_two_readers_could_read_differently_is_refused() {
    let origin = Origin::start();
    // One worker, and so one pool: a poisoned connection would be taken by who comes next.
    let gateway =
        Gateway::start(&format!("node: {{ workers: 1 }}\napis: {{ a: {{ upstream: '{}' }} }}\n", origin.url()));
    let mut cases: Vec<(String, &Want)> = Vec::new();
    for (fields, behind, want) in FRAMING {
        cases.push((format!("POST PATH HTTP/1.1\r\nhost: t\r\n{fields}\r\n{behind}"), want));
    }
    for (chunks, want) in CHUNKS {
        cases.push((format!("POST PATH HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n{chunks}"), want));
    }
    for (line, fields, want) in HEADS {
        cases.push((format!("{line}\r\n{fields}\r\n"), want));
    }
    for (number, (wire, want)) in cases.iter().enumerate() {
        let (path, after) = (format!("/case-{number}"), format!("/after-{number}"));
        let wire = wire.replace("/PATH", &path).replace("PATH", &path);
        let mut raw = Raw::connect(gateway.web());
        raw.wait_at_most(Duration::from_secs(10));
        let _ = raw.try_send(format!("{wire}GET /smuggled-{number} HTTP/1.1\r\nhost: t\r\n\r\n"));
        let answer = raw.try_answer(false).unwrap_or_else(|error| panic!("{wire:?}: {error}"));
        match want {
            Refused(statuses) => {
                assert!(statuses.contains(&answer.status), "{wire:?}: {answer:?}");
                assert_eq!(answer.header("connection"), Some("close"), "{wire:?}: {answer:?}");
                assert_eq!(raw.rest(), b"", "{wire:?}: more than one answer");
            }
            Served(_) => {
                assert_eq!((answer.status, answer.text()), (200, path), "{wire:?}");
                let next = raw.try_answer(false).unwrap_or_else(|error| panic!("{wire:?}, the next: {error}"));
                assert_eq!((next.status, next.text()), (200, format!("/smuggled-{number}")), "{wire:?}");
            }
        }
        let next = Raw::connect(gateway.web()).get(&after, "");
        assert_eq!((next.status, next.text()), (200, after), "whoever comes after {wire:?}");
    }
    let seen = origin.seen();
    for (number, (wire, want)) in cases.iter().enumerate() {
        let of = |what: &str| seen.iter().filter(|it| it.target == format!("/{what}-{number}")).collect::<Vec<_>>();
        assert_eq!(of("after").len(), 1, "{wire:?}");
        match want {
            Refused(_) => assert_eq!((of("case").len(), of("smuggled").len()), (0, 0), "{wire:?}"),
            Served(body) => {
                assert_eq!((of("case").len(), of("smuggled").len()), (1, 1), "{wire:?}");
                assert_eq!(of("case")[0].body, body.as_bytes(), "{wire:?}");
            }
        }
    }
    let whole = cases.iter().filter(|(_, want)| matches!(want, Served(_))).count();
    assert_eq!(seen.len(), cases.len() + 2 * whole, "nothing else: {seen:?}");
}

#[test]
fn a_client_cannot_say_how_it_came() {
    let origin = Origin::start();
    let gateway = Gateway::start(&format!("apis: {{ a: {{ upstream: '{}' }} }}\n", origin.url()));
    let fields = "X_Forwarded_For: 1.2.3.4\r\nx-forwarded_for: 1.2.3.4\r\nx_forwarded-proto: https\r\nx-forwarded-proto: https\r\n\
                  forwarded: for=1.2.3.4\r\n";
    let url = format!("GET https://t/url HTTP/1.1\r\nhost: t\r\n{fields}\r\n");
    assert_eq!(Raw::connect(gateway.web()).send(url).answer().status, 200);
    let said = curl(&["--http2-prior-knowledge", "-H", "x_forwarded_for: 1.2.3.4", &format!("{}/h2", gateway.url())]);
    assert_eq!(said.answer.status, 200);
    for seen in origin.seen() {
        assert_eq!(seen.field("x-forwarded-proto"), Some("http"), "the connection was not over TLS: {seen:?}");
        assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"));
        let told = |it: &&(String, String)| it.0.replace('_', "-").starts_with("x-forwarded-") || it.0 == "forwarded";
        assert_eq!(seen.fields.iter().filter(told).count(), 4, "{seen:?}");
    }
}

#[test]
fn trailers_do_not_stand_in_for_fields_of_the_head() {
    let origin = Origin::start();
    let gateway = Gateway::start(&format!("apis: {{ a: {{ upstream: '{}' }} }}\n", origin.url()));
    let chunked = "POST /t HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx-sum: 1\r\nauthorization: x\r\ncookie: x\r\n\
                   forwarded: for=1\r\ncontent-type: text/html\r\nexpect: 100-continue\r\n\r\n";
    assert_eq!(Raw::connect(gateway.web()).send(chunked).answer().status, 200);
    assert_eq!(origin.seen()[0].trailers, [("x-sum".to_owned(), "1".to_owned())]);
}

#[test]
fn paths_that_could_mean_others_are_refused() {
    let origin = Origin::start();
    let gateway = Gateway::start(&format!("apis: {{ a: {{ upstream: '{}' }} }}\n", origin.url()));
    for path in [
        "/a/../b",
        "/..",
        "/../",
        "/a/%2e%2e/b",
        "/a/./b",
        "/.",
        "/a/.%2E",
        "/%2e%2E/",
        "/a/%2E/b",
        "/a%2f..%2fb",
        "/a%2F%2e%2e",
        "/a/..%2fb",
        "/..;/b",
        "/a/..;x=y/b",
        "/a/%2e%2e;x/b",
        "/a\\..\\b",
        "/a/..\\b",
        "/a%5c..%5cb",
        "/a\\b",
        "/%2e%2e%5c",
    ] {
        let answer = Raw::connect(gateway.web()).get(path, "");
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
        let said = curl(&["--path-as-is", "--http2-prior-knowledge", &format!("{}{path}", gateway.url())]);
        assert_eq!(said.answer.status, 400, "{path} in HTTP/2");
    }
    assert!(origin.seen().is_empty());
    let mut raw = Raw::connect(gateway.web());
    // Passed on as it came: what it means is for the upstream to say.
    let allowed = ["/..a", "/a..b", "/e?../..", "/%20x", "/a%2fb", "/a%00b", "/...", "/a//b", "/a;b", "/%252e%252e/"];
    for path in allowed {
        assert_eq!(raw.get(path, "").status, 200, "{path}");
    }
    assert_eq!(origin.seen().iter().map(|seen| &*seen.target).collect::<Vec<_>>(), allowed);
    assert_eq!(raw.send("CONNECT t:80 HTTP/1.1\r\nhost: t:80\r\n\r\n").answer().status, 405);
}

#[test]
fn heads_have_limits() {
    let origin = Origin::start();
    let gateway = Gateway::start(&format!(
        "listeners: {{ web: {{ address: '127.0.0.1:0', limits: {{ head: 2KiB, fields: 10, head-timeout: 200ms, idle-timeout: 400ms }} }} }}\napis: {{ a: {{ upstream: '{}' }} }}\n",
        origin.url()
    ));
    let many: String = (0..11).map(|n| format!("x-{n}: 1\r\n")).collect();
    let large = format!("x: {}\r\n", "y".repeat(3000));
    for fields in [&many, &large] {
        let answer = Raw::connect(gateway.web()).get("/", fields);
        assert_eq!(answer.status, 431, "{answer:?}");
    }
    let long = format!("GET /{} HTTP/1.1\r\nhost: t\r\n\r\n", "a".repeat(3000));
    let answer = Raw::connect(gateway.web()).send(&long).answer();
    assert_eq!(answer.status, 414, "{answer:?}");
    let mut raw = Raw::connect(gateway.web());
    for piece in long.as_bytes().chunks(700) {
        // It may have been answered before the last of them.
        let _ = raw.try_send(piece);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(raw.answer().status, 414);

    // Slow, though something always comes.
    let mut raw = Raw::connect(gateway.web());
    let begin = Instant::now();
    for piece in ["GET / HT", "TP/1.1\r\n", "host: ", "t\r\n", "x: ", "y"] {
        let _ = raw.try_send(piece);
        std::thread::sleep(Duration::from_millis(50));
    }
    let answer = raw.answer();
    assert_eq!(answer.status, 408);
    assert!(raw.is_closed() && begin.elapsed() < Duration::from_secs(5));
    assert!(origin.seen().is_empty());

    // Idle: closed without a word.
    let mut raw = Raw::connect(gateway.web());
    assert_eq!(raw.get("/idle", "").text(), "/idle");
    assert!(raw.is_closed());

    // Empty lines may come before a request, but not for ever.
    let mut raw = Raw::connect(gateway.web());
    for _ in 0..15 {
        let _ = raw.try_send("\r\n");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(raw.answer().status, 408);
}

#[test]
fn a_name_is_never_cut_to_another() {
    let origin = Origin::start();
    let gateway = Gateway::start(&format!(
        "listeners: {{ web: {{ address: '127.0.0.1:0', limits: {{ head: 256KiB }} }} }}\napis: {{ a: {{ upstream: '{}' }} }}\n",
        origin.url()
    ));
    // Where 16 bits hold the length of a name, what is left of this one is `x-admin`.
    let fields = format!("x-admin{}: 1\r\n", "y".repeat(1 << 16));
    assert_eq!(Raw::connect(gateway.web()).get("/", &fields).status, 431);
    assert!(origin.seen().is_empty());
}
