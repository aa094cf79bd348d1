//! The admin API and its clients, as those who operate a node meet them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::eventually;

use crate::cache::Origin;
use crate::weir::{Running, get, weir};

const TOKEN: &str = "a-token-for-this-test";

const DOCUMENT: &str = "\
version: 1
listeners: { web: { address: '127.0.0.1:0' } }
admin: ADMIN
upstreams:
  orders: { endpoints: ['http://127.0.0.1:2', 'http://127.0.0.1:1'], retry: { attempts: 2, on: [connect] } }
apis:
  orders: { upstream: orders, policies: { authenticate: { api-key: {} }, limit: [{ per: consumer, rate: 1000/s }] } }
  hello: { routes: [{ match: { path: /hello }, respond: { body: hello } }] }
consumers:
  research: { keys: [{ id: k1, hash: 'sha256:HASH' }] }
budgets:
  all: { per: organisation, amount: 100 USD, every: day }
  research: { per: consumer, only: [research], amount: 1M tokens, enforce: soft }
";

/// Of `demo-key`.
const HASH: &str = "c48a01f49fd0f2cc404bc3cbbc80e91457a3d41bb429a695243de4c61794155c";

struct Node {
    folder: tempfile::TempDir,
    weir: Running,
    web: String,
    /// `127.0.0.1:4711`, or a socket.
    admin: String,
}

impl Node {
    fn start(admin: &str) -> Node {
        Node::on(&DOCUMENT.replace("ADMIN", admin))
    }

    fn on(document: &str) -> Node {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("admin.token"), format!("{TOKEN}\n")).unwrap();
        write(folder.path(), document);
        let weir = Running::start(folder.path(), &["run"]);
        let address = |line: String| {
            let word = line.split_whitespace().find_map(|word| word.strip_prefix("address=")).unwrap().to_owned();
            word.trim_start_matches("http://").to_owned()
        };
        let web = address(weir.line("listening"));
        let admin = address(weir.line("admin API"));
        Node { folder, weir, web, admin }
    }

    fn with_token() -> Node {
        Node::start("{ address: '127.0.0.1:0', token: 'file:admin.token' }")
    }

    /// Status, fields and body.
    fn ask(&self, method: &str, path: &str, fields: &str, body: &str) -> (u16, String, Value) {
        let authority = if self.admin.starts_with("unix:") { "localhost" } else { &self.admin };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n{fields}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut answer = Vec::new();
        match self.admin.strip_prefix("unix:") {
            Some(path) => {
                let mut stream = UnixStream::connect(path).unwrap();
                stream.write_all(request.as_bytes()).unwrap();
                stream.read_to_end(&mut answer).unwrap();
            }
            None => {
                let mut stream = TcpStream::connect(&self.admin).unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                stream.write_all(request.as_bytes()).unwrap();
                stream.read_to_end(&mut answer).unwrap();
            }
        }
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), head.to_owned(), serde_json::from_str(body).unwrap_or_default())
    }

    fn get(&self, path: &str) -> Value {
        let (status, head, body) = self.ask("GET", path, &bearer(), "");
        assert_eq!(status, 200, "{path}: {head}\n{body}");
        body
    }

    fn post(&self, path: &str, kind: &str, body: &str) -> (u16, Value) {
        let (status, _, body) = self.ask("POST", path, &format!("{}content-type: {kind}\r\n", bearer()), body);
        (status, body)
    }
}

fn bearer() -> String {
    format!("authorization: Bearer {TOKEN}\r\n")
}

fn write(folder: &Path, text: &str) {
    std::fs::write(folder.join("weir.yaml"), text.replace("HASH", HASH)).unwrap();
}

#[test]
fn over_ip_only_the_token_opens() {
    let node = Node::with_token();
    for path in ["/v1/health", "/openapi.json", "/nowhere", "/"] {
        let (status, head, body) = node.ask("GET", path, "", "");
        assert_eq!(status, 401, "{path}");
        assert!(head.contains("www-authenticate: Bearer") && head.contains("application/problem+json"), "{head}");
        assert_eq!(body["status"], 401);
    }
    assert_eq!(node.ask("GET", "/v1/health", "authorization: Bearer wrong\r\n", "").0, 401);
    assert_eq!(node.ask("GET", "/v1/health", &format!("{}origin: http://x\r\n", bearer()), "").0, 403);
    let health = node.get("/v1/health");
    assert_eq!((&health["ready"], &health["listeners"][0]["address"]), (&json!(true), &json!(node.web)));
}

