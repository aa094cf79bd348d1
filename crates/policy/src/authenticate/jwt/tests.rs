use std::cell::RefCell;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self as sig, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use aws_lc_rs::{hmac, signature};
use base::{Headers, StatusCode, Time};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::testing::{KEY, call, keys};
use crate::{Asked, Authenticate, Errand, Eval, Nowhere, OutsideError, Policy, Refusal, Stop, StoreAway, Told};

const ISSUER: &str = "https://idp.test/";
const NOW: u64 = 1_800_000_000;

// === Keys and tokens ===

enum Signer {
    Rsa(Box<RsaKeyPair>),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    fn rsa() -> Signer {
        Signer::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()))
    }

    fn ec() -> Signer {
        Signer::Ec(EcdsaKeyPair::generate(&sig::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn ed() -> Signer {
        Signer::Ed(Ed25519KeyPair::generate().unwrap())
    }

    fn jwk(&self, kid: &str) -> Value {
        match self {
            Signer::Rsa(pair) => {
                // A sequence of the modulus and 65537, in DER.
                let der = pair.public_key().as_ref();
                assert_eq!((der.len(), &der[265..]), (270, &[2, 3, 1, 0, 1][..]));
                json!({ "kty": "RSA", "kid": kid, "use": "sig", "n": base64(&der[9..265]), "e": "AQAB" })
            }
            Signer::Ec(pair) => {
                let point = pair.public_key().as_ref();
                json!({ "kty": "EC", "crv": "P-256", "kid": kid, "x": base64(&point[1..33]), "y": base64(&point[33..]) })
            }
            Signer::Ed(pair) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": base64(pair.public_key()) })
            }
        }
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", base64(header.to_string()), base64(claims.to_string()));
        let random = SystemRandom::new();
        let signature = match self {
            Signer::Rsa(pair) => {
                let how: &dyn signature::RsaEncoding = match header["alg"].as_str() {
                    Some("PS256") => &sig::RSA_PSS_SHA256,
                    Some("RS512") => &sig::RSA_PKCS1_SHA512,
                    _ => &sig::RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(how, &random, signed.as_bytes(), &mut signature).unwrap();
                signature
            }
            Signer::Ec(pair) => pair.sign(&random, signed.as_bytes()).unwrap().as_ref().to_vec(),
            Signer::Ed(pair) => pair.sign(signed.as_bytes()).as_ref().to_vec(),
        };
        format!("{signed}.{}", base64(signature))
    }
}

fn claims() -> Value {
    json!({ "iss": ISSUER, "aud": "orders", "sub": "agent", "exp": NOW + 60, "iat": NOW })
}

fn with(mut value: Value, more: Value) -> Value {
    for (name, it) in more.as_object().unwrap() {
        match it {
            Value::Null => drop(value.as_object_mut().unwrap().remove(name)),
            _ => drop(value.as_object_mut().unwrap().insert(name.clone(), it.clone())),
        }
    }
    value
}

fn set(keys: &[Value]) -> Vec<u8> {
    json!({ "keys": keys }).to_string().into_bytes()
}

// === A world ===

/// Keeps what is asked until the test answers.
#[derive(Default)]
struct World(RefCell<Vec<Errand>>, RefCell<usize>);

impl World {
    fn asked(&self) -> usize {
        *self.1.borrow()
    }

    fn answer(&self, told: Result<(u16, Vec<u8>), OutsideError>) {
        let Errand { asked, then } = self.0.borrow_mut().pop().expect("nothing is asked");
        assert!(asked.within <= Duration::from_secs(5) && asked.most <= 1 << 20, "bounded: {asked:?}");
        let next = then(told.map(|(status, body)| Told {
            status: StatusCode::from_u16(status).unwrap(),
            headers: Headers::from_iter([("cache-control", "max-age=600")]),
            body: Bytes::from(body),
            trailers: None,
        }));
        self.0.borrow_mut().extend(next);
    }

    /// The address of the question that is open.
    fn url(&self) -> String {
        self.0.borrow().last().map(|it| it.asked.url.clone()).unwrap_or_default()
    }
}

impl Outside for World {
    fn ask(&self, _: Asked) -> Pin<Box<dyn Future<Output = Result<Told, OutsideError>> + '_>> {
        panic!("a call waits for an answer of its own")
    }

    fn ask_aside(&self, errand: Errand) {
        *self.1.borrow_mut() += 1;
        self.0.borrow_mut().push(errand);
    }

    fn aside(&self, _: Pin<Box<dyn Future<Output = ()>>>) {}

    fn eval(&self, _: Eval, _: Box<dyn FnOnce(Result<Vec<i64>, StoreAway>)>) {
        unreachable!("no store is asked")
    }

    fn node(&self) -> u64 {
        0
    }

    fn random(&self) -> u64 {
        0
    }
}

// === The policy ===

fn compile(spec: Value, files: &[(&str, Vec<u8>)]) -> Result<Authenticate, Vec<(String, String)>> {
    let files: HashMap<String, Vec<u8>> = files.iter().map(|(name, it)| ((*name).to_owned(), it.clone())).collect();
    let read = |reference: &SecretRef| files.get(&reference.to_string()).cloned().ok_or("no such file".to_owned());
    let mut env = CompileEnv { read: &read, ..CompileEnv::new(keys(), "policies") };
    let policy = Authenticate::compile(&serde_json::from_value(spec).unwrap(), &mut env);
    policy.ok_or(env.errors)
}

fn jwt(more: Value) -> Value {
    json!({ "jwt": [with(json!({ "issuer": ISSUER, "audience": ["orders", "spare"], "jwks": "file:keys" }), more)] })
}

fn bearer_call(token: &str, seconds: u64) -> Call {
    let mut call = call(&[("authorization", &format!("Bearer {token}"))]);
    call.wall = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW + seconds);
    call.now = Time::from_nanos((1000 + seconds) * 1_000_000_000);
    call
}

