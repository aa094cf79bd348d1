//! The node: workers, listeners, health checks and telemetry, and how all of them change together.
//!
//! A new snapshot is first prepared (certificates loaded, addresses bound) and then put in force. Whatever
//! can fail is in the first half, which changes nothing.

use std::collections::HashMap;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use cache::{Purge, Purged, Store};
use config::{Address, Snapshot, Upstream};
use disk::Disk;
use journal::Journal;
use rustls::ServerConfig;
use telemetry::{Recorder, Telemetry};
use tokio::sync::{mpsc, oneshot};
use transport::dns::{Asked, Names, Patience, Resolver};
use transport::listen::{self, Listening};

use crate::acme::{Acme, Certificate};
use crate::board::Board;
use crate::booking;
use crate::control::{Control, Watch};
use crate::models;
use crate::status::Upstreams;
use crate::upstream::{EndpointState, Member};
use crate::worker::{self, Generation, Order, Shared};

mod figures;
mod prepare;
mod shares;
mod tls;

use figures::{budgets, kept, named};
use prepare::{Prepared, prepare, settings};
pub use shares::{CacheShare, CacheShares};
pub use tls::provider;
use tls::{admin_tls, client_tls, server_tls};

/// What kept a snapshot from coming into force, and where the document says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `listeners.web.address`.
    pub at: String,
    pub message: String,
}

pub struct Node {
    generation: Arc<Generation>,
    workers: Vec<WorkerHandle>,
    control: Control,
    telemetry: Telemetry,
    names: Arc<Names>,
    acme: Acme,
    upstreams: Upstreams,
    /// The answers that are kept.
    store: Arc<Store>,
    disk: Arc<Disk>,
    /// Listeners by name.
    bound: HashMap<Arc<str>, Bound>,
    board: Arc<Board>,
    /// Where it is written down what calls cost.
    journal: Option<Journal>,
    /// The generation in force, for whoever reads what models have served.
    served: Arc<ArcSwap<Generation>>,
    /// Where the node is operated. It listens elsewhere; what can fail of it fails here.
    admin_tls: Arc<ArcSwapOption<ServerConfig>>,
}

struct WorkerHandle {
    orders: mpsc::UnboundedSender<Order>,
    thread: Option<JoinHandle<()>>,
}

/// A listener's sockets, for as long as a document has it at that address.
#[derive(Clone)]
struct Bound {
    address: Address,
    listening: Arc<Listening>,
}

/// The listening sockets of a process, on their way to the one that follows it. They are the same sockets: both may
/// accept from them, and what waits in their queues is lost to neither.
#[derive(Default)]
pub struct Sockets {
    pub listeners: Vec<Passed>,
    /// Of `telemetry.metrics`.
    pub metrics: Option<TcpListener>,
}

/// Those of one listener.
pub struct Passed {
    pub name: String,
    /// As the document says it.
    pub address: Address,
    pub sockets: Vec<OwnedFd>,
}

impl Node {
    pub fn start(snapshot: Arc<Snapshot>) -> Result<Node, Vec<Problem>> {
        Node::follow(snapshot, Sockets::default())
    }

    /// Starts on the sockets of another process where the document still has them. That process goes on accepting
    /// from them, and files of Unix sockets stay its own until [`Node::take_files`].
    pub fn follow(snapshot: Arc<Snapshot>, inherited: Sockets) -> Result<Node, Vec<Problem>> {
        let Sockets { listeners, metrics } = inherited;
        let wrong = |at: &str, message: String| vec![Problem { at: at.to_owned(), message }];
        let control =
            Control::spawn().map_err(|error| wrong("", format!("cannot start the control thread: {error}")))?;
        let names = Arc::new(Names::new(asked(&snapshot.node.dns), control.runtime().clone()));
        let workers = snapshot.node.workers;
        let acme = Acme::new();
        let prepared = prepare(&snapshot, workers, None, &HashMap::new(), listeners, &names, &acme)?;
        let (telemetry, recorders) = Telemetry::start(prepared.telemetry.clone(), workers, metrics)
            .map_err(|error| wrong("telemetry", chain(&error)))?;
        telemetry.gauges().loaded(&snapshot.revision.hash);
        let store = Store::new(snapshot.node.cache_memory);
        let counted = store.clone();
        let disk = Arc::new(Disk::new(store.tier.clone()));
        disk.apply(disk_settings(&snapshot));
        let board = Board::new(workers);
        let journal = booking::open(&snapshot).map_err(|problem| vec![problem])?;
        let shared = Shared {
            board: board.clone(),
            names: names.clone(),
            store: store.clone(),
            disk: disk.clone(),
            desk: control.desk().clone(),
        };
        let handles = spawn_workers(recorders, &prepared.generation, &shared, journal.as_ref())
            .map_err(|error| wrong("node.workers", format!("cannot start a worker: {error}")))?;
        let served = Arc::new(ArcSwap::new(prepared.generation.clone()));
        let mut node = Node {
            generation: prepared.generation.clone(),
            workers: handles,
            control,
            telemetry,
            names,
            acme,
            upstreams: Upstreams::new(&prepared.generation),
            store,
            disk,
            bound: HashMap::new(),
            board,
            journal,
            served,
            admin_tls: Arc::default(),
        };
        node.commit(prepared);
        let upstreams = node.upstreams.clone();
        node.telemetry.gauges().read_from(move || upstreams.figures());
        let served = node.served.clone();
        node.telemetry.gauges().read_from(move || {
            let generation = served.load();
            models::figures(&generation.snapshot.models, &generation.models)
        });
        let served = node.served.clone();
        node.telemetry.gauges().read_from(move || budgets(&served.load().snapshot));
        node.telemetry.gauges().read_from(move || kept(&counted));
        let names = node.names.clone();
        node.telemetry.gauges().read_from(move || named(&names));
        let certificates = node.upstreams.clone();
        node.telemetry.gauges().read_from(move || certificates.certificate_figures());
        node.telemetry.set_ready(true);
        Ok(node)
    }

