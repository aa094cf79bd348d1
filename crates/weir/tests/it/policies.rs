//! Policies through the front door: that they are wired, and what only sockets can show.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::{Bytes, Frame};
use simulator::raw::{Script, Server, Then};
use simulator::{Options, Simulator};
use testkit::client::{self, piped};
use testkit::{Answer, Folder, Gateway, Raw, curl, eventually};

fn simulator() -> Simulator {
    Simulator::start(Options::default()).unwrap()
}

/// A gateway with one api that takes everything to the upstream.
fn through(upstream: &str, policies: &str) -> Gateway {
    Gateway::start(&format!("apis: {{ a: {{ upstream: '{upstream}', policies: {policies} }} }}\n"))
}

#[track_caller]
fn check(answer: &Answer, status: u16, body: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.text().contains(body), "no `{body}` in {answer:?}");
    assert!(answer.complete, "{answer:?}");
}

// === ip ===

#[test]
fn calls_from_networks_that_may_not_are_refused() {
    let service = simulator();
    let gateway = Gateway::start(&format!(
        "listeners: {{ web: {{ address: '127.0.0.1:0', trusted-proxies: [127.0.0.0/8] }} }}\n\
         policies: {{ ip: {{ allow: [127.0.0.0/8, 10.0.0.0/8], deny: [10.1.0.0/16] }}, authenticate: {{ api-key: {{}} }} }}\n\
         apis: {{ a: {{ upstream: '{}', policies: {{ authenticate: none }} }} }}\n",
        service.url()
    ));
    let mut raw = Raw::connect(gateway.web());
    check(&raw.get("/", ""), 200, "Hello");
    check(&raw.get("/", "x-forwarded-for: 10.2.3.4\r\n"), 200, "Hello");
    check(&raw.get("/", "x-forwarded-for: 10.1.3.4\r\n"), 403, "urn:weir:problem:forbidden");
    check(&raw.get("/", "x-forwarded-for: 9.9.9.9\r\n"), 403, "urn:weir:problem:forbidden");
    assert_eq!(service.requests(), 2);
}

// === size ===

#[test]
fn heads_that_are_too_large_are_refused() {
    let service = simulator();
    let gateway = through(&service.url(), "{ size: { target: 20B, fields: 3, head: 100B } }");
    let mut raw = Raw::connect(gateway.web());
    check(&raw.get("/echo?0123456789abcd", ""), 200, "/echo");
    check(&raw.get("/echo?0123456789abcde", ""), 414, "urn:weir:problem:uri-too-long");
    check(&raw.get("/echo", "a: 1\r\nb: 2\r\nc: 3\r\nd: 4\r\n"), 431, "urn:weir:problem:fields-too-large");
    check(&raw.get("/echo", &format!("a: {}\r\n", "x".repeat(100))), 431, "urn:weir:problem:fields-too-large");
    check(&raw.get("/echo", "a: 1\r\n"), 200, "/echo");
}

#[test]
fn a_body_that_is_announced_too_large_is_refused_before_it_is_read() {
    let service = simulator();
    let gateway = through(&service.url(), "{ size: { body: 10B } }");
    let mut raw = Raw::connect(gateway.web());
    check(
        &raw.send("POST /echo HTTP/1.1\r\nhost: t\r\ncontent-length: 10\r\n\r\n0123456789").answer(),
        200,
        "0123456789",
    );
    // Nothing of the body is sent: the answer does not wait for it.
    let head = "POST /echo HTTP/1.1\r\nhost: t\r\ncontent-length: 11\r\n";
    check(&raw.send(format!("{head}\r\n")).answer(), 413, "urn:weir:problem:content-too-large");
    // What was little is skipped, and the connection goes on.
    check(&raw.send("01234567890").get("/echo", ""), 200, "/echo");
    // Who asks before it sends is told, and is not asked to send.
    check(&raw.send(format!("{head}expect: 100-continue\r\n\r\n")).answer(), 413, "content-too-large");
    assert!(raw.is_closed());
    assert_eq!(service.requests(), 2);
}

