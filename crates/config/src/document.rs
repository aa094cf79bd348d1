//! The document as a person writes it: every field optional that has a default. One-to-one with the
//! text; the comments here are the reference.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use base::{Network, Percent, SecretRef, Size, Span};
use policy::Specs;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

/// Declares a map of the document: unknown fields are errors, keys are in kebab case.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }
    };
}

mod models;

pub use models::{Candidate, Choose, Ledger, Llm, Model, OneOrManySecrets, Provider};

section! {
    /// A Weir document.
    Document {
        /// The version of this format: 1.
        version: Option<u32>,
        /// What concerns the process as a whole.
        node: Node,
        /// Where calls come in. None given: one named `default` on 127.0.0.1:8080.
        listeners: Named<Listener>,
        /// Pools of endpoints that serve apis.
        upstreams: Named<Upstream>,
        /// Where nodes keep what they count together, by name: Redis or Valkey.
        stores: Named<SharedStore>,
        /// For every api, unless it says otherwise.
        policies: Specs,
        /// What is served, by name.
        apis: Named<Api>,
        /// Who serves models, by name.
        providers: Named<Provider>,
        /// What callers of models ask for, by name: `provider/model`, or a map with `candidates`. A name with a `*` at its
        /// end stands for all that begin so, and a `*` at the end of the candidate's model for what it stood for.
        models: Named<OrText<Model>>,
        /// What may be spent, by name.
        budgets: ledger::BudgetsSpec,
        /// Where what calls cost is written down.
        ledger: Ledger,
        /// Who calls, by name.
        consumers: Named<Consumer>,
        /// What is told, and to whom.
        telemetry: Telemetry,
        /// Where the node is operated.
        admin: Admin,
    }
}

section! {
    /// What concerns the process as a whole.
    Node {
        /// Worker threads; one a core unless given.
        workers: Option<usize>,
        /// How long calls may go on after the process was told to stop. Default: `30s`.
        drain: Option<Span>,
        /// How long calls may go on in a process whose place was taken by another; or `none`. Default: `1h`.
        retire: Option<OrNone>,
        /// Where this node stands: endpoints of the same zone are preferred.
        zone: Option<String>,
        /// Connections of clients open at once, on all listeners; who comes then waits in the kernel's queue until
        /// another has gone. Default: three quarters of the open files that the process may have.
        connections: Option<u32>,
        /// Where the answers lie that the policy `cache` keeps.
        cache: Cache,
        /// How names are resolved.
        dns: Dns,
        /// The folder for what the node keeps over a restart, such as certificates that were issued to it. It is made if
        /// need be; relative to the document.
        data: Option<String>,
    }
}

section! {
    /// How names are resolved: of upstreams, and of whoever else the node calls. `/etc/hosts` goes before name servers.
    Dns {
        /// Name servers, such as `127.0.0.1:8600`; port 53 unless given. Default: those of `/etc/resolv.conf`, as it was
        /// at the start.
        servers: Vec<String>,
        /// How long the last answer is used beyond its time to live while no server answers; or `none` for ever.
        /// Default: `1d`.
        stale: Option<OrNone>,
        /// How long it is used once a server says that there is nothing by the name. Default: `30s`.
        gone: Option<Span>,
    }
}

section! {
    /// Where the answers lie that the policy `cache` keeps.
    Cache {
        /// Memory for them, shared by all workers. Default: `64MiB`.
        memory: Option<Size>,
        /// They are on a disk too, where they outlive the process: in the folder `cache` of `node.data`. Only in memory
        /// unless given.
        disk: Option<CacheDisk>,
    }
}

section! {
    /// The disk for the answers that the policy `cache` keeps.
    CacheDisk {
        /// How much of it they may take, at least `1MiB`. Default: `1GiB`.
        size: Option<Size>,
    }
}

