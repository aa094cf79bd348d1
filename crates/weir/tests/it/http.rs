//! HTTP/1 and HTTP/2 through the front door, with clients that are not ours.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::body::{Bytes, Frame};
use hyper::{HeaderMap, Request};
use simulator::raw::{Script, Server, Then};
use simulator::{Options, Simulator};
use testkit::client::{self, full, none, piped};
use testkit::{Answer, Folder, Gateway, Raw, curl, eventually};

fn simulator() -> Simulator {
    Simulator::start(Options::default()).unwrap()
}

/// A gateway with one api that takes everything to the simulator.
fn through(upstream: &str) -> Gateway {
    Gateway::start(&format!("apis: {{ a: {{ upstream: '{upstream}' }} }}\n"))
}

#[track_caller]
fn check(answer: &Answer, status: u16, body: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.text().contains(body), "no `{body}` in {answer:?}");
    assert!(answer.complete, "{answer:?}");
}

// === Bodies ===

#[test]
fn bodies_of_known_and_unknown_length_pass_both_ways() {
    let service = simulator();
    // One worker: with two, a connection may move to the other, which has upstream connections of its own.
    let gateway =
        Gateway::start(&format!("node: {{ workers: 1 }}\napis: {{ a: {{ upstream: '{}' }} }}\n", service.url()));
    let mut raw = Raw::connect(gateway.web());
    let answer = raw.get("/bytes/5", "");
    check(&answer, 200, "00000");
    assert_eq!(answer.header("content-length"), Some("5"));
    assert_eq!(answer.header("transfer-encoding"), None);

    let answer = raw.get("/slow-body?chunks=3&every=1ms", "");
    check(&answer, 200, "chunk 0\nchunk 1\nchunk 2\n");
    assert_eq!(answer.header("transfer-encoding"), Some("chunked"));

    let answer = raw.send("POST /echo HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\n\r\nhello").answer();
    assert_eq!(answer.json()["body"], "hello");
    assert_eq!(answer.json()["headers"]["content-length"], "5");

    let chunked =
        "POST /echo HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";
    let answer = raw.send(chunked).answer();
    assert_eq!(answer.json()["body"], "abcde");
    assert_eq!(answer.json()["headers"]["content-length"], serde_json::Value::Null);
    assert_eq!(service.connections(), 1, "one connection is enough upstream");
}

#[test]
fn head_tells_the_length_without_the_body() {
    let service = simulator();
    let gateway = through(&service.url());
    let mut raw = Raw::connect(gateway.web());
    let answer = raw.send("HEAD /bytes/77 HTTP/1.1\r\nhost: t\r\n\r\n").answer_to_head();
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("77")));
    // The connection goes on right after the head.
    check(&raw.get("/bytes/3", ""), 200, "000");
    for code in [204, 304] {
        let answer = raw.get(&format!("/status/{code}"), "");
        assert_eq!(answer.status, code);
    }
    check(&raw.get("/", ""), 200, "Hello");
}

#[test]
fn trailers_pass_both_ways_in_both_versions() {
    let service = simulator();
    for protocol in ["http1", "http2"] {
        let gateway = Gateway::start(&format!(
            "upstreams: {{ s: {{ endpoints: ['{}'], protocol: {protocol} }} }}\napis: {{ a: {{ upstream: s }} }}\n",
            service.url()
        ));
        let mut raw = Raw::connect(gateway.web());
        let answer = raw.get("/trailers", "te: trailers\r\nconnection: te\r\n");
        check(&answer, 200, "a body with trailers");
        assert_eq!(answer.trailers, [("x-trailer".to_owned(), "the end".to_owned())], "{protocol}");
        let request = "POST /echo HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n";
        assert_eq!(raw.send(request).answer().json()["trailers"]["x-sum"], "7", "{protocol}");

        client::run(async {
            let mut http2 = client::http2(gateway.web()).await;
            let request =
                Request::get(format!("{}/trailers", gateway.url())).header("te", "trailers").body(none()).unwrap();
            let answer = http2.send_request(request).await.unwrap().into_body().collect().await.unwrap();
            assert_eq!(answer.trailers().unwrap()["x-trailer"], "the end", "{protocol}");

            let (sender, body) = piped();
            let request = Request::post(format!("{}/echo", gateway.url())).body(body).unwrap();
            let sending = http2.send_request(request);
            sender.send(Frame::data(Bytes::from("abc"))).await.unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", "8".parse().unwrap());
            sender.send(Frame::trailers(trailers)).await.unwrap();
            drop(sender);
            let answer = sending.await.unwrap().into_body().collect().await.unwrap().to_bytes();
            let echo: serde_json::Value = serde_json::from_slice(&answer).unwrap();
            assert_eq!((&echo["trailers"]["x-sum"], &echo["body"]), (&"8".into(), &"abc".into()), "{protocol}");
        });
    }
}

