//! The door: who may come in, which resource is meant, and what is said of everything else.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use awareness::Arrival;
use base::{Method, Peer, RequestHead, ResponseHead, StatusCode, Time};
use bytes::{Bytes, BytesMut};
use config::Admin;
use rustls::ServerConfig;
use subtle::ConstantTimeEq;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use transport::listen::{Listening, Stream};
use transport::{Body, Drain, Frame, Handler, Io, Pace, Request, Response, drain, h1};

use super::answer::{Answer, Asked, Problem};
use super::registry::{Registry, Resource};
use crate::running::Running;

/// Serves until the sender is dropped.
pub async fn serve(running: Arc<Running>, listening: Listening, mut stopped: oneshot::Receiver<()>) {
    let mut acceptor = match listening.acceptors(0).map(|mut it| it.pop()) {
        Ok(Some(acceptor)) => acceptor.with_spare(),
        Ok(None) => return,
        Err(error) => return tracing::error!(%error, "no admin API"),
    };
    let tls = running.admin_tls().unwrap_or_default();
    let (_drainer, drain) = drain();
    let mut connections: JoinSet<()> = JoinSet::new();
    let registry = Rc::new(Registry::new());
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            stream = acceptor.accept(), if connections.len() < CONNECTIONS => {
                let door = Door { running: running.clone(), registry: registry.clone() };
                connections.spawn_local(accepted(door, stream, tls.clone(), drain.clone()));
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    connections.shutdown().await;
}

/// Shakes hands by what is in force now; a Unix socket needs no TLS.
async fn accepted(door: Door, stream: Stream, tls: Arc<ArcSwapOption<ServerConfig>>, drain: Drain) {
    let (remote, local) = (stream.peer_addr(), stream.local_addr());
    let peer = |tls| Arc::new(Peer { remote, local, tls });
    let Some(config) = tls.load_full().filter(|_| remote.is_some()) else {
        return connection(door, stream, peer(None), drain).await;
    };
    match transport::tls::accept(stream, &ArcSwap::new(config), PATIENCE).await {
        Ok((stream, info)) => connection(door, stream, peer(Some(info)), drain).await,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            tracing::info!(remote = ?remote, %error, cause, "nobody came in to the admin API");
        }
    }
}

async fn connection<I: Io + 'static>(door: Door, io: I, peer: Arc<Peer>, drain: Drain) {
    let arrival = Arrival { accepted: Time::now(), first: true, ..Arrival::default() };
    let accepted = h1::Accepted { io, read: BytesMut::new(), peer, arrival };
    let settings = h1::Settings {
        limits: h1::HeadLimits::new(32 * 1024, 64),
        head_timeout: PATIENCE,
        idle_timeout: Duration::from_secs(60),
        pace: Pace::new(PATIENCE, 100),
        requests: u32::MAX,
    };
    h1::serve(accepted, &door, &settings, &drain, || false).await;
}

#[derive(Clone)]
struct Door {
    running: Arc<Running>,
    registry: Rc<Registry>,
}

impl Handler for Door {
    async fn handle(&self, request: Request) -> Response {
        respond(self.answer(request).await.unwrap_or_else(Refusal::answer))
    }

    fn refuse(&self, status: StatusCode, why: &'static str, _: &Arc<Peer>, _: Arrival) -> Response {
        respond(Refusal::from(Problem::new(status.as_u16(), why)).answer())
    }
}

/// A problem, and which methods would do where it was that.
struct Refusal {
    problem: Box<Problem>,
    allow: Option<String>,
    challenge: bool,
}

impl Door {
    async fn answer(&self, request: Request) -> Result<(Answer, Option<String>, bool), Refusal> {
        let Request { head, body, peer, .. } = request;
        let admin = self.running.admin().ok_or_else(Problem::stopping)?;
        admit(&admin, &head, &peer)?;
        let (resource, params) = self.find(&head)?;
        let query = query(head.query().unwrap_or_default(), resource)?;
        let body = whole(body).await?;
        let (running, run, headers) = (self.running.clone(), resource.run, head.headers);
        // A reload waits for workers and reads files; meanwhile others are answered.
        let answered =
            tokio::task::spawn_blocking(move || run(&Asked { running: &running, params, query, headers, body }));
        match answered.await {
            Ok(answer) => Ok((answer?, None, false)),
            Err(error) => {
                tracing::error!(%error, "a panic in the admin API");
                Err(Problem::new(500, "this is a fault of weir; its log says more").into())
            }
        }
    }