section! {
    /// A Redis or Valkey that nodes share. One server, or one that a proxy or a name leads to; not a cluster.
    SharedStore {
        /// `redis://10.0.0.1:6379`, `rediss://store.internal:6380/2`: with `rediss` over TLS, at the end the number of the
        /// database.
        url: Option<String>,
        /// Of the store's access lists.
        user: Option<String>,
        /// What the store is shown.
        password: Option<SecretRef>,
        /// Whom to trust over TLS, in PEM; the system's authorities if it is not given.
        authorities: Option<SecretRef>,
        /// How long a question may take, and so a call may have to wait for it. Default: `50ms`.
        timeout: Option<Span>,
        /// How many nodes share it, until it has told how many there are. Default: 1.
        nodes: Option<u32>,
    }
}

section! {
    /// Where the node is operated: `weir top`, `weir reload` and the admin API.
    Admin {
        /// `unix:weir-admin.sock`, `127.0.0.1:9901` or `none`. Default: a socket that only the node's own user may
        /// open, in a folder where the commands look for it. Changes with the next start.
        address: Option<String>,
        /// What `Authorization: Bearer` must carry; at least 16 bytes. An IP address needs one, a socket does not.
        token: Option<SecretRef>,
        /// Names by which an IP address may be called, beside `localhost` and addresses.
        hosts: Vec<String>,
        /// Speak TLS at an IP address. As a listener's, but without `acme`; a certificate of a client does not spare it
        /// the token.
        tls: Option<ListenerTls>,
    }
}

section! {
    /// Where calls come in.
    Listener {
        /// `127.0.0.1:8080`, `[::]:8443` or `unix:/run/weir.sock`.
        address: Option<String>,
        /// Speak TLS.
        tls: Option<ListenerTls>,
        /// A PROXY protocol header (v1 or v2) must open every connection.
        proxy_protocol: bool,
        /// Peers whose `Forwarded` and `X-Forwarded-*` are believed: `10.0.0.0/8`.
        trusted_proxies: Vec<Network>,
        /// What a client may ask for.
        limits: ListenerLimits,
    }
}

section! {
    /// TLS towards clients.
    ListenerTls {
        /// The first serves clients that name no host, or one that none covers.
        certificates: Vec<Certificate>,
        /// Have an authority issue one, and renew it.
        acme: Option<Acme>,
        /// Ask clients for certificates.
        client: Option<ClientCertificates>,
        /// `"1.2"` (default) or `"1.3"`.
        minimum: Option<String>,
    }
}

section! {
    /// A certificate that an authority issues by ACME (RFC 8555). It is asked for when the document comes into force, kept
    /// in the data folder (`node.data`), renewed after two thirds of its life, and served without a restart. Whoever
    /// writes this agrees to the terms of the authority.
    Acme {
        /// The names it is for, at most 100. No `*`: that takes a proof in DNS.
        domains: Vec<String>,
        /// Whom the authority may write to: `mailto:ops@example.com`.
        contact: Vec<String>,
        /// The authority. Default: `https://acme-v02.api.letsencrypt.org/directory`.
        directory: Option<String>,
        /// Whom to trust when the authority is spoken to, in PEM; the system's authorities unless given.
        authorities: Option<SecretRef>,
        /// How the names are proved: `tls-alpn-01` (default), asked of this listener at port 443 of each name; or `http-01`,
        /// asked at port 80 and answered by every listener, before its routes.
        challenge: Option<Challenge>,
        /// For authorities that know their clients by another way already.
        external_account: Option<ExternalAccount>,
    }
}

/// How names are proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Challenge {
    /// In a TLS handshake (RFC 8737).
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
    /// By HTTP (RFC 8555, 8.3).
    #[serde(rename = "http-01")]
    Http01,
}

/// What an authority has given to who is its client already.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ExternalAccount {
    /// The name of the key.
    pub id: String,
    /// The key, in base64url.
    pub key: SecretRef,
}

/// A certificate chain and its key, in PEM.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Certificate {
    /// The chain, the server's own certificate first.
    pub cert: SecretRef,
    /// Its private key.
    pub key: SecretRef,
}

/// Certificates of clients.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ClientCertificates {
    /// Authorities in PEM.
    pub authorities: SecretRef,
    /// Revocation lists in PEM.
    pub revoked: Option<SecretRef>,
    /// Without a certificate the handshake fails. Default: true.
    pub require: Option<bool>,
}

