//! A worker: one core, one thread, one runtime. What it serves with is its own; what it is told comes by message.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use awareness::{Arrival, Exchange, TraceContext};
use base::{Call, Headers, Time};
use cache::{Front, Store};
use config::{Listener, Snapshot};
use ipnet::IpNet;
use rustls::{ClientConfig, ServerConfig};
use telemetry::{Gauge, Recorder};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use transport::dns::{Names, Service};
use transport::listen::{Detached, Listening};
use transport::{Drain, Drainer, Pace, drain, h1, h2};

use crate::acme::{Certificate, Tokens};
use crate::board::{self, Balance, Board};
use crate::connection;
use crate::crowd::{Crowd, Seat};
use crate::deadline::Timers;
use crate::helper::Helper;
use crate::lender::Desk;
use crate::meter::{self, Meter};
use crate::models;
use crate::outside::World;
use crate::upstream::{LocalUpstream, Member, UpstreamState};

/// What all workers run on, from one reload to the next.
pub struct Generation {
    pub snapshot: Arc<Snapshot>,
    /// As the snapshot's upstreams.
    pub upstreams: Vec<Arc<UpstreamState>>,
    /// Their endpoints, of which some come and go while the snapshot stays.
    pub members: Vec<ArcSwap<Vec<Member>>>,
    /// As each upstream's discoveries: where those that come and go are known.
    pub services: Vec<Vec<Arc<Service>>>,
    pub client_tls: Vec<Option<Arc<ClientConfig>>>,
    /// Certificates that an authority issues, as the snapshot's listeners.
    pub certificates: Vec<Option<Arc<Certificate>>>,
    /// Answers to an authority that asks by HTTP.
    pub tokens: Arc<Tokens>,
    /// What is known of providers and their models.
    pub models: models::States,
    /// As the snapshot's listeners.
    pub server_tls: Vec<Option<Arc<ArcSwap<ServerConfig>>>>,
    /// As the snapshot's listeners.
    pub crowds: Vec<Arc<Crowd>>,
}

/// A generation as one core has it.
pub struct Local {
    pub generation: Arc<Generation>,
    upstreams: Vec<Rc<LocalUpstream>>,
}

pub struct Worker {
    pub index: usize,
    local: RefCell<Rc<Local>>,
    recorder: RefCell<Recorder>,
    /// Records that have been read and may be written again.
    #[expect(clippy::vec_box, reason = "calls hold them boxed, and a box is what is saved")]
    spare: RefCell<Vec<Box<Exchange>>>,
    active: Gauge,
    pub balance: Balance,
    pub timers: Rc<Timers>,
    /// Does what would keep the other calls waiting.
    pub helper: Rc<Helper>,
    /// One moment on both clocks, looked up a few times a second.
    wall: Cell<(Time, SystemTime)>,
    peers: RefCell<Vec<mpsc::UnboundedSender<Order>>>,
    listeners: RefCell<HashMap<Arc<str>, Rc<LocalListener>>>,
    /// Those that have moved to other addresses, as long as they have connections.
    moved: RefCell<Vec<Weak<LocalListener>>>,
    /// Connections open on this core, and sockets that still bring some; whoever waits for none is told.
    pub connections: Cell<u32>,
    accepting: Cell<u32>,
    pub quiet: tokio::sync::Notify,
    /// What is kept of answers, shared with the other workers, and what of it was found here lately.
    pub store: Arc<Store>,
    pub front: RefCell<Front>,
    /// Where what is kept is read that is not in memory.
    pub disk: Arc<disk::Disk>,
    /// What policies may ask; copies to shadow upstreams too go out by it.
    pub outside: World,
    /// Where it is written down what calls cost.
    pub journal: Option<journal::Handle>,
    /// Where budgets that nodes share are borrowed.
    pub desk: Desk,
}

/// A listener on one core, from its first appearance in a document to its last.
pub struct LocalListener {
    pub name: Arc<str>,
    index: Cell<Option<usize>>,
    config: RefCell<Arc<Listener>>,
    trusted: RefCell<Rc<[IpNet]>>,
    pub tls: RefCell<Option<Arc<ArcSwap<ServerConfig>>>>,
    pub open: Gauge,
    pub crowd: Arc<Crowd>,
    pub drain: Drain,
    drainer: Drainer,
}

