//! Asks somebody else whether a call may pass: a service of Envoy's ext_authz over gRPC, or any that answers a plain
//! HTTP request with a status.
//!
//! What that service may say about the caller must not come from the caller: the fields that it may set for the
//! upstream are taken out of each request first, whatever comes of the question.

mod check;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use base::{Call, Headers, Method, Reply, Span, StatusCode};
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::headers::check_name;
use crate::{Asked, CompileEnv, Outside, Policy, Refusal, Spec, Stop, Told};

/// Somebody else who is asked whether a call may pass. Either `grpc` or `http`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ExternalSpec {
    /// Where a service of Envoy's ext_authz is (`envoy.service.auth.v3.Authorization`): `http://authorizer:9001`,
    /// which is spoken to in HTTP/2 at once, or `https://`. It is not sent bodies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<String>,
    /// A service that says by the status of its answer whether a call may pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<ExternalHttpSpec>,
    /// How long it may take; `1s` if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// What becomes of calls when there is no answer, or none that is to be understood; `closed` if it is not given.
    #[serde(default)]
    pub fail: Fail,
    /// The request's fields that the service is shown; all if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_service: Option<Vec<String>>,
    /// Fields of its answer that become fields of the request to the upstream. What callers send of these names never
    /// reaches the upstream.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to_upstream: Vec<String>,
    /// Fields of its answer that become fields of the answer to a call that passes, such as `set-cookie`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to_client: Vec<String>,
    /// Fields of a denial that the caller gets with it; if it is not given: `content-type`, `location`, `set-cookie`,
    /// `www-authenticate`, `retry-after` and `cache-control`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with_denial: Option<Vec<String>>,
    /// What the service is told besides, over gRPC: `context_extensions`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub context: BTreeMap<String, String>,
}

/// A service that says by the status of its answer whether a call may pass: 2xx lets it pass; 3xx and 4xx deny, and
/// the caller gets that answer; anything else is no answer. It is told of the call by the fields `x-forwarded-method`,
/// `-proto`, `-host`, `-uri` and `-for`, and by `x-weir-consumer` if it is known who calls. It is not sent bodies.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ExternalHttpSpec {
    /// Such as `http://authorizer:4181/verify`.
    pub url: String,
    /// The method of the question, or `original` for that of the call; `GET` if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Whether path and query of the call are appended to the URL.
    #[serde(default)]
    pub append_path: bool,
}

/// What becomes of calls when somebody who is asked does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Fail {
    /// They are refused, with 503.
    #[default]
    Closed,
    /// They pass.
    Open,
}

/// The policy.
#[derive(Debug)]
pub struct External {
    service: Service,
    within: Duration,
    fail: Fail,
    /// In lower case, as are all names here.
    to_service: Option<Vec<String>>,
    to_upstream: Vec<String>,
    to_client: Vec<String>,
    with_denial: Vec<String>,
    context: BTreeMap<String, String>,
}

#[derive(Debug)]
enum Service {
    Grpc { url: String },
    Http { url: String, method: Option<Method>, append_path: bool },
}

/// Fields for the answer to a call that passed.
pub type Memo = Option<Box<Headers>>;

/// What the service said.
enum Verdict {
    Passes { upstream: Vec<Edit>, client: Headers },
    Denied { status: StatusCode, headers: Headers, body: Bytes },
}

/// A change to the request's fields.
enum Edit {
    Remove(String),
    Set(String, Vec<u8>),
    Add(String, Vec<u8>),
}

/// Larger answers are none.
const LARGEST: usize = 64 << 10;

const WITH_DENIAL: [&str; 6] =
    ["content-type", "location", "set-cookie", "www-authenticate", "retry-after", "cache-control"];

/// Of the call's fields, what would speak of the question instead.
const NOT_SHOWN: [&str; 10] = [
    "accept-encoding",
    "content-encoding",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "range",
    "te",
    "trailer",
];

impl Policy for External {
    const NAME: &'static str = "external";
    type Spec = ExternalSpec;
    type Memo = Memo;