section! {
    /// What a client may ask for.
    ListenerLimits {
        /// Size of a request's head. Default: `64KiB`.
        head: Option<Size>,
        /// Fields of a request's head. Default: 100.
        fields: Option<usize>,
        /// To read a whole head. Default: `10s`.
        head_timeout: Option<Span>,
        /// Between two requests of a connection. Default: `75s`.
        idle_timeout: Option<Span>,
        /// Between two pieces of a request's body, or of an answer that the client takes. Default: `60s`.
        body_timeout: Option<Span>,
        /// What a client has to send of a request until its answer begins, and to take of an answer, each second on
        /// average, whenever it is waited for as long as `body-timeout`; `0B` for any progress. Default: `10B`.
        min_rate: Option<Size>,
        /// Streams on one HTTP/2 connection. Default: 128.
        streams: Option<u32>,
        /// Requests on one connection, which is closed then. Any number unless given.
        requests: Option<u32>,
        /// Connections open at once; who comes then waits in the kernel's queue until another has gone. As many as
        /// `node.connections` unless given.
        connections: Option<u32>,
        /// Connections open at once from one address, or from one network of 64 bits with IPv6; who brings more is
        /// closed. Any number unless given: many people may share an address.
        connections_per_address: Option<u32>,
    }
}

section! {
    /// A pool of endpoints.
    Upstream {
        /// Who serves: URLs, or maps with `url` and what else is to be said of it. `srv+http://orders.service.internal`
        /// and `srv+https://...` stand for all places of the SRV records of that name.
        endpoints: Vec<OrText<Endpoint>>,
        /// Default: `auto`.
        protocol: Option<Protocol>,
        /// `least-load` (default), `round-robin` or `hash: ...`.
        balance: Option<OrText<Balance>>,
        /// Ask endpoints whether they are well.
        health: Option<Health>,
        /// When a call is tried again.
        retry: Retry,
        /// How long to wait for what.
        timeouts: Timeouts,
        /// TLS towards endpoints with `https://`.
        tls: ClientTls,
        /// Connections kept.
        connections: Connections,
        /// Which endpoints are left out for a while because calls fail there; or `none`. Where this is not given,
        /// its defaults hold.
        eject: OrText<Eject>,
        /// When calls are refused at once because the upstream as a whole fails; `{}` for the defaults. Never
        /// unless given.
        breaker: Option<Breaker>,
        /// How much may be under way at once, on all workers together.
        limits: Option<Limits>,
        /// How endpoints of other zones and of later priority come in.
        zones: Zones,
        /// How long an endpoint that is new, or well again, gets less than its share, rising from a tenth.
        /// Default: `0s`.
        slow_start: Option<Span>,
    }
}

section! {
    /// One that serves.
    Endpoint {
        /// `http://10.0.0.1:8080`, `https://a.internal:8443/base` or `unix:/run/app.sock`; or `srv+http://NAME`,
        /// `srv+https://NAME/base` for as many endpoints as the name has SRV records: they come and go with the records,
        /// and what is said here holds for each of them.
        url: String,
        /// Its share of calls against the others. Default: 1. An SRV record's weight is multiplied by it.
        weight: Option<u32>,
        /// Where it stands. Endpoints in the node's own zone are preferred.
        zone: Option<String>,
        /// Those of a lower number are preferred, before zones. Default: 0. Among equals the priority of SRV records
        /// decides, also before zones.
        priority: Option<u32>,
        /// It gets no new calls; those under way end as they would. Default: false.
        drain: bool,
    }
}

