//! Issuers as they are on bad days: they hang, talk rubbish, send without end or not to the end. What is known of their
//! keys stays in force, nobody waits for long, and however many call, few ask.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use testkit::{Gateway, curl, eventually};

use crate::identity::{jwks, token, with_token};
use crate::sdk;

/// What is done to whoever asks for a path.
#[derive(Clone)]
enum Conduct {
    Good(String),
    /// These bytes, after which it closes.
    Says(Vec<u8>),
    Hangs,
    /// A byte now and then.
    Drips,
    /// So many bytes of a body that has a length, or has none.
    Floods(usize, bool),
}

/// Fifty megabytes.
const FLOOD: usize = 50 << 20;

#[derive(Default)]
struct Books {
    conduct: HashMap<String, Conduct>,
    asked: HashMap<String, usize>,
    /// Bytes of bodies that went out.
    sent: HashMap<String, usize>,
}

/// Answers at each path as it is told to.
struct Origin {
    address: SocketAddr,
    books: Arc<Mutex<Books>>,
}

impl Origin {
    fn start() -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let books: Arc<Mutex<Books>> = Arc::default();
        let shared = books.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let books = shared.clone();
                thread::spawn(move || serve(stream.unwrap(), &books));
            }
        });
        Origin { address, books }
    }

    fn set(&self, path: &str, conduct: Conduct) {
        self.books.lock().unwrap().conduct.insert(path.to_owned(), conduct);
    }

    fn good(&self, path: &str, body: impl Into<String>) {
        self.set(path, Conduct::Good(body.into()));
    }

    fn asked(&self, path: &str) -> usize {
        self.books.lock().unwrap().asked.get(path).copied().unwrap_or(0)
    }

    fn sent(&self, path: &str) -> usize {
        self.books.lock().unwrap().sent.get(path).copied().unwrap_or(0)
    }
}

