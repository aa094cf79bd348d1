//! Signed tokens (RFC 7515, 7518, 8037) and the keys that verify them; after RFC 8725, a key decides which algorithms
//! it may be used with, never the token.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{self as sig, ParsedPublicKey, VerificationAlgorithm};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a token is signed. `none` is not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    ES512,
    EdDSA,
    HS256,
    HS384,
    HS512,
}

/// A token taken apart, of which nothing is believed yet.
pub struct Parts<'a> {
    pub header: Header,
    pub payload: Vec<u8>,
    signed: &'a [u8],
    signature: Vec<u8>,
}

/// What of a header counts. Keys that it brings along, or says where to find, do not.
#[derive(Deserialize)]
pub struct Header {
    pub alg: String,
    pub kid: Option<String>,
    pub typ: Option<String>,
    /// Extensions that must be understood; none is.
    #[serde(default, deserialize_with = "present")]
    crit: bool,
}

/// The keys of one issuer.
#[derive(Debug, Default)]
pub struct KeySet(Vec<JwsKey>);

#[derive(Debug)]
struct JwsKey {
    id: Option<String>,
    /// The key, made ready for each algorithm it may be used with.
    verifiers: Vec<(Algorithm, Verifier)>,
}

enum Verifier {
    Public(Box<ParsedPublicKey>),
    Secret(Box<hmac::Key>),
}

/// Why a token is not one that a key of the set has signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsigned {
    /// No key of that name.
    UnknownKey,
    /// There are keys, and none fits.
    NoKey,
    Signature,
}

/// One key of a set (RFC 7517). Others than these are passed over, such as secret ones: a set is public.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    r#use: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<serde_json::Value>,
}

/// Keys that one set may have. More would only be searched through.
const MOST_KEYS: usize = 100;
/// Keys of one name that are tried.
const MOST_OF_A_NAME: usize = 4;

// === impl Parts ===

impl<'a> Parts<'a> {
    pub fn of(token: &'a [u8]) -> Option<Parts<'a>> {
        let mut dots = token.iter().enumerate().filter(|(_, byte)| **byte == b'.').map(|(at, _)| at);
        let (first, second) = (dots.next()?, dots.next()?);
        if dots.next().is_some() {
            return None;
        }
        let decode = |part: &[u8]| URL_SAFE_NO_PAD.decode(part).ok();
        let header: Header = serde_json::from_slice(&decode(&token[..first])?).ok()?;
        if header.crit {
            return None;
        }
        Some(Parts {
            header,
            payload: decode(&token[first + 1..second])?,
            signed: &token[..second],
            signature: decode(&token[second + 1..])?,
        })
    }
}

/// Whether it has the form of a token, and so cannot be meant as anything else.
pub fn looks_like_one(text: &[u8]) -> bool {
    // What a JSON object begins with, in base64.
    text.starts_with(b"ey") && text.iter().filter(|byte| **byte == b'.').count() == 2
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer).map(|_| true)
}

// === impl Algorithm ===

impl Algorithm {
    pub const ASYMMETRIC: [Algorithm; 10] = {
        use Algorithm::*;
        [RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA]
    };

    /// By its name in the header of a token.
    pub fn named(name: &str) -> Option<Algorithm> {
        use Algorithm::*;
        let all = [RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA, HS256, HS384, HS512];
        // RFC 9864 calls the one EdDSA there is here by its curve.
        let name = if name == "Ed25519" { "EdDSA" } else { name };
        all.into_iter().find(|it| it.name() == name)
    }