/// Who it is, or why not.
fn poll(policy: &Authenticate, call: &mut Call, outside: &dyn Outside) -> Option<Result<Option<String>, String>> {
    let ended = match pin!(policy.request(call, outside)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => return None,
        Poll::Ready(ended) => ended,
    };
    Some(outcome(ended, call))
}

fn outcome(ended: Result<(), Stop>, call: &Call) -> Result<Option<String>, String> {
    match ended {
        Ok(()) => Ok(call.consumer.as_ref().map(|it| it.name.to_string())),
        Err(Stop::Refuse(Refusal::Unauthenticated { challenge })) => {
            Err(challenge.split_once("error_description=").map_or(challenge.clone(), |(_, it)| it.replace('"', "")))
        }
        Err(Stop::Refuse(Refusal::KeysUnavailable { .. })) => Err("no keys".into()),
        Err(stop) => panic!("{stop:?}"),
    }
}

fn check(policy: &Authenticate, token: &str, expected: Result<&str, &str>) {
    let mut call = bearer_call(token, 0);
    let seen = poll(policy, &mut call, &Nowhere).expect("nothing to wait for").map(Option::unwrap_or_default);
    assert_eq!(seen.as_deref().map_err(|it| &**it), expected, "{token}");
    if expected.is_ok() {
        assert!(!call.head.headers.contains("authorization"), "not for the upstream");
        assert_eq!(call.claims.unwrap()["iss"], ISSUER);
    }
}

const UNVERIFIED: Result<&str, &str> = Err("the token cannot be verified");

#[test]
fn tokens_of_each_algorithm_are_verified() {
    let (rsa, ec, ed) = (Signer::rsa(), Signer::ec(), Signer::ed());
    let keys = set(&[rsa.jwk("r"), ec.jwk("e"), ed.jwk("d"), json!({ "kty": "oct", "kid": "o", "k": "AAAA" })]);
    let policy = compile(jwt(json!({})), &[("file:keys", keys)]).unwrap();
    for (signer, alg, kid) in [
        (&rsa, "RS256", "r"),
        (&rsa, "RS512", "r"),
        (&rsa, "PS256", "r"),
        (&ec, "ES256", "e"),
        (&ed, "EdDSA", "d"),
        (&ed, "Ed25519", "d"),
    ] {
        let token = signer.sign(&json!({ "alg": alg, "kid": kid, "typ": "JWT" }), &claims());
        check(&policy, &token, Ok("agent"));
        // The same again, from those that were seen.
        check(&policy, &token, Ok("agent"));
        // Without a kid there is only one that fits.
        check(&policy, &signer.sign(&json!({ "alg": alg }), &claims()), Ok("agent"));
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        bytes[3] ^= 1;
        check(&policy, &format!("{signed}.{}", base64(bytes)), UNVERIFIED);
        // Another's key, of the same kind and name.
        check(&policy, &Signer::rsa().sign(&json!({ "alg": "RS256", "kid": "r" }), &claims()), UNVERIFIED);
    }
}

