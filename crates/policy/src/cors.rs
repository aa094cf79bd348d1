//! Which web pages of other origins may call, and read the answers (Fetch Standard, "CORS protocol").
//!
//! A browser asks first, by a preflight, for all but the simplest calls; a preflight carries no credentials and is
//! answered here. The protocol is between the browser and the gateway alone: what an upstream says of it is replaced.

use std::sync::Arc;

use base::{Call, Headers, Method, Reply, RequestHead, Span, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{CompileEnv, Outside, Policy, Refusal, Spec, Stop};

/// Which web pages of other origins may call, and read the answers. Preflights are answered by Weir. This protects
/// those who use a browser; it keeps nobody else from calling.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CorsSpec {
    /// Origins whose pages may call: `https://app.example.com`, `https://*.example.com` for all names below it,
    /// `null` for pages without an origin, or `*` for all.
    pub origins: Vec<String>,
    /// Methods that pages may use; `GET`, `HEAD` and `POST` if it is not given, `*` for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub methods: Option<Vec<String>>,
    /// Request fields that pages may set besides the harmless ones, such as `authorization`; `*` for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// Response fields that pages may read besides the harmless ones, such as `retry-after`; `*` for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expose: Vec<String>,
    /// Whether browsers may send cookies and the like, and show pages the answers to such calls.
    #[serde(default)]
    pub credentials: bool,
    /// How long a browser may remember the answer to a preflight; 10 minutes if it is not given. Browsers have
    /// upper bounds of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Span>,
    /// Whether public pages may call although this is a private network (Private Network Access).
    #[serde(default)]
    pub private_network: bool,
}

/// The policy.
#[derive(Debug)]
pub struct Cors {
    any: bool,
    exact: Vec<Box<str>>,
    /// What stands before and behind the `*`: `https://` and `.example.com`.
    wildcard: Vec<(Box<str>, Box<str>)>,
    /// The value of `Access-Control-Allow-Methods`; `None` for what was asked for.
    methods: Option<String>,
    headers: Option<String>,
    expose: String,
    credentials: bool,
    max_age: String,
    private_network: bool,
}

/// Whose page calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Memo {
    /// No page, or none that may.
    Nobody,
    /// One of all, which need not be told apart.
    Any,
    /// One of those that are listed.
    Listed(Arc<str>),
}

impl Cors {
    fn whose(&self, call: &Call) -> Memo {
        if self.any {
            return Memo::Any;
        }
        let mut origins = call.head.headers.get_all("origin");
        // Two origins are none that a browser would send.
        let (Some(origin), None) = (origins.next(), origins.next()) else { return Memo::Nobody };
        match std::str::from_utf8(origin) {
            Ok(origin) if self.lists(origin) => Memo::Listed(origin.into()),
            _ => Memo::Nobody,
        }
    }

    fn lists(&self, origin: &str) -> bool {
        self.exact.iter().any(|it| **it == *origin)
            || self.wildcard.iter().any(|(before, behind)| {
                let name = origin.strip_prefix(&**before).and_then(|rest| rest.strip_suffix(&**behind));
                name.is_some_and(|name| {
                    !name.is_empty()
                        && !name.starts_with('.')
                        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
                })
            })
    }

    /// Whether the page may read, in the fields of an answer.
    fn grant(&self, whose: &Memo, headers: &mut Headers) {
        match whose {
            Memo::Nobody => return,
            Memo::Any => headers.append("access-control-allow-origin", "*"),
            Memo::Listed(origin) => headers.append("access-control-allow-origin", &**origin),
        }
        if self.credentials {
            headers.append("access-control-allow-credentials", "true");
        }
    }