    /// Puts a snapshot in force on all workers, or leaves everything as it was and says why.
    pub fn apply(&mut self, snapshot: Arc<Snapshot>) -> Result<(), Vec<Problem>> {
        if snapshot.node.workers != self.workers.len() {
            tracing::warn!(
                running = self.workers.len(),
                wanted = snapshot.node.workers,
                "the number of workers changes with the next start"
            );
        }
        let (workers, old) = (self.workers.len(), Some(&*self.generation));
        // Names that are new are asked for while all is prepared, so how they are comes first, and is taken back.
        let dns = &snapshot.node.dns;
        let asked_before = (*dns != self.generation.snapshot.node.dns).then(|| self.names.ask_by(asked(dns)));
        let result =
            prepare(&snapshot, workers, old, &self.bound, Vec::new(), &self.names, &self.acme).and_then(|prepared| {
                let before = self.telemetry.settings();
                self.telemetry
                    .reconfigure(prepared.telemetry.clone())
                    .map_err(|error| vec![Problem { at: "telemetry".into(), message: chain(&error) }])?;
                if let Err(problems) = prepared.listen() {
                    if let Err(error) = self.telemetry.reconfigure(before) {
                        tracing::error!(error = chain(&error), "telemetry stays as the refused document has it");
                    }
                    return Err(problems);
                }
                Ok(prepared)
            });
        match result {
            Ok(prepared) => {
                self.store.resize(snapshot.node.cache_memory);
                self.disk.apply(disk_settings(&snapshot));
                self.commit(prepared);
                self.telemetry.gauges().reloaded(&snapshot.revision.hash);
                Ok(())
            }
            Err(problems) => {
                if let Some(before) = asked_before {
                    self.names.ask_by(before);
                }
                self.telemetry.gauges().reload_failed();
                Err(problems)
            }
        }
    }