    fn compile(spec: &ExternalSpec, env: &mut CompileEnv<'_>) -> Option<External> {
        let ExternalSpec { grpc, http, timeout, fail, to_service, to_upstream, to_client, with_denial, context } = spec;
        let before = env.errors.len();
        let service = match (grpc, http) {
            (Some(url), None) => {
                let url = url.trim_end_matches('/');
                if let Err(message) = check_url(url, false) {
                    env.error("external.grpc", message);
                }
                Some(Service::Grpc { url: format!("{url}/envoy.service.auth.v3.Authorization/Check") })
            }
            (None, Some(ExternalHttpSpec { url, method, append_path })) => {
                if let Err(message) = check_url(url, true) {
                    env.error("external.http.url", message);
                } else if *append_path && url.contains('?') {
                    env.error("external.http.url", "has a query, behind which no path can be appended");
                }
                let method = match method.as_deref() {
                    None => Some(Method::GET),
                    Some("original") => None,
                    Some(name) => match Method::from_bytes(name.as_bytes()) {
                        Ok(method) if method != Method::CONNECT => Some(method),
                        _ => {
                            let message = format!("`{name}` is no method to ask by; expected `GET` or `original`");
                            env.error("external.http.method", message);
                            None
                        }
                    },
                };
                Some(Service::Http { url: url.clone(), method, append_path: *append_path })
            }
            _ => {
                env.error("external", "says not, or twice, who is asked; expected either `grpc` or `http`");
                None
            }
        };
        if timeout.is_some_and(|timeout| timeout.0.is_zero()) {
            env.error("external.timeout", "nobody answers at once; expected at least `1ms`");
        }
        if http.is_some() && !context.is_empty() {
            env.error("external.context", "is for `grpc`; leave it out");
        }
        let mut names = |list: &[String], field: &str| -> Vec<String> {
            for (at, name) in list.iter().enumerate() {
                check_name(name, format!("external.{field}[{at}]"), env);
            }
            list.iter().map(|name| name.to_ascii_lowercase()).collect()
        };
        let to_service = to_service.as_ref().map(|list| names(list, "to-service"));
        let to_upstream = names(to_upstream, "to-upstream");
        let to_client = names(to_client, "to-client");
        let with_denial = match with_denial {
            Some(list) => names(list, "with-denial"),
            None => WITH_DENIAL.map(str::to_owned).into(),
        };
        if env.errors.len() > before {
            return None;
        }
        let within = timeout.map_or(Duration::from_secs(1), |timeout| timeout.0);
        let (fail, context) = (*fail, context.clone());
        Some(External { service: service?, within, fail, to_service, to_upstream, to_client, with_denial, context })
    }

    async fn request(&self, call: &mut Call, outside: &dyn Outside) -> Result<Memo, Stop> {
        if !self.to_upstream.is_empty() {
            call.head.headers.retain(|name, _| !self.to_upstream.iter().any(|it| reads_as(name, it)));
        }
        let asked = match &self.service {
            Service::Grpc { url } => self.asked_grpc(url, call),
            Service::Http { url, method, append_path } => self.asked_http(url, method.as_ref(), *append_path, call),
        };
        let verdict = match outside.ask(asked).await {
            Ok(told) => match &self.service {
                Service::Grpc { .. } => self.told_grpc(&told),
                Service::Http { .. } => self.told_http(told),
            },
            Err(_) => None,
        };
        match verdict {
            Some(Verdict::Passes { upstream, client }) => {
                for edit in upstream {
                    edit.apply(&mut call.head.headers);
                }
                Ok(Some(client).filter(|it| !it.is_empty()).map(Box::new))
            }
            Some(Verdict::Denied { .. }) if is_grpc(call) => Err(Refusal::Forbidden.into()),
            Some(Verdict::Denied { status, headers, body }) => {
                Err(Stop::Answer(Box::new(Reply { status, headers }), body.into()))
            }
            None if self.fail == Fail::Open => Ok(None),
            None => Err(Refusal::Undecided.into()),
        }
    }

    fn response(&self, memo: &mut Memo, reply: &mut Reply) {
        for (name, value) in memo.iter().flat_map(|headers| headers.iter()) {
            // Cookies stand beside those of the upstream.
            if name == "set-cookie" {
                reply.headers.append(name, value);
            } else {
                reply.headers.set(name, value);
            }
        }
    }
}

