//! From PEM to what rustls takes, with errors that a person can act upon.

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::time::ASN1Time;

use super::live::Validity;
use super::{Identity, TlsError, Which};

/// A chain and key that belong together, and the names of hosts that the certificate covers, in lower case.
pub(super) struct Certified {
    pub(super) key: CertifiedKey,
    pub(super) names: Vec<String>,
    pub(super) validity: Validity,
    pub(super) warnings: Vec<TlsError>,
}

pub(super) fn certified(
    identity: Identity<'_>,
    index: usize,
    provider: &CryptoProvider,
) -> Result<Certified, Vec<TlsError>> {
    let chain = chain(identity.chain, Which::Certificate(index));
    let key = key(identity.key, Which::Key(index));
    let (chain, key) = match (chain, key) {
        (Ok(chain), Ok(key)) => (chain, key),
        (chain, key) => return Err(chain.err().into_iter().chain(key.err()).collect()),
    };
    let wrong = |which: Which, message: String| vec![TlsError::new(which, message)];

    let signing = provider.key_provider.load_private_key(key).map_err(|error| {
        wrong(Which::Key(index), format!("not a key we can sign with: {error}; use ECDSA P-256, Ed25519 or RSA"))
    })?;
    let key = CertifiedKey::new(chain, signing);
    if let Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) = key.keys_match() {
        let position = key
            .cert
            .iter()
            .position(|cert| CertifiedKey::new(vec![cert.clone()], key.key.clone()).keys_match().is_ok());
        return Err(wrong(
            Which::Key(index),
            match position {
                Some(_) => {
                    "belongs to a later certificate of the chain; the chain must begin with the key's own".into()
                }
                None => "does not belong to the certificate; give the key that the certificate was issued for".into(),
            },
        ));
    }

    let Ok((_, own)) = X509Certificate::from_der(&key.cert[0]) else {
        return Err(wrong(Which::Certificate(index), "not an X.509 certificate".into()));
    };
    let mut warnings = Vec::new();
    let mut warn = |message: String| warnings.push(TlsError::new(Which::Certificate(index), message));
    let (validity, now) = (own.validity(), ASN1Time::now());
    if validity.not_after < now {
        warn(format!("expired on {}; clients will refuse it", validity.not_after));
    } else if validity.not_before > now {
        warn(format!("not valid before {}; clients will refuse it", validity.not_before));
    }
    let names = names(&own);
    let validity = Validity::of(own.validity());
    Ok(Certified { key, names, validity, warnings })
}

/// What the first certificate of a chain covers, in lower case, and from when until when.
pub fn covers(pem: &[u8]) -> Option<(Vec<String>, Validity)> {
    let own = CertificateDer::pem_slice_iter(pem).next()?.ok()?;
    let (_, own) = X509Certificate::from_der(&own).ok()?;
    Some((names(&own), Validity::of(own.validity())))
}

fn names(own: &X509Certificate<'_>) -> Vec<String> {
    match own.subject_alternative_name() {
        Ok(Some(extension)) => extension.value.general_names.iter().filter_map(host).collect(),
        Ok(None) | Err(_) => Vec::new(),
    }
}

fn host(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    }
}

fn chain(pem: &[u8], which: Which) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsError::new(which, format!("not PEM: {error}")))?;
    if chain.is_empty() {
        return Err(TlsError::new(which, "no certificate found; expected PEM with `BEGIN CERTIFICATE`"));
    }
    Ok(chain)
}

fn key(pem: &[u8], which: Which) -> Result<PrivateKeyDer<'static>, TlsError> {
    // What the parser says of a key is not repeated: it may quote the key.
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| {
        let encrypted = contains(pem, b"ENCRYPTED");
        TlsError::new(
            which,
            if encrypted {
                "the key is encrypted; give it without a passphrase"
            } else {
                "no private key found; expected PEM with `BEGIN PRIVATE KEY`"
            },
        )
    })
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

pub(super) fn authorities(pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for (index, cert) in chain(pem, Which::Authorities)?.into_iter().enumerate() {
        store.add(cert).map_err(|error| {
            TlsError::new(Which::Authorities, format!("certificate {} is not usable: {error}", index + 1))
        })?;
    }
    Ok(store)
}

/// The revocation lists, and a warning for each that should have been replaced.
pub(super) fn revocations(pem: &[u8]) -> Result<(Vec<CertificateRevocationListDer<'static>>, Vec<TlsError>), TlsError> {
    let wrong = |message: String| TlsError::new(Which::Revoked, message);
    let lists = CertificateRevocationListDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong(format!("not PEM: {error}")))?;
    if lists.is_empty() && !pem.trim_ascii().is_empty() {
        return Err(wrong("no list found; expected PEM with `BEGIN X509 CRL`".into()));
    }
    let mut warnings = Vec::new();
    for (index, list) in lists.iter().enumerate() {
        let (_, list) = CertificateRevocationList::from_der(list)
            .map_err(|error| wrong(format!("list {} is not an X.509 CRL: {error}", index + 1)))?;
        if let Some(next) = list.next_update().filter(|next| *next < ASN1Time::now()) {
            warnings.push(wrong(format!("list {} should have been replaced by {next}", index + 1)));
        }
    }
    Ok((lists, warnings))
}