/// A socket that still brings connections.
pub struct Accepting(Rc<Worker>);

impl Drop for Accepting {
    fn drop(&mut self) {
        self.0.accepting.set(self.0.accepting.get() - 1);
        self.0.tell_if_quiet();
    }
}

/// What a worker can be told.
pub enum Order {
    /// Run on this generation from now on, and accept on these sockets too.
    Apply {
        generation: Arc<Generation>,
        sockets: Vec<(Arc<str>, Arc<Listening>)>,
        done: oneshot::Sender<()>,
    },
    /// One upstream of this generation has other endpoints now.
    Members {
        generation: Arc<Generation>,
        at: usize,
    },
    /// Go on with a connection that another core handed over.
    Adopt {
        listener: Arc<str>,
        connection: Box<HandedOver>,
    },
    /// Finish: accept no more, tell when no connection is left. Idle ones end at once, or if `gently` with their
    /// next answer.
    Drain {
        gently: bool,
        done: oneshot::Sender<()>,
    },
    Peers(Vec<mpsc::UnboundedSender<Order>>),
    /// End now; what is still open is cut.
    Stop,
}

pub struct HandedOver {
    pub stream: Detached,
    pub peer: Arc<base::Peer>,
    pub accepted: Time,
    pub read: bytes::BytesMut,
    pub seat: Seat,
}

/// What the workers of a node have in common.
#[derive(Clone)]
pub struct Shared {
    pub board: Arc<Board>,
    pub names: Arc<Names>,
    pub store: Arc<Store>,
    pub desk: Desk,
    pub disk: Arc<disk::Disk>,
}

/// Runs a worker until its orders end.
pub fn run(
    index: usize,
    generation: Arc<Generation>,
    recorder: Recorder,
    shared: Shared,
    journal: Option<journal::Handle>,
    orders: mpsc::UnboundedReceiver<Order>,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
    runtime.block_on(work(index, generation, recorder, shared, journal, orders));
    // Connections that would not end are cut here, with the tasks that hold them.
    runtime.shutdown_timeout(Duration::from_millis(100));
    Ok(())
}

async fn work(
    index: usize,
    generation: Arc<Generation>,
    recorder: Recorder,
    shared: Shared,
    journal: Option<journal::Handle>,
    mut orders: mpsc::UnboundedReceiver<Order>,
) {
    let Shared { board, names, store, disk, desk } = shared;
    let active = recorder.active();
    let worker = Rc::new(Worker {
        index,
        local: RefCell::new(Rc::new(Local { generation: generation.clone(), upstreams: Vec::new() })),
        recorder: RefCell::new(recorder),
        spare: RefCell::default(),
        active,
        balance: Balance::new(board, index),
        timers: Rc::default(),
        helper: Rc::new(Helper::new(index)),
        wall: Cell::new((Time::now(), SystemTime::now())),
        peers: RefCell::default(),
        listeners: RefCell::default(),
        moved: RefCell::default(),
        connections: Cell::new(0),
        accepting: Cell::new(0),
        quiet: tokio::sync::Notify::new(),
        store,
        front: RefCell::default(),
        disk,
        journal,
        desk,
        outside: World::new(names, Time::now().nanos().wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (index as u64 + 1)),
    });
    worker.adopt_generation(generation);
    let mut accepting: JoinSet<()> = JoinSet::new();
    let mut connections: JoinSet<()> = JoinSet::new();
    let (adopted, mut adoptions) = mpsc::unbounded_channel();
    let mut tick = tokio::time::interval(board::EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last = Time::now();
    let mut ticks = 0u32;
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                None | Some(Order::Stop) => break,
                Some(Order::Apply { generation, sockets, done }) => {
                    worker.adopt_generation(generation);
                    for (name, listening) in sockets {
                        let Some(listener) = worker.listener(&name) else { continue };
                        match listening.acceptors(index) {
                            Ok(acceptors) => {
                                for acceptor in acceptors {
                                    let (worker, listener) = (worker.clone(), listener.clone());
                                    accepting.spawn_local(connection::accept(worker, listener, acceptor, adopted.clone()));
                                }
                            }
                            Err(error) => tracing::error!(listener = %name, %error, "a worker cannot accept"),
                        }
                    }
                    let _ = done.send(());
                }
                Some(Order::Members { generation, at }) => worker.adopt_members(&generation, at),
                Some(Order::Adopt { listener, connection }) => {
                    if let Some(listener) = worker.listener(&listener) {
                        connections.spawn_local(connection::adopt(worker.clone(), listener, *connection));
                    }
                }
                Some(Order::Drain { gently, done }) => {
                    let moved: Vec<_> = worker.moved.borrow().iter().filter_map(Weak::upgrade).collect();
                    for listener in worker.listeners.borrow().values().chain(&moved) {
                        if gently { listener.drainer.finish() } else { listener.drainer.drain() }
                    }
                    let worker = worker.clone();
                    accepting.spawn_local(async move {
                        worker.none_open().await;
                        let _ = done.send(());
                    });
                }
                Some(Order::Peers(peers)) => *worker.peers.borrow_mut() = peers,
            },
            Some(task) = adoptions.recv() => {
                let task: connection::Task = task;
                connections.spawn_local(task);
            }
            Some(ended) = connections.join_next(), if !connections.is_empty() => note_panic(ended),
            Some(ended) = accepting.join_next(), if !accepting.is_empty() => note_panic(ended),
            _ = tick.tick() => {
                let now = Time::now();
                ticks += 1;
                worker.wall.set((now, SystemTime::now()));
                worker.measure(now.since(last));
                last = now;
                policy::report_corrections(now, &worker.outside);
                if ticks.is_multiple_of(4) {
                    worker.recorder.borrow_mut().tick(now);
                }
                if ticks.is_multiple_of(20) {
                    worker.sweep(now);
                }
            }
        }
    }
    // What is still open is cut, and booked as it goes.
    connections.shutdown().await;
    accepting.shutdown().await;
    let _ = tokio::time::timeout(TELLING, worker.tell_stores()).await;
}