#[test]
fn an_address_without_a_token_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &DOCUMENT.replace("ADMIN", "{ address: '127.0.0.1:9901' }"));
    let said = weir(folder.path(), &["check"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("an IP address needs a token") && said.err.contains("admin.address"), "{}", said.err);
}

#[test]
fn the_document_is_shown_without_secrets_and_by_its_revision() {
    let node = Node::with_token();
    let (_, head, shown) = node.ask("GET", "/v1/document", &bearer(), "");
    let text = shown.to_string();
    assert!(!text.contains(HASH), "{text}");
    assert_eq!(shown["document"]["admin"]["token"], "file:admin.token");
    let etag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
    assert_eq!(etag, format!("\"{}\"", shown["revision"].as_str().unwrap()));
    let (status, _, _) = node.ask("GET", "/v1/document", &format!("{}if-none-match: {etag}\r\n", bearer()), "");
    assert_eq!(status, 304);
}

#[test]
fn a_document_is_checked_without_being_put_in_force() {
    let node = Node::with_token();
    let before = node.get("/v1/health")["revision"].clone();
    let (status, good) = node.post(
        "/v1/document/check",
        "application/yaml",
        "version: 1\napis: { a: { upstream: 'http://127.0.0.1:9' } }\n",
    );
    assert_eq!((status, &good["valid"]), (200, &json!(true)), "{good}");
    let (status, bad) =
        node.post("/v1/document/check", "application/yaml", "version: 1\napis: { a: { upstrem: x } }\n");
    assert_eq!((status, &bad["valid"]), (200, &json!(false)), "{bad}");
    assert_eq!(
        (&bad["diagnostics"][0]["line"], &bad["diagnostics"][0]["path"]),
        (&json!(2), &json!("apis.a.upstrem")),
        "{bad}"
    );
    assert_eq!(node.post("/v1/document/check", "text/html", "x").0, 415);
    assert_eq!(node.get("/v1/health")["revision"], before);
}

#[test]
fn a_reload_says_what_came_of_it() {
    let node = Node::with_token();
    let text = std::fs::read_to_string(node.folder.path().join("weir.yaml")).unwrap();
    let reload = |fields: &str| node.ask("POST", "/v1/reload", &format!("{}{fields}", bearer()), "");
    let (status, _, same) = reload("");
    assert_eq!((status, &same["changed"]), (200, &json!(false)));
    assert_eq!(reload("if-match: \"0123456789ab\"\r\n").0, 412);
    assert_eq!(reload(&format!("if-match: \"{}\"\r\n", same["revision"].as_str().unwrap())).0, 200);
    std::fs::write(node.folder.path().join("weir.yaml"), "version: 1\napis: { a: 1 }\n").unwrap();
    let (status, _, refused) = reload("");
    assert_eq!((status, &refused["errors"][0]["path"]), (422, &json!("apis.a")), "{refused}");
    assert!(get(&node.web, "/hello", "").ends_with("hello"), "what was in force stays");
    std::fs::write(node.folder.path().join("weir.yaml"), text.replace("body: hello", "body: changed")).unwrap();
    // By itself it may have been quicker.
    assert_eq!(reload("").0, 200);
    assert!(get(&node.web, "/hello", "").ends_with("changed"));
}

#[test]
fn a_call_is_explained_as_by_the_command() {
    let node = Node::with_token();
    let call = json!({ "method": "GET", "url": "/hello", "headers": { "x-api-key": "k" } }).to_string();
    let (status, told) = node.post("/v1/explain", "application/json", &call);
    assert_eq!(status, 200, "{told}");
    assert_eq!(told["route"]["name"], "hello/0");
    let said = weir(node.folder.path(), &["explain", "GET", "/hello", "-H", "x-api-key: k", "--json"]);
    let command: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&command["route"], &command["others"]), (&told["route"], &told["others"]));
    for wrong in ["", "{", "[]", "{}", r#"{"method":"GET","url":"::"}"#, r#"{"method":"GET","url":"/","more":1}"#] {
        let (status, told) = node.post("/v1/explain", "application/json", wrong);
        assert_eq!((status, &told["status"]), (400, &json!(400)), "{wrong}: {told}");
    }
}

