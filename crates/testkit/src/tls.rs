//! A service that speaks TLS: hyper over rustls, told apart from the gateway by knowing nothing of it.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::sync::oneshot;

use crate::Folder;

/// Answers every request with `VERSION alpn=... sni=... client=yes|no` and its path.
pub struct Service {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Service {
    /// With the certificate `NAME.crt`; `clients` names the authority of the clients' certificates, which it then needs.
    pub fn start(folder: &Folder, name: &str, alpn: &[&str], clients: Option<&str>) -> Service {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
        let builder = match clients {
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                for root in certificates(folder, authority) {
                    roots.add(root).unwrap();
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
                builder.with_client_cert_verifier(verifier)
            }
            None => builder.with_no_client_auth(),
        };
        let key = PrivateKeyDer::from_pem_file(folder.path(&format!("{name}.key"))).unwrap();
        let mut config = builder.with_single_cert(certificates(folder, name), key).unwrap();
        config.alpn_protocols = alpn.iter().map(|it| it.as_bytes().to_vec()).collect();

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = requests.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, Arc::new(config), counted) => {}
                    _ = stopped => {}
                }
            });
        });
        Service { address, requests, stop: Some(stop), thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Acquire)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn certificates(folder: &Folder, name: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(folder.path(&format!("{name}.crt"))).unwrap().map(Result::unwrap).collect()
}

async fn accept(listener: TcpListener, config: Arc<ServerConfig>, requests: Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(config);
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (acceptor, requests) = (acceptor.clone(), requests.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let session = stream.get_ref().1;
            let alpn = session.alpn_protocol().map(|it| String::from_utf8_lossy(it).into_owned()).unwrap_or_default();
            let sni = session.server_name().unwrap_or_default().to_owned();
            let client = if session.peer_certificates().is_some() { "yes" } else { "no" };
            let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                requests.fetch_add(1, Ordering::AcqRel);
                let text =
                    format!("{:?} alpn={alpn} sni={sni} client={client} {}", request.version(), request.uri().path());
                async move { Ok::<_, Infallible>(http::Response::new(Full::new(bytes::Bytes::from(text)))) }
            });
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