impl External {
    /// The call's fields that may be shown.
    fn shown<'a>(&'a self, call: &'a Call) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        call.head.headers.iter().filter(|(name, _)| match &self.to_service {
            Some(names) => names.iter().any(|it| it == name),
            None => true,
        })
    }

    fn asked_http(&self, url: &str, method: Option<&Method>, append_path: bool, call: &Call) -> Asked {
        let head = &call.head;
        let is_ours = |name: &str| name.starts_with("x-forwarded-") || name == "forwarded" || name == "x-weir-consumer";
        let shown = self.shown(call).filter(|(name, _)| !NOT_SHOWN.contains(name) && !is_ours(name));
        let mut headers: Headers = shown.collect();
        headers.append("x-forwarded-method", head.method.as_str());
        headers.append("x-forwarded-proto", head.scheme.as_str());
        headers.append("x-forwarded-host", &head.authority);
        headers.append("x-forwarded-uri", &head.target);
        headers.append("x-forwarded-for", call.client.addr.to_string());
        if let Some(consumer) = &call.consumer {
            headers.append("x-weir-consumer", &*consumer.name);
        }
        let url = match append_path {
            // `*`, of OPTIONS, is no path.
            true if head.target.starts_with('/') => format!("{}{}", url.trim_end_matches('/'), head.target),
            _ => url.to_owned(),
        };
        let method = method.unwrap_or(&head.method).clone();
        Asked {
            method,
            url,
            headers,
            body: Bytes::new(),
            within: self.within,
            most: LARGEST,
            prior_knowledge: false,
            authorities: None,
        }
    }

    fn told_http(&self, told: Told) -> Option<Verdict> {
        let Told { status, headers, body, .. } = told;
        let picked = |names: &[String]| -> Headers {
            headers.iter().filter(|(name, _)| names.iter().any(|it| it == name)).collect()
        };
        match status.as_u16() {
            200..300 => {
                let upstream = picked(&self.to_upstream);
                // Those of before were taken out, so each is one of its own.
                let upstream = upstream.iter().map(|(name, value)| Edit::Add(name.into(), value.into())).collect();
                Some(Verdict::Passes { upstream, client: picked(&self.to_client) })
            }
            300..500 => Some(Verdict::Denied { status, headers: picked(&self.with_denial), body }),
            _ => None,
        }
    }

    fn asked_grpc(&self, url: &str, call: &Call) -> Asked {
        let head = &call.head;
        let mut headers = std::collections::HashMap::new();
        for (name, value) in self.shown(call) {
            let joined: &mut String = headers.entry(name.to_owned()).or_default();
            if !joined.is_empty() {
                joined.push_str(if name == "cookie" { "; " } else { ", " });
            }
            joined.push_str(&String::from_utf8_lossy(value));
        }
        // As Envoy has them, beside the fields.
        for (name, value) in [
            (":method", head.method.as_str()),
            (":path", &head.target),
            (":authority", &head.authority),
            (":scheme", head.scheme.as_str()),
        ] {
            headers.insert(name.to_owned(), value.to_owned());
        }
        let http = check::HttpRequest {
            id: headers.get("x-request-id").cloned().unwrap_or_default(),
            method: head.method.to_string(),
            headers,
            path: head.target.clone(),
            host: head.authority.clone(),
            scheme: head.scheme.as_str().to_owned(),
            size: call.length.and_then(|length| i64::try_from(length).ok()).unwrap_or(-1),
            protocol: match head.version {
                base::Version::HTTP_2 => "HTTP/2".to_owned(),
                version => format!("{version:?}"),
            },
        };
        let address = |address: String, port: Option<u16>| {
            let socket_address = Some(check::SocketAddress { address, port_value: port.map(u32::from) });
            Some(check::Address { socket_address })
        };
        let peer = &call.client.peer;
        let principal = call.consumer.as_ref().map_or_else(String::new, |consumer| consumer.name.to_string());
        let request = check::CheckRequest {
            attributes: Some(check::Attributes {
                source: Some(check::Peer {
                    address: address(call.client.addr.to_string(), peer.remote.map(|it| it.port())),
                    principal,
                }),
                destination: peer.local.map(|local| check::Peer {
                    address: address(local.ip().to_string(), Some(local.port())),
                    principal: String::new(),
                }),
                request: Some(check::Request { http: Some(http) }),
                context_extensions: self.context.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
                tls_session: peer
                    .tls
                    .as_ref()
                    .map(|tls| check::TlsSession { sni: tls.sni.clone().unwrap_or_default() }),
            }),
        };
        let mut timeout = String::with_capacity(12);
        let _ = write!(timeout, "{}m", self.within.as_millis().clamp(1, 99_999_999));
        Asked {
            method: Method::POST,
            url: url.to_owned(),
            headers: Headers::from_iter([
                ("content-type", "application/grpc"),
                ("te", "trailers"),
                ("grpc-timeout", &*timeout),
            ]),
            body: check::framed(&request),
            within: self.within,
            most: LARGEST,
            prior_knowledge: true,
            authorities: None,
        }
    }

    fn told_grpc(&self, told: &Told) -> Option<Verdict> {
        let status = told.trailers.as_ref().unwrap_or(&told.headers).get("grpc-status");
        if told.status != StatusCode::OK || status != Some(b"0") {
            return None;
        }
        let check::CheckResponse { status, denied, ok } = check::unframed(&told.body)?;
        let of = |options: &[check::HeaderOption], names: &[String]| -> Option<Vec<(String, Vec<u8>, bool)>> {
            let mut fields = Vec::new();
            for option in options {
                let Some(header) = &option.header else { continue };
                let name = header.key.to_ascii_lowercase();
                if !names.contains(&name) {
                    continue;
                }
                // One that would break the message is no answer to build on.
                let value = Some(header.bytes()).filter(|value| Headers::is_value(value))?;
                fields.push((name, value.to_owned(), option.appends()));
            }
            Some(fields)
        };
        if status.as_ref().is_none_or(|status| status.code == 0) {
            let check::Passed { headers, headers_to_remove, response_headers } = ok.unwrap_or_default();
            let removed = headers_to_remove.iter().filter(|name| Headers::is_name(name)).cloned().map(Edit::Remove);
            let set = of(&headers, &self.to_upstream)?.into_iter().map(|(name, value, appends)| match appends {
                true => Edit::Add(name, value),
                false => Edit::Set(name, value),
            });
            let client = of(&response_headers, &self.to_client)?;
            let client = client.into_iter().map(|(name, value, _)| (name, value)).collect();
            return Some(Verdict::Passes { upstream: removed.chain(set).collect(), client });
        }
        let check::Denied { status, headers, body } = denied.unwrap_or_default();
        let code = status.map_or(0, |status| status.code);
        let status = u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok());
        // A denial that says 200 would look like what was denied.
        let status = status.filter(|status| status.as_u16() >= 300).unwrap_or(StatusCode::FORBIDDEN);
        let fields = of(&headers, &self.with_denial)?;
        let mut headers: Headers = fields.into_iter().map(|(name, value, _)| (name, value)).collect();
        if !body.is_empty() && !headers.contains("content-type") {
            headers.append("content-type", "text/plain");
        }
        Some(Verdict::Denied { status, headers, body: body.into() })
    }
}

