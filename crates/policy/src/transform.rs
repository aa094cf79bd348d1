//! Changes to requests and answers by expressions: their fields, the query, the path, the status, places of a JSON
//! body.
//!
//! All expressions see the message as it was, not as another has changed it. What cannot be evaluated (a consumer's
//! name where nobody is known) is absent: nothing that was there before stays in its place.

mod json;

use std::collections::BTreeMap;
use std::fmt::Write;

use base::{Call, Headers, Method, Reply, RequestHead, Size, StatusCode};
use bytes::{Bytes, BytesMut};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::decode::decoded;
use crate::headers::check_name;
use crate::{CompileEnv, Effort, Expr, Filter, Gives, Outside, Policy, Refusal, Scope, Spec, Stop};
use json::Pointer;

/// Changes to requests and answers, by expressions in CEL. They may ask about `api`, `route`, `consumer`, `claims` and
/// `request`, and in `response` about `response` (`status`, `headers`) too; not about bodies. All see the message as it
/// was before. What cannot be evaluated is absent, and nothing stays in its place.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TransformSpec {
    /// Changes to what the upstream gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<TransformRequestSpec>,
    /// Changes to what the caller gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<TransformResponseSpec>,
}

/// Changes to what the upstream gets.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TransformRequestSpec {
    /// Fields: first `remove`, then `set`, then `add`.
    #[serde(default)]
    pub headers: TransformFieldsSpec,
    /// Parameters of the query: first `remove`, then `set`, then `add`.
    #[serde(default)]
    pub query: TransformFieldsSpec,
    /// The path, without its percent-encoding, such as `'/v2' + request.path`; one that is none is refused. Not for
    /// routes that `rewrite` a prefix, which is that of the path as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Places of a JSON body. A request with another body is refused with 415, one that is not JSON with 400, one
    /// that is too large with 413; one without a body has nothing to change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<TransformBodySpec>,
}

/// Changes to what the caller gets.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TransformResponseSpec {
    /// Fields: first `remove`, then `set`, then `add`.
    #[serde(default)]
    pub headers: TransformFieldsSpec,
    /// The status, such as `response.status == 404 ? 200 : response.status`; it stays if this gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Places of a JSON body; answers with another body pass as they are. One that is encoded, a part, or announced
    /// too large is replaced by a 502; one that turns out too large, or not to be JSON, is cut. The upstream is not
    /// asked for encodings and parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<TransformBodySpec>,
}

/// Changes to things that have names: first `remove`, then `set`, then `add`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TransformFieldsSpec {
    /// What is to be there once with the value of this expression: a string, a number, true or false.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// What is to be there besides those of the same name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub add: BTreeMap<String, String>,
    /// Names of what is taken out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

/// Places of a JSON body, by JSON pointers (`/user/name`); first `remove`, then `set`. The body is held until it is
/// whole.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TransformBodySpec {
    /// Expressions for the values of these places: a string, a number, true, false or null. Objects that are missing
    /// on the way are made; `-` is the place behind the last of a list.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// Places that are taken out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
    /// How large the body may be; `1MiB` if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Size>,
}

/// The policy.
#[derive(Debug)]
pub struct Transform {
    headers: Edits,
    query: Edits,
    path: Option<Expr>,
    body: Option<BodyEdits>,
    reply: Option<ReplyEdits>,
}

#[derive(Debug)]
struct ReplyEdits {
    headers: Edits,
    status: Option<Expr>,
    body: Option<BodyEdits>,
}

#[derive(Debug, Default)]
struct Edits {
    set: Vec<(String, Expr)>,
    add: Vec<(String, Expr)>,
    remove: Vec<String>,
}

#[derive(Debug)]
struct BodyEdits {
    set: Vec<(Pointer, Expr)>,
    remove: Vec<Pointer>,
    limit: usize,
}

/// The call as the expressions saw it, and what they say of the request's body.
pub struct Memo {
    call: Option<Box<Call>>,
    body: Option<Box<Places>>,
}

/// Values for places of a body, as JSON; `None` for those that are taken out.
type Places = Vec<(Pointer, Option<String>)>;

