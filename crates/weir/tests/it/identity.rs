//! Who calls and what they may, through the front door.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use simulator::{Options, Simulator};
use testkit::{Folder, Gateway, curl, eventually};

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

// === Tokens ===

/// An identity provider, as far as it publishes keys.
struct Idp {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    answer: Arc<Mutex<Option<String>>>,
}

impl Idp {
    /// It hangs until it is told what to say.
    fn start() -> Idp {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(None)));
        let (counted, said) = (asked.clone(), answer.clone());
        std::thread::spawn(move || {
            let mut hanging: Vec<TcpStream> = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read > 0) {
                    head.push(byte[0]);
                }
                counted.fetch_add(1, Ordering::AcqRel);
                let said: Option<String> = said.lock().unwrap().clone();
                match said {
                    Some(said) => stream.write_all(said.as_bytes()).unwrap_or_default(),
                    None => hanging.push(stream),
                }
            }
        });
        Idp { address, asked, answer }
    }

    fn says(&self, body: &str) {
        let length = body.len();
        let head = format!("HTTP/1.1 200 OK\r\ncache-control: max-age=300\r\ncontent-length: {length}\r\n");
        *self.answer.lock().unwrap() = Some(format!("{head}connection: close\r\n\r\n{body}"));
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Acquire)
    }
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

pub fn jwks(keys: &[(&str, &Ed25519KeyPair)]) -> String {
    let key = |(kid, pair): &(&str, &Ed25519KeyPair)| json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": URL_SAFE_NO_PAD.encode(pair.public_key()) });
    json!({ "keys": keys.iter().map(key).collect::<Vec<_>>() }).to_string()
}

