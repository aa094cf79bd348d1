//! `weir run`: a node on a document, for as long as nobody says stop.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Instant;

use config::Address;
use proxy::Node;

use crate::document::{self, Document, Loaded, Reading};
use crate::exit::Exit;
use crate::logging;
use crate::signals::{self, Event};
use crate::terminal::{Paint, complain, tell};
use crate::watch::Watch;

/// Run a gateway on a document
///
/// A change of the document, or of a file it refers to, comes into force by itself; a wrong one is
/// refused and what was in force stays.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weir run
  weir run /etc/weir/weir.yaml
  generate | weir run -
  WEIR_LOG=info,proxy=debug weir run

Signals:
  SIGTERM, SIGINT  finish what is under way, then end; a second one ends at once
  SIGHUP           read the document again
  SIGUSR1          open the access log again, after it was moved away

Exit codes: 0 stopped, 1 could not start or calls had to be cut, 2 the document is wrong")]
pub struct Args {
    /// The document; `-` is standard input
    #[arg(value_name = "FILE", default_value = "weir.yaml")]
    file: PathBuf,
}

pub fn run(args: &Args) -> Exit {
    logging::start("info");
    let (sender, events) = mpsc::channel();
    if let Err(error) = signals::listen(sender.clone()) {
        complain(&format!("cannot listen for signals: {error}"), "see how many open files the process may have");
        return Exit::Failed;
    }
    let document = match Document::open(&args.file) {
        Ok(document) => document,
        Err(unreadable) => {
            tell(&unreadable.render(Paint::stderr()));
            return Exit::Wrong;
        }
    };
    let Reading { result, seen } = document.read(None);
    let loaded = match result {
        Ok(loaded) => loaded,
        Err(refused) => {
            tell(&refused.render(Paint::stderr()));
            return Exit::Wrong;
        }
    };
    let node = match start(loaded) {
        Ok(node) => node,
        Err(exit) => return exit,
    };
    // Without it SIGHUP still works.
    let watch = Watch::start(sender).inspect_err(|error| tracing::error!(%error, "files are not watched")).ok();
    if let Some(watch) = &watch {
        watch.follow(seen);
    }
    serve(node, &document, &events, watch.as_ref())
}

/// A node, or what kept it from starting, told to whoever looks.
pub fn start(loaded: Loaded) -> Result<Node, Exit> {
    let Loaded { source, snapshot, warnings } = loaded;
    tell(&document::render(&warnings, Paint::stderr()));
    let snapshot = Arc::new(snapshot);
    let node = Node::start(snapshot.clone()).map_err(|problems| {
        tell(&document::render(&document::locate(&source, &problems), Paint::stderr()));
        // Certificates are the document's fault, addresses that are taken are not.
        if proxy::check(&snapshot).is_empty() { Exit::Failed } else { Exit::Wrong }
    })?;
    tracing::info!(document = %source.name, revision = %snapshot.revision.hash, "in force");
    tell_addresses(&node, &[]);
    Ok(node)
}

fn serve(mut node: Node, document: &Document, events: &Receiver<Event>, watch: Option<&Watch>) -> Exit {
    for event in events {
        match event {
            Event::Reload | Event::Changed => reload(&mut node, document, watch),
            Event::ReopenLogs => node.telemetry().reopen_logs(),
            Event::Stop => break,
        }
    }
    let patience = node.snapshot().node.drain;
    tracing::info!(seconds = patience.as_secs_f64(), "stopping: finishing what is under way");
    if node.stop(patience) {
        tracing::info!("stopped");
        return Exit::Ok;
    }
    tracing::warn!("stopped, with calls cut: they took longer than `node.drain`");
    Exit::Failed
}

fn reload(node: &mut Node, document: &Document, watch: Option<&Watch>) {
    let begin = Instant::now();
    let Reading { result, seen } = document.read(Some(node.snapshot()));
    if let Some(watch) = watch {
        watch.follow(seen);
    }
    let refuse = |text: String| {
        tracing::error!("the document is refused; what was in force stays");
        tell(&text);
    };
    let Loaded { source, snapshot, warnings } = match result {
        Ok(loaded) => loaded,
        Err(refused) => {
            node.refused();
            return refuse(refused.render(Paint::stderr()));
        }
    };
    let snapshot = Arc::new(snapshot);
    let before = node.addresses();
    // The node counts its own refusals.
    if let Err(problems) = node.apply(snapshot.clone()) {
        return refuse(document::render(&document::locate(&source, &problems), Paint::stderr()));
    }
    tell(&document::render(&warnings, Paint::stderr()));
    let millis = begin.elapsed().as_millis() as u64;
    tracing::info!(document = %source.name, revision = %snapshot.revision.hash, took_ms = millis, "in force");
    tell_addresses(node, &before);
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