section! {
    /// Which endpoints are left out for a while. One call then tries whether it is well again: if so, it takes
    /// calls as before; if not, it is left out for twice as long. An endpoint is never left out when no other is there.
    Eject {
        /// This many failures in a row. Default: 5.
        failures: Option<u32>,
        /// This share of its calls in the last `window`. Not looked at unless given.
        failure_share: Option<Percent>,
        /// Default: `10s`.
        window: Option<Span>,
        /// A share of fewer calls says nothing. Default: 20.
        min_calls: Option<u32>,
        /// What a failure is: `connect`, `reset`, `timeout`, `5xx` and statuses such as `"503"`.
        /// Default: `[connect, reset, timeout]`.
        on: Option<Vec<String>>,
        /// How long, for the first time. Default: `10s`.
        r#for: Option<Span>,
        /// How long at most. Default: `5m`.
        at_most: Option<Span>,
        /// At most this share of the endpoints is left out at once, but one always may be. Default: `50%`.
        max_ejected: Option<Percent>,
        #[serde(skip)]
        none: bool,
    }
}

section! {
    /// When calls are refused at once (503, `upstream-open`). A few calls then try whether the upstream is well
    /// again: if so, all are let through; if one fails, none is for twice as long.
    Breaker {
        /// This many failures in a row. Not looked at unless given.
        failures: Option<u32>,
        /// This share of all tries in the last `window`. Default: `50%`.
        failure_share: Option<Percent>,
        /// Default: `10s`.
        window: Option<Span>,
        /// A share of fewer tries says nothing. Default: 20.
        min_calls: Option<u32>,
        /// What a failure is: `connect`, `reset`, `timeout`, `5xx` and statuses such as `"503"`.
        /// Default: `[connect, reset, timeout, "502", "503", "504"]`.
        on: Option<Vec<String>>,
        /// How long, for the first time. Default: `5s`.
        r#for: Option<Span>,
        /// How long at most. Default: `1m`.
        at_most: Option<Span>,
        /// Calls that try whether it is well again. Default: 3.
        trials: Option<u32>,
    }
}

section! {
    /// How much may be under way at once, on all workers together. What finds no room waits or is refused
    /// (503, `upstream-full`).
    Limits {
        /// Calls, from their choice of an endpoint to the last byte of their answer.
        calls: Option<u32>,
        /// Connections.
        connections: Option<u32>,
        /// The same, for each endpoint.
        endpoint: EndpointLimits,
        /// Calls that may wait for room. Default: 0, all are refused at once.
        waiting: Option<u32>,
        /// How long each may. Default: `1s`.
        wait: Option<Span>,
    }
}

section! {
    /// How much may be under way at one endpoint.
    EndpointLimits {
        /// Calls.
        calls: Option<u32>,
        /// Connections.
        connections: Option<u32>,
    }
}

section! {
    /// Endpoints in order: by `priority`, and among equals those of the node's own zone (`node.zone`) first. The first
    /// of these groups takes all calls while enough of it is well; what it cannot bear goes to the next.
    Zones {
        /// A group of which less than this share is well gives calls away, in proportion. Default: `70%`.
        spill_below: Option<Percent>,
        /// Whether the node's own zone is preferred. Default: true.
        prefer_own: Option<bool>,
    }
}

/// The HTTP spoken to endpoints.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2: with prior knowledge in clear, by ALPN over TLS.
    Http2,
    /// HTTP/1.1 in clear; over TLS what both sides settle.
    Auto,
}

section! {
    /// How endpoints are chosen.
    Balance {
        /// The same caller to the same endpoint: `consumer`, `address`, `path`, `header: NAME` or `query: NAME`.
        hash: Option<OrText<HashBy>>,
        #[serde(skip)]
        word: Option<String>,
    }
}

section! {
    /// What is hashed.
    HashBy {
        /// The value of this header.
        header: Option<String>,
        /// The value of this query parameter.
        query: Option<String>,
        #[serde(skip)]
        word: Option<String>,
    }
}

section! {
    /// A question to every endpoint; exactly one of `http`, `grpc`, `tcp`.
    Health {
        /// GET of this path; 200 to 299 is healthy.
        http: Option<String>,
        /// `Host` of that GET, where it is not the endpoint's.
        host: Option<String>,
        /// `grpc.health.v1.Health/Check` for this service; empty for the server as a whole.
        grpc: Option<String>,
        /// A connection can be made.
        tcp: bool,
        /// Default: `5s`.
        every: Option<Span>,
        /// Default: `2s`.
        timeout: Option<Span>,
        /// Failures in a row that make an endpoint unhealthy. Default: 2.
        unhealthy_after: Option<u32>,
        /// Successes in a row that make it healthy again. Default: 2.
        healthy_after: Option<u32>,
    }
}

