//! Who calls and what they may, through the front door.

use testkit::{Gateway, curl};

/// The status that curl was given, and the body.
fn ask(gateway: &Gateway, path: &str, more: &[&str]) -> (u16, String) {
    let said = curl(&[more, &[&format!("{}{path}", gateway.url())]].concat());
    (said.answer.status, said.answer.text())
}

#[test]
fn rules_decide_about_calls_that_are_known() {
    let hash = |key: &str| policy::Keys::hash(key.as_bytes()).iter().map(|b| format!("{b:02x}")).collect::<String>();
    let (alice, bob) = (hash("alice-key"), hash("bob-key"));
    let gateway = Gateway::start(&format!(
        "
policies:
  authenticate: {{ api-key: {{}} }}
  authorize:
    allow: [\"consumer.team == 'research'\", \"request.method == 'GET' && request.path.startsWith('/open/')\"]
    deny: [\"'x-forbidden' in request.headers\", \"route == 'closed'\"]
apis:
  a:
    routes:
      - {{ respond: {{ body: here }} }}
      - {{ name: closed, match: {{ path: /closed }}, respond: {{ body: never }} }}
consumers:
  alice: {{ team: research, keys: [{{ id: a1, hash: 'sha256:{alice}' }}] }}
  bob: {{ keys: [{{ id: b1, hash: 'sha256:{bob}' }}] }}
"
    ));
    let (alice, bob) = (["-H", "x-api-key: alice-key"], ["-H", "x-api-key: bob-key"]);
    assert_eq!(ask(&gateway, "/", &alice), (200, "here".into()));
    assert_eq!(ask(&gateway, "/open/%61", &bob), (200, "here".into()));
    // An encoded path is the path.
    assert_eq!(ask(&gateway, "/%6fpen/a", &bob).0, 200);
    let (status, body) = ask(&gateway, "/", &bob);
    assert_eq!(status, 403, "{body}");
    assert!(body.contains("urn:weir:problem:forbidden"), "{body}");
    assert_eq!(ask(&gateway, "/open/a", &[&bob[..], &["-X", "POST"]].concat()).0, 403);
    assert_eq!(ask(&gateway, "/", &[&alice[..], &["-H", "X-Forbidden: 1"]].concat()).0, 403);
    assert_eq!(ask(&gateway, "/closed", &alice).0, 403);
    // Who comes before what they may.
    assert_eq!(ask(&gateway, "/closed", &[]).0, 401);
}
