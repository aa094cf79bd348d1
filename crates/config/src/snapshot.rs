//! What a node runs on: the document, checked and compiled. No optional is left that has a default.
//!
//! Immutable and shared by all workers. Only [`crate::compile`] can make one, and only of a valid document.

mod models;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base::{Consumer, Headers, Method, Percent, Place, RequestHead, Scheme, Secret, StatusCode};
use ipnet::IpNet;
use ledger::Books;
use policy::{Credentials, Policies};

use crate::discovery::Discovery;
use crate::router::{Found, Router};

pub use models::{Candidate, Choose, Ledger, Llm, Model, Models, Provider, ProviderKey, Sync};

pub struct Snapshot {
    pub revision: Revision,
    pub node: Node,
    pub listeners: Vec<Arc<Listener>>,
    pub upstreams: Vec<Arc<Upstream>>,
    pub apis: Vec<Arc<Api>>,
    pub routes: Vec<Arc<Route>>,
    pub consumers: Vec<Arc<Consumer>>,
    /// By what they are known.
    pub credentials: Arc<Credentials>,
    pub stores: Vec<Arc<SharedStore>>,
    pub models: Models,
    /// Prices and budgets; what is spent goes on from one snapshot to the next.
    pub books: Arc<Books>,
    pub ledger: Ledger,
    pub telemetry: Telemetry,
    pub admin: Admin,
    /// From a request's head to the route that takes it.
    pub router: Router,
    /// The policies of each place as written there; the next snapshot takes their state from here.
    pub(crate) written: Vec<Arc<Policies>>,
}

impl Snapshot {
    /// Whether the document has somebody or something of that name to which calls may be booked: a consumer, a team, a key,
    /// an api.
    pub fn is_named(&self, name: &str) -> bool {
        let of_consumer = |it: &Arc<Consumer>| *it.name == *name || it.team.as_deref() == Some(name);
        self.consumers.iter().any(of_consumer)
            || self.credentials.keys.ids().any(|id| id == name)
            || self.apis.iter().any(|api| *api.name == *name)
    }

    /// The route that takes a request. A preflight comes to where the call would come that it asks for, if pages of
    /// other origins may call there.
    pub fn find(&self, listener: usize, head: &RequestHead) -> Option<(&Arc<Route>, Found)> {
        let find = |head: &RequestHead| {
            let found = self.router.find(listener, head)?;
            Some((self.routes.get(found.route.0 as usize)?, found))
        };
        let found = find(head);
        if head.method != Method::OPTIONS || !policy::is_preflight(head) {
            return found;
        }
        let has_cors = |route: &Route| route.policies.cors.is_some();
        if found.as_ref().is_some_and(|(route, _)| has_cors(route)) {
            return found;
        }
        let asked = head.headers.get("access-control-request-method").and_then(|it| Method::from_bytes(it).ok());
        let asked = asked.and_then(|method| find(&RequestHead { method, ..head.clone() }));
        asked.filter(|(route, _)| has_cors(route)).or(found)
    }
}

/// Which document this is.
#[derive(Clone, Debug)]
pub struct Revision {
    /// The first 12 hex digits of the SHA-256 of the document's text.
    pub hash: String,
    /// The document's path, or `-` for standard input.
    pub source: String,
}

/// What concerns the process as a whole.
pub struct Node {
    /// Worker threads; one a core unless the document says otherwise.
    pub workers: usize,
    /// How long calls may go on after SIGTERM, or on a listener that disappeared.
    pub drain: Duration,
    /// How long calls may go on once another process has taken this one's place; without end if absent.
    pub retire: Option<Duration>,
    /// Where this node stands.
    pub zone: Option<Arc<str>>,
    /// Connections of clients that may be open at once; absent, what the limit of open files leaves.
    pub connections: Option<u32>,
    /// Bytes of memory for the answers that are kept.
    pub cache_memory: usize,
    /// Where they are kept over a restart.
    pub cache_disk: Option<CacheDisk>,
    pub dns: Dns,
}

/// A folder for the answers that are kept, and bytes that they may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheDisk {
    pub folder: PathBuf,
    pub size: u64,
}

/// How names are resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// None for the system's.
    pub servers: Vec<SocketAddr>,
    /// How long an answer is used beyond its time to live while no server answers; without end if absent.
    pub stale: Option<Duration>,
    /// The same, once a server says that there is nothing.
    pub gone: Duration,
}

