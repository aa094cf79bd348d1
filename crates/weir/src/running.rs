//! A gateway that runs: its node, its document, and what may be done to them while calls go on. The main thread
//! does so when it hears a signal, the admin API when it is asked.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use config::{Address, Admin, Diagnostic, Snapshot, Source};
use proxy::{Node, Sockets};
use rustls::ServerConfig;
use telemetry::Observer;

use crate::document::{self, Document, Loaded, Reading};
use crate::exit::Exit;
use crate::terminal::{Paint, tell};
use crate::watch::Watch;

pub struct Running {
    document: Document,
    state: Mutex<State>,
    /// Reads without waiting for a reload.
    pub observer: Observer,
}

struct State {
    /// `None` once it stops.
    node: Option<Node>,
    /// The text in force.
    source: Source,
    watch: Option<Watch>,
    /// Another process is about to take over, with the document as it is.
    held: bool,
}

/// What came into force.
pub struct Reloaded {
    pub before: String,
    pub revision: String,
    pub took: Duration,
    pub warnings: Vec<Diagnostic>,
}

/// Why nothing was changed.
pub enum Unchanged {
    /// The document is not what the caller took it for; this is its revision.
    Other(String),
    Refused(Vec<Diagnostic>),
    Stopping,
    HandingOver,
}

// === impl Running ===

impl Running {
    /// Starts a node, or tells whoever looks what kept it from starting.
    pub fn start(document: Document, loaded: Loaded, sockets: Sockets) -> Result<Arc<Running>, Exit> {
        let Loaded { source, snapshot, warnings } = loaded;
        tell(&document::render(&warnings, Paint::stderr()));
        let snapshot = Arc::new(snapshot);
        let node = Node::follow(snapshot.clone(), sockets).map_err(|problems| {
            tell(&document::render(&document::locate(&source, &problems), Paint::stderr()));
            // Certificates are the document's fault, addresses that are taken are not.
            if proxy::check(&snapshot).is_empty() { Exit::Failed } else { Exit::Wrong }
        })?;
        tracing::info!(document = %source.name, revision = %snapshot.revision.hash, "in force");
        tell_addresses(&node, &[]);
        let observer = node.telemetry().observer();
        let state = Mutex::new(State { node: Some(node), source, watch: None, held: false });
        Ok(Arc::new(Running { document, state, observer }))
    }

    /// What tells of changes is told which files the document consists of.
    pub fn watched_by(&self, watch: Option<Watch>) {
        self.state().watch = watch;
    }

    /// Whether the document is to stay as it is for now.
    pub fn hold(&self, held: bool) {
        self.state().held = held;
    }

    /// False of what came by standard input.
    pub fn can_be_read_again(&self) -> bool {
        !matches!(self.document, Document::Stdin(_))
    }

    /// Reads the document again and puts it in force, if it is right and, where a revision is expected, that one is.
    pub fn reload(&self, expected: Option<&str>) -> Result<Reloaded, Unchanged> {
        let begin = Instant::now();
        let mut state = self.state();
        let State { node, source: in_force, watch, held } = &mut *state;
        let node = node.as_mut().ok_or(Unchanged::Stopping)?;
        if *held {
            return Err(Unchanged::HandingOver);
        }
        let before = node.snapshot().revision.hash.clone();
        if expected.is_some_and(|expected| expected != before) {
            return Err(Unchanged::Other(before));
        }
        let Reading { result, seen } = self.document.read(Some(node.snapshot()));
        if let Some(watch) = watch {
            watch.follow(seen);
        }
        let refuse = |diagnostics: Vec<Diagnostic>, text: String| {
            tracing::error!("the document is refused; what was in force stays");
            tell(&text);
            Err(Unchanged::Refused(diagnostics))
        };
        let Loaded { source, snapshot, warnings } = match result {
            Ok(loaded) => loaded,
            Err(refused) => {
                node.refused();
                let text = refused.render(Paint::stderr());
                return refuse(refused.into_diagnostics(), text);
            }
        };
        let snapshot = Arc::new(snapshot);
        let listening = node.addresses();
        if snapshot.admin.place != node.snapshot().admin.place {
            tracing::warn!("`admin.address` changes with the next start");
        }
        // The node counts its own refusals.
        if let Err(problems) = node.apply(snapshot.clone()) {
            let diagnostics = document::locate(&source, &problems);
            let text = document::render(&diagnostics, Paint::stderr());
            return refuse(diagnostics, text);
        }
        tell(&document::render(&warnings, Paint::stderr()));
        let (revision, took) = (snapshot.revision.hash.clone(), begin.elapsed());
        tracing::info!(document = %source.name, %revision, took_ms = took.as_millis() as u64, "in force");
        tell_addresses(node, &listening);
        *in_force = source;
        Ok(Reloaded { before, revision, took, warnings })
    }

    /// Asks the node, or says that it is stopping.
    pub fn with<T>(&self, ask: impl FnOnce(&Node) -> T) -> Option<T> {
        self.state().node.as_ref().map(ask)
    }

    pub fn with_mut<T>(&self, ask: impl FnOnce(&mut Node) -> T) -> Option<T> {
        self.state().node.as_mut().map(ask)
    }

    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.with(|node| node.snapshot().clone())
    }

    /// The text in force.
    pub fn source(&self) -> Source {
        self.state().source.clone()
    }

    /// The document in force, compiled once more: its limits are none that calls count on.
    pub fn rehearse(&self) -> Result<Snapshot, Vec<Diagnostic>> {
        self.document.compile(&self.source()).map(|loaded| loaded.snapshot)
    }

    /// What a text would be as the document, without putting it in force.
    pub fn check(&self, source: Source) -> Result<Loaded, Vec<Diagnostic>> {
        let loaded = self.document.compile(&source)?;
        let problems = proxy::check(&loaded.snapshot);
        if problems.is_empty() { Ok(loaded) } else { Err(document::locate(&loaded.source, &problems)) }
    }

    pub fn admin(&self) -> Option<Admin> {
        self.with(|node| node.snapshot().admin.clone())
    }

    /// TLS of the admin API, as it changes.
    pub fn admin_tls(&self) -> Option<Arc<ArcSwapOption<ServerConfig>>> {
        self.with(|node| node.admin_tls().clone())
    }

    pub fn reopen_logs(&self) {
        self.with(|node| node.telemetry().reopen_logs());
    }

    /// Finishes what is under way; true if nothing had to be cut.
    pub fn stop(&self, patience: Duration) -> bool {
        let node = self.state().node.take();
        node.is_none_or(|node| node.stop(patience))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where it listens now and did not before.
fn tell_addresses(node: &Node, before: &[(Arc<str>, Address)]) {
    for (name, address) in node.addresses().into_iter().filter(|it| !before.contains(it)) {
        match address {
            Address::Ip(address) => tracing::info!(listener = %name, %address, "listening"),
            Address::Unix(path) => tracing::info!(listener = %name, address = %path.display(), "listening"),
        }
    }
    if let Some(address) = node.telemetry().metrics_addr().filter(|_| before.is_empty()) {
        tracing::info!(%address, "metrics at /metrics");
    }
}
