//! Upstreams: what all cores know of one and of its endpoints, and what each core has of its own: pools, whose turn it
//! is. Kept over a reload where nothing changed.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use base::{Call, Time};
use config::{Balance, Destination, HashKey, Protocol, Upstream};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use smallvec::SmallVec;
use tokio::sync::Notify;
use transport::dns::{Name, Names};
use transport::{Place, Pool, Slots, Target};

use crate::budget::{Deposits, RetryBudget};
use crate::choose::{self, Load};
use crate::circuit::{Change, Circuit, State};
use crate::hedge::Times;

/// What all cores know of an endpoint.
pub struct EndpointState {
    pub upstream: Arc<str>,
    pub url: Arc<str>,
    /// What probes say.
    pub healthy: AtomicBool,
    /// An operator has said that it gets no new calls.
    pub drained: AtomicBool,
    /// Open while it is ejected.
    pub circuit: Circuit,
    pub load: Load,
    /// Its connections.
    pub slots: Arc<Slots>,
    /// When it came, or came back; zero if it was there from the start.
    since: AtomicU64,
    /// Its name, kept resolved, where it has one.
    pub name: Option<Arc<Name>>,
    /// What makes it the same endpoint after a reload.
    pub identity: String,
}

/// What all cores know of an upstream.
pub struct UpstreamState {
    pub name: Arc<str>,
    /// Open while its calls are refused.
    pub breaker: Circuit,
    pub budget: RetryBudget,
    /// Its connections, at all endpoints.
    pub slots: Arc<Slots>,
    /// Calls under way, where they are bounded.
    calls: AtomicU32,
    waiting: AtomicU32,
    freed: Notify,
    /// Held, never waited for, by the core that decides about an ejection: two at once could leave out too many.
    ejecting: AtomicBool,
    pub counts: Counts,
}

/// What has happened, for the metrics.
#[derive(Debug, Default)]
pub struct Counts {
    pub refused_full: AtomicU64,
    pub refused_open: AtomicU64,
    pub hedges: AtomicU64,
    pub hedges_won: AtomicU64,
}

/// An endpoint as the document in force has it, with its state.
#[derive(Clone)]
pub struct Member {
    pub endpoint: Arc<config::Endpoint>,
    pub state: Arc<EndpointState>,
}

/// An endpoint on one core.
pub struct LocalEndpoint {
    pub state: Arc<EndpointState>,
    pub config: Arc<config::Endpoint>,
    pub pool: Pool,
    id: u64,
}

pub struct LocalUpstream {
    pub config: Arc<Upstream>,
    pub state: Arc<UpstreamState>,
    pub endpoints: Vec<Rc<LocalEndpoint>>,
    pub deposits: Deposits,
    /// How long tries took, where that is asked for.
    pub times: OnceCell<Times>,
    /// Groups of endpoints in order of preference; mostly one.
    levels: u32,
    /// Calls that one endpoint may have, zero for no bound.
    bound: u32,
    turn: Cell<u64>,
}

/// The right to one try at an endpoint, given back when dropped.
pub struct Seat {
    pub endpoint: Rc<LocalEndpoint>,
    /// Its place among the upstream's endpoints.
    pub at: usize,
    upstream: Rc<LocalUpstream>,
    /// It tries whether an ejected endpoint is well again.
    trial: bool,
    /// That of the whole call, once the try has become its answer.
    pass: Option<Pass>,
}

/// The right to one call, where an upstream's calls are bounded.
pub struct Pass(Rc<LocalUpstream>);

/// One of the calls that try whether an upstream is well again.
pub struct Trial(Rc<LocalUpstream>);

/// Why there is no endpoint for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSeat {
    /// There is none that could be called.
    Nowhere,
    /// Those that there are have as much as they may.
    Full,
}

