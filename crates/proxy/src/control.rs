//! What is done for all cores on one thread apart, since a busy worker must not make an endpoint look ill: probes, names,
//! endpoints that come and go with the records of a name, and what is borrowed of budgets that nodes share.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use config::{Destination, Endpoint, Upstream};
use telemetry::Gauges;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet};
use transport::dns::{Name, Names, Service};

use crate::health::Checks;
use crate::lender::{self, Desk};
use crate::node::bind;
use crate::upstream::{self, Member};
use crate::worker::{Generation, Order};

/// The thread, which ends when this is dropped.
pub struct Control {
    watches: mpsc::UnboundedSender<Watch>,
    desk: Desk,
    runtime: Handle,
}

/// What to look after from now on, instead of what was before.
pub struct Watch {
    pub generation: Arc<Generation>,
    pub gauges: Gauges,
    pub names: Arc<Names>,
    /// Who is told.
    pub workers: Vec<mpsc::UnboundedSender<Order>>,
}

/// The endpoints of an upstream with those that its services stand for at the moment.
pub fn found(upstream: &Upstream, services: &[Arc<Service>]) -> Vec<Endpoint> {
    let found: Vec<_> = services.iter().map(|service| service.found().clone()).collect();
    upstream.endpoints_with(found.iter().map(|found| found.as_slice()))
}

impl Control {
    pub fn spawn() -> std::io::Result<Control> {
        let (watches, mut inbox) = mpsc::unbounded_channel::<Watch>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (desk, errands) = Desk::new();
        thread::Builder::new().name("weir-control".into()).spawn(move || {
            LocalSet::new().block_on(&runtime, async move {
                let checks = Rc::default();
                let mut following = JoinSet::new();
                let mut lending = JoinSet::new();
                lending.spawn_local(lender::run(errands));
                while let Some(watch) = inbox.recv().await {
                    following.shutdown().await;
                    look_after(watch, &checks, &mut following);
                }
            });
        })?;
        Ok(Control { watches, desk, runtime: handle })
    }

    /// Where names are resolved.
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Where budgets that nodes share are borrowed.
    pub fn desk(&self) -> &Desk {
        &self.desk
    }

    pub fn watch(&self, watch: Watch) {
        self.desk.adopt(watch.generation.snapshot.clone(), watch.names.clone());
        let _ = self.watches.send(watch);
    }
}

fn look_after(watch: Watch, checks: &Rc<RefCell<Checks>>, following: &mut JoinSet<()>) {
    let watch = Rc::new(watch);
    let generation = &watch.generation;
    checks.borrow_mut().keep(&generation.snapshot.upstreams);
    for (at, upstream) in generation.snapshot.upstreams.iter().enumerate() {
        let tls = generation.client_tls[at].as_ref();
        checks.borrow_mut().set(upstream, &generation.members[at].load(), tls, &watch.gauges);
        for service in &generation.services[at] {
            following.spawn_local(follow(watch.clone(), at, service.clone(), checks.clone()));
        }
    }
}

/// Brings the endpoints of an upstream up to date whenever one of its services stands for others.
async fn follow(watch: Rc<Watch>, at: usize, service: Arc<Service>, checks: Rc<RefCell<Checks>>) {
    let mut changes = service.changes();
    loop {
        let _new = watch.resolve_new(at).await;
        watch.update(at, &checks);
        if changes.changed().await.is_err() {
            return;
        }
    }
}

impl Watch {
    /// Resolves the names of endpoints that are to come, for no call should have to wait for that. They stay resolved
    /// for as long as the answer is held.
    async fn resolve_new(&self, at: usize) -> Vec<Arc<Name>> {
        let known = self.generation.members[at].load_full();
        let endpoints = found(&self.generation.snapshot.upstreams[at], &self.generation.services[at]);
        let new = endpoints.iter().filter(|it| !known.iter().any(|known| known.endpoint.address == it.address));
        let names = new.filter_map(|endpoint| match &endpoint.address {
            Destination::Name { host, .. } => Some(self.names.host(host)),
            Destination::Ip(_) | Destination::Unix(_) => None,
        });
        let names: Vec<_> = names.collect();
        let all = async {
            for name in &names {
                name.settled().await;
            }
        };
        let _ = tokio::time::timeout(TARGETS, all).await;
        names
    }

    fn update(&self, at: usize, checks: &RefCell<Checks>) {
        let Watch { generation, gauges, names, workers } = self;
        let (upstream, services) = (&generation.snapshot.upstreams[at], &generation.services[at]);
        let before = generation.members[at].load_full();
        let now = upstream::members(upstream, found(upstream, services), Some(&before), names);
        if before.len() == now.len() && before.iter().zip(&now).all(|(before, now)| before.endpoint == now.endpoint) {
            return;
        }
        let urls = |of: &[Member], not_in: &[Member]| -> Vec<Arc<str>> {
            let missing = of.iter().filter(|it| !not_in.iter().any(|other| other.state.url == it.state.url));
            missing.map(|it| it.state.url.clone()).collect()
        };
        let (came, went) = (urls(&now, &before), urls(&before, &now));
        tracing::info!(upstream = %upstream.name, ?came, ?went, "the upstream has other endpoints");
        bind(upstream, &now);
        generation.members[at].store(Arc::new(now.clone()));
        for worker in workers {
            // One that has ended needs none.
            let _ = worker.send(Order::Members { generation: generation.clone(), at });
        }
        checks.borrow_mut().set(upstream, &now, generation.client_tls[at].as_ref(), gauges);
        for url in went {
            gauges.endpoint_gone(&upstream.name, &url);
        }
    }
}

/// How long the endpoints that can be resolved wait for those that cannot.
const TARGETS: Duration = Duration::from_secs(3);
