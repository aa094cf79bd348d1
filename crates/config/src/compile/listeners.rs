//! Where calls come in.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base::Secret;
use base64::Engine;

use super::upstreams::is_host;
use super::{Context, key};
use crate::document::{self, Named};
use crate::snapshot::{
    Acme, AcmeChallenge, Address, ClientCertificates, ExternalAccount, HttpLimits, Listener, ServerTls,
};

impl Context<'_> {
    pub(super) fn listeners(&mut self, Named(written): Named<document::Listener>) -> Vec<Arc<Listener>> {
        if written.is_empty() && !self.broken("listeners") {
            let listener = document::Listener { address: Some("127.0.0.1:8080".into()), ..Default::default() };
            return self.listener("default", listener).map(Arc::new).into_iter().collect();
        }
        let mut listeners: Vec<Arc<Listener>> = Vec::new();
        let mut taken: HashMap<Address, String> = HashMap::new();
        for (name, listener) in written {
            let Some(listener) = self.listener(&name, listener) else {
                self.lost.places.insert(key("listeners", &name));
                continue;
            };
            // Port 0 is another port each time.
            let any_port = matches!(listener.address, Address::Ip(address) if address.port() == 0);
            if !any_port && let Some(first) = taken.insert(listener.address.clone(), name.clone()) {
                let at = format!("{}.address", key("listeners", &name));
                self.error(&at, format!("listener `{first}` has this address already"));
            }
            listeners.push(Arc::new(listener));
        }
        listeners
    }

    fn listener(&mut self, name: &str, listener: document::Listener) -> Option<Listener> {
        let at = key("listeners", name);
        let document::Listener { address, tls, proxy_protocol, trusted_proxies, limits } = listener;
        let tls = tls.map(|tls| self.server_tls(&format!("{at}.tls"), tls));
        let limits = self.http_limits(&format!("{at}.limits"), limits);
        let Some(address) = address else {
            if !self.broken(&format!("{at}.address")) && !self.misnamed(&at) {
                self.error(&at, "field `address` is missing; expected one such as `127.0.0.1:8080`");
            }
            return None;
        };
        let address = match parse_address(&address) {
            Ok(address) => address,
            Err(message) => {
                self.error(&format!("{at}.address"), message);
                return None;
            }
        };
        Some(Listener {
            name: name.into(),
            address,
            tls,
            proxy_protocol,
            trusted_proxies: trusted_proxies.into_iter().map(|network| network.0).collect(),
            limits,
        })
    }

    pub(super) fn server_tls(&mut self, at: &str, tls: document::ListenerTls) -> ServerTls {
        let document::ListenerTls { certificates, acme, client, minimum } = tls;
        if certificates.is_empty()
            && acme.is_none()
            && !self.broken(&format!("{at}.certificates"))
            && !self.misnamed(at)
        {
            self.error(
                at,
                "no certificate; expected `certificates: [{ cert: file:..., key: file:... }]` or `acme: ...`",
            );
        }
        let each = certificates.iter().enumerate();
        let certificates =
            each.filter_map(|(index, written)| self.certificate(&format!("{at}.certificates[{index}]"), written));
        let certificates = certificates.collect();
        let acme = acme.and_then(|acme| self.acme(&format!("{at}.acme"), acme));
        let client = client.and_then(|client| {
            let document::ClientCertificates { authorities, revoked, require } = client;
            let authorities = self.certificates(&format!("{at}.client.authorities"), &authorities);
            let revoked = match revoked {
                Some(revoked) => self.read(&format!("{at}.client.revoked"), &revoked)?,
                None => Vec::new(),
            };
            Some(ClientCertificates { authorities: authorities?, revoked, required: require.unwrap_or(true) })
        });
        let tls12 = match minimum.as_deref() {
            None | Some("1.2") => true,
            Some("1.3") => false,
            Some(other) => {
                let message = format!("TLS `{other}` is not known; expected \"1.2\" or \"1.3\"");
                self.error(&format!("{at}.minimum"), message);
                true
            }
        };
        ServerTls { at: at.to_owned(), certificates, acme, client, tls12 }
    }

    fn acme(&mut self, at: &str, acme: document::Acme) -> Option<Acme> {
        let document::Acme { domains, contact, directory, authorities, challenge, external_account } = acme;
        if domains.is_empty() && !self.broken(&format!("{at}.domains")) && !self.misnamed(at) {
            self.error(at, "no name; expected `domains: [www.example.com]`");
        }
        if domains.len() > MOST_DOMAINS {
            self.error(&format!("{at}.domains"), format!("{} names; expected {MOST_DOMAINS} at most", domains.len()));
        }
        for (index, domain) in domains.iter().enumerate() {
            let at = format!("{at}.domains[{index}]");
            if domain.contains('*') {
                self.error(&at, "a `*` takes a proof in DNS, which is not made here; name each host");
            } else if !is_host(domain) || domain.parse::<std::net::IpAddr>().is_ok() {
                self.error(&at, format!("`{domain}` is not a host's name; expected one such as `www.example.com`"));
            }
        }
        for (index, contact) in contact.iter().enumerate() {
            if !contact.starts_with("mailto:") {
                let at = format!("{at}.contact[{index}]");
                self.error(&at, format!("`{contact}` is no address; expected one such as `mailto:ops@example.com`"));
            }
        }
        let directory = directory.unwrap_or_else(|| LETS_ENCRYPT.into());
        if !directory.starts_with("https://") {
            // RFC 8555, 6.1.
            self.error(
                &format!("{at}.directory"),
                format!("`{directory}` is not an authority; expected `https://...`"),
            );
        }
        let authorities = authorities.and_then(|reference| self.certificates(&format!("{at}.authorities"), &reference));
        let external_account = external_account.and_then(|document::ExternalAccount { id, key }| {
            let at = format!("{at}.external-account.key");
            let read = self.read(&at, &key)?;
            let trimmed = String::from_utf8_lossy(&read);
            let trimmed = trimmed.trim().trim_end_matches('=');
            match base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(trimmed) {
                Ok(key) if !key.is_empty() => Some(ExternalAccount { id, key: Secret::new(key) }),
                _ => {
                    self.error(&at, format!("{key} is not a key in base64url"));
                    None
                }
            }
        });
        let Some(data) = self.data.clone() else {
            self.error(
                at,
                "there is nowhere to keep the certificate; say where with `node.data`, such as `/var/lib/weir`",
            );
            return None;
        };
        let challenge = match challenge {
            None | Some(document::Challenge::TlsAlpn01) => AcmeChallenge::TlsAlpn01,
            Some(document::Challenge::Http01) => AcmeChallenge::Http01,
        };
        let domains = domains.iter().map(|domain| domain.to_ascii_lowercase()).collect();
        let authorities = authorities.map(Into::into);
        Some(Acme { directory, authorities, contact, domains, challenge, external_account, data })
    }

    fn http_limits(&mut self, at: &str, limits: document::ListenerLimits) -> HttpLimits {
        let document::ListenerLimits {
            head,
            fields,
            head_timeout,
            idle_timeout,
            ping,
            ping_timeout,
            body_timeout,
            min_rate,
            streams,
            requests,
            connections,
            connections_per_address,
        } = limits;
        let ping = ping.and_then(|it| it.0).map(|span| span.0);
        if ping.is_some_and(|it| it.is_zero()) {
            self.error(&format!("{at}.ping"), "expected more than zero, or `none`");
        }
        if ping.is_none() && ping_timeout.is_some() {
            self.error(&format!("{at}.ping-timeout"), "nobody is asked; expected `ping` beside it");
        }
        let limits = HttpLimits {
            head: head.map_or(64 << 10, |size| size.0 as usize),
            fields: fields.unwrap_or(100),
            head_timeout: head_timeout.map_or(Duration::from_secs(10), |span| span.0),
            idle_timeout: idle_timeout.map_or(Duration::from_secs(75), |span| span.0),
            ping,
            ping_timeout: ping_timeout.map_or(Duration::from_secs(20), |span| span.0),
            body_timeout: body_timeout.map_or(Duration::from_secs(60), |span| span.0),
            min_rate: min_rate.map_or(10, |size| size.0),
            streams: streams.unwrap_or(128),
            requests: requests.unwrap_or(u32::MAX),
            connections,
            connections_per_address,
        };
        for (name, zero) in [
            ("head", limits.head == 0),
            ("fields", limits.fields == 0),
            ("head-timeout", limits.head_timeout.is_zero()),
            ("idle-timeout", limits.idle_timeout.is_zero()),
            ("ping-timeout", limits.ping_timeout.is_zero()),
            ("body-timeout", limits.body_timeout.is_zero()),
            ("streams", limits.streams == 0),
            ("requests", limits.requests == 0),
            ("connections", limits.connections == Some(0)),
            ("connections-per-address", limits.connections_per_address == Some(0)),
        ] {
            if zero {
                self.error(&format!("{at}.{name}"), "nothing would pass; expected more than zero");
            }
        }
        limits
    }
}

pub(super) fn parse_address(text: &str) -> Result<Address, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return match path.is_empty() {
            true => Err("expected a path after `unix:`".into()),
            false => Ok(Address::Unix(path.into())),
        };
    }
    text.parse().map(Address::Ip).map_err(|_| {
        let port = text.strip_prefix(':').or(text.strip_prefix("*:")).filter(|port| port.parse::<u16>().is_ok());
        match port {
            Some(port) => {
                format!("`{text}` does not say where; expected `[::]:{port}` for everywhere, or `127.0.0.1:{port}`")
            }
            None => format!(
                "`{text}` is not an address; expected one such as `127.0.0.1:8080`, `[::]:8443`, `unix:/run/weir.sock`"
            ),
        }
    })
}

const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// Authorities take no more in one certificate.
const MOST_DOMAINS: usize = 100;