/// These endpoints of an upstream; those that are `known` keep what is known of them.
pub fn members(
    upstream: &Upstream,
    endpoints: Vec<config::Endpoint>,
    known: Option<&[Member]>,
    names: &Names,
) -> Vec<Member> {
    // What all begin with at once needs no slow start.
    let since = if known.is_some_and(|known| !known.is_empty()) { Time::now() } else { Time::default() };
    let members = endpoints.into_iter().map(|endpoint| {
        let identity =
            format!("{} {:?} {:?} {:?}", endpoint.url, upstream.protocol, upstream.tls, upstream.connections);
        let same = known.into_iter().flatten().find(|it| it.state.identity == identity);
        let state = same.map(|it| it.state.clone()).unwrap_or_else(|| {
            let name = match &endpoint.address {
                Destination::Name { host, .. } => Some(names.host(host)),
                Destination::Ip(_) | Destination::Unix(_) => None,
            };
            Arc::new(EndpointState::new(&upstream.name, &endpoint.url, name, identity, since))
        });
        Member { endpoint: Arc::new(endpoint), state }
    });
    members.collect()
}

// === impl EndpointState ===

impl EndpointState {
    pub fn new(upstream: &Arc<str>, url: &Arc<str>, name: Option<Arc<Name>>, identity: String, since: Time) -> Self {
        EndpointState {
            upstream: upstream.clone(),
            url: url.clone(),
            healthy: AtomicBool::new(true),
            drained: AtomicBool::new(false),
            circuit: Circuit::default(),
            load: Load::default(),
            slots: Arc::default(),
            since: AtomicU64::new(since.nanos()),
            name,
            identity,
        }
    }

    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// It takes calls again: what it was like before says nothing, and it may need to warm up.
    pub fn came_back(&self, now: Time) {
        self.load.forget();
        self.since.store(now.nanos(), Ordering::Relaxed);
    }

    fn since(&self) -> Time {
        Time::from_nanos(self.since.load(Ordering::Relaxed))
    }
}

// === impl UpstreamState ===

impl UpstreamState {
    pub fn new(config: &Upstream) -> UpstreamState {
        UpstreamState {
            name: config.name.clone(),
            breaker: Circuit::default(),
            budget: RetryBudget::new(Time::now(), config.retry.min_per_second),
            slots: Arc::default(),
            calls: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            freed: Notify::new(),
            ejecting: AtomicBool::new(false),
            counts: Counts::default(),
        }
    }

    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whoever waits said so before it looked for room: either it saw what is free now, or it is seen here.
    fn free(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.freed.notify_one();
        }
    }
}

// === impl LocalUpstream ===

impl LocalUpstream {
    /// `previous` lends what has not changed: connections.
    pub fn new(
        config: &Arc<Upstream>,
        state: &Arc<UpstreamState>,
        members: &[Member],
        tls: Option<&Arc<ClientConfig>>,
        previous: Option<&LocalUpstream>,
        start: u64,
    ) -> LocalUpstream {
        let endpoints = members.iter().map(|Member { endpoint, state: known }| {
            let old = previous.and_then(|it| it.endpoints.iter().find(|old| old.state.identity == known.identity));
            let pool = || Pool::new(Target { slots: bounds(state, known), ..target(config, endpoint, known, tls) });
            Rc::new(LocalEndpoint {
                pool: old.map_or_else(pool, |old| old.pool.clone()),
                state: known.clone(),
                config: endpoint.clone(),
                id: hash_of(&endpoint.url),
            })
        });
        LocalUpstream {
            endpoints: endpoints.collect(),
            deposits: Deposits::default(),
            times: OnceCell::new(),
            levels: members.iter().map(|member| member.endpoint.level + 1).max().unwrap_or(1),
            bound: config.limits.as_ref().and_then(|limits| limits.endpoint_calls).unwrap_or(0),
            // Cores begin at different places, so that together they do not favour the first.
            turn: Cell::new(start),
            state: state.clone(),
            config: config.clone(),
        }
    }

    fn pass(self: &Rc<Self>, most: u32) -> Option<Pass> {
        let more = |calls: u32| (calls < most).then_some(calls + 1);
        self.state.calls.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        Some(Pass(self.clone()))
    }