#[test]
fn the_header_decides_nothing_that_the_document_does() {
    let (rsa, ec) = (Signer::rsa(), Signer::ec());
    let keys = set(&[rsa.jwk("r"), ec.jwk("e")]);
    let only = compile(jwt(json!({ "algorithms": ["RS256"] })), &[("file:keys", keys.clone())]).unwrap();
    check(&only, &rsa.sign(&json!({ "alg": "RS256", "kid": "r" }), &claims()), Ok("agent"));
    check(&only, &rsa.sign(&json!({ "alg": "PS256", "kid": "r" }), &claims()), UNVERIFIED);
    check(&only, &ec.sign(&json!({ "alg": "ES256", "kid": "e" }), &claims()), UNVERIFIED);

    let any = compile(jwt(json!({})), &[("file:keys", keys)]).unwrap();
    // Nothing signed it.
    for alg in ["none", "None", ""] {
        let token = format!("{}.{}.", base64(json!({ "alg": alg }).to_string()), base64(claims().to_string()));
        check(&any, &token, UNVERIFIED);
    }
    // The public key, taken for a secret.
    let header = json!({ "alg": "HS256", "kid": "r" });
    let signed = format!("{}.{}", base64(header.to_string()), base64(claims().to_string()));
    for secret in [rsa.jwk("r").to_string(), rsa.jwk("r")["n"].as_str().unwrap().to_owned()] {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), signed.as_bytes());
        check(&any, &format!("{signed}.{}", base64(tag)), UNVERIFIED);
    }
    // One key's algorithm with another key.
    check(&any, &rsa.sign(&json!({ "alg": "RS256", "kid": "e" }), &claims()), UNVERIFIED);
    check(&any, &rsa.sign(&json!({ "alg": "RS256", "kid": "other" }), &claims()), UNVERIFIED);
    // Keys that the token brings along.
    let stranger = Signer::rsa();
    check(&any, &stranger.sign(&json!({ "alg": "RS256", "jwk": stranger.jwk("r") }), &claims()), UNVERIFIED);
    // What is not understood, what is not a token for access.
    for more in
        [json!({ "crit": ["b64"] }), json!({ "crit": null }), json!({ "typ": "logout+jwt" }), json!({ "kid": 1 })]
    {
        let mut header = json!({ "alg": "RS256", "kid": "r" });
        for (name, it) in more.as_object().unwrap() {
            header[name] = it.clone();
        }
        check(&any, &rsa.sign(&header, &claims()), UNVERIFIED);
    }
    for typ in ["JWT", "jwt", "at+jwt", "application/at+JWT"] {
        check(&any, &rsa.sign(&json!({ "alg": "RS256", "kid": "r", "typ": typ }), &claims()), Ok("agent"));
    }
    // Written twice, a name could be read twice.
    let header = base64(r#"{"alg":"RS256","alg":"RS256","kid":"r"}"#);
    check(&any, &format!("{header}.{}.AAAA", base64(claims().to_string())), UNVERIFIED);
    for text in ["", "a", "a.b", "a.b.c", "ey.ey.ey", "eyJ9.e30.AA", "e30.e30.e30.e30", "eyJhbGciOiJSUzI1NiJ9.e30=.AA"]
    {
        check(&any, text, UNVERIFIED);
    }
    check(&any, &format!("ey.{}.", "a".repeat(20_000)), UNVERIFIED);
}

#[test]
fn claims_are_checked() {
    let rsa = Signer::rsa();
    let header = json!({ "alg": "RS256", "kid": "r" });
    let policy = compile(jwt(json!({})), &[("file:keys", set(&[rsa.jwk("r")]))]).unwrap();
    let expect = |more: Value, expected: Result<&str, &str>| {
        check(&policy, &rsa.sign(&header, &with(claims(), more)), expected);
    };
    expect(json!({ "aud": ["x", "spare"] }), Ok("agent"));
    expect(json!({ "aud": "ORDERS" }), Err("the token is meant for others"));
    expect(json!({ "aud": [] }), Err("the token is meant for others"));
    expect(json!({ "aud": null }), Err("the token is meant for others"));
    expect(json!({ "aud": { "orders": 1 } }), Err("the token is meant for others"));
    expect(json!({ "iss": "https://idp.test" }), Err("the token's issuer is not known here"));
    expect(json!({ "iss": null }), Err("the token's issuer is not known here"));
    expect(json!({ "exp": null }), UNVERIFIED);
    expect(json!({ "exp": "1" }), UNVERIFIED);
    expect(json!({ "exp": -1 }), UNVERIFIED);
    // Within the leeway, and outside of it.
    expect(json!({ "exp": NOW - 29 }), Ok("agent"));
    expect(json!({ "exp": NOW - 30 }), Err("the token has expired"));
    expect(json!({ "exp": (NOW as f64) - 100.5 }), Err("the token has expired"));
    expect(json!({ "exp": u64::MAX }), Ok("agent"));
    expect(json!({ "nbf": NOW + 30 }), Ok("agent"));
    expect(json!({ "nbf": NOW + 31 }), Err("the token is not valid yet"));
    expect(json!({ "nbf": "x" }), UNVERIFIED);
    expect(json!({ "iat": NOW + 30 }), Ok("agent"));
    expect(json!({ "iat": NOW + 31 }), Err("the token is not valid yet"));
    expect(json!({ "sub": "nobody" }), Err("the token's subject is not known here"));
    expect(json!({ "sub": null }), Err("the token's subject is not known here"));
    expect(json!({ "sub": 1 }), Err("the token's subject is not known here"));
}

#[test]
fn a_token_that_was_seen_still_expires() {
    let rsa = Signer::rsa();
    let policy = compile(jwt(json!({})), &[("file:keys", set(&[rsa.jwk("r")]))]).unwrap();
    let token = rsa.sign(&json!({ "alg": "RS256", "kid": "r" }), &claims());
    let at = |seconds: u64| poll(&policy, &mut bearer_call(&token, seconds), &Nowhere).unwrap();
    assert_eq!(at(0), Ok(Some("agent".into())));
    assert_eq!(at(89), Ok(Some("agent".into())));
    assert_eq!(at(90), Err("the token has expired".into()));
}

