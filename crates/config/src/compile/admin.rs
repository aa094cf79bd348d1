//! Where the node is operated. Nothing here may end up open to whoever can reach it.

use std::net::SocketAddr;
use std::sync::Arc;

use base::Secret;

use super::Context;
use super::listeners::parse_address;
use crate::document;
use crate::snapshot::{Address, Admin, AdminPlace, Listener};

impl Context<'_> {
    pub(super) fn admin(
        &mut self,
        written: document::Admin,
        listeners: &[Arc<Listener>],
        metrics: Option<SocketAddr>,
    ) -> Admin {
        let document::Admin { address, token, hosts, tls } = written;
        let at = "admin.address";
        let place = match address.as_deref() {
            None => AdminPlace::Usual,
            Some("none") => AdminPlace::Nowhere,
            Some(text) => match parse_address(text) {
                Ok(Address::Unix(path)) => AdminPlace::At(Address::Unix(self.files.resolve(&path.to_string_lossy()))),
                Ok(address) => AdminPlace::At(address),
                Err(message) => {
                    self.error(at, message);
                    AdminPlace::Nowhere
                }
            },
        };
        let has_token = token.is_some();
        let token = token.and_then(|reference| self.read("admin.token", &reference)).map(|read| {
            let token = read.trim_ascii();
            if token.len() < SHORTEST {
                let message = format!("the token has {} bytes; expected {SHORTEST} or more", token.len());
                self.error_with("admin.token", message, Some("make one with `openssl rand -hex 32`".into()));
            }
            if !token.iter().all(u8::is_ascii_graphic) {
                self.error("admin.token", "the token has characters that a header field cannot carry");
            }
            Secret::new(token)
        });
        let tls = tls.map(|tls| self.server_tls("admin.tls", tls));
        if tls.as_ref().is_some_and(|tls| tls.acme.is_some()) {
            let message = "an authority proves names at listeners; expected `certificates: [...]` here";
            self.error("admin.tls.acme", message);
        }
        if tls.is_some() && !matches!(place, AdminPlace::At(Address::Ip(_))) && !self.broken(at) {
            self.error("admin.tls", "a socket needs none; expected `address: 127.0.0.1:9901` or its like beside it");
        }
        if let AdminPlace::At(Address::Ip(address)) = &place {
            if !has_token && !self.broken("admin.token") {
                let help = "add `token: file:admin.token`, or leave the address out for a socket of your own user";
                self.error_with(
                    at,
                    "an IP address needs a token: others on the machine reach it too",
                    Some(help.into()),
                );
            }
            if !address.ip().is_loopback() && tls.is_none() {
                self.warn(
                    at,
                    "the token crosses the network in clear: add `tls`, or let nobody but you reach this address",
                );
            }
            let taken = listeners.iter().find(|it| address.port() != 0 && it.address == Address::Ip(*address));
            if let Some(listener) = taken {
                self.error(at, format!("listener `{}` has this address already", listener.name));
            }
            if address.port() != 0 && metrics == Some(*address) {
                self.error(at, "`telemetry.metrics` has this address already");
            }
        }
        Admin { place, token, hosts: hosts.into_iter().map(|host| host.to_ascii_lowercase()).collect(), tls }
    }
}

/// Bytes of a token that cannot be guessed, if they are random.
const SHORTEST: usize = 16;
