//! Who calls. Callers present keys, signed tokens or certificates; all that a call presents must be valid and name
//! one consumer. A credential is taken out of the call, so that no upstream can use it.

mod api_key;
mod certificate;
mod jwt;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base::{Call, Consumer, Headers};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{CompileEnv, Outside, Policy, Refusal, Spec, Stop};
use api_key::ApiKeys;
pub use api_key::{ApiKeySpec, Key, Keys};
pub use certificate::{CertificateSpec, certificate_name};
use jwt::Tokens;
pub use jwt::{Algorithm, JwtSpec, Unknown};

/// How callers prove who they are. With several ways each will do; whatever a call presents must be valid, and two
/// credentials must name the same consumer.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AuthenticateSpec {
    /// By a key of one of the `consumers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<ApiKeySpec>,
    /// By a signed token (JWT) of one of these issuers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub jwt: Vec<JwtSpec>,
    /// By a certificate of one of the `consumers`, which the listener has verified (`tls.client`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateSpec>,
    /// What the challenge in `WWW-Authenticate` calls the protected space; `api` if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub realm: Option<String>,
}

/// The policy.
#[derive(Debug)]
pub struct Authenticate {
    keys: Option<ApiKeys>,
    tokens: Option<Tokens>,
    /// Whether certificates are looked at.
    certificate: bool,
    credentials: Arc<Credentials>,
    /// Quoted.
    realm: String,
}

/// By what the consumers of a document are known.
#[derive(Debug, Default)]
pub struct Credentials {
    pub keys: Keys,
    /// By their names.
    pub consumers: HashMap<Arc<str>, Arc<Consumer>>,
    /// By what [`certificate_name`] makes of what is written.
    pub certificates: HashMap<String, Arc<Consumer>>,
}

/// Why a credential is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rejected {
    /// Two that differ.
    Ambiguous,
    UnknownKey,
    UnknownCertificate,
    /// Nothing that a known key has signed as it should be.
    Unverified,
    Issuer,
    Audience,
    Expired,
    NotYet,
    /// No consumer, and none is made up.
    Subject,
    /// It cannot be said, for want of the issuer's keys.
    NoKeys(Duration),
}

// === impl Authenticate ===

impl Authenticate {
    async fn identify(&self, call: &mut Call, outside: &dyn Outside) -> Result<bool, Rejected> {
        let mut presented = false;
        let mut who: Option<Arc<Consumer>> = None;
        let mut name = |consumer: &Arc<Consumer>| match &who {
            Some(first) if first.name != consumer.name => Err(Rejected::Ambiguous),
            Some(_) => Ok(()),
            None => {
                who = Some(consumer.clone());
                Ok(())
            }
        };
        if self.certificate
            && let Some(consumer) = certificate::find(call, &self.credentials)?
        {
            presented = true;
            name(consumer)?;
        }
        let sole = self.keys.as_ref().is_none_or(|it| !it.bearer);
        if let Some(keys) = &self.keys {
            let ours = |it: &[u8]| !self.tokens.as_ref().is_some_and(|tokens| tokens.claims_it(it));
            if let Some(key) = keys.find(call, &self.credentials.keys, ours)? {
                presented = true;
                name(&key.consumer)?;
                call.credential = Some(key.id.clone());
                if !keys.forward {
                    keys.strip(call, ours);
                }
            }
        }
        if let Some(tokens) = &self.tokens
            && let Some(verified) = tokens.find(call, sole, outside).await?
        {
            presented = true;
            name(&verified.consumer)?;
            call.claims = Some(verified.claims.clone());
            tokens.strip(call, &verified, sole);
        }
        call.consumer = who;
        Ok(presented)
    }

    /// The value of `WWW-Authenticate`: every way there is, and what was wrong with the one that was tried.
    fn challenge(&self, rejected: Option<Rejected>) -> String {
        let realm = &self.realm;
        let mut challenges = Vec::new();
        let tokens = self.tokens.is_some();
        if tokens || self.keys.as_ref().is_some_and(|it| it.bearer) {
            challenges.push("Bearer");
        }
        if self.keys.as_ref().is_some_and(|it| !it.bearer) {
            challenges.push("ApiKey");
        }
        // Nobody has given certificates a word of their own; a challenge there must be.
        if challenges.is_empty() {
            challenges.push("Certificate");
        }
        let mut text = String::new();
        for (at, scheme) in challenges.into_iter().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            text.push_str(&format!("{comma}{scheme} realm=\"{realm}\""));
            let Some(rejected) = rejected.filter(|_| at == 0) else { continue };
            text.push_str(", error=\"invalid_token\"");
            if let Some(words) = rejected.words() {
                text.push_str(&format!(", error_description=\"{words}\""));
            }
        }
        text
    }
}