/// How long a core that ends waits for stores to hear what calls came to.
const TELLING: Duration = Duration::from_secs(1);

fn note_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("a panic ended one connection: {error}");
    }
}

// === impl Worker ===

impl Worker {
    pub fn local(&self) -> Rc<Local> {
        self.local.borrow().clone()
    }

    pub fn listener(&self, name: &str) -> Option<Rc<LocalListener>> {
        self.listeners.borrow().get(name).cloned()
    }

    /// An evenly spread number; not for secrets.
    pub fn random(&self) -> u64 {
        self.outside.random()
    }

    /// For the calls whose cost is measured.
    pub fn meter(&self) -> Option<Meter> {
        self.random().is_multiple_of(u64::from(meter::ONE_IN)).then(Meter::default)
    }

    /// True if calls are traced here, so that upstreams hear of our spans and not of our caller's.
    pub fn traces(&self) -> bool {
        self.local.borrow().generation.snapshot.telemetry.otlp.as_ref().is_some_and(|otlp| otlp.traces)
    }

    fn trace(&self, headers: &Headers) -> TraceContext {
        let parent = headers.get("traceparent");
        let local = self.local.borrow();
        let telemetry = &local.generation.snapshot.telemetry;
        if parent.is_none() && telemetry.otlp.is_none() {
            return TraceContext::default();
        }
        let sample = telemetry.sample.takes(self.random());
        TraceContext::accept(parent, headers.get("tracestate"), sample, || self.random())
    }

    /// A moment of about now by the calendar.
    pub fn wall_at(&self, at: Time) -> SystemTime {
        let (known, wall) = self.wall.get();
        if at >= known { wall + (at - known) } else { wall - (known - at) }
    }

    pub fn began(&self) {
        self.active.up();
    }

    pub fn ended(&self, exchange: Box<Exchange>) {
        const MOST: usize = 64;
        self.active.down();
        let read = self.recorder.borrow_mut().record(exchange);
        if let Some(exchange) = read.filter(|exchange| exchange.is_small()) {
            let mut spare = self.spare.borrow_mut();
            if spare.len() < MOST {
                spare.push(exchange);
            }
        }
    }

    /// The record of a call that begins.
    pub fn exchange(&self, call: &Call, arrival: Arrival) -> Box<Exchange> {
        let spare = self.spare.borrow_mut().pop();
        Exchange::begin(spare, call, arrival, self.trace(&call.head.headers))
    }

