//! What policies ask of the world: a small client on each core, with pools of its own for whom it has asked.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use awareness::Timeline;
use base::{RequestHead, Scheme, Time, Version};
use bytes::Bytes;
use config::SharedStore;
use policy::{Asked, Errand, Eval, Outside, OutsideError, StoreAway, Told};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::task::JoinSet;
use transport::dns::{Name, Names};
use transport::{Body, Frame, Place, Pool, Protocol, Target, redis, tls};

use crate::node::chain;

/// The outside world as one core sees it.
pub struct World {
    asker: Rc<Asker>,
    random: Cell<u64>,
    /// What no call waits for.
    aside: RefCell<JoinSet<()>>,
    /// The stores of the document, and those of them that were asked for something.
    stores: RefCell<Vec<Arc<SharedStore>>>,
    asked: RefCell<HashMap<Arc<str>, Reached>>,
    scripts: RefCell<HashMap<&'static str, Rc<redis::Script>>>,
    node: u64,
}

/// A store as the document has it, and the connection to it.
type Reached = (Arc<SharedStore>, Rc<redis::Store>);

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
        World {
            node: node(&asker.names),
            asker,
            random: Cell::new(seed),
            aside: RefCell::default(),
            stores: RefCell::default(),
            asked: RefCell::default(),
            scripts: RefCell::default(),
        }
    }

    /// The stores are these from now on. A connection stays with one that is as it was.
    pub fn set_stores(&self, stores: &[Arc<SharedStore>]) {
        *self.stores.borrow_mut() = stores.to_vec();
        self.asked.borrow_mut().retain(|_, (config, _)| stores.contains(config));
    }

    /// `None` if the document has none of this name, or there is no TLS to be had for it.
    fn store(&self, name: &str) -> Option<Rc<redis::Store>> {
        if let Some((_, store)) = self.asked.borrow().get(name) {
            return Some(store.clone());
        }
        let config = self.stores.borrow().iter().find(|store| *store.name == *name)?.clone();
        let SharedStore { ref host, port, tls, ref authorities, .. } = *config;
        let tls = tls.then(|| store_tls(host, authorities.as_deref())).transpose();
        let tls = tls.map_err(|error| tracing::error!(store = name, %error, "the store cannot be reached")).ok()?;
        let place = match host.parse::<IpAddr>() {
            Ok(ip) => Place::Ip((ip, port).into()),
            Err(_) => Place::Name(self.asker.names.host(host), port),
        };
        let target = Target {
            place,
            tls,
            protocol: Protocol::Auto,
            idle: 0,
            idle_timeout: Duration::ZERO,
            streams: 0,
            ping: None,
            slots: Default::default(),
        };
        let settings = redis::Settings {
            name: config.name.clone(),
            target,
            user: config.user.clone(),
            password: config.password.clone(),
            database: config.database,
            timeout: config.timeout,
        };
        let store = Rc::new(redis::Store::new(settings));
        self.asked.borrow_mut().insert(config.name.clone(), (config, store.clone()));
        Some(store)
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

    fn ask_aside(&self, errand: Errand) {
        let (asker, began) = (self.asker.clone(), tokio::time::Instant::now());
        World::aside(self, async move {
            let mut next = Some(errand);
            while let Some(Errand { mut asked, then }) = next {
                asked.within = asked.within.saturating_sub(began.elapsed());
                next = then(asker.ask(asked).await);
            }
        });
    }

    fn aside(&self, task: std::pin::Pin<Box<dyn Future<Output = ()>>>) {
        World::aside(self, task);
    }

    fn eval(&self, eval: Eval, then: Box<dyn FnOnce(Result<Vec<i64>, StoreAway>)>) {
        let Eval { store, script, keys, args } = eval;
        let Some(store) = self.store(&store) else { return then(Err(StoreAway)) };
        let script =
            self.scripts.borrow_mut().entry(script).or_insert_with(|| Rc::new(redis::Script::new(script))).clone();
        World::aside(self, async move {
            then(match store.eval(&script, &keys, &args).await {
                Ok(value) => numbers(value).ok_or(StoreAway),
                // It has told the log.
                Err(_) => Err(StoreAway),
            });
        });
    }

    fn node(&self) -> u64 {
        self.node
    }

    fn random(&self) -> u64 {
        World::random(self)
    }
}

fn numbers(value: redis::Value) -> Option<Vec<i64>> {
    let redis::Value::List(list) = value else { return None };
    let numbers = list.into_iter().map(|item| match item {
        redis::Value::Int(number) => Some(number),
        _ => None,
    });
    numbers.collect()
}

/// The same for all cores of a node, and for no other node.
fn node(names: &Arc<Names>) -> u64 {
    static PROCESS: LazyLock<foldhash::quality::RandomState> = LazyLock::new(Default::default);
    PROCESS.hash_one((Arc::as_ptr(names) as usize, std::process::id()))
}

fn store_tls(host: &str, authorities: Option<&[u8]>) -> Result<(Arc<ClientConfig>, ServerName<'static>), String> {
    let input = tls::ClientTls { authorities, certificate: None, verify: true, alpn: &[] };
    let built = input.build(&crate::node::provider());
    let built = built.map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
    Ok((built.config, tls::server_name(host).map_err(|error| error.to_string())?))
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
