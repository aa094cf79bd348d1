//! Certificates from an authority that speaks ACME (RFC 8555): asked for, kept, renewed before they end, served without a
//! restart.
//!
//! All of it happens on a thread of its own, which is there only where a document wants it. Workers read what it leaves in
//! two places: a listener's [`Live`] certificate, and the [`Tokens`] that answer an authority's questions in HTTP.

mod client;
mod files;
mod keep;
mod order;
mod tokens;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::SystemTime;

use tokio::sync::mpsc;
use tokio::task::LocalSet;
use transport::dns::Names;
use transport::tls::Live;

pub use tokens::Tokens;

/// The certificates of a node; its thread ends when this is dropped.
pub struct Acme {
    tokens: Arc<Tokens>,
    /// Those that documents have asked for and still do.
    certificates: Mutex<Vec<Arc<Certificate>>>,
    watches: Mutex<Option<mpsc::UnboundedSender<Vec<Arc<Certificate>>>>>,
}

/// One certificate, and how it is with it.
pub struct Certificate {
    pub wanted: config::Acme,
    pub live: Arc<Live>,
    told: Mutex<Told>,
}

/// What has become of the attempts to get it.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// When the next attempt is due.
    pub next: Option<SystemTime>,
    /// Why the last one failed, and how many have in a row.
    pub error: Option<String>,
    pub failures: u32,
}

// === impl Acme ===

impl Acme {
    pub fn new() -> Acme {
        Acme { tokens: Arc::default(), certificates: Mutex::default(), watches: Mutex::default() }
    }

    pub fn tokens(&self) -> &Arc<Tokens> {
        &self.tokens
    }

    /// The certificate that a document wants: the one that is there, or a new one with what its file has.
    pub fn certificate(&self, wanted: &config::Acme) -> Arc<Certificate> {
        let certificates = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        let there = certificates.iter().find(|it| it.wanted.is_same_certificate(wanted));
        if let Some(there) = there.filter(|it| it.wanted == *wanted) {
            return there.clone();
        }
        // Asked for in another way: what is served stays.
        let live = there.map(|there| there.live.clone());
        let certificate =
            Certificate { live: live.unwrap_or_default(), wanted: wanted.clone(), told: Mutex::default() };
        if certificate.live.validity().is_none() {
            certificate.load();
        }
        Arc::new(certificate)
    }

    /// These are to be kept from now on, and no others.
    pub fn keep(&self, certificates: Vec<Arc<Certificate>>, names: &Arc<Names>) {
        *self.certificates.lock().unwrap_or_else(PoisonError::into_inner) = certificates.clone();
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        if certificates.is_empty() && watches.is_none() {
            return;
        }
        if watches.is_none() {
            match spawn(self.tokens.clone(), names.clone()) {
                Ok(sender) => *watches = Some(sender),
                Err(error) => {
                    return tracing::error!(%error, "no certificates are asked for: there is no thread for it");
                }
            }
        }
        if let Some(watches) = &*watches {
            let _ = watches.send(certificates);
        }
    }

    /// Asks for nothing more; what is there goes on being served.
    pub fn stop(&self) {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

// === impl Certificate ===

impl Certificate {
    /// Puts in place what an earlier run has left.
    fn load(&self) {
        let wanted = &self.wanted;
        match files::read(&files::certificate(wanted)) {
            Ok(None) => {}
            Ok(Some(pem)) => {
                let identity = transport::tls::Identity { chain: &pem, key: &pem };
                if let Err(errors) = self.live.set(identity, &crate::node::provider()) {
                    let reason = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                    tracing::warn!(domains = ?wanted.domains, reason, "the certificate that is kept is not usable; another is asked for");
                }
            }
            Err(error) => {
                tracing::warn!(domains = ?wanted.domains, %error, "the certificate that is kept cannot be read; another is asked for");
            }
        }
    }

    /// Never held for long, and by no worker.
    pub fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn spawn(tokens: Arc<Tokens>, names: Arc<Names>) -> std::io::Result<mpsc::UnboundedSender<Vec<Arc<Certificate>>>> {
    let (sender, inbox) = mpsc::unbounded_channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("weir-acme".into()).spawn(move || {
        LocalSet::new().block_on(&runtime, keep::keep(inbox, tokens, names));
    })?;
    Ok(sender)
}