// === Connections ===

#[test]
fn pipelined_requests_are_answered_in_order() {
    let service = simulator();
    let gateway = through(&service.url());
    let mut raw = Raw::connect(gateway.web());
    let mut all = String::new();
    for n in 0..10 {
        // The first are the slowest.
        all.push_str(&format!(
            "POST /echo?{n}&fault=delay={} HTTP/1.1\r\nhost: t\r\ncontent-length: 1\r\n\r\n{n}",
            30 - 3 * n
        ));
    }
    raw.send(all);
    for n in 0..10 {
        let echo = raw.answer().json();
        assert_eq!(echo["body"], n.to_string());
    }
}

#[test]
fn http_1_0_closes_unless_it_asks() {
    let service = simulator();
    let gateway = through(&service.url());
    let mut raw = Raw::connect(gateway.web());
    let answer = raw.send("GET /bytes/3 HTTP/1.0\r\nhost: t\r\nconnection: keep-alive\r\n\r\n").answer();
    check(&answer, 200, "000");
    assert_eq!(answer.header("connection"), Some("keep-alive"));
    // Of unknown length: its end is that of the connection.
    let answer = raw.send("GET /slow-body?chunks=2&every=1ms HTTP/1.0\r\nhost: t\r\n\r\n").answer();
    check(&answer, 200, "chunk 0\nchunk 1\n");
    assert_eq!(answer.header("transfer-encoding"), None);
    assert!(raw.is_closed());
    assert!(curl(&["--http1.0", &gateway.url()]).answer.text().contains("Hello"));
}

#[test]
fn connection_close_is_kept() {
    let service = simulator();
    let gateway = through(&service.url());
    let mut raw = Raw::connect(gateway.web());
    let answer = raw.get("/bytes/3", "connection: close\r\n");
    check(&answer, 200, "000");
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(raw.is_closed());
    // The upstream's connection is another matter.
    check(&Raw::connect(gateway.web()).get("/bytes/3", ""), 200, "000");
    eventually("reused", || service.connections() <= 2);
}

#[test]
fn a_client_that_expects_100_gets_it_when_the_body_is_wanted() {
    let service = simulator();
    let gateway = through(&service.url());
    let folder = Folder::new();
    let body = folder.write("body", vec![b'x'; 3 << 20]);
    let data = format!("@{}", body.display());
    let url = format!("{}/sink", gateway.url());
    let said = curl(&["-H", "expect: 100-continue", "--expect100-timeout", "20", "--data-binary", &data, &url]);
    check(&said.answer, 200, "3145728");
    assert!(said.verbose.contains("100 Continue"), "{}", said.verbose);

    // What is refused here is refused before the body: no 100, and the body need not be sent. So is what no upstream
    // can be found for.
    let limited = Gateway::start(
        "apis: { a: { upstream: 'http://127.0.0.1:1', retry: { attempts: 1 }, policies: { limit: [{ per: all, rate: 1/h, burst: 1 }] } } }\n",
    );
    let url_of = |gateway: &Gateway| format!("{}/sink", gateway.url());
    for status in [502, 429] {
        let said = curl(&[
            "-H",
            "expect: 100-continue",
            "--expect100-timeout",
            "20",
            "--data-binary",
            &data,
            &url_of(&limited),
        ]);
        assert_eq!(said.answer.status, status, "{said:?}");
        assert!(!said.verbose.contains("100 Continue"), "{}", said.verbose);
    }
    let mut raw = Raw::connect(gateway.web());
    let refused = "POST /a/../b HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: 1000000\r\n\r\n";
    assert_eq!(raw.send(refused).answer().status, 400);
    assert!(raw.is_closed(), "what follows could be a body or a request");

    // A service that refuses at once is heard, though the gateway had asked for the body.
    let said = curl(&["-H", "x-fault: early=413", "--data-binary", &data, &url]);
    check(&said.answer, 413, "before the request's body");
}