#[test]
fn what_passes_is_counted_by_api_and_route() {
    let node = Node::with_token();
    for _ in 0..20 {
        get(&node.web, "/hello", "");
    }
    get(&node.web, "/orders", "");
    let flows = |kind: &str| node.get(&format!("/v1/flows?kind={kind}"))["flows"].clone();
    let api = |name: &str| flows("api").as_array().unwrap().iter().find(|flow| flow["api"] == name).cloned();
    eventually("the calls are counted", || api("hello").is_some_and(|flow| flow["volume"]["calls"] == 20));
    let hello = api("hello").unwrap();
    assert!(hello["volume"]["calls_per_second"]["10s"].as_f64().unwrap() > 0.0);
    assert!(hello["velocity"]["calls"].is_f64() && hello["variance"]["latency_millis"]["p50"].is_f64(), "{hello}");
    assert_eq!(hello["variance"]["operations"][0]["method"], "GET");
    assert_eq!(flows("route").as_array().unwrap().len(), 2);
    assert_eq!(node.ask("GET", "/v1/flows?kind=wrong", &bearer(), "").0, 400);
    assert_eq!(node.ask("GET", "/v1/flows?kinds=api", &bearer(), "").0, 400);

    let upstream = node.get("/v1/upstreams/orders");
    assert_eq!(upstream["endpoints"].as_array().unwrap().len(), 2);
    assert_eq!(node.ask("GET", "/v1/upstreams/none", &bearer(), "").0, 404);
    let resources = node.get("/v1/resources");
    assert!(resources["process"]["resident_bytes"].as_u64().unwrap() > 1_000_000);
}

#[test]
fn methods_that_do_not_fit_are_told_which_do() {
    let node = Node::with_token();
    let (status, head, _) = node.ask("DELETE", "/v1/reload", &bearer(), "");
    assert!(status == 405 && head.contains("allow: POST"), "{head}");
    assert_eq!(node.ask("GET", "/v1/nothing", &bearer(), "").0, 404);
    let (status, head, _) = node.ask("HEAD", "/v1/health", &bearer(), "");
    assert!(status == 200 && !head.contains("transfer-encoding"), "{head}");
}

#[test]
fn an_endpoint_is_drained_and_gets_calls_again() {
    let (a, b) = (Origin::saying(""), Origin::saying(""));
    let (a, b) = (format!("http://{}", a.address), format!("http://{}", b.address));
    let node = Node::on(&format!(
        "version: 1\nlisteners: {{ web: {{ address: '127.0.0.1:0' }} }}\n\
         upstreams: {{ two parts: {{ endpoints: ['{a}', '{b}'], balance: round-robin }} }}\n\
         apis: {{ hello: {{ upstream: two parts }} }}\n"
    ));
    let run = |args: &[&str]| weir(node.folder.path(), &[args, &["--node", &node.admin]].concat());
    let draining = || {
        let upstream = node.get("/v1/upstreams/two%20parts");
        let endpoints = upstream["endpoints"].as_array().unwrap().clone();
        endpoints.into_iter().map(|it| it["draining"].as_bool().unwrap()).collect::<Vec<_>>()
    };
    let said = run(&["drain", "two parts", &a, "--wait", "10"]);
    assert!(said.code == Some(0) && said.out.contains("0 under way"), "{}{}", said.out, said.err);
    assert_eq!(draining(), [true, false]);
    let top = run(&["top", "--once"]);
    assert!(top.out.contains("1/2"), "{}", top.out);
    assert_eq!(run(&["reload"]).code, Some(0));
    assert_eq!(draining(), [true, false], "a reload lets it have calls");
    for _ in 0..4 {
        assert!(get(&node.web, "/", "").contains("200 OK"));
    }
    assert_eq!(run(&["undrain", "two parts", &a]).code, Some(0));
    assert_eq!(draining(), [false, false]);
    let said = run(&["drain", "two parts", "http://none"]);
    assert!(said.code == Some(1) && said.err.contains(&b), "{}", said.err);
    assert_eq!(run(&["drain", "none", &a]).code, Some(1));
}

#[test]
fn what_the_cache_keeps_can_be_forgotten() {
    let origin = Origin::saying("cache-control: max-age=60\r\nsurrogate-key: news\r\n");
    let api = format!("  hello: {{ upstream: 'http://{}', policies: {{ cache: {{}} }} }}\n", origin.address);
    let node = Node::on(&format!("version: 1\nlisteners: {{ web: {{ address: '127.0.0.1:0' }} }}\napis:\n{api}"));
    let place = node.admin.clone();
    let purge = |args: &[&str]| weir(node.folder.path(), &[&["purge", "--node", &place], args].concat());
    get(&node.web, "/a", "");
    let cache = &node.get("/v1/resources")["cache"];
    let bytes = cache["memory_bytes"].as_u64().unwrap();
    assert!(bytes > 0 && cache.get("disk_bytes").is_none(), "{cache}");
    assert_eq!(cache["apis"], json!([{ "name": "hello", "memory_bytes": bytes, "disk_bytes": 0 }]));
    for (args, count) in [
        (&["--tag", "news", "--api", "hello"][..], "2 answers"),
        (&["--tag", "other"], "0 answers"),
        (&["--all"], "2 answers"),
    ] {
        get(&node.web, "/a", "");
        get(&node.web, "/b", "");
        let said = purge(args);
        assert!(
            said.code == Some(0) && said.out == format!("{count} forgotten\n"),
            "{args:?}: {}{}",
            said.out,
            said.err
        );
    }
    let said = purge(&["--tag", "x", "--api", "none"]);
    assert!(said.code == Some(1) && said.err.contains("no api is called `none`"), "{}", said.err);
    assert_eq!(purge(&[]).code, Some(2));
    assert_eq!(purge(&["--all", "--tag", "x"]).code, Some(2));
    for wrong in [r#"{}"#, r#"{"url":""}"#, r#"{"all":true,"tag":"x"}"#, r#"{"tags":"x"}"#] {
        let (status, told) = node.post("/v1/cache/purge", "application/json", wrong);
        assert_eq!(status, 400, "{wrong}: {told}");
    }
}

