//! Keys that callers present, of which only hashes are known here.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest;
use base::{Call, Consumer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use subtle::ConstantTimeEq;

use super::{Rejected, bearer, check_header};
use crate::CompileEnv;
use crate::decode::decoded;

/// Where a caller puts its key.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ApiKeySpec {
    /// The only request field that may carry the key. If it is not given: `Authorization: Bearer`,
    /// `x-api-key`, and what the SDKs of Azure and Google send, `api-key` and `x-goog-api-key`. In `authorization` the key follows the word `Bearer`, in any other field it stands alone.
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

/// Where keys are looked for.
#[derive(Debug)]
pub struct ApiKeys {
    pub bearer: bool,
    /// In lower case.
    headers: SmallVec<[Cow<'static, str>; 3]>,
    query: Option<String>,
    pub forward: bool,
}

/// One key of a consumer.
#[derive(Clone)]
pub struct Key {
    /// What people call it; not secret.
    pub id: Arc<str>,
    /// SHA-256 of the key.
    pub hash: [u8; 32],
    pub consumer: Arc<Consumer>,
    /// When it begins to be valid, and when it ceases to.
    pub from: Option<SystemTime>,
    pub until: Option<SystemTime>,
}

/// The keys of all consumers.
#[derive(Debug, Default)]
pub struct Keys {
    /// By the first bytes of the hash; the rest is compared in constant time.
    by_prefix: HashMap<[u8; 8], Vec<Key>, foldhash::quality::RandomState>,
}

// === impl ApiKeys ===

impl ApiKeys {
    pub fn compile(spec: &ApiKeySpec, env: &mut CompileEnv<'_>) -> ApiKeys {
        let ApiKeySpec { header, query, forward } = spec;
        let header = header.as_ref().map(|name| name.to_ascii_lowercase());
        if let Some(name) = &header {
            check_header("authenticate.api-key.header", name, "x-api-key", env);
        }
        if query.as_ref().is_some_and(String::is_empty) {
            env.error("authenticate.api-key.query", "expected the name of a query parameter, such as `key`");
        }
        let bearer = header.as_deref().is_none_or(|name| name == "authorization");
        let headers = match header {
            Some(name) if name == "authorization" => SmallVec::new(),
            Some(name) => SmallVec::from_iter([Cow::Owned(name)]),
            None => ["x-api-key", "api-key", "x-goog-api-key"].map(Cow::Borrowed).into(),
        };
        ApiKeys { bearer, headers, query: query.clone(), forward: *forward }
    }

    /// Whose key the call presents; `ours` says which bearer credentials are keys.
    pub fn find<'k>(
        &self,
        call: &Call,
        keys: &'k Keys,
        ours: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<&'k Key>, Rejected> {
        let presented = self.presented(call, ours);
        let Some((first, others)) = presented.split_first() else { return Ok(None) };
        // Two that differ: whoever reads the other one downstream would see another caller.
        if others.iter().any(|other| !bool::from(first.ct_eq(other))) {
            return Err(Rejected::Ambiguous);
        }
        keys.find(first, call.wall).map(Some).ok_or(Rejected::UnknownKey)
    }

    /// Every key that the call presents where one is looked for.
    fn presented<'a>(&self, call: &'a Call, ours: impl Fn(&[u8]) -> bool) -> SmallVec<[Cow<'a, [u8]>; 2]> {
        let mut presented = SmallVec::new();
        if self.bearer {
            let all = call.head.headers.get_all("authorization").filter_map(bearer);
            presented.extend(all.filter(|it| ours(it)).map(Cow::Borrowed));
        }
        for name in &self.headers {
            // Most are not there at all.
            if call.head.headers.contains(name) {
                let named = call.head.headers.iter_bytes().filter(|(it, _)| *it == name.as_bytes());
                presented.extend(named.map(|(_, value)| value.into()));
            }
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

    /// Takes out of the call what [`ApiKeys::find`] looked at.
    pub fn strip(&self, call: &mut Call, ours: impl Fn(&[u8]) -> bool) {
        let head = &mut call.head;
        if self.bearer && head.headers.contains("authorization") {
            head.headers.retain(|name, value| name != "authorization" || !bearer(value).is_some_and(&ours));
        }
        for name in &self.headers {
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

    /// The key whose text is `presented`, if it is valid now.
    pub fn find(&self, presented: &[u8], now: SystemTime) -> Option<&Key> {
        let hash = Keys::hash(presented);
        let found = self.by_prefix.get(&prefix(&hash))?.iter().find(|key| bool::from(key.hash.ct_eq(&hash)));
        found.filter(|key| key.is_valid(now))
    }

    /// The names of all of them, in no order.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.by_prefix.values().flatten().map(|key| &*key.id)
    }

    /// What the document keeps of a key.
    pub fn hash(key: &[u8]) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, key).as_ref());
        hash
    }
}

impl Key {
    fn is_valid(&self, now: SystemTime) -> bool {
        self.from.is_none_or(|from| from <= now) && self.until.is_none_or(|until| now < until)
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
    use std::time::Duration;

    use super::*;
    use crate::testing::{KEY, consumer, keys};

    #[test]
    fn a_key_does_not_print_its_hash() {
        let printed = format!("{:?}", keys().keys.find(KEY.as_bytes(), SystemTime::UNIX_EPOCH));
        assert_eq!(printed, r#"Some(Key { id: "k1", consumer: "agent", .. })"#);
    }

    #[test]
    fn a_key_is_valid_between_its_days() {
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let key = |from: Option<u64>, until: Option<u64>| {
            let hash = Keys::hash(b"x");
            Keys::new(vec![Key {
                id: "x".into(),
                hash,
                consumer: consumer("a"),
                from: from.map(at),
                until: until.map(at),
            }])
        };
        for (from, until, now, valid) in [
            (None, None, 0, true),
            (Some(10), None, 9, false),
            (Some(10), Some(20), 10, true),
            (Some(10), Some(20), 19, true),
            (None, Some(20), 20, false),
        ] {
            assert_eq!(key(from, until).find(b"x", at(now)).is_some(), valid, "{from:?} {until:?} {now}");
        }
    }
}