#[test]
fn an_answer_before_the_body_is_sent_reaches_the_client() {
    let service = simulator();
    let gateway = through(&service.url());
    let mut raw = Raw::connect(gateway.web());
    raw.send("POST /sink HTTP/1.1\r\nhost: t\r\ncontent-length: 100000\r\nx-fault: early=403\r\n\r\nsome");
    assert_eq!(raw.answer().status, 403);
}

// === Fields ===

#[test]
fn fields_of_one_connection_do_not_pass() {
    let service = simulator();
    let gateway = through(&service.url());
    let mut raw = Raw::connect(gateway.web());
    let fields = "connection: x-secret, keep-alive\r\nx-secret: 1\r\nkeep-alive: timeout=5\r\nproxy-connection: x\r\n\
                  te: gzip\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAoAAAAAIAAAAA\r\nx-kept: yes\r\nx-kept: twice\r\n";
    let echo = raw.get("/echo", fields).json();
    for name in ["connection", "x-secret", "keep-alive", "proxy-connection", "te", "upgrade", "http2-settings"] {
        assert!(echo["headers"][name].is_null(), "{name}: {echo}");
    }
    assert_eq!(echo["headers"]["x-kept"], "yes, twice");

    let back = Server::start(vec![Script::answer(
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: x-inner\r\nx-inner: 1\r\nkeep-alive: max=3\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\r\nok",
    )])
    .unwrap();
    let gateway = through(&back.url());
    let answer = Raw::connect(gateway.web()).get("/", "");
    check(&answer, 200, "ok");
    for name in ["x-inner", "keep-alive", "connection"] {
        assert_eq!(answer.header(name), None, "{answer:?}");
    }
    assert_eq!(answer.headers.iter().filter(|(name, _)| name == "set-cookie").count(), 2);
}

#[test]
fn the_connection_of_a_request_cannot_remove_what_the_gateway_adds() {
    let service = simulator();
    let gateway = Gateway::start(&format!(
        "policies: {{ headers: {{ request: {{ set: {{ x-internal: real }} }} }} }}\napis: {{ a: {{ upstream: '{}' }} }}\n",
        service.url()
    ));
    let mut raw = Raw::connect(gateway.web());
    let echo = raw.get("/echo", "connection: x-forwarded-for, forwarded\r\n").json();
    assert_eq!(echo["headers"]["x-forwarded-for"], "127.0.0.1");
    let echo = raw.get("/echo", "connection: x-internal\r\nx-internal: forged\r\n").json();
    assert_eq!(echo["headers"]["x-internal"], "real", "what a policy sets is not the client's to take out");
}

#[test]
fn forwarded_fields_are_believed_only_of_trusted_peers() {
    let service = simulator();
    let yaml = |listener: &str| {
        format!(
            "listeners: {{ web: {{ address: '127.0.0.1:0'{listener} }} }}\napis: {{ a: {{ upstream: '{}' }} }}\n",
            service.url()
        )
    };
    let fields =
        "x-forwarded-for: 1.2.3.4\r\nx-forwarded-proto: https\r\nforwarded: for=1.2.3.4\r\nx-forwarded-host: evil\r\n";
    let stranger = Gateway::start(&yaml(""));
    let echo = Raw::connect(stranger.web()).get("/echo", fields).json();
    assert_eq!(echo["headers"]["x-forwarded-for"], "127.0.0.1");
    assert_eq!(echo["headers"]["x-forwarded-proto"], "http");
    assert_eq!(echo["headers"]["x-forwarded-host"], "test");
    assert_eq!(echo["headers"]["forwarded"], "for=127.0.0.1;proto=http;host=\"test\"");

    let trusted = Gateway::start(&yaml(", trusted-proxies: [127.0.0.0/8]"));
    let echo = Raw::connect(trusted.web()).get("/echo", fields).json();
    assert_eq!(echo["headers"]["x-forwarded-for"], "1.2.3.4, 127.0.0.1");
    assert_eq!(echo["headers"]["x-forwarded-proto"], "https");
    assert_eq!(echo["headers"]["x-forwarded-host"], "evil");
    assert_eq!(echo["headers"]["forwarded"], "for=1.2.3.4, for=127.0.0.1;proto=http;host=\"test\"");
}

