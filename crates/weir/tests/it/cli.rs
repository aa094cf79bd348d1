//! The command line: what it says and how it ends.

use std::path::Path;

use crate::weir::{Running, Said, get, weir, weir_with_input};

const WRONG: &str = "\
version: 1
apis:
  orders:
    upstrem: http://127.0.0.1:9000
  users:
    upstream: http://127.0.0.1:99999
  carts:
    upstream: http://127.0.0.1:9000
    policies: { limit: [{ per: address, rate: 100 }] }
";

fn sample(folder: &Path) -> String {
    weir(folder, &["demo", "--print"]).out
}

fn with_sample() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("weir.yaml"), sample(folder.path())).unwrap();
    folder
}

#[track_caller]
fn check(said: &Said, code: i32, parts: &[&str]) {
    let Said { code: found, out, err } = said;
    assert_eq!(*found, Some(code), "{out}{err}");
    for part in parts {
        assert!(out.contains(part) || err.contains(part), "no `{part}` in\n{out}{err}");
    }
    assert!(!out.contains('\x1b') && !err.contains('\x1b'), "colours where nobody looks: {out}{err}");
}

#[test]
fn every_command_has_help_with_examples() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["run", "check", "explain", "prices", "spend", "schema", "demo", "completions"] {
        check(&weir(folder.path(), &[command, "--help"]), 0, &["Usage: weir", "Examples:", &format!("weir {command}")]);
    }
    check(&weir(folder.path(), &["--help"]), 0, &["Exit codes:", "NO_COLOR", "3  `explain` found no route"]);
    check(&weir(folder.path(), &["--version"]), 0, &["weir 0."]);
}

#[test]
fn wrong_usage_is_two() {
    let folder = tempfile::tempdir().unwrap();
    for args in
        [&[][..], &["fly"], &["explain", "GET"], &["explain", "a", "GET", "/", "more"], &["demo", "--port", "x"]]
    {
        check(&weir(folder.path(), args), 2, &["--help"]);
    }
}

#[test]
fn a_missing_document_says_how_to_get_one() {
    let folder = tempfile::tempdir().unwrap();
    for args in [&["check"][..], &["run"], &["explain", "GET", "/"]] {
        check(&weir(folder.path(), args), 2, &["cannot read weir.yaml", "weir demo --print"]);
    }
    check(&weir(folder.path(), &["check", "--json"]), 2, &["cannot read weir.yaml", "\"help\": \"create one with"]);
}

#[test]
fn all_errors_of_a_document_are_said_at_once() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("weir.yaml"), WRONG).unwrap();
    let errors = ["weir.yaml:4", "upstrem", "did you mean `upstream`?", "99999", "100/s"];
    check(&weir(folder.path(), &["check"]), 2, &errors);
    check(&weir(folder.path(), &["run"]), 2, &errors);
    check(&weir_with_input(folder.path(), &["check", "-"], WRONG), 2, &["-:4", "upstrem"]);

    let said = weir(folder.path(), &["check", "--json"]);
    check(&said, 2, &[]);
    let found: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let lines: Vec<_> = found.as_array().unwrap().iter().map(|it| it["line"].as_u64().unwrap()).collect();
    assert!([4, 6, 9].iter().all(|line| lines.contains(line)), "{said}", said = said.out);
}

#[test]
fn certificates_are_checked_at_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let text = "version: 1\nlisteners:\n  web:\n    address: 127.0.0.1:0\n    tls: { certificates: [{ cert: file:a.crt, key: file:a.key }] }\napis: { a: { upstream: 'http://127.0.0.1:1' } }\n";
    std::fs::write(folder.path().join("weir.yaml"), text).unwrap();
    check(&weir(folder.path(), &["check"]), 2, &["a.crt", "weir.yaml:5"]);
    for name in ["a.crt", "a.key"] {
        std::fs::write(folder.path().join(name), "no certificate").unwrap();
    }
    check(&weir(folder.path(), &["check"]), 2, &["weir.yaml:5"]);
    check(&weir(folder.path(), &["run"]), 2, &["weir.yaml:5"]);
}

#[test]
fn the_sample_is_right_and_summed_up() {
    let folder = with_sample();
    check(
        &weir(folder.path(), &["check"]),
        0,
        &["weir.yaml: ok: 1 listener, 5 apis, 6 routes, 2 upstreams with 3 endpoints, 1 consumer"],
    );
    check(&weir(folder.path(), &["check", "--json"]), 0, &["[]"]);
}

