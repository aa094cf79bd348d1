//! What policies ask of the world: a small client on each core, with pools of its own for whom it has asked.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use awareness::Timeline;
use base::{RequestHead, Scheme, Time, Version};
use bytes::Bytes;
use policy::{Asked, Outside, OutsideError, Told};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::task::JoinSet;
use transport::dns::{Name, Names};
use transport::{Body, Frame, Place, Pool, Protocol, Target, tls};

use crate::node::chain;

/// The outside world as one core sees it.
pub struct World {
    asker: Rc<Asker>,
    random: Cell<u64>,
    /// What no call waits for.
    aside: RefCell<JoinSet<()>>,
}

/// Errands at a time.
const MOST: usize = 1000;

/// Who asks; shared with what goes on aside.
struct Asker {
    names: Arc<Names>,
    pools: RefCell<HashMap<Whom, Pool>>,
}

/// Who is asked: a scheme, a host, a port, and a way to speak.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Whom {
    https: bool,
    host: String,
    port: u16,
    prior_knowledge: bool,
    authorities: Option<Arc<[u8]>>,
}

impl World {
    pub fn new(names: Arc<Names>, seed: u64) -> World {
        let asker = Rc::new(Asker { names, pools: RefCell::default() });
        World { asker, random: Cell::new(seed), aside: RefCell::default() }
    }

    /// An evenly spread number; not for secrets.
    pub fn random(&self) -> u64 {
        // SplitMix64.
        let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(state);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Whether something can be done that nobody waits for.
    pub fn has_room(&self) -> bool {
        let mut aside = self.aside.borrow_mut();
        while aside.try_join_next().is_some() {}
        aside.len() < MOST
    }

    /// Does something nobody waits for. Of too much of it, some is left undone.
    pub fn aside(&self, task: impl Future<Output = ()> + 'static) {
        let mut aside = self.aside.borrow_mut();
        while aside.try_join_next().is_some() {}
        if aside.len() < MOST {
            aside.spawn_local(task);
        }
    }

    /// Closes what nobody has used for a while.
    pub fn sweep(&self, now: Time) {
        self.asker.pools.borrow_mut().retain(|_, pool| {
            pool.sweep(now);
            pool.open_connections() != (0, 0)
        });
    }
}

impl Asker {
    async fn pool(&self, whom: Whom) -> Result<Pool, OutsideError> {
        if let Some(pool) = self.pools.borrow().get(&whom) {
            return Ok(pool.clone());
        }
        let Whom { https, ref host, port, prior_knowledge, ref authorities } = whom;
        let tls = https.then(|| trusted(host, authorities.as_deref())).transpose()?;
        let target = Target {
            place: self.place(host, port).await,
            tls,
            protocol: if prior_knowledge { Protocol::Http2 } else { Protocol::Auto },
            idle: 8,
            idle_timeout: Duration::from_secs(30),
            streams: 100,
            ping: Some(Duration::from_secs(10)),
            slots: Default::default(),
        };
        let pool = Pool::new(target);
        self.pools.borrow_mut().insert(whom, pool.clone());
        Ok(pool)
    }

    async fn place(&self, host: &str, port: u16) -> Place {
        match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(ip) => Place::Ip((ip, port).into()),
            Err(_) => {
                let name: Arc<Name> = self.names.host(host);
                name.settled().await;
                Place::Name(name, port)
            }
        }
    }

    async fn ask(&self, asked: Asked) -> Result<Told, OutsideError> {
        tokio::time::timeout(asked.within, self.exchange(asked)).await.unwrap_or(Err(OutsideError::Late))
    }