#[test]
fn a_body_that_turns_out_too_large_is_stopped_on_its_way() {
    for protocol in ["http1", "http2"] {
        let service = simulator();
        let gateway = Gateway::start(&format!(
            "upstreams: {{ s: {{ endpoints: ['{}'], protocol: {protocol} }} }}\n\
             apis: {{ a: {{ upstream: s, policies: {{ size: {{ body: 1KiB }} }} }} }}\n",
            service.url()
        ));
        // Over HTTP/1, by hand: the answer comes although the body has not ended, and then the connection ends.
        let mut raw = Raw::connect(gateway.web());
        let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
        raw.send("POST /echo HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n").send(&chunk);
        check(&raw.send("1\r\nx\r\n").answer(), 413, "urn:weir:problem:content-too-large");
        assert!(raw.is_closed());
        let mut raw = Raw::connect(gateway.web());
        raw.send("POST /echo HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n").send(&chunk);
        assert_eq!(raw.send("0\r\n\r\n").answer().json()["length"], 1024, "{protocol}");

        // curl, over HTTP/1 with more than fits into anybody's buffers. Over HTTP/2 some of its versions give up
        // when the answer comes while they still send.
        let folder = Folder::new();
        for (version, length) in [("--http1.1", 8 << 20), ("--http2-prior-knowledge", 2 << 10)] {
            let file = folder.write("large", vec![b'x'; length]);
            let said = curl(&[
                version,
                "-H",
                "transfer-encoding: chunked",
                "-H",
                "expect:",
                "-T",
                file.to_str().unwrap(),
                &format!("{}/echo", gateway.url()),
            ]);
            assert_eq!((said.answer.status, said.code), (413, 0), "{protocol} {version}: {}", said.verbose);
        }

        client::run(async {
            let mut http2 = client::http2(gateway.web()).await;
            let (sender, body) = piped();
            let request = Request::post(format!("{}/echo", gateway.url())).body(body).unwrap();
            let answering = http2.send_request(request);
            for _ in 0..2 {
                sender.send(Frame::data(Bytes::from(vec![b'x'; 1000]))).await.unwrap();
            }
            let answer = answering.await.unwrap();
            assert_eq!(answer.status(), 413, "{protocol}");
            assert!(!answer.into_body().collect().await.unwrap().to_bytes().is_empty());
            // The connection goes on.
            let request = Request::post(format!("{}/echo", gateway.url())).body(client::full("x")).unwrap();
            assert_eq!(http2.send_request(request).await.unwrap().status(), 200, "{protocol}");
        });
    }
}