    /// A document was refused before it became a snapshot.
    pub fn refused(&self) {
        self.telemetry.gauges().reload_failed();
    }

    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.generation.snapshot
    }

    /// Forgets stored answers; says how many. What is on its way meanwhile is not kept.
    pub fn purge(&self, purge: &Purge) -> Purged {
        self.store.purge(purge)
    }

    /// What stored answers take, and for whom.
    pub fn cache_shares(&self) -> CacheShares {
        CacheShares::of(&self.store)
    }

    /// TLS of the admin API as it is in force, for as long as the node is there; changes with the document.
    pub fn admin_tls(&self) -> &Arc<ArcSwapOption<ServerConfig>> {
        &self.admin_tls
    }

    pub fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// How upstreams and their endpoints are, and the way to drain one; for any thread.
    pub fn upstreams(&self) -> &Upstreams {
        &self.upstreams
    }

    /// Load of each worker, in thousandths of a core.
    pub fn loads(&self) -> Vec<u32> {
        self.board.loads()
    }

    /// Where each listener is bound, with the port that was found for port 0.
    pub fn addresses(&self) -> Vec<(Arc<str>, Address)> {
        let listeners = self.generation.snapshot.listeners.iter();
        let found = |listening: &Listening| match listening.local_addr() {
            listen::Address::Ip(address) => Address::Ip(*address),
            listen::Address::Unix(path) => Address::Unix(path.clone()),
        };
        listeners.filter_map(|it| Some((it.name.clone(), found(&self.bound.get(&it.name)?.listening)))).collect()
    }

    /// The listening sockets, for a process that follows this one.
    pub fn sockets(&self) -> std::io::Result<Sockets> {
        let mut listeners = Vec::new();
        for (name, Bound { address, listening }) in &self.bound {
            let sockets = listening.pass_on()?;
            listeners.push(Passed { name: name.to_string(), address: address.clone(), sockets });
        }
        Ok(Sockets { listeners, metrics: self.telemetry.metrics_socket()? })
    }

    /// From now on the files of Unix sockets go with this node, or stay for one that follows it.
    pub fn take_files(&self, ours: bool) {
        for bound in self.bound.values() {
            bound.listening.owns_file(ours);
        }
    }

    /// Leaves what is new to another process, and finishes what is under way: every connection ends with its next
    /// answer, or when it has been idle for too long. `done` is called when none is left; then comes
    /// [`Node::stop`], which may also come before.
    pub fn retire(&mut self, done: impl FnOnce() + Send + 'static) {
        self.telemetry.set_ready(false);
        self.telemetry.close_endpoint();
        // The one that follows asks from now on.
        self.acme.stop();
        self.disk.release();
        self.bound.clear();
        self.drain(true, done);
    }

    /// Finishes what is under way, for `patience` at most; true if nothing had to be cut.
    pub fn stop(mut self, patience: Duration) -> bool {
        self.telemetry.set_ready(false);
        // The workers hold their own ends of the sockets, and let go of them as they drain.
        self.bound.clear();
        let (tell, told) = std::sync::mpsc::channel();
        self.drain(false, move || {
            let _ = tell.send(());
        });
        let clean = told.recv_timeout(patience).is_ok();
        let threads: Vec<_> = self.workers.iter_mut().filter_map(|worker| worker.thread.take()).collect();
        // Workers hold each other's channels; an empty list lets every inbox close.
        for worker in &self.workers {
            let _ = worker.orders.send(Order::Peers(Vec::new()));
            let _ = worker.orders.send(Order::Stop);
        }
        self.workers.clear();
        for thread in threads {
            let _ = thread.join();
        }
        // Nothing is reserved any more.
        if self.generation.snapshot.books.is_shared() {
            self.control.desk().give_back(GIVING_BACK);
        }
        self.disk.close();
        if let Some(journal) = self.journal.take()
            && !journal.close()
        {
            tracing::error!("some of what calls cost could not be written down: it waits for the next start");
        }
        self.telemetry.flush_and_stop();
        clean
    }

    fn drain(&self, gently: bool, done: impl FnOnce() + Send + 'static) {
        let workers: Vec<_> = self.workers.iter().map(|worker| worker.orders.clone()).collect();
        thread::spawn(move || {
            // Asked twice: a connection may have been on its way from one worker to another, which had answered.
            for _ in 0..2 {
                let ask = |orders: &mpsc::UnboundedSender<Order>| {
                    let (done, wait) = oneshot::channel();
                    // A worker that is gone has nothing under way.
                    let _ = orders.send(Order::Drain { gently, done });
                    wait
                };
                let answers: Vec<_> = workers.iter().map(ask).collect();
                for answer in answers {
                    let _ = answer.blocking_recv();
                }
            }
            done();
        });
    }

    /// The second half: nothing here can fail.
    fn commit(&mut self, prepared: Prepared) {
        let Prepared { generation, sockets, left, bound, admin_tls, .. } = prepared;
        let new: Vec<&Listening> = sockets.iter().map(|(_, listening)| &**listening).collect();
        left.iter().for_each(|it| it.leave(&new));
        put_in_force(&generation);
        self.admin_tls.store(admin_tls);
        let acks: Vec<_> = self
            .workers
            .iter()
            .map(|worker| {
                let (done, wait) = oneshot::channel();
                let (generation, sockets) = (generation.clone(), sockets.clone());
                let _ = worker.orders.send(Order::Apply { generation, sockets, done });
                wait
            })
            .collect();
        for ack in acks {
            let _ = ack.blocking_recv();
        }
        self.control.watch(Watch {
            generation: generation.clone(),
            gauges: self.telemetry.gauges(),
            names: self.names.clone(),
            workers: self.workers.iter().map(|worker| worker.orders.clone()).collect(),
        });
        self.acme.keep(distinct(&generation.certificates), &self.names);
        self.forget_endpoints(&generation);
        self.upstreams.set(&generation);
        self.served.store(generation.clone());
        self.generation = generation;
        self.bound = bound;
    }

    /// Gauges of endpoints that are no more would otherwise be shown for ever.
    fn forget_endpoints(&self, new: &Generation) {
        let states = |generation: &Generation| -> Vec<Arc<EndpointState>> {
            let members = generation.members.iter().map(|members| members.load_full());
            members.flat_map(|members| members.iter().map(|it| it.state.clone()).collect::<Vec<_>>()).collect()
        };
        let new = states(new);
        let still = |old: &EndpointState| new.iter().any(|it| it.upstream == old.upstream && it.url == old.url);
        for gone in states(&self.generation).iter().filter(|old| !still(old)) {
            self.telemetry.gauges().endpoint_gone(&gone.upstream, &gone.url);
        }
    }
}

