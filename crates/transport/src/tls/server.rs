//! The server's side: certificates chosen by name, clients verified, the configuration taken anew for every handshake.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use base::TlsInfo;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{
    Acceptor, ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerSessionMemoryCache, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::live::{self, Live};
use super::stream::{self, TlsStream};
use super::{Built, Identity, TlsError, Which, pem};

pub struct ServerTls<'a> {
    /// The first serves clients that name no host, or one that none covers.
    pub certificates: Vec<Identity<'a>>,
    /// More of them, which come and go; at the start there may be none.
    pub live: Vec<Arc<Live>>,
    pub client: Option<ClientCertificates<'a>>,
    /// TLS 1.2 is accepted beside 1.3.
    pub tls12: bool,
}

#[derive(Clone, Copy)]
pub struct ClientCertificates<'a> {
    /// In PEM.
    pub authorities: &'a [u8],
    /// In PEM, empty for none. If there is a list, every authority in a client's chain must have one.
    pub revoked: &'a [u8],
    /// Without a certificate the handshake fails; otherwise the client stays anonymous.
    pub required: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    #[error("the TLS handshake took too long")]
    Timeout,
    #[error("the TLS handshake failed")]
    Handshake(#[source] io::Error),
    /// It was an authority that asked whether we are who we say; it got its answer.
    #[error("an authority has asked")]
    Answered,
}

impl ServerTls<'_> {
    /// Builds the configuration, or says everything that is wrong with it.
    pub fn build(&self, provider: &Arc<CryptoProvider>) -> Result<Built<ServerConfig>, Vec<TlsError>> {
        let (mut errors, mut warnings) = (Vec::new(), Vec::new());

        let mut names = Names { live: self.live.clone(), ..Names::default() };
        for (index, identity) in self.certificates.iter().enumerate() {
            match pem::certified(*identity, index, provider) {
                Ok(certified) => {
                    warnings.extend(certified.warnings);
                    if certified.names.is_empty() && index > 0 {
                        let message = "covers no name of a host, so no client will ever be given it";
                        warnings.push(TlsError::new(Which::Certificate(index), message));
                    }
                    names.add(Arc::new(certified.key), certified.names);
                }
                Err(wrong) => errors.extend(wrong),
            }
        }
        if self.certificates.is_empty() && self.live.is_empty() {
            errors.push(TlsError::new(Which::Certificate(0), "missing; TLS needs at least one certificate"));
        }

        let verifier = match self.client.map(|client| client.verifier(provider)).transpose() {
            Ok(None) => WebPkiClientVerifier::no_client_auth(),
            Ok(Some((verifier, more))) => {
                warnings.extend(more);
                verifier
            }
            Err(wrong) => {
                errors.extend(wrong);
                WebPkiClientVerifier::no_client_auth()
            }
        };
        let versions: &[_] =
            if self.tls12 { &[&rustls::version::TLS13, &rustls::version::TLS12] } else { &[&rustls::version::TLS13] };
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions);
        let builder = match builder {
            Ok(builder) if errors.is_empty() => builder,
            Ok(_) => return Err(errors),
            Err(error) => {
                errors.push(TlsError::new(Which::Protocols, error.to_string()));
                return Err(errors);
            }
        };
        let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(Arc::new(names));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        if self.client.is_some() {
            // A resumed session is not verified again: a certificate revoked since would still open the door.
            config.send_tls13_tickets = 0;
            config.session_storage = Arc::new(NoServerSessionStorage {});
        } else {
            config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
            match rustls::crypto::aws_lc_rs::Ticketer::new() {
                Ok(ticketer) => config.ticketer = ticketer,
                Err(error) => return Err(vec![TlsError::new(Which::Protocols, format!("no tickets: {error}"))]),
            }
        }
        Ok(Built { config: Arc::new(config), warnings })
    }
}

type Verifier = Arc<dyn rustls::server::danger::ClientCertVerifier>;

impl ClientCertificates<'_> {
    fn verifier(self, provider: &Arc<CryptoProvider>) -> Result<(Verifier, Vec<TlsError>), Vec<TlsError>> {
        let (authorities, (lists, warnings)) =
            match (pem::authorities(self.authorities), pem::revocations(self.revoked)) {
                (Ok(authorities), Ok(lists)) => (authorities, lists),
                (authorities, lists) => return Err(authorities.err().into_iter().chain(lists.err()).collect()),
            };
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider.clone());
        if !lists.is_empty() {
            builder = builder.with_crls(lists);
        }
        if !self.required {
            builder = builder.allow_unauthenticated();
        }
        match builder.build() {
            Ok(verifier) => Ok((verifier, warnings)),
            Err(error) => Err(vec![TlsError::new(Which::Revoked, error.to_string())]),
        }
    }
}