    fn find(&self, head: &RequestHead) -> Result<(&Resource, Vec<String>), Refusal> {
        let there = self.registry.at(head.path());
        if there.is_empty() {
            return Err(Problem::new(404, "nothing is here; /openapi.json says what there is").into());
        }
        let wanted = if head.method == Method::HEAD { &Method::GET } else { &head.method };
        let allow: Vec<_> = there.iter().map(|(resource, _)| resource.method.as_str()).collect();
        let allow = allow.join(", ");
        there.into_iter().find(|(resource, _)| resource.method == wanted).ok_or_else(|| Refusal {
            problem: Box::new(Problem::new(405, format!("{} cannot be done to this; {allow} can", head.method))),
            allow: Some(allow),
            challenge: false,
        })
    }
}

/// Whoever may open the socket may come in; over IP, whoever shows the token. Browsers may not: a page from
/// elsewhere could make them ask, by a name that it made point here.
fn admit(admin: &Admin, head: &RequestHead, peer: &Peer) -> Result<(), Refusal> {
    let over_ip = peer.remote.is_some();
    if over_ip && !is_ours(head.host(), &admin.hosts) {
        let detail = format!("`{}` is not a name of this node; add it to `admin.hosts`", head.host());
        return Err(Problem::new(421, detail).into());
    }
    let cross = head.headers.get("sec-fetch-site").is_some_and(|site| site != b"none");
    if head.headers.contains("origin") || cross {
        return Err(Problem::new(403, "this is not for web pages").into());
    }
    let Some(token) = &admin.token else {
        // The document has a token for every IP address; should it not, nobody comes in.
        return if over_ip { Err(Problem::new(403, "the node has no token").into()) } else { Ok(()) };
    };
    let shown = head.headers.get("authorization").and_then(|value| {
        let (scheme, shown) = value.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| shown.trim_ascii())
    });
    if shown.is_some_and(|shown| bool::from(shown.ct_eq(token.expose()))) {
        return Ok(());
    }
    Err(Refusal {
        problem: Box::new(Problem::new(401, "expected `Authorization: Bearer` with the token of `admin.token`")),
        allow: None,
        challenge: true,
    })
}

fn is_ours(host: &str, names: &[String]) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<std::net::IpAddr>().is_ok()
        || host.eq_ignore_ascii_case("localhost")
        || names.iter().any(|name| name.eq_ignore_ascii_case(host))
}

fn query(text: &str, resource: &Resource) -> Result<Vec<(String, String)>, Problem> {
    let mut query = Vec::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decoded(&name.replace('+', " ")), decoded(&value.replace('+', " ")));
        let (Some(name), Some(value)) = (name, value) else {
            return Err(Problem::new(400, "the query is not UTF-8"));
        };
        if !resource.query.iter().any(|known| known.name == name) {
            let names: Vec<_> = resource.query.iter().map(|known| known.name).collect();
            let known = if names.is_empty() { "there is none".into() } else { names.join(", ") };
            return Err(Problem::new(400, format!("no query parameter is called `{name}`; known: {known}")));
        }
        query.push((name, value));
    }
    Ok(query)
}

/// Percent signs taken back; `None` of what is not UTF-8 then.
pub fn decoded(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(out).ok()
}

async fn whole(mut body: Body) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(Frame::Data(data)) if bytes.len() + data.len() <= BODY => bytes.extend_from_slice(&data),
            Ok(Frame::Data(_)) => return Err(Problem::new(413, format!("more than {BODY} bytes"))),
            Ok(Frame::Trailers(_)) => {}
            Err(error) => return Err(Problem::new(400, error.to_string())),
        }
    }
    Ok(bytes)
}

