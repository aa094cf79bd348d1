//! What is served: routes, what they match, and what is done with a call.

use base::Percent;
use policy::Specs;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{FromText, Llm, Named, OneOrMany, OrText, Retry, Timeouts};

section! {
    /// A product behind a name.
    Api {
        /// `orders.example.com` or `*.example.com`; one or a list. All hosts unless given.
        host: OneOrMany,
        /// Where it is served; on all listeners unless given.
        listeners: OneOrMany,
        /// For routes that name none; without `routes` it takes every path.
        upstream: Option<OrText<Split>>,
        /// It is an api of models, instead of `upstream` and `routes`; `{}` for all models at `/`.
        llm: Option<Llm>,
        /// For all its routes.
        policies: Specs,
        /// Over those of the upstream.
        timeouts: Timeouts,
        /// Over that of the upstream.
        retry: Retry,
        /// Which calls go where.
        routes: Vec<Route>,
    }
}

section! {
    /// Which calls, and what becomes of them: `upstream`, `redirect` or `respond`.
    Route {
        /// Shown in metrics and logs; `api/0` unless given.
        name: Option<String>,
        /// Which calls; all of the api's hosts unless given.
        r#match: Match,
        /// An upstream's name, a URL, or names with weights: `{ orders: 95, orders-next: 5 }`.
        upstream: Option<OrText<Split>>,
        /// Send a copy elsewhere; its answers are dropped.
        mirror: Option<Mirror>,
        /// What the upstream sees instead.
        rewrite: Rewrite,
        /// Send the caller elsewhere.
        redirect: Option<Redirect>,
        /// Answer at once.
        respond: Option<Respond>,
        /// For this route.
        policies: Specs,
        /// Over those of the api.
        timeouts: Timeouts,
        /// Over that of the api.
        retry: Retry,
    }
}

section! {
    /// All that is given must match; at most one of `path`, `prefix`, `regex`.
    Match {
        /// Exactly this path; or a template with parameters for whole segments, `/orders/{id}`.
        path: Option<String>,
        /// This path and those below it.
        prefix: Option<String>,
        /// The whole path matches this regular expression.
        regex: Option<String>,
        /// `GET` or `[GET, HEAD]`.
        method: OneOrMany,
        /// By name: a value, `{ regex: ... }` or `{ present: true }`.
        headers: Named<OrText<Wanted>>,
        /// By name: a value, `{ regex: ... }` or `{ present: true }`.
        query: Named<OrText<Wanted>>,
    }
}

section! {
    /// What a value must be; one of these.
    Wanted {
        /// The whole value matches this regular expression.
        regex: Option<String>,
        /// It is there, whatever it is; or with false, it is not.
        present: Option<bool>,
        #[serde(skip)]
        exact: Option<String>,
    }
}

/// Upstreams with their weights.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Split(pub Named<u32>);

/// A copy of calls.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Mirror {
    /// A name or a URL.
    pub upstream: String,
    /// Of how many calls. Default: `100%`.
    pub share: Option<Percent>,
}

section! {
    /// What the upstream sees instead; at most one of `path`, `prefix`.
    Rewrite {
        /// The whole path, with parameters of the match: `/v1/{id}`.
        path: Option<String>,
        /// Instead of the matched prefix.
        prefix: Option<String>,
        /// `endpoint` for the endpoint's own name, or a name. The caller's unless given.
        host: Option<String>,
    }
}

section! {
    /// Where callers are sent; at most one of `path`, `prefix`.
    Redirect {
        /// 301, 302, 303, 307 or 308. Default: 302.
        status: Option<u16>,
        /// `http` or `https`; the call's unless given.
        scheme: Option<String>,
        /// The call's unless given.
        host: Option<String>,
        /// The scheme's own unless given.
        port: Option<u16>,
        /// The whole path, with parameters of the match.
        path: Option<String>,
        /// Instead of the matched prefix.
        prefix: Option<String>,
    }
}

section! {
    /// An answer from here.
    Respond {
        /// 200 to 599. Default: 200.
        status: Option<u16>,
        /// Its fields.
        headers: Named<String>,
        /// Its text.
        body: String,
    }
}

impl FromText for Wanted {
    const EXPECTED: &'static str = "a value in quotes, `{ regex: ... }` or `{ present: true }`";
    fn from_text(text: &str) -> Result<Wanted, String> {
        Ok(Wanted { exact: Some(text.into()), ..Wanted::default() })
    }
}

impl FromText for Split {
    const EXPECTED: &'static str = "an upstream's name, a URL, or a map of names with weights";
    fn from_text(text: &str) -> Result<Split, String> {
        Ok(Split(Named(vec![(text.into(), 1)])))
    }
}
