//! Tokens that an issuer has signed (RFC 7519), verified after RFC 8725.

mod discovery;
mod jwks;
mod jws;
mod seen;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use base::{Call, Claims, Consumer, SecretRef, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Credentials, Rejected, bearer, check_header};
use crate::{CompileEnv, Outside};
use jwks::{NoKeys, Place, Remote};
pub use jws::Algorithm;
use jws::{KeySet, Parts, Unsigned, looks_like_one};
use seen::{Seen, TokenHash, Verified};

/// An issuer whose tokens are taken, and which of them.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct JwtSpec {
    /// The claim `iss`, letter by letter.
    pub issuer: String,
    /// One of these must be among the token's `aud`.
    pub audience: Vec<String>,
    /// Where the issuer's public keys are, as a JWK set: `https://…` or `file:…`. Over `http://` whoever is on the way
    /// can put in keys of their own. Fetched keys are kept as long as `Cache-Control` says, between a minute and an
    /// hour, and renewed before that; a key that is not known is looked for at most once in five seconds. Without this
    /// and without `secret` the issuer is asked where they are, each time they are fetched: it must be a URL, and
    /// `ISSUER/.well-known/openid-configuration` (OpenID Connect Discovery), or if there is none
    /// `/.well-known/oauth-authorization-server` with the issuer's path behind it (RFC 8414), must name the same issuer
    /// and the keys, as `jwks_uri`, at `https://…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<String>,
    /// Whom to trust when something is fetched over `https://`: authorities in PEM, the system's unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorities: Option<SecretRef>,
    /// Instead of `jwks`: what the issuer and Weir share, for `HS256` and its like. At least 32 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretRef>,
    /// Algorithms that are taken. If they are not given: all with public keys, or with a secret `HS256`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub algorithms: Vec<Algorithm>,
    /// What the token's `typ` must say, such as `at+jwt` (RFC 9068). If it is not given: `JWT`, `at+jwt` or nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
    /// By how much clocks may differ. Default: `30s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leeway: Option<Span>,
    /// The only request field that may carry the token. Default: `authorization`, where it follows the word `Bearer`;
    /// in any other field it stands alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// The claim that says who calls, by the name of one of the `consumers`. Default: `sub`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer_claim: Option<String>,
    /// What is put before the claim to make the consumer's name. Without it an issuer can speak for any of the
    /// `consumers`; with `partner:` only for those whose names begin so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer_prefix: Option<String>,
    /// What becomes of tokens that name none of the `consumers`. Default: `refuse`.
    #[serde(default)]
    pub unknown: Unknown,
    /// The claim that says which team a caller belongs to that is none of the `consumers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team_claim: Option<String>,
    /// How long fetched keys are used that cannot be renewed. Default: `24h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale: Option<Span>,
    /// Whether the upstream gets to see the token. By default it is taken out of the request.
    #[serde(default)]
    pub forward: bool,
}

/// What becomes of tokens that name none of the `consumers`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Unknown {
    /// They are refused.
    #[default]
    Refuse,
    /// The caller is a consumer of the name that the token says, for this call. One without a name is refused.
    Allow,
}

/// The issuers of a policy.
#[derive(Debug)]
pub struct Tokens {
    issuers: Vec<Issuer>,
    credentials: Arc<Credentials>,
    seen: Seen,
}

#[derive(Debug)]
struct Issuer {
    name: String,
    audience: Vec<String>,
    keys: Keys,
    algorithms: Vec<Algorithm>,
    /// In lower case, without `application/`.
    typ: Option<String>,
    leeway: u64,
    /// In lower case.
    header: String,
    consumer_claim: String,
    consumer_prefix: String,
    team_claim: Option<String>,
    unknown: Unknown,
    forward: bool,
}

#[derive(Debug)]
enum Keys {
    Given(Arc<KeySet>),
    Fetched(Arc<Remote>),
}

/// Longer tokens are not looked at.
const LONGEST: usize = 16 * 1024;
/// Longer names are nobody's.
const LONGEST_NAME: usize = 256;

// === impl Tokens ===