// === Listeners ===

#[test]
fn a_proxy_header_tells_who_called() {
    let service = simulator();
    let gateway = Gateway::start(&format!(
        "listeners: {{ web: {{ address: '127.0.0.1:0', proxy-protocol: true }} }}\napis: {{ a: {{ upstream: '{}' }} }}\n",
        service.url()
    ));
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    v2.extend([10, 1, 2, 3, 10, 0, 0, 1, 0x30, 0x39, 0, 80]);
    let mut v6 = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24".to_vec();
    v6.extend(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7).octets());
    v6.extend(std::net::Ipv6Addr::LOCALHOST.octets());
    v6.extend([0x30, 0x39, 0, 80]);
    for (header, caller) in [
        (b"PROXY TCP4 192.0.2.9 192.0.2.1 5000 80\r\n".to_vec(), "192.0.2.9"),
        (b"PROXY TCP6 2001:db8::5 ::1 5000 80\r\n".to_vec(), "2001:db8::5"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (v2, "10.1.2.3"),
        (v6, "2001:db8::7"),
        // LOCAL: a health check of the balancer itself.
        (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec(), "127.0.0.1"),
    ] {
        let mut raw = Raw::connect(gateway.web());
        // The header and the request in pieces, to see that nothing depends on how they arrive.
        let (first, second) = header.split_at(header.len() / 2);
        raw.send(first);
        std::thread::sleep(Duration::from_millis(5));
        raw.send(second);
        assert_eq!(raw.get("/echo", "").json()["headers"]["x-forwarded-for"], caller);
    }
    for wrong in ["GET / HTTP/1.1\r\nhost: t\r\n\r\n", "PROXY TCP4 1 2 3 4\r\n", "PROXY TCP4 1.1.1.1 2.2.2.2 80\r\n"] {
        let mut raw = Raw::connect(gateway.web());
        let _ = raw.try_send(wrong);
        assert!(raw.is_closed(), "{wrong:?}");
    }
    let said = curl(&["--haproxy-protocol", &format!("{}/echo", gateway.url())]);
    assert_eq!(said.answer.json()["headers"]["x-forwarded-for"], "127.0.0.1");
}

#[test]
fn sockets_of_unix_listen_and_serve() {
    let folder = Folder::new();
    let service = simulator();
    let (inner, outer) = (folder.path("inner.sock"), folder.path("outer.sock"));
    // One gateway is the upstream of the other.
    let _inner = Gateway::start(&format!(
        "listeners: {{ web: {{ address: 'unix:{}' }} }}\napis: {{ a: {{ upstream: '{}' }} }}\n",
        inner.display(),
        service.url()
    ));
    let outer_gateway = Gateway::start(&format!(
        "listeners: {{ web: {{ address: 'unix:{}' }} }}\nupstreams: {{ i: {{ endpoints: ['unix:{}'] }} }}\napis: {{ a: {{ upstream: i }} }}\n",
        outer.display(),
        inner.display()
    ));
    check(&Raw::unix(&outer).get("/bytes/9", ""), 200, "000000000");
    let said = curl(&["--unix-socket", outer.to_str().unwrap(), "http://some.test/echo"]);
    assert_eq!(said.answer.json()["headers"]["host"], "some.test");
    drop(outer_gateway);
}

