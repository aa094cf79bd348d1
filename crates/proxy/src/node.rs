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
use cache::disk::{TierState, TierUsage};
use cache::{Purge, Store};
use config::{Address, Snapshot, Upstream};
use disk::Disk;
use journal::Journal;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;
use telemetry::{Figure, Recorder, Row, Telemetry};
use tokio::sync::{mpsc, oneshot};
use transport::dns::{Asked, NameStatus, Names, Patience, Resolver, Service};
use transport::listen::{self, Listening};
use transport::tls;

use crate::acme::{Acme, Certificate};
use crate::board::Board;
use crate::booking;
use crate::control::{Control, Watch, found};
use crate::crowd::Crowd;
use crate::models::{States, figures};
use crate::status::Upstreams;
use crate::upstream::{self, EndpointState, Member, UpstreamState};
use crate::worker::{self, Generation, Order, Shared};

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

/// All that a snapshot needs before it can be put in force.
struct Prepared {
    generation: Arc<Generation>,
    sockets: Vec<(Arc<str>, Arc<Listening>)>,
    bound: HashMap<Arc<str>, Bound>,
    telemetry: telemetry::Settings,
    admin_tls: Option<Arc<ServerConfig>>,
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
            figures(&generation.snapshot.models, &generation.models)
        });
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
                match self.telemetry.reconfigure(prepared.telemetry.clone()) {
                    Ok(()) => Ok(prepared),
                    Err(error) => Err(vec![Problem { at: "telemetry".into(), message: chain(&error) }]),
                }
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
    pub fn purge(&self, purge: &Purge) -> usize {
        self.store.purge(purge)
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
        let Prepared { generation, sockets, bound, telemetry: _, admin_tls } = prepared;
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

impl Passed {
    /// A listener may have another name by now; one that has any port is known by nothing else.
    fn is_for(&self, name: &str, address: &Address) -> bool {
        let any_port = matches!(address, Address::Ip(address) if address.port() == 0);
        self.address == *address && (!any_port || self.name == name)
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

/// The first half: whatever can fail.
fn prepare(
    snapshot: &Arc<Snapshot>,
    workers: usize,
    old: Option<&Generation>,
    bound: &HashMap<Arc<str>, Bound>,
    mut inherited: Vec<Passed>,
    names: &Names,
    acme: &Acme,
) -> Result<Prepared, Vec<Problem>> {
    let mut problems = Vec::new();
    let certificates = certificates(snapshot, acme);
    let server_configs = server_tls(snapshot, old, &certificates, &mut problems);
    let client_tls = client_tls(snapshot, &mut problems);
    let admin_tls = admin_tls(snapshot, &mut problems);
    let telemetry = settings(snapshot, &mut problems);
    let mut sockets = Vec::new();
    let mut now_bound = HashMap::new();
    for listener in &snapshot.listeners {
        if let Some(there) = bound.get(&listener.name).filter(|bound| bound.address == listener.address) {
            now_bound.insert(listener.name.clone(), there.clone());
            continue;
        }
        let place = place(&listener.address);
        // A listener that changes its name keeps its address, and for a moment both have it.
        let ours = bound.values().any(|bound| bound.address == listener.address);
        let passed = inherited.iter().position(|it| it.is_for(&listener.name, &listener.address));
        let listening = match passed {
            Some(passed) => Listening::inherit(&place, inherited.swap_remove(passed).sockets, workers),
            None if ours => Listening::join(&place, workers),
            None => Listening::bind(&place, workers),
        };
        match listening.and_then(|listening| listening.listen().map(|()| listening)) {
            Ok(listening) => {
                let listening = Arc::new(listening);
                let bound = Bound { address: listener.address.clone(), listening: listening.clone() };
                now_bound.insert(listener.name.clone(), bound);
                sockets.push((listener.name.clone(), listening));
            }
            Err(error) => problems.push(Problem {
                at: format!("listeners.{}.address", listener.name),
                message: format!("cannot listen on {}: {error}", shown(&listener.address)),
            }),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    // Nothing can fail any more: certificates of listeners that stay are changed in place.
    let server_tls = server_configs
        .into_iter()
        .zip(&snapshot.listeners)
        .map(|(config, listener)| {
            let config = config?;
            let before = old.and_then(|old| {
                let at = old.snapshot.listeners.iter().position(|it| it.name == listener.name)?;
                old.server_tls[at].clone()
            });
            Some(match before {
                Some(current) => {
                    current.store(config);
                    current
                }
                None => Arc::new(ArcSwap::new(config)),
            })
        })
        .collect();
    let upstreams = snapshot.upstreams.iter().map(|upstream| upstream_state(upstream, old)).collect();
    let services = services(snapshot, names);
    let members = snapshot.upstreams.iter().zip(&services).map(|(upstream, services)| {
        let at = old.and_then(|old| old.snapshot.upstreams.iter().position(|it| it.name == upstream.name));
        let known = old.zip(at).map(|(old, at)| old.members[at].load_full());
        let endpoints = found(upstream, services);
        ArcSwap::from_pointee(upstream::members(upstream, endpoints, known.as_deref().map(Vec::as_slice), names))
    });
    let members = members.collect();
    let crowds = crowds(snapshot, old);
    let models = States::new(&snapshot.models, old.map(|old| (&old.snapshot.models, &old.models)));
    let snapshot = snapshot.clone();
    let tokens = acme.tokens().clone();
    let generation = Arc::new(Generation {
        snapshot,
        upstreams,
        members,
        services,
        client_tls,
        models,
        certificates,
        tokens,
        server_tls,
        crowds,
    });
    Ok(Prepared { generation, sockets, bound: now_bound, telemetry, admin_tls })
}

/// Those of listeners that stay go on counting.
fn crowds(snapshot: &Snapshot, old: Option<&Generation>) -> Vec<Arc<Crowd>> {
    let before: Vec<_> = old.iter().flat_map(|old| old.snapshot.listeners.iter().zip(&old.crowds)).collect();
    let node = before.first().map(|(_, crowd)| crowd.node().clone()).unwrap_or_default();
    let crowds = snapshot.listeners.iter().map(|listener| {
        let same = before.iter().find(|(it, _)| it.name == listener.name && it.address == listener.address);
        let crowd = same.map_or_else(|| Crowd::new(node.clone()), |(_, crowd)| (*crowd).clone());
        crowd.allow(&listener.limits, snapshot.node.connections);
        crowd
    });
    crowds.collect()
}

/// Certificates that are issued, as the snapshot's listeners. Those that want the same one share it.
fn certificates(snapshot: &Snapshot, acme: &Acme) -> Vec<Option<Arc<Certificate>>> {
    let mut certificates: Vec<Option<Arc<Certificate>>> = Vec::new();
    for listener in &snapshot.listeners {
        let wanted = listener.tls.as_ref().and_then(|tls| tls.acme.as_ref());
        let certificate = wanted.map(|wanted| {
            let same = certificates.iter().flatten().find(|it| it.wanted == *wanted).cloned();
            same.unwrap_or_else(|| acme.certificate(wanted))
        });
        certificates.push(certificate);
    }
    certificates
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

fn server_tls(
    snapshot: &Snapshot,
    old: Option<&Generation>,
    issued: &[Option<Arc<Certificate>>],
    problems: &mut Vec<Problem>,
) -> Vec<Option<Arc<ServerConfig>>> {
    let configs = snapshot.listeners.iter().enumerate().map(|(at, listener)| {
        let wanted = listener.tls.as_ref()?;
        // Certificates that did not change keep their session tickets.
        let same = old.and_then(|old| {
            let at = old
                .snapshot
                .listeners
                .iter()
                .position(|it| it.name == listener.name && it.tls.as_ref() == Some(wanted))?;
            old.server_tls[at].as_ref().map(|current| current.load_full())
        });
        if same.is_some() {
            return same;
        }
        let live = match (issued.get(at), &wanted.acme) {
            (Some(Some(issued)), _) => vec![issued.live.clone()],
            // Only looked at.
            (_, Some(_)) => vec![Arc::default()],
            (_, None) => Vec::new(),
        };
        built(server_input(wanted, live).build(&provider()), &wanted.at, problems)
    });
    configs.collect()
}

fn server_input(wanted: &config::ServerTls, live: Vec<Arc<tls::Live>>) -> tls::ServerTls<'_> {
    tls::ServerTls {
        certificates: wanted.certificates.iter().map(identity).collect(),
        live,
        client: wanted.client.as_ref().map(|client| tls::ClientCertificates {
            authorities: &client.authorities,
            revoked: &client.revoked,
            required: client.required,
        }),
        tls12: wanted.tls12,
    }
}

fn admin_tls(snapshot: &Snapshot, problems: &mut Vec<Problem>) -> Option<Arc<ServerConfig>> {
    let wanted = snapshot.admin.tls.as_ref()?;
    let mut config = built(server_input(wanted, Vec::new()).build(&provider()), &wanted.at, problems)?;
    // It speaks nothing else.
    Arc::make_mut(&mut config).alpn_protocols = vec![b"http/1.1".to_vec()];
    Some(config)
}

fn client_tls(snapshot: &Snapshot, problems: &mut Vec<Problem>) -> Vec<Option<Arc<ClientConfig>>> {
    let configs = snapshot.upstreams.iter().map(|upstream| {
        if !upstream.written().any(|endpoint| endpoint.tls) {
            return None;
        }
        let tls = upstream.tls.as_ref();
        let at = tls.map_or_else(|| format!("upstreams.{}", upstream.name), |tls| tls.at.clone());
        let input = tls::ClientTls {
            authorities: tls.and_then(|tls| tls.authorities.as_deref()),
            certificate: tls.and_then(|tls| tls.certificate.as_ref()).map(identity),
            verify: tls.is_none_or(|tls| tls.verify),
            alpn: match upstream.protocol {
                config::Protocol::Http1 => &[tls::Alpn::Http1],
                config::Protocol::Http2 => &[tls::Alpn::H2],
                config::Protocol::Auto => &[tls::Alpn::H2, tls::Alpn::Http1],
            },
        };
        built(input.build(&provider()), &at, problems)
    });
    configs.collect()
}

fn collector_tls(
    tls: &config::ClientTls,
    host: String,
    protocol: config::OtlpProtocol,
    problems: &mut Vec<Problem>,
) -> Option<telemetry::Tls> {
    let input = tls::ClientTls {
        authorities: tls.authorities.as_deref(),
        certificate: tls.certificate.as_ref().map(identity),
        verify: tls.verify,
        alpn: match protocol {
            config::OtlpProtocol::Http => &[tls::Alpn::Http1],
            config::OtlpProtocol::Grpc => &[tls::Alpn::H2],
        },
    };
    let config = built(input.build(&provider()), &tls.at, problems)?;
    let name = tls.name.clone().unwrap_or(host);
    match ServerName::try_from(name) {
        Ok(name) => Some(telemetry::Tls { config, name }),
        Err(_) => {
            problems.push(Problem { at: format!("{}.name", tls.at), message: "expected a name or an address".into() });
            None
        }
    }
}

fn identity(certificate: &config::Certificate) -> tls::Identity<'_> {
    tls::Identity { chain: &certificate.chain, key: certificate.key.expose() }
}

pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    // Installed by the binary, once; a test that has none gets the same.
    rustls::crypto::CryptoProvider::get_default()
        .cloned()
        .unwrap_or_else(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
}

/// The configuration, or what is wrong with it told as problems of the place in the document.
fn built<C>(
    result: Result<tls::Built<C>, Vec<tls::TlsError>>,
    at: &str,
    problems: &mut Vec<Problem>,
) -> Option<Arc<C>> {
    match result {
        Ok(tls::Built { config, warnings }) => {
            for warning in warnings {
                tracing::warn!(at, "{warning}");
            }
            Some(config)
        }
        Err(errors) => {
            problems.extend(errors.into_iter().map(|error| Problem {
                at: match error.which {
                    tls::Which::Certificate(index) if at.starts_with("listeners.") => {
                        format!("{at}.certificates[{index}].cert")
                    }
                    tls::Which::Key(index) if at.starts_with("listeners.") => format!("{at}.certificates[{index}].key"),
                    tls::Which::Certificate(_) => format!("{at}.certificate.cert"),
                    tls::Which::Key(_) => format!("{at}.certificate.key"),
                    _ => at.to_owned(),
                },
                message: error.message,
            }));
            None
        }
    }
}

/// An upstream's state; one that was there before keeps what is known of it.
fn upstream_state(upstream: &Upstream, old: Option<&Generation>) -> Arc<UpstreamState> {
    let known = old.and_then(|old| old.upstreams.iter().find(|state| state.name == upstream.name).cloned());
    known.unwrap_or_else(|| Arc::new(UpstreamState::new(upstream)))
}

/// Whom to ask for endpoints. The first answers are waited for, so that the first calls find some; but not for long: a
/// node also starts while name servers are down.
fn services(snapshot: &Snapshot, names: &Names) -> Vec<Vec<Arc<Service>>> {
    let of_one = |upstream: &Arc<Upstream>| upstream.discoveries.iter().map(|it| names.service(&it.service)).collect();
    let services: Vec<Vec<_>> = snapshot.upstreams.iter().map(of_one).collect();
    let all: Vec<_> = services.iter().flatten().cloned().collect();
    if !all.is_empty() {
        names.wait_for(all, FIRST_ANSWERS);
    }
    services
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

/// What the cache holds, as numbers.
fn kept(store: &Store) -> Vec<Figure> {
    let cache::Usage { bytes, entries, evicted, revalidated } = store.usage();
    let [unchanged, replaced, failed] = revalidated;
    let results = [("unchanged", unchanged), ("replaced", replaced), ("failed", failed)];
    let row = |(result, value): (&str, u64)| Row { labels: vec![("result", result.into())], value };
    vec![
        Figure::gauge("weir_cache_bytes", "Memory that stored answers take", bytes as u64),
        Figure::gauge("weir_cache_entries", "Stored answers", entries as u64),
        Figure::counter("weir_cache_evictions", "Stored answers dropped for want of memory", evicted),
        Figure {
            name: "weir_cache_revalidations",
            help: "Questions about stale answers that no call waited for",
            counter: true,
            rows: results.map(row).into(),
        },
    ]
    .into_iter()
    .chain(kept_on_disk(store.tier.usage()))
    .collect()
}

/// Nothing where the document wants no disk.
fn kept_on_disk(usage: TierUsage) -> Vec<Figure> {
    let TierUsage { state, bytes, entries, counts: [hits, written, dropped, evicted, errors, corrupt] } = usage;
    if state == TierState::Off {
        return Vec::new();
    }
    let results = [("failed", errors), ("corrupt", corrupt)];
    let row = |(result, value): (&str, u64)| Row { labels: vec![("kind", result.into())], value };
    vec![
        Figure::gauge("weir_cache_disk_up", "Whether the disk is in use", u64::from(state == TierState::On)),
        Figure::gauge("weir_cache_disk_bytes", "Bytes of files with stored answers", bytes),
        Figure::gauge("weir_cache_disk_entries", "Stored answers on the disk", entries as u64),
        Figure::counter("weir_cache_disk_hits", "Stored answers read from the disk", hits),
        Figure::counter("weir_cache_disk_writes", "Stored answers written to the disk", written),
        Figure::counter("weir_cache_disk_dropped", "Stored answers not written to the disk", dropped),
        Figure::counter("weir_cache_disk_evictions", "Files with stored answers that gave way", evicted),
        Figure {
            name: "weir_cache_disk_errors",
            help: "Times that the disk failed, or gave back something else than was written",
            counter: true,
            rows: results.map(row).into(),
        },
    ]
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

/// How names are, as numbers.
fn named(names: &Names) -> Vec<Figure> {
    let all = names.status();
    let figure = |name, help, counter, value: fn(&NameStatus) -> Option<u64>| {
        let row = |it: &NameStatus| Some(Row { labels: vec![("name", it.name.clone())], value: value(it)? });
        Figure { name, help, counter, rows: all.iter().filter_map(row).collect() }
    };
    vec![
        figure("weir_name_answers", "Addresses of a host, places of a service", false, |it| Some(it.found as u64)),
        figure("weir_name_failures", "Questions that name servers did not answer", true, |it| Some(it.failures)),
        figure("weir_name_stale_seconds", "For how long a name is used beyond its time to live", false, |it| {
            it.stale.map(|stale| stale.as_secs())
        }),
    ]
}

fn settings(snapshot: &Snapshot, problems: &mut Vec<Problem>) -> telemetry::Settings {
    let told = &snapshot.telemetry;
    telemetry::Settings {
        metrics: told.metrics,
        access_log: told.access_log.clone().map(|log| match log {
            config::AccessLog::Stdout => telemetry::AccessLog::Stdout,
            config::AccessLog::File(path) => telemetry::AccessLog::File(path),
        }),
        otlp: told.otlp.clone().map(|otlp| {
            let config::Otlp { endpoint, tls, host, protocol, headers, every, traces, metrics, resource } = otlp;
            let tls = tls.and_then(|tls| collector_tls(&tls, host, protocol, problems));
            let protocol = match protocol {
                config::OtlpProtocol::Http => telemetry::OtlpProtocol::Http,
                config::OtlpProtocol::Grpc => telemetry::OtlpProtocol::Grpc,
            };
            telemetry::Otlp { endpoint, tls, protocol, headers, every, traces, metrics, resource }
        }),
        max_series: told.max_series,
    }
}

fn place(address: &Address) -> listen::Address {
    match address {
        Address::Ip(address) => listen::Address::Ip(*address),
        Address::Unix(path) => listen::Address::Unix(path.clone()),
    }
}

fn shown(address: &Address) -> String {
    match address {
        Address::Ip(address) => address.to_string(),
        Address::Unix(path) => format!("unix:{}", path.display()),
    }
}

/// How long a start and a reload wait for name servers.
const FIRST_ANSWERS: Duration = Duration::from_secs(3);

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