impl Tokens {
    pub fn compile(
        specs: &[JwtSpec],
        credentials: Arc<Credentials>,
        previous: Option<&Tokens>,
        env: &mut CompileEnv<'_>,
    ) -> Option<Tokens> {
        let mut issuers: Vec<Issuer> = Vec::new();
        for (at, spec) in specs.iter().enumerate() {
            let at = format!("authenticate.jwt[{at}]");
            let Some(issuer) = spec.compile(&at, previous, env) else { continue };
            if issuers.iter().any(|it| it.name == issuer.name) {
                env.error(format!("{at}.issuer"), format!("`{}` is the issuer of an earlier one", issuer.name));
                continue;
            }
            let same = |it: &&Issuer| it.unknown == Unknown::Allow && it.consumer_prefix == issuer.consumer_prefix;
            if issuer.unknown == Unknown::Allow
                && let Some(other) = issuers.iter().find(same)
            {
                let message = format!(
                    "`{}` could give others the same names; expected another `consumer-prefix` for each",
                    other.name
                );
                env.error(format!("{at}.unknown"), message);
                continue;
            }
            issuers.push(issuer);
        }
        (!issuers.is_empty()).then(|| Tokens { issuers, credentials, seen: Seen::default() })
    }

    /// Whether a token may follow the word `Bearer`.
    pub fn bearer(&self) -> bool {
        self.issuers.iter().any(Issuer::is_bearer)
    }

    /// Whether this cannot but be meant as a token.
    pub fn claims_it(&self, credential: &[u8]) -> bool {
        self.bearer() && looks_like_one(credential)
    }

    /// What the call's token says. `sole` if nothing else than a token can follow the word `Bearer`.
    pub async fn find(
        &self,
        call: &Call,
        sole: bool,
        outside: &dyn Outside,
    ) -> Result<Option<Arc<Verified>>, Rejected> {
        let Some((field, token)) = self.presented(call, sole)? else { return Ok(None) };
        let hash = TokenHash::of(token);
        let wall = call.wall.duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs());
        if let Some(known) = self.seen.get(hash)
            && let Some(issuer) = self.issuers.get(known.issuer)
            && issuer.header == field
            && issuer.keys.generation(call, outside) == Some(known.generation)
        {
            known.check_time(wall)?;
            return Ok(Some(known));
        }
        // Apart, so that the future of all the others stays small.
        let verified = Arc::new(Box::pin(self.verify(call, field, token, hash, wall, outside)).await?);
        self.seen.put(verified.clone());
        Ok(Some(verified))
    }

    /// The one token that the call carries, and where.
    fn presented<'a>(&self, call: &'a Call, sole: bool) -> Result<Option<(&str, &'a [u8])>, Rejected> {
        let mut found: Option<(&str, &'a [u8])> = None;
        for (at, issuer) in self.issuers.iter().enumerate() {
            let field = &*issuer.header;
            if self.issuers[..at].iter().any(|it| it.header == field) {
                continue;
            }
            for (_, value) in call.head.headers.iter().filter(|(name, _)| *name == field) {
                let token = match issuer.is_bearer() {
                    true => bearer(value).filter(|it| sole || looks_like_one(it)),
                    false => Some(value),
                };
                match (token, found) {
                    (None, _) => {}
                    (Some(token), None) => found = Some((field, token)),
                    // Whoever reads the other one downstream would see another caller.
                    (Some(token), Some((_, first))) if first != token => return Err(Rejected::Ambiguous),
                    (Some(_), Some(_)) => {}
                }
            }
        }
        Ok(found)
    }

    async fn verify(
        &self,
        call: &Call,
        field: &str,
        token: &[u8],
        hash: TokenHash,
        wall: u64,
        outside: &dyn Outside,
    ) -> Result<Verified, Rejected> {
        if token.len() > LONGEST {
            return Err(Rejected::Unverified);
        }
        let parts = Parts::of(token).ok_or(Rejected::Unverified)?;
        let claims: Claims = serde_json::from_slice(&parts.payload).map_err(|_| Rejected::Unverified)?;
        let name = claims.get("iss").and_then(Value::as_str).ok_or(Rejected::Issuer)?;
        let found = self.issuers.iter().enumerate().find(|(_, it)| it.name == name && it.header == field);
        let (at, issuer) = found.ok_or(Rejected::Issuer)?;
        let algorithm = issuer.check_header(&parts).ok_or(Rejected::Unverified)?;
        let (keys, generation) = issuer.keys.all(call, outside).await?;
        keys.verify(&parts, algorithm).map_err(|why| {
            if why == Unsigned::UnknownKey {
                issuer.keys.look_again(call, outside);
            }
            Rejected::Unverified
        })?;
        // From here on it is the issuer who speaks.
        let (from, until) = issuer.check_claims(&claims, wall)?;
        let consumer = issuer.consumer(&claims, &self.credentials.consumers)?;
        let verified = Verified { hash, issuer: at, generation, from, until, claims: Arc::new(claims), consumer };
        verified.check_time(wall)?;
        Ok(verified)
    }

    /// Takes the token out of the call, unless its issuer's may go on.
    pub fn strip(&self, call: &mut Call, verified: &Verified, sole: bool) {
        let Some(issuer) = self.issuers.get(verified.issuer).filter(|it| !it.forward) else { return };
        let is_token = |value: &[u8]| match issuer.is_bearer() {
            true => bearer(value).is_some_and(|it| sole || looks_like_one(it)),
            false => true,
        };
        call.head.headers.retain(|name, value| name != issuer.header || !is_token(value));
    }

    fn remotes(&self) -> impl Iterator<Item = &Arc<Remote>> {
        self.issuers.iter().filter_map(|it| match &it.keys {
            Keys::Fetched(remote) => Some(remote),
            Keys::Given(_) => None,
        })
    }
}