    async fn exchange(&self, asked: Asked) -> Result<Told, OutsideError> {
        let Asked { method, url, headers, body, within, most, prior_knowledge, authorities } = asked;
        let wrong = || OutsideError::Url(url.clone());
        let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(at);
        let https = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err(wrong()),
        };
        let mut head = RequestHead {
            method,
            scheme: if https { Scheme::Https } else { Scheme::Http },
            authority: authority.to_owned(),
            target: match target {
                "" => "/".to_owned(),
                query if query.starts_with('?') => format!("/{query}"),
                path => path.to_owned(),
            },
            version: Version::HTTP_11,
            headers,
        };
        let host = head.host().to_owned();
        if host.is_empty() || authority.contains('@') {
            return Err(wrong());
        }
        let port = match authority.strip_prefix(&*host).and_then(|rest| rest.strip_prefix(':')) {
            Some(port) => port.parse().map_err(|_| wrong())?,
            None => {
                if https {
                    443
                } else {
                    80
                }
            }
        };
        if !head.headers.contains("user-agent") {
            head.headers.append("user-agent", concat!("weir/", env!("CARGO_PKG_VERSION")));
        }
        let pool = self.pool(Whom { https, host, port, prior_knowledge, authorities }).await?;
        let mut fresh = false;
        loop {
            let lease = pool
                .lease(fresh, within, &mut Timeline::default())
                .await
                .map_err(|error| OutsideError::Connect(chain(&error)))?;
            let reused = lease.is_reused();
            match lease.send(&head, None, Body::from(body.clone()), Rc::default()).await {
                Ok(response) => return whole(response, most).await,
                // A connection that was closed while it lay idle says nothing.
                Err(error) if reused && !fresh && error.is_repeatable() => fresh = true,
                Err(error) => return Err(OutsideError::Broken(chain(&error))),
            }
        }
    }
}

impl Outside for World {
    fn ask(&self, asked: Asked) -> std::pin::Pin<Box<dyn Future<Output = Result<Told, OutsideError>> + '_>> {
        Box::pin(self.asker.ask(asked))
    }

    fn ask_aside(&self, asked: Asked, then: Box<dyn FnOnce(Result<Told, OutsideError>)>) {
        let asker = self.asker.clone();
        World::aside(self, async move { then(asker.ask(asked).await) });
    }

    fn aside(&self, task: std::pin::Pin<Box<dyn Future<Output = ()>>>) {
        World::aside(self, task);
    }

    fn random(&self) -> u64 {
        World::random(self)
    }
}

async fn whole(response: transport::Response, most: usize) -> Result<Told, OutsideError> {
    let transport::Response { head, mut body, .. } = response;
    if body.length().is_some_and(|length| length > most as u64) {
        return Err(OutsideError::TooLong(most));
    }
    let (mut whole, mut trailers) = (Vec::new(), None);
    while let Some(frame) = body.frame().await {
        match frame.map_err(|error| OutsideError::Broken(chain(&error)))? {
            Frame::Data(data) if whole.len() + data.len() > most => return Err(OutsideError::TooLong(most)),
            Frame::Data(data) => whole.extend_from_slice(&data),
            Frame::Trailers(last) => trailers = Some(*last),
        }
    }
    Ok(Told { status: head.status, headers: head.headers, body: Bytes::from(whole), trailers })
}

/// TLS as these authorities vouch for it, or the system's.
fn trusted(host: &str, authorities: Option<&[u8]>) -> Result<(Arc<ClientConfig>, ServerName<'static>), OutsideError> {
    static SYSTEM: LazyLock<Result<Arc<ClientConfig>, String>> = LazyLock::new(|| build(None));
    let config = match authorities {
        None => SYSTEM.clone(),
        given => build(given),
    };
    let config = config.map_err(OutsideError::Connect)?;
    let name = tls::server_name(host.trim_matches(['[', ']']));
    Ok((config, name.map_err(|error| OutsideError::Connect(error.to_string()))?))
}

fn build(authorities: Option<&[u8]>) -> Result<Arc<ClientConfig>, String> {
    let alpn = &[tls::Alpn::H2, tls::Alpn::Http1];
    let input = tls::ClientTls { authorities, certificate: None, verify: true, alpn };
    match input.build(&crate::node::provider()) {
        Ok(built) => Ok(built.config),
        Err(errors) => Err(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
    }
}