    /// Lets the call in, and gives it a place at an endpoint.
    pub fn enter(self: &Rc<Self>, call: &Call, random: u64, now: Time) -> Result<(Option<Pass>, Seat), NoSeat> {
        let Some(limits) = &self.config.limits else { return Ok((None, self.seat(call, &[], random, now)?)) };
        // Nobody goes before those who wait.
        if self.state.waiting() > 0 {
            return Err(NoSeat::Full);
        }
        self.enter_bounded(limits, call, random, now)
    }

    fn enter_bounded(
        self: &Rc<Self>,
        limits: &config::Limits,
        call: &Call,
        random: u64,
        now: Time,
    ) -> Result<(Option<Pass>, Seat), NoSeat> {
        // Looked at first and taken last: what is taken and given back wakes those who wait.
        if limits.calls.is_some_and(|most| self.state.calls.load(Ordering::SeqCst) >= most) {
            return Err(NoSeat::Full);
        }
        let seat = self.seat(call, &[], random, now)?;
        let pass = limits.calls.map(|most| self.pass(most).ok_or(NoSeat::Full)).transpose()?;
        Ok((pass, seat))
    }

    /// As [`LocalUpstream::enter`], for a call that found it full: waits for as long as the document lets it.
    pub async fn wait(
        self: &Rc<Self>,
        call: &Call,
        random: u64,
        until: Option<Time>,
    ) -> Result<(Option<Pass>, Seat), NoSeat> {
        let Some(limits) = self.config.limits.as_ref().filter(|limits| limits.waiting > 0) else {
            return Err(NoSeat::Full);
        };
        let before = self.state.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(&self.state);
        if before >= limits.waiting {
            return Err(NoSeat::Full);
        }
        let end = Time::now() + limits.wait;
        let end = until.map_or(end, |until| until.min(end));
        loop {
            let mut freed = std::pin::pin!(self.state.freed.notified());
            freed.as_mut().enable();
            let now = Time::now();
            match self.enter_bounded(limits, call, random, now) {
                Err(NoSeat::Full) if now < end => {}
                done => return done,
            }
            // Endpoints also become well again without anybody leaving.
            let _ = tokio::time::timeout(end.since(now).min(LOOK_AGAIN), freed).await;
        }
    }

    /// A place at an endpoint, none of `tried` if there is another.
    pub fn seat(self: &Rc<Self>, call: &Call, tried: &[usize], random: u64, now: Time) -> Result<Seat, NoSeat> {
        let mut full: SmallVec<[usize; 4]> = SmallVec::new();
        loop {
            let Some(at) = self.choose(call, tried, &full, random, now) else {
                return Err(if full.is_empty() { NoSeat::Nowhere } else { NoSeat::Full });
            };
            let endpoint = &self.endpoints[at];
            if endpoint.state.load.begin(self.bound) {
                let trial = self.is_on_trial(endpoint, now) && endpoint.state.circuit.begin_trial(1);
                return Ok(Seat { endpoint: endpoint.clone(), at, upstream: self.clone(), trial, pass: None });
            }
            full.push(at);
        }
    }