impl Policy for Transform {
    const NAME: &'static str = "transform";
    type Spec = TransformSpec;
    type Memo = Memo;

    fn compile(spec: &TransformSpec, env: &mut CompileEnv<'_>) -> Option<Transform> {
        let before = env.errors.len();
        if *spec == TransformSpec::default() {
            env.error("transform", "changes nothing; expected `request`, `response` or both, or `none`");
        }
        let TransformRequestSpec { headers, query, path, body } = spec.request.clone().unwrap_or_default();
        let mut compiler = Compiler { env, reply: false };
        let transform = Transform {
            headers: compiler.edits(&headers, "transform.request.headers", true),
            query: compiler.edits(&query, "transform.request.query", false),
            path: path.and_then(|path| compiler.expr(&path, Gives::Text, "transform.request.path")),
            body: body.map(|body| compiler.body(&body, "transform.request.body")),
            reply: spec.response.as_ref().map(|TransformResponseSpec { headers, status, body }| {
                compiler.reply = true;
                ReplyEdits {
                    headers: compiler.edits(headers, "transform.response.headers", true),
                    status: status
                        .as_ref()
                        .and_then(|it| compiler.expr(it, Gives::Number, "transform.response.status")),
                    body: body.as_ref().map(|body| compiler.body(body, "transform.response.body")),
                }
            }),
        };
        (env.errors.len() == before).then_some(transform)
    }

    async fn request(&self, call: &mut Call, _: &dyn Outside) -> Result<Memo, Stop> {
        let scope = Scope::of(call);
        let (fields, query) = (self.headers.values(&scope), self.query.values(&scope));
        let path = self.path.as_ref().map(|path| path.string(&scope));
        let body = self.body.as_ref().map(|body| Box::new(body.places(&scope)));
        let memo = Memo { call: self.reply.is_some().then(|| Box::new(call.clone())), body };

        fields.apply(&mut call.head.headers);
        if !self.query.is_empty() {
            let (path, before) = call.head.target.split_once('?').unwrap_or((&call.head.target, ""));
            let query = query.applied(before);
            call.head.target = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        }
        if let Some(path) = path {
            let path = path.ok().as_deref().and_then(encoded_path).ok_or(Refusal::Forbidden)?;
            call.head.target = match call.head.query() {
                Some(query) => format!("{path}?{query}"),
                None => path,
            };
        }
        if self.reply.as_ref().is_some_and(|reply| reply.body.is_some()) {
            for name in ["accept-encoding", "range", "if-range"] {
                call.head.headers.remove(name);
            }
        }
        Ok(memo)
    }

    fn request_body(&self, memo: &mut Memo, head: &mut RequestHead) -> Option<Box<dyn Filter>> {
        let places = *memo.body.take()?;
        let limit = self.body.as_ref()?.limit;
        let stop = (!is_json(&head.headers) || is_encoded(&head.headers)).then_some(Refusal::MediaType);
        forget(&mut head.headers);
        Some(Box::new(Editor { places, limit, held: BytesMut::new(), stop, of: &REQUEST }))
    }

    fn response(&self, memo: &mut Memo, reply: &mut Reply) {
        let (Some(edits), Some(call)) = (&self.reply, &memo.call) else { return };
        let before = reply.clone();
        let scope = Scope::with_reply(call, &before);
        let status = edits.status.as_ref().and_then(|status| status.number(&scope).ok());
        let status = status.filter(|it| (200.0..600.0).contains(it)).map(|it| StatusCode::from_u16(it as u16));
        edits.headers.values(&scope).apply(&mut reply.headers);
        if let Some(Ok(status)) = status
            && !reply.status.is_informational()
        {
            reply.status = status;
        }
        // The length of what GET would get is not known.
        if edits.body.is_some() && call.head.method == Method::HEAD && is_json(&reply.headers) {
            reply.headers.remove("content-length");
        }
    }