/// A store that nodes share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedStore {
    pub name: Arc<str>,
    /// Without brackets.
    pub host: String,
    pub port: u16,
    pub tls: bool,
    pub authorities: Option<Vec<u8>>,
    pub database: u32,
    pub user: Option<String>,
    pub password: Option<Secret>,
    pub timeout: Duration,
    /// How many nodes there are as long as it has not told.
    pub nodes: u32,
}

/// Where the node is operated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    pub place: AdminPlace,
    /// What a request must show. There always is one for an IP address.
    pub token: Option<Secret>,
    /// Names an IP address may be called by, beside `localhost` and addresses; in lower case.
    pub hosts: Vec<String>,
    pub tls: Option<ServerTls>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminPlace {
    /// A socket where the commands look for one.
    Usual,
    At(Address),
    Nowhere,
}

// === The way in ===

pub struct Listener {
    pub name: Arc<str>,
    pub address: Address,
    pub tls: Option<ServerTls>,
    /// A PROXY protocol header (v1 or v2) must open every connection.
    pub proxy_protocol: bool,
    /// Peers whose `Forwarded` and `X-Forwarded-*` are believed.
    pub trusted_proxies: Vec<IpNet>,
    pub limits: HttpLimits,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    Ip(SocketAddr),
    Unix(PathBuf),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Bytes of a request's head, first line included.
    pub head: usize,
    /// Fields of a request's head.
    pub fields: usize,
    /// To read a whole head, counted from its first byte.
    pub head_timeout: Duration,
    /// Between two requests of a connection.
    pub idle_timeout: Duration,
    /// Silence of an HTTP/2 client after which it is asked whether it is there.
    pub ping: Option<Duration>,
    /// Until it has to be heard of then.
    pub ping_timeout: Duration,
    /// Between two pieces of a request's body, and for a client that stopped reading.
    pub body_timeout: Duration,
    /// Bytes a second that a client has to move while it is waited for.
    pub min_rate: u64,
    /// Streams a client may have open on one HTTP/2 connection.
    pub streams: u32,
    /// Requests that one connection may bring.
    pub requests: u32,
    /// Connections that may be open at once.
    pub connections: Option<u32>,
    /// The same, of one address.
    pub connections_per_address: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// Where the document says so: `listeners.web.tls`.
    pub at: String,
    /// The first serves clients that name no host, or one that none covers.
    pub certificates: Vec<Certificate>,
    pub acme: Option<Acme>,
    pub client: Option<ClientCertificates>,
    /// TLS 1.2 is accepted beside 1.3.
    pub tls12: bool,
}