impl Verified {
    fn check_time(&self, wall: u64) -> Result<(), Rejected> {
        if wall >= self.until {
            return Err(Rejected::Expired);
        }
        if wall < self.from { Err(Rejected::NotYet) } else { Ok(()) }
    }
}

// === impl Issuer ===

impl Issuer {
    fn is_bearer(&self) -> bool {
        self.header == "authorization"
    }

    /// The algorithm that the token names, if that may be.
    fn check_header(&self, parts: &Parts<'_>) -> Option<Algorithm> {
        let typ = parts.header.typ.as_ref().map(|it| media_type(it));
        let right = match (&self.typ, typ.as_deref()) {
            (Some(wanted), found) => found == Some(wanted),
            (None, found) => matches!(found, None | Some("jwt" | "at+jwt")),
        };
        if !right {
            return None;
        }
        Algorithm::named(&parts.header.alg).filter(|it| self.algorithms.contains(it))
    }

    /// For whom the token is, and from when until when.
    fn check_claims(&self, claims: &Claims, wall: u64) -> Result<(u64, u64), Rejected> {
        let meant = |it: &Value| it.as_str().is_some_and(|it| self.audience.iter().any(|ours| ours == it));
        let meant = match claims.get("aud") {
            Some(Value::Array(all)) => all.iter().any(meant),
            Some(one) => meant(one),
            None => false,
        };
        if !meant {
            return Err(Rejected::Audience);
        }
        let moment = |name: &str| match claims.get(name) {
            None => Ok(None),
            Some(it) => seconds(it).map(Some).ok_or(Rejected::Unverified),
        };
        let until = moment("exp")?.ok_or(Rejected::Unverified)?;
        let (from, issued) = (moment("nbf")?, moment("iat")?);
        // A token from the future is a broken clock or a trick.
        if issued.is_some_and(|it| it > wall.saturating_add(self.leeway)) {
            return Err(Rejected::NotYet);
        }
        Ok((from.unwrap_or(0).saturating_sub(self.leeway), until.saturating_add(self.leeway)))
    }