    pub fn opened(&self) {
        self.connections.set(self.connections.get() + 1);
    }

    pub fn closed(&self) {
        self.connections.set(self.connections.get() - 1);
        self.tell_if_quiet();
    }

    /// Counts a socket that brings connections, until the guard is dropped.
    pub fn accepting(self: &Rc<Worker>) -> Accepting {
        self.accepting.set(self.accepting.get() + 1);
        Accepting(self.clone())
    }

    fn is_quiet(&self) -> bool {
        self.connections.get() == 0 && self.accepting.get() == 0
    }

    fn tell_if_quiet(&self) {
        if self.is_quiet() {
            self.quiet.notify_waiters();
        }
    }

    /// Sends a connection to the worker that should have it; gives it back if that one is gone.
    pub fn send_to(
        &self,
        worker: usize,
        listener: &Arc<str>,
        connection: Box<HandedOver>,
    ) -> Result<(), Box<HandedOver>> {
        let peers = self.peers.borrow();
        let Some(peer) = peers.get(worker) else { return Err(connection) };
        let order = Order::Adopt { listener: listener.clone(), connection };
        peer.send(order).map_err(|unsent| match unsent.0 {
            Order::Adopt { connection, .. } => connection,
            _ => unreachable!("an adoption was sent"),
        })
    }

    async fn none_open(&self) {
        loop {
            let quiet = self.quiet.notified();
            if self.is_quiet() {
                return;
            }
            quiet.await;
        }
    }

    fn measure(&self, elapsed: Duration) {
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let cpu = Duration::new(cpu.tv_sec as u64, cpu.tv_nsec as u32);
        self.balance.measure(cpu, elapsed, self.connections.get());
    }

    fn sweep(&self, now: Time) {
        self.outside.sweep(now);
        if self.index == 0 {
            self.store.sweep(now);
        }
        for upstream in &self.local.borrow().upstreams {
            for endpoint in &upstream.endpoints {
                endpoint.pool.sweep(now);
            }
        }
    }