    pub fn name(self) -> &'static str {
        use Algorithm::*;
        match self {
            RS256 => "RS256",
            RS384 => "RS384",
            RS512 => "RS512",
            PS256 => "PS256",
            PS384 => "PS384",
            PS512 => "PS512",
            ES256 => "ES256",
            ES384 => "ES384",
            ES512 => "ES512",
            EdDSA => "EdDSA",
            HS256 => "HS256",
            HS384 => "HS384",
            HS512 => "HS512",
        }
    }

    pub fn is_symmetric(self) -> bool {
        self.secret().is_some()
    }

    /// For those with a secret: how they sign, and how long the secret must be (RFC 7518, 3.2).
    pub fn secret(self) -> Option<(hmac::Algorithm, usize)> {
        match self {
            Algorithm::HS256 => Some((hmac::HMAC_SHA256, 32)),
            Algorithm::HS384 => Some((hmac::HMAC_SHA384, 48)),
            Algorithm::HS512 => Some((hmac::HMAC_SHA512, 64)),
            _ => None,
        }
    }

    fn public(self) -> Option<&'static dyn VerificationAlgorithm> {
        use Algorithm::*;
        Some(match self {
            RS256 => &sig::RSA_PKCS1_2048_8192_SHA256,
            RS384 => &sig::RSA_PKCS1_2048_8192_SHA384,
            RS512 => &sig::RSA_PKCS1_2048_8192_SHA512,
            PS256 => &sig::RSA_PSS_2048_8192_SHA256,
            PS384 => &sig::RSA_PSS_2048_8192_SHA384,
            PS512 => &sig::RSA_PSS_2048_8192_SHA512,
            ES256 => &sig::ECDSA_P256_SHA256_FIXED,
            ES384 => &sig::ECDSA_P384_SHA384_FIXED,
            ES512 => &sig::ECDSA_P521_SHA512_FIXED,
            EdDSA => &sig::ED25519,
            HS256 | HS384 | HS512 => return None,
        })
    }
}

// === impl KeySet ===

impl KeySet {
    /// The keys of a JWK set that can be used with one of the algorithms.
    pub fn parse(json: &[u8], algorithms: &[Algorithm]) -> Result<KeySet, String> {
        let set: JwkSet =
            serde_json::from_slice(json).map_err(|_| "not a JWK set; expected JSON such as `{\"keys\": […]}`")?;
        let keys = set.keys.into_iter().take(MOST_KEYS).filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
        let keys: Vec<JwsKey> = keys.filter_map(|key| key.ready(algorithms)).collect();
        if keys.is_empty() {
            return Err("no key in it can be used with the algorithms that are allowed".into());
        }
        Ok(KeySet(keys))
    }

    pub fn secret(secret: &[u8], algorithms: &[Algorithm]) -> KeySet {
        let verifiers = algorithms.iter().filter_map(|algorithm| {
            let (hash, _) = algorithm.secret()?;
            Some((*algorithm, Verifier::Secret(Box::new(hmac::Key::new(hash, secret)))))
        });
        KeySet(vec![JwsKey { id: None, verifiers: verifiers.collect() }])
    }

    /// Whether a key of the set has signed it. `algorithm` is the one the token names, and is allowed.
    pub fn verify(&self, parts: &Parts<'_>, algorithm: Algorithm) -> Result<(), Unsigned> {
        let fitting = |key: &&JwsKey| key.verifier(algorithm).is_some();
        let kid = parts.header.kid.as_ref();
        let named = |key: &&JwsKey| kid.is_some() && key.id.as_ref() == kid;
        let signed = if self.0.iter().any(|key| named(&key)) {
            // One name for several should not be, and is where keys change over carelessly.
            let mut keys = self.0.iter().filter(named).filter(fitting).take(MOST_OF_A_NAME).peekable();
            keys.peek().ok_or(Unsigned::NoKey)?;
            keys.any(|key| key.has_signed(parts, algorithm))
        } else {
            // Which key it was is not said by the token, or not by the set: there must be no choice.
            let mut keys = self.0.iter().filter(|key| key.id.is_none() || kid.is_none()).filter(fitting);
            match (keys.next(), keys.next()) {
                (Some(only), None) => only.has_signed(parts, algorithm),
                _ if kid.is_some() => return Err(Unsigned::UnknownKey),
                _ => return Err(Unsigned::NoKey),
            }
        };
        if signed { Ok(()) } else { Err(Unsigned::Signature) }
    }
}