    /// The endpoint for a call, none of `tried` if there is another. `None` only if there is none at all.
    ///
    /// Endpoints that are unhealthy or ejected are left out, unless all are: then a guess is better than a refusal.
    /// Drained ones and those that are full are left out in any case.
    fn choose(&self, call: &Call, tried: &[usize], full: &[usize], random: u64, now: Time) -> Option<usize> {
        let random = match &self.config.balance {
            // Who always goes to the same endpoint also goes to the same group.
            Balance::Hash(key) if self.levels > 1 => hash_of(&*hash_key(key, call)),
            _ => random,
        };
        let first = if self.levels > 1 { self.level(random, now) } else { 0 };
        let mut candidates: SmallVec<[(usize, u32); 8]> = SmallVec::new();
        'found: for wants in [Want::WellUntried, Want::Untried, Want::Well, Want::Any] {
            for level in std::iter::once(first).chain((0..self.levels).filter(|level| *level != first)) {
                for (at, endpoint) in self.endpoints.iter().enumerate() {
                    let fits = match wants {
                        Want::WellUntried => !tried.contains(&at) && self.is_well(endpoint, now),
                        Want::Untried => !tried.contains(&at),
                        Want::Well => self.is_well(endpoint, now),
                        Want::Any => true,
                    };
                    if fits
                        && endpoint.config.level == level
                        && endpoint.config.weight > 0
                        && !endpoint.is_drained()
                        && !full.contains(&at)
                    {
                        candidates.push((at, endpoint.config.weight));
                    }
                }
                if !candidates.is_empty() {
                    break 'found;
                }
            }
        }
        if let [(only, _)] = candidates[..] {
            return Some(only);
        }
        if let Balance::Hash(key) = &self.config.balance {
            let weighed = candidates.iter().map(|(at, weight)| {
                let endpoint = &self.endpoints[*at];
                let weight = (f64::from(*weight) * 100.0 * self.ramp(endpoint, now)) as u32;
                (*at, weight, endpoint.id)
            });
            let weighed: SmallVec<[(usize, u32, u64); 8]> = weighed.collect();
            return (!weighed.is_empty()).then(|| choose::consistent(&weighed, hash_key(key, call).as_ref()));
        }
        // The first call that can still be tried elsewhere tells whether an ejected endpoint is well again: nothing of
        // what is known of it would ever make it the better choice.
        if tried.is_empty()
            && let Some((at, _)) = candidates.iter().find(|(at, _)| self.is_on_trial(&self.endpoints[*at], now))
        {
            return Some(*at);
        }
        if !self.config.slow_start.is_zero() {
            let before = candidates.clone();
            candidates.retain(|(at, _)| {
                let endpoint = &self.endpoints[*at];
                choose::draw(random, endpoint.id) < self.ramp(endpoint, now)
            });
            if candidates.is_empty() {
                candidates = before;
            }
        }
        match &self.config.balance {
            _ if candidates.is_empty() => None,
            Balance::RoundRobin => {
                let turn = self.turn.replace(self.turn.get().wrapping_add(1));
                Some(choose::round_robin(&candidates, turn))
            }
            _ => Some(choose::least_load(&candidates, random, |at, weight| {
                self.endpoints[at].state.load.cost(weight, now)
            })),
        }
    }

    /// The group of endpoints that is to have the call.
    fn level(&self, random: u64, now: Time) -> u32 {
        let mut groups: SmallVec<[(u32, u32); 4]> = SmallVec::from_elem((0, 0), self.levels as usize);
        for endpoint in self.endpoints.iter().filter(|endpoint| !endpoint.is_drained()) {
            let (well, all) = &mut groups[endpoint.config.level as usize];
            *all += endpoint.config.weight;
            if self.is_well(endpoint, now) && !self.is_full(endpoint) {
                *well += endpoint.config.weight;
            }
        }
        choose::level(&groups, self.config.spill_below, random) as u32
    }

    fn is_well(&self, endpoint: &LocalEndpoint, now: Time) -> bool {
        let circuit = &endpoint.state.circuit;
        endpoint.state.is_healthy()
            && (circuit.is_closed()
                || self.config.eject.is_none()
                || (circuit.state(now) == State::OnTrial && circuit.has_trial(1)))
    }

    fn is_on_trial(&self, endpoint: &LocalEndpoint, now: Time) -> bool {
        let circuit = &endpoint.state.circuit;
        !circuit.is_closed() && self.config.eject.is_some() && circuit.state(now) == State::OnTrial
    }

    fn is_full(&self, endpoint: &LocalEndpoint) -> bool {
        self.bound > 0 && endpoint.state.load.in_flight() >= self.bound
    }

    fn ramp(&self, endpoint: &LocalEndpoint, now: Time) -> f64 {
        choose::ramp(endpoint.state.since(), self.config.slow_start, now)
    }

    // === The breaker ===

    /// Whether calls are let through: all, or this one as a trial, or for how long none.
    pub fn let_through(self: &Rc<Self>, now: Time) -> Result<Option<Trial>, Duration> {
        let Some(breaker) = &self.config.breaker else { return Ok(None) };
        match self.state.breaker.state(now) {
            State::Closed => Ok(None),
            State::OnTrial if self.state.breaker.begin_trial(breaker.trials) => Ok(Some(Trial(self.clone()))),
            // Its trials are under way: they will soon have told.
            State::OnTrial => Err(Duration::from_secs(1)),
            State::Open { until } => Err(until.since(now)),
        }
    }

    /// The breaker has opened: nothing more is to be tried.
    pub fn is_left_alone(&self, now: Time) -> bool {
        self.config.breaker.is_some() && matches!(self.state.breaker.state(now), State::Open { .. })
    }

    /// Notes how a try ended, for the endpoint and for the upstream; `failed` says by whose rules it counts as a
    /// failure.
    pub fn note(
        &self,
        seat: &mut Seat,
        trial: Option<&Trial>,
        failed: impl Fn(&config::FaultKinds) -> bool,
        now: Time,
    ) {
        let endpoint = seat.endpoint.clone();
        let state = &endpoint.state;
        if let Some(eject) = &self.config.eject {
            let failed = failed(&eject.circuit.on);
            // A success has nothing to decide, and need not take turns.
            let mine = failed && !self.state.ejecting.swap(true, Ordering::Acquire);
            let may_open = || mine && self.may_eject(eject);
            let enough = seat.trial.then_some(1);
            let change = state.circuit.note(&eject.circuit, !failed, enough, now, may_open);
            if mine {
                self.state.ejecting.store(false, Ordering::Release);
            }
            seat.end_trial();
            match change {
                Some(Change::Opened { pause }) => {
                    tracing::warn!(upstream = %self.state.name, endpoint = %state.url, ?pause, "endpoint is ejected");
                }
                Some(Change::Closed) => {
                    tracing::info!(upstream = %self.state.name, endpoint = %state.url, "endpoint is back");
                    state.came_back(now);
                }
                None => {}
            }
        }
        if let Some(breaker) = &self.config.breaker {
            let enough = trial.map(|_| breaker.trials);
            match self.state.breaker.note(&breaker.circuit, !failed(&breaker.circuit.on), enough, now, || true) {
                Some(Change::Opened { pause }) => {
                    tracing::warn!(upstream = %self.state.name, ?pause, "upstream fails; its calls are refused");
                }
                Some(Change::Closed) => tracing::info!(upstream = %self.state.name, "upstream is called again"),
                None => {}
            }
        }
    }

    /// One more endpoint may be left out: not too large a part of them, and never the last.
    fn may_eject(&self, eject: &config::Eject) -> bool {
        let all = self.endpoints.iter().filter(|endpoint| !endpoint.is_drained());
        let (count, ejected) = all.fold((0, 0), |(count, ejected), endpoint| {
            (count + 1, ejected + usize::from(!endpoint.state.circuit.is_closed()))
        });
        let most = ((count as f64 * eject.most.fraction()) as usize).max(1);
        ejected < most && ejected + 1 < count
    }
}