#[test]
fn the_upstream_of_a_stopped_body_sees_a_broken_message() {
    let service = Server::start(vec![Script::answer("").then(Then::Hold)]).unwrap();
    let gateway = through(&service.url(), "{ size: { body: 4B } }");
    let mut raw = Raw::connect(gateway.web());
    raw.send("POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
    eventually("the first chunk passes", || service.received().iter().any(|it| it.ends_with(b"3\r\nabc\r\n")));
    check(&raw.send("3\r\ndef\r\n0\r\n\r\n").answer(), 413, "content-too-large");
    assert!(service.received()[0].ends_with(b"3\r\nabc\r\n"), "neither the rest nor an end");
}

#[test]
fn an_answer_that_is_too_large_is_replaced_or_cut() {
    let service = simulator();
    let gateway = through(&service.url(), "{ size: { response: 100B } }");
    let mut raw = Raw::connect(gateway.web());
    check(&raw.get("/bytes/100", ""), 200, "0000");
    check(&raw.get("/bytes/101", ""), 502, "urn:weir:problem:answer-too-large");
    check(&raw.get("/slow-body?chunks=3&every=1ms", ""), 200, "chunk 2");
    let answer = raw.get("/slow-body?chunks=30&every=1ms", "");
    assert_eq!((answer.status, answer.complete), (200, false));
    assert!(answer.body.len() <= 100);
    client::run(async {
        let mut http2 = client::http2(gateway.web()).await;
        let request = Request::get(format!("{}/slow-body?chunks=30&every=1ms", gateway.url()));
        let answer = http2.send_request(request.body(client::none()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(answer.into_body().collect().await.is_err());
    });
}

// === cors ===

#[test]
fn preflights_are_answered_before_anything_asks_who_calls() {
    let service = simulator();
    let gateway = Gateway::start(&format!(
        "policies: {{ cors: {{ origins: ['https://*.example.com'], methods: [PUT], headers: ['*'] }}, authenticate: {{ api-key: {{}} }} }}\n\
         apis:\n  a:\n    upstream: '{}'\n    routes:\n    - match: {{ path: /echo, method: [PUT] }}\n    - match: {{ prefix: /bytes }}\n",
        service.url()
    ));
    let mut raw = Raw::connect(gateway.web());
    let origin = "origin: https://app.example.com\r\n";
    // The route takes no OPTIONS; the preflight is about a PUT.
    let preflight = |path: &str, method: &str, origin: &str| {
        format!(
            "OPTIONS {path} HTTP/1.1\r\nhost: t\r\n{origin}access-control-request-method: {method}\r\n\
             access-control-request-headers: x-api-key\r\n\r\n"
        )
    };
    let answer = raw.send(preflight("/echo", "PUT", origin)).answer();
    assert_eq!(answer.status, 204, "{answer:?}");
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example.com"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("x-api-key"));
    assert_eq!(answer.header("content-length"), None);
    assert_eq!(raw.send(preflight("/echo", "GET", origin)).answer().status, 404);
    assert_eq!(raw.send(preflight("/bytes/1", "PUT", origin)).answer().status, 204);
    let answer = raw.send(preflight("/echo", "PUT", "origin: https://evil.com\r\n")).answer();
    check(&answer, 403, "forbidden");
    assert_eq!(answer.header("access-control-allow-origin"), None);
    assert_eq!(answer.header("vary"), Some("origin"));

    // What Weir itself says can be read by the page.
    let answer = raw.get("/bytes/1", origin);
    check(&answer, 401, "unauthenticated");
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example.com"));
    assert_eq!(answer.header("vary"), Some("origin"));
    assert_eq!(service.requests(), 0);
}

// === compress ===

/// As far as it goes.
fn gunzipped(bytes: &[u8]) -> String {
    let mut plain = Vec::new();
    let _ = flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain);
    String::from_utf8(plain).unwrap()
}

#[test]
fn answers_are_compressed_for_those_who_can_read_them() {
    let service = simulator();
    let gateway = through(&service.url(), "{ compress: {} }");
    let folder = Folder::new();
    let file = folder.write("text", "compress me ".repeat(100_000));
    let data = format!("@{}", file.to_str().unwrap());
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let said = curl(&[
            version,
            "--compressed",
            "-H",
            "expect:",
            "--data-binary",
            &data,
            &format!("{}/echo", gateway.url()),
        ]);
        assert!(said.answer.header("content-encoding").is_some(), "{said:?}");
        assert_eq!(said.answer.header("content-length"), None);
        assert_eq!(said.answer.json()["length"], 1_200_000, "{version}");
    }
    let mut raw = Raw::connect(gateway.web());
    let request = format!(
        "POST /echo HTTP/1.1\r\nhost: t\r\naccept-encoding: gzip\r\ncontent-length: 5000\r\n\r\n{}",
        "x".repeat(5000)
    );
    let answer = raw.send(request).answer();
    assert_eq!((answer.header("content-encoding"), answer.header("vary")), (Some("gzip"), Some("accept-encoding")));
    assert!(answer.complete && answer.body.len() < 1000);
    assert!(gunzipped(&answer.body).contains("\"length\":5000"));
    // Too short, of no type that gains, and for one who cannot read it.
    let gzip = "accept-encoding: gzip\r\n";
    for (path, fields) in [("/status/404", gzip), ("/bytes/5000", gzip), ("/slow-body?chunks=2&every=1ms", "")] {
        assert_eq!(raw.get(path, fields).header("content-encoding"), None, "{path}");
    }
    let answer = raw.send(format!("HEAD /slow-body HTTP/1.1\r\nhost: t\r\n{gzip}\r\n")).answer_to_head();
    assert_eq!((answer.header("content-encoding"), answer.header("content-length")), (Some("gzip"), None));
    assert_eq!(gunzipped(&raw.get("/slow-body?chunks=2&every=1ms", gzip).body), "chunk 0\nchunk 1\n");
}

#[test]
fn large_answers_are_compressed_whole_and_side_by_side_and_whoever_leaves_holds_up_nobody() {
    const LENGTH: usize = 5_000_000;
    let service = simulator();
    let gateway = through(&service.url(), "{ compress: { encodings: [gzip], types: [application/*] } }");
    let path = format!("/bytes/{LENGTH}");
    let plain = Raw::connect(gateway.web()).get(&path, "").body;
    assert_eq!(plain.len(), LENGTH);
    std::thread::scope(|scope| {
        for turn in 0..12 {
            let (path, plain, web) = (&path, &plain, gateway.web());
            scope.spawn(move || {
                let mut raw = Raw::connect(web);
                if turn % 3 == 0 {
                    raw.send(format!("GET {path} HTTP/1.1\r\nhost: t\r\naccept-encoding: gzip\r\n\r\n"));
                    return;
                }
                let answer = raw.get(path, "accept-encoding: gzip\r\n");
                assert_eq!((answer.header("content-encoding"), answer.complete), (Some("gzip"), true));
                assert!(gunzipped(&answer.body).as_bytes() == plain);
            });
        }
    });
}

#[test]
fn no_event_waits_for_the_next_to_be_compressed() {
    let service = simulator();
    let gateway = through(&service.url(), "{ compress: { encodings: [gzip] } }");
    // So many that waiting for enough of them to fill a buffer takes longer than anybody here waits.
    let path = "/events?count=100000&every=200ms";
    client::run(async {
        let mut http1 = client::http1(gateway.web()).await;
        let request = |url: String| Request::get(url).header("accept-encoding", "gzip");
        let mut http2 = client::http2(gateway.web()).await;
        let answers = [
            http1
                .send_request(request(path.to_owned()).header("host", "t").body(client::none()).unwrap())
                .await
                .unwrap(),
            http2
                .send_request(request(format!("{}{path}", gateway.url())).body(client::none()).unwrap())
                .await
                .unwrap(),
        ];
        for answer in answers {
            assert_eq!(answer.headers()["content-encoding"], "gzip");
            let mut body = answer.into_body();
            let mut bytes = Vec::new();
            for number in 0..4 {
                let event = format!("data: {number} ");
                while !gunzipped(&bytes).contains(&event) {
                    bytes.extend_from_slice(&client::piece(&mut body).await.unwrap());
                }
            }
        }
    });
}

// === external ===

#[test]
fn a_service_over_http_lets_calls_pass_or_answers_them() {
    let service = simulator();
    let authorizer = simulator();
    let gateway = through(
        &service.url(),
        &format!(
            "{{ external: {{ http: {{ url: '{}', append-path: true }}, to-upstream: [x-user] }} }}",
            authorizer.url()
        ),
    );
    let mut raw = Raw::connect(gateway.web());
    check(&raw.get("/echo", "x-user: root\r\nx-a: 1\r\n"), 200, "/echo");
    assert_eq!(service.seen("/echo")[0].header("x-user"), None);
    let asked = &authorizer.seen("/echo")[0];
    assert_eq!((asked.header("x-forwarded-method"), asked.header("x-a")), (Some("GET"), Some("1")));
    let body = "POST /status/418?a=b HTTP/1.1\r\nhost: t\r\ncontent-length: 3\r\n\r\nabc";
    check(&raw.send(body).answer(), 418, "418");
    assert_eq!(authorizer.seen("/status/418")[0].header("x-forwarded-uri"), Some("/status/418?a=b"));
    check(&raw.get("/status/500", ""), 503, "urn:weir:problem:authorizer-unavailable");
    assert_eq!(service.requests(), 1);

    let answers = "HTTP/1.1 204 No Content\r\nx-user: alice\r\nx-other: no\r\nset-cookie: a=b\r\n\r\n";
    let authorizer = Server::start(vec![Script::answer(answers)]).unwrap();
    let gateway = through(
        &service.url(),
        &format!(
            "{{ external: {{ http: {{ url: '{}/verify' }}, to-upstream: [x-user], to-client: [set-cookie] }} }}",
            authorizer.url()
        ),
    );
    let answer = Raw::connect(gateway.web()).get("/echo", "x-user: root\r\n");
    assert_eq!(answer.header("set-cookie"), Some("a=b"));
    assert_eq!((&answer.json()["headers"]["x-user"], answer.json()["headers"].get("x-other")), (&"alice".into(), None));
}

#[test]
fn a_service_that_gives_no_answer_lets_nobody_pass_unless_told_to() {
    let service = simulator();
    let garbage = Server::start(vec![Script::answer("garbage\r\n\r\n")]).unwrap();
    let hangs = Server::start(vec![Script::answer("").then(Then::Hold)]).unwrap();
    let resets =
        Server::start(vec![Script::answer("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab").then(Then::Reset)])
            .unwrap();
    let nobody = "http://127.0.0.1:1".to_owned();
    for url in [garbage.url(), hangs.url(), resets.url(), nobody] {
        for kind in [format!("http: {{ url: '{url}' }}"), format!("grpc: '{url}'")] {
            let gateway = Gateway::start(&format!(
                "apis:\n  a:\n    upstream: '{}'\n    routes:\n\
                 \x20   - {{ match: {{ prefix: /open }}, policies: {{ external: {{ {kind}, fail: open, timeout: 300ms }} }} }}\n\
                 \x20   - {{ policies: {{ external: {{ {kind}, timeout: 300ms }} }} }}\n",
                service.url()
            ));
            let mut raw = Raw::connect(gateway.web());
            let before = service.requests();
            check(&raw.get("/echo", ""), 503, "urn:weir:problem:authorizer-unavailable");
            assert_eq!(service.requests(), before, "{kind}");
            assert_eq!(raw.get("/open", "").status, 404, "the upstream's: {kind}");
            assert_eq!(service.requests(), before + 1, "{kind}");
        }
    }
}

/// An authorizer on grpcio that decides by the path and tells what it was shown.
const AUTHORIZER: &str = r#"
import grpc, json, time
from concurrent import futures
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

file = descriptor_pb2.FileDescriptorProto(name="auth.proto", package="t", syntax="proto3")
TYPES = {"string": 9, "int32": 5, "int64": 3, "uint32": 13, "bool": 8}
def message(name, *fields):
    it = file.message_type.add(name=name)
    for number, field, kind, *many in fields:
        it.field.add(name=field, number=number, label=3 if many else 1, **(
            {"type": TYPES[kind]} if kind in TYPES else {"type": 11, "type_name": ".t." + kind}))
    return it
def entries(of, name):
    entry = of.nested_type.add(name=name)
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=9, label=1)
    entry.field.add(name="value", number=2, type=9, label=1)
