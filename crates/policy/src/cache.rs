//! Answers that are given again without asking the upstream, as RFC 9111 lets a shared cache do.
//!
//! The policy is its settings: what is kept and used is decided in the crate `cache`, and done by the path in its stage
//! "already known", after all the policies have let the call in.

use base::{Call, Size, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{CompileEnv, Outside, Policy, Spec, Stop};

/// Answers that are given again without asking the upstream, as RFC 9111 lets a shared cache do.
///
/// What an answer says of itself counts: `Cache-Control`, `CDN-Cache-Control` (RFC 9213), `Surrogate-Control`, `Expires`,
/// `Vary`. So does what a request asks for: `no-cache`, `max-age`, `only-if-cached`. Answers to a known consumer are kept
/// for that consumer alone, unless they are `public`, have `s-maxage`, or `shared` is set. Answers to requests with an
/// `Authorization` that goes to the upstream are not kept, unless they say that they may be (RFC 9111, 3.5).
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CacheSpec {
    /// How long an answer is fresh that says nothing about it; it is not for answers to requests with a `Cookie`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fresh: Option<Span>,
    /// Whether an answer that says nothing, where there is no `fresh` either, is fresh for a tenth of the time since its
    /// `Last-Modified`, a day at most. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heuristic: Option<bool>,
    /// When answers are used that are no longer fresh, where they do not say so themselves.
    #[serde(default)]
    pub stale: StaleSpec,
    /// The largest body that is kept. Default: `1MiB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<Size>,
    /// Which parameters of the query tell answers apart. Default: all, as they are written.
    #[serde(default)]
    pub query: QuerySpec,
    /// Whether what one consumer got may be given to another. Only for upstreams that answer everybody alike. Default:
    /// false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<bool>,
    /// Whether answers with `Set-Cookie` are kept, cookies included, where they may be kept otherwise. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_cookie: Option<bool>,
}

/// When answers are used that are no longer fresh (RFC 5861). Never those with `must-revalidate`, `proxy-revalidate` or
/// `no-cache`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct StaleSpec {
    /// For so long, while the upstream is asked for a newer one. Default: `0s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub while_revalidate: Option<Span>,
    /// For so long, where the upstream answers 500, 502, 503 or 504, or does not answer. Default: `0s` where it answers,
    /// `1m` where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_error: Option<Span>,
}

/// Which parameters of the query tell answers apart. A name may end in `*`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct QuerySpec {
    /// All but these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<String>,
    /// None but these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<Vec<String>>,
}

/// The policy.
#[derive(Debug)]
pub struct Cache {
    pub rules: cache::Rules,
}

impl Policy for Cache {
    const NAME: &'static str = "cache";
    type Spec = CacheSpec;
    type Memo = ();

    fn compile(spec: &CacheSpec, env: &mut CompileEnv<'_>) -> Option<Cache> {
        let CacheSpec { fresh, heuristic, stale, entry, query, shared, set_cookie } = spec;
        let StaleSpec { while_revalidate, if_error } = stale;
        let QuerySpec { ignore, only } = query;
        let before = env.errors.len();
        if ignore.iter().chain(only.iter().flatten()).any(String::is_empty) {
            env.error("cache.query", "an empty name; expected names of parameters, such as `utm_*`");
        }
        if only.is_some() && !ignore.is_empty() {
            env.error("cache.query", "expected one of `ignore` and `only`, not both");
        }
        let entry = entry.map_or(1 << 20, |size| size.0);
        if entry == 0 {
            env.error("cache.entry", "no answer would be kept; expected a size such as `1MiB`, or `cache: none`");
        }
        let span = |span: &Option<Span>| span.map_or_else(Default::default, |span| span.0);
        (env.errors.len() == before).then(|| Cache {
            rules: cache::Rules {
                fresh: fresh.map(|fresh| fresh.0),
                heuristic: heuristic.unwrap_or(true),
                stale_while_revalidate: span(while_revalidate),
                stale_if_error: span(if_error),
                entry: usize::try_from(entry).unwrap_or(usize::MAX),
                shared: shared.unwrap_or(false),
                set_cookie: set_cookie.unwrap_or(false),
                query: cache::Query { only: only.clone(), ignore: ignore.clone() },
            },
        })
    }

    /// The stage that uses it comes after all policies.
    async fn request(&self, _: &mut Call, _: &dyn Outside) -> Result<(), Stop> {
        Ok(())
    }
}

impl Spec for CacheSpec {
    const EXPECTED: &'static str =
        "`none`, or what is kept, such as `fresh: 30s`, or `{}` for what answers say themselves";
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::testing::{compile, errors};

    #[test]
    fn nothing_but_the_name_is_needed() {
        let rules = compile(r#"{"cache":{}}"#).cache.unwrap().rules.clone();
        assert!(rules.heuristic && !rules.shared && !rules.set_cookie);
        assert_eq!((rules.fresh, rules.entry), (None, 1 << 20));
        let rules = compile(r#"{"cache":{"fresh":"30s","stale":{"if-error":"1h"},"entry":"2KiB"}}"#);
        let rules = rules.cache.unwrap().rules.clone();
        assert_eq!((rules.fresh, rules.entry), (Some(Duration::from_secs(30)), 2048));
        assert_eq!(rules.stale_if_error, Duration::from_secs(3600));
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        assert_eq!(errors(r#"{"cache":{"entry":"0B","query":{"ignore":[""]}}}"#), ["cache.query", "cache.entry"]);
        assert_eq!(errors(r#"{"cache":{"query":{"ignore":["a"],"only":["b"]}}}"#), ["cache.query"]);
    }
}