    fn preflight(&self, call: &Call, whose: &Memo) -> Reply {
        let asked = &call.head.headers;
        let mut reply = Reply::new(StatusCode::NO_CONTENT);
        let headers = &mut reply.headers;
        self.grant(whose, headers);
        let method = asked.get("access-control-request-method").unwrap_or_default();
        match &self.methods {
            Some(methods) => headers.append("access-control-allow-methods", methods),
            None if is_list_of_names(method) => headers.append("access-control-allow-methods", method),
            None => {}
        }
        match &self.headers {
            Some(names) if names.is_empty() => {}
            Some(names) => headers.append("access-control-allow-headers", names),
            None => {
                if let Some(names) = asked.get("access-control-request-headers").filter(|it| is_list_of_names(it)) {
                    headers.append("access-control-allow-headers", names);
                }
            }
        }
        headers.append("access-control-max-age", &self.max_age);
        if self.private_network && asked.get("access-control-request-private-network") == Some(b"true") {
            headers.append("access-control-allow-private-network", "true");
        }
        headers.append("vary", "origin, access-control-request-method, access-control-request-headers");
        reply
    }
}

impl Policy for Cors {
    const NAME: &'static str = "cors";
    type Spec = CorsSpec;
    type Memo = Memo;

    fn compile(spec: &CorsSpec, env: &mut CompileEnv<'_>) -> Option<Cors> {
        let CorsSpec { origins, methods, headers, expose, credentials, max_age, private_network } = spec;
        let before = env.errors.len();
        if origins.is_empty() {
            env.error("cors.origins", "is empty; expected origins such as `https://app.example.com`, or `*`");
        }
        let (mut any, mut exact, mut wildcard) = (false, Vec::new(), Vec::new());
        for (at, origin) in origins.iter().enumerate() {
            let path = format!("cors.origins[{at}]");
            match Origin::parse(origin) {
                Ok(Origin::Any) if *credentials => env.error(
                    path,
                    "`*` with `credentials` would let every page act as the one who looks at it; expected the origins",
                ),
                Ok(Origin::Any) => any = true,
                Ok(Origin::Exact(origin)) => exact.push(origin.into()),
                Ok(Origin::Wildcard(before, behind)) => wildcard.push((before.into(), behind.into())),
                Err(message) => env.error(path, message),
            }
        }
        let methods = match methods {
            None => Some("GET, HEAD, POST".to_owned()),
            Some(methods) => names(methods, "cors.methods", "a method such as `PUT`", env),
        };
        let headers = names(headers, "cors.headers", "a field name such as `authorization`", env);
        if *credentials && expose.iter().any(|it| it == "*") {
            env.error(
                "cors.expose",
                "browsers take `*` for a name where there are `credentials`; expected field names",
            );
        }
        let expose = names(expose, "cors.expose", "a field name such as `retry-after`", env);
        if env.errors.len() > before {
            return None;
        }
        Some(Cors {
            any,
            exact,
            wildcard,
            methods,
            headers,
            expose: expose.unwrap_or_else(|| "*".into()),
            credentials: *credentials,
            max_age: max_age.map_or(600, |it| it.0.as_secs()).to_string(),
            private_network: *private_network,
        })
    }

    async fn request(&self, call: &mut Call, _: &dyn Outside) -> Result<Memo, Stop> {
        let whose = self.whose(call);
        if !is_preflight(&call.head) {
            return Ok(whose);
        }
        match whose {
            Memo::Nobody => Err(Refusal::Forbidden.into()),
            whose => Err(Stop::Answer(Box::new(self.preflight(call, &whose)), Vec::new())),
        }
    }

    /// A preflight that is granted says all by itself.
    fn refused(&self, call: &Call) -> Option<Memo> {
        Some(self.whose(call)).filter(|whose| *whose == Memo::Nobody)
    }

    fn response(&self, whose: &mut Memo, reply: &mut Reply) {
        let headers = &mut reply.headers;
        headers.retain(|name, _| !name.starts_with("access-control-"));
        self.grant(whose, headers);
        if *whose != Memo::Nobody && !self.expose.is_empty() {
            headers.append("access-control-expose-headers", &self.expose);
        }
        // Also where nothing was granted: a cache must not give to one origin what was said to another.
        if !self.any {
            vary(headers, "origin");
        }
    }
}

