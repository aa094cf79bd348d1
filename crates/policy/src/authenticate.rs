//! Who calls, by API key.
//!
//! The document holds the hashes of keys, never keys. A key is a long random string, so one round of
//! SHA-256 is enough: there is nothing to guess that a slow hash would protect.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use base::{Call, Consumer, Headers};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use subtle::ConstantTimeEq;

use crate::decode::decoded;
use crate::{CompileEnv, Outside, Policy, Refusal, Spec, Stop};

/// How callers prove who they are.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AuthenticateSpec {
    /// By a key of one of the `consumers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<ApiKeySpec>,
    /// What the challenge in `WWW-Authenticate` calls the protected space; `api` if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub realm: Option<String>,
}

/// Where a caller puts its key.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ApiKeySpec {
    /// The only request field that may carry the key. If it is not given: `Authorization: Bearer` and
    /// `x-api-key`. In `authorization` the key follows the word `Bearer`, in any other field it stands alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// A query parameter that may carry the key as well. Such keys end up in the logs of whatever lies
    /// between; prefer a field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Whether the upstream gets to see the key. By default it is taken out of the request.
    #[serde(default)]
    pub forward: bool,
}

/// The policy.
#[derive(Debug)]
pub struct Authenticate {
    keys: Arc<Keys>,
    bearer: bool,
    /// In lower case.
    header: Option<String>,
    query: Option<String>,
    forward: bool,
    missing: String,
    invalid: String,
}

/// One key of a consumer.
#[derive(Clone)]
pub struct Key {
    /// What people call it; not secret.
    pub id: Arc<str>,
    /// SHA-256 of the key.
    pub hash: [u8; 32],
    pub consumer: Arc<Consumer>,
}

/// The keys of all consumers.
#[derive(Debug, Default)]
pub struct Keys {
    /// By the first bytes of the hash; the rest is compared in constant time.
    by_prefix: HashMap<[u8; 8], Vec<Key>, foldhash::quality::RandomState>,
}

// === impl Authenticate ===

impl Authenticate {
    /// Every credential that the call presents where one is looked for.
    fn presented<'a>(&self, call: &'a Call) -> SmallVec<[Cow<'a, [u8]>; 2]> {
        let mut presented = SmallVec::new();
        if self.bearer {
            let all = call.head.headers.get_all("authorization");
            presented.extend(all.filter_map(bearer).map(Cow::Borrowed));
        }
        if let Some(name) = &self.header {
            presented.extend(call.head.headers.iter().filter(|(it, _)| it == name).map(|(_, value)| value.into()));
        }
        if let (Some(name), Some(query)) = (&self.query, call.head.query()) {
            let values = query.split('&').filter_map(|pair| {
                let (it, value) = pair.split_once('=').unwrap_or((pair, ""));
                (*decoded(it) == *name.as_bytes()).then(|| decoded(value))
            });
            presented.extend(values);
        }
        presented
    }

    /// Takes out of the call what `presented` has found.
    fn strip(&self, call: &mut Call) {
        let head = &mut call.head;
        if self.bearer {
            head.headers.retain(|name, value| name != "authorization" || bearer(value).is_none());
        }
        if let Some(name) = &self.header {
            head.headers.remove(name);
        }
        let (Some(name), Some((path, query))) = (&self.query, head.target.split_once('?')) else { return };
        let is_key = |pair: &&str| *decoded(pair.split('=').next().unwrap_or(pair)) == *name.as_bytes();
        if !query.split('&').any(|pair| is_key(&pair)) {
            return;
        }
        let rest = query.split('&').filter(|pair| !is_key(pair)).collect::<Vec<_>>().join("&");
        head.target = if rest.is_empty() { path.to_owned() } else { format!("{path}?{rest}") };
    }
}

impl Policy for Authenticate {
    const NAME: &'static str = "authenticate";
    type Spec = AuthenticateSpec;
    type Memo = ();

