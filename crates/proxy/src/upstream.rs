//! Upstreams as one core sees them: pools, loads, whose turn it is. Kept over a reload where nothing changed.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base::{Call, Time};
use config::{Balance, Destination, HashKey, Protocol, Upstream};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use smallvec::SmallVec;
use transport::dns::Name;
use transport::{Place, Pool, Target};

use crate::budget::RetryBudget;
use crate::choose::{self, Load};

/// What all cores know of an endpoint.
pub struct EndpointState {
    pub upstream: Arc<str>,
    pub url: Arc<str>,
    pub healthy: AtomicBool,
    /// Its name, kept resolved, where it has one.
    pub name: Option<Arc<Name>>,
    /// What makes it the same endpoint after a reload.
    pub identity: String,
}

impl EndpointState {
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }
}

/// An endpoint on one core.
pub struct LocalEndpoint {
    pub state: Arc<EndpointState>,
    pub authority: String,
    pub base_path: String,
    pub weight: u32,
    pub load: Load,
    pub pool: Pool,
    id: u64,
}

pub struct LocalUpstream {
    pub config: Arc<Upstream>,
    pub endpoints: Vec<Rc<LocalEndpoint>>,
    pub budget: RetryBudget,
    turn: Cell<u64>,
}

impl LocalUpstream {
    /// `previous` lends what has not changed: connections, measured latencies.
    pub fn new(
        config: &Arc<Upstream>,
        states: &[Arc<EndpointState>],
        tls: Option<&Arc<ClientConfig>>,
        previous: Option<&LocalUpstream>,
        start: u64,
    ) -> LocalUpstream {
        let endpoints = config.endpoints.iter().zip(states).map(|(endpoint, state)| {
            let old = previous.and_then(|it| it.endpoints.iter().find(|old| old.state.identity == state.identity));
            if let Some(old) = old
                && old.weight == endpoint.weight
            {
                return old.clone();
            }
            Rc::new(LocalEndpoint {
                pool: old.map_or_else(|| Pool::new(target(config, endpoint, state, tls)), |old| old.pool.clone()),
                state: state.clone(),
                authority: endpoint.authority.clone(),
                base_path: endpoint.base_path.clone(),
                weight: endpoint.weight,
                load: Load::default(),
                id: hash_of(&endpoint.url),
            })
        });
        LocalUpstream {
            endpoints: endpoints.collect(),
            budget: RetryBudget::new(Time::now(), config.retry.min_per_second),
            // Cores begin at different places, so that together they do not favour the first.
            turn: Cell::new(start),
            config: config.clone(),
        }
    }

    /// The endpoint for a call, none of `tried` if there is another. `None` only if there is no endpoint at all.
    ///
    /// Unhealthy endpoints are left out, unless all are: then a guess is better than a refusal.
    pub fn choose(&self, call: &Call, tried: &[usize], random: u64) -> Option<usize> {
        let mut candidates: SmallVec<[(usize, u32); 8]> = SmallVec::new();
        for wants in [Want::HealthyUntried, Want::Untried, Want::Healthy, Want::Any] {
            for (at, endpoint) in self.endpoints.iter().enumerate() {
                let fits = match wants {
                    Want::HealthyUntried => endpoint.state.is_healthy() && !tried.contains(&at),
                    Want::Untried => !tried.contains(&at),
                    Want::Healthy => endpoint.state.is_healthy(),
                    Want::Any => true,
                };
                if fits && endpoint.weight > 0 {
                    candidates.push((at, endpoint.weight));
                }
            }
            if !candidates.is_empty() {
                break;
            }
        }
        if candidates.is_empty() {
            return None;
        }
        Some(match &self.config.balance {
            Balance::LeastLoad => {
                choose::least_load(&candidates, random, |at, weight| self.endpoints[at].load.cost(weight, call.now))
            }
            Balance::RoundRobin => {
                let turn = self.turn.replace(self.turn.get().wrapping_add(1));
                choose::round_robin(&candidates, turn)
            }
            Balance::Hash(key) => {
                let candidates: SmallVec<[(usize, u32, u64); 8]> =
                    candidates.iter().map(|(at, weight)| (*at, *weight, self.endpoints[*at].id)).collect();
                choose::consistent(&candidates, hash_key(key, call).as_ref())
            }
        })
    }
}

enum Want {
    HealthyUntried,
    Untried,
    Healthy,
    Any,
}

fn hash_key<'a>(key: &HashKey, call: &'a Call) -> std::borrow::Cow<'a, [u8]> {
    match key {
        HashKey::Address => call.client.addr.to_string().into_bytes().into(),
        HashKey::Consumer => match &call.consumer {
            Some(consumer) => consumer.name.as_bytes().to_vec().into(),
            None => call.client.addr.to_string().into_bytes().into(),
        },
        HashKey::Header(name) => call.head.headers.get(name).unwrap_or_default().into(),
        HashKey::Query(name) => {
            let pairs = call.head.query().unwrap_or_default().split('&');
            let value = pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| key == name);
            value.map_or(&[][..], |(_, value)| value.as_bytes()).into()
        }
        HashKey::Path => call.head.path().as_bytes().into(),
    }
}

fn hash_of(text: &str) -> u64 {
    use std::hash::BuildHasher;
    foldhash::fast::FixedState::with_seed(7).hash_one(text)
}

pub fn target(
    upstream: &Upstream,
    endpoint: &config::Endpoint,
    state: &EndpointState,
    tls: Option<&Arc<ClientConfig>>,
) -> Target {
    Target {
        place: place(endpoint, state),
        tls: tls.filter(|_| endpoint.tls).and_then(|config| Some((config.clone(), server_name(upstream, endpoint)?))),
        protocol: match upstream.protocol {
            Protocol::Http1 => transport::Protocol::Http1,
            Protocol::Http2 => transport::Protocol::Http2,
            Protocol::Auto => transport::Protocol::Auto,
        },
        idle: upstream.connections.idle,
        idle_timeout: upstream.connections.idle_timeout,
        streams: upstream.connections.streams,
        ping: upstream.connections.ping,
    }
}

fn place(endpoint: &config::Endpoint, state: &EndpointState) -> Place {
    match (&endpoint.address, &state.name) {
        (Destination::Ip(address), _) => Place::Ip(*address),
        (Destination::Unix(path), _) => Place::Unix(path.clone()),
        (Destination::Name { port, .. }, Some(name)) => Place::Name(name.clone(), *port),
        (Destination::Name { .. }, None) => unreachable!("a name is watched from the moment its state is made"),
    }
}

/// The name to verify: the document's, or the endpoint's own.
pub fn server_name(upstream: &Upstream, endpoint: &config::Endpoint) -> Option<ServerName<'static>> {
    let named = upstream.tls.as_ref().and_then(|tls| tls.name.clone());
    let name = named.unwrap_or_else(|| match &endpoint.address {
        Destination::Name { host, .. } => host.clone(),
        Destination::Ip(address) => address.ip().to_string(),
        Destination::Unix(_) => endpoint.authority.clone(),
    });
    ServerName::try_from(name).ok()
}
