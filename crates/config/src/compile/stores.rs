//! Stores that nodes share.

use std::sync::Arc;
use std::time::Duration;

use base::Secret;

use super::upstreams::is_host;
use super::{Context, key};
use crate::document::{self, Named};
use crate::snapshot::SharedStore;

impl Context<'_> {
    pub(super) fn stores(&mut self, Named(written): Named<document::SharedStore>) -> Vec<Arc<SharedStore>> {
        written.into_iter().filter_map(|(name, store)| self.store(name, store)).collect()
    }

    fn store(&mut self, name: String, written: document::SharedStore) -> Option<Arc<SharedStore>> {
        let document::SharedStore { url, user, password, authorities, timeout, nodes } = written;
        let at = key("stores", &name);
        let before = self.diagnostics.len();
        let url = url.or_else(|| {
            self.error(&at, "says not where it is; expected `url: redis://HOST:6379`");
            None
        });
        let place = url.and_then(|url| match parse(&url) {
            Ok(place) => Some(place),
            Err(message) => {
                self.error(&format!("{at}.url"), message);
                None
            }
        });
        if authorities.is_some() && place.as_ref().is_some_and(|it| !it.0) {
            self.error(&format!("{at}.authorities"), "are for TLS; expected a `url` of `rediss`");
        }
        let authorities = authorities.and_then(|it| self.certificates(&format!("{at}.authorities"), &it));
        if user.is_some() && password.is_none() {
            self.error(&format!("{at}.user"), "is shown with a password; expected `password` beside it");
        }
        let password = password.and_then(|it| self.read(&format!("{at}.password"), &it));
        if timeout.is_some_and(|timeout| timeout.0.is_zero()) {
            self.error(&format!("{at}.timeout"), "nobody answers at once; expected at least `1ms`");
        }
        if nodes == Some(0) {
            self.error(&format!("{at}.nodes"), "this one is one; expected 1 or more");
        }
        let (tls, host, port, database) = place?;
        (self.diagnostics.len() == before).then(|| {
            Arc::new(SharedStore {
                name: name.into(),
                host,
                port,
                tls,
                authorities,
                database,
                user,
                password: password.map(|read| Secret::new(read.trim_ascii())),
                timeout: timeout.map_or(Duration::from_millis(50), |it| it.0),
                nodes: nodes.unwrap_or(1),
            })
        })
    }
}

/// Whether with TLS, host, port and database.
fn parse(url: &str) -> Result<(bool, String, u16, u32), String> {
    let wrong =
        |what: &str| format!("{what}; expected one such as `redis://10.0.0.1:6379` or `rediss://store.internal/1`");
    let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("is no URL of a store"))?;
    let tls = match scheme {
        "redis" => false,
        "rediss" => true,
        _ => return Err(wrong("has another scheme than `redis` and `rediss`")),
    };
    if rest.contains('@') {
        // It may be a secret, so it is not repeated.
        return Err(wrong("has a user or a password, which belong into `user` and `password`"));
    }
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let database = if database.is_empty() { Some(0) } else { database.parse().ok() };
    let database = database.ok_or_else(|| wrong("has no number of a database behind the slash"))?;
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| wrong("has no proper port"))?),
        _ => (authority, 6379),
    };
    let bare = host.trim_matches(['[', ']']);
    if !is_host(bare) && bare.parse::<std::net::IpAddr>().is_err() {
        return Err(wrong("has no proper host"));
    }
    Ok((tls, bare.to_owned(), port, database))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_store_is() {
        let check = |url: &str, expected: Option<(bool, &str, u16, u32)>| {
            let found = parse(url).ok();
            let expected = expected.map(|(tls, host, port, database)| (tls, host.to_owned(), port, database));
            assert_eq!(found, expected, "{url}");
        };
        check("redis://10.0.0.1:7000", Some((false, "10.0.0.1", 7000, 0)));
        check("rediss://store.internal/2", Some((true, "store.internal", 6379, 2)));
        check("redis://[::1]:7000/", Some((false, "::1", 7000, 0)));
        check("redis://[::1]", Some((false, "::1", 6379, 0)));
        for wrong in ["redis://", "http://a", "a:1", "redis://u:p@a", "redis://a/x", "redis://a:x", "redis://a b"] {
            check(wrong, None);
        }
    }
}
