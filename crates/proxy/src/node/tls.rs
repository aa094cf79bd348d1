//! TLS as a snapshot wants it, on both sides, and what is wrong with its certificates told as problems of the document.

use std::sync::Arc;

use config::Snapshot;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;
use transport::tls;

use super::Problem;
use crate::acme::Certificate;
use crate::worker::Generation;

pub(super) fn server_tls(
    snapshot: &Snapshot,
    old: Option<&Generation>,
    issued: &[Option<Arc<Certificate>>],
    problems: &mut Vec<Problem>,
) -> Vec<Option<Arc<ServerConfig>>> {
    let configs = snapshot.listeners.iter().enumerate().map(|(at, listener)| {
        let wanted = listener.tls.as_ref()?;
        // Certificates that did not change keep their session tickets.
        let same = old.and_then(|old| {
            let at = old
                .snapshot
                .listeners
                .iter()
                .position(|it| it.name == listener.name && it.tls.as_ref() == Some(wanted))?;
            old.server_tls[at].as_ref().map(|current| current.load_full())
        });
        if same.is_some() {
            return same;
        }
        let live = match (issued.get(at), &wanted.acme) {
            (Some(Some(issued)), _) => vec![issued.live.clone()],
            // Only looked at.
            (_, Some(_)) => vec![Arc::default()],
            (_, None) => Vec::new(),
        };
        built(server_input(wanted, live).build(&provider()), &wanted.at, problems)
    });
    configs.collect()
}

fn server_input(wanted: &config::ServerTls, live: Vec<Arc<tls::Live>>) -> tls::ServerTls<'_> {
    tls::ServerTls {
        certificates: wanted.certificates.iter().map(identity).collect(),
        live,
        client: wanted.client.as_ref().map(|client| tls::ClientCertificates {
            authorities: &client.authorities,
            revoked: &client.revoked,
            required: client.required,
        }),
        tls12: wanted.tls12,
    }
}

pub(super) fn admin_tls(snapshot: &Snapshot, problems: &mut Vec<Problem>) -> Option<Arc<ServerConfig>> {
    let wanted = snapshot.admin.tls.as_ref()?;
    let mut config = built(server_input(wanted, Vec::new()).build(&provider()), &wanted.at, problems)?;
    // It speaks nothing else.
    Arc::make_mut(&mut config).alpn_protocols = vec![b"http/1.1".to_vec()];
    Some(config)
}

pub(super) fn client_tls(snapshot: &Snapshot, problems: &mut Vec<Problem>) -> Vec<Option<Arc<ClientConfig>>> {
    let configs = snapshot.upstreams.iter().map(|upstream| {
        if !upstream.written().any(|endpoint| endpoint.tls) {
            return None;
        }
        let tls = upstream.tls.as_ref();
        let at = tls.map_or_else(|| format!("upstreams.{}", upstream.name), |tls| tls.at.clone());
        let input = tls::ClientTls {
            authorities: tls.and_then(|tls| tls.authorities.as_deref()),
            certificate: tls.and_then(|tls| tls.certificate.as_ref()).map(identity),
            verify: tls.is_none_or(|tls| tls.verify),
            alpn: match upstream.protocol {
                config::Protocol::Http1 => &[tls::Alpn::Http1],
                config::Protocol::Http2 => &[tls::Alpn::H2],
                config::Protocol::Auto => &[tls::Alpn::H2, tls::Alpn::Http1],
            },
        };
        built(input.build(&provider()), &at, problems)
    });
    configs.collect()
}

pub(super) fn collector_tls(
    tls: &config::ClientTls,
    host: String,
    protocol: config::OtlpProtocol,
    problems: &mut Vec<Problem>,
) -> Option<telemetry::Tls> {
    let input = tls::ClientTls {
        authorities: tls.authorities.as_deref(),
        certificate: tls.certificate.as_ref().map(identity),
        verify: tls.verify,
        alpn: match protocol {
            config::OtlpProtocol::Http => &[tls::Alpn::Http1],
            config::OtlpProtocol::Grpc => &[tls::Alpn::H2],
        },
    };
    let config = built(input.build(&provider()), &tls.at, problems)?;
    let name = tls.name.clone().unwrap_or(host);
    match ServerName::try_from(name) {
        Ok(name) => Some(telemetry::Tls { config, name }),
        Err(_) => {
            problems.push(Problem { at: format!("{}.name", tls.at), message: "expected a name or an address".into() });
            None
        }
    }
}

fn identity(certificate: &config::Certificate) -> tls::Identity<'_> {
    tls::Identity { chain: &certificate.chain, key: certificate.key.expose() }
}

pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    // Installed by the binary, once; a test that has none gets the same.
    rustls::crypto::CryptoProvider::get_default()
        .cloned()
        .unwrap_or_else(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
}

/// The configuration, or what is wrong with it told as problems of the place in the document.
fn built<C>(
    result: Result<tls::Built<C>, Vec<tls::TlsError>>,
    at: &str,
    problems: &mut Vec<Problem>,
) -> Option<Arc<C>> {
    match result {
        Ok(tls::Built { config, warnings }) => {
            for warning in warnings {
                tracing::warn!(at, "{warning}");
            }
            Some(config)
        }
        Err(errors) => {
            problems.extend(errors.into_iter().map(|error| Problem {
                at: match error.which {
                    tls::Which::Certificate(index) if at.starts_with("listeners.") => {
                        format!("{at}.certificates[{index}].cert")
                    }
                    tls::Which::Key(index) if at.starts_with("listeners.") => format!("{at}.certificates[{index}].key"),
                    tls::Which::Certificate(_) => format!("{at}.certificate.cert"),
                    tls::Which::Key(_) => format!("{at}.certificate.key"),
                    _ => at.to_owned(),
                },
                message: error.message,
            }));
            None
        }
    }
}