    /// Until stores have heard what calls came to.
    async fn tell_stores(&self) {
        const AGAIN: Duration = Duration::from_millis(2);
        while policy::has_corrections() {
            policy::report_corrections(Time::now(), &self.outside);
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Changes to another generation between two polls: no call sees half of it.
    fn adopt_generation(&self, generation: Arc<Generation>) {
        let old = self.local();
        let snapshot = &generation.snapshot;
        self.outside.set_stores(&snapshot.stores);
        let upstreams = snapshot.upstreams.iter().enumerate().map(|(at, upstream)| {
            let previous = old.upstreams.iter().find(|old| old.config.name == upstream.name);
            self.upstream(&generation, at, previous)
        });
        let upstreams = upstreams.collect();

        let mut listeners = self.listeners.borrow_mut();
        let mut moved = self.moved.borrow_mut();
        moved.retain(|listener| {
            let Some(listener) = listener.upgrade() else { return false };
            listener.index.set(listener.goes_on_as(snapshot));
            if listener.index().is_none() {
                listener.drainer.drain();
            }
            listener.index().is_some()
        });
        listeners.retain(|name, listener| {
            let index = listener.goes_on_as(snapshot);
            let same = index.map(|at| &snapshot.listeners[at]);
            let stays = same.is_some_and(|it| it.name == *name && it.address == listener.config.borrow().address);
            listener.index.set(index);
            match index {
                // Nobody's connection is closed that may just bring a request.
                Some(_) if !stays => {
                    listener.drainer.finish();
                    moved.push(Rc::downgrade(listener));
                }
                Some(_) => {}
                None => listener.drainer.drain(),
            }
            stays
        });
        drop(moved);
        for (index, config) in snapshot.listeners.iter().enumerate() {
            let tls = generation.server_tls[index].clone();
            match listeners.get(&config.name) {
                Some(listener) => listener.update(config, tls),
                None => {
                    let open = self.recorder.borrow().connections(&config.name);
                    let crowd = generation.crowds[index].clone();
                    let listener = LocalListener::new(index, config, tls, open, crowd);
                    listeners.insert(config.name.clone(), Rc::new(listener));
                }
            }
        }
        drop(listeners);
        *self.local.borrow_mut() = Rc::new(Local { generation, upstreams });
    }

    /// Changes the endpoints of one upstream, also between two polls. Calls under way keep those they have.
    fn adopt_members(&self, generation: &Arc<Generation>, at: usize) {
        let old = self.local();
        // There is another document by now, and it had the endpoints from the start.
        if !Arc::ptr_eq(&old.generation, generation) {
            return;
        }
        let mut upstreams = old.upstreams.clone();
        upstreams[at] = self.upstream(generation, at, Some(&old.upstreams[at]));
        *self.local.borrow_mut() = Rc::new(Local { generation: generation.clone(), upstreams });
    }

    fn upstream(&self, generation: &Generation, at: usize, previous: Option<&Rc<LocalUpstream>>) -> Rc<LocalUpstream> {
        Rc::new(LocalUpstream::new(
            &generation.snapshot.upstreams[at],
            &generation.upstreams[at],
            &generation.members[at].load(),
            generation.client_tls[at].as_ref(),
            previous.map(|it| &**it),
            self.index as u64,
        ))
    }
}

// === impl Local ===

impl Local {
    pub fn upstream(&self, index: u32) -> Option<&Rc<LocalUpstream>> {
        self.upstreams.get(index as usize)
    }
}

// === impl LocalListener ===

impl LocalListener {
    fn new(
        index: usize,
        config: &Arc<Listener>,
        tls: Option<Arc<ArcSwap<ServerConfig>>>,
        open: Gauge,
        crowd: Arc<Crowd>,
    ) -> LocalListener {
        let (drainer, drain) = drain();
        LocalListener {
            name: config.name.clone(),
            index: Cell::new(Some(index)),
            trusted: RefCell::new(config.trusted_proxies.clone().into()),
            config: RefCell::new(config.clone()),
            tls: RefCell::new(tls),
            open,
            crowd,
            drain,
            drainer,
        }
    }

    fn update(&self, config: &Arc<Listener>, tls: Option<Arc<ArcSwap<ServerConfig>>>) {
        *self.trusted.borrow_mut() = config.trusted_proxies.clone().into();
        *self.config.borrow_mut() = config.clone();
        *self.tls.borrow_mut() = tls;
    }

    /// Its place in a snapshot, or the place of the one that it is there: under another address, or another name.
    fn goes_on_as(&self, snapshot: &Snapshot) -> Option<usize> {
        let address = &self.config.borrow().address;
        let find = |is: &dyn Fn(&Listener) -> bool| snapshot.listeners.iter().position(|it| is(it));
        find(&|it| it.name == self.name && it.address == *address)
            .or_else(|| find(&|it| it.address == *address))
            .or_else(|| find(&|it| it.name == self.name))
    }

    /// Its place in the snapshot; `None` once it is in none.
    pub fn index(&self) -> Option<usize> {
        self.index.get()
    }

    pub fn trusted(&self) -> Rc<[IpNet]> {
        self.trusted.borrow().clone()
    }

    pub fn expects_proxy_header(&self) -> bool {
        self.config.borrow().proxy_protocol
    }

    pub fn head_timeout(&self) -> Duration {
        self.config.borrow().limits.head_timeout
    }

    pub fn http1(&self) -> h1::Settings {
        let limits = &self.config.borrow().limits;
        h1::Settings {
            limits: h1::HeadLimits::new(limits.head, limits.fields),
            head_timeout: limits.head_timeout,
            idle_timeout: limits.idle_timeout,
            pace: Pace::new(limits.body_timeout, limits.min_rate),
            requests: limits.requests,
        }
    }

    pub fn http2(&self) -> h2::ServerSettings {
        let limits = &self.config.borrow().limits;
        h2::ServerSettings {
            max_streams: limits.streams,
            head_bytes: u32::try_from(limits.head).unwrap_or(u32::MAX),
            head_fields: limits.fields,
            idle_timeout: limits.idle_timeout,
            keepalive: limits.ping.map(|interval| h2::Keepalive { interval, timeout: limits.ping_timeout }),
            pace: Pace::new(limits.body_timeout, limits.min_rate),
            requests: limits.requests,
            ..h2::ServerSettings::default()
        }
    }
}