section! {
    /// When a call is tried again. What is not given comes from the level around.
    Retry {
        /// Tries in all; 1 means none is repeated. Default: 2.
        attempts: Option<u32>,
        /// `connect`, `reset`, `timeout`, `5xx` and statuses such as `"503"`. Default: `[connect, reset]`.
        on: Option<Vec<String>>,
        /// Share of calls that may be repeated. Default: `20%`.
        budget: Option<Percent>,
        /// How many a second always may. Default: 3.
        min_per_second: Option<u32>,
        /// First pause. Default: `25ms`.
        backoff: Option<Span>,
        /// Longest pause. Default: `250ms`.
        max_backoff: Option<Span>,
        /// For each try.
        try_timeout: Option<Span>,
        /// Also calls that are not idempotent. Default: false.
        unsafe_methods: Option<bool>,
        /// How much of a request's body is kept to be sent again. Default: `64KiB`.
        buffer: Option<Size>,
        /// Try a second endpoint beside a slow first one, and take the first answer: a time such as `100ms`, `p95`,
        /// a map, or `none`. Only calls that may be repeated without harm, and each counts against `budget`.
        /// Default: `none`.
        hedge: Option<OrText<Hedge>>,
    }
}

section! {
    /// Further tries beside a slow one.
    Hedge {
        /// How long the tries before may take: a time such as `100ms`, or `p95` for what 95 of 100 recent tries took.
        after: Option<After>,
        /// Tries beside the first. Default: 1.
        attempts: Option<u32>,
        #[serde(skip)]
        none: bool,
    }
}

section! {
    /// How long to wait. What is not given comes from the level around.
    Timeouts {
        /// For a connection. Default: `5s`.
        connect: Option<Span>,
        /// From the request sent to the head of the answer; or `none`. Default: `60s`.
        first_byte: Option<OrNone>,
        /// Between two pieces of the answer's body; or `none`. Default: `60s`.
        idle: Option<OrNone>,
        /// The whole call, tries and body included; or `none`. Default: `none`.
        call: Option<OrNone>,
    }
}

section! {
    /// TLS towards endpoints.
    ClientTls {
        /// Authorities in PEM; the system's unless given.
        authorities: Option<SecretRef>,
        /// Who we are.
        certificate: Option<Certificate>,
        /// The name to verify, where it is not the endpoint's.
        name: Option<String>,
        /// Verify the endpoint's certificate. Default: true.
        verify: Option<bool>,
    }
}

section! {
    /// Connections to an endpoint.
    Connections {
        /// Idle ones kept, for each worker; those of HTTP/1. Default: 256.
        idle: Option<usize>,
        /// How long; those of HTTP/2 too. Default: `60s`.
        idle_timeout: Option<Span>,
        /// Streams on one HTTP/2 connection before another is opened. Default: 100.
        streams: Option<usize>,
        /// A HTTP/2 connection with streams that is silent for so long is asked whether it is there (PING) and gets no
        /// more streams; one that is silent again for so long is given up, three times this after its last sign at the
        /// latest. Or `none`. Default: `10s`.
        ping: Option<OrNone>,
    }
}

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

section! {
    /// One that calls.
    Consumer {
        /// Whom it belongs to.
        team: Option<String>,
        /// Its API keys. While one replaces another both may be valid.
        keys: Vec<Key>,
        /// Its certificates, for listeners that ask clients for one.
        certificates: Vec<ClientCertificate>,
    }
}

/// An API key, of which only the hash is known here.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Key {
    /// What people call it; not secret.
    pub id: String,
    /// `sha256:` and 64 hex digits.
    pub hash: String,
    /// From when on it is valid, such as `2027-01-31T00:00:00Z` (RFC 3339); always has been unless given.
    #[serde(default)]
    pub not_before: Option<String>,
    /// When it ceases to be valid; never unless given.
    #[serde(default)]
    pub expires: Option<String>,
}