    /// Whom it speaks for. There always is one: what is kept or counted for each consumer must not be mixed up.
    fn consumer(
        &self,
        claims: &Claims,
        consumers: &HashMap<Arc<str>, Arc<Consumer>>,
    ) -> Result<Arc<Consumer>, Rejected> {
        let text = |claim: &str| {
            let text = claims.get(claim).and_then(Value::as_str);
            text.filter(|it| !it.is_empty() && it.len() <= LONGEST_NAME && !it.contains(char::is_control))
        };
        let name = text(&self.consumer_claim).ok_or(Rejected::Subject)?;
        let name = format!("{}{name}", self.consumer_prefix);
        if let Some(known) = consumers.get(&*name) {
            return Ok(known.clone());
        }
        if self.unknown == Unknown::Refuse {
            return Err(Rejected::Subject);
        }
        let team = self.team_claim.as_deref().and_then(text).map(Into::into);
        Ok(Arc::new(Consumer { index: Consumer::STRANGER, name: name.into(), team }))
    }
}

/// A NumericDate (RFC 7519, 2); fractions are cut off.
fn seconds(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_f64().filter(|it| (0.0..1e15).contains(it)).map(|it| it as u64))
}

/// As it is compared (RFC 7515, 4.1.9).
fn media_type(typ: &str) -> String {
    let typ = typ.to_ascii_lowercase();
    typ.strip_prefix("application/").map(str::to_owned).unwrap_or(typ)
}

// === impl Keys ===

impl Keys {
    async fn all(&self, call: &Call, outside: &dyn Outside) -> Result<(Arc<KeySet>, u64), NoKeys> {
        match self {
            Keys::Given(keys) => Ok((keys.clone(), 0)),
            Keys::Fetched(remote) => remote.keys(call.now, outside).await.map(|it| (it.keys.clone(), it.generation)),
        }
    }

    /// Of the keys that are here, if there are any.
    fn generation(&self, call: &Call, outside: &dyn Outside) -> Option<u64> {
        match self {
            Keys::Given(_) => Some(0),
            Keys::Fetched(remote) => remote.at_hand(call.now, outside, |it| it.generation),
        }
    }

    fn look_again(&self, call: &Call, outside: &dyn Outside) {
        if let Keys::Fetched(remote) = self {
            remote.fetch(call.now, outside);
        }
    }
}

impl From<NoKeys> for Rejected {
    fn from(NoKeys { retry_after }: NoKeys) -> Rejected {
        Rejected::NoKeys(retry_after)
    }
}

// === impl JwtSpec ===

impl JwtSpec {
    fn compile(&self, at: &str, previous: Option<&Tokens>, env: &mut CompileEnv<'_>) -> Option<Issuer> {
        let JwtSpec {
            issuer,
            audience,
            jwks,
            authorities,
            secret,
            algorithms,
            r#type,
            leeway,
            header,
            consumer_claim,
            consumer_prefix,
            unknown,
            team_claim,
            stale,
            forward,
        } = self;
        let before = env.errors.len();
        if issuer.is_empty() {
            env.error(format!("{at}.issuer"), "expected what the claim `iss` says");
        }
        if audience.is_empty() || audience.iter().any(String::is_empty) {
            env.error(format!("{at}.audience"), "expected at least one name by which tokens are meant for here");
        }
        if leeway.is_some_and(|it| it.0 > Duration::from_secs(300)) {
            env.error(format!("{at}.leeway"), "longer than clocks differ; expected `5m` or less");
        }
        let header = header.as_deref().unwrap_or("authorization").to_ascii_lowercase();
        check_header(&format!("{at}.header"), &header, "x-token", env);
        if team_claim.is_some() && *unknown == Unknown::Refuse {
            env.error(
                format!("{at}.team-claim"),
                "only callers that are none of the consumers get a team by it; expected `unknown: allow` beside it",
            );
        }
        let asked = jwks.as_ref().or(secret.is_none().then_some(issuer));
        if authorities.is_some() && !asked.is_some_and(|url| url.starts_with("https://")) {
            env.error(format!("{at}.authorities"), "nothing is fetched over TLS; expected `jwks: https://…` beside it");
        }
        let stale = stale.map_or(Duration::from_secs(24 * 3600), |it| it.0);
        let (keys, algorithms) = self.keys(at, jwks.as_deref(), secret.as_ref(), algorithms, stale, previous, env)?;
        if env.errors.len() > before {
            return None;
        }
        Some(Issuer {
            name: issuer.clone(),
            audience: audience.clone(),
            keys,
            algorithms,
            typ: r#type.as_deref().map(media_type),
            leeway: leeway.map_or(30, |it| it.0.as_secs()),
            header,
            consumer_claim: consumer_claim.clone().unwrap_or_else(|| "sub".into()),
            consumer_prefix: consumer_prefix.clone().unwrap_or_default(),
            team_claim: team_claim.clone(),
            unknown: *unknown,
            forward: *forward,
        })
    }