/// Checks what can be checked without being in force: certificates and keys. For `weir check`.
pub fn check(snapshot: &Snapshot) -> Vec<Problem> {
    let mut problems = Vec::new();
    server_tls(snapshot, None, &[], &mut problems);
    client_tls(snapshot, &mut problems);
    admin_tls(snapshot, &mut problems);
    settings(snapshot, &mut problems);
    problems
}

fn distinct(certificates: &[Option<Arc<Certificate>>]) -> Vec<Arc<Certificate>> {
    let mut distinct: Vec<Arc<Certificate>> = Vec::new();
    for certificate in certificates.iter().flatten() {
        if !distinct.iter().any(|it| Arc::ptr_eq(it, certificate)) {
            distinct.push(certificate.clone());
        }
    }
    distinct
}

/// Bounds on connections are told to those who count them; what was known of an ejection that the document no longer
/// has is forgotten.
fn put_in_force(generation: &Generation) {
    for (at, upstream) in generation.snapshot.upstreams.iter().enumerate() {
        let (state, limits) = (&generation.upstreams[at], upstream.limits.as_ref());
        let (waiting, wait) = limits.map_or((0, Duration::ZERO), |limits| (limits.waiting, limits.wait));
        state.slots.bound(limits.and_then(|limits| limits.connections), waiting, wait);
        if upstream.breaker.is_none() {
            state.breaker.forget();
        }
        bind(upstream, &generation.members[at].load());
    }
}

/// What the document bounds of each endpoint.
pub fn bind(upstream: &Upstream, members: &[Member]) {
    let limits = upstream.limits.as_ref();
    let (waiting, wait) = limits.map_or((0, Duration::ZERO), |limits| (limits.waiting, limits.wait));
    for member in members {
        member.state.slots.bound(limits.and_then(|limits| limits.endpoint_connections), waiting, wait);
        if upstream.eject.is_none() {
            member.state.circuit.forget();
        }
    }
}

fn spawn_workers(
    recorders: Vec<Recorder>,
    generation: &Arc<Generation>,
    shared: &Shared,
    journal: Option<&Journal>,
) -> std::io::Result<Vec<WorkerHandle>> {
    let mut handles = Vec::new();
    for (index, recorder) in recorders.into_iter().enumerate() {
        let (orders, inbox) = mpsc::unbounded_channel();
        let (generation, shared) = (generation.clone(), shared.clone());
        let journal = journal.map(Journal::handle);
        let thread = thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            if let Err(error) = worker::run(index, generation, recorder, shared, journal, inbox) {
                tracing::error!(worker = index, %error, "a worker could not start");
            }
        })?;
        handles.push(WorkerHandle { orders, thread: Some(thread) });
    }
    let peers: Vec<_> = handles.iter().map(|worker| worker.orders.clone()).collect();
    for worker in &handles {
        let _ = worker.orders.send(Order::Peers(peers.clone()));
    }
    Ok(handles)
}

fn disk_settings(snapshot: &Snapshot) -> Option<disk::Settings> {
    let config::CacheDisk { folder, size } = snapshot.node.cache_disk.clone()?;
    Some(disk::Settings { folder, size })
}

/// How names are asked for: of the document's servers, or the system's; where the system has none, of this machine.
fn asked(dns: &config::Dns) -> Asked {
    let config::Dns { servers, stale, gone } = dns;
    let resolver = match &servers[..] {
        [] => Resolver::system().or_else(|error| {
            tracing::warn!(reason = %error.reason, "no resolver is configured; names are asked of 127.0.0.1");
            Resolver::with_servers(&[([127, 0, 0, 1], 53).into()])
        }),
        servers => Resolver::with_servers(servers),
    };
    let resolver = resolver.unwrap_or_else(|error| {
        unreachable!("a server given by address needs nothing of the system: {}", error.reason)
    });
    Asked { resolver: Arc::new(resolver), patience: Patience { stale: *stale, gone: *gone } }
}

/// An error with what caused it, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// How long a node that ends waits for stores to take back what they have lent.
const GIVING_BACK: Duration = Duration::from_secs(2);