#[test]
fn callers_are_named_by_the_claim_that_the_document_says() {
    let rsa = Signer::rsa();
    let header = json!({ "alg": "RS256", "kid": "r" });
    let keys = [("file:keys", set(&[rsa.jwk("r")]))];
    let policy = compile(jwt(json!({ "consumer-claim": "client_id" })), &keys).unwrap();
    check(&policy, &rsa.sign(&header, &with(claims(), json!({ "client_id": "other" }))), Ok("other"));
    check(&policy, &rsa.sign(&header, &claims()), Err("the token's subject is not known here"));

    let spec = jwt(json!({ "unknown": "allow", "team-claim": "org" }));
    let policy = compile(spec, &keys).unwrap();
    let token = rsa.sign(&header, &with(claims(), json!({ "sub": "stranger", "org": "guests" })));
    let mut call = bearer_call(&token, 0);
    assert_eq!(poll(&policy, &mut call, &Nowhere).unwrap(), Ok(Some("stranger".into())));
    let stranger = call.consumer.unwrap();
    assert_eq!((stranger.index, stranger.team.as_deref()), (Consumer::STRANGER, Some("guests")));
    // Of a known one the document says the team.
    let token = rsa.sign(&header, &with(claims(), json!({ "org": "guests" })));
    let mut call = bearer_call(&token, 0);
    assert_eq!(poll(&policy, &mut call, &Nowhere).unwrap(), Ok(Some("agent".into())));
    assert_eq!(call.consumer.unwrap().team, None);
    // Nobody is not let in as anybody.
    for sub in [json!("a\nb"), json!(""), json!(7), json!(null)] {
        let token = rsa.sign(&header, &with(claims(), json!({ "sub": sub })));
        check(&policy, &token, Err("the token's subject is not known here"));
    }

    // An issuer for some of the consumers.
    let policy = compile(jwt(json!({ "consumer-prefix": "ag" })), &keys).unwrap();
    check(&policy, &rsa.sign(&header, &with(claims(), json!({ "sub": "ent" }))), Ok("agent"));
    check(&policy, &rsa.sign(&header, &claims()), Err("the token's subject is not known here"));
}

#[test]
fn whatever_is_presented_must_be_valid_and_name_one_consumer() {
    let rsa = Signer::rsa();
    let mut spec = jwt(json!({}));
    spec["api-key"] = json!({});
    let policy = compile(spec, &[("file:keys", set(&[rsa.jwk("r")]))]).unwrap();
    let good = rsa.sign(&json!({ "alg": "RS256", "kid": "r" }), &claims());
    let other = rsa.sign(&json!({ "alg": "RS256", "kid": "r" }), &with(claims(), json!({ "sub": "other" })));
    let bad = Signer::rsa().sign(&json!({ "alg": "RS256", "kid": "r" }), &claims());
    let check = |fields: &[(&str, &str)], expected: Result<&str, &str>| {
        let mut call = call(fields);
        call.wall = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
        let seen = poll(&policy, &mut call, &Nowhere).unwrap().map(Option::unwrap_or_default);
        assert_eq!(seen.as_deref().map_err(|it| &**it), expected, "{fields:?}");
        if expected.is_ok() {
            assert!(call.head.headers.is_empty(), "{:?}", call.head.headers);
        }
    };
    let bearer = |it: &str| format!("Bearer {it}");
    check(&[("authorization", &bearer(&good))], Ok("agent"));
    check(&[("authorization", &bearer(KEY))], Ok("agent"));
    check(&[("authorization", &bearer(&good)), ("x-api-key", KEY)], Ok("agent"));
    check(&[("authorization", &bearer(&good)), ("authorization", &bearer(KEY))], Ok("agent"));
    check(&[("authorization", &bearer(&good)), ("authorization", &bearer(&good))], Ok("agent"));
    check(&[("authorization", &bearer(&good)), ("x-api-key", "secret-key-2")], Err("more than one credential"));
    check(&[("authorization", &bearer(&good)), ("authorization", &bearer(&other))], Err("more than one credential"));
    check(&[("authorization", &bearer(&bad)), ("x-api-key", KEY)], UNVERIFIED);
    let invalid = Err("Bearer realm=\"api\", error=\"invalid_token\"");
    check(&[("authorization", &bearer(&good)), ("x-api-key", "wrong")], invalid);
    check(&[("authorization", &bearer("wrong"))], invalid);
    check(&[], Err("Bearer realm=\"api\""));
}