section! {
    /// By what a client's certificate is known: one of these.
    ClientCertificate {
        /// A subject alternative name and its kind: `dns:agent.internal`, `uri:urn:agent`, `email:agent@example.org`
        /// or `ip:192.0.2.7`.
        san: Option<String>,
        /// A SPIFFE ID, such as `spiffe://example.org/agents/research`.
        spiffe: Option<String>,
        /// The whole subject as `openssl x509 -noout -subject -nameopt RFC2253` prints it: `CN=agent,O=Example`.
        subject: Option<String>,
        /// The certificate itself: `sha256:` and the digits of `openssl x509 -noout -fingerprint -sha256`.
        fingerprint: Option<String>,
    }
}

section! {
    /// What is told.
    Telemetry {
        /// Where `/metrics` answers: `127.0.0.1:9901`.
        metrics: Option<String>,
        /// `stdout` or `file:PATH`.
        access_log: Option<String>,
        /// Send traces and metrics to a collector.
        otlp: Option<Otlp>,
        /// Part of the calls that is traced where the caller does not decide. Default: `1%`.
        sample: Option<Percent>,
        /// Series each metric family may have, one for each combination of label values; the rest is
        /// counted as `other`. Default: 1000.
        max_series: Option<usize>,
    }
}

/// An OpenTelemetry collector.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Otlp {
    /// `http://127.0.0.1:4318`, or `https://...`.
    pub endpoint: String,
    /// TLS towards an endpoint with `https://`.
    #[serde(default)]
    pub tls: ClientTls,
    /// `http` (default) or `grpc`.
    pub protocol: Option<OtlpProtocol>,
    /// Sent along, by name.
    #[serde(default)]
    pub headers: Named<SecretRef>,
    /// How often metrics are sent. Default: `10s`.
    pub every: Option<Span>,
    /// Default: true.
    pub traces: Option<bool>,
    /// Default: true.
    pub metrics: Option<bool>,
    /// Attributes beside `service.name`.
    #[serde(default)]
    pub resource: BTreeMap<String, String>,
}

/// How the collector is spoken to.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OtlpProtocol {
    /// Protobuf over HTTP.
    Http,
    /// gRPC.
    Grpc,
}

// === Shapes ===

/// A map in the order of the document.
#[derive(Clone, Debug)]
pub struct Named<T>(pub Vec<(String, T)>);

/// One text or a list of them.
#[derive(Clone, Debug, Default)]
pub struct OneOrMany {
    pub values: Vec<String>,
    /// Whether it was written as a list.
    pub list: bool,
}

/// A map, or one text that stands for it.
#[derive(Clone, Debug, Default)]
pub struct OrText<T>(pub T);

/// What a text stands for.
pub trait FromText: Sized {
    const EXPECTED: &'static str;
    fn from_text(text: &str) -> Result<Self, String>;
}

/// A duration or `none`.
#[derive(Clone, Copy, Debug)]
pub struct OrNone(pub Option<Span>);

/// A duration, or a part of what calls take.
#[derive(Clone, Copy, Debug)]
pub enum After {
    Span(Span),
    /// `p95`.
    Part(Percent),
}

impl FromText for Endpoint {
    const EXPECTED: &'static str = "a URL, or a map with `url`";
    fn from_text(text: &str) -> Result<Endpoint, String> {
        Ok(Endpoint { url: text.into(), ..Endpoint::default() })
    }
}

impl FromText for Eject {
    const EXPECTED: &'static str = "`none`, or a map such as `failures: 5`";
    fn from_text(text: &str) -> Result<Eject, String> {
        match text {
            "none" => Ok(Eject { none: true, ..Eject::default() }),
            _ => Err(format!("found `{text}`, expected {}", Self::EXPECTED)),
        }
    }
}