/// A browser's question whether a page may make a call.
pub fn is_preflight(head: &RequestHead) -> bool {
    head.method == Method::OPTIONS
        && head.headers.contains("origin")
        && head.headers.contains("access-control-request-method")
}

/// Adds a name to `Vary`, where it is not there already.
pub(crate) fn vary(headers: &mut Headers, name: &str) {
    if !headers.has_token("vary", name) && !headers.has_token("vary", "*") {
        headers.append("vary", name);
    }
}

/// A comma-separated list of them; `None` for `*`.
fn names(list: &[String], path: &str, expected: &str, env: &mut CompileEnv<'_>) -> Option<String> {
    if list.iter().any(|it| it == "*") {
        if list.len() > 1 {
            env.error(path, "has `*` and others; expected `*` alone, or names");
        }
        return None;
    }
    for (at, name) in list.iter().enumerate() {
        if !Headers::is_name(name) {
            env.error(format!("{path}[{at}]"), format!("`{name}` is not a name; expected {expected}"));
        }
    }
    Some(list.join(", "))
}

fn is_list_of_names(value: &[u8]) -> bool {
    std::str::from_utf8(value).is_ok_and(|value| value.split(',').all(|name| Headers::is_name(name.trim())))
}

#[derive(Debug, PartialEq)]
enum Origin {
    Any,
    Exact(String),
    Wildcard(String, String),
}

impl Origin {
    /// As browsers write it: in lower case, without a default port, without a path.
    fn parse(text: &str) -> Result<Origin, String> {
        let wrong = |why: &str| {
            format!(
                "`{text}` {why}; expected one such as `https://app.example.com`, `https://*.example.com`, `null` or `*`"
            )
        };
        match text {
            "*" => return Ok(Origin::Any),
            "null" => return Ok(Origin::Exact(text.into())),
            _ => {}
        }
        let (scheme, authority) = text.split_once("://").ok_or_else(|| wrong("is not an origin"))?;
        if scheme.is_empty() || !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)) {
            return Err(wrong("has no scheme"));
        }
        if authority.contains(['/', '?', '#']) {
            return Err(wrong("has a path, which origins have not"));
        }
        if authority.is_empty() || authority.contains(|c: char| c.is_whitespace() || !c.is_ascii() || c == '@') {
            return Err(wrong("has no proper host"));
        }
        let scheme = scheme.to_ascii_lowercase();
        let mut authority = authority.to_ascii_lowercase();
        let default = match &*scheme {
            "http" => ":80",
            "https" => ":443",
            _ => "",
        };
        if !default.is_empty() && authority.ends_with(default) {
            authority.truncate(authority.len() - default.len());
        }
        match authority.strip_prefix('*') {
            Some(rest) if rest.starts_with('.') && rest.len() > 1 && !rest.contains('*') => {
                Ok(Origin::Wildcard(format!("{scheme}://"), rest.into()))
            }
            None if !authority.contains('*') => Ok(Origin::Exact(format!("{scheme}://{authority}"))),
            _ => Err(wrong("has a `*` that is not its first label")),
        }
    }
}

impl Spec for CorsSpec {
    const EXPECTED: &'static str = "`none`, or settings with `origins`, such as `origins: ['https://app.example.com']`";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Nowhere;
    use crate::testing::{call, compile, errors, ready};

    const PAGE: &str = "https://app.example.com";