#[test]
fn a_field_of_its_own_carries_the_token_alone() {
    let rsa = Signer::rsa();
    let keys = [("file:keys", set(&[rsa.jwk("r")]))];
    let policy = compile(jwt(json!({ "header": "X-Token" })), &keys).unwrap();
    let token = rsa.sign(&json!({ "alg": "RS256", "kid": "r" }), &claims());
    let with = |name: &str, value: &str| {
        let mut call = bearer_call("theirs", 0);
        call.head.headers.append(name, value);
        let ended = poll(&policy, &mut call, &Nowhere).unwrap();
        (ended, call.head.headers.contains("x-token"), call.head.headers.contains("authorization"))
    };
    assert_eq!(with("x-token", &token), (Ok(Some("agent".into())), false, true));
    assert_eq!(with("x-other", &token).0, Err("Bearer realm=\"api\"".into()));
    let forwards = compile(jwt(json!({ "forward": true })), &keys).unwrap();
    let mut call = bearer_call(&token, 0);
    assert!(poll(&forwards, &mut call, &Nowhere).unwrap().is_ok());
    assert!(call.head.headers.contains("authorization"));
}

#[test]
fn secrets_are_shared_only_where_the_document_says_so() {
    let secret = b"0123456789abcdef0123456789abcdef".to_vec();
    let spec = |secret: &str| jwt(json!({ "jwks": null, "secret": secret }));
    let files = [("env:SHARED", [&*secret, b"\n"].concat()), ("env:SHORT", b"short".to_vec())];
    let policy = compile(spec("env:SHARED"), &files).unwrap();
    let sign = |alg: &str, how: hmac::Algorithm| {
        let signed = format!("{}.{}", base64(json!({ "alg": alg }).to_string()), base64(claims().to_string()));
        let tag = hmac::sign(&hmac::Key::new(how, &secret), signed.as_bytes());
        format!("{signed}.{}", base64(tag))
    };
    check(&policy, &sign("HS256", hmac::HMAC_SHA256), Ok("agent"));
    check(&policy, &sign("HS512", hmac::HMAC_SHA512), UNVERIFIED);
    check(&policy, &Signer::rsa().sign(&json!({ "alg": "RS256" }), &claims()), UNVERIFIED);
    assert!(compile(spec("env:SHORT"), &files).unwrap_err()[0].1.contains("at least 32 bytes"));
}

proptest::proptest! {
    /// Whatever is sent, and whatever of a good token is changed: nothing breaks and nobody is let in.
    #[test]
    fn nothing_but_the_token_itself_is_taken(junk in ".{0,200}", at in 0usize..500, with in proptest::prelude::any::<char>()) {
        thread_local! {
            static GOOD: (Authenticate, String) = {
                let ed = Signer::ed();
                let token = ed.sign(&json!({ "alg": "EdDSA", "kid": "d" }), &claims());
                (compile(jwt(json!({})), &[("file:keys", set(&[ed.jwk("d")]))]).unwrap(), token)
            };
        }
        GOOD.with(|(policy, good)| {
            let mut changed: Vec<char> = good.chars().collect();
            let at = at % changed.len();
            changed[at] = with;
            let changed: String = changed.into_iter().collect();
            for text in [junk, changed] {
                let mut call = bearer_call(&text, 0);
                let taken = poll(policy, &mut call, &Nowhere).unwrap().is_ok();
                assert_eq!(taken, text == *good, "{text}");
            }
        });
    }
}

// === Keys that are fetched ===

fn remote() -> Value {
    jwt(json!({ "jwks": "https://idp.test/keys", "stale": "1h" }))
}

#[test]
fn calls_wait_for_the_first_keys_and_for_one_fetch() {
    let rsa = Signer::rsa();
    let token = rsa.sign(&json!({ "alg": "RS256", "kid": "r" }), &claims());
    let policy = Rc::new(compile(remote(), &[]).unwrap());
    let world = World::default();
    let mut calls: Vec<Call> = (0..100).map(|_| bearer_call(&token, 0)).collect();
    let mut waiting: Vec<_> = calls.iter_mut().map(|call| Box::pin(policy.request(call, &world))).collect();
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..2 {
        assert!(waiting.iter_mut().all(|it| it.as_mut().poll(&mut context).is_pending()));
    }
    assert_eq!(world.asked(), 1);
    // Some leave; the fetch goes on.
    waiting.truncate(50);
    world.answer(Ok((200, set(&[rsa.jwk("r")]))));
    for mut it in waiting {
        assert!(matches!(it.as_mut().poll(&mut context), Poll::Ready(Ok(()))));
    }
    assert_eq!(world.asked(), 1);
}

#[test]
fn calls_that_need_no_verification_carry_little() {
    let policy = compile(jwt(json!({})), &[("file:keys", set(&[Signer::ed().jwk("d")]))]).unwrap();
    let mut call = call(&[]);
    let size = size_of_val(&policy.request(&mut call, &Nowhere));
    assert!(size <= 256, "{size} bytes");
}

#[test]
fn a_fetch_that_is_left_undone_keeps_nobody() {
    struct Flag(std::sync::atomic::AtomicUsize);
    impl std::task::Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
    let flag = Arc::new(Flag(Default::default()));
    let waker = Waker::from(flag.clone());
    let rsa = Signer::rsa();
    let token = rsa.sign(&json!({ "alg": "RS256", "kid": "r" }), &claims());
    let policy = compile(remote(), &[]).unwrap();
    let world = World::default();
    let mut call = bearer_call(&token, 0);
    let mut waiting = pin!(policy.request(&mut call, &world));
    let mut context = Context::from_waker(&waker);
    assert!(waiting.as_mut().poll(&mut context).is_pending());
    world.0.borrow_mut().clear();
    assert_eq!(flag.0.load(std::sync::atomic::Ordering::Relaxed), 1, "it is told");
    assert!(matches!(waiting.as_mut().poll(&mut context), Poll::Ready(Err(_))));
    assert_eq!(poll(&policy, &mut bearer_call(&token, 5), &world), None);
    assert_eq!(world.asked(), 2);
}

