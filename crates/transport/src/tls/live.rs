//! Certificates that come and go while the configuration stays: what an authority issues while we run, and what it wants
//! to see before it does (TLS-ALPN-01, RFC 8737).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::ClientHello;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{Identity, TlsError, pem};

/// A certificate that is put in place, and replaced, from any thread; handshakes read it without a lock.
#[derive(Debug, Default)]
pub struct Live {
    current: ArcSwapOption<Current>,
    /// Answers to an authority's questions, by the name that it asks for.
    challenges: ArcSwap<HashMap<String, Arc<CertifiedKey>>>,
}

#[derive(Debug)]
struct Current {
    key: Arc<CertifiedKey>,
    names: Vec<String>,
    validity: Validity,
}

/// From when until when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

/// What a client of TLS says that is an authority in search of an answer.
pub(super) const ACME_TLS: &[u8] = b"acme-tls/1";

impl Live {
    /// From now on handshakes get this certificate. One that is not usable changes nothing.
    pub fn set(&self, identity: Identity<'_>, provider: &CryptoProvider) -> Result<Validity, Vec<TlsError>> {
        let pem::Certified { key, names, validity, warnings: _ } = pem::certified(identity, 0, provider)?;
        self.current.store(Some(Arc::new(Current { key: Arc::new(key), names, validity })));
        Ok(validity)
    }

    /// Of the certificate that is in place.
    pub fn validity(&self) -> Option<Validity> {
        self.current.load().as_ref().map(|current| current.validity)
    }

    /// An authority that asks for `name` is shown this.
    pub fn answer(
        &self,
        name: &str,
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
        provider: &CryptoProvider,
    ) -> Result<(), rustls::Error> {
        let key = Arc::new(CertifiedKey::new(vec![certificate], provider.key_provider.load_private_key(key)?));
        self.challenges.rcu(|challenges| {
            let mut challenges = HashMap::clone(challenges);
            challenges.insert(name.to_ascii_lowercase(), key.clone());
            challenges
        });
        Ok(())
    }

    /// Nothing is to be shown for `name` any more.
    pub fn forget(&self, name: &str) {
        self.challenges.rcu(|challenges| {
            let mut challenges = HashMap::clone(challenges);
            challenges.remove(&name.to_ascii_lowercase());
            challenges
        });
    }

    pub(super) fn challenge(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.challenges.load().get(&name.to_ascii_lowercase()).cloned()
    }

    /// The certificate, if it covers this name.
    pub(super) fn covering(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let current = self.current.load();
        let current = current.as_ref()?;
        current.names.iter().any(|it| it.eq_ignore_ascii_case(name)).then(|| current.key.clone())
    }

    pub(super) fn any(&self) -> Option<Arc<CertifiedKey>> {
        self.current.load().as_ref().map(|current| current.key.clone())
    }
}

impl Validity {
    pub(super) fn of(validity: &x509_parser::certificate::Validity) -> Validity {
        let at = |time: x509_parser::time::ASN1Time| {
            UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or_default())
        };
        Validity { not_before: at(validity.not_before), not_after: at(validity.not_after) }
    }
}

/// True if the client is an authority that asks for an answer, and speaks of nothing else.
pub(super) fn is_question(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut offered| offered.next() == Some(ACME_TLS) && offered.next().is_none())
}

/// What such a client is answered by: our certificates, but no client's is asked for.
pub(super) fn answering(current: &ServerConfig) -> Result<Arc<ServerConfig>, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(current.crypto_provider().clone());
    let builder = builder.with_safe_default_protocol_versions()?.with_no_client_auth();
    let mut config = builder.with_cert_resolver(current.cert_resolver.clone());
    config.alpn_protocols = vec![ACME_TLS.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}