message("CheckRequest", (1, "attributes", "Attributes"))
attributes = message("Attributes", (1, "source", "Peer"), (4, "request", "Request"), (10, "context_extensions", "Attributes.Entry", 1))
entries(attributes, "Entry")
message("Peer", (1, "address", "Address"), (4, "principal", "string"))
message("Address", (1, "socket_address", "SocketAddress"))
message("SocketAddress", (2, "address", "string"), (3, "port_value", "uint32"))
message("Request", (2, "http", "Http"))
entries(message("Http", (2, "method", "string"), (3, "headers", "Http.Entry", 1), (4, "path", "string"), (5, "host", "string"), (9, "size", "int64")), "Entry")
message("CheckResponse", (1, "status", "Status"), (2, "denied", "Denied"), (3, "ok", "Ok"))
message("Status", (1, "code", "int32"))
message("Denied", (1, "status", "HttpStatus"), (2, "headers", "Option", 1), (3, "body", "string"))
message("HttpStatus", (1, "code", "int32"))
message("Ok", (2, "headers", "Option", 1), (5, "headers_to_remove", "string", 1), (6, "response_headers", "Option", 1))
message("Option", (1, "header", "Header"), (2, "append", "Bool"))
message("Header", (1, "key", "string"), (2, "value", "string"))
message("Bool", (1, "value", "bool"))
pool = descriptor_pool.DescriptorPool()
pool.Add(file)
kind = lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName("t." + name))
CheckRequest, CheckResponse = kind("CheckRequest"), kind("CheckResponse")

