//! The call that is asked about: from words of the command line to what a listener would have read.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use base::{Call, Client, Headers, Method, Peer, RequestHead, Scheme, Time, Version};
use config::{Address, Snapshot};
use http::Uri;

#[derive(Debug)]
pub struct Question {
    /// Its place among the listeners.
    pub listener: usize,
    /// As it would come in, before any policy.
    pub(super) call: Call,
}

/// What cannot be asked, and what could.
#[derive(Debug)]
pub struct Wrong {
    pub message: String,
    pub help: String,
}

impl Question {
    pub fn new(
        method: &str,
        url: &str,
        fields: &[String],
        from: IpAddr,
        listener: Option<&str>,
        snapshot: &Snapshot,
    ) -> Result<Question, Wrong> {
        let wrong = |message: String, help: &str| Wrong { message, help: help.to_owned() };
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| wrong(format!("`{method}` is not a method"), "give one such as `GET`, then the URL"))?;
        let uri: Uri =
            url.parse().ok().filter(|uri: &Uri| uri.path().starts_with('/') && url.contains('/')).ok_or_else(|| {
                wrong(
                    format!("`{url}` is not a URL"),
                    "give one such as `http://localhost:8080/orders`, or a path such as `/orders`",
                )
            })?;
        let scheme = match uri.scheme_str() {
            Some("https") => Scheme::Https,
            Some("http") | None => Scheme::Http,
            Some(other) => {
                return Err(wrong(format!("weir does not speak `{other}`"), "give a URL with `http` or `https`"));
            }
        };
        let mut headers = Headers::new();
        let mut authority = uri.authority().map_or("localhost", |authority| authority.as_str()).to_owned();
        for field in fields {
            let (name, value) = field
                .split_once(':')
                .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim()))
                .filter(|(name, value)| Headers::is_name(name) && Headers::is_value(value.as_bytes()))
                .ok_or_else(|| {
                    wrong(format!("`{field}` is not a field"), "give one such as -H 'x-api-key: demo-key'")
                })?;
            match &*name {
                "host" => value.clone_into(&mut authority),
                _ => headers.append(&name, value),
            }
        }
        let port = uri.port_u16().unwrap_or(if scheme == Scheme::Https { 443 } else { 80 });
        let listener = match listener {
            None => by_url(snapshot, scheme, port),
            Some(name) => snapshot.listeners.iter().position(|it| &*it.name == name).ok_or_else(|| {
                let names: Vec<_> = snapshot.listeners.iter().map(|it| format!("`{}`", it.name)).collect();
                wrong(format!("no listener is called `{name}`"), &format!("the document has {}", names.join(", ")))
            })?,
        };
        let target = uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        let head = RequestHead { method, scheme, authority, target, version: Version::HTTP_11, headers };
        let peer = Arc::new(Peer { remote: Some(SocketAddr::new(from, 40_000)), local: None, tls: None });
        let trusted = &snapshot.listeners[listener].trusted_proxies;
        let client = proxy::client_of(&peer, &head.headers, trusted);
        Ok(Question { listener, call: Call::new(head, client, Time::now(), SystemTime::now()) })
    }

    pub fn head(&self) -> &RequestHead {
        &self.call.head
    }

    pub fn client(&self) -> &Client {
        &self.call.client
    }

    /// The call, to be done with as policies like.
    pub(super) fn call(&self) -> Call {
        self.call.clone()
    }
}

/// The listener of the URL's port; else the first that speaks its scheme; else the first.
fn by_url(snapshot: &Snapshot, scheme: Scheme, port: u16) -> usize {
    let listeners = &snapshot.listeners;
    let on_port = listeners.iter().position(|it| matches!(it.address, Address::Ip(address) if address.port() == port));
    let same_scheme = || listeners.iter().position(|it| it.tls.is_some() == (scheme == Scheme::Https));
    on_port.or_else(same_scheme).unwrap_or(0)
}