#[test]
fn ipv6_listens_and_serves() {
    let service =
        Simulator::start(Options { address: "[::1]:0".parse::<SocketAddr>().unwrap(), ..Options::default() }).unwrap();
    let gateway = Gateway::start(&format!(
        "listeners: {{ web: {{ address: '[::1]:0' }} }}\napis: {{ a: {{ upstream: '{}' }} }}\n",
        service.url()
    ));
    let echo = Raw::connect(gateway.web()).get("/echo", "").json();
    assert_eq!(echo["headers"]["x-forwarded-for"], "::1");
    assert_eq!(echo["headers"]["forwarded"], "for=\"[::1]\";proto=http;host=\"test\"");
    let said = curl(&["-g", &format!("{}/echo", gateway.url())]);
    assert_eq!(said.answer.json()["authority"], serde_json::Value::Null);
    assert_eq!(said.answer.json()["headers"]["host"], gateway.web().to_string());
}

// === curl ===

#[test]
fn curl_speaks_both_versions() {
    let service = simulator();
    let gateway = through(&service.url());
    let folder = Folder::new();
    let body = folder.write("body", vec![b'y'; 200_000]);
    let data = format!("@{}", body.display());
    for (flag, version) in [("--http1.1", "1.1"), ("--http2-prior-knowledge", "2"), ("--http2", "1.1")] {
        let said = curl(&[flag, &format!("{}/bytes/100000", gateway.url())]);
        assert_eq!((said.code, said.answer.body.len(), said.version.as_str()), (0, 100_000, version), "{said:?}");
        let said = curl(&[flag, "--data-binary", &data, &format!("{}/sink", gateway.url())]);
        check(&said.answer, 200, "200000");
        let said = curl(&[flag, "-I", &format!("{}/bytes/12", gateway.url())]);
        assert_eq!(said.answer.header("content-length"), Some("12"), "{flag} {said:?}");
        let said = curl(&[
            flag,
            "-H",
            "transfer-encoding: chunked",
            "--data-binary",
            &data,
            &format!("{}/sink", gateway.url()),
        ]);
        check(&said.answer, 200, "200000");
    }
}

#[test]
fn hyper_keeps_a_connection_for_many_requests() {
    let service = simulator();
    let gateway = through(&service.url());
    client::run(async {
        let mut http1 = client::http1(gateway.web()).await;
        for n in 0..50usize {
            http1.ready().await.unwrap();
            let request = Request::post("/echo").header("host", "t").body(full("z".repeat(n))).unwrap();
            let answer = http1.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
            let echo: serde_json::Value = serde_json::from_slice(&answer).unwrap();
            assert_eq!(echo["length"], n);
        }
    });
}

// === What is said from here ===

const KEYS: &str = "
consumers:
  alice: { keys: [{ id: k, hash: 'sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b' }] }
apis:
  private: { host: private.test, upstream: 'UP', policies: { authenticate: { api-key: {} } } }
  slow: { host: slow.test, upstream: 'UP', policies: { limit: [{ per: all, rate: 2/m }] } }
";

#[test]
fn refusals_are_problems() {
    let service = simulator();
    let gateway = Gateway::start(&KEYS.replace("UP", &service.url()));
    let mut raw = Raw::connect(gateway.web());
    let mut get =
        |host: &str, fields: &str| raw.send(format!("GET /echo HTTP/1.1\r\nhost: {host}\r\n{fields}\r\n")).answer();
    let problem = |answer: &Answer, status: u16, name: &str| {
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(answer.json()["type"], format!("urn:weir:problem:{name}"));
        assert_eq!(answer.json()["status"], status);
    };
    problem(&get("other.test", ""), 404, "no-route");
    let answer = get("private.test", "");
    problem(&answer, 401, "unauthenticated");
    assert!(answer.header("www-authenticate").is_some(), "{answer:?}");
    problem(&get("private.test", "x-api-key: wrong\r\n"), 401, "unauthenticated");
    let echo = get("private.test", "x-api-key: secret\r\n");
    check(&echo, 200, "instance");
    assert!(!echo.text().contains("secret"), "a key must not go on: {}", echo.text());

    let first = get("slow.test", "");
    check(&first, 200, "instance");
    assert!(first.header("ratelimit").is_some() && first.header("ratelimit-policy").is_some(), "{first:?}");
    let mut refused = get("slow.test", "");
    for _ in 0..3 {
        refused = get("slow.test", "");
    }
    problem(&refused, 429, "rate-limited");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{refused:?}");
    assert!(refused.header("ratelimit").unwrap().contains("r=0"), "{refused:?}");
    assert_eq!(service.seen("/echo").len() as u64, service.requests());
}