    fn compile(spec: &AuthenticateSpec, env: &mut CompileEnv<'_>) -> Option<Authenticate> {
        let AuthenticateSpec { api_key, realm } = spec;
        let before = env.errors.len();
        let realm = realm.as_deref().unwrap_or("api");
        if realm.is_empty() || !realm.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            env.error("authenticate.realm", "expected one or more printable ASCII characters");
        }
        let Some(ApiKeySpec { header, query, forward }) = api_key else {
            env.error("authenticate", "says not how; expected `api-key: {}`, or `none` to let everyone in");
            return None;
        };
        let header = header.as_ref().map(|name| name.to_ascii_lowercase());
        if header.as_ref().is_some_and(|name| !Headers::is_name(name)) {
            env.error("authenticate.api-key.header", "not a field name; expected one such as `x-api-key`");
        }
        if header.as_deref().is_some_and(|name| NOT_FOR_KEYS.contains(&name)) {
            env.error(
                "authenticate.api-key.header",
                "that field has another meaning; expected one such as `x-api-key`",
            );
        }
        if query.as_ref().is_some_and(String::is_empty) {
            env.error("authenticate.api-key.query", "expected the name of a query parameter, such as `key`");
        }
        if env.errors.len() > before {
            return None;
        }

        let bearer = header.as_deref().is_none_or(|name| name == "authorization");
        let header = match header {
            Some(name) if name == "authorization" => None,
            Some(name) => Some(name),
            None => Some("x-api-key".into()),
        };
        let realm = realm.replace('\\', "\\\\").replace('"', "\\\"");
        let scheme = if bearer { "Bearer" } else { "ApiKey" };
        Some(Authenticate {
            keys: env.keys.clone(),
            bearer,
            header,
            query: query.clone(),
            forward: *forward,
            missing: format!("{scheme} realm=\"{realm}\""),
            invalid: format!("{scheme} realm=\"{realm}\", error=\"invalid_token\""),
        })
    }

    async fn request(&self, call: &mut Call, _: &dyn Outside) -> Result<(), Stop> {
        let refuse = |challenge: &str| Stop::from(Refusal::Unauthenticated { challenge: challenge.to_owned() });
        let presented = self.presented(call);
        let Some((first, others)) = presented.split_first() else { return Err(refuse(&self.missing)) };
        // Two that differ: whoever reads the other one downstream would see another caller.
        if others.iter().any(|other| !bool::from(first.ct_eq(other))) {
            return Err(refuse(&self.invalid));
        }
        let Some(key) = self.keys.find(first) else { return Err(refuse(&self.invalid)) };
        let consumer = key.consumer.clone();
        drop(presented);
        call.consumer = Some(consumer);
        if !self.forward {
            self.strip(call);
        }
        Ok(())
    }
}

impl Spec for AuthenticateSpec {
    const EXPECTED: &'static str = "`none`, or how callers prove who they are, such as `api-key: {}`";
}

/// What follows `Bearer` in a value of `Authorization` (RFC 6750, 2.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked("Bearer".len())?;
    if !scheme.eq_ignore_ascii_case(b"Bearer") || !rest.starts_with(b" ") {
        return None;
    }
    Some(rest.trim_ascii())
}

const NOT_FOR_KEYS: [&str; 10] = [
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "cookie",
    "content-type",
    "accept",
];

// === impl Keys ===

impl Keys {
    /// Of two keys with the same hash the first counts.
    pub fn new(keys: Vec<Key>) -> Keys {
        let mut by_prefix: HashMap<_, Vec<Key>, _> = HashMap::default();
        for key in keys {
            by_prefix.entry(prefix(&key.hash)).or_default().push(key);
        }
        Keys { by_prefix }
    }

    /// The key whose text is `presented`.
    pub fn find(&self, presented: &[u8]) -> Option<&Key> {
        let hash = Keys::hash(presented);
        self.by_prefix.get(&prefix(&hash))?.iter().find(|key| bool::from(key.hash.ct_eq(&hash)))
    }

    /// What the document keeps of a key.
    pub fn hash(key: &[u8]) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, key).as_ref());
        hash
    }
}