impl FromText for Hedge {
    const EXPECTED: &'static str = "a duration such as `100ms`, `p95`, `none`, or a map with `after`";
    fn from_text(text: &str) -> Result<Hedge, String> {
        match text {
            "none" => Ok(Hedge { none: true, ..Hedge::default() }),
            _ => text
                .parse()
                .map(|after| Hedge { after: Some(after), ..Hedge::default() })
                .map_err(|_| format!("found `{text}`, expected {}", Self::EXPECTED)),
        }
    }
}

impl std::str::FromStr for After {
    type Err = String;

    fn from_str(text: &str) -> Result<After, String> {
        let wrong = || format!("found `{text}`, expected a duration such as `100ms`, or `p50` to `p99.9`");
        match text.strip_prefix('p') {
            Some(part) => {
                let part = format!("{part}%").parse().map_err(|_| wrong())?;
                let possible = Percent::whole(50)..Percent::whole(100);
                if possible.contains(&part) { Ok(After::Part(part)) } else { Err(wrong()) }
            }
            None => text.parse().map(After::Span).map_err(|_| wrong()),
        }
    }
}

impl FromText for Balance {
    const EXPECTED: &'static str = "`least-load`, `round-robin`, or a map such as `hash: consumer`";
    fn from_text(text: &str) -> Result<Balance, String> {
        match text {
            "least-load" | "round-robin" => Ok(Balance { hash: None, word: Some(text.into()) }),
            _ => Err(format!("found `{text}`, expected {}", Self::EXPECTED)),
        }
    }
}

impl FromText for HashBy {
    const EXPECTED: &'static str = "`consumer`, `address`, `path`, `header: NAME` or `query: NAME`";
    fn from_text(text: &str) -> Result<HashBy, String> {
        match text {
            "consumer" | "address" | "path" => Ok(HashBy { word: Some(text.into()), ..HashBy::default() }),
            _ => Err(format!("found `{text}`, expected {}", Self::EXPECTED)),
        }
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

impl<T> Default for Named<T> {
    fn default() -> Named<T> {
        Named(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Named<T>, D::Error> {
        struct Visitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Visitor<T> {
            type Value = Named<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map with names")
            }
            fn visit_unit<E: de::Error>(self) -> Result<Named<T>, E> {
                Ok(Named::default())
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Named<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Named(entries))
            }
        }
        deserializer.deserialize_map(Visitor(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Named<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Named{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "additionalProperties": generator.subschema_for::<T>() })
    }
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OneOrMany, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = OneOrMany;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name or a list of names")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany { values: vec![text.into()], list: false })
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<OneOrMany, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = seq.next_element()? {
                    values.push(value);
                }
                Ok(OneOrMany { values, list: true })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for OneOrMany {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "OneOrMany".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] })
    }
}

impl<'de, T: FromText + Deserialize<'de>> Deserialize<'de> for OrText<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OrText<T>, D::Error> {
        struct Visitor<T>(PhantomData<T>);
        impl<'de, T: FromText + Deserialize<'de>> de::Visitor<'de> for Visitor<T> {
            type Value = OrText<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::EXPECTED)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<OrText<T>, E> {
                T::from_text(text).map(OrText).map_err(E::custom)
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<OrText<T>, A::Error> {
                T::deserialize(de::value::MapAccessDeserializer::new(map)).map(OrText)
            }
        }
        deserializer.deserialize_any(Visitor(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for OrText<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("{}OrText", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string" }, generator.subschema_for::<T>()] })
    }
}

impl<'de> Deserialize<'de> for OrNone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OrNone, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = OrNone;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as `30s`, or `none`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<OrNone, E> {
                match text {
                    "none" => Ok(OrNone(None)),
                    _ => text.parse().map(|span| OrNone(Some(span))).map_err(E::custom),
                }
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

impl JsonSchema for OrNone {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SpanOrNone".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "const": "none" }, generator.subschema_for::<Span>()] })
    }
}

impl<'de> Deserialize<'de> for After {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<After, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for After {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SpanOrPart".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let part = json_schema!({ "type": "string", "pattern": "^p[5-9][0-9](\\.[0-9]+)?$", "examples": ["p95"] });
        json_schema!({ "anyOf": [generator.subschema_for::<Span>(), part] })
    }
}