impl JwsKey {
    fn has_signed(&self, parts: &Parts<'_>, algorithm: Algorithm) -> bool {
        match self.verifier(algorithm) {
            Some(Verifier::Public(key)) => key.verify_sig(parts.signed, &parts.signature).is_ok(),
            Some(Verifier::Secret(key)) => hmac::verify(key, parts.signed, &parts.signature).is_ok(),
            None => false,
        }
    }

    fn verifier(&self, algorithm: Algorithm) -> Option<&Verifier> {
        self.verifiers.iter().find(|(it, _)| *it == algorithm).map(|(_, verifier)| verifier)
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Verifier::Public(_) => "Public",
            Verifier::Secret(_) => "Secret",
        })
    }
}

// === impl Jwk ===

impl Jwk {
    /// `None` for keys that are not for signatures, or of a kind that is not known.
    fn ready(self, algorithms: &[Algorithm]) -> Option<JwsKey> {
        use Algorithm::*;
        if self.r#use.as_deref().is_some_and(|it| it != "sig")
            || self.key_ops.as_ref().is_some_and(|it| !it.iter().any(|it| it == "verify"))
        {
            return None;
        }
        let (able, key): (&[Algorithm], Vec<u8>) = match (&*self.kty, self.crv.as_deref()) {
            ("RSA", _) => (&[RS256, RS384, RS512, PS256, PS384, PS512], rsa(&part(&self.n)?, &part(&self.e)?)?),
            ("EC", Some("P-256")) => (&[ES256], self.point(32)?),
            ("EC", Some("P-384")) => (&[ES384], self.point(48)?),
            ("EC", Some("P-521")) => (&[ES512], self.point(66)?),
            ("OKP", Some("Ed25519")) => (&[EdDSA], part(&self.x)?),
            _ => return None,
        };
        let only = self.alg.as_deref().map(Algorithm::named);
        let usable = able.iter().filter(|it| algorithms.contains(it) && only.is_none_or(|only| only == Some(**it)));
        let verifiers: Vec<_> = usable
            .filter_map(|it| {
                let parsed = ParsedPublicKey::new(it.public()?, &key).ok()?;
                Some((*it, Verifier::Public(Box::new(parsed))))
            })
            .collect();
        (!verifiers.is_empty()).then_some(JwsKey { id: self.kid, verifiers })
    }

    /// An uncompressed point (SEC 1, 2.3.3).
    fn point(&self, length: usize) -> Option<Vec<u8>> {
        let (x, y) = (part(&self.x)?, part(&self.y)?);
        (x.len() == length && y.len() == length).then(|| [&[4], &*x, &*y].concat())
    }
}

fn part(text: &Option<String>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.as_ref()?).ok()
}

/// An RSAPublicKey in DER (RFC 8017, A.1.1). `None` of one that is too short to be safe (RFC 7518, 3.3), or so long that
/// it would keep us busy: no signature of it is taken, so it must not stand in the way of another.
fn rsa(n: &[u8], e: &[u8]) -> Option<Vec<u8>> {
    fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = content.len();
        let mut der = vec![tag];
        match length {
            0..=0x7f => der.push(length as u8),
            0x80..=0xff => der.extend([0x81, length as u8]),
            _ => der.extend([0x82, (length >> 8) as u8, length as u8]),
        }
        der.extend_from_slice(content);
        der
    }
    let integer = |bytes: &[u8]| {
        let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
        let mut content = bytes[start..].to_vec();
        if content.first().is_none_or(|byte| byte & 0x80 != 0) {
            content.insert(0, 0);
        }
        tagged(2, &content)
    };
    let zeros = n.iter().take_while(|byte| **byte == 0).count();
    let bits = n.get(zeros).map_or(0, |first| (n.len() - zeros) * 8 - first.leading_zeros() as usize);
    (2048..=8192).contains(&bits).then(|| tagged(0x30, &[integer(n), integer(e)].concat()))
}