    #[expect(clippy::too_many_arguments, reason = "parts of the same thing, taken apart above")]
    fn keys(
        &self,
        at: &str,
        jwks: Option<&str>,
        secret: Option<&SecretRef>,
        algorithms: &[Algorithm],
        stale: Duration,
        previous: Option<&Tokens>,
        env: &mut CompileEnv<'_>,
    ) -> Option<(Keys, Vec<Algorithm>)> {
        let or = |default: &[Algorithm]| if algorithms.is_empty() { default.to_vec() } else { algorithms.to_vec() };
        let wrong = |symmetric: bool| algorithms.iter().position(|it| it.is_symmetric() != symmetric);
        match (jwks, secret) {
            (_, None) => {
                if jwks.is_none()
                    && let Err(expected) = discovery::check(&self.issuer)
                {
                    env.error(at, expected);
                    return None;
                }
                let algorithms = or(&Algorithm::ASYMMETRIC);
                if let Some(wrong) = wrong(false) {
                    let message = "needs a secret, which a public set of keys has not; expected one such as `RS256`";
                    env.error(format!("{at}.algorithms[{wrong}]"), message);
                }
                let authorities = self.authorities.as_ref().and_then(|reference| match (env.read)(reference) {
                    Ok(pem) => Some(Arc::<[u8]>::from(pem)),
                    Err(message) => {
                        env.error(format!("{at}.authorities"), message);
                        None
                    }
                });
                let place = match jwks {
                    None => Some(Place::SaidBy(self.issuer.clone())),
                    Some(url) if url.starts_with("https://") || url.starts_with("http://") => {
                        Some(Place::At(url.to_owned()))
                    }
                    Some(_) => None,
                };
                if let Some(place) = place {
                    let mut known = previous.into_iter().flat_map(Tokens::remotes);
                    let same = |it: &&Arc<Remote>| {
                        it.place == place
                            && it.authorities == authorities
                            && it.algorithms == algorithms
                            && it.stale == stale
                    };
                    let remote = known.find(same).cloned();
                    let new = || Remote::new(place.clone(), authorities.clone(), algorithms.clone(), stale);
                    let remote = remote.unwrap_or_else(|| Arc::new(new()));
                    return Some((Keys::Fetched(remote), algorithms));
                }
                let read = match jwks.map(str::parse) {
                    Some(Ok(reference @ SecretRef::File(_))) => (env.read)(&reference),
                    _ => Err("expected `https://…` or `file:…`".into()),
                };
                match read.and_then(|json| KeySet::parse(&json, &algorithms)) {
                    Ok(keys) => Some((Keys::Given(Arc::new(keys)), algorithms)),
                    Err(message) => {
                        env.error(format!("{at}.jwks"), message);
                        None
                    }
                }
            }
            (None, Some(secret)) => {
                let algorithms = or(&[Algorithm::HS256]);
                if let Some(wrong) = wrong(true) {
                    let message = "is verified with a public key and not with a secret; expected one such as `HS256`";
                    env.error(format!("{at}.algorithms[{wrong}]"), message);
                }
                let least = algorithms.iter().filter_map(|it| it.secret()).map(|(_, least)| least).max().unwrap_or(32);
                match (env.read)(secret) {
                    Ok(bytes) if bytes.trim_ascii_end().len() >= least => {
                        let keys = KeySet::secret(bytes.trim_ascii_end(), &algorithms);
                        Some((Keys::Given(Arc::new(keys)), algorithms))
                    }
                    Ok(_) => {
                        env.error(format!("{at}.secret"), format!("can be guessed; expected at least {least} bytes"));
                        None
                    }
                    Err(message) => {
                        env.error(format!("{at}.secret"), message);
                        None
                    }
                }
            }
            (Some(_), Some(_)) => {
                env.error(at, "expected one of `jwks` and `secret`, not both");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