/// Shakes hands by the configuration that is current when the client's hello has come.
///
/// A connection keeps its configuration for as long as it lasts; the next one takes the next.
pub async fn accept<IO>(
    io: IO,
    current: &ArcSwap<ServerConfig>,
    timeout: Duration,
) -> Result<(TlsStream<IO>, TlsInfo), AcceptError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    // Apart, so that a connection does not hold the room for its handshake for as long as it lasts.
    let handshake = Box::pin(handshake(io, current));
    let handshake = tokio::time::timeout(timeout, handshake).await.map_err(|_| AcceptError::Timeout)?;
    let (stream, sni) = handshake.map_err(AcceptError::Handshake)?.ok_or(AcceptError::Answered)?;

    let session = stream.session();
    let info = TlsInfo {
        sni,
        alpn: session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
        version: match session.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "1.3".into(),
            Some(rustls::ProtocolVersion::TLSv1_2) => "1.2".into(),
            _ => String::new(),
        },
        client: session.peer_certificates().unwrap_or_default().iter().map(|cert| cert.to_vec()).collect(),
        names: OnceLock::new(),
    };
    Ok((stream, info))
}

/// A stream, and the host that its client named; `None` if it was an authority that asked.
async fn handshake<IO>(
    mut io: IO,
    current: &ArcSwap<ServerConfig>,
) -> io::Result<Option<(TlsStream<IO>, Option<String>)>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    // Looked at twice, since what it says decides by which configuration it is answered.
    // Room for all that came: what is left unread of something else than a hello would take the alert with it.
    let (mut acceptor, mut hello) = (Acceptor::default(), Vec::with_capacity(HELLO));
    let accepted = loop {
        let before = hello.len();
        if io.read_buf(&mut hello).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut more = &hello[before..];
        while !more.is_empty() {
            acceptor.read_tls(&mut more)?;
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => break accepted,
            Ok(None) => {}
            Err((error, mut alert)) => {
                let mut said = Vec::new();
                alert.write_all(&mut said)?;
                io.write_all(&said).await?;
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
    };
    if live::is_question(&accepted.client_hello()) {
        let answering = live::answering(&current.load()).map_err(io::Error::other)?;
        stream::accept(io, answering, hello).await?;
        return Ok(None);
    }
    let sni = accepted.client_hello().server_name().map(str::to_ascii_lowercase);
    drop(accepted);
    Ok(Some((stream::accept(io, current.load_full(), hello).await?, sni)))
}

/// A hello, and what something that is no hello may say at once.
const HELLO: usize = 4096;

// === struct Names ===

/// Certificates by the names they cover; several may cover one, with keys of different kinds.
#[derive(Debug, Default)]
struct Names {
    exact: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// By what follows `*.`.
    wildcard: HashMap<String, Vec<Arc<CertifiedKey>>>,
    default: Option<Arc<CertifiedKey>>,
    live: Vec<Arc<Live>>,
}

impl Names {
    fn add(&mut self, key: Arc<CertifiedKey>, names: Vec<String>) {
        for name in names {
            let list = match name.strip_prefix("*.") {
                Some(parent) => self.wildcard.entry(parent.to_owned()).or_default(),
                None => self.exact.entry(name).or_default(),
            };
            list.push(key.clone());
        }
        self.default.get_or_insert(key);
    }

    fn covering(&self, name: &str) -> Option<&Vec<Arc<CertifiedKey>>> {
        let name = name.to_ascii_lowercase();
        self.exact.get(&name).or_else(|| self.wildcard.get(name.split_once('.')?.1))
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name();
        if live::is_question(&hello) {
            return self.live.iter().find_map(|live| live.challenge(name?));
        }
        let Some(keys) = name.and_then(|name| self.covering(name)) else {
            let live = name.and_then(|name| self.live.iter().find_map(|live| live.covering(name)));
            return live.or_else(|| self.default.clone()).or_else(|| self.live.iter().find_map(|live| live.any()));
        };
        let usable = keys.iter().find(|key| key.key.choose_scheme(hello.signature_schemes()).is_some());
        usable.or(keys.first()).cloned()
    }
}

/// Sessions a listener remembers for clients of TLS 1.2 that take no tickets.
const SESSIONS: usize = 4096;