/// A certificate that an authority is to issue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acme {
    pub directory: String,
    /// In PEM; `None` for the system's.
    pub authorities: Option<Arc<[u8]>>,
    pub contact: Vec<String>,
    /// In lower case, at least one.
    pub domains: Vec<String>,
    pub challenge: AcmeChallenge,
    pub external_account: Option<ExternalAccount>,
    /// Where it is kept.
    pub data: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcmeChallenge {
    TlsAlpn01,
    Http01,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalAccount {
    pub id: String,
    pub key: Secret,
}

impl Acme {
    /// The same names of the same authority, however it is asked.
    pub fn is_same_certificate(&self, other: &Acme) -> bool {
        self.directory == other.directory && self.domains == other.domains && self.data == other.data
    }
}

/// A certificate chain and its key, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    pub at: String,
    pub chain: Vec<u8>,
    pub key: Secret,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificates {
    /// Authorities in PEM.
    pub authorities: Vec<u8>,
    /// Revocation lists in PEM; empty for none.
    pub revoked: Vec<u8>,
    /// Without a certificate the handshake fails; otherwise the client stays anonymous.
    pub required: bool,
}

// === The way through ===

pub struct Api {
    pub index: u32,
    pub name: Arc<str>,
}

pub struct Route {
    /// Its place in [`Snapshot::routes`].
    pub index: u32,
    pub api: Arc<Api>,
    /// `orders/0`, or the name the document gives.
    pub name: Arc<str>,
    /// Both names, for the calls that come here.
    pub place: Arc<Place>,
    /// Where the document says so: `apis.orders.routes[0]`.
    pub at: String,
    /// Its match in one line, as `weir explain` prints it.
    pub summary: String,
    /// Tells the answers of this route from those of others, and from its own where it led elsewhere; the same over
    /// reloads and restarts.
    pub scope: [u8; 16],
    pub policies: Arc<Policies>,
    pub action: Action,
}

pub enum Action {
    Forward(Box<Forward>),
    Models(Box<Llm>),
    Redirect(Redirect),
    Respond(Respond),
}

pub struct Forward {
    /// Candidates with their weights; a single one in most routes. Weights above zero.
    pub split: Vec<Weighted>,
    pub mirror: Option<Mirror>,
    pub rewrite: Rewrite,
    pub timeouts: Timeouts,
    pub retry: Retry,
    /// The upstream is told for whom a call is (`Forwarded`, `X-Forwarded-*`).
    pub forwarded: bool,
}

#[derive(Clone)]
pub struct Weighted {
    pub upstream: Arc<Upstream>,
    pub weight: u32,
}

pub struct Mirror {
    pub upstream: Arc<Upstream>,
    pub share: Percent,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    pub path: Option<PathRewrite>,
    /// `Host` sent upstream. Without it the caller's host is kept.
    pub host: Option<HostRewrite>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    /// The whole path, parameters of the template filled in: `/v1/{id}`.
    Full(String),
    /// The matched prefix becomes this one.
    Prefix(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostRewrite {
    /// The endpoint's own name.
    Endpoint,
    To(String),
}

pub struct Redirect {
    pub status: StatusCode,
    pub scheme: Option<Scheme>,
    pub host: Option<String>,
    pub port: Option<u16>,
    pub path: Option<PathRewrite>,
}

pub struct Respond {
    pub status: StatusCode,
    pub headers: Headers,
    pub body: Vec<u8>,
}

// === The way out ===

pub struct Upstream {
    /// Its place in [`Snapshot::upstreams`].
    pub index: u32,
    pub name: Arc<str>,
    pub endpoints: Vec<Endpoint>,
    /// Where more are asked for.
    pub discoveries: Vec<Discovery>,
    /// The node's own zone, where it is preferred.
    pub own_zone: Option<Arc<str>>,
    pub balance: Balance,
    pub health: Option<Health>,
    pub retry: Retry,
    pub timeouts: Timeouts,
    pub protocol: Protocol,
    pub tls: Option<ClientTls>,
    pub connections: Connections,
    /// Which endpoints are left out for a while; `None` for none ever.
    pub eject: Option<Eject>,
    /// When the upstream as a whole is left alone for a while.
    pub breaker: Option<Breaker>,
    pub limits: Option<Limits>,
    /// A group of endpoints of which less than this share is well gives calls away to the next.
    pub spill_below: Percent,
    /// For how long an endpoint that is new or well again gets less than its share; zero for not at all.
    pub slow_start: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// As written: `https://orders-a.internal:8443`.
    pub url: Arc<str>,
    pub address: Destination,
    pub tls: bool,
    /// `Host` for this endpoint, and its name in TLS: `orders-a.internal:8443`.
    pub authority: String,
    /// A path in the URL, put before the call's path; empty for none, never ends with `/`.
    pub base_path: String,
    pub weight: u32,
    pub zone: Option<Arc<str>>,
    pub priority: u32,
    /// Among equals of that: the priority of its SRV record, 0 where there is none.
    pub order: u16,
    /// Its group, from 0: by priority and order, and among equals the node's own zone first.
    pub level: u32,
    /// The document says that it gets no new calls.
    pub drain: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eject {
    pub circuit: Circuit,
    /// At most this share of the endpoints at once, but one always.
    pub most: Percent,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breaker {
    pub circuit: Circuit,
    /// Calls that try whether it is well again.
    pub trials: u32,
}

/// When something that fails is left alone, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Circuit {
    /// Failures in a row.
    pub failures: Option<u32>,
    /// Failures among the calls of a window.
    pub share: Option<Percent>,
    pub window: Duration,
    pub min_calls: u32,
    /// What a failure is.
    pub on: FaultKinds,
    /// For the first time; then twice as long with each repeat.
    pub pause: Duration,
    pub longest: Duration,
}

/// What may be under way at once, on all cores together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub calls: Option<u32>,
    pub connections: Option<u32>,
    pub endpoint_calls: Option<u32>,
    pub endpoint_connections: Option<u32>,
    /// Calls that may wait for room, and for how long.
    pub waiting: u32,
    pub wait: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    Ip(SocketAddr),
    Name { host: String, port: u16 },
    Unix(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    /// With prior knowledge in clear, by ALPN over TLS.
    Http2,
    /// HTTP/1.1 in clear; over TLS what ALPN settles.
    Auto,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTls {
    /// `upstreams.orders.tls`.
    pub at: String,
    /// Authorities in PEM; `None` for the system's.
    pub authorities: Option<Vec<u8>>,
    pub certificate: Option<Certificate>,
    /// The name to verify and to send as SNI, where it is not the endpoint's.
    pub name: Option<String>,
    /// False only where the document says `verify: false`.
    pub verify: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Balance {
    LeastLoad,
    RoundRobin,
    Hash(HashKey),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    Address,
    Consumer,
    Header(String),
    Query(String),
    Path,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub probe: Probe,
    pub every: Duration,
    pub timeout: Duration,
    /// Failures in a row that make an endpoint unhealthy.
    pub unhealthy_after: u32,
    /// Successes in a row that make it healthy again.
    pub healthy_after: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// GET of this path; 200 to 299 is healthy.
    Http { path: String, host: Option<String> },
    /// `grpc.health.v1.Health/Check` for this service; empty for the server as a whole.
    Grpc { service: String },
    /// A connection can be made.
    Tcp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Tries in all; 1 means none is repeated.
    pub attempts: u32,
    pub on: FaultKinds,
    /// Share of the calls that may be repeated, and how many a second always may.
    pub budget: Percent,
    pub min_per_second: u32,
    /// First pause; doubled with each try, with full jitter.
    pub backoff: Duration,
    pub max_backoff: Duration,
    /// For each try; `None` for what is left of the call's.
    pub try_timeout: Option<Duration>,
    /// Also calls that are not idempotent (RFC 9110, 9.2.2).
    pub unsafe_methods: bool,
    /// Bytes of a request's body kept so that it can be sent again.
    pub buffer: usize,
    /// Tries beside a slow one.
    pub hedge: Option<Hedge>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hedge {
    pub after: HedgeAfter,
    /// Tries beside the first.
    pub attempts: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HedgeAfter {
    Time(Duration),
    /// What this part of recent tries took.
    Part(Percent),
}

/// Ways for a try to go wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultKinds {
    /// No connection, or it broke before anything was sent.
    pub connect: bool,
    /// The connection broke, or the stream was reset, before the answer began.
    pub reset: bool,
    /// The first byte of the answer came too late.
    pub timeout: bool,
    /// Any status from 500 on.
    pub server_errors: bool,
    pub statuses: Vec<StatusCode>,
}

impl FaultKinds {
    pub fn has_status(&self, status: StatusCode) -> bool {
        (self.server_errors && status.is_server_error()) || self.statuses.contains(&status)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: Duration,
    /// From the request sent to the head of the answer.
    pub first_byte: Option<Duration>,
    /// Between two pieces of the answer's body.
    pub idle: Option<Duration>,
    /// The whole call, tries and body included.
    pub call: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connections {
    /// Idle connections kept to an endpoint, for each worker.
    pub idle: usize,
    pub idle_timeout: Duration,
    /// Streams on one HTTP/2 connection before another is opened.
    pub streams: usize,
    /// How long a HTTP/2 connection with streams may be silent before it is asked.
    pub ping: Option<Duration>,
}

// === What is told ===

pub struct Telemetry {
    /// Where `/metrics` answers; `None` for nowhere.
    pub metrics: Option<SocketAddr>,
    pub access_log: Option<AccessLog>,
    pub otlp: Option<Otlp>,
    /// A random part of calls is traced where the caller's context does not decide.
    pub sample: Percent,
    /// Series a metric family may have before the rest is counted as `other`.
    pub max_series: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    Stdout,
    File(PathBuf),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Otlp {
    /// `http://127.0.0.1:4318`.
    pub endpoint: String,
    pub tls: Option<ClientTls>,
    /// The endpoint's name or address, to be verified.
    pub host: String,
    pub protocol: OtlpProtocol,
    pub headers: Vec<(String, Secret)>,
    /// How often metrics are sent.
    pub every: Duration,
    pub traces: bool,
    pub metrics: bool,
    /// Attributes of the resource beside `service.name`.
    pub resource: HashMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// Protobuf over HTTP, paths `/v1/traces` and `/v1/metrics`.
    Http,
    Grpc,
}