    fn response_body(&self, memo: &mut Memo, reply: &mut Reply) -> Option<Box<dyn Filter>> {
        let edits = self.reply.as_ref()?.body.as_ref()?;
        if !is_json(&reply.headers) {
            return None;
        }
        let places = edits.places(&Scope::with_reply(memo.call.as_ref()?, reply));
        let is_part = reply.status == StatusCode::PARTIAL_CONTENT;
        let stop = (is_part || is_encoded(&reply.headers)).then_some(Refusal::AnswerUnusable);
        forget(&mut reply.headers);
        Some(Box::new(Editor { places, limit: edits.limit, held: BytesMut::new(), stop, of: &ANSWER }))
    }
}

// === impl Edits ===

/// What edits come to for one message.
struct Values<'a> {
    remove: Vec<&'a str>,
    append: Vec<(&'a str, String)>,
}

impl Edits {
    fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }

    fn values(&self, scope: &Scope<'_>) -> Values<'_> {
        let remove = self.remove.iter().chain(self.set.iter().map(|(name, _)| name)).map(|name| &**name);
        let append = self.set.iter().chain(&self.add).filter_map(|(name, expr)| {
            let value = match expr.value(scope).ok()? {
                Value::String(text) => text,
                Value::Null => return None,
                other => other.to_string(),
            };
            Some((&**name, value))
        });
        Values { remove: remove.collect(), append: append.collect() }
    }
}

impl Values<'_> {
    /// To fields; what would be no value is absent.
    fn apply(self, headers: &mut Headers) {
        for name in self.remove {
            headers.remove(name);
        }
        for (name, value) in self.append {
            if Headers::is_value(value.as_bytes()) {
                headers.append(name, value);
            }
        }
    }

    /// To a query; parameters that are not meant stay as they were written.
    fn applied(self, query: &str) -> String {
        let is_meant = |pair: &str| {
            let name = decoded(pair.split('=').next().unwrap_or(pair));
            self.remove.iter().any(|it| *it.as_bytes() == *name)
        };
        let kept = query.split('&').filter(|pair| !pair.is_empty() && !is_meant(pair)).map(str::to_owned);
        let added = self.append.iter().map(|(name, value)| format!("{}={}", encoded(name, ""), encoded(value, "")));
        kept.chain(added).collect::<Vec<_>>().join("&")
    }
}

impl BodyEdits {
    fn places(&self, scope: &Scope<'_>) -> Places {
        let removed = self.remove.iter().map(|pointer| (pointer.clone(), None));
        let set = self
            .set
            .iter()
            .map(|(pointer, expr)| (pointer.clone(), expr.value(scope).ok().map(|value| value.to_string())));
        removed.chain(set).collect()
    }
}

/// Holds a body until it is whole, and then changes it.
struct Editor {
    places: Places,
    limit: usize,
    held: BytesMut,
    /// It cannot be changed at all.
    stop: Option<Refusal>,
    of: &'static Of,
}

/// Whose body it is, and so what is said of it.
struct Of {
    too_large: Refusal,
    no_json: Refusal,
}

static REQUEST: Of = Of { too_large: Refusal::ContentTooLarge, no_json: Refusal::ContentUnusable };
static ANSWER: Of = Of { too_large: Refusal::AnswerTooLarge, no_json: Refusal::AnswerUnusable };

impl Filter for Editor {
    fn begin(&mut self, length: Option<u64>) -> Result<(), Stop> {
        match self.stop.take() {
            Some(stop) => Err(stop.into()),
            None if length.is_some_and(|length| length > self.limit as u64) => Err(self.of.too_large.clone().into()),
            None => Ok(()),
        }
    }

    fn piece(&mut self, data: Bytes) -> Result<Bytes, Stop> {
        if self.held.len() + data.len() > self.limit {
            return Err(self.of.too_large.clone().into());
        }
        self.held.extend_from_slice(&data);
        Ok(Bytes::new())
    }

    fn end(&mut self) -> Result<Bytes, Stop> {
        let held = std::mem::take(&mut self.held);
        let wrong = || self.of.no_json.clone();
        let mut text = json::checked(&held).ok_or_else(wrong)?.to_owned();
        for (pointer, value) in &self.places {
            text = json::edited(&text, pointer, value.as_deref()).ok_or_else(wrong)?;
        }
        Ok(text.into())
    }