#[test]
fn explain_tells_route_policies_and_target() {
    let folder = with_sample();
    let explain = |args: &[&str]| weir(folder.path(), &[&["explain"], args].concat());

    let canary = ["orders/0", "{id} = 7", "orders  90 % of calls", "orders-next  10 %", "gets GET /echo", "connect 5s"];
    check(&explain(&["GET", "http://localhost:8080/orders/7"]), 0, &canary);
    let refused = ["private", "1. authenticate  stops the call", "401, www-authenticate: Bearer"];
    check(&explain(&["GET", "/private/x"]), 0, &refused);
    let passed = ["1. authenticate  passes", "demo (team research)", "- x-api-key", "+ x-through: weir"];
    check(&explain(&["weir.yaml", "GET", "/private/x", "-H", "x-api-key: demo-key"]), 0, &passed);
    check(&explain(&["POST", "/limited"]), 0, &["ratelimit-policy", "POST is not idempotent"]);
    check(&explain(&["GET", "/old"]), 0, &["308 to http://localhost/"]);
    check(&explain(&["GET", "/"]), 0, &["200 with 16 bytes"]);
}

#[test]
fn explain_without_a_route_is_three_and_says_why() {
    let folder = with_sample();
    let explain = |args: &[&str]| weir(folder.path(), &[&["explain"], args].concat());
    check(&explain(&["GET", "/nowhere"]), 3, &["none matches", "path `/nowhere` does not match"]);
    check(&explain(&["POST", "/events"]), 3, &["method POST is not among its methods"]);
    check(&explain(&["GET", "/a/../b"]), 3, &["400"]);
    let said = explain(&["GET", "/nowhere", "--json"]);
    check(&said, 3, &[]);
    let answer: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert!(answer["route"].is_null() && answer["others"].as_array().unwrap().len() == 6, "{answer:#}");
}

#[test]
fn explain_wants_a_call_it_can_read() {
    let folder = with_sample();
    let explain = |args: &[&str]| weir(folder.path(), &[&["explain"], args].concat());
    check(&explain(&["GET", "orders"]), 2, &["`orders` is not a URL", "http://localhost:8080/orders"]);
    check(&explain(&["GET", "ftp://h/"]), 2, &["does not speak `ftp`"]);
    check(&explain(&["GET", "/", "-H", "nothing"]), 2, &["`nothing` is not a field"]);
    check(&explain(&["GET", "/", "--listener", "wb"]), 2, &["no listener is called `wb`", "`web`"]);
}

#[test]
fn explain_says_what_a_running_gateway_would_have_to_ask() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/tokens-and-rules.yaml");
    let folder = tempfile::tempdir().unwrap();
    let explain = |field: &str| weir(folder.path(), &["explain", example, "GET", "/orders", "-H", field]);
    // `{"alg":"RS256"}` and `{"iss":"https://idp.example.com/"}`, signed by nobody.
    let token = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJodHRwczovL2lkcC5leGFtcGxlLmNvbS8ifQ.AA";
    let asked = ["authenticate  stops", "keys of the token's issuer are fetched by a running gateway", "--live"];
    check(&explain(&format!("authorization: Bearer {token}")), 0, &asked);
    check(&explain("x-api-key: wrong"), 0, &["401, www-authenticate: Bearer"]);
    check(&explain("x-api-key: secret"), 0, &["authorize     passes", "research-agent (team research)"]);
}

#[test]
fn explain_live_sends_the_call() {
    let folder = with_sample();
    let said = weir(folder.path(), &["explain", "GET", "/", "--live"]);
    check(&said, 0, &["200 OK", "content-type: text/plain", "total"]);
    let said = weir(folder.path(), &["explain", "GET", "/nowhere", "--live", "--json"]);
    check(&said, 3, &["\"404 Not Found\""]);
}

#[test]
fn schema_and_completions_are_printed() {
    let folder = tempfile::tempdir().unwrap();
    let schema: serde_json::Value = serde_json::from_str(&weir(folder.path(), &["schema"]).out).unwrap();
    assert!(schema["properties"]["listeners"].is_object(), "{schema:#}");
    check(&weir(folder.path(), &["schema", "--reference"]), 0, &["access-log"]);
    for shell in ["bash", "zsh", "fish"] {
        check(&weir(folder.path(), &["completions", shell]), 0, &["explain"]);
    }
}

#[test]
fn the_demo_does_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let demo = Running::start(folder.path(), &["demo", "--port", "0"]);
    let address = demo.line("weir demo on http://").split("http://").nth(1).unwrap().trim().to_owned();
    assert!(get(&address, "/", "").contains("hello from weir"));
    assert!(get(&address, "/orders/7", "").contains("\"path\":\"/echo\""));
    assert!(get(&address, "/private/x", "").starts_with("HTTP/1.1 401"));
    let passed = get(&address, "/private/x", "x-api-key: demo-key\r\n");
    assert!(passed.contains("x-through") && !passed.contains("demo-key"), "{passed}");
    let statuses: Vec<_> = (0..5).map(|_| get(&address, "/limited", "")[9..12].to_owned()).collect();
    assert!(statuses[..3] == ["200"; 3] && statuses.contains(&"429".to_owned()), "{statuses:?}");
    assert_eq!(get(&address, "/events?count=3&every=10ms", "").matches("data: ").count(), 3);
    demo.signal("INT");
    assert_eq!(demo.end(), Some(0));
}