pub fn token(kid: &str, pair: &Ed25519KeyPair, more: Value) -> String {
    let mut claims = json!({ "iss": "https://idp.test", "aud": "a", "sub": "alice", "exp": now() + 600 });
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let part = |it: &Value| URL_SAFE_NO_PAD.encode(it.to_string());
    let signed = format!("{}.{}", part(&json!({ "alg": "EdDSA", "kid": kid })), part(&claims));
    let signature = URL_SAFE_NO_PAD.encode(pair.sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

pub fn with_token(gateway: &Gateway, path: &str, token: &str) -> (u16, String) {
    ask(gateway, path, &["-H", &format!("authorization: Bearer {token}")])
}

fn document(idp: &Idp, upstream: &str, more: &str) -> String {
    format!(
        "
policies:
  authenticate:
    jwt:
      - {{ issuer: https://idp.test, audience: [a], jwks: 'http://{}/keys'{more} }}
  authorize: {{ allow: [\"'read' in claims.scope.split(' ')\", \"request.path == '/open'\"] }}
apis: {{ a: {{ upstream: '{upstream}' }} }}
consumers: {{ alice: {{}} }}
",
        idp.address
    )
}

#[test]
fn tokens_are_verified_with_keys_that_are_fetched() {
    let service = Simulator::start(Options::default()).unwrap();
    let idp = Idp::start();
    let (first, second) = (Ed25519KeyPair::generate().unwrap(), Ed25519KeyPair::generate().unwrap());
    idp.says(&jwks(&[("1", &first)]));
    let mut gateway = Gateway::start(&document(&idp, &service.url(), ""));
    assert_eq!(ask(&gateway, "/echo", &[]).0, 401);
    assert_eq!(idp.asked(), 0, "nobody has presented a token");

    let good = token("1", &first, json!({ "scope": "write read" }));
    for _ in 0..5 {
        let (status, body) = with_token(&gateway, "/echo", &good);
        assert_eq!(status, 200, "{body}");
        assert!(!body.contains(&good), "a token must not go on: {body}");
    }
    assert_eq!(with_token(&gateway, "/echo", &token("1", &first, json!({ "scope": "reader" }))).0, 403);
    assert_eq!(with_token(&gateway, "/echo", &token("1", &first, json!({}))).0, 403);
    assert_eq!(with_token(&gateway, "/open", &token("1", &first, json!({}))).0, 404, "the simulator's");
    let said = curl(&["-H", &format!("authorization: Bearer {}x", good), &gateway.url()]);
    assert_eq!(said.answer.status, 401);
    let challenge = said.answer.header("www-authenticate").unwrap();
    assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    assert_eq!(idp.asked(), 1);

    // Another reload, another leeway: the keys stay.
    gateway.apply(&document(&idp, &service.url(), ", leeway: 10s"));
    assert_eq!(with_token(&gateway, "/echo", &good).0, 200);
    assert_eq!(idp.asked(), 1);

    // Keys change over. The first call with the new one is refused, but has it looked for.
    idp.says(&jwks(&[("1", &first), ("2", &second)]));
    let new = token("2", &second, json!({ "scope": "read" }));
    eventually("the new key is known", || with_token(&gateway, "/echo", &new).0 == 200);
    assert_eq!(with_token(&gateway, "/echo", &good).0, 200);
    assert_eq!(idp.asked(), 2);
}

#[test]
fn an_issuer_that_hangs_makes_nobody_wait_for_long() {
    let service = Simulator::start(Options::default()).unwrap();
    let idp = Idp::start();
    let gateway = Gateway::start(&document(&idp, &service.url(), ""));
    let pair = Ed25519KeyPair::generate().unwrap();
    let good = token("1", &pair, json!({ "scope": "read" }));
    let began = Instant::now();
    let said = curl(&["-H", &format!("authorization: Bearer {good}"), &format!("{}/echo", gateway.url())]);
    assert_eq!(said.answer.status, 503, "{said:?}");
    assert_eq!(said.answer.json()["type"], "urn:weir:problem:keys-unavailable");
    assert!(said.answer.header("retry-after").is_some());
    assert!(began.elapsed() < testkit::PATIENCE);
    idp.says(&jwks(&[("1", &pair)]));
    eventually("the keys are had", || with_token(&gateway, "/echo", &good).0 == 200);
}

/// Signs with a library that is not ours, in the form that others write keys.
const SIGNER: &str = r#"
import json, sys, time, jwt
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
pairs = {
    "RS256": (rsa.generate_private_key(65537, 2048), RSAAlgorithm), "ES256": (ec.generate_private_key(ec.SECP256R1()), ECAlgorithm),
    "ES384": (ec.generate_private_key(ec.SECP384R1()), ECAlgorithm), "ES512": (ec.generate_private_key(ec.SECP521R1()), ECAlgorithm),
    "EdDSA": (ed25519.Ed25519PrivateKey.generate(), OKPAlgorithm),
}
pairs["PS384"] = pairs["RS256"]
claims = dict(iss="https://idp.test", aud=["x", "a"], sub="alice", exp=int(time.time()) + 600, nbf=int(time.time()), scope="read")
keys, tokens = [], {}
for algorithm, (pair, kind) in pairs.items():
    if algorithm != "PS384":
        keys.append({**json.loads(kind.to_jwk(pair.public_key())), "kid": algorithm})
    kid = "RS256" if algorithm == "PS384" else algorithm
    tokens[algorithm] = jwt.encode(claims, pair, algorithm=algorithm, headers={"kid": kid})
tokens["none"] = jwt.encode(claims, None, algorithm="none")
print(json.dumps({"jwks": {"keys": keys}, "tokens": tokens}))
"#;

#[test]
fn tokens_that_another_library_has_signed() {
    let interpreter = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/test-venv/bin/python3");
    if !Command::new(interpreter).args(["-c", "import jwt"]).output().is_ok_and(|output| output.status.success()) {
        eprintln!("left out: no venv with PyJWT; scripts/test-setup.sh makes one");
        return;
    }
    let output = Command::new(interpreter).args(["-c", SIGNER]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    let folder = Folder::new();
    folder.write("keys.json", made["jwks"].to_string());
    let gateway = Gateway::start_in(
        &folder,
        "
policies: { authenticate: { jwt: [{ issuer: https://idp.test, audience: [a], jwks: file:keys.json }] } }
apis: { a: { routes: [{ respond: { body: here } }] } }
consumers: { alice: {} }
",
    );
    for (algorithm, token) in made["tokens"].as_object().unwrap() {
        let expected = if algorithm == "none" { 401 } else { 200 };
        assert_eq!(with_token(&gateway, "/", token.as_str().unwrap()).0, expected, "{algorithm}");
    }
}

// === Certificates ===

#[test]
fn certificates_name_consumers() {
    let folder = Folder::new();
    folder.authority("ca").issue("web", &["web.test"]);
    let people = folder.authority("people");
    people.issue("alice", &["spiffe://example.org/agents/alice"]);
    people.issue("bob", &["bob.internal"]);
    people.issue("carol", &[]);
    people.issue("two", &["spiffe://example.org/agents/alice", "spiffe://example.org/agents/x"]);
    people.issue("mallory", &["mallory.internal"]);
    let hash: String = policy::Keys::hash(b"alice-key").iter().map(|b| format!("{b:02x}")).collect();
    let gateway = Gateway::start_in(
        &folder,
        &format!(
            "
listeners:
  web:
    address: 127.0.0.1:0
    tls:
      certificates: [{{ cert: file:web.crt, key: file:web.key }}]
      client: {{ authorities: file:people.crt, require: false }}
policies:
  authenticate: {{ certificate: {{}}, api-key: {{}} }}
  authorize: {{ deny: [\"consumer.name == 'carol' && request.path != '/carol'\", '!request.tls.client && request.path == \"/tls\"'] }}
apis: {{ a: {{ routes: [{{ respond: {{ body: here }} }}] }} }}
consumers:
  alice:
    keys: [{{ id: a, hash: 'sha256:{hash}', not-before: 2020-01-01T00:00:00Z }}]
    certificates: [{{ spiffe: spiffe://example.org/agents/alice }}]
  bob: {{ certificates: [{{ san: 'dns:bob.internal' }}] }}
  carol: {{ certificates: [{{ subject: CN=carol }}] }}
"
        ),
    );
    let address = gateway.web();
    let ask = |path: &str, who: Option<&str>, key: Option<&str>| {
        let resolve = format!("web.test:{}:{}", address.port(), address.ip());
        let mut args = vec!["--resolve".to_owned(), resolve, "--cacert".to_owned()];
        args.push(folder.path("ca.crt").display().to_string());
        if let Some(who) = who {
            for (flag, kind) in [("--cert", "crt"), ("--key", "key")] {
                args.extend([flag.to_owned(), folder.path(&format!("{who}.{kind}")).display().to_string()]);
            }
        }
        args.extend(key.iter().flat_map(|key| ["-H".to_owned(), format!("x-api-key: {key}")]));
        args.push(format!("https://web.test:{}{path}", address.port()));
        curl(&args).answer.status
    };
    assert_eq!(ask("/", Some("alice"), None), 200);
    assert_eq!(ask("/", Some("bob"), None), 200);
    assert_eq!(ask("/carol", Some("carol"), None), 200);
    assert_eq!(ask("/", Some("carol"), None), 403);
    // Verified, and nobody's; of a certificate with two URIs neither is a SPIFFE ID.
    assert_eq!(ask("/", Some("mallory"), None), 401);
    assert_eq!(ask("/", Some("two"), None), 401);
    assert_eq!(ask("/", Some("mallory"), Some("alice-key")), 401);
    // One credential is enough; two must be the same caller's.
    assert_eq!(ask("/", None, Some("alice-key")), 200);
    assert_eq!(ask("/tls", None, Some("alice-key")), 403);
    assert_eq!(ask("/tls", Some("alice"), Some("alice-key")), 200);
    assert_eq!(ask("/", Some("bob"), Some("alice-key")), 401);
    assert_eq!(ask("/", Some("alice"), Some("wrong")), 401);
    assert_eq!(ask("/", None, None), 401);
}

#[test]
fn keys_are_fetched_over_tls_from_whom_the_document_trusts() {
    let folder = Folder::new();
    folder.authority("ca").issue("idp", &["127.0.0.1"]);
    folder.authority("other");
    let pair = Ed25519KeyPair::generate().unwrap();
    let keys = jwks(&[("1", &pair)]).replace('\'', "''");
    let idp = Gateway::start_in(
        &folder,
        &format!(
            "listeners: {{ web: {{ address: '127.0.0.1:0', tls: {{ certificates: [{{ cert: file:idp.crt, key: file:idp.key }}] }} }} }}\napis: {{ a: {{ routes: [{{ respond: {{ body: '{keys}' }} }}] }} }}\n"
        ),
    );
    let ask = |authorities: &str| {
        let gateway = Gateway::start_in(
            &folder,
            &format!(
                "policies: {{ authenticate: {{ jwt: [{{ issuer: https://idp.test, audience: [a], jwks: 'https://{}/keys'{authorities} }}] }} }}\napis: {{ a: {{ routes: [{{ respond: {{ body: here }} }}] }} }}\nconsumers: {{ alice: {{}} }}\n",
                idp.web()
            ),
        );
        with_token(&gateway, "/", &token("1", &pair, json!({}))).0
    };
    assert_eq!(ask(", authorities: 'file:ca.crt'"), 200);
    assert_eq!(ask(", authorities: 'file:other.crt'"), 503);
    assert_eq!(ask(""), 503, "the system's authorities know nothing of it");
}
