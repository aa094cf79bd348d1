//! Services that answer what is none, too much, too little, too early or never. What the client is told, that it can
//! see where an answer broke off, and that the next call gets an answer of its own.

use std::time::{Duration, Instant};

use simulator::raw::{Script, Server, Then};
use testkit::{Gateway, Raw, eventually};

/// One worker, so that a connection that should not be used again would be.
fn gateway(service: &Server, settings: &str) -> Gateway {
    Gateway::start(&format!(
        "node: {{ workers: 1 }}\nupstreams: {{ s: {{ endpoints: ['{}']{settings}, eject: none }} }}\napis: {{ a: {{ upstream: s }} }}\n",
        service.url()
    ))
}

const GOOD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood";

#[test]
fn what_is_not_http_is_502() {
    for bytes in [
        "",
        "this is not HTTP\r\n\r\n",
        "\x15\x03\x01\0\x02\x02\x16",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "SSH-2.0-OpenSSH_9.9\r\n",
        "HTTP/1.1 200 O",
        "HTTP/1.1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbroken\r\n\r\n",
        "HTTP/1.1 200 OK\nx: y\n\n",
        "HTTP/1.1 200 OK\r\nx: y\n\r\n",
        "HTTP/1.1 200 OK\r\nx: a\r\n folded\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx : y\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: y\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: a\rb\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx\0: b\r\n\r\n",
        "HTTP/1.1 200 O\0K\r\n\r\n",
        "HTTP/1.1 99 Low\r\n\r\n",
        "HTTP/1.1 20 Short\r\n\r\n",
        "HTTP/1.1 2000 Long\r\n\r\n",
        "HTTP/1.1 2e2 OK\r\n\r\n",
        "HTTP/1.1 -200 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/0.9 200 OK\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ncontent-length: 1, 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\na",
        "HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551617\r\n\r\na",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\n\r\nnonsense\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
    ] {
        let service = Server::start(vec![Script::answer(bytes)]).unwrap();
        let gateway = gateway(&service, "");
        let answer = Raw::connect(gateway.web()).get("/", "");
        assert_eq!(answer.status, 502, "{bytes:?}: {answer:?}");
        assert!(answer.json()["type"].as_str().unwrap().starts_with("urn:weir:problem:upstream-"));
        assert_eq!(answer.header("x"), None);
    }
}

#[test]
fn what_comes_in_pieces_or_too_much_is_read_as_one_answer() {
    let pieces = |text: &str| text.bytes().map(|byte| vec![byte]).collect::<Vec<_>>();
    // A second answer that nobody asked for must not become that of the next request.
    let forged = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged";
    for (text, body) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", "abc"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "abc"),
        ("HTTP/1.0 200 OK\r\n\r\nup to the end", "up to the end"),
        ("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nz", "z"),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nz", "z"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\naFORGED", "a"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nFORGED", ""),
        ("HTTP/1.1 204 No Content\r\n\r\nFORGED", ""),
        ("HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\nFORGED", ""),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nFORGED", "a"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;x=\"y\"\r\na\r\n0\r\nx: y\r\n\r\nFORGED", "a"),
        ("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\naFORGED", "a"),
    ] {
        let text = text.replace("FORGED", forged);
        let script = Script::answer("").pieces(pieces(&text), Duration::from_micros(100)).then(Then::Hold);
        let script = if text.starts_with("HTTP/1.0") { script.then(Then::Close) } else { script };
        for script in [script, Script::answer(&*text).then(Then::Hold)] {
            // Held open behind its last byte, unless that is the end of the answer.
            let script = if text.starts_with("HTTP/1.0") { script.then(Then::Close) } else { script };
            let service = Server::start(vec![script, Script::answer(GOOD)]).unwrap();
            let gateway = gateway(&service, "");
            let mut raw = Raw::connect(gateway.web());
            let mut answer = raw.get("/", "");
            while (100..200).contains(&answer.status) {
                answer = raw.answer();
            }
            assert_eq!((answer.text().as_str(), answer.complete), (body, true), "{text:?}: {answer:?}");
            if text.contains(forged) {
                std::thread::sleep(Duration::from_millis(5));
                assert_eq!(
                    raw.get("/", "").text(),
                    "good",
                    "the next request has an answer of its own, after {text:?}"
                );
            }
        }
    }
}