def check(raw, context):
    asked = CheckRequest.FromString(raw).attributes
    http = asked.request.http
    said = CheckResponse()
    if http.path == "/garbage":
        return b"\xff\xff"
    if http.path == "/hang":
        time.sleep(30)
    if http.path == "/fails":
        context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
    if http.path == "/denied":
        said.status.code = 7
        said.denied.status.code = 402
        said.denied.headers.add().header.CopyFrom(kind("Header")(key="location", value="/pay"))
        said.denied.body = "pay first"
    elif http.path == "/bare":
        said.status.code = 16
    else:
        shown = {"method": http.method, "size": http.size, "address": asked.source.address.socket_address.address,
                 "a": http.headers["x-a"], "context": dict(asked.context_extensions)}
        for name, value in [("x-user", "alice"), ("x-shown", json.dumps(shown)), ("x-evil", "1")]:
            said.ok.headers.add().header.CopyFrom(kind("Header")(key=name, value=value))
        said.ok.headers_to_remove.append("x-gone")
        said.ok.response_headers.add().header.CopyFrom(kind("Header")(key="x-quota", value="9"))
    return said.SerializeToString()

server = grpc.server(futures.ThreadPoolExecutor(8))
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(
    "envoy.service.auth.v3.Authorization", {"Check": grpc.unary_unary_rpc_method_handler(check)})])
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
server.wait_for_termination()
"#;