#[test]
fn an_issuer_that_hangs_or_talks_rubbish_is_not_the_callers_fault() {
    let rsa = Signer::rsa();
    let token = rsa.sign(&json!({ "alg": "RS256", "kid": "r" }), &claims());
    let no_key = json!({ "keys": [{ "kty": "oct", "k": "AAAA" }] }).to_string().into_bytes();
    for rubbish in [
        Err(OutsideError::Late),
        Err(OutsideError::TooLong(1)),
        Ok((500, set(&[rsa.jwk("r")]))),
        Ok((302, Vec::new())),
        Ok((200, b"<html>".to_vec())),
        Ok((200, set(&[]))),
        Ok((200, no_key)),
    ] {
        let policy = compile(remote(), &[]).unwrap();
        let world = World::default();
        let mut call = bearer_call(&token, 0);
        {
            let mut future = pin!(policy.request(&mut call, &world));
            let mut context = Context::from_waker(Waker::noop());
            assert!(future.as_mut().poll(&mut context).is_pending());
            world.answer(rubbish);
            let Poll::Ready(Err(Stop::Refuse(refusal))) = future.as_mut().poll(&mut context) else { panic!() };
            assert!(matches!(refusal, Refusal::KeysUnavailable { retry_after } if retry_after <= jwks::PAUSE));
        }
        // For a while nobody asks again and nobody waits; then one does.
        let at = |seconds: u64| poll(&policy, &mut bearer_call(&token, seconds), &world);
        assert_eq!((at(1), world.asked()), (Some(Err("no keys".into())), 1));
        assert_eq!((at(6), world.asked()), (None, 2));
        world.answer(Ok((200, set(&[rsa.jwk("r")]))));
        assert_eq!((at(6), world.asked()), (Some(Ok(Some("agent".into()))), 2));
    }
    // Where nobody can be asked: `weir explain`.
    let policy = compile(remote(), &[]).unwrap();
    assert_eq!(poll(&policy, &mut bearer_call(&token, 0), &Nowhere), Some(Err("no keys".into())));
}

#[test]
fn keys_are_renewed_aside_and_used_while_they_cannot_be() {
    let rsa = Signer::rsa();
    let token = |seconds: u64| {
        let claims = with(claims(), json!({ "exp": NOW + seconds + 60 }));
        rsa.sign(&json!({ "alg": "RS256", "kid": "r" }), &claims)
    };
    let policy = compile(remote(), &[]).unwrap();
    let world = World::default();
    let at = |seconds: u64| poll(&policy, &mut bearer_call(&token(seconds), seconds), &world);
    assert_eq!(at(0), None);
    world.answer(Ok((200, set(&[rsa.jwk("r")]))));
    let good = Some(Ok(Some("agent".into())));
    // Fresh for ten minutes, renewed after three quarters of that.
    assert_eq!((at(449), world.asked()), (good.clone(), 1));
    assert_eq!((at(450), world.asked()), (good.clone(), 2));
    assert_eq!((at(460), world.asked()), (good.clone(), 2), "one hangs, and none waits");
    world.answer(Err(OutsideError::Late));
    assert_eq!((at(460), world.asked()), (good.clone(), 3));
    world.answer(Err(OutsideError::Late));
    // Ten minutes and an hour.
    assert_eq!((at(4199), world.asked()), (good, 4));
    world.answer(Ok((500, Vec::new())));
    assert_eq!(
        (at(4200), world.asked()),
        (Some(Err("no keys".into())), 4),
        "too old, and a moment ago there were none"
    );
    assert_eq!((at(4205), world.asked()), (None, 5));
}