/// The socket of the node, where nothing else is said.
fn socket(node: &Node) -> PathBuf {
    node.admin.strip_prefix("unix:").unwrap().into()
}

#[test]
fn without_a_word_there_is_a_socket_for_the_nodes_own_user() {
    let node = Node::start("{}");
    let socket = socket(&node);
    assert_eq!(std::fs::metadata(&socket).unwrap().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(socket.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
    assert_eq!(node.ask("GET", "/v1/health", "", "").0, 200);
    node.weir.signal("TERM");
    assert_eq!(node.weir.end(), Some(0));
    assert!(!socket.exists(), "the socket stays behind");
}

#[test]
fn commands_operate_a_running_node() {
    let node = Node::start("{}");
    let place = node.admin.clone();
    let folder = node.folder.path();
    get(&node.web, "/hello", "");
    eventually("the call is shown", || weir(folder, &["top", "--once", "--node", &place]).out.contains("hello"));
    let top = weir(folder, &["top", "--once", "--node", &place]);
    assert_eq!(top.code, Some(0), "{}", top.err);
    assert!(top.out.contains("CALLS/S") && top.out.contains("UPSTREAM"), "{}", top.out);
    let json: Value = serde_json::from_str(&weir(folder, &["top", "--json", "--node", &place]).out).unwrap();
    assert_eq!(json["health"]["ready"], true);

    let reload = weir(folder, &["reload", "--node", &place]);
    assert!(reload.code == Some(0) && reload.out.contains("in force"), "{}{}", reload.out, reload.err);
    std::fs::write(folder.join("weir.yaml"), "version: 2\n").unwrap();
    let reload = weir(folder, &["reload", "--node", &place]);
    assert!(reload.code == Some(2) && reload.err.contains("version 2 is not known"), "{}{}", reload.out, reload.err);
}

#[test]
fn where_no_node_answers_the_next_step_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let said = weir(folder.path(), &["top", "--once", "--node", "unix:/nowhere/at.all"]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.err.contains("no node answers at unix:/nowhere/at.all") && said.err.contains("weir run"),
        "{}",
        said.err
    );
    let said = weir(folder.path(), &["reload", "--node", "nonsense"]);
    assert!(said.code == Some(1) && said.err.contains("http://127.0.0.1:9901"), "{}", said.err);
}

#[test]
fn the_description_holds_against_whatever_is_asked() {
    let schemathesis = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/test-venv/bin/schemathesis");
    if !Path::new(schemathesis).exists() {
        eprintln!("left out: no venv with schemathesis; scripts/test-setup.sh makes one");
        return;
    }
    let node = Node::with_token();
    let output = Command::new(schemathesis)
        .current_dir(node.folder.path())
        .args(["run", "--no-color", "--max-examples", "25", "--seed", "1", "--phases", "examples,coverage,fuzzing"])
        .args(["--checks", CHECKS, "--request-timeout", "30", "--suppress-health-check", "all"])
        .args(["-H", &format!("Authorization: Bearer {TOKEN}")])
        .arg(format!("http://{}/openapi.json", node.admin))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(node.ask("GET", "/v1/health", &bearer(), "").0, 200);
}

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
    response_headers_conformance,response_schema_conformance,unsupported_method";

// === TLS ===

/// A node whose admin API speaks TLS, and the folder with the authority `ca`, which issued `admin` and `me`.
fn over_tls(client: &str) -> (testkit::Folder, Running, String) {
    let folder = testkit::Folder::new();
    let authority = folder.authority("ca");
    authority.issue("admin", &["127.0.0.1"]);
    authority.issue("me", &["me.test"]);
    folder.authority("other").issue("stranger", &["127.0.0.1"]);
    folder.write("admin.token", TOKEN);
    let admin = format!(
        "{{ address: '127.0.0.1:0', token: 'file:admin.token', tls: {{ certificates: [{{ cert: file:admin.crt, key: file:admin.key }}]{client} }} }}"
    );
    write(folder.base(), &DOCUMENT.replace("ADMIN", &admin));
    let weir = Running::start(folder.base(), &["run"]);
    let line = weir.line("admin API");
    let url = line.split_whitespace().find_map(|word| word.strip_prefix("address=")).unwrap().to_owned();
    assert!(url.starts_with("https://127.0.0.1:"), "{line}");
    (folder, weir, url)
}

#[test]
fn over_tls_a_node_is_operated_by_whoever_trusts_it() {
    let (folder, running, url) = over_tls("");
    let top = |more: &[&str]| {
        let args = [&["top", "--once", "--json", "--node", &url, "--token", "file:admin.token"], more].concat();
        weir(folder.base(), &args)
    };
    let said = top(&["--authorities", "ca.crt"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let said =
        weir(folder.base(), &["reload", "--node", &url, "--token", "file:admin.token", "--authorities", "ca.crt"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    // Whom nobody has told of the authority.
    for more in [&[][..], &["--authorities", "other.crt"]] {
        let said = top(more);
        assert_eq!(said.code, Some(1), "{}", said.err);
        assert!(said.err.contains("UnknownIssuer") && said.err.contains("--authorities FILE"), "{}", said.err);
    }
    let said = top(&["--authorities", "absent.crt"]);
    assert!(said.err.contains("cannot read absent.crt"), "{}", said.err);
    // By another name than the certificate's, and without TLS.
    let localhost = url.replace("127.0.0.1", "localhost");
    let said = weir(folder.base(), &["top", "--once", "--node", &localhost, "--authorities", "ca.crt"]);
    assert!(said.err.contains("that its certificate is for"), "{}", said.err);
    let plain = url.replace("https", "http");
    let said = weir(folder.base(), &["top", "--once", "--node", &plain, "--token", "file:admin.token"]);
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("https://"), "{}", said.err);
    // Still the token opens, and nothing else.
    let said = weir(folder.base(), &["top", "--once", "--node", &url, "--authorities", "ca.crt"]);
    assert!(said.err.contains("token"), "{}", said.err);
    // curl offers HTTP/2, which is not spoken there.
    let ca = folder.path("ca.crt").display().to_string();
    let health = format!("{url}/v1/health");
    let bearer = format!("authorization: Bearer {TOKEN}");
    let said = testkit::curl(&["--cacert", &ca, "-H", &bearer, &health]);
    assert_eq!((said.answer.status, &*said.version), (200, "1.1"), "{}", said.verbose);
    let said = testkit::curl(&["--cacert", &ca, "-H", &bearer, &format!("{url}/v1/certificates")]);
    let certificates = said.answer.json();
    assert_eq!(certificates["certificates"][0]["at"], "admin.tls.certificates[0]", "{certificates}");

    // A certificate that is replaced is shown from the reload on; one that is no good changes nothing.
    std::fs::copy(folder.path("stranger.crt"), folder.path("admin.crt")).unwrap();
    std::fs::copy(folder.path("stranger.key"), folder.path("admin.key")).unwrap();
    running.signal("HUP");
    eventually("the new certificate is shown", || top(&["--authorities", "other.crt"]).code == Some(0));
    assert_eq!(top(&["--authorities", "ca.crt"]).code, Some(1));
    folder.write("admin.key", "rubbish");
    running.signal("HUP");
    running.line("admin.tls.certificates[0].key");
    assert_eq!(top(&["--authorities", "other.crt"]).code, Some(0));
}

#[test]
fn over_tls_a_node_may_ask_for_certificates_too() {
    let (folder, _running, url) = over_tls(", client: { authorities: file:ca.crt }");
    let top = |more: &[&str]| {
        let common = ["top", "--once", "--node", &url, "--token", "file:admin.token", "--authorities", "ca.crt"];
        weir(folder.base(), &[&common, more].concat())
    };
    let said = top(&["--cert", "me.crt", "--key", "me.key"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let said = top(&[]);
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("--cert and --key"), "{}", said.err);
    let said = top(&["--cert", "stranger.crt", "--key", "stranger.key"]);
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("that the node trusts"), "{}", said.err);
    // The certificate is no token.
    let said = weir(
        folder.base(),
        &["top", "--once", "--node", &url, "--authorities", "ca.crt", "--cert", "me.crt", "--key", "me.key"],
    );
    assert!(said.err.contains("token"), "{}", said.err);
}