struct Python(Child, String);

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server in Python that prints its port, where `scripts/test-setup.sh` has made the venv for it.
fn python(script: &str) -> Option<Python> {
    let interpreter = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/test-venv/bin/python3");
    let has = Command::new(interpreter).args(["-c", "import grpc"]).output().is_ok_and(|it| it.status.success());
    if !has {
        eprintln!("left out: no venv with grpcio; scripts/test-setup.sh makes one");
        return None;
    }
    let mut child = Command::new(interpreter).args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut port = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
    Some(Python(child, format!("http://127.0.0.1:{}", port.trim())))
}

#[test]
fn a_service_over_grpc_decides_as_it_does_for_envoy() {
    let Some(authorizer) = python(AUTHORIZER) else { return };
    let service = simulator();
    let gateway = through(
        &service.url(),
        &format!(
            "{{ external: {{ grpc: '{}', to-upstream: [x-user, x-shown], to-client: [x-quota], context: {{ k: v }}, timeout: 4s }} }}",
            authorizer.1
        ),
    );
    let mut raw = Raw::connect(gateway.web());
    for length in ["5", "0"] {
        let fields = format!("x-user: root\r\nx-a: 1\r\nx-a: 2\r\nx-gone: 1\r\ncontent-length: {length}\r\n");
        let body = if length == "5" { "hello" } else { "" };
        let answer = raw.send(format!("POST /echo HTTP/1.1\r\nhost: t\r\n{fields}\r\n{body}")).answer();
        check(&answer, 200, "/echo");
        assert_eq!(answer.header("x-quota"), Some("9"));
        let echo = answer.json();
        let headers = &echo["headers"];
        assert_eq!((&headers["x-user"], headers.get("x-evil"), headers.get("x-gone")), (&"alice".into(), None, None));
        let shown: serde_json::Value = serde_json::from_str(headers["x-shown"].as_str().unwrap()).unwrap();
        assert_eq!(
            (&shown["method"], &shown["address"], &shown["a"]),
            (&"POST".into(), &"127.0.0.1".into(), &"1, 2".into())
        );
        assert_eq!((&shown["context"]["k"], shown["size"].to_string()), (&"v".into(), length.to_owned()));
        assert_eq!(echo["body"], body);
    }
    let answer = raw.get("/denied", "");
    check(&answer, 402, "pay first");
    assert_eq!(answer.header("location"), Some("/pay"));
    assert_eq!(raw.get("/bare", "").status, 403);
    for path in ["/garbage", "/fails", "/hang"] {
        check(&raw.get(path, ""), 503, "urn:weir:problem:authorizer-unavailable");
    }
    assert_eq!(service.requests(), 2);
}