#[test]
fn an_unknown_key_is_looked_for_once_in_a_while() {
    let (old, new) = (Signer::rsa(), Signer::rsa());
    let policy = compile(remote(), &[]).unwrap();
    let world = World::default();
    let at = |signer: &Signer, kid: &str, seconds: u64| {
        let token = signer.sign(&json!({ "alg": "RS256", "kid": kid }), &claims());
        poll(&policy, &mut bearer_call(&token, seconds), &world)
    };
    let good = Some(Ok(Some("agent".to_owned())));
    let unverified = Some(Err("the token cannot be verified".to_owned()));
    assert_eq!(at(&old, "old", 0), None);
    world.answer(Ok((200, set(&[old.jwk("old")]))));
    assert_eq!(at(&old, "old", 0), good);
    // Whatever names are made up.
    for seconds in 0..5 {
        for n in 0..20 {
            assert_eq!(at(&new, &format!("made-up-{n}"), seconds), unverified);
        }
    }
    assert_eq!(world.asked(), 1);
    assert_eq!((at(&new, "new", 5), world.asked()), (unverified.clone(), 2));
    // While one is under way there is no other, however long it takes.
    assert_eq!((at(&new, "new", 20), at(&old, "old", 20), world.asked()), (unverified.clone(), good.clone(), 2));
    world.answer(Ok((200, set(&[old.jwk("old"), new.jwk("new")]))));
    assert_eq!((at(&new, "new", 21), at(&old, "old", 21)), (good.clone(), good.clone()));
    // The old one is taken back; tokens that were seen with it are not taken any more.
    assert_eq!((at(&new, "made-up", 30), world.asked()), (unverified.clone(), 3));
    world.answer(Ok((200, set(&[new.jwk("new")]))));
    assert_eq!((at(&old, "old", 31), at(&new, "new", 31)), (unverified, good));
    // A wrong signature is no reason to ask.
    let asked = world.asked();
    assert!(at(&old, "new", 50).unwrap().is_err());
    assert_eq!(world.asked(), asked);
}

#[test]
fn an_issuer_is_asked_where_its_keys_are_each_time() {
    let (old, new) = (Signer::rsa(), Signer::rsa());
    let policy = compile(jwt(json!({ "jwks": null, "stale": "1h" })), &[]).unwrap();
    let world = World::default();
    let at = |signer: &Signer, kid: &str, seconds: u64| {
        let token = signer.sign(&json!({ "alg": "RS256", "kid": kid }), &claims());
        poll(&policy, &mut bearer_call(&token, seconds), &world)
    };
    let says = |issuer: &str, keys: &str| json!({ "issuer": issuer, "jwks_uri": keys }).to_string().into_bytes();
    let good = Some(Ok(Some("agent".to_owned())));
    assert_eq!(at(&old, "old", 0), None);
    assert_eq!(world.url(), "https://idp.test/.well-known/openid-configuration");
    world.answer(Ok((404, Vec::new())));
    assert_eq!(world.url(), "https://idp.test/.well-known/oauth-authorization-server");
    world.answer(Ok((200, says(ISSUER, "https://idp.test/1"))));
    assert_eq!(world.url(), "https://idp.test/1");
    assert_eq!(at(&old, "old", 0), None, "they wait until the keys are there");
    world.answer(Ok((200, set(&[old.jwk("old")]))));
    assert_eq!((at(&old, "old", 0), world.asked()), (good.clone(), 1));

    // They move.
    assert!(at(&new, "new", 6).unwrap().is_err());
    world.answer(Ok((200, says(ISSUER, "https://elsewhere.test/2"))));
    assert_eq!(world.url(), "https://elsewhere.test/2");
    world.answer(Ok((200, set(&[old.jwk("old"), new.jwk("new")]))));
    assert_eq!((at(&new, "new", 6), world.asked()), (good.clone(), 2));

    // Whatever it says afterwards, what is there stays, and no other place is asked.
    for (round, wrong) in [
        Ok((404, Vec::new())),
        Ok((500, says(ISSUER, "https://idp.test/1"))),
        Ok((302, Vec::new())),
        Ok((200, b"<html>".to_vec())),
        Ok((200, says("https://other.test/", "https://idp.test/1"))),
        Ok((200, says(ISSUER, "http://idp.test/1"))),
        Err(OutsideError::Late),
    ]
    .into_iter()
    .enumerate()
    {
        let seconds = 12 + 6 * round as u64;
        assert!(at(&new, "made-up", seconds).unwrap().is_err());
        let gone = wrong.as_ref().is_ok_and(|(status, _)| *status == 404);
        world.answer(wrong);
        if gone {
            world.answer(Ok((404, Vec::new())));
        }
        assert_eq!(world.url(), "", "{round}");
        assert_eq!((at(&new, "new", seconds), world.asked()), (good.clone(), 3 + round));
    }
}

#[test]
fn keys_of_one_name_are_tried_each_and_others_passed_over() {
    let (first, second, third) = (Signer::rsa(), Signer::rsa(), Signer::ec());
    let junk = json!({ "kty": "RSA", "kid": "r", "n": base64([0xc5; 128]), "e": "AQAB" });
    let keys = set(&[json!(1), json!({}), junk, first.jwk("r"), second.jwk("r"), third.jwk("r")]);
    let policy = compile(jwt(json!({})), &[("file:keys", keys)]).unwrap();
    for (signer, alg) in [(&first, "RS256"), (&second, "RS256"), (&third, "ES256")] {
        check(&policy, &signer.sign(&json!({ "alg": alg, "kid": "r" }), &claims()), Ok("agent"));
    }
    check(&policy, &Signer::rsa().sign(&json!({ "alg": "RS256", "kid": "r" }), &claims()), UNVERIFIED);
    // More than a few of one name are not gone through for every token.
    let crowd: Vec<_> = (0..8).map(|_| Signer::ed()).collect();
    let keys = set(&crowd.iter().map(|it| it.jwk("d")).collect::<Vec<_>>());
    let policy = compile(jwt(json!({})), &[("file:keys", keys)]).unwrap();
    let taken = crowd.iter().filter(|it| {
        let token = it.sign(&json!({ "alg": "EdDSA", "kid": "d" }), &claims());
        poll(&policy, &mut bearer_call(&token, 0), &Nowhere).unwrap().is_ok()
    });
    assert_eq!(taken.count(), 4);
    // What a key says of itself holds: another use, another algorithm.
    let rsa = Signer::rsa();
    for more in [json!({ "use": "enc" }), json!({ "alg": "RS512" }), json!({ "key_ops": ["sign"] })] {
        let keys = set(&[with(rsa.jwk("r"), more), Signer::ec().jwk("e")]);
        let policy = compile(jwt(json!({})), &[("file:keys", keys)]).unwrap();
        check(&policy, &rsa.sign(&json!({ "alg": "RS256", "kid": "r" }), &claims()), UNVERIFIED);
    }
}

