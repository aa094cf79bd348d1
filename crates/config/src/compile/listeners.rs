//! Where calls come in.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Context, key};
use crate::document::{self, Named};
use crate::snapshot::{Address, ClientCertificates, HttpLimits, Listener, ServerTls};

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

    fn server_tls(&mut self, at: &str, tls: document::ListenerTls) -> ServerTls {
        let document::ListenerTls { certificates, client, minimum } = tls;
        if certificates.is_empty() && !self.broken(&format!("{at}.certificates")) && !self.misnamed(at) {
            self.error(at, "no certificate; expected `certificates: [{ cert: file:..., key: file:... }]`");
        }
        let each = certificates.iter().enumerate();
        let certificates =
            each.filter_map(|(index, written)| self.certificate(&format!("{at}.certificates[{index}]"), written));
        let certificates = certificates.collect();
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
        ServerTls { at: at.to_owned(), certificates, client, tls12 }
    }

    fn http_limits(&mut self, at: &str, limits: document::ListenerLimits) -> HttpLimits {
        let document::ListenerLimits {
            head,
            fields,
            head_timeout,
            idle_timeout,
            body_timeout,
            min_rate,
            streams,
            requests,
            connections,
            connections_per_address,
        } = limits;
        let limits = HttpLimits {
            head: head.map_or(64 << 10, |size| size.0 as usize),
            fields: fields.unwrap_or(100),
            head_timeout: head_timeout.map_or(Duration::from_secs(10), |span| span.0),
            idle_timeout: idle_timeout.map_or(Duration::from_secs(75), |span| span.0),
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