// === transform ===

#[test]
fn requests_and_answers_are_changed_by_expressions() {
    let service = simulator();
    let policies = r#"
    policies:
      compress: { encodings: [gzip], min: 0B }
      transform:
        request:
          headers: { set: { x-host: request.host } }
          query: { set: { from: request.address } }
          body: { set: { /model: "'small'" }, remove: [/secret], limit: 1KiB }
        response:
          headers: { set: { x-path: request.path } }
          body: { set: { /was: response.status }, remove: [/instance], limit: 2KiB }
"#;
    let gateway = Gateway::start(&format!("apis:\n  a:\n    upstream: '{}'{policies}", service.url()));
    let post = |fields: &str, body: &str| {
        let json = "host: t\r\ncontent-type: application/json\r\n";
        format!("POST /echo?a=b HTTP/1.1\r\n{json}{fields}content-length: {}\r\n\r\n{body}", body.len())
    };
    let mut raw = Raw::connect(gateway.web());
    let answer = raw.send(post("accept-encoding: gzip\r\n", r#"{"secret":1,"n":1.00}"#)).answer();
    assert_eq!((answer.status, answer.complete), (200, true), "{answer:?}");
    assert_eq!((answer.header("x-path"), answer.header("content-encoding")), (Some("/echo"), Some("gzip")));
    let echo: serde_json::Value = serde_json::from_str(&gunzipped(&answer.body)).unwrap();
    assert_eq!((&echo["was"], echo.get("instance"), &echo["query"]), (&200.into(), None, &"a=b&from=127.0.0.1".into()));
    assert_eq!((&echo["body"], &echo["headers"]["x-host"]), (&r#"{"n":1.00,"model":"small"}"#.into(), &"t".into()));
    assert_eq!(echo["headers"].get("accept-encoding"), None);

    check(&raw.send(post("", "{]")).answer(), 400, "urn:weir:problem:content-unusable");
    let text = "POST /echo HTTP/1.1\r\nhost: t\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\n{}";
    check(&Raw::connect(gateway.web()).send(text).answer(), 415, "urn:weir:problem:unsupported-media-type");
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(1024));
    check(&Raw::connect(gateway.web()).send(post("", &large)).answer(), 413, "content-too-large");

    // What is not JSON passes; an answer that says it is too large is replaced.
    let mut raw = Raw::connect(gateway.web());
    check(&raw.get("/bytes/5000", ""), 200, "0000");
    let answer = raw.get("/echo", &format!("x-large: {}\r\n", "x".repeat(3000)));
    check(&answer, 502, "urn:weir:problem:answer-too-large");
    assert_eq!(answer.header("x-path"), Some("/echo"), "it passes the policies too");

    client::run(async {
        let mut http2 = client::http2(gateway.web()).await;
        let (sender, body) = piped();
        let request = Request::post(format!("{}/echo", gateway.url())).header("content-type", "application/json");
        let answering = http2.send_request(request.body(body).unwrap());
        for piece in ["{\"a\"", ":1", "}"] {
            sender.send(Frame::data(Bytes::from(piece))).await.unwrap();
        }
        drop(sender);
        let answer = answering.await.unwrap().into_body().collect().await.unwrap().to_bytes();
        let echo: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(echo["body"], r#"{"a":1,"model":"small"}"#);
    });
}
