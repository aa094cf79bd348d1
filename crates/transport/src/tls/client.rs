//! The client's side: connections to upstreams, verified unless the document says otherwise.

use std::io;
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Built, Identity, TlsError, Which, pem};

pub struct ClientTls<'a> {
    /// In PEM; `None` for the system's.
    pub authorities: Option<&'a [u8]>,
    pub certificate: Option<Identity<'a>>,
    /// False only where the document says `verify: false`: anybody may then answer in the upstream's place.
    pub verify: bool,
    /// What is offered, the preferred first; empty to offer nothing.
    pub alpn: &'a [Alpn],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    H2,
    Http1,
}

impl Alpn {
    pub fn as_str(self) -> &'static str {
        match self {
            Alpn::H2 => "h2",
            Alpn::Http1 => "http/1.1",
        }
    }
}

impl ClientTls<'_> {
    /// Builds the configuration, or says everything that is wrong with it.
    pub fn build(&self, provider: &Arc<CryptoProvider>) -> Result<Built<ClientConfig>, Vec<TlsError>> {
        let (mut errors, mut warnings) = (Vec::new(), Vec::new());
        let verifier = self.verifier(provider).map_err(|error| errors.push(error)).ok();
        let certified = match self.certificate.map(|identity| pem::certified(identity, 0, provider)).transpose() {
            Ok(certified) => certified,
            Err(wrong) => {
                errors.extend(wrong);
                None
            }
        };
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| errors.push(TlsError::new(Which::Protocols, error.to_string())))
            .ok();
        let (Some(verifier), Some(builder), true) = (verifier, builder, errors.is_empty()) else {
            return Err(errors);
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match certified {
            None => builder.with_no_client_auth(),
            Some(certified) => {
                warnings.extend(certified.warnings);
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified.key)))
            }
        };
        config.alpn_protocols = self.alpn.iter().map(|alpn| alpn.as_str().into()).collect();
        Ok(Built { config: Arc::new(config), warnings })
    }

    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
        if !self.verify {
            return Ok(Arc::new(Unverified(provider.clone())));
        }
        let roots = match self.authorities {
            Some(authorities) => Arc::new(pem::authorities(authorities)?),
            None => system_roots()?,
        };
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build();
        verifier.map(|verifier| verifier as _).map_err(|error| TlsError::new(Which::Authorities, error.to_string()))
    }
}

/// Shakes hands with an upstream; `None` if it chose no protocol, which means HTTP/1.1.
///
/// Sets no limit of time: the caller's deadline covers more than this.
pub async fn connect<IO>(
    io: IO,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> io::Result<(TlsStream<IO>, Option<Alpn>)>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let stream = TlsConnector::from(config).connect(name, io).await?;
    let alpn = match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => Some(Alpn::H2),
        Some(b"http/1.1") => Some(Alpn::Http1),
        _ => None,
    };
    Ok((stream, alpn))
}

/// The name to verify and to send: a host or an address, without port; `[::1]` and `::1` are the same.
pub fn server_name(host: &str) -> Result<ServerName<'static>, TlsError> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    ServerName::try_from(bare.to_owned())
        .map_err(|_| TlsError::new(Which::Name, format!("`{host}` is neither the name of a host nor an address")))
}

/// Reading them takes tens of milliseconds, so it is done once and for all.
fn system_roots() -> Result<Arc<RootCertStore>, TlsError> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        let loaded = rustls_native_certs::load_native_certs();
        for error in &loaded.errors {
            tracing::warn!(%error, "some of the system's certificate authorities cannot be read");
        }
        roots.add_parsable_certificates(loaded.certs);
        Arc::new(roots)
    });
    if roots.is_empty() {
        let message = "the system has none; install `ca-certificates`, or name authorities in the document";
        return Err(TlsError::new(Which::Authorities, message));
    }
    Ok(roots.clone())
}

// === struct Unverified ===

/// Believes any certificate, but still demands that the peer holds its key.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