#[test]
fn a_reload_keeps_the_keys_where_the_settings_stay() {
    let rsa = Signer::rsa();
    let token = rsa.sign(&json!({ "alg": "RS256", "kid": "r" }), &claims());
    let world = World::default();
    let specs = |more: Value| {
        let mut spec = remote();
        spec["jwt"][0] = with(spec["jwt"][0].take(), more);
        serde_json::from_value::<crate::Specs>(json!({ "authenticate": spec })).unwrap()
    };
    let compile = |specs: &crate::Specs, previous: Option<&crate::Policies>| {
        let mut env = CompileEnv { previous, ..CompileEnv::new(keys(), "policies") };
        let policies = crate::Policies::compile(specs, &mut env);
        assert!(env.errors.is_empty(), "{:?}", env.errors);
        policies
    };
    let first = compile(&specs(json!({})), None);
    let ask =
        |policies: &crate::Policies| poll(policies.authenticate.as_ref().unwrap(), &mut bearer_call(&token, 0), &world);
    assert_eq!(ask(&first), None);
    world.answer(Ok((200, set(&[rsa.jwk("r")]))));
    let second = compile(&specs(json!({ "leeway": "10s" })), Some(&first));
    assert_eq!((ask(&second), world.asked()), (Some(Ok(Some("agent".into()))), 1));
    for more in [json!({ "jwks": "https://idp.test/others" }), json!({ "algorithms": ["RS256"] })] {
        let asked = world.asked();
        let third = compile(&specs(more), Some(&second));
        assert_eq!((ask(&third), world.asked()), (None, asked + 1));
        world.answer(Ok((200, set(&[rsa.jwk("r")]))));
    }
}

#[test]
fn wrong_settings_are_told() {
    let files = [("file:keys", set(&[Signer::ed().jwk("d")])), ("file:junk", b"{}".to_vec())];
    let check = |more: Value, path: &str, part: &str| {
        let errors = compile(jwt(more.clone()), &files).expect_err(&more.to_string());
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].0 == format!("authenticate.jwt[0]{path}") && errors[0].1.contains(part), "{errors:?}");
    };
    check(json!({ "issuer": "" }), ".issuer", "expected");
    check(json!({ "audience": [] }), ".audience", "at least one");
    check(json!({ "jwks": null, "issuer": "idp" }), "", "`issuer` is no URL");
    check(json!({ "jwks": null, "issuer": "http://idp", "authorities": "file:junk" }), ".authorities", "over TLS");
    check(json!({ "secret": "env:X" }), "", "not both");
    check(json!({ "jwks": "ftp://x" }), ".jwks", "expected `https://…` or `file:…`");
    check(json!({ "jwks": "file:absent" }), ".jwks", "no such file");
    check(json!({ "jwks": "file:junk" }), ".jwks", "not a JWK set");
    check(json!({ "algorithms": ["RS256"] }), ".jwks", "no key in it");
    check(json!({ "algorithms": ["EdDSA", "HS256"] }), ".algorithms[1]", "needs a secret");
    check(json!({ "leeway": "1h" }), ".leeway", "`5m` or less");
    check(json!({ "header": "Cookie" }), ".header", "another meaning");
    check(json!({ "team-claim": "org" }), ".team-claim", "`unknown: allow`");
    assert!(serde_json::from_value::<JwtSpec>(jwt(json!({ "algorithms": ["none"] }))["jwt"][0].clone()).is_err());
    let two = |more: Value| {
        let mut two = jwt(json!({ "unknown": "allow" }));
        let one = with(two["jwt"][0].clone(), more);
        two["jwt"].as_array_mut().unwrap().push(one);
        compile(two, &files).map_err(|errors| errors[0].0.clone())
    };
    assert_eq!(two(json!({})).unwrap_err(), "authenticate.jwt[1].issuer");
    assert_eq!(two(json!({ "issuer": "other" })).unwrap_err(), "authenticate.jwt[1].unknown");
    assert!(two(json!({ "issuer": "other", "consumer-prefix": "other:" })).is_ok());
}