    fn cors(json: &str) -> Arc<Cors> {
        compile(&format!(r#"{{"cors":{json}}}"#)).cors.unwrap()
    }

    /// The fields of the answer to a call with these; `None` if it was refused.
    fn answer(cors: &Cors, method: Method, fields: &[(&str, &str)]) -> (Option<Reply>, Vec<(String, String)>) {
        let mut call = call(fields);
        call.head.method = method;
        let (mut memo, mut reply, answered) = match ready(cors.request(&mut call, &Nowhere)) {
            Ok(memo) => {
                let mut reply = Reply::new(StatusCode::OK);
                reply.headers.append("access-control-allow-origin", "https://upstream.example.com");
                reply.headers.append("access-control-max-age", "1");
                (Some(memo), reply, true)
            }
            Err(Stop::Answer(reply, _)) => (cors.refused(&call), *reply, true),
            Err(Stop::Refuse(_)) => (cors.refused(&call), Reply::new(StatusCode::FORBIDDEN), false),
        };
        if let Some(memo) = &mut memo {
            cors.response(memo, &mut reply);
        }
        let fields = reply
            .headers
            .iter()
            .map(|(name, value)| (name.replace("access-control-", "ac-"), String::from_utf8(value.to_vec()).unwrap()));
        let fields = fields.collect();
        (answered.then_some(reply), fields)
    }

    #[track_caller]
    fn check(json: &str, fields: &[(&str, &str)], expected: &[(&str, &str)]) {
        let (_, found) = answer(&cors(json), Method::GET, fields);
        let found: Vec<(&str, &str)> = found.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(found, expected, "{json} {fields:?}");
    }

    #[test]
    fn answers_say_who_may_read_them_and_that_it_varies() {
        let one = r#"{"origins":["https://app.example.com"]}"#;
        check(one, &[("origin", PAGE)], &[("ac-allow-origin", PAGE), ("vary", "origin")]);
        check(one, &[("origin", "https://evil.example.com")], &[("vary", "origin")]);
        check(one, &[("origin", PAGE), ("origin", PAGE)], &[("vary", "origin")]);
        check(one, &[], &[("vary", "origin")]);
        let any = r#"{"origins":["*"],"expose":["x-a","x-b"]}"#;
        check(any, &[], &[("ac-allow-origin", "*"), ("ac-expose-headers", "x-a, x-b")]);
        check(any, &[("origin", "null")], &[("ac-allow-origin", "*"), ("ac-expose-headers", "x-a, x-b")]);
        let credentials = r#"{"origins":["https://app.example.com","null"],"credentials":true}"#;
        let granted = [("ac-allow-origin", "null"), ("ac-allow-credentials", "true"), ("vary", "origin")];
        check(credentials, &[("origin", "null")], &granted);
        check(r#"{"origins":["*"],"expose":["*"]}"#, &[], &[("ac-allow-origin", "*"), ("ac-expose-headers", "*")]);
    }

    #[test]
    fn a_wildcard_stands_for_names_and_for_nothing_else() {
        let cors = cors(r#"{"origins":["https://*.Example.com","http://*.b:8080","https://c.d:443"]}"#);
        for origin in [PAGE, "https://a.b.example.com", "http://x.b:8080", "https://c.d", "https://1.example.com"] {
            assert!(cors.lists(origin), "{origin}");
        }
        for origin in [
            "https://example.com",
            "https://.example.com",
            "https://evilexample.com",
            "http://app.example.com",
            "https://app.example.com:8443",
            "https://app.example.com.evil.com",
            "https://evil.com/.example.com",
            "https://evil.com:1.example.com",
            "http://x.b",
            "null",
            "",
        ] {
            assert!(!cors.lists(origin), "{origin}");
        }
    }

    #[test]
    fn preflights_are_answered_here() {
        let check = |json: &str, fields: &[(&str, &str)], expected: &[(&str, &str)]| {
            let mut all = vec![("origin", PAGE), ("access-control-request-method", "PUT")];
            all.extend_from_slice(fields);
            let (reply, found) = answer(&cors(json), Method::OPTIONS, &all);
            assert_eq!(reply.unwrap().status, 204);
            let found: Vec<(&str, &str)> = found.iter().map(|(name, value)| (&**name, &**value)).collect();
            let (vary, found) = found.split_last().unwrap();
            assert_eq!(*vary, ("vary", "origin, access-control-request-method, access-control-request-headers"));
            assert_eq!(found, expected, "{json}");
        };
        let asks = ("access-control-request-headers", "authorization,x-a");
        check(
            r#"{"origins":["*"]}"#,
            &[asks],
            &[("ac-allow-origin", "*"), ("ac-allow-methods", "GET, HEAD, POST"), ("ac-max-age", "600")],
        );
        check(
            r#"{"origins":["https://*.example.com"],"methods":["PUT"],"headers":["authorization"],"credentials":true,"max-age":"1h"}"#,
            &[asks],
            &[
                ("ac-allow-origin", PAGE),
                ("ac-allow-credentials", "true"),
                ("ac-allow-methods", "PUT"),
                ("ac-allow-headers", "authorization"),
                ("ac-max-age", "3600"),
            ],
        );
        // Wildcards are echoed: with credentials a browser would take `*` for a name, and never for `authorization`.
        check(
            r#"{"origins":["https://app.example.com"],"methods":["*"],"headers":["*"],"private-network":true}"#,
            &[asks, ("access-control-request-private-network", "true")],
            &[
                ("ac-allow-origin", PAGE),
                ("ac-allow-methods", "PUT"),
                ("ac-allow-headers", "authorization,x-a"),
                ("ac-max-age", "600"),
                ("ac-allow-private-network", "true"),
            ],
        );
        check(
            r#"{"origins":["*"],"methods":["PUT"],"headers":["*"]}"#,
            &[("access-control-request-headers", "a b;c")],
            &[("ac-allow-origin", "*"), ("ac-allow-methods", "PUT"), ("ac-max-age", "600")],
        );
    }

    #[test]
    fn a_preflight_of_a_stranger_is_refused_and_other_options_pass() {
        let cors = cors(r#"{"origins":["https://app.example.com"]}"#);
        let preflight = [("origin", "https://evil.example.com"), ("access-control-request-method", "PUT")];
        let (reply, fields) = answer(&cors, Method::OPTIONS, &preflight);
        assert!(reply.is_none());
        assert_eq!(fields, [("vary".to_owned(), "origin".to_owned())]);
        let (reply, _) = answer(&cors, Method::OPTIONS, &[("origin", PAGE)]);
        assert_eq!(reply.unwrap().status, 200, "the upstream's");
    }

    #[test]
    fn vary_is_added_to_and_not_repeated() {
        let check = |before: &[(&str, &str)], after: &[(&str, &str)]| {
            let mut headers = Headers::from_iter(before.iter().copied());
            vary(&mut headers, "origin");
            assert_eq!(headers, Headers::from_iter(after.iter().copied()));
        };
        check(&[], &[("vary", "origin")]);
        check(&[("vary", "accept, Origin")], &[("vary", "accept, Origin")]);
        check(&[("vary", "*")], &[("vary", "*")]);
        check(&[("vary", "accept")], &[("vary", "accept"), ("vary", "origin")]);
    }

    #[test]
    fn what_is_unsafe_or_no_origin_is_told() {
        let check = |cors: &str, path: &str| {
            assert_eq!(errors(&format!(r#"{{"cors":{cors}}}"#)), [path], "{cors}");
        };
        check(r#"{"origins":[]}"#, "cors.origins");
        check(r#"{"origins":["*"],"credentials":true}"#, "cors.origins[0]");
        for wrong in [
            "app.example.com",
            "https://a.b/",
            "https://a.*.b",
            "https://*",
            "https://*b",
            "https://",
            "",
            "https://a b",
        ] {
            check(&format!(r#"{{"origins":["https://a.b","{wrong}"]}}"#), "cors.origins[1]");
        }
        check(r#"{"origins":["*"],"methods":["G T"]}"#, "cors.methods[0]");
        check(r#"{"origins":["*"],"headers":["*","x-a"]}"#, "cors.headers");
        check(r#"{"origins":["https://a.b"],"credentials":true,"expose":["*"]}"#, "cors.expose");
    }
}
