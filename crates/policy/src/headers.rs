//! Changes to the fields of requests and responses.

use std::collections::BTreeMap;

use base::{Call, Headers, Reply};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{CompileEnv, Outside, Policy, Spec, Stop};

/// Changes to the fields of requests and responses.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HeadersSpec {
    /// Changes to what the upstream gets.
    #[serde(default)]
    pub request: EditsSpec,
    /// Changes to what the caller gets.
    #[serde(default)]
    pub response: EditsSpec,
}

/// Changes to the fields of one message: first `remove`, then `set`, then `add`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct EditsSpec {
    /// Fields to be there once with this value, whatever was there before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// Fields to be there besides those of the same name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub add: BTreeMap<String, String>,
    /// Names of fields to be taken out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

/// The policy.
#[derive(Debug)]
pub struct HeaderEdits {
    request: EditsSpec,
    response: EditsSpec,
}

impl Policy for HeaderEdits {
    const NAME: &'static str = "headers";
    type Spec = HeadersSpec;
    type Memo = ();

    fn compile(spec: &HeadersSpec, env: &mut CompileEnv<'_>) -> Option<HeaderEdits> {
        let HeadersSpec { request, response } = spec;
        let before = env.errors.len();
        request.check("headers.request", env);
        response.check("headers.response", env);
        (env.errors.len() == before).then(|| HeaderEdits { request: request.clone(), response: response.clone() })
    }

    async fn request(&self, call: &mut Call, _: &dyn Outside) -> Result<(), Stop> {
        self.request.apply(&mut call.head.headers);
        Ok(())
    }

    fn response(&self, _: &mut (), reply: &mut Reply) {
        self.response.apply(&mut reply.headers);
    }
}

// === impl EditsSpec ===

impl EditsSpec {
    fn apply(&self, headers: &mut Headers) {
        let EditsSpec { set, add, remove } = self;
        for name in remove {
            headers.remove(name);
        }
        for (name, value) in set {
            headers.set(name, value);
        }
        for (name, value) in add {
            headers.append(name, value);
        }
    }

    fn check(&self, path: &str, env: &mut CompileEnv<'_>) {
        let EditsSpec { set, add, remove } = self;
        for (kind, fields) in [("set", set), ("add", add)] {
            for (name, value) in fields {
                let path = format!("{path}.{kind}.{name}");
                if !Headers::is_value(value.as_bytes()) {
                    env.error(&*path, "not a field value; expected text without line breaks or space at either end");
                }
                check_name(name, path, env);
            }
        }
        for (at, name) in remove.iter().enumerate() {
            check_name(name, format!("{path}.remove[{at}]"), env);
        }
    }
}

pub(crate) fn check_name(name: &str, path: String, env: &mut CompileEnv<'_>) {
    if !Headers::is_name(name) {
        env.error(path, format!("`{name}` is not a field name; expected one such as `x-team`"));
        return;
    }
    let lower = name.to_ascii_lowercase();
    if let Some((_, instead)) = RESERVED.iter().find(|(reserved, _)| *reserved == lower) {
        env.error(path, format!("`{name}` is not for editing: {instead}"));
    }
}

impl Spec for HeadersSpec {
    const EXPECTED: &'static str =
        "`none`, or edits of `request` and `response`, such as `request: { set: { x-team: research } }`";
}

/// Fields of the connection and of the framing, which the gateway writes itself, and what would be right.
const RESERVED: [(&str, &str); 9] = [
    ("connection", "it speaks of one connection; expected fields that speak of the message"),
    ("keep-alive", "it speaks of one connection; expected fields that speak of the message"),
    ("proxy-connection", "it speaks of one connection; expected fields that speak of the message"),
    ("te", "it speaks of one connection; expected fields that speak of the message"),
    ("trailer", "it belongs to the framing, which follows the body; leave it out"),
    ("transfer-encoding", "it belongs to the framing, which follows the body; leave it out"),
    ("content-length", "it belongs to the framing, which follows the body; leave it out"),
    ("upgrade", "upgrades are negotiated with each end; leave it out"),
    ("host", "the authority is the upstream's business; leave it out"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Nowhere;
    use crate::testing::{call, compile, errors, ready};
    use base::StatusCode;

    #[test]
    fn edits_remove_then_set_then_add() {
        let check = |edits: &str, expected: &[(&str, &str)]| {
            let expected = Headers::from_iter(expected.iter().copied());
            let given = [("x-a", "1"), ("x-b", "2"), ("x-a", "3")];
            let policy =
                compile(&format!(r#"{{"headers":{{"request":{edits},"response":{edits}}}}}"#)).headers.unwrap();
            let mut call = call(&given);
            ready(policy.request(&mut call, &Nowhere)).unwrap();
            assert_eq!(call.head.headers, expected, "{edits}");
            let mut reply = Reply::new(StatusCode::OK);
            reply.headers = Headers::from_iter(given);
            policy.response(&mut (), &mut reply);
            assert_eq!(reply.headers, expected, "{edits}");
        };
        check("{}", &[("x-a", "1"), ("x-b", "2"), ("x-a", "3")]);
        check(r#"{"set":{"X-A":"4"}}"#, &[("x-b", "2"), ("x-a", "4")]);
        check(r#"{"add":{"x-b":"4"}}"#, &[("x-a", "1"), ("x-b", "2"), ("x-a", "3"), ("x-b", "4")]);
        check(r#"{"remove":["X-a","x-c"]}"#, &[("x-b", "2")]);
        check(r#"{"remove":["x-a"],"add":{"x-a":"5"},"set":{"x-b":""}}"#, &[("x-b", ""), ("x-a", "5")]);
    }

    #[test]
    fn what_is_not_a_field_or_not_theirs_is_told() {
        let check = |headers: &str, path: &str| {
            assert_eq!(errors(&format!(r#"{{"headers":{headers}}}"#)), [path], "{headers}");
        };
        check(r#"{"request":{"set":{"a b":"1"}}}"#, "headers.request.set.a b");
        check(r#"{"request":{"add":{"x-a":"1\r\nx-b: 2"}}}"#, "headers.request.add.x-a");
        check(r#"{"response":{"set":{"Content-Length":"1"}}}"#, "headers.response.set.Content-Length");
        check(r#"{"response":{"remove":["x-a","connection"]}}"#, "headers.response.remove[1]");
        check(r#"{"request":{"set":{":path":"/"}}}"#, "headers.request.set.:path");
        for (name, _) in RESERVED {
            check(&format!(r#"{{"request":{{"remove":["{name}"]}}}}"#), "headers.request.remove[0]");
        }
    }
}