    fn effort(&self) -> Effort {
        Effort::AtEnd
    }
}

fn is_json(headers: &Headers) -> bool {
    let Some(kind) = headers.media_type().map(str::to_ascii_lowercase) else { return false };
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

fn is_encoded(headers: &Headers) -> bool {
    headers.get_all("content-encoding").any(|it| !it.eq_ignore_ascii_case(b"identity"))
}

/// Takes out what speaks of the bytes of a body that will be others.
fn forget(headers: &mut Headers) {
    for name in ["content-length", "content-digest", "content-md5", "digest", "etag", "accept-ranges"] {
        headers.remove(name);
    }
}

/// Percent-encoded but for what may stand in all parts of a URL, and for `also`.
fn encoded(text: &str, also: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let c = char::from(byte);
        if byte.is_ascii_alphanumeric() || "-._~".contains(c) || (byte.is_ascii() && also.contains(c)) {
            out.push(c);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// A path that an upstream cannot read as another: absolute, without dot segments.
fn encoded_path(path: &str) -> Option<String> {
    let dots = |part: &str| matches!(part, "." | "..") || part.contains('\\');
    (path.starts_with('/') && !path.split('/').any(dots)).then(|| encoded(path, "/:@!$&'()*+,;="))
}

struct Compiler<'a, 'e> {
    env: &'a mut CompileEnv<'e>,
    reply: bool,
}

impl Compiler<'_, '_> {
    fn expr(&mut self, text: &str, gives: Gives, path: &str) -> Option<Expr> {
        let compiled = match self.reply {
            true => Expr::compile_for_reply(text, gives),
            false => Expr::compile(text, gives),
        };
        compiled.map_err(|message| self.env.error(path, message)).ok()
    }

    fn edits(&mut self, spec: &TransformFieldsSpec, path: &str, are_fields: bool) -> Edits {
        let TransformFieldsSpec { set, add, remove } = spec;
        let mut compiled = |kind: &str, exprs: &BTreeMap<String, String>| {
            let mut all = Vec::new();
            for (name, text) in exprs {
                let path = format!("{path}.{kind}.{name}");
                if are_fields {
                    check_name(name, path.clone(), self.env);
                }
                all.extend(self.expr(text, Gives::Value, &path).map(|expr| (name.clone(), expr)));
            }
            all
        };
        let (set, add) = (compiled("set", set), compiled("add", add));
        for (at, name) in remove.iter().enumerate().filter(|_| are_fields) {
            check_name(name, format!("{path}.remove[{at}]"), self.env);
        }
        Edits { set, add, remove: remove.clone() }
    }

    fn body(&mut self, spec: &TransformBodySpec, path: &str) -> BodyEdits {
        let TransformBodySpec { set, remove, limit } = spec;
        let wrong = |text: &str| format!("`{text}` is no JSON pointer; expected one such as `/user/name`");
        let mut compiled = BodyEdits { set: Vec::new(), remove: Vec::new(), limit: 1 << 20 };
        if set.is_empty() && remove.is_empty() {
            self.env.error(path, "changes nothing; expected `set`, `remove` or both");
        }
        for (text, expr) in set {
            let at = format!("{path}.set.{text}");
            let expr = self.expr(expr, Gives::Value, &at);
            match Pointer::parse(text) {
                Some(pointer) => compiled.set.extend(expr.map(|expr| (pointer, expr))),
                None => self.env.error(at, wrong(text)),
            }
        }
        for (at, text) in remove.iter().enumerate() {
            match Pointer::parse(text) {
                Some(pointer) => compiled.remove.push(pointer),
                None => self.env.error(format!("{path}.remove[{at}]"), wrong(text)),
            }
        }
        if let Some(limit) = limit {
            match usize::try_from(limit.0) {
                Ok(limit) if (1..=64 << 20).contains(&limit) => compiled.limit = limit,
                _ => self.env.error(format!("{path}.limit"), "out of bounds; expected `1B` to `64MiB`"),
            }
        }
        compiled
    }
}

impl Spec for TransformSpec {
    const EXPECTED: &'static str = "`none`, or changes of `request` and `response`, such as `request: { headers: { set: { x-team: consumer.team } } }`";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Nowhere;
    use crate::testing::{call, compile, consumer, errors, ready};
    use std::sync::Arc;

    fn transform(json: &str) -> Arc<Transform> {
        compile(&format!(r#"{{"transform":{json}}}"#)).transform.unwrap()
    }

    fn run(filter: &mut dyn Filter, pieces: &[&str]) -> Result<String, Refusal> {
        let refusal = |stop| match stop {
            Stop::Refuse(refusal) => refusal,
            Stop::Answer(..) => panic!("an answer"),
        };
        filter.begin(None).map_err(refusal)?;
        for piece in pieces {
            assert!(filter.piece((*piece).to_owned().into()).map_err(refusal)?.is_empty());
        }
        Ok(String::from_utf8(filter.end().map_err(refusal)?.to_vec()).unwrap())
    }

    #[test]
    fn requests_are_changed_by_what_they_were() {
        let policy = transform(
            r#"{"request":{
                "headers":{"set":{"x-who":"consumer.name","x-a":"request.headers['x-b']","x-n":"1 + 1","x-t":"request.method == 'GET'"},
                    "add":{"x-b":"request.headers['x-a']"},"remove":["x-c"]},
                "query":{"set":{"who":"consumer.name + '&'"},"remove":["gone"]},
                "path":"'/v2' + request.path"}}"#,
        );
        let mut known = call(&[("x-who", "root"), ("x-a", "1"), ("x-b", "2"), ("x-c", "3")]);
        known.head.target = "/a%20b?x=%31&who=me&go%6ee=1&gone".into();
        let mut unknown = known.clone();
        known.consumer = Some(consumer("agent"));
        ready(policy.request(&mut known, &Nowhere)).ok().unwrap();
        let fields = [("x-b", "2"), ("x-a", "2"), ("x-n", "2"), ("x-t", "true"), ("x-who", "agent"), ("x-b", "1")];
        assert_eq!(known.head.headers, Headers::from_iter(fields));
        assert_eq!(known.head.target, "/v2/a%20b?x=%31&who=agent%26");
        ready(policy.request(&mut unknown, &Nowhere)).ok().unwrap();
        assert!(!unknown.head.headers.contains("x-who"), "not what the caller says");
        assert_eq!(unknown.head.target, "/v2/a%20b?x=%31");
    }

    #[test]
    fn paths_that_mean_another_are_refused_and_values_that_are_none_absent() {
        let path = transform(r#"{"request":{"path":"request.headers['x-p']"}}"#);
        for (given, expected) in
            [("/a b?c#d%", Some("/a%20b%3Fc%23d%25")), ("/a/../b", None), ("a", None), ("/a\\b", None), ("/..", None)]
        {
            let mut call = call(&[("x-p", given)]);
            let passed = ready(path.request(&mut call, &Nowhere)).is_ok();
            assert_eq!(passed.then_some(&*call.head.target), expected, "{given}");
        }
        let policy = transform(r#"{"request":{"headers":{"set":{"x-a":"'a\\r\\nx-b: 1'"}}}}"#);
        let mut call = call(&[("x-a", "1")]);
        ready(policy.request(&mut call, &Nowhere)).ok().unwrap();
        assert!(call.head.headers.is_empty());
    }

    #[test]
    fn json_bodies_of_requests_are_changed_and_others_refused() {
        let policy = transform(
            r#"{"request":{"body":{"set":{"/user/name":"consumer.name","/n":"1.5","/model":"request.headers['x-m']"},"remove":["/secret"],"limit":"100B"}}}"#,
        );
        let check = |fields: &[(&str, &str)], pieces: &[&str], expected: Result<&str, Refusal>| {
            let mut call = call(fields);
            call.consumer = Some(consumer("agent"));
            let mut memo = ready(policy.request(&mut call, &Nowhere)).ok().unwrap();
            let mut filter = policy.request_body(&mut memo, &mut call.head).unwrap();
            assert!(!filter.keeps_length());
            assert_eq!(run(&mut *filter, pieces), expected.map(str::to_owned), "{fields:?} {pieces:?}");
        };
        let json = ("content-type", "application/json; charset=utf-8");
        let changed = r#"{"model":"m","n":1.5,"user":{"name":"agent"}}"#;
        check(&[json, ("x-m", "m")], &[r#"{"model":"x","sec"#, r#"ret":[1]}"#], Ok(changed));
        // What cannot be evaluated does not leave what was there.
        check(&[json], &[r#"{"model":"x"}"#], Ok(r#"{"n":1.5,"user":{"name":"agent"}}"#));
        check(&[json], &["{", "]"], Err(Refusal::ContentUnusable));
        check(&[json], &[&"x".repeat(101)], Err(Refusal::ContentTooLarge));
        check(&[("content-type", "text/plain")], &["{}"], Err(Refusal::MediaType));
        check(&[], &["{}"], Err(Refusal::MediaType));
        check(&[json, ("content-encoding", "gzip")], &["{}"], Err(Refusal::MediaType));
    }

    #[test]
    fn answers_are_changed_with_the_call_in_view() {
        let policy = transform(
            r#"{"response":{"headers":{"set":{"x-was":"response.status","x-path":"request.path"},"remove":["server"]},
                "status":"response.status == 404 ? 200 : response.status","body":{"remove":["/secret"]}}}"#,
        );
        let check = |status: u16, fields: &[(&str, &str)], expected: Option<Result<&str, Refusal>>| {
            let mut call = call(&[("accept-encoding", "gzip"), ("range", "bytes=0-1")]);
            let mut memo = ready(policy.request(&mut call, &Nowhere)).ok().unwrap();
            assert!(call.head.headers.is_empty(), "it is asked for what can be changed");
            let mut reply = Reply::new(StatusCode::from_u16(status).unwrap());
            reply.headers = Headers::from_iter(fields.iter().copied());
            policy.response(&mut memo, &mut reply);
            assert_eq!(reply.headers.get_str("x-was"), Some(&*status.to_string()));
            assert_eq!((reply.headers.get_str("x-path"), reply.headers.contains("server")), (Some("/"), false));
            assert_eq!(reply.status, if status == 404 { 200 } else { status });
            let filter = policy.response_body(&mut memo, &mut reply);
            let found = filter.map(|mut filter| run(&mut *filter, &[r#"{"a":1,"#, r#""secret":2}"#]));
            assert_eq!(found, expected.map(|it| it.map(str::to_owned)), "{status} {fields:?}");
        };
        let json = ("content-type", "application/json");
        check(200, &[json, ("server", "x")], Some(Ok(r#"{"a":1}"#)));
        check(404, &[json], Some(Ok(r#"{"a":1}"#)));
        check(200, &[("content-type", "text/html")], None);
        check(200, &[json, ("content-encoding", "gzip")], Some(Err(Refusal::AnswerUnusable)));
        check(206, &[json], Some(Err(Refusal::AnswerUnusable)));
    }

    #[test]
    fn what_is_no_change_is_told() {
        let check =
            |spec: &str, path: &str| assert_eq!(errors(&format!(r#"{{"transform":{spec}}}"#)), [path], "{spec}");
        check("{}", "transform");
        check(r#"{"request":{"headers":{"set":{"x-a":"1 +"}}}}"#, "transform.request.headers.set.x-a");
        check(r#"{"request":{"headers":{"set":{"host":"'a'"}}}}"#, "transform.request.headers.set.host");
        check(r#"{"request":{"headers":{"add":{"x-a":"response.status"}}}}"#, "transform.request.headers.add.x-a");
        check(r#"{"request":{"path":"1"}}"#, "transform.request.path");
        check(r#"{"request":{"body":{"set":{"user":"1"}}}}"#, "transform.request.body.set.user");
        check(r#"{"request":{"body":{"remove":[""]}}}"#, "transform.request.body.remove[0]");
        check(r#"{"request":{"body":{}}}"#, "transform.request.body");
        check(r#"{"response":{"body":{"remove":["/a"],"limit":"1GiB"}}}"#, "transform.response.body.limit");
        check(r#"{"response":{"status":"'a'"}}"#, "transform.response.status");
    }
}