impl Policy for Authenticate {
    const NAME: &'static str = "authenticate";
    type Spec = AuthenticateSpec;
    type Memo = ();

    fn compile(spec: &AuthenticateSpec, env: &mut CompileEnv<'_>) -> Option<Authenticate> {
        let AuthenticateSpec { api_key, jwt, certificate, realm } = spec;
        let before = env.errors.len();
        let realm = realm.as_deref().unwrap_or("api");
        if realm.is_empty() || !realm.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            env.error("authenticate.realm", "expected one or more printable ASCII characters");
        }
        if api_key.is_none() && jwt.is_empty() && certificate.is_none() {
            let message =
                "says not how; expected `api-key: {}`, `jwt`, `certificate: {}`, or `none` to let everyone in";
            env.error("authenticate", message);
        }
        let credentials = env.credentials.clone();
        let keys = api_key.as_ref().map(|spec| ApiKeys::compile(spec, env));
        let previous = env.previous.and_then(|it| it.authenticate.as_deref()).and_then(|it| it.tokens.as_ref());
        let tokens = Tokens::compile(jwt, credentials.clone(), previous, env);
        if env.errors.len() > before {
            return None;
        }
        let realm = realm.replace('\\', "\\\\").replace('"', "\\\"");
        Some(Authenticate { keys, tokens, certificate: certificate.is_some(), credentials, realm })
    }

    async fn request(&self, call: &mut Call, outside: &dyn Outside) -> Result<(), Stop> {
        let rejected = match self.identify(call, outside).await {
            Ok(true) => return Ok(()),
            Ok(false) => None,
            // Not the caller's fault.
            Err(Rejected::NoKeys(retry_after)) => return Err(Refusal::KeysUnavailable { retry_after }.into()),
            Err(rejected) => Some(rejected),
        };
        Err(Refusal::Unauthenticated { challenge: self.challenge(rejected) }.into())
    }
}

impl Spec for AuthenticateSpec {
    const EXPECTED: &'static str = "`none`, or how callers prove who they are, such as `api-key: {}`";
}

impl Rejected {
    /// What the caller may know: nothing that helps to guess, and what helps to mend.
    fn words(self) -> Option<&'static str> {
        match self {
            Rejected::UnknownKey | Rejected::NoKeys(_) => None,
            Rejected::Ambiguous => Some("more than one credential"),
            Rejected::UnknownCertificate => Some("the certificate is not known here"),
            Rejected::Unverified => Some("the token cannot be verified"),
            Rejected::Issuer => Some("the token's issuer is not known here"),
            Rejected::Audience => Some("the token is meant for others"),
            Rejected::Expired => Some("the token has expired"),
            Rejected::NotYet => Some("the token is not valid yet"),
            Rejected::Subject => Some("the token's subject is not known here"),
        }
    }
}

/// What follows `Bearer` in a value of `Authorization` (RFC 6750, 2.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked("Bearer".len())?;
    if !scheme.eq_ignore_ascii_case(b"Bearer") || !rest.starts_with(b" ") {
        return None;
    }
    Some(rest.trim_ascii())
}

/// Whether a field may carry a credential. In lower case.
fn check_header(at: &str, name: &str, better: &str, env: &mut CompileEnv<'_>) {
    if !Headers::is_name(name) {
        env.error(at, format!("not a field name; expected one such as `{better}`"));
    } else if NOT_FOR_CREDENTIALS.contains(&name) {
        env.error(at, format!("that field has another meaning; expected one such as `{better}`"));
    }
}

const NOT_FOR_CREDENTIALS: [&str; 10] = [
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

    const TWO: Result<&str, &str> =
        Err(r#"Bearer realm="api", error="invalid_token", error_description="more than one credential""#);

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
        check(any, "/", &[("x-api-key", KEY), ("x-api-key", "other")], TWO);
        check(any, "/", &[("x-api-key", KEY), ("authorization", "Bearer other")], TWO);
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
        check(query, "/a?key=secret-key-1&key=secret-key-2", &[], TWO);
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
}