fn prefix(hash: &[u8; 32]) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = *hash;
    [a, b, c, d, e, f, g, h]
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).field("consumer", &self.consumer.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Nowhere;
    use crate::testing::{KEY, call, errors, keys, ready};

    fn policy(json: &str) -> Authenticate {
        let mut env = CompileEnv::new(keys(), "policies");
        Authenticate::compile(&serde_json::from_str(json).unwrap(), &mut env).unwrap()
    }

    /// Who it is and what is left of the call, or the challenge.
    fn check(json: &str, target: &str, headers: &[(&str, &str)], expected: Result<&str, &str>) {
        let mut call = call(headers);
        call.head.target = target.into();
        let seen = match ready(policy(json).request(&mut call, &Nowhere)) {
            Ok(()) => {
                assert_eq!(call.consumer.as_ref().map(|it| &*it.name), Some("agent"));
                let names: Vec<&str> = call.head.headers.iter().map(|(name, _)| name).collect();
                Ok(format!("{} {}", call.head.target, names.join(",")))
            }
            Err(Stop::Refuse(Refusal::Unauthenticated { challenge })) => {
                assert_eq!(call.consumer, None);
                Err(challenge)
            }
            Err(stop) => panic!("{stop:?}"),
        };
        let seen = seen.as_ref().map(|it| it.trim_end()).map_err(|it| it.as_str());
        assert_eq!(seen, expected, "{json} {target} {headers:?}");
    }

    const MISSING: Result<&str, &str> = Err(r#"Bearer realm="api""#);
    const INVALID: Result<&str, &str> = Err(r#"Bearer realm="api", error="invalid_token""#);

    #[test]
    fn keys_are_found_where_they_may_be_and_taken_out() {
        let bearer = format!("bEaReR  {KEY}");
        let any = r#"{"api-key":{}}"#;
        check(any, "/", &[], MISSING);
        check(any, "/", &[("x-api-key", KEY), ("x-b", "")], Ok("/ x-b"));
        check(any, "/", &[("authorization", &bearer)], Ok("/"));
        check(any, "/", &[("authorization", &bearer), ("X-Api-Key", KEY)], Ok("/"));
        check(any, "/", &[("authorization", "Basic eDp5"), ("x-api-key", KEY)], Ok("/ authorization"));
        check(any, "/", &[("authorization", "Basic eDp5")], MISSING);
        check(any, "/", &[("authorization", "Bearer")], MISSING);
        check(any, "/", &[("authorization", "Bearer ")], INVALID);
        check(any, "/", &[("x-api-key", "wrong")], INVALID);
        check(any, "/", &[("x-api-key", "")], INVALID);
        check(any, "/", &[("x-api-key", KEY), ("x-api-key", "other")], INVALID);
        check(any, "/", &[("x-api-key", KEY), ("authorization", "Bearer other")], INVALID);
        check(any, "/?key=secret-key-1", &[], MISSING);

        let forward = r#"{"api-key":{"forward":true}}"#;
        check(forward, "/", &[("x-api-key", KEY)], Ok("/ x-api-key"));

        let only = r#"{"api-key":{"header":"X-Key"},"realm":"a \"b\""}"#;
        check(only, "/", &[("x-key", KEY), ("x-api-key", "theirs")], Ok("/ x-api-key"));
        check(only, "/", &[("x-api-key", KEY)], Err(r#"ApiKey realm="a \"b\"""#));
        check(r#"{"api-key":{"header":"Authorization"}}"#, "/", &[("x-api-key", KEY)], MISSING);
    }

    #[test]
    fn keys_in_the_query_are_found_however_they_are_written() {
        let query = r#"{"api-key":{"query":"key"}}"#;
        check(query, "/a?key=secret-key-1", &[], Ok("/a"));
        check(query, "/a?x=1&key=secret%2Dkey-1&y=%zz", &[], Ok("/a?x=1&y=%zz"));
        check(query, "/a?%6bey=secret-key-1&keys=1", &[], Ok("/a?keys=1"));
        check(query, "/a?key=secret-key-1&key=secret-key-2", &[], INVALID);
        check(query, "/a?key", &[], INVALID);
        check(query, "/a?b", &[("x-api-key", KEY)], Ok("/a?b"));
        check(query, "*", &[], MISSING);
    }

    #[test]
    fn wrong_settings_are_told() {
        let check = |json: &str, path: &str| assert_eq!(errors(json), [path], "{json}");
        check(r#"{"authenticate":{}}"#, "authenticate");
        check(r#"{"authenticate":{"api-key":{"header":"a b"}}}"#, "authenticate.api-key.header");
        check(r#"{"authenticate":{"api-key":{"header":"Host"}}}"#, "authenticate.api-key.header");
        check(r#"{"authenticate":{"api-key":{"query":""}}}"#, "authenticate.api-key.query");
        check(r#"{"authenticate":{"api-key":{},"realm":"ä"}}"#, "authenticate.realm");
    }

    #[test]
    fn a_key_does_not_print_its_hash() {
        let printed = format!("{:?}", keys().find(KEY.as_bytes()));
        assert_eq!(printed, r#"Some(Key { id: "k1", consumer: "agent", .. })"#);
    }
}