#[test]
fn an_answer_that_breaks_never_looks_whole() {
    let cut = Then::Close;
    for (text, then) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome", cut),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome", Then::Reset),
        ("HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551615\r\n\r\nsome", cut),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nsome\r\n", cut),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nsome\r\n0\r\n", cut),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nsome\r\n", Then::Reset),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nsome", cut),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nsome0\r\n\r\n", cut),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nsomeXX0\r\n\r\n", cut),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nsome\r\n-1\r\n\r\n", cut),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nsome\r\n10000000000000000\r\nx\r\n0\r\n\r\n", cut),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nsome\r\n0\n\n", cut),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nsome\r\n0\r\nx: y\n\n", cut),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nsome\r\n0\r\nbroken\r\n\r\n", cut),
        ("HTTP/1.0 200 OK\r\n\r\nsome", Then::Reset),
    ] {
        let service = Server::start(vec![Script::answer(text).then(then), Script::answer(GOOD)]).unwrap();
        let gateway = gateway(&service, "");
        let mut raw = Raw::connect(gateway.web());
        raw.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n");
        match raw.try_answer(false) {
            Ok(answer) => assert!(answer.status == 502 || !answer.complete, "{text:?}, {then:?}: {answer:?}"),
            Err(_) => assert!(raw.is_closed(), "{text:?}, {then:?}"),
        }
        assert_eq!(Raw::connect(gateway.web()).get("/", "").text(), "good", "after {text:?}");
    }
}

#[test]
fn a_head_without_end_is_502() {
    let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(400 * 1024));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(5000));
    // Where 16 bits hold the length of a name, what is left of this one is `set-cookie`.
    let long = format!("HTTP/1.1 200 OK\r\nset-cookie{}: a=b\r\ncontent-length: 0\r\n\r\n", "y".repeat(1 << 16));
    for bytes in [endless, many, long] {
        let service = Server::start(vec![Script::answer(bytes).then(Then::Hold)]).unwrap();
        let gateway = gateway(&service, "");
        assert_eq!(Raw::connect(gateway.web()).get("/", "").status, 502);
    }
}

#[test]
fn interim_answers_without_end_are_502() {
    let interim = "HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n";
    // Quick ones, of which there are too many; and slow ones, for which the answer is late.
    let flood = Script::answer(interim.repeat(20_000)).then(Then::Hold);
    let drip =
        Script::answer("").pieces(vec![interim.as_bytes().to_vec(); 200], Duration::from_millis(10)).then(Then::Hold);
    for (script, status) in [(flood, 502), (drip, 504)] {
        let service = Server::start(vec![script]).unwrap();
        let gateway = gateway(&service, ", timeouts: { first-byte: 300ms }, retry: { attempts: 1 }");
        let begin = Instant::now();
        assert_eq!(Raw::connect(gateway.web()).get("/", "").status, status);
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    }
}

#[test]
fn who_answers_early_or_not_at_all_keeps_nobody() {
    // A refusal while the body is on its way reaches the client, and its connection is not used again.
    let refusal = "HTTP/1.1 413 Content Too Large\r\ncontent-length: 5\r\n\r\nlarge";
    for then in [Then::Hold, Then::Close] {
        let service = Server::start(vec![Script::answer(refusal).then(then), Script::answer(GOOD)]).unwrap();
        let gateway = gateway(&service, "");
        let mut raw = Raw::connect(gateway.web());
        raw.send("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 1000000\r\n\r\nsome");
        let answer = raw.answer();
        assert_eq!((answer.status, answer.text().as_str()), (413, "large"));
        assert_eq!(Raw::connect(gateway.web()).get("/", "").text(), "good");
        assert_eq!(service.connections(), 2);
    }
    // Never: the client waits as long as the document says, and what it wanted is let go.
    let service = Server::start(vec![Script::answer("").then(Then::Hold)]).unwrap();
    let gateway = gateway(&service, ", timeouts: { first-byte: 100ms }, retry: { attempts: 1 }");
    assert_eq!(Raw::connect(gateway.web()).get("/", "").status, 504);

    // Who has left is not answered, and not waited for.
    let mut raw = Raw::connect(gateway.web());
    raw.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n");
    eventually("it arrives", || service.received().get(1).is_some_and(|it| it.ends_with(b"\r\n\r\n")));
    drop(raw);
    assert!(gateway.stop(Duration::from_secs(5)), "nothing is under way any more");
}

#[test]
fn fields_of_answers_split_nothing() {
    // What an upstream can be made to say is at most a value that is passed on as it is; never a field more.
    for value in ["a\r\nset-cookie: x=y", "a\nset-cookie: x=y", "a\rset-cookie: x=y"] {
        let answer = format!("HTTP/1.1 302 Found\r\nlocation: {value}\r\ncontent-length: 0\r\n\r\n");
        let service = Server::start(vec![Script::answer(answer)]).unwrap();
        let gateway = gateway(&service, "");
        let answer = Raw::connect(gateway.web()).get("/", "");
        // With CRLF it is the upstream that has said two fields, and nobody can know better.
        let expected = if value.contains("\r\n") { 302 } else { 502 };
        assert_eq!(answer.status, expected, "{value:?}: {answer:?}");
        assert!(answer.header("set-cookie").is_none() || expected == 302);
    }
}
