//! A call and its reply as the policies see them: heads, who is at the other end, what was found out.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use http::{Method, StatusCode, Version};

use crate::{Headers, ModelCall, Time};

/// The head of a request, whatever version of HTTP carried it.
#[derive(Clone, Debug)]
pub struct RequestHead {
    pub method: Method,
    pub scheme: Scheme,
    /// Host and optional port: from `:authority`, an absolute target or `Host`; it is not among the headers.
    pub authority: String,
    /// Path and query, as received: `/a%20b?x=1`; `*` for `OPTIONS *`.
    pub target: String,
    pub version: Version,
    pub headers: Headers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

#[derive(Clone, Debug)]
pub struct ResponseHead {
    pub status: StatusCode,
    pub headers: Headers,
}

/// One call on its way through the policies.
#[derive(Clone, Debug)]
pub struct Call {
    pub head: RequestHead,
    pub client: Client,
    /// When its head had been read. Policies take their time from here, so that a test can hold it.
    pub now: Time,
    /// The same moment by the calendar.
    pub wall: SystemTime,
    /// The route that took it; set before any policy is asked.
    pub place: Option<Arc<Place>>,
    /// How long its body is, where that is told beforehand; 0 if there is none.
    pub length: Option<u64>,
    /// Who calls; set by `authenticate`.
    pub consumer: Option<Arc<Consumer>>,
    /// What people call the key that it presented; not secret.
    pub credential: Option<Arc<str>>,
    /// What a verified token says; set by `authenticate`.
    pub claims: Option<Arc<Claims>>,
    /// It is for a model: what it asks is understood later, and policies are heard again then.
    pub to_model: bool,
    /// What it asks of a model, once that is understood.
    pub model: Option<Box<ModelCall>>,
}

/// What the issuer of a token vouches for, as JSON.
pub type Claims = serde_json::Map<String, serde_json::Value>;

/// Where in the document a call ended up, by the names people gave.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    pub api: Arc<str>,
    pub route: Arc<str>,
}

/// The answer on its way back through the policies.
pub type Reply = ResponseHead;

/// Who is at the other end of the connection, and whom it speaks for.
#[derive(Clone, Debug)]
pub struct Client {
    /// The caller's address: the connection's, or what a trusted proxy said of it.
    pub addr: IpAddr,
    pub peer: Arc<Peer>,
}

/// What is known of a connection for as long as it lasts.
#[derive(Debug)]
pub struct Peer {
    /// The other end of the socket, or of what a PROXY header told; `None` for a Unix socket.
    pub remote: Option<SocketAddr>,
    pub local: Option<SocketAddr>,
    pub tls: Option<TlsInfo>,
}

#[derive(Clone, Debug, Default)]
pub struct TlsInfo {
    pub sni: Option<String>,
    pub alpn: Option<String>,
    pub version: String,
    /// The client's verified certificates, its own first, in DER.
    pub client: Vec<Vec<u8>>,
    /// By what the client's own can be known, such as `dns:agent.internal`; read by who first wants to know.
    pub names: OnceLock<Vec<String>>,
}

/// An agent, a service or a person that calls.
#[derive(Debug, PartialEq, Eq)]
pub struct Consumer {
    /// Its place among the consumers of the snapshot; [`Consumer::STRANGER`] if only a token knows it.
    pub index: u32,
    pub name: Arc<str>,
    pub team: Option<Arc<str>>,
}

impl Call {
    /// One of which nothing more is known than what came in.
    pub fn new(head: RequestHead, client: Client, now: Time, wall: SystemTime) -> Call {
        Call {
            head,
            client,
            now,
            wall,
            place: None,
            length: Some(0),
            consumer: None,
            credential: None,
            claims: None,
            to_model: false,
            model: None,
        }
    }
}

impl Consumer {
    pub const STRANGER: u32 = u32::MAX;
}

impl RequestHead {
    /// The path without the query.
    pub fn path(&self) -> &str {
        self.mark().map_or(&self.target, |mark| &self.target[..mark])
    }

    pub fn query(&self) -> Option<&str> {
        self.mark().map(|mark| &self.target[mark + 1..])
    }

    /// Where the query begins. Targets are short: a plain loop is quicker than what is made for long texts.
    fn mark(&self) -> Option<usize> {
        self.target.bytes().position(|byte| byte == b'?')
    }

    /// The authority without its port: `[::1]` for `[::1]:80`.
    pub fn host(&self) -> &str {
        match self.authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') && port.bytes().all(|b| b.is_ascii_digit()) => host,
            _ => &self.authority,
        }
    }
}

impl Scheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

impl ResponseHead {
    pub fn new(status: StatusCode) -> ResponseHead {
        ResponseHead { status, headers: Headers::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(authority: &str, target: &str) -> RequestHead {
        RequestHead {
            method: Method::GET,
            scheme: Scheme::Http,
            authority: authority.into(),
            target: target.into(),
            version: Version::HTTP_11,
            headers: Headers::new(),
        }
    }

    #[test]
    fn host_leaves_the_port_out() {
        for (authority, host) in
            [("a.b:80", "a.b"), ("a.b", "a.b"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("", ""), ("a:", "a")]
        {
            assert_eq!(head(authority, "/").host(), host, "{authority}");
        }
    }

    #[test]
    fn path_and_query_part_at_the_first_question_mark() {
        let head = head("h", "/a?b?c");
        assert_eq!((head.path(), head.query()), ("/a", Some("b?c")));
    }
}