fn serve(stream: TcpStream, books: &Mutex<Books>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    let mut first = String::new();
    let _ = reader.read_line(&mut first);
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
        line.clear();
    }
    let Some(path) = first.split(' ').nth(1).map(str::to_owned) else { return };
    let conduct = {
        let mut books = books.lock().unwrap();
        *books.asked.entry(path.clone()).or_default() += 1;
        books.conduct.get(&path).cloned()
    };
    // It may leave at any time.
    let mut write = |bytes: &[u8]| stream.write_all(bytes).is_ok();
    match conduct {
        None => drop(write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")),
        Some(Conduct::Good(body)) => drop(write(answer("200 OK", &body).as_bytes())),
        Some(Conduct::Says(bytes)) => drop(write(&bytes)),
        Some(Conduct::Hangs) => drop(reader.read(&mut [0])),
        Some(Conduct::Drips) => {
            let mut going = write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n");
            while going {
                going = write(b" ");
                thread::sleep(Duration::from_millis(100));
            }
        }
        Some(Conduct::Floods(bytes, told)) => {
            let length = if told { format!("content-length: {bytes}\r\n") } else { String::new() };
            let mut left = bytes;
            let mut going = write(format!("HTTP/1.1 200 OK\r\n{length}connection: close\r\n\r\n").as_bytes());
            while going && left > 0 {
                let piece = left.min(64 * 1024);
                going = write(&vec![b' '; piece]);
                left -= piece;
                *books.lock().unwrap().sent.entry(path.clone()).or_default() += piece;
            }
        }
    }
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

/// Every way to be no good, by name.
fn bad_days(origin: &Origin, pair: &Ed25519KeyPair) -> Vec<(&'static str, Conduct)> {
    let keys = jwks(&[("1", pair)]);
    let cut = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{}", keys.len(), &keys[..keys.len() / 2]);
    let short = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{keys}", keys.len() / 2);
    let chunk = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{keys}\r\n", keys.len());
    let away =
        format!("HTTP/1.1 302 Found\r\nlocation: http://{}/elsewhere\r\ncontent-length: 0\r\n\r\n", origin.address);
    let says = |bytes: String| Conduct::Says(bytes.into_bytes());
    vec![
        ("hangs", Conduct::Hangs),
        ("drips", Conduct::Drips),
        ("flood", Conduct::Floods(FLOOD, true)),
        ("flood-without-length", Conduct::Floods(FLOOD, false)),
        ("html", Conduct::Good("<html><body>Sign in</body></html>".into())),
        ("empty", Conduct::Good(String::new())),
        ("no-keys", Conduct::Good(r#"{"keys":[]}"#.into())),
        (
            "other-keys",
            Conduct::Good(r#"{"keys":[{"kty":"oct","k":"AAAA"},1,{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#.into()),
        ),
        ("deep", Conduct::Good("[".repeat(100_000))),
        ("error", says(answer("500 Internal Server Error", &keys))),
        ("busy", says(answer("503 Service Unavailable", &keys))),
        ("redirect", says(away)),
        ("cut", says(cut)),
        ("short", says(short)),
        ("cut-chunks", says(chunk)),
        ("no-http", says("220 smtp ready\r\n".into())),
        ("closes", says(String::new())),
    ]
}

/// One api for each of them, with an issuer of its own; `keys` writes what of it is said about its keys.
fn document(names: &[&str], keys: impl Fn(&str) -> String) -> String {
    let apis: Vec<_> = names
        .iter()
        .map(|name| {
            let spec = keys(name);
            format!(
                "  {name}:\n    routes: [{{ match: {{ path: /{name} }}, respond: {{ body: here }} }}]\n    \
                 policies: {{ authenticate: {{ jwt: [{{ audience: [a], {spec} }}] }} }}"
            )
        })
        .collect();
    format!("apis:\n{}\nconsumers: {{ alice: {{}} }}\n", apis.join("\n"))
}

fn jwks_at(origin: &Origin) -> impl Fn(&str) -> String {
    let address = origin.address;
    move |name| format!("issuer: https://idp.test, jwks: 'http://{address}/{name}'")
}

#[test]
fn an_issuer_on_a_bad_day_from_the_start_is_no_fault_of_the_callers() {
    let pair = Ed25519KeyPair::generate().unwrap();
    let origin = Origin::start();
    let days = bad_days(&origin, &pair);
    let names: Vec<_> = days.iter().map(|(name, _)| *name).collect();
    days.iter().for_each(|(name, conduct)| origin.set(&format!("/{name}"), conduct.clone()));
    let gateway = Gateway::start(&document(&names, jwks_at(&origin)));
    let good = token("1", &pair, json!({}));
    let began = Instant::now();
    let (url, bearer) = (gateway.url(), format!("authorization: Bearer {good}"));
    let (url, bearer) = (&url, &*bearer);
    thread::scope(|scope| {
        for name in &names {
            // All at once, on several cores.
            for _ in 0..4 {
                scope.spawn(move || {
                    let said = curl(&["-H", bearer, &format!("{url}/{name}")]);
                    assert_eq!(said.answer.status, 503, "{name}: {said:?}");
                    assert_eq!(said.answer.json()["type"], "urn:weir:problem:keys-unavailable", "{name}");
                    let after: u64 = said.answer.header("retry-after").unwrap().parse().unwrap();
                    assert!(after <= 5, "{name}: {after}");
                });
            }
        }
    });
    let rounds = began.elapsed().as_secs() as usize / 5 + 1;
    for name in &names {
        let asked = origin.asked(&format!("/{name}"));
        assert!((1..=rounds).contains(&asked), "{name}: asked {asked} times in {:?}", began.elapsed());
    }
    assert_eq!(origin.asked("/elsewhere"), 0, "nobody is led elsewhere");
    // What a socket holds, and not what was offered.
    for name in ["/flood", "/flood-without-length"] {
        assert!(origin.sent(name) < FLOOD / 2 * rounds, "{name}: {}", origin.sent(name));
    }
    // Each recovers by itself.
    names.iter().for_each(|name| origin.good(&format!("/{name}"), jwks(&[("1", &pair)])));
    for name in &names {
        eventually("keys are had", || with_token(&gateway, &format!("/{name}"), &good).0 == 200);
    }
}

#[test]
fn keys_that_are_known_outlast_a_bad_day_of_their_issuer() {
    let (pair, stranger) = (Ed25519KeyPair::generate().unwrap(), Ed25519KeyPair::generate().unwrap());
    let origin = Origin::start();
    let days = bad_days(&origin, &pair);
    let names: Vec<_> = days.iter().map(|(name, _)| *name).collect();
    names.iter().for_each(|name| origin.good(&format!("/{name}"), jwks(&[("1", &pair)])));
    let gateway = Gateway::start(&document(&names, jwks_at(&origin)));
    let good = token("1", &pair, json!({}));
    let began = Instant::now();
    for name in &names {
        assert_eq!(with_token(&gateway, &format!("/{name}"), &good).0, 200, "{name}");
    }
    days.iter().for_each(|(name, conduct)| origin.set(&format!("/{name}"), conduct.clone()));
    // A key that nobody knows has each of them asked again, once the pause is over, and its bearer refused at once.
    let unknown = token("2", &stranger, json!({}));
    let all_asked_again = || names.iter().all(|name| origin.asked(&format!("/{name}")) > 1);
    eventually("all are asked again", || {
        for name in &names {
            let bearer = format!("authorization: Bearer {unknown}");
            let said = curl(&["-H", &bearer, &format!("{}/{name}", gateway.url())]);
            assert_eq!(said.answer.status, 401, "{name}: {said:?}");
            assert!(said.answer.header("www-authenticate").unwrap().contains("invalid_token"), "{said:?}");
        }
        all_asked_again()
    });
    for name in &names {
        let (status, body) = with_token(&gateway, &format!("/{name}"), &token("1", &pair, json!({ "again": name })));
        assert_eq!(status, 200, "{name}: {body}");
        let (asked, most) = (origin.asked(&format!("/{name}")), began.elapsed().as_secs() as usize / 5 + 1);
        assert!(asked <= most, "{name}: asked {asked} times in {:?}", began.elapsed());
    }
}

#[test]
fn of_a_set_of_keys_good_and_bad_the_good_ones_count() {
    let (good, twin, enc) =
        (Ed25519KeyPair::generate().unwrap(), Ed25519KeyPair::generate().unwrap(), Ed25519KeyPair::generate().unwrap());
    let jwk = |kid: &str, pair: &Ed25519KeyPair, more: Value| {
        let mut jwk =
            json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": URL_SAFE_NO_PAD.encode(pair.public_key()) });
        jwk.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        jwk
    };
    let keys = json!({ "more": { "of": "it" }, "keys": [
        null, 7, "a", [], {}, { "kty": 1 },
        { "kty": "EC", "crv": "P-256", "kid": "good", "x": "AAAA", "y": "AAAA" },
        { "kty": "RSA", "kid": "good", "n": "!!", "e": "AQAB" },
        { "kty": "OKP", "crv": "Ed25519", "kid": "good", "x": "c2hvcnQ" },
        jwk("good", &good, json!({ "x5c": ["rubbish"], "other": 1 })),
        jwk("good", &twin, json!({})),
        jwk("enc", &enc, json!({ "use": "enc" })),
        jwk("alg", &enc, json!({ "alg": "ES256" })),
        jwk("ops", &enc, json!({ "key_ops": ["encrypt"] })),
    ]});
    let origin = Origin::start();
    origin.good("/a", keys.to_string());
    let gateway = Gateway::start(&document(&["a"], jwks_at(&origin)));
    let ask = |kid: &str, pair: &Ed25519KeyPair| with_token(&gateway, "/a", &token(kid, pair, json!({}))).0;
    assert_eq!(ask("good", &good), 200);
    assert_eq!(ask("good", &twin), 200, "of two with one name either may have signed");
    assert_eq!(ask("good", &enc), 401);
    for kid in ["enc", "alg", "ops"] {
        assert_eq!(ask(kid, &enc), 401, "{kid}");
    }
    assert_eq!(origin.asked("/a"), 1);
}

// === Where the keys are ===

#[test]
fn an_issuer_says_where_its_keys_are_and_may_move_them() {
    let (first, second) = (Ed25519KeyPair::generate().unwrap(), Ed25519KeyPair::generate().unwrap());
    let origin = Origin::start();
    let at = format!("http://{}", origin.address);
    let metadata = |name: &str, keys: &str| json!({ "issuer": format!("{at}/{name}"), "jwks_uri": keys }).to_string();
    // OpenID Connect puts it behind the issuer, OAuth in between.
    let (oidc, oauth) = ("/oidc/.well-known/openid-configuration", "/.well-known/oauth-authorization-server/oauth");
    origin.good(oidc, metadata("oidc", &format!("{at}/keys")));
    origin.good(oauth, metadata("oauth", &format!("{at}/keys")));
    origin.good("/other/.well-known/openid-configuration", metadata("oidc", &format!("{at}/keys")));
    origin.good("/keys", jwks(&[("1", &first)]));
    let names = ["oidc", "oauth", "other", "nothing"];
    let gateway = Gateway::start(&document(&names, |name| format!("issuer: '{at}/{name}'")));
    let by = |name: &str, kid: &str, pair: &Ed25519KeyPair| {
        with_token(&gateway, &format!("/{name}"), &token(kid, pair, json!({ "iss": format!("{at}/{name}") }))).0
    };
    assert_eq!((by("oidc", "1", &first), by("oauth", "1", &first)), (200, 200));
    assert_eq!(origin.asked("/oauth/.well-known/openid-configuration"), 1, "the usual place comes first");
    assert_eq!(origin.asked("/keys"), 2);
    // One that speaks for another, and one that says nothing.
    assert_eq!((by("other", "1", &first), by("nothing", "1", &first)), (503, 503));
    assert_eq!(origin.asked("/keys"), 2);

    // The keys move with a change of keys; the old place says what it always said.
    origin.good(oidc, metadata("oidc", &format!("{at}/moved")));
    origin.good("/moved", jwks(&[("2", &second)]));
    eventually("the new key is found", || by("oidc", "2", &second) == 200);
    assert_eq!(by("oidc", "1", &first), 401, "and the old one is gone");
    assert_eq!(by("oauth", "1", &first), 200);

    // A bad day of the metadata: what is known stays.
    origin.set(oidc, Conduct::Good("<html>".into()));
    let asked = origin.asked(oidc);
    eventually("it is asked again", || {
        assert_eq!(by("oidc", "3", &first), 401);
        origin.asked(oidc) > asked
    });
    assert_eq!(by("oidc", "2", &second), 200);
}

#[test]
fn a_provider_that_is_not_ours_is_found_by_its_name() {
    let Some(mut command) = sdk::interpreter("oidc.mjs") else {
        eprintln!("left out: no OpenID provider; scripts/test-setup.sh installs one");
        return;
    };
    let mut provider = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(provider.stdout.take().unwrap()).lines().map_while(Result::ok);
    let told = lines.into_iter().find(|line| line.starts_with('{')).expect("a provider that starts");
    let told: Value = serde_json::from_str(&told).unwrap();
    let text = |name: &str| told[name].as_str().unwrap();
    let gateway = Gateway::start(&document(&["a"], |_| format!("issuer: '{}'", text("issuer"))));
    let (status, body) = with_token(&gateway, "/a", text("token"));
    assert_eq!(status, 200, "{body}");
    let (signed, _) = text("token").rsplit_once('.').unwrap();
    assert_eq!(with_token(&gateway, "/a", &format!("{signed}.{}", "A".repeat(86))).0, 401);
    drop(provider.stdin.take());
    provider.wait().unwrap();
}
