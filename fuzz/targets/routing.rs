//! Targets and hosts against a router with a bit of everything: whoever explains agrees with who routes, and what passes
//! as unambiguous has no dot segment for anybody.
#![no_main]

use std::path::PathBuf;
use std::sync::OnceLock;

use base::{Headers, Method, RequestHead, Scheme, Version};
use config::router::{PathMatch, Verdict, is_ambiguous_path};
use config::{Files, Snapshot, Source};
use libfuzzer_sys::fuzz_target;

const DOCUMENT: &str = r#"
version: 1
apis:
  a:
    host: [a.test, "*.a.test"]
    routes:
      - { match: { path: "/x/{id}" }, respond: { body: x } }
      - { match: { path: "/x/{id}/y", method: [GET, POST] }, respond: { body: x } }
      - { match: { prefix: /x }, respond: { body: x } }
      - { match: { regex: "/r/[0-9]+/.*" }, respond: { body: x } }
      - { match: { path: "/q", query: { a: "1" }, headers: { x: y } }, respond: { body: x } }
  b:
    routes:
      - { match: { path: "/" }, respond: { body: x } }
      - { match: { prefix: /ä }, respond: { body: x } }
      - { match: { path: "/x/lit%20eral" }, respond: { body: x } }
"#;

struct None_;

impl Files for None_ {
    fn read(&self, _: &base::SecretRef) -> Result<Vec<u8>, String> {
        Err("no files here".into())
    }
    fn resolve(&self, path: &str) -> PathBuf {
        path.into()
    }
}

fn snapshot() -> &'static Snapshot {
    static SNAPSHOT: OnceLock<Snapshot> = OnceLock::new();
    SNAPSHOT.get_or_init(|| {
        let compiled = config::compile(&Source::new("fuzz.yaml", DOCUMENT.into()), &None_, None);
        compiled.map(|(snapshot, _)| snapshot).unwrap_or_else(|wrong| panic!("{wrong:?}"))
    })
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut parts = text.splitn(3, '\n');
    let (host, target, template) =
        (parts.next().unwrap_or(""), parts.next().unwrap_or("/"), parts.next().unwrap_or(""));
    let _ = PathMatch::template(template);
    let _ = PathMatch::prefix(template);
    let mut head = RequestHead {
        method: Method::GET,
        scheme: Scheme::Http,
        authority: host.to_owned(),
        target: target.to_owned(),
        version: Version::HTTP_11,
        headers: Headers::new(),
    };
    for method in [Method::GET, Method::POST, Method::OPTIONS] {
        head.method = method;
        let found = snapshot().find(0, &head).map(|(_, found)| found.route);
        let explained = snapshot().router.explain(0, &head);
        let first = explained.iter().find(|it| it.verdict == Verdict::Matched).map(|it| it.route);
        assert_eq!(found, first, "{head:?}");
    }
    let path = head.path();
    if !is_ambiguous_path(path) {
        let once = decoded(path.as_bytes());
        let dots = |segment: &[u8]| {
            let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
            name == b"." || name == b".."
        };
        assert!(!once.split(|byte| matches!(byte, b'/' | b'\\')).any(dots), "{path:?}");
    }
});

/// Percent signs taken back, as any server would.
fn decoded(path: &[u8]) -> Vec<u8> {
    let hex = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let (mut out, mut at) = (Vec::new(), 0);
    while at < path.len() {
        let digits = (path.get(at + 1).copied().and_then(hex), path.get(at + 2).copied().and_then(hex));
        if let (b'%', (Some(high), Some(low))) = (path[at], digits) {
            out.push(high * 16 + low);
            at += 3;
        } else {
            out.push(path[at]);
            at += 1;
        }
    }
    out
}