#[test]
fn refusals_of_grpc_are_statuses() {
    let service = simulator();
    let gateway = Gateway::start(&KEYS.replace("UP", &service.url()));
    client::run(async {
        let mut http2 = client::http2(gateway.web()).await;
        for (host, status) in [("private.test", "16"), ("other.test", "12")] {
            let request = Request::post(format!("http://{host}/simulator.Echo/Unary"))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(full(&b"\0\0\0\0\0"[..]))
                .unwrap();
            let answer = http2.send_request(request).await.unwrap();
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.headers()["grpc-status"], status, "{host}");
            assert_eq!(answer.headers()["content-type"], "application/grpc");
        }
    });
    assert_eq!(service.requests(), 0);
}

#[test]
fn routes_redirect_rewrite_respond_and_edit() {
    let service = simulator();
    let gateway = Gateway::start(&format!(
        "
apis:
  a:
    upstream: '{}'
    routes:
      - {{ match: {{ prefix: /old }}, redirect: {{ status: 308, scheme: https, host: new.test, prefix: /new }} }}
      - {{ match: {{ path: '/orders/{{id}}' }}, rewrite: {{ path: /echo/, host: backend.test }} }}
      - {{ match: {{ prefix: /api }}, rewrite: {{ prefix: / }} }}
      - {{ match: {{ path: /teapot }}, respond: {{ status: 418, body: short, headers: {{ x-pot: tea }} }} }}
      - match: {{ path: /edit }}
        rewrite: {{ path: /echo }}
        policies:
          headers:
            request: {{ set: {{ x-a: '1' }}, add: {{ x-b: '2' }}, remove: [x-c] }}
            response: {{ set: {{ content-type: text/x }}, add: {{ x-r: r }} }}
      - {{ match: {{ path: /echo, method: POST, headers: {{ x-mode: fast }} }}, rewrite: {{ path: /bytes/1 }} }}
",
        service.url()
    ));
    let mut raw = Raw::connect(gateway.web());
    let answer = raw.get("/old/x?q=1", "");
    assert_eq!((answer.status, answer.header("location")), (308, Some("https://new.test/new/x?q=1")));
    let echo = raw.get("/orders/7?a=b", "").json();
    assert_eq!((&echo["query"], &echo["headers"]["host"]), (&"a=b".into(), &"backend.test".into()), "{echo}");
    assert_eq!(raw.get("/api/echo", "").json()["path"], "/echo");
    let answer = raw.get("/teapot", "");
    check(&answer, 418, "short");
    assert_eq!(answer.header("x-pot"), Some("tea"));
    let answer = raw.get("/edit", "x-a: 0\r\nx-b: 1\r\nx-c: 3\r\n");
    let echo = answer.json();
    let headers = &echo["headers"];
    assert_eq!(
        (&headers["x-a"], &headers["x-b"], &headers["x-c"]),
        (&"1".into(), &"1, 2".into(), &serde_json::Value::Null)
    );
    assert_eq!((answer.header("content-type"), answer.header("x-r")), (Some("text/x"), Some("r")));
    let answer = raw.send("POST /echo HTTP/1.1\r\nhost: t\r\nx-mode: fast\r\ncontent-length: 0\r\n\r\n").answer();
    check(&answer, 200, "0");
    assert_eq!(raw.get("/apix", "").status, 404);
}