fn respond((answer, allow, challenge): (Answer, Option<String>, bool)) -> Response {
    let Answer { status, kind, body, etag } = answer;
    let mut head = ResponseHead::new(status);
    if status != StatusCode::NOT_MODIFIED {
        head.headers.append("content-type", kind);
    }
    // Nobody in between keeps it, and no browser guesses what it is.
    head.headers.append("cache-control", "no-store");
    head.headers.append("x-content-type-options", "nosniff");
    if let Some(etag) = etag {
        head.headers.append("etag", etag);
    }
    if let Some(allow) = allow {
        head.headers.append("allow", allow);
    }
    if challenge {
        head.headers.append("www-authenticate", "Bearer");
    }
    Response::new(head, Body::from(Bytes::from(body)))
}

// === impl Refusal ===

impl Refusal {
    fn answer(self) -> (Answer, Option<String>, bool) {
        (self.problem.answer(), self.allow, self.challenge)
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Refusal {
        Refusal { problem: Box::new(problem), allow: None, challenge: false }
    }
}

const CONNECTIONS: usize = 64;
const PATIENCE: Duration = Duration::from_secs(10);
/// More than any document has.
const BODY: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use base::{Headers, Scheme, Secret, Version};
    use config::AdminPlace;

    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    /// The status with which a request is turned away; 200 if it is not.
    fn check(ip: bool, token: bool, host: &str, fields: &[(&str, &str)]) -> u16 {
        let mut headers = Headers::new();
        fields.iter().for_each(|(name, value)| headers.append(name, value));
        let head = RequestHead {
            method: Method::GET,
            scheme: Scheme::Http,
            authority: host.into(),
            target: "/".into(),
            version: Version::HTTP_11,
            headers,
        };
        let remote = ip.then(|| ([127, 0, 0, 1], 4000).into());
        let admin = Admin {
            place: AdminPlace::Usual,
            token: token.then(|| Secret::new(TOKEN.as_bytes())),
            hosts: vec!["weir.internal".into()],
            tls: None,
        };
        admit(&admin, &head, &Peer { remote, local: None, tls: None }).map_or_else(|it| it.problem.status, |()| 200)
    }

    #[test]
    fn only_who_shows_the_token_comes_in_over_ip() {
        let right = ("authorization", "Bearer 0123456789abcdef");
        assert_eq!(check(true, true, "127.0.0.1:9901", &[right]), 200);
        assert_eq!(check(true, true, "[::1]:9901", &[("authorization", "bearer 0123456789abcdef")]), 200);
        assert_eq!(check(true, true, "localhost", &[]), 401);
        for wrong in ["Bearer 0123456789abcdeX", "Bearer ", "Basic 0123456789abcdef", "0123456789abcdef", "Bearer"] {
            assert_eq!(check(true, true, "127.0.0.1", &[("authorization", wrong)]), 401, "{wrong}");
        }
        assert_eq!(check(true, false, "127.0.0.1", &[right]), 403);
        // A socket needs no token, but is asked for one that is there.
        assert_eq!(check(false, false, "anything", &[]), 200);
        assert_eq!(check(false, true, "anything", &[]), 401);
    }

    #[test]
    fn a_page_in_a_browser_is_kept_out() {
        let right = ("authorization", "Bearer 0123456789abcdef");
        assert_eq!(check(true, true, "rebound.example:9901", &[right]), 421);
        assert_eq!(check(true, true, "WEIR.internal:9901", &[right]), 200);
        assert_eq!(check(true, true, "127.0.0.1", &[right, ("origin", "http://127.0.0.1")]), 403);
        assert_eq!(check(false, false, "x", &[("sec-fetch-site", "same-origin")]), 403);
        assert_eq!(check(false, false, "x", &[("sec-fetch-site", "none")]), 200);
    }

    #[test]
    fn percent_signs_are_taken_back_once() {
        for (text, expected) in [("a%20b", "a b"), ("%2525", "%25"), ("%", "%"), ("%zz%4", "%zz%4"), ("%C3%A9", "é")] {
            assert_eq!(decoded(text).as_deref(), Some(expected));
        }
        assert_eq!(decoded("%ff"), None);
    }
}