// === impl LocalEndpoint ===

impl LocalEndpoint {
    pub fn is_drained(&self) -> bool {
        self.config.drain || self.state.drained.load(Ordering::Relaxed)
    }
}

// === impl Seat ===

impl Seat {
    /// From now on it stands for the whole call.
    pub fn hold(&mut self, pass: Option<Pass>) {
        self.pass = pass;
    }

    fn end_trial(&mut self) {
        if std::mem::take(&mut self.trial) {
            self.endpoint.state.circuit.end_trial();
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.end_trial();
        self.endpoint.state.load.end();
        self.upstream.state.free();
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.state.calls.fetch_sub(1, Ordering::SeqCst);
        self.0.state.free();
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.0.state.breaker.end_trial();
    }
}

/// One that waits for room.
struct Waiting<'a>(&'a UpstreamState);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

const LOOK_AGAIN: Duration = Duration::from_millis(50);

enum Want {
    WellUntried,
    Untried,
    Well,
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

fn hash_of(value: impl std::hash::Hash) -> u64 {
    use std::hash::BuildHasher;
    foldhash::fast::FixedState::with_seed(7).hash_one(value)
}

fn bounds(upstream: &UpstreamState, endpoint: &EndpointState) -> SmallVec<[Arc<Slots>; 2]> {
    [endpoint.slots.clone(), upstream.slots.clone()].into_iter().collect()
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
        slots: SmallVec::new(),
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