#[test]
fn every_answer_says_when_it_was_made() {
    let old = "Sun, 06 Nov 1994 08:49:37 GMT";
    let dated = Script::answer(format!("HTTP/1.1 200 OK\r\ndate: {old}\r\ncontent-length: 0\r\n\r\n"));
    let undated = Script::answer("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let service = Server::start(vec![dated, undated]).unwrap();
    let gateway = Gateway::start(&format!(
        "
apis:
  a:
    routes:
      - {{ match: {{ path: /here }}, respond: {{ body: here }} }}
      - {{ match: {{ path: /away }}, redirect: {{ path: /here }} }}
      - {{ match: {{ path: /there }}, upstream: 'http://{}' }}
",
        service.address()
    ));
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let begin = now();
    let is_now = |answer: &Answer| {
        let dates: Vec<_> = answer.headers.iter().filter(|(name, _)| name == "date").collect();
        let told = dates.first().map(|(_, value)| value.as_bytes());
        let possible = (begin..=now()).any(|second| told == Some(&base::Date::of_seconds(second).to_http()[..]));
        assert!(dates.len() == 1 && possible, "{answer:?}");
    };
    let mut raw = Raw::connect(gateway.web());
    assert_eq!(raw.get("/there", "").header("date"), Some(old), "an upstream's own is left alone");
    is_now(&raw.get("/there", ""));
    is_now(&raw.get("/here", ""));
    is_now(&raw.get("/away", ""));
    is_now(&raw.get("/nowhere", ""));
    is_now(&Raw::connect(gateway.web()).send("GET / HTTP/1.1\r\n\r\n").answer());
}

#[test]
fn hosts_are_found_with_and_without_a_star() {
    let gateway = Gateway::start(
        "
apis:
  exact: { host: a.example.com, routes: [{ respond: { body: exact } }] }
  star: { host: '*.example.com', routes: [{ respond: { body: star } }] }
  rest: { routes: [{ respond: { body: rest } }] }
",
    );
    let mut raw = Raw::connect(gateway.web());
    for (host, body) in [
        ("a.example.com", "exact"),
        ("A.Example.COM:8080", "exact"),
        ("b.example.com", "star"),
        ("example.com", "rest"),
        ("x.org", "rest"),
        ("127.0.0.1", "rest"),
    ] {
        let answer = raw.send(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")).answer();
        assert_eq!(answer.text(), body, "{host}");
    }
    // The absolute form overrules the Host field.
    let answer = raw.send("GET http://b.example.com/ HTTP/1.1\r\nhost: a.example.com\r\n\r\n").answer();
    assert_eq!(answer.text(), "star");
}

#[test]
fn a_canary_gets_its_share_and_a_shadow_its_copies() {
    let (old, new, shadow) = (simulator(), simulator(), simulator());
    let gateway = Gateway::start(&format!(
        "
upstreams:
  old: {{ endpoints: ['{}'] }}
  new: {{ endpoints: ['{}'] }}
  shadow: {{ endpoints: ['{}'] }}
apis:
  a:
    routes:
      - match: {{ prefix: / }}
        upstream: {{ old: 80, new: 20 }}
        mirror: {{ upstream: shadow }}
",
        old.url(),
        new.url(),
        shadow.url()
    ));
    let mut raw = Raw::connect(gateway.web());
    for n in 0..400 {
        let echo =
            raw.send(format!("POST /echo?{n} HTTP/1.1\r\nhost: t\r\ncontent-length: 4\r\n\r\nbody")).answer().json();
        assert_eq!(echo["body"], "body");
    }
    assert_eq!(old.requests() + new.requests(), 400);
    // 80 expected; further away than this is one in a million.
    assert!((40..=120).contains(&new.requests()), "{}", new.requests());
    eventually("400 copies", || shadow.requests() == 400);
    assert_eq!(shadow.seen("/echo")[0].header("content-length"), Some("4"));
}

// === Bodies that do not come ===

#[test]
fn a_body_that_breaks_off_is_never_whole_upstream() {
    let service = simulator();
    for protocol in ["http1", "http2"] {
        let gateway = Gateway::start(&format!(
            "upstreams: {{ s: {{ endpoints: ['{}'], protocol: {protocol} }} }}\napis: {{ a: {{ upstream: s }} }}\n",
            service.url()
        ));
        for (path, request) in [
            ("/length", "content-length: 100\r\n\r\nsome"),
            ("/chunk", "transfer-encoding: chunked\r\n\r\n10\r\nsome"),
            ("/between", "transfer-encoding: chunked\r\n\r\n4\r\nsome\r\n"),
            ("/zero", "transfer-encoding: chunked\r\n\r\n4\r\nsome\r\n0\r\n"),
        ] {
            // A service of raw bytes, that shows what arrived.
            let held = Server::start(vec![Script::answer("").then(Then::Hold)]).unwrap();
            let plain = through(&held.url());
            let mut raw = Raw::connect(plain.web());
            raw.send(format!("POST {path} HTTP/1.1\r\nhost: t\r\n{request}"));
            eventually("some of it arrives", || {
                held.received().first().is_some_and(|it| it.ends_with(b"some") || it.ends_with(b"some\r\n"))
            });
            drop(raw);
            std::thread::sleep(Duration::from_millis(30));
            let received = held.received().concat();
            assert!(!received.ends_with(b"0\r\n\r\n"), "{path}: {:?}", String::from_utf8_lossy(&received));

            // And one that counts: it must find the body broken.
            let mut raw = Raw::connect(gateway.web());
            raw.send(format!("POST /sink HTTP/1.1\r\nhost: t\r\n{request}"));
            raw.close_writing();
            match raw.try_answer(false) {
                Ok(answer) => assert!(answer.status >= 400, "{protocol} {path}: {answer:?}"),
                Err(_) => assert!(raw.is_closed(), "{protocol} {path}"),
            }
        }
    }
}

#[test]
fn a_client_that_stops_in_its_body_is_given_up() {
    let service = simulator();
    let gateway = Gateway::start(&format!(
        "listeners: {{ web: {{ address: '127.0.0.1:0', limits: {{ body-timeout: 150ms, head-timeout: 200ms }} }} }}\napis: {{ a: {{ upstream: '{}' }} }}\n",
        service.url()
    ));
    let begin = Instant::now();
    let mut raw = Raw::connect(gateway.web());
    let answer = raw.send("POST /sink HTTP/1.1\r\nhost: t\r\ncontent-length: 10\r\n\r\nsome").try_answer(false);
    assert!(answer.as_ref().map_or(true, |it| it.status >= 400), "{answer:?}");
    assert!(raw.is_closed());

    // Whatever the first bytes could become, they have the time of a head.
    for piece in ["P", "PRI * HT", "POS", "GET", "\r"] {
        let mut raw = Raw::connect(gateway.web());
        raw.send(piece);
        let answer = raw.try_answer(false);
        assert!(answer.as_ref().map_or(true, |it| it.status == 408), "{piece:?}: {answer:?}");
        assert!(raw.is_closed(), "{piece:?}");
    }
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
}

#[test]
fn fields_change_versions_as_they_should() {
    let service = simulator();
    let gateway = through(&service.url());
    client::run(async {
        let mut http2 = client::http2(gateway.web()).await;
        let request = Request::get(format!("{}/echo", gateway.url()))
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("x-bytes", hyper::header::HeaderValue::from_bytes(b"\xe9t\xe9").unwrap())
            .body(none())
            .unwrap();
        let answer = http2.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
        let echo: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        // One field in HTTP/1 (RFC 9113, 8.2.3).
        assert_eq!(echo["headers"]["cookie"], "a=1; b=2");
        assert_eq!(echo["headers"]["x-bytes"], "\u{fffd}t\u{fffd}");
        assert_eq!(echo["headers"]["host"], gateway.web().to_string());

        for (name, value) in [("connection", "close"), ("transfer-encoding", "chunked"), ("te", "gzip")] {
            let request = Request::get(format!("{}/echo", gateway.url())).header(name, value).body(none()).unwrap();
            // hyper takes out what HTTP/2 forbids; what it sends must be served.
            let answer = http2.send_request(request).await;
            assert!(answer.is_err() || matches!(answer.unwrap().status().as_u16(), 200 | 400), "{name}");
        }
        let request = Request::head(format!("{}/bytes/55", gateway.url())).body(none()).unwrap();
        let answer = http2.send_request(request).await.unwrap();
        assert_eq!(answer.headers()["content-length"], "55");
        assert!(answer.into_body().collect().await.unwrap().to_bytes().is_empty());
    });
}
