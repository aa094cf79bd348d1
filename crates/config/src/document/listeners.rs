//! Where calls come in: addresses, TLS, certificates, bounds on what a client may ask.

use super::OrNone;
use base::{Network, SecretRef, Size, Span};
use schemars::JsonSchema;
use serde::Deserialize;

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
        /// A HTTP/2 client of which nothing is heard for so long, or up to twice as long, is asked whether it is there
        /// (PING), also while it waits for an answer. Or `none`. Default: `none`.
        ping: Option<OrNone>,
        /// To hear of it then; else its connection ends, with all that it waits for. Default: `20s`.
        ping_timeout: Option<Span>,
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