impl Edit {
    fn apply(self, headers: &mut Headers) {
        match self {
            Edit::Remove(name) => drop(headers.remove(&name)),
            Edit::Set(name, value) => headers.set(&name, value),
            Edit::Add(name, value) => headers.append(&name, value),
        }
    }
}

/// `http://host:port`, and behind it a path and a query where they mean something.
fn check_url(url: &str, with_path: bool) -> Result<(), String> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let wrong = |what: &str| {
        let example = if with_path { "http://authorizer:4181/verify" } else { "http://authorizer:9001" };
        Err(format!("`{url}` {what}; expected one such as `{example}`"))
    };
    let Some(rest) = rest else { return wrong("is no URL of `http` or `https`") };
    let at = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(at);
    if authority.is_empty()
        || authority.contains('@')
        || !url.bytes().all(|b| b.is_ascii_graphic())
        || url.contains('#')
    {
        return wrong("has no proper host, or what a URL has not");
    }
    if !with_path && !path.is_empty() {
        return wrong("has a path, which gRPC has of its own");
    }
    Ok(())
}

/// Whether an upstream may take one name for the other: many gateways to programs (CGI, WSGI) know no difference
/// between `-` and `_`.
fn reads_as(name: &str, other: &str) -> bool {
    let folded = |b: u8| if b == b'_' { b'-' } else { b };
    name.len() == other.len() && name.bytes().zip(other.bytes()).all(|(a, b)| folded(a) == folded(b))
}

fn is_grpc(call: &Call) -> bool {
    let kind = call.head.headers.get("content-type").and_then(|it| it.strip_prefix(b"application/grpc"));
    kind.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

impl Spec for ExternalSpec {
    const EXPECTED: &'static str = "`none`, or who is asked, such as `grpc: http://authorizer:9001`";
}

#[cfg(test)]
mod tests;
