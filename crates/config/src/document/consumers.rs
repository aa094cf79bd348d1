//! Who calls, and by what a node knows them.

use schemars::JsonSchema;
use serde::Deserialize;

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
